//! An end on tokio and an end on smol, in one process, each in both roles.

mod ends;

use std::{future::Future, sync::Arc, time::Duration};

use ends::{On, bind, credentials, dial, listen, noise};
use futures_lite::future::zip;
use macula_driver::{Connection, Peer, ReadError, RelayClient, RelayServer, RpcClient, RpcServer, ServerCall, Tunnel};
use macula_proto::{
    Code,
    endpoint::PeerListenConfig,
    identity::Identity,
    peering::{EndReason, PeeringConfig, Verdict},
    quic::{CloseReason, alpn, tls::Pin},
    rpc::{Chunk, Kind, Mode, RpcConfig},
    wire::{
        Value,
        frame::{Body, Id16, Ping},
    },
};

/// Far more than anything here takes; only a hang reaches it.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    let soon = tokio::time::timeout(Duration::from_secs(60), future);
    soon.await.expect("nothing here takes a minute")
}

/// Each of these once with what it serves on tokio, and once on smol; the other end is on the other.
macro_rules! both_ways {
    ($($name:ident)*) => {
        $(
            mod $name {
                use super::On;

                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn served_on_tokio() {
                    super::soon(super::$name(On::Tokio, On::Smol)).await;
                }

                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn served_on_smol() {
                    super::soon(super::$name(On::Smol, On::Tokio)).await;
                }
            }
        )*
    };
}

both_ways! {
    streams
    peers
    calls
    tunnels
    calls_in_a_tunnel
    tcp_in_a_tunnel
}

// ----- connections and streams -------------------------------------------------------------------------------------

async fn echo(connection: Connection) -> CloseReason {
    while let Ok(mut stream) = connection.accept_bi().await {
        while let Ok(Some(chunk)) = stream.recv().read_chunk().await {
            stream.send().write_chunk(chunk).await.expect("written");
        }
        stream.finish().expect("finished");
    }
    connection.closed().await
}

async fn streams(serving: On, dialling: On) {
    let (server, pin) = listen(serving, b"test");
    let remote = server.local_addr();
    let accepting = serving.spawn(async move { echo(server.accept().await.expect("a connection")).await });
    let client = dialling.spawn(async move {
        let client = bind(dialling);
        let config = dial(&client, pin, b"test");
        let connection = client.connect(&config, remote, "localhost").await.expect("connected");
        for length in [0, 1, 100_000, 8 << 20] {
            let data = noise(length, length as u64);
            let (mut send, mut recv) = connection.open_bi().await.expect("opened").split();
            let writing = async {
                send.write_all(&data).await.expect("written");
                send.finish().expect("finished");
            };
            let ((), echoed) = zip(writing, recv.read_to_end(length)).await;
            assert!(
                echoed == Ok(Some(data.clone())),
                "{length} bytes come back as they were"
            );
            send.delivered().await.expect("delivered");
        }
        connection.close(Code::INTERNAL, "enough");
        client.wait_idle().await;
    });
    client.await;
    let reason = accepting.await;
    assert!(
        matches!(&reason, CloseReason::Peer { code: Code::INTERNAL, reason } if reason == "enough"),
        "{reason}"
    );
}

// ----- peering -----------------------------------------------------------------------------------------------------

fn identity(byte: u8) -> Identity {
    Identity::from_seed(&[byte; 32])
}

fn ping(number: u64) -> Body {
    let mut nonce = [0; 16];
    nonce[..8].copy_from_slice(&number.to_be_bytes());
    Body::Ping(Ping { nonce: Id16(nonce) })
}

/// Sends frames and receives as many, both at once.
async fn exchange(peer: Peer) {
    const FRAMES: u64 = 1000;
    let sending = async {
        for number in 0..FRAMES {
            assert_eq!(peer.send(ping(number)).await, Ok(number));
        }
    };
    let receiving = async {
        for number in 0..FRAMES {
            let received = peer.recv().await.expect("a frame");
            assert_eq!(received.decoded.frame.body, ping(number));
            assert_eq!(received.verdict, Verdict::Verified);
        }
    };
    zip(sending, receiving).await;
}

