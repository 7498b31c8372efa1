use std::{io, time::Duration};

use clap::Parser as _;
use macula_proto::tunnel::{Name, client::session::EncodingChoice};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinHandle,
};

use super::*;
use crate::{
    cli::{
        args::{Cli, Command},
        backend::NodeOptions,
        events::tests::Recorder,
        memory::{Memory, MemoryNode},
        signals::Signal,
    },
    tcp::reset_code,
};

pub(crate) async fn peer(memory: &Memory, name: &str) -> MemoryNode {
    let options = NodeOptions {
        relays: Vec::new(),
        name: Name::from(name),
        trust: macula_proto::quic::tls::Trust::Insecure,
        credentials: None,
        encoding: EncodingChoice::Auto,
        allow_from: None,
    };
    memory.node(options).await.unwrap()
}

struct World {
    alice: MemoryNode,
    recorder: Recorder,
    stop: tokio::sync::mpsc::Sender<Signal>,
    running: JoinHandle<Outcome>,
}

/// `macula expose --name web`, and a node that can open tunnels to it.
async fn world(to: &str, more: &[&str]) -> World {
    let line = [
        "macula",
        "expose",
        "--relay",
        "memory",
        "--insecure",
        "--name",
        "web",
        "--to",
        to,
    ];
    let Command::Expose(args) = Cli::try_parse_from(line.iter().chain(more)).unwrap().command else {
        unreachable!("the subcommand is expose");
    };
    let memory = Memory::default();
    let (stop, mut signals) = Signals::by_hand();
    let recorder = Recorder::default();
    let events = recorder.events();
    let alice = peer(&memory, "alice").await;
    let backend = memory.clone();
    let running = tokio::spawn(async move { run(&backend, *args, &events, &mut signals).await });
    recorder.wait("identified").await;
    World {
        alice,
        recorder,
        stop,
        running,
    }
}

impl World {
    async fn end(self) {
        let _ = self.stop.send(Signal::Stop).await;
        let within = tokio::time::timeout(Duration::from_secs(10), self.running).await;
        assert_eq!(within.expect("an end").unwrap(), Ok(()));
    }
}

#[tokio::test]
async fn a_tunnel_becomes_a_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let world = world(&listener.local_addr().unwrap().to_string(), &[]).await;
    let (mut recv, mut send) = world.alice.open(&Name::from("web")).await.unwrap().split();
    let (mut tcp, _) = listener.accept().await.unwrap();
    send.write_all(b"hello").await.unwrap();
    send.shutdown().await.unwrap();
    let mut got = String::new();
    tcp.read_to_string(&mut got).await.unwrap();
    assert_eq!(got, "hello");
    tcp.write_all(b"goodbye").await.unwrap();
    drop(tcp);
    got.clear();
    recv.read_to_string(&mut got).await.unwrap();
    assert_eq!(got, "goodbye");
    let closed = world.recorder.wait("tunnel_closed").await;
    let opened = world.recorder.wait("tunnel_open").await;
    assert_eq!(
        (&opened["id"], &opened["peer"]),
        (&"01".repeat(16).into(), &"alice".into())
    );
    assert_eq!(opened["id"], closed["id"]);
    assert_eq!((&closed["bytes_in"], &closed["bytes_out"]), (&5.into(), &7.into()));
    assert_eq!(closed["reason"], "finished");
    world.end().await;
}

#[tokio::test]
async fn nobody_listens() {
    // A port that was free a moment ago.
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let world = world(&free.to_string(), &[]).await;
    let (mut recv, _send) = world.alice.open(&Name::from("web")).await.unwrap().split();
    let error: io::Error = recv.read_u8().await.unwrap_err();
    assert_eq!(reset_code(&error), Some(Code::REFUSED));
    let error = world.recorder.wait("error").await;
    assert_eq!(error["kind"], "connect");
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .starts_with(&format!("cannot connect to {free}: "))
    );
    assert_eq!(world.recorder.wait("tunnel_closed").await["reason"], "refused");
    world.end().await;
}

#[tokio::test]
async fn more_tunnels_than_allowed_are_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let world = world(&listener.local_addr().unwrap().to_string(), &["--max-tunnels", "1"]).await;
    let first = world.alice.open(&Name::from("web")).await.unwrap();
    world.recorder.wait("tunnel_open").await;
    let (mut recv, _send) = world.alice.open(&Name::from("web")).await.unwrap().split();
    assert_eq!(reset_code(&recv.read_u8().await.unwrap_err()), Some(Code::LIMIT));
    assert_eq!(world.recorder.wait("error").await["kind"], "limit");
    drop(first);
    world.recorder.wait("tunnel_closed").await;
    world.end().await;
}

#[tokio::test]
async fn a_signal_drains_and_then_cuts() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let world = world(
        &listener.local_addr().unwrap().to_string(),
        &["--drain-timeout", "100ms"],
    )
    .await;
    let (mut recv, _send) = world.alice.open(&Name::from("web")).await.unwrap().split();
    let (mut tcp, _) = listener.accept().await.unwrap();
    world.stop.send(Signal::Stop).await.unwrap();
    assert_eq!(world.recorder.wait("draining").await["tunnels"], 1);
    // New ones are refused meanwhile, and the old one still works.
    let (mut late, _late_send) = world.alice.open(&Name::from("web")).await.unwrap().split();
    assert_eq!(reset_code(&late.read_u8().await.unwrap_err()), Some(Code::DRAINING));
    tcp.write_all(b"x").await.unwrap();
    assert_eq!(recv.read_u8().await.unwrap(), b'x');
    assert_eq!(reset_code(&recv.read_u8().await.unwrap_err()), Some(Code::SHUTDOWN));
    let error = tcp.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    world.recorder.wait("drained").await;
    world.end().await;
}
