//! `macula dist node` from outside: nodes in processes of their own.

#![cfg(unix)]

mod command;
mod common;
#[path = "../../tests/common/name_server.rs"]
mod name_server;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream, UdpSocket},
    os::unix::fs::PermissionsExt as _,
    process::{Command, Output, Stdio},
    thread,
    time::Instant,
};

use command::{Macula, SOON, text};
use common::noise;
use domain::base::{Rtype, iana::Rcode};
use macula_tokio::{
    entropy,
    tls::{Credentials, SelfSigned},
};
use name_server::{Reply, Server};
use serde_json::Value;

const CARRIERS: [&str; 2] = ["quic", "tcp"];

/// A node that listens, and how to reach it.
struct Listener {
    process: Macula,
    at: String,
    carrier: &'static str,
}

impl Listener {
    fn start(carrier: &'static str, options: &str) -> Self {
        Self::at("127.0.0.1:0", carrier, options)
    }

    fn at(address: &str, carrier: &'static str, options: &str) -> Self {
        let line =
            format!("dist node --name a@127.0.0.1 --cookie secret --listen {address} --carrier {carrier} {options}");
        let process = Macula::start(&line);
        let at = text(&process.wait("listening"), "addr").to_owned();
        Self { process, at, carrier }
    }

    /// The arguments of a node that dials this one.
    fn dialled(&self, options: &str) -> String {
        let Self { at, carrier, .. } = self;
        let cookie = if options.contains("--cookie") {
            ""
        } else {
            "--cookie secret"
        };
        let trust = if options.contains("--pin") { "" } else { "--insecure" };
        let node = format!("dist node --name b@127.0.0.1 --connect a@127.0.0.1={at} --carrier {carrier}");
        format!("{node} {cookie} {trust} {options}")
    }

    fn dial(&self, options: &str) -> Macula {
        Macula::start(&self.dialled(options))
    }

    fn stop(self) {
        stop(self.process);
    }
}

fn stop(process: Macula) {
    process.signal("TERM");
    assert_eq!(process.end(), Some(0));
}

/// Runs a command to its end, with this on its standard input.
fn run(line: &str, input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_macula"))
        .args(line.split_whitespace())
        .env_remove("RUST_LOG")
        .env_remove("MACULA_COOKIE")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    let mut stdin = child.stdin.take().expect("its input");
    let input = input.to_vec();
    let typing = thread::spawn(move || {
        // It may not want it.
        let _ = stdin.write_all(&input);
    });
    let output = child.wait_with_output().expect("its end");
    typing.join().expect("typed");
    output
}

fn field(event: &Value, name: &str) -> String {
    text(event, name).to_owned()
}

/// What a web server answers.
fn fetch(url: &str) -> String {
    let (host, path) = url
        .strip_prefix("http://")
        .and_then(|rest| rest.split_once('/'))
        .expect("a URL");
    let mut tcp = TcpStream::connect(host).expect("a server");
    tcp.set_read_timeout(Some(SOON)).expect("a time-out");
    write!(tcp, "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").expect("a request");
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).expect("an answer");
    answer
}

// ----- two nodes ---------------------------------------------------------------------------------------------------

#[test]
fn two_nodes_talk_and_part() {
    for carrier in CARRIERS {
        let listener = Listener::start(carrier, "--echo --metrics 127.0.0.1:0");
        let url = field(&listener.process.wait("metrics"), "url");
        let dialled = listener.dial("--send macula=hello --send nobody=lost");
        let node = dialled.wait("node");
        assert_eq!(
            (&node["name"], &node["carrier"]),
            (&"b@127.0.0.1".into(), &carrier.into())
        );
        let (near, far) = (dialled.wait("connected"), listener.process.wait("connected"));
        assert_eq!(
            (&near["peer"], &far["peer"]),
            (&"a@127.0.0.1".into(), &"b@127.0.0.1".into())
        );
        assert_eq!(near["remote"].is_string(), carrier == "quic", "{near}");
        let there = listener.process.wait("message");
        assert_eq!(
            (&there["to"], &there["term"]),
            (&"macula".into(), &"<<\"hello\">>".into())
        );
        assert!(field(&there, "from").starts_with("<b@127.0.0.1."), "{there}");
        let back = dialled.wait("message");
        assert_eq!((&back["to"], &back["term"]), (&there["to"], &there["term"]));
        let figures = fetch(&url);
        for line in ["macula_dist_nodes 1", "macula_dist_messages_dropped_total 1", "# EOF"] {
            assert!(figures.lines().any(|found| found == line), "{line:?} in {figures}");
        }
        let of_link = "macula_dist_congested{node=\"b@127.0.0.1\"} 0";
        assert_eq!(
            figures.lines().any(|found| found == of_link),
            carrier == "quic",
            "{figures}"
        );
        stop(dialled);
        let over = listener.process.wait("disconnected");
        assert_eq!(
            (&over["peer"], &over["reason"]),
            (&"b@127.0.0.1".into(), &"closed".into())
        );
        listener.stop();
    }
}

