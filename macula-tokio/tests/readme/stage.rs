//! Where the sessions of a page are played.

use std::{
    collections::BTreeMap,
    env, fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream, UdpSocket},
    path::Path,
    process::{self, Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// For everything that is waited for.
const SOON: Duration = Duration::from_secs(30);
/// What the web server answers.
const ANSWER: &str = "hello from behind the NAT\n";

/// One machine that plays all hosts of a page.
#[derive(Debug)]
pub(crate) struct Stage {
    directory: TempDir,
    /// What stands on the page, and what is used instead.
    instead: Vec<(String, String)>,
    /// Pin of the relay or the peer that listens, once it has told.
    pin: Option<String>,
    /// Node id of the peer that listens, once it has told.
    node_id: Option<String>,
    /// Hosts, and the port of the EPMD of each.
    epmd: BTreeMap<String, u16>,
    actors: Vec<Actor>,
}

/// A command.
#[derive(Debug)]
struct Actor {
    name: String,
    child: Option<Child>,
    stays: bool,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let (relay, peer) = (free_udp_port(), free_udp_port());
        let (forward, metrics, service) = (free_port(), free_port(), web_server());
        let id = process::id();
        let (x, y) = (16 + id % 199, 1 + id / 199 % 250);
        let instead = [
            ("[::]:4434", relay.clone()),
            ("relay.example:4434", relay.clone()),
            ("--relay relay.example", format!("--relay {relay}")),
            // Whatever the directory, the relay listens here.
            ("macula relay ", format!("macula relay --listen {relay} ")),
            ("[::]:4433", peer.clone()),
            ("alice.example", peer.clone()),
            ("=left.example:4433", format!("={peer}")),
            ("macula peer listen ", format!("macula peer listen --listen {peer} ")),
            (
                "macula rpc serve --self-signed",
                format!("macula rpc serve --listen {peer} --self-signed"),
            ),
            ("localhost:8000", forward),
            ("localhost:8080", service),
            ("127.0.0.1:9434", metrics),
            ("{127,1,0,", format!("{{127,{x},{y},")),
            ("127.1.0.", format!("127.{x}.{y}.")),
            // Both BEAM hosts are here: where a node listens and where the forward to it does has to differ.
            ("--to 127.2.0.1:", format!("--to 127.{x}.{y}.13:")),
            ("--to 127.2.0.2:", format!("--to 127.{x}.{y}.14:")),
            ("{127,2,0,1}", format!("{{127,{x},{y},13}}")),
            ("{127,2,0,2}", format!("{{127,{x},{y},14}}")),
            ("127.2.0.", format!("127.{x}.{y}.1")),
        ];
        Self {
            directory: tempfile::tempdir().expect("a directory"),
            instead: instead.map(|(page, here)| (page.to_owned(), here)).into(),
            pin: None,
            node_id: None,
            epmd: BTreeMap::new(),
            actors: Vec::new(),
        }
    }

    /// A text of the page, with this machine's addresses.
    fn adapt(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (page, here) in &self.instead {
            text = text.replace(page, here);
        }
        for (word, value) in [("PIN", &self.pin), ("NODE_ID", &self.node_id)] {
            if let Some(value) = value {
                text = text.replace(word, value);
            }
        }
        text
    }

    /// Writes a file of the page.
    pub(crate) fn write(&self, name: &str, content: &str) {
        fs::write(self.directory.path().join(name), self.adapt(content)).expect("a file");
    }

    pub(crate) fn start(&mut self, host: &str, command: &str) {
        self.finish_last();
        let mut line = self.adapt(command);
        // Each host has an EPMD, and at 127.0.0.1 there is room for one at a port.
        let epmd = *self.epmd.entry(host.to_owned()).or_insert_with(free_tcp_port);
        if let Some(rest) = line.strip_prefix("macula beam ") {
            line = format!("macula beam --epmd-port {epmd} {rest}");
        }
        println!("{host}$ {line}");
        let name = format!("{host}$ {line}");
        let actor = match line.strip_prefix("curl ") {
            Some(url) => Actor::curl(name, url),
            None => Actor::start(name, &line, epmd, self.directory.path()),
        };
        self.actors.push(actor);
    }

    pub(crate) fn type_in(&mut self, line: &str) {
        let line = self.adapt(line);
        let child = self.last().child.as_mut().expect("a command to type into");
        let mut input = child.stdin.as_ref().expect("its input");
        writeln!(input, "{line}").expect("it reads");
    }

    pub(crate) fn expect(&mut self, line: &str) {
        let pattern = self.adapt(line);
        let found = self.last().wait(&pattern);
        if let Some(pin) = found.strip_prefix("certificate pin ") {
            assert_eq!(pin.len(), 64, "{found}");
            self.pin = Some(pin.to_owned());
        }
        if let Some(id) = found.strip_prefix("node id ")
            && id.len() == 64
        {
            self.node_id = Some(id.to_owned());
        }
    }

    /// The page is over.
    pub(crate) fn end(mut self) {
        self.finish_last();
        // The last to come goes first, so that nobody has to miss anybody.
        for actor in self.actors.iter_mut().rev() {
            actor.leave();
        }
    }

    fn last(&mut self) -> &mut Actor {
        self.actors.last_mut().expect("a command before its output")
    }

    fn finish_last(&mut self) {
        if let Some(actor) = self.actors.last_mut()
            && !actor.stays
        {
            actor.succeed();
        }
    }
}