async fn peers(serving: On, dialling: On) {
    let peering = |byte| PeeringConfig::new(Arc::new(identity(byte)));
    let (server, pin) = listen(serving, alpn::MACULA);
    let remote = server.local_addr();
    server.serve_peers(PeerListenConfig::new(peering(1)), 16);
    let far = serving.spawn(async move {
        let peer = server.accept_peer().await.expect("a peer");
        assert_eq!(peer.peer_id(), identity(2).node_id());
        assert!(peer.connected().bound);
        exchange(peer.clone()).await;
        peer.recv().await.expect_err("the end")
    });
    let near = dialling.spawn(async move {
        let client = bind(dialling);
        let config = dial(&client, pin, alpn::MACULA);
        let peer = client
            .connect_peer(&config, remote, "localhost", peering(2))
            .await
            .expect("connected");
        assert_eq!(peer.peer_id(), identity(1).node_id());
        exchange(peer.clone()).await;
        peer.close("operator_stop").await
    });
    assert_eq!(near.await.reason, EndReason::PeerClosedDuringDrain);
    let end = far.await;
    assert_eq!(end.reason.name(), "goodbye");
    assert!(end.goodbye.is_some_and(|(reason, _)| reason == "operator_stop"));
}

// ----- calls -------------------------------------------------------------------------------------------------------

fn serve(server: &RpcServer) {
    server.advertise("echo", Mode::Bidi, async |mut call: ServerCall| {
        while let Some(chunk) = call.recv().await? {
            call.send(chunk).await?;
        }
        Ok(call.args().clone())
    });
    server.advertise("add", Kind::Unary, async |call: ServerCall| {
        let (a, b): (i64, i64) = call.args_as()?;
        Ok(Value::from(a + b))
    });
}

async fn use_it(client: RpcClient) {
    assert_eq!(client.call_as::<i64>("add", &(40, 2)).await, Ok(42));
    let mut call = client.open("echo", Mode::Bidi, &"args").await.expect("a call");
    for number in 0..200u8 {
        let chunk = Chunk::Raw(vec![number; 100 * number as usize].into());
        call.send(chunk.clone()).await.expect("sent");
        assert_eq!(call.recv().await, Ok(Some(chunk)));
    }
    call.finish();
    assert_eq!(call.recv().await, Ok(None));
    assert_eq!(call.reply().await, Ok(Value::text("args")));
    assert_eq!(
        client.call("nobody", ()).await.expect_err("nobody serves it").code(),
        "not_found"
    );
}

/// Either end calls the other. The link ends with the last handle of either.
async fn use_both(ends: [(On, RpcClient); 2]) {
    let [near, far] = ends.each_ref().map(|(on, client)| on.spawn(use_it(client.clone())));
    zip(near, far).await;
}

async fn calls(serving: On, dialling: On) {
    let (acceptor, pin) = listen(serving, alpn::MACULA);
    acceptor.serve_rpc(RpcConfig::new([1; 32]));
    let dialler = bind(dialling);
    let config = dial(&dialler, pin, alpn::MACULA);
    let dialled = dialler.connect_rpc(&config, acceptor.local_addr(), "localhost", RpcConfig::new([2; 32]));
    let (near, far) = zip(dialled, acceptor.accept_rpc()).await;
    let servers = [(serving, &acceptor), (dialling, &dialler)].map(|(on, endpoint)| on.server(endpoint));
    servers.iter().for_each(serve);
    use_both([(dialling, near.expect("connected")), (serving, far.expect("accepted"))]).await;
}

// ----- relays ------------------------------------------------------------------------------------------------------

/// A relay, a node of its own runtime, and one of the other.
async fn nodes(relay: On, other: On) -> (RelayServer, Pin, RelayClient, RelayClient) {
    let credentials = credentials();
    let pin = credentials.pin();
    let server = relay.relay(credentials);
    let address = server.endpoint().local_addr();
    let (alice, bob) = (relay.node(address, "alice", pin), other.node(address, "bob", pin));
    assert!(alice.identified().await && bob.identified().await);
    (server, pin, alice, bob)
}