#[test]
fn a_node_knows_its_peer_by_its_pin() {
    let directory = tempfile::tempdir().unwrap();
    let credentials = Credentials::self_signed(&entropy().unwrap(), &SelfSigned::default()).unwrap();
    let pem = directory.path().join("a.pem");
    fs::write(&pem, credentials.to_pem()).unwrap();
    let listener = Listener::start("quic", &format!("--cert {0} --key {0}", pem.display()));
    let dialled = listener.dial(&format!("--pin {}", credentials.pin()));
    dialled.wait("connected");
    stop(dialled);
    let wrong = listener.dial(&format!("--pin {}", "ab".repeat(32)));
    let error = wrong.wait("error");
    assert_eq!(error["kind"], "connect", "{error}");
    wrong.wait("waiting");
    stop(wrong);
    listener.stop();
}

#[test]
fn another_cookie_is_told_and_ends_what_cannot_go_on() {
    for carrier in CARRIERS {
        let listener = Listener::start(carrier, "");
        let stranger = listener.dial("--cookie another");
        let error = stranger.wait("error");
        assert_eq!(error["kind"], "cookie", "{error}");
        let message = field(&error, "message");
        assert!(
            message.contains(&listener.at) && message.contains("cookie"),
            "{message}"
        );
        assert_eq!(stranger.wait("waiting")["peer"], "a@127.0.0.1", "it is tried again");
        let friend = listener.dial("");
        friend.wait("connected");
        stop(stranger);
        stop(friend);
        if carrier == "quic" {
            let output = run(&listener.dialled("--cookie another --stream"), b"");
            assert_eq!(output.status.code(), Some(1));
            let told = String::from_utf8(output.stderr).unwrap();
            assert!(
                told.starts_with("macula: no connection with a@127.0.0.1") && told.contains("cookie"),
                "{told}"
            );
            assert_eq!(output.stdout, b"");
        }
        listener.stop();
    }
}

#[test]
fn who_is_not_on_the_list_stays_outside() {
    let listener = Listener::start("quic", "--allow c@127.0.0.1");
    let stranger = listener.dial("");
    let error = stranger.wait("error");
    assert_eq!(error["kind"], "not_allowed", "{error}");
    stop(stranger);
    listener.stop();
}

#[test]
fn a_killed_node_is_dialled_until_it_is_back() {
    for carrier in CARRIERS {
        let listener = Listener::start(carrier, "");
        let at = listener.at.clone();
        let dialled = listener.dial("--net-ticktime 4 --timeout 2");
        dialled.wait("connected");
        listener.process.signal("KILL");
        drop(listener);
        // Over QUIC nothing tells of the death until something is sent.
        assert_eq!(dialled.wait("disconnected")["peer"], "a@127.0.0.1");
        dialled.wait("error");
        let waiting = dialled.wait("waiting");
        assert!(
            waiting["seconds"].as_f64().is_some_and(|pause| pause > 0.2),
            "{waiting}"
        );
        let listener = Listener::at(&at, carrier, "--echo");
        assert_eq!(dialled.wait("connected")["peer"], "a@127.0.0.1");
        // The other way to go: in good order.
        stop(listener.process);
        assert_eq!(dialled.wait("disconnected")["reason"], "closed");
        stop(dialled);
    }
}

// ----- streams -----------------------------------------------------------------------------------------------------

