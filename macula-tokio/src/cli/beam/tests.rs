use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::atomic::{AtomicU8, Ordering},
};

use clap::Parser as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    task::JoinHandle,
};

use super::*;
use crate::{
    cli::{
        args::{Cli, Command},
        events::tests::Recorder,
        expose::tests::peer,
        memory::Memory,
        signals::Signal,
    },
    tcp::reset_code,
};

/// `macula beam --name a@… --peer b@…`, without a node so far.
struct World {
    memory: Memory,
    recorder: Recorder,
    stop: tokio::sync::mpsc::Sender<Signal>,
    running: JoinHandle<Outcome>,
    /// Of node a.
    local: Ipv4Addr,
    /// Of node b.
    peer: Ipv4Addr,
    port: u16,
}

/// Two loopback addresses that no other test uses, and a port that is free there and at 127.0.0.1; `None` where 127.0.0.0/8
/// is not there to be used.
fn places() -> Option<([Ipv4Addr; 2], u16)> {
    static WORLDS: AtomicU8 = AtomicU8::new(0);
    let world = WORLDS.fetch_add(1, Ordering::Relaxed);
    let [.., high, low] = std::process::id().to_be_bytes();
    let [local, peer] = [1, 2].map(|host| Ipv4Addr::new(127, 1 + high % 254, low, 2 * world + host));
    let free = |host, port| std::net::TcpListener::bind((host, port)).is_ok();
    // Below the ports that the system hands out by itself, and for each world others.
    let first = 12_000 + 20 * (u16::from(world) + u16::from(low));
    let mut ports = first..first + 20;
    let port = ports.find(|port| [Ipv4Addr::LOCALHOST, local, peer].iter().all(|host| free(*host, *port)))?;
    Some(([local, peer], port))
}

fn parse(line: &str) -> BeamArgs {
    let Command::Beam(args) = Cli::try_parse_from(line.split(' ')).unwrap().command else {
        unreachable!("the subcommand is beam");
    };
    *args
}

async fn world(more: &str) -> Option<World> {
    let ([local, peer], port) = places()?;
    let args = parse(&format!(
        "macula beam --relay memory --insecure --epmd-port {port} --name a@{local} --peer b@{peer}{more}"
    ));
    let memory = Memory::default();
    let (stop, mut signals) = Signals::by_hand();
    let recorder = Recorder::default();
    let (backend, events) = (memory.clone(), recorder.events());
    let running = tokio::spawn(async move { run(&backend, args, &events, &mut signals).await });
    recorder.wait("identified").await;
    Some(World {
        memory,
        recorder,
        stop,
        running,
        local,
        peer,
        port,
    })
}

impl World {
    /// The answer of the EPMD at an address to a request.
    async fn ask(&self, host: Ipv4Addr, body: &[u8]) -> Vec<u8> {
        let mut tcp = self.send(host, body).await;
        let mut answer = Vec::new();
        // A reset says as much as an end: there is no more.
        let _ = tcp.read_to_end(&mut answer).await;
        answer
    }

    async fn send(&self, host: Ipv4Addr, body: &[u8]) -> TcpStream {
        let mut tcp = TcpStream::connect((host, self.port)).await.unwrap();
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        tcp.write_all(&[&length, body].concat()).await.unwrap();
        tcp
    }

    /// A node that is registered for as long as the connection is there, and its creation.
    async fn register(&self, name: &str, port: u16) -> (TcpStream, u32) {
        let mut tcp = self.send(Ipv4Addr::LOCALHOST, &alive(name, port)).await;
        let mut answer = [0; 6];
        tcp.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer[..2], [118, 0], "it was not registered");
        (tcp, u32::from_be_bytes(answer[2..].try_into().unwrap()))
    }

    /// Where the EPMD at an address says that a node is.
    async fn port_of(&self, host: Ipv4Addr, name: &str) -> Option<u16> {
        let answer = self.ask(host, &[b"z", name.as_bytes()].concat()).await;
        match answer[..] {
            [119, 0, high, low, 77, 0, 0, 6, 0, 5, ..] => Some(u16::from_be_bytes([high, low])),
            [119, 1] => None,
            _ => panic!("{answer:?} is no answer"),
        }
    }

    async fn end(self) {
        let _ = self.stop.send(Signal::Stop).await;
        let within = tokio::time::timeout(Duration::from_secs(10), self.running).await;
        assert_eq!(within.expect("an end").unwrap(), Ok(()));
    }
}

/// ALIVE2_REQ.
fn alive(name: &str, port: u16) -> Vec<u8> {
    let length = u8::try_from(name.len()).unwrap();
    let [high, low] = port.to_be_bytes();
    [
        &[120, high, low, 77, 0, 0, 6, 0, 5, 0, length],
        name.as_bytes(),
        &[0, 0],
    ]
    .concat()
}

