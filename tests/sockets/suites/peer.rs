//! Peers over sockets.

use std::{future::pending, sync::Arc, time::Duration};

use futures_lite::future::{poll_once, zip};
use macula_proto::{
    identity::Identity,
    peering::{EndReason, HandshakeError, PeeringConfig, SendError, Verdict},
    wire::frame::{Body, Id16, Ping},
};

use super::{
    common::soon as within,
    process::{self, Part},
};
use crate::{
    adapter::{
        io::{AsyncReadExt, AsyncWriteExt, shutdown},
        run, sleep, spawn, timeout,
    },
    macula::{
        Code, DialConfig, Endpoint, ListenConfig, Options, Peer, PeerConnectError, PeerListenConfig, alpn, entropy,
        tls::{ClientTls, Credentials, Pin, SelfSigned, ServerTls, Trust},
    },
};

fn config(byte: u8) -> PeeringConfig {
    PeeringConfig::new(Arc::new(Identity::from_seed(&[byte; 32])))
}

fn id(byte: u8) -> macula_proto::identity::NodeId {
    Identity::from_seed(&[byte; 32]).node_id()
}

fn ping(number: u64) -> Body {
    let mut nonce = [0; 16];
    nonce[..8].copy_from_slice(&number.to_be_bytes());
    Body::Ping(Ping { nonce: Id16(nonce) })
}

/// Node 1 serves.
fn serve() -> (Endpoint, Pin) {
    let endpoint = Endpoint::bind("127.0.0.1:0".parse().unwrap(), Options::default()).unwrap();
    let credentials = Credentials::self_signed(&entropy().unwrap(), &SelfSigned::default()).unwrap();
    let pin = credentials.pin();
    let tls = ServerTls::new(credentials).alpn([alpn::MACULA]);
    let tls = tls.build(endpoint.clock()).unwrap();
    endpoint.listen(ListenConfig::new(tls)).unwrap();
    endpoint.serve_peers(PeerListenConfig::new(config(1)), 16);
    (endpoint, pin)
}

fn client(pin: Pin) -> (Endpoint, DialConfig) {
    let endpoint = Endpoint::bind("127.0.0.1:0".parse().unwrap(), Options::default()).unwrap();
    let tls = ClientTls::new(Trust::Pins(vec![pin])).alpn([alpn::MACULA]);
    let dial = DialConfig::new(tls.build(endpoint.clock()).unwrap());
    (endpoint, dial)
}

async fn pair() -> (Peer, Peer) {
    let (server, pin) = serve();
    let (client, dial) = client(pin);
    let near = client.connect_peer(&dial, server.local_addr(), "localhost", config(2));
    let (near, far) = within(zip(near, server.accept_peer())).await;
    (near.unwrap(), far.unwrap())
}

/// Sends `count` frames and receives as many, both at once.
async fn exchange(peer: Peer, count: u64) {
    let sender = peer.clone();
    let sending = spawn(async move {
        for number in 0..count {
            assert_eq!(sender.send(ping(number)).await, Ok(number));
        }
    });
    for number in 0..count {
        let received = peer.recv().await.unwrap();
        assert_eq!(received.decoded.frame.body, ping(number));
        assert_eq!(received.verdict, Verdict::Verified);
    }
    sending.await;
}

#[test]
fn ten_thousand_frames_go_each_way_in_order_and_goodbye_ends_it() {
    run(async {
        let (near, far) = pair().await;
        assert_eq!((near.peer_id(), far.peer_id()), (id(1), id(2)));
        assert!(near.connected().bound && far.connected().bound);
        let both = spawn(exchange(far.clone(), 10_000));
        within(exchange(near.clone(), 10_000)).await;
        within(both).await;
        assert_eq!(far.stats().unwrap().verified, 10_000);
        near.send(ping(10_000)).await.unwrap();
        let leaving = {
            let far = far.clone();
            spawn(async move {
                assert_eq!(far.recv().await.unwrap().decoded.frame.body, ping(10_000));
                far.recv().await.unwrap_err()
            })
        };
        let end = within(near.close("operator_stop")).await;
        assert_eq!(end.reason, EndReason::PeerClosedDuringDrain);
        assert!(end.unsent.is_empty());
        let end = within(leaving).await;
        assert_eq!(end.reason.name(), "goodbye");
        assert!(end.goodbye.is_some_and(|(reason, _)| reason == "operator_stop"));
        assert_eq!(far.send(ping(0)).await, Err(SendError::Closing));
        assert_eq!(within(far.recv()).await.unwrap_err().reason.name(), "goodbye", "again");
    });
}

#[test]
fn a_peer_that_is_gone_is_noticed_by_everybody_who_waits() {
    run(async {
        let (near, far) = pair().await;
        let waiting = {
            let far = far.clone();
            spawn(async move { far.recv().await.unwrap_err() })
        };
        // A future that is dropped takes nothing with it.
        assert!(timeout(Duration::from_millis(20), far.recv()).await.is_err());
        drop(near);
        assert_eq!(within(waiting).await.reason, EndReason::PeerClosed);
        assert_eq!(within(far.recv()).await.unwrap_err().reason, EndReason::PeerClosed);

        let (near, far) = pair().await;
        far.abort(Code::NOT_ALLOWED);
        assert_eq!(within(near.recv()).await.unwrap_err().reason, EndReason::PeerClosed);
        assert_eq!(
            within(far.recv()).await.unwrap_err().reason,
            EndReason::Aborted(Code::NOT_ALLOWED)
        );
    });
}