impl Actor {
    fn start(name: String, line: &str, epmd: u16, directory: &Path) -> Self {
        let command = Path::new(env!("CARGO_BIN_EXE_macula")).parent().expect("a directory");
        let path = env::var_os("PATH").unwrap_or_default();
        let path = env::join_paths([command.to_owned()].into_iter().chain(env::split_paths(&path)));
        let mut child = Command::new("sh")
            .args(["-c", &format!("exec {line} 2>&1")])
            .current_dir(directory)
            .env("PATH", path.expect("a path"))
            .env("HOME", directory)
            .env("XDG_RUNTIME_DIR", directory)
            .env("ERL_EPMD_PORT", epmd.to_string())
            .env_remove("RUST_LOG")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell");
        let out = child.stdout.take().expect("its output");
        let (tell, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if tell.send(line).is_err() {
                    return;
                }
            }
        });
        let words: Vec<&str> = line.split_whitespace().collect();
        let stays = matches!(
            words[..],
            ["macula", "relay" | "expose" | "forward" | "beam", ..]
                | ["macula", "peer", "listen", ..]
                | ["macula", "rpc", "serve", ..]
                | ["macula", "dist", "node", ..]
                | ["erl", ..]
        );
        Self {
            name,
            child: Some(child),
            stays,
            lines,
            seen: Vec::new(),
        }
    }

    /// Fetches a page of a web server.
    fn curl(name: String, url: &str) -> Self {
        let (host, path) = url
            .strip_prefix("http://")
            .and_then(|rest| rest.split_once('/'))
            .expect("a URL");
        let mut tcp = TcpStream::connect(host).unwrap_or_else(|error| panic!("{name}: {error}"));
        tcp.set_read_timeout(Some(SOON)).expect("a time-out");
        write!(tcp, "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").expect("a request");
        let mut answer = String::new();
        tcp.read_to_string(&mut answer)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
        assert!(head.starts_with("HTTP/1.1 200 "), "{name}: {head}");
        let (tell, lines) = channel();
        for line in body.lines() {
            tell.send(line.to_owned()).expect("a reader");
        }
        Self {
            name,
            child: None,
            stays: false,
            lines,
            seen: Vec::new(),
        }
    }

    /// The next line that is as the page says.
    fn wait(&mut self, pattern: &str) -> String {
        let end = Instant::now() + SOON;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("{}\nno line {pattern:?}, only:\n{}", self.name, self.seen.join("\n"));
            };
            self.seen.push(line.clone());
            // What is typed is not echoed, so a prompt is followed by what comes out.
            let bare = match line.rsplit_once("> ") {
                Some((prompt, rest)) if prompt.ends_with(|c: char| c.is_ascii_digit()) => rest.to_owned(),
                _ => line,
            };
            if matches(pattern, &bare) {
                return bare;
            }
        }
    }

    /// It has done what it is for.
    fn succeed(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        drop(child.stdin.take());
        let status = exit(&mut child);
        self.seen.extend(self.lines.iter());
        assert!(status.success(), "{}: {status}\n{}", self.name, self.seen.join("\n"));
    }

    /// It is told to go, if it has not gone by itself, and goes in good order.
    fn leave(&mut self) {
        let Some(child) = &mut self.child else { return };
        if self.name.contains("$ macula ") {
            if child.try_wait().expect("a status").is_none() {
                let told = Command::new("kill").arg(child.id().to_string()).status();
                assert!(told.is_ok_and(|status| status.success()));
            }
            self.succeed();
        }
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn exit(child: &mut Child) -> process::ExitStatus {
    let end = Instant::now() + SOON;
    while Instant::now() < end {
        if let Some(status) = child.try_wait().expect("a status") {
            return status;
        }
        thread::sleep(Duration::from_millis(10));
    }
    let _ = child.kill();
    child.wait().expect("a status")
}

/// Whether a line is as a pattern says, in which `…` stands for anything.
fn matches(pattern: &str, line: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('…') else {
        return pattern == line;
    };
    let Some(mut line) = line.strip_prefix(first) else {
        return false;
    };
    let mut parts: Vec<&str> = rest.split('…').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        match line.split_once(part) {
            Some((_, behind)) => line = behind,
            None => return false,
        }
    }
    line.ends_with(last)
}

fn free_udp_port() -> String {
    let socket = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
    socket.expect("a UDP port").to_string()
}

fn free_port() -> String {
    format!("127.0.0.1:{}", free_tcp_port())
}

fn free_tcp_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    listener.expect("a TCP port").port()
}

/// Where a web server listens, for as long as this process lives.
fn web_server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    thread::spawn(move || {
        while let Ok((mut tcp, _)) = listener.accept() {
            let mut request = BufReader::new(tcp.try_clone().expect("a socket"));
            let mut line = String::new();
            while request.read_line(&mut line).is_ok_and(|read| read > 2) {
                line.clear();
            }
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                ANSWER.len()
            );
            let _ = tcp.write_all((head + ANSWER).as_bytes());
        }
    });
    address
}