#[tokio::test]
async fn a_node_registers_and_asks_for_its_peers() {
    let Some(world) = world("").await else { return };
    for host in [Ipv4Addr::LOCALHOST, world.local] {
        assert_eq!(world.port_of(host, "a").await, None);
        assert_eq!(world.ask(host, b"n").await, u32::from(world.port).to_be_bytes());
    }
    let (node, first) = world.register("a", 40_000).await;
    let event = world.recorder.wait("registered").await;
    assert_eq!(event["node"], format!("a@{}", world.local));
    assert_eq!(event["port"], 40_000);
    for host in [Ipv4Addr::LOCALHOST, world.local] {
        assert_eq!(world.port_of(host, "a").await, Some(40_000));
        assert_eq!(world.port_of(host, "b").await, None);
    }
    let names = world.ask(Ipv4Addr::LOCALHOST, b"n").await;
    assert_eq!(&names[4..], b"name a at port 40000\n");
    // The peer is where connections to it are taken.
    assert_eq!(world.port_of(world.peer, "a").await, None);
    let port = world.port_of(world.peer, "b").await.expect("a port");
    assert_ne!(port, world.port);
    drop(TcpStream::connect((world.peer, port)).await.expect("somebody listens"));
    // What would do harm is refused.
    assert_eq!(world.ask(world.local, b"k").await, b"NO");
    assert_eq!(world.ask(world.local, b"sa").await, b"NOEXIST");
    assert_eq!(world.ask(world.local, b"d").await, b"");
    assert_eq!(world.port_of(world.local, "a").await, Some(40_000));
    // Another life has another port and another creation.
    drop(node);
    world.recorder.wait("unregistered").await;
    assert_eq!(world.port_of(world.local, "a").await, None);
    let (_node, second) = world.register("a", 40_001).await;
    assert_eq!(world.port_of(world.local, "a").await, Some(40_001));
    assert!(first >= 4 && second >= 4 && first != second, "{first}, {second}");
    world.end().await;
}

#[tokio::test]
async fn nobody_else_is_registered() {
    let Some(world) = world("").await else { return };
    let refused = [118, 1, 0, 0, 0, 0];
    for (host, name, port, why) in [
        (world.local, "c", 1, "this is the EPMD of a@"),
        (world.local, "a", 0, "it listens nowhere"),
        (world.peer, "a", 1, "it came to the address of a peer"),
        (world.peer, "b", 1, "it came to the address of a peer"),
    ] {
        assert_eq!(world.ask(host, &alive(name, port)).await, refused);
        let error = world.recorder.wait("error").await;
        assert_eq!(error["kind"], "register");
        assert!(error["message"].as_str().unwrap().contains(why), "{error}");
        world.recorder.clear();
    }
    let (_node, _) = world.register("a", 40_000).await;
    assert_eq!(world.ask(world.local, &alive("a", 40_001)).await, refused);
    let error = world.recorder.wait("error").await;
    assert!(
        error["message"].as_str().unwrap().contains("a node that runs"),
        "{error}"
    );
    assert_eq!(world.port_of(world.local, "a").await, Some(40_000));
    world.end().await;
}

#[tokio::test]
async fn a_name_is_free_again_when_its_node_has_ended() {
    let Some(world) = world("").await else { return };
    let (node, _) = world.register("a", 40_000).await;
    // The next life comes while the last one is still known.
    let mut next = world.send(Ipv4Addr::LOCALHOST, &alive("a", 40_001)).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop(node);
    let mut answer = [0; 6];
    next.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer[..2], [118, 0]);
    assert_eq!(world.port_of(world.local, "a").await, Some(40_001));
    world.end().await;
}

#[tokio::test]
async fn nonsense_ends_its_own_connection_alone() {
    let Some(world) = world("").await else { return };
    let (_node, _) = world.register("a", 40_000).await;
    for nonsense in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0, 0], &[0, 1, 99], &[0xff; 4096]] {
        let mut tcp = TcpStream::connect((world.local, world.port)).await.unwrap();
        let _ = tcp.write_all(nonsense).await;
        let mut answer = Vec::new();
        let _ = tcp.read_to_end(&mut answer).await;
        assert_eq!(answer, b"", "{nonsense:?}");
    }
    assert_eq!(world.port_of(world.local, "a").await, Some(40_000));
    world.end().await;
}

#[tokio::test]
async fn clients_without_number_are_turned_away() {
    let Some(world) = world("").await else { return };
    let (_node, _) = world.register("a", 40_000).await;
    let mut silent = Vec::new();
    for _ in 0..70 {
        silent.push(TcpStream::connect((world.local, world.port)).await.unwrap());
    }
    // The last one is not kept waiting.
    let mut last = silent.pop().unwrap();
    let read = tokio::time::timeout(Duration::from_secs(3), last.read(&mut [0])).await;
    assert!(matches!(read.expect("an end"), Ok(0) | Err(_)));
    drop(silent);
    let found = async {
        while world.ask(world.local, b"za").await.len() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), found)
        .await
        .expect("room again");
    world.end().await;
}

