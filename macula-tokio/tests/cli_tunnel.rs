//! The command from outside: a relay, a service exposed, a port forwarded, each in its own process.

mod command;

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    thread,
};

use command::{Macula, SOON, text};

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
    reach_a_service("");
}

#[test]
fn a_service_is_reached_through_a_relay_on_several_sockets() {
    reach_a_service("--sockets 3 --no-router --spin 50");
}

fn reach_a_service(options: &str) {
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("relay.sock").display().to_string();
    let relay = format!("relay --self-signed --listen 127.0.0.1:0 --admin {socket} {options}");
    let relay = Macula::start(relay.trim_end());
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
