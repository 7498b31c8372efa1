use std::net::SocketAddr;

use clap::Parser as _;
use macula_proto::Code;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    task::JoinHandle,
};

use super::*;
use crate::{
    cli::{
        args::{Cli, Command},
        backend::TunnelHandle as _,
        events::tests::Recorder,
        expose::tests::peer,
        memory::Memory,
        signals::Signal,
    },
    tcp::SendHalf as _,
};

struct World {
    memory: Memory,
    recorder: Recorder,
    stop: tokio::sync::mpsc::Sender<Signal>,
    running: JoinHandle<Outcome>,
    addr: SocketAddr,
}

/// `macula forward --target web`.
async fn world(more: &[&str]) -> World {
    let line = "macula forward --relay memory --insecure --name me --target web --listen 127.0.0.1:0";
    let Command::Forward(args) = Cli::try_parse_from(line.split(' ').chain(more.iter().copied()))
        .unwrap()
        .command
    else {
        unreachable!("the subcommand is forward");
    };
    let memory = Memory::default();
    let (stop, mut signals) = Signals::by_hand();
    let recorder = Recorder::default();
    let (backend, events) = (memory.clone(), recorder.events());
    let running = tokio::spawn(async move { run(&backend, *args, &events, &mut signals).await });
    let addr = recorder.wait("listening").await["addr"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    World {
        memory,
        recorder,
        stop,
        running,
        addr,
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
async fn a_connection_becomes_a_tunnel() {
    let world = world(&[]).await;
    let web = peer(&world.memory, "web").await;
    let mut tcp = TcpStream::connect(world.addr).await.unwrap();
    let (mut recv, mut send) = web.incoming().await.unwrap().split();
    tcp.write_all(b"hello").await.unwrap();
    tcp.shutdown().await.unwrap();
    let mut got = String::new();
    recv.read_to_string(&mut got).await.unwrap();
    assert_eq!(got, "hello");
    send.write_all(b"goodbye").await.unwrap();
    send.shutdown().await.unwrap();
    got.clear();
    tcp.read_to_string(&mut got).await.unwrap();
    assert_eq!(got, "goodbye");
    let closed = world.recorder.wait("tunnel_closed").await;
    assert_eq!(closed["peer"], "web");
    assert_eq!((&closed["bytes_in"], &closed["bytes_out"]), (&7.into(), &5.into()));
    world.end().await;
}

#[tokio::test]
async fn a_refused_tunnel_resets_the_connection() {
    let world = world(&[]).await;
    let mut tcp = TcpStream::connect(world.addr).await.unwrap();
    let error = tcp.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    let error = world.recorder.wait("error").await;
    assert_eq!(error["kind"], "open");
    assert_eq!(
        error["message"],
        "no tunnel to web: the relay refused: target_not_connected"
    );
    world.end().await;
}

#[tokio::test]
async fn a_reset_comes_through() {
    let world = world(&[]).await;
    let web = peer(&world.memory, "web").await;
    let mut tcp = TcpStream::connect(world.addr).await.unwrap();
    let (_recv, mut send) = web.incoming().await.unwrap().split();
    send.reset(Code::TCP_RESET);
    assert_eq!(tcp.read_u8().await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(
        world.recorder.wait("tunnel_closed").await["reason"],
        "reset by the peer: tcp_reset"
    );
    world.end().await;
}

#[tokio::test]
async fn an_idle_tunnel_is_cut_if_asked_for() {
    let world = world(&["--idle", "50ms"]).await;
    let web = peer(&world.memory, "web").await;
    let mut tcp = TcpStream::connect(world.addr).await.unwrap();
    let _tunnel = web.incoming().await.unwrap();
    assert_eq!(tcp.read_u8().await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(world.recorder.wait("tunnel_closed").await["reason"], "idle");
    world.end().await;
}

#[tokio::test]
async fn a_port_that_is_taken_is_a_failure() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = HostPort::new("127.0.0.1", taken.local_addr().unwrap().port());
    let failure = listen(&at, &Events::silent()).await.unwrap_err();
    assert_eq!(failure.kind(), "listen");
    assert!(
        failure.to_string().starts_with(&format!("cannot listen on {at}: ")),
        "{failure}"
    );
}
