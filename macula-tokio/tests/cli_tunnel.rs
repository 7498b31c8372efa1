//! The command from outside: a relay, a service exposed, a port forwarded, each in its own process.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    process::{Child, ChildStdout, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

const SOON: Duration = Duration::from_secs(20);

/// A running command, and its events as they come.
struct Macula {
    child: Child,
    events: Receiver<Value>,
}

impl Macula {
    fn start(line: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_macula"))
            .args(line.split_whitespace())
            .arg("--json")
            .stdout(Stdio::piped())
            .spawn()
            .expect("the command starts");
        let out = child.stdout.take().expect("its output");
        Self {
            child,
            events: read(out),
        }
    }

    /// The next event of that name; others are passed over.
    fn wait(&self, name: &str) -> Value {
        let end = Instant::now() + SOON;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let event = self
                .events
                .recv_timeout(left)
                .unwrap_or_else(|_| panic!("no event {name}"));
            if event["event"] == name {
                return event;
            }
        }
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill")
            .args([&format!("-{name}"), &id])
            .status()
            .expect("kill");
        assert!(sent.success());
    }

    /// The exit code.
    fn end(mut self) -> Option<i32> {
        let end = Instant::now() + SOON;
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait().expect("a status") {
                return status.code();
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("the command does not end");
    }
}

impl Drop for Macula {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(out: ChildStdout) -> Receiver<Value> {
    let (tell, events) = channel();
    thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            let event = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"));
            if tell.send(event).is_err() {
                return;
            }
        }
    });
    events
}

fn text<'a>(event: &'a Value, field: &str) -> &'a str {
    event[field]
        .as_str()
        .unwrap_or_else(|| panic!("no text {field} in {event}"))
}

/// Answers what it got, in reverse, when its client has ended.
fn reverse_service() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("an address").to_string();
    thread::spawn(move || {
        while let Ok((mut tcp, _)) = listener.accept() {
            let mut all = Vec::new();
            if tcp.read_to_end(&mut all).is_ok() {
                all.reverse();
                let _ = tcp.write_all(&all);
            }
        }
    });
    addr
}

#[test]

fn a_service_is_reached_through_a_relay() {
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("relay.sock").display().to_string();
    let relay = Macula::start(&format!("relay --self-signed --listen 127.0.0.1:0 --admin {socket}"));
    let pin = text(&relay.wait("certificate"), "pin").to_owned();
    let at = text(&relay.wait("listening"), "addr").to_owned();
    let to = reverse_service();
    let expose = Macula::start(&format!("expose --relay {at} --pin {pin} --name web --to {to}"));
    assert_eq!(text(&expose.wait("identified"), "name"), "web");
    let target = "--target web --listen 127.0.0.1:0";
    let forward = Macula::start(&format!("forward --relay {at} --pin {pin} --name me {target}"));
    let port = text(&forward.wait("listening"), "addr").to_owned();
    forward.wait("identified");
    let mut tcp = TcpStream::connect(&port).expect("the forwarded port");
    tcp.set_read_timeout(Some(SOON)).expect("a time-out");
    let sent: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    tcp.write_all(&sent).expect("a way in");
    tcp.shutdown(Shutdown::Write).expect("a half-close");
    let mut got = Vec::new();
    tcp.read_to_end(&mut got).expect("an answer");
    got.reverse();
    assert!(got == sent);
    let (opened, closed) = (forward.wait("tunnel_open"), forward.wait("tunnel_closed"));
    assert_eq!(text(&opened, "id"), text(&closed, "id"));
    assert_eq!(text(&opened, "peer"), "web");
    for event in [&closed, &expose.wait("tunnel_closed")] {
        assert_eq!(
            (&event["reason"], &event["bytes_in"], &event["bytes_out"]),
            (&"finished".into(), &400_000.into(), &400_000.into())
        );
    }
    let status = Macula::start(&format!("status --admin {socket}")).wait("status");
    let names: Vec<_> = status["names"]
        .as_array()
        .expect("names")
        .iter()
        .map(|name| text(name, "name"))
        .collect();
    assert_eq!(names, ["me", "web"]);
    let drain = Macula::start(&format!("drain --admin {socket}"));
    drain.wait("drained");
    assert_eq!(drain.end(), Some(0));
    assert_eq!(relay.end(), Some(0));
    for node in [expose, forward] {
        node.wait("disconnected");
        node.signal("TERM");
        assert_eq!(node.end(), Some(0));
    }
}

#[test]

fn a_wrong_pin_never_identifies() {
    let relay = Macula::start("relay --self-signed --listen 127.0.0.1:0 --no-admin");
    let at = text(&relay.wait("listening"), "addr").to_owned();
    let pin = "00".repeat(32);
    let expose = Macula::start(&format!("expose --relay {at} --pin {pin} --name web --to 127.0.0.1:1"));
    let lost = expose.wait("disconnected");
    assert_eq!(text(&lost, "relay"), at);
    expose.signal("INT");
    assert_eq!(expose.end(), Some(0));
    relay.signal("TERM");
    assert_eq!(relay.end(), Some(0));
}

#[test]

fn the_demo_needs_nothing() {
    let demo = Macula::start("demo --size 16MiB --seconds 5");
    let report = demo.wait("demo");
    assert_eq!(report["bytes"], 16 << 20);
    assert_eq!(demo.end(), Some(0));
}