#[test]
fn bytes_pass_over_a_stream_and_come_back() {
    let listener = Listener::start("quic", "--echo --quiet");
    let bytes = noise(3_000_000, 1);
    for (input, options) in [
        (&b""[..], "--stream"),
        (b"a", "--stream a@127.0.0.1"),
        (&bytes, "--stream --priority 16"),
    ] {
        let started = Instant::now();
        let output = run(&listener.dialled(options), input);
        assert_eq!(
            output.status.code(),
            Some(0),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(
            output.stdout == input,
            "{} bytes of {}",
            output.stdout.len(),
            input.len()
        );
        assert_eq!(output.stderr, b"");
        let over = listener.process.wait("stream_closed");
        let length = Value::from(input.len());
        let fields = (&over["peer"], &over["reason"], &over["bytes_in"], &over["bytes_out"]);
        assert_eq!(fields, (&"b@127.0.0.1".into(), &"finished".into(), &length, &length));
        assert!(started.elapsed() < SOON);
    }
    listener.stop();
}

#[test]
fn streams_as_events() {
    let listener = Listener::start("quic", "");
    let mut dialled = listener.dial("--stream");
    dialled.type_in("hello");
    let (near, far) = (dialled.wait("stream_open"), listener.process.wait("stream_open"));
    assert_eq!((&near["peer"], &near["own"]), (&"a@127.0.0.1".into(), &true.into()));
    assert_eq!((&far["peer"], &far["own"]), (&"b@127.0.0.1".into(), &false.into()));
    assert_eq!(near["stream"], far["stream"]);
    let data = listener.process.wait("stream_data");
    assert_eq!((&data["stream"], &data["data"]), (&far["stream"], &"68656c6c6f".into()));
    let over = dialled.wait("stream_closed");
    assert_eq!(
        (&over["bytes_in"], &over["bytes_out"]),
        (&0.into(), &5.into()),
        "it does not echo"
    );
    assert_eq!(dialled.end(), Some(0), "the command ends with the stream");
    listener.stop();
}

#[test]
fn a_stream_to_nobody_ends_the_command() {
    // Nobody is there, over QUIC no more than silence.
    let free = UdpSocket::bind("127.0.0.1:0").unwrap();
    let line = format!(
        "dist node --name b@h --cookie c --connect a@h={} --insecure --stream --timeout 1",
        free.local_addr().unwrap()
    );
    let output = run(&line, b"");
    assert_eq!(
        output.status.code(),
        Some(3),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let output = run(
        &line.replace(&free.local_addr().unwrap().to_string(), "x..invalid:1"),
        b"",
    );
    assert_eq!(
        output.status.code(),
        Some(1),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("looking up x..invalid failed"), "{told}");
}

// ----- discovery ---------------------------------------------------------------------------------------------------

#[test]
fn nodes_are_found_in_dns() {
    for carrier in CARRIERS {
        let line = format!("dist node --name w@localhost --cookie secret --listen 127.0.0.1:0 --carrier {carrier}");
        let listener = Macula::start(&line);
        let at = field(&listener.wait("listening"), "addr");
        let port: u16 = at.rsplit(':').next().unwrap().parse().unwrap();
        let server = Server::start(move |name, kind| match (name, kind) {
            ("_erlang-dist._quic.cluster.example", Rtype::SRV) => Reply::Srv(60, vec![(0, 0, port, "localhost.")]),
            ("localhost", Rtype::A) => Reply::Address([127, 0, 0, 1].into()),
            _ => Reply::Code(Rcode::NXDOMAIN),
        });
        let line = |domain: &str| {
            let dns = server.address;
            format!(
                "dist node --name b@127.0.0.1 --cookie secret --carrier {carrier} --insecure \
                 --connect-srv {domain} --dns {dns}"
            )
        };
        let dialled = Macula::start(&line("w@cluster.example"));
        assert_eq!(dialled.wait("connected")["peer"], "w@localhost");
        stop(dialled);
        let lost = Macula::start(&line("elsewhere.example"));
        let error = lost.wait("error");
        assert_eq!(error["kind"], "discovery");
        assert!(
            field(&error, "message").contains("_erlang-dist._quic.elsewhere.example is not known"),
            "{error}"
        );
        assert_eq!(lost.wait("waiting")["peer"], "elsewhere.example");
        stop(lost);
        stop(listener);
    }
}

// ----- cookies -----------------------------------------------------------------------------------------------------

#[test]
fn the_cookie_comes_from_where_it_may() {
    let home = tempfile::tempdir().unwrap();
    let node = |cookie: Option<&str>, options: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_macula"));
        command
            .args("dist node --name b@h --connect a@h=x..invalid:1 --insecure --stream".split_whitespace())
            .args(options.split_whitespace())
            .env("HOME", home.path())
            .env_remove("RUST_LOG")
            .env_remove("MACULA_COOKIE");
        if let Some(cookie) = cookie {
            command.env("MACULA_COOKIE", cookie);
        }
        let output = command.stdin(Stdio::null()).output().expect("its end");
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    // How far it gets with a cookie.
    let good = |(code, told): (Option<i32>, String)| assert!(code == Some(1) && told.contains("looking up"), "{told}");
    let bad = |(code, told): (Option<i32>, String), expected: i32, why: &str| {
        assert!(code == Some(expected) && told.contains(why), "{code:?} {told}");
    };
    bad(node(None, ""), 2, "a node needs the cookie of its cluster");
    good(node(Some("x"), ""));
    bad(
        node(Some(""), ""),
        2,
        "MACULA_COOKIE: a cookie has at least one character",
    );
    let file = home.path().join(".erlang.cookie");
    fs::write(&file, "ABC\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o400)).unwrap();
    good(node(None, ""));
    good(node(Some("x"), &format!("--cookie-file {}", file.display())));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o444)).unwrap();
    bad(node(None, ""), 1, "chmod 400");
    good(node(Some("x"), ""));
    bad(
        node(None, "--cookie-file /nonexistent/cookie"),
        1,
        "/nonexistent/cookie: ",
    );
}

#[test]
fn a_port_that_is_taken_is_a_failure() {
    for carrier in CARRIERS {
        let listener = Listener::start(carrier, "");
        let line = format!(
            "dist node --name b@h --cookie c --json --carrier {carrier} --listen {}",
            listener.at
        );
        let output = run(&line, b"");
        assert_eq!(output.status.code(), Some(1));
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(
            told.starts_with(&format!("macula: cannot listen on {}: ", listener.at)),
            "{told}"
        );
        listener.stop();
    }
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let line = format!("dist node --name b@h --cookie c --carrier tcp --listen 127.0.0.1:0 --epmd {free}");
    let output = run(&line, b"");
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.starts_with(&format!("macula: EPMD at {free}: ")), "{told}");
}