#[tokio::test]
async fn connections_to_a_peer_become_tunnels() {
    let Some(world) = world("=right").await else { return };
    let right = peer(&world.memory, "right").await;
    let port = world.port_of(world.peer, "b").await.unwrap();
    let mut tcp = TcpStream::connect((world.peer, port)).await.unwrap();
    let tunnel = right.incoming().await.unwrap();
    // This end goes by the name of its node.
    assert_eq!(tunnel.peer().to_string(), format!("a@{}", world.local));
    let (mut recv, mut send) = tunnel.split();
    tcp.write_all(b"ping").await.unwrap();
    let mut got = [0; 4];
    recv.read_exact(&mut got).await.unwrap();
    send.write_all(b"pong").await.unwrap();
    tcp.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"pong");
    // It is not waited for at the end: nodes never hang up by themselves.
    world.end().await;
    assert_eq!(
        tcp.read(&mut got).await.unwrap_err().kind(),
        io::ErrorKind::ConnectionReset
    );
}

#[tokio::test]
async fn a_peer_that_is_not_there_resets() {
    let Some(world) = world("").await else { return };
    let port = world.port_of(world.peer, "b").await.unwrap();
    let mut tcp = TcpStream::connect((world.peer, port)).await.unwrap();
    assert_eq!(tcp.read_u8().await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    let error = world.recorder.wait("error").await;
    assert_eq!(error["kind"], "open");
    let expected = format!("no tunnel to b@{}: the relay refused: target_not_connected", world.peer);
    assert_eq!(error["message"], expected);
    world.end().await;
}

#[tokio::test]
async fn tunnels_come_out_at_the_registered_port() {
    let Some(world) = world(" --relay-name left").await else {
        return;
    };
    let b = peer(&world.memory, &format!("b@{}", world.peer)).await;
    let left = Name::from("left");
    // Nobody is registered yet.
    let (mut recv, _send) = b.open(&left).await.unwrap().split();
    assert_eq!(reset_code(&recv.read_u8().await.unwrap_err()), Some(Code::REFUSED));
    let error = world.recorder.wait("error").await;
    assert_eq!(error["kind"], "not_registered");
    let expected = format!(
        "a tunnel from b@{} refused: a@{} is not registered here",
        world.peer, world.local
    );
    assert_eq!(error["message"], expected);
    for _life in 0..2 {
        let listener = TcpListener::bind((world.local, 0)).await.unwrap();
        let (node, _) = world.register("a", listener.local_addr().unwrap().port()).await;
        let (mut recv, mut send) = b.open(&left).await.unwrap().split();
        let (mut tcp, from) = listener.accept().await.unwrap();
        assert!(from.ip().is_loopback());
        send.write_all(b"ping").await.unwrap();
        let mut got = [0; 4];
        tcp.read_exact(&mut got).await.unwrap();
        tcp.write_all(b"pong").await.unwrap();
        recv.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"pong");
        drop((tcp, node));
        world.recorder.wait("unregistered").await;
        world.recorder.clear();
    }
    world.end().await;
}

#[tokio::test]
async fn who_has_the_port_is_named() {
    let Some(world) = world("").await else { return };
    let (_node, _) = world.register("a", 40_000).await;
    let line = "macula beam --relay memory --insecure --name c@127.1.0.1 --peer d@127.1.0.2";
    let args = parse(&format!("{line} --epmd-port {}", world.port));
    let (_stop, mut signals) = Signals::by_hand();
    let failure = run(&Memory::default(), args, &Events::silent(), &mut signals)
        .await
        .unwrap_err();
    assert_eq!(failure.kind(), "listen");
    let message = failure.to_string();
    for part in [
        &format!("cannot listen on 127.0.0.1:{}", world.port),
        "an EPMD or another `macula beam` listens there already, with a",
        "epmd -kill",
        "--epmd-port",
        "ERL_EPMD_PORT",
    ] {
        assert!(message.contains(part), "{part:?} in {message}");
    }
    world.end().await;
}

#[tokio::test]
async fn another_program_on_the_port_is_named_as_such() {
    // It takes connections and says nothing.
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let SocketAddr::V4(addr) = other.local_addr().unwrap() else {
        unreachable!("it is an IPv4 address");
    };
    let args = parse(&format!(
        "macula beam --relay memory --insecure --name a@127.1.0.1 --peer b@127.1.0.2 --epmd-port {}",
        addr.port()
    ));
    let (_stop, mut signals) = Signals::by_hand();
    let failure = run(&Memory::default(), args, &Events::silent(), &mut signals)
        .await
        .unwrap_err();
    assert!(failure.to_string().contains("another program"), "{failure}");
}