#[test]
fn a_sender_waits_while_nobody_receives() {
    run(async {
        let (near, far) = pair().await;
        let sender = near.clone();
        let sending = spawn(async move {
            let body = |number| {
                Body::StreamData(macula_proto::wire::frame::StreamData {
                    stream_id: Id16([1; 16]),
                    seq: number,
                    encoding: macula_proto::wire::frame::StreamEncoding::Raw,
                    body: macula_proto::wire::Value::bytes(vec![7; 1 << 20]),
                })
            };
            for number in 0..40 {
                sender.send(body(number)).await.unwrap();
            }
        });
        sleep(Duration::from_millis(500)).await;
        assert!(!sending.is_finished(), "40 MiB do not fit in between");
        for _ in 0..40 {
            within(far.recv()).await.unwrap();
        }
        within(sending).await;
    });
}

#[test]
fn dials_fail_with_a_reason() {
    run(async {
        let (server, pin) = serve();
        let (client, dial) = client(pin);
        let mut wrong = config(2);
        wrong.expected_peer = Some(id(9));
        let dialled = client.connect_peer(&dial, server.local_addr(), "localhost", wrong);
        let error = within(dialled).await.unwrap_err();
        let PeerConnectError::Ended(end) = error else {
            panic!("{error}")
        };
        let unexpected = HandshakeError::UnexpectedPeer(id(1));
        assert_eq!(end.reason, EndReason::HelloVerifyFailed(unexpected));

        // Given up half-way: nothing of it stays.
        let dialled = client.connect_peer(&dial, server.local_addr(), "localhost", config(3));
        assert!(poll_once(dialled).await.is_none());
        client.close(Code::CLOSED, "");
        within(client.wait_idle()).await;
        let dialled = client.connect_peer(&dial, server.local_addr(), "localhost", config(3));
        assert!(matches!(within(dialled).await, Err(PeerConnectError::Dial(_))));
        server.close(Code::SHUTDOWN, "");
        // Peers that came in before can still be in the queue, or not: in the end there is nobody.
        while within(server.accept_peer()).await.is_some() {}
    });
}

#[test]
fn rpc_and_peers_share_a_listener() {
    run(async {
        let (server, pin) = serve();
        let (client, dial) = client(pin);
        let rpc = within(client.connect(&dial, server.local_addr(), "localhost"))
            .await
            .unwrap();
        let mut stream = rpc.open_bi().await.unwrap();
        stream.write_all(b"\x01 hello").await.unwrap();
        shutdown(&mut stream).await.unwrap();
        let near = client.connect_peer(&dial, server.local_addr(), "localhost", config(2));
        let (near, far) = within(zip(near, server.accept_peer())).await;
        let (near, far) = (near.unwrap(), far.unwrap());
        let accepted = within(server.accept()).await.unwrap();
        let mut stream = within(accepted.accept_bi()).await.unwrap();
        let mut bytes = Vec::new();
        within(stream.read_to_end(&mut bytes)).await.unwrap();
        assert_eq!(bytes, b"\x01 hello");
        near.send(ping(1)).await.unwrap();
        assert_eq!(within(far.recv()).await.unwrap().decoded.frame.body, ping(1));
        assert_eq!(server.peer_service_stats().rpc, 1);
    });
}

#[test]
fn whoever_stops_serving_peers_can_begin_again() {
    run(async {
        let (server, pin) = serve();
        let (client, dial) = client(pin);
        let remote = server.local_addr();
        server.stop_serving_peers();
        assert!(within(server.accept_peer()).await.is_none());
        let refused = client.connect_peer(&dial, remote, "localhost", config(3));
        let Err(PeerConnectError::Ended(end)) = within(refused).await else {
            panic!("nobody serves")
        };
        assert_eq!(end.reason, EndReason::Refused(Some(Code::SHUTDOWN.get())));
        server.serve_peers(PeerListenConfig::new(config(4)), 16);
        let dialled = client.connect_peer(&dial, remote, "localhost", config(3));
        let (near, far) = within(zip(dialled, server.accept_peer())).await;
        assert_eq!(near.unwrap().peer_id(), id(4));
        assert_eq!(far.unwrap().peer_id(), id(3));
    });
}

#[test]
fn a_peer_that_is_killed_is_noticed() {
    let mut doomed = Part::start("suites::peer::a_peer_that_waits_to_be_killed");
    let (address, pin) = doomed.said.split_once(' ').expect("two words");
    let (address, pin) = (address.parse().expect("an address"), pin.parse().expect("a pin"));
    run(async {
        let (client, mut dial) = client(pin);
        dial.transport.idle_timeout = Some(Duration::from_secs(1));
        let dialled = client.connect_peer(&dial, address, "localhost", config(2));
        let peer = within(dialled).await.unwrap();
        doomed.kill();
        let end = within(peer.recv()).await.unwrap_err();
        assert_eq!(end.reason, EndReason::PeerClosed);
    });
}

#[test]
#[ignore = "a part of the test before"]
fn a_peer_that_waits_to_be_killed() {
    if !process::is_part() {
        return;
    }
    run(async {
        let (server, pin) = serve();
        process::say(&format!("{} {pin}", server.local_addr()));
        let peer = server.accept_peer().await;
        assert!(peer.is_some());
        pending::<()>().await;
    });
}
