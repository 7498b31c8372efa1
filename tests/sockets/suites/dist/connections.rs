//! Connections themselves, for programs that bring their own messages.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;

use super::{any, credentials, name, soon};
use crate::{
    adapter::{run, spawn, timeout},
    macula::{
        Code, Endpoint, ListenConfig, Options,
        dist::{DialError, DistConfig, DistConnection, DistEnd, HandshakeConfig, SendError, Side, atom},
        proto::quic::alpn,
        tls::{ClientTls, ServerTls, Trust},
    },
};

fn endpoint(short: &str, backlog: usize) -> Endpoint {
    let endpoint = Endpoint::bind(any(), Options::default()).unwrap();
    let tls = ServerTls::new(credentials()).alpn([alpn::ERLANG_DIST]);
    let listen = ListenConfig::new(tls.build(endpoint.clock()).unwrap());
    endpoint.listen(listen).unwrap();
    let handshake = HandshakeConfig::new(atom(name(short)).unwrap(), 5, "cookie".into());
    let mut config = DistConfig::new(handshake, ClientTls::new(Trust::Insecure));
    config.controller.pool.inbox = 64 << 10;
    config.controller.pool.backlog = 64 << 10;
    endpoint.serve_dist(config, backlog);
    endpoint
}

async fn connect(from: &Endpoint, to: &Endpoint, short: &str) -> Result<DistConnection, DialError> {
    let node = atom(name(short)).unwrap();
    soon("a dial", from.connect_dist(node, to.local_addr(), "node")).await
}

async fn pair() -> (Endpoint, Endpoint, DistConnection, DistConnection) {
    let (a, b) = (endpoint("a", 8), endpoint("b", 8));
    let near = connect(&a, &b, "b").await.unwrap();
    let far = soon("a connection", b.accept_dist()).await.unwrap();
    assert_eq!(
        (near.node().as_str(), far.node().as_str()),
        ("b@127.0.0.1", "a@127.0.0.1")
    );
    assert_eq!(
        (near.side(), far.side(), near.creation()),
        (Side::Client, Side::Server, 5)
    );
    assert_eq!(near.remote_address(), b.local_addr());
    (a, b, near, far)
}

#[test]
fn a_slow_receiver_holds_the_sender_up_and_nothing_is_lost() {
    run(async {
        let (_a, _b, near, far) = pair().await;
        let message = |number: u32| {
            let mut message = number.to_be_bytes().to_vec();
            message.resize(4000, 7);
            Bytes::from(message)
        };
        let mut next = 0;
        // Until nothing more goes: futures that are dropped have sent nothing, or all.
        loop {
            let mut one = VecDeque::from([message(next)]);
            let sent = timeout(Duration::from_millis(200), near.send_all(&mut one)).await;
            if one.is_empty() {
                next += 1;
            }
            if sent.is_err() {
                break;
            }
        }
        assert!(near.is_congested());
        assert!(matches!(
            near.try_send(message(next)),
            Err(SendError::Congested | SendError::Later)
        ));
        let sender = near.clone();
        let total = next + 500;
        let sending = spawn(async move {
            for number in next..total {
                sender.send(message(number)).await.unwrap();
            }
        });
        let mut expected = 0;
        while expected < total {
            let mut batch = Vec::new();
            soon("messages", far.recv_many(&mut batch, 10)).await.unwrap();
            for found in batch {
                assert_eq!(found, message(expected));
                expected += 1;
            }
        }
        soon("the sender", sending).await;
        assert!(far.try_recv().is_none());
        assert_eq!(near.send(Bytes::new()).await, Err(SendError::Empty));

        // What was sent arrives, also if that was the last that was done.
        near.send(message(1)).await.unwrap();
        let closing = spawn(async move { near.close().await });
        assert_eq!(soon("the last", far.recv()).await.unwrap(), message(1));
        assert!(matches!(
            soon("the end", far.recv()).await,
            Err(DistEnd::PeerClosed(Code::CLOSED))
        ));
        assert!(matches!(soon("the end", far.closed()).await, DistEnd::PeerClosed(_)));
        assert_eq!(soon("the end", closing).await, DistEnd::Closed);
        assert_eq!(far.send(message(2)).await, Err(SendError::Failed));
    });
}

#[test]
fn dropping_the_last_handle_closes_the_connection() {
    run(async {
        let (a, b, near, far) = pair().await;
        let again = connect(&a, &b, "b").await;
        assert!(matches!(again, Err(DialError::Dial(_))), "{again:?}");
        assert_eq!(a.dist_nodes().len(), 1);
        let waiting = spawn(async move { far.recv().await });
        drop(near);
        assert!(matches!(
            soon("the end", waiting).await,
            Err(DistEnd::PeerClosed(Code::CLOSED))
        ));
        // A dial that is given up is no obstacle.
        let node = atom(name("b")).unwrap();
        let nowhere = "127.0.0.1:9".parse().unwrap();
        let given_up = timeout(Duration::from_millis(50), a.connect_dist(node, nowhere, "node")).await;
        assert!(given_up.is_err());
        let near = connect(&a, &b, "b").await.unwrap();
        let far = soon("a connection", b.accept_dist()).await.unwrap();
        assert!(near.set_node(atom("other@h").unwrap()));
        assert_eq!(near.info().unwrap().node.unwrap(), "other@h");
        assert!(near.stat().unwrap().sent > 0 && !near.is_resumed());

        // The end of the endpoint is the end of everything.
        let accepting = {
            let b = b.clone();
            spawn(async move { b.accept_dist().await.is_none() })
        };
        b.close(Code::SHUTDOWN, "");
        assert!(soon("no more", accepting).await);
        assert!(soon("the end", far.recv()).await.is_err() && soon("the end", near.recv()).await.is_err());
        assert!(matches!(connect(&b, &a, "a").await, Err(DialError::EndpointClosed)));
    });
}

#[test]
fn no_more_connections_wait_than_may() {
    run(async {
        let b = endpoint("b", 1);
        let (a, c) = (endpoint("a", 1), endpoint("c", 1));
        let first = connect(&a, &b, "b").await.unwrap();
        first.send(Bytes::from_static(b"kept")).await.unwrap();
        // The word that it is refused may overtake the last one of the handshake.
        let refused = match connect(&c, &b, "b").await {
            Ok(second) => soon("the end", second.closed()).await,
            Err(DialError::Ended(end)) => end,
            Err(error) => panic!("{error}"),
        };
        assert_eq!(refused, DistEnd::PeerClosed(Code::LIMIT));
        let taken = soon("a connection", b.accept_dist()).await.unwrap();
        assert_eq!(soon("a message", taken.recv()).await.unwrap(), "kept");
        let mut messages = VecDeque::from(vec![Bytes::from_static(b"x"); 100]);
        taken.send_all(&mut messages).await.unwrap();
        for _ in 0..100 {
            assert_eq!(soon("a message", first.recv()).await.unwrap(), "x");
        }
    });
}
