//! The examples do what they say.

#![cfg(feature = "self-signed")]

#[path = "../examples/blocking_node.rs"]
#[allow(dead_code, reason = "its command line is not used here")]
mod blocking_node;
#[path = "../examples/in_memory.rs"]
mod in_memory;

use std::{
    net::UdpSocket,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use blocking_node::{new_endpoint, node, now, turn};
use macula_proto::{
    Event,
    quic::{
        ListenConfig, TransportConfig, alpn,
        tls::{Credentials, SelfSigned, ServerTls},
    },
    tunnel::relay::{RelayConfig, Report},
};

#[test]
fn in_memory() {
    in_memory::main().unwrap();
}

/// A relay on the example's loop. Says which port it has, and who identifies.
fn relay(credentials: Credentials, port: &mpsc::Sender<u16>, names: &mpsc::Sender<String>, stop: &AtomicBool) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut endpoint = new_endpoint().unwrap();
    let tls = ServerTls::new(credentials).alpn([alpn::MACULA_DIST]);
    let mut listen = ListenConfig::new(tls.build(endpoint.quic().clock()).unwrap());
    listen.transport = TransportConfig::relay();
    // Bounds the time that a turn sleeps.
    listen.transport.keep_alive = Some(Duration::from_millis(200));
    endpoint.quic().listen(listen).unwrap();
    endpoint.serve_relay(RelayConfig::default());
    port.send(socket.local_addr().unwrap().port()).unwrap();
    while !stop.load(Ordering::Relaxed) {
        while let Some(event) = endpoint.poll_event(now()) {
            if let Event::Relay(Report::Identified { name, .. }) = event {
                names.send(name.to_string()).unwrap();
            }
        }
        turn(&socket, &mut endpoint).unwrap();
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a blocking program for each of three hosts")]
fn blocking_nodes() {
    let credentials = Credentials::self_signed(&[7; 32], &SelfSigned::default()).unwrap();
    let pin = credentials.pin().to_string();
    let stop = Arc::new(AtomicBool::new(false));
    let ((port_tx, port), (names_tx, names)) = (mpsc::channel(), mpsc::channel());
    let relay = thread::spawn({
        let stop = Arc::clone(&stop);
        move || relay(credentials, &port_tx, &names_tx, &stop)
    });
    let address = format!("127.0.0.1:{}", port.recv_timeout(Duration::from_secs(10)).unwrap());
    // Echoes until the process ends.
    thread::spawn({
        let (address, pin) = (address.clone(), pin.clone());
        move || node(&address, &pin, "bob", None).map_err(|error| error.to_string())
    });
    assert_eq!(names.recv_timeout(Duration::from_secs(20)).as_deref(), Ok("bob"));
    let text = "to and fro ".repeat(10_000);
    let (answer_tx, answer) = mpsc::channel();
    thread::spawn(move || {
        let answer = node(&address, &pin, "alice", Some(("bob", &text))).map_err(|error| error.to_string());
        answer_tx.send((answer, text)).unwrap();
    });
    let (answer, text) = answer.recv_timeout(Duration::from_secs(20)).unwrap();
    assert!(answer.unwrap() == text.as_bytes());
    stop.store(true, Ordering::Relaxed);
    relay.join().unwrap();
}