/// Bytes both ways at once, and the end of both directions.
async fn carry(near: Tunnel, far: Tunnel, on: [On; 2]) {
    let there = noise(3_000_000, 1);
    let back = noise(2_000_000, 2);
    let one_end = |tunnel: Tunnel, data: Vec<u8>, expected: Vec<u8>| async move {
        let (mut send, mut recv) = tunnel.split();
        let writing = async {
            send.write_all(&data).await.expect("written");
            send.finish().expect("finished");
        };
        let ((), got) = zip(writing, recv.read_to_end(expected.len())).await;
        assert!(got == Ok(Some(expected)), "intact");
        send.delivered().await.expect("delivered");
    };
    let near = on[0].spawn(one_end(near, there.clone(), back.clone()));
    let far = on[1].spawn(one_end(far, back, there));
    zip(near, far).await;
}

async fn tunnels(relay: On, other: On) {
    let (server, pin, alice, bob) = nodes(relay, other).await;
    let address = server.endpoint().local_addr();
    // From one runtime to the other, back, and between two nodes of which the relay's runtime drives none.
    let (near, far) = zip(alice.open("bob"), bob.incoming()).await;
    carry(near.expect("a tunnel"), far.expect("a tunnel"), [relay, other]).await;
    let (near, far) = zip(bob.open("alice"), alice.incoming()).await;
    carry(near.expect("a tunnel"), far.expect("a tunnel"), [other, relay]).await;
    let carol = other.node(address, "carol", pin);
    assert!(carol.identified().await);
    let (near, far) = zip(carol.open("bob"), bob.incoming()).await;
    carry(near.expect("a tunnel"), far.expect("a tunnel"), [other, other]).await;

    let (near, far) = zip(carol.open("alice"), alice.incoming()).await;
    near.expect("a tunnel").abort(Code::TCP_RESET);
    let mut far = far.expect("a tunnel");
    let ended = far.stream().recv().read_chunk().await;
    assert_eq!(ended, Err(ReadError::Reset(Code::TCP_RESET)));
    assert_eq!(server.snapshot().relay.identified, 3);
    server.close().await;
}

async fn calls_in_a_tunnel(relay: On, other: On) {
    let (_server, _, alice, bob) = nodes(relay, other).await;
    let serving = {
        let bob = bob.clone();
        other.spawn(async move { bob.serve_rpc(RpcConfig::new([2; 32])).await })
    };
    let tunnel = alice.open("bob").await.expect("a tunnel");
    let near = alice.endpoint().rpc_over(tunnel, true, RpcConfig::new([1; 32]));
    let (near, far) = zip(near, bob.endpoint().accept_rpc()).await;
    let servers = [(relay, &alice), (other, &bob)].map(|(on, node)| on.server(node.endpoint()));
    servers.iter().for_each(serve);
    use_both([(relay, near.expect("a link")), (other, far.expect("a link"))]).await;
    drop(serving);
}

/// A service behind a node of one runtime, its client before a node of the other.
async fn tcp_in_a_tunnel(relay: On, other: On) {
    let (_server, _, alice, bob) = nodes(relay, other).await;
    let service = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let to = service.local_addr().expect("an address");
    let shout = std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        let (mut tcp, _) = service.accept().expect("a client");
        let mut question = String::new();
        tcp.read_to_string(&mut question).expect("text");
        tcp.write_all(question.to_uppercase().as_bytes()).expect("written");
    });
    let exposed = other.expose(bob.clone(), to);
    let (at, forwarded) = relay.forward(alice.clone(), "bob").await;
    let asking = std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        let mut tcp = std::net::TcpStream::connect(at).expect("a node listens");
        tcp.write_all(b"is anybody there?").expect("written");
        tcp.shutdown(std::net::Shutdown::Write).expect("finished");
        let mut answer = String::new();
        tcp.read_to_string(&mut answer).expect("text");
        answer
    });
    let (exposed, forwarded) = zip(exposed, forwarded).await;
    assert_eq!((exposed.from_tunnel, exposed.to_tunnel), (17, 17));
    assert_eq!((forwarded.from_tunnel, forwarded.to_tunnel), (17, 17));
    assert_eq!(asking.join().expect("an answer"), "IS ANYBODY THERE?");
    shout.join().expect("an end");
    // What is on its way ends with the nodes.
    drop((alice, bob));
}
