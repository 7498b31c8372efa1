//! Two peers on loopback, on smol.

use std::{sync::Arc, time::Duration};

use macula_smol::{
    Code, DialConfig, Endpoint, ListenConfig, Options, Peer, PeerConnectError, PeerListenConfig, alpn, entropy,
    proto::{
        identity::Identity,
        peering::{EndReason, PeeringConfig, Verdict},
        wire::frame::{Body, Id16, Ping},
    },
    tls::{ClientTls, Credentials, Pin, SelfSigned, ServerTls, Trust},
};
use smol::{
    Timer,
    future::{self, FutureExt},
};

async fn soon<T>(what: impl Future<Output = T>) -> T {
    let never = async {
        Timer::after(Duration::from_secs(60)).await;
        panic!("nothing here takes a minute")
    };
    what.or(never).await
}

fn config(byte: u8) -> PeeringConfig {
    PeeringConfig::new(Arc::new(Identity::from_seed(&[byte; 32])))
}

fn bind() -> Endpoint {
    Endpoint::bind("127.0.0.1:0".parse().expect("an address"), Options::default()).expect("bind")
}

/// Node 1 serves.
fn serve() -> (Endpoint, Pin) {
    let endpoint = bind();
    let credentials = Credentials::self_signed(&entropy().expect("entropy"), &SelfSigned::default());
    let credentials = credentials.expect("a certificate");
    let pin = credentials.pin();
    let tls = ServerTls::new(credentials).alpn([alpn::MACULA]).build(endpoint.clock());
    endpoint
        .listen(ListenConfig::new(tls.expect("server TLS")))
        .expect("listen");
    endpoint.serve_peers(PeerListenConfig::new(config(1)), 16);
    (endpoint, pin)
}

fn ping(number: u64) -> Body {
    let mut nonce = [0; 16];
    nonce[..8].copy_from_slice(&number.to_be_bytes());
    Body::Ping(Ping { nonce: Id16(nonce) })
}

async fn exchange(peer: &Peer, count: u64) {
    let sending = async {
        for number in 0..count {
            assert_eq!(peer.send(ping(number)).await, Ok(number));
        }
    };
    let receiving = async {
        for number in 0..count {
            let received = peer.recv().await.expect("a frame");
            assert_eq!(received.decoded.frame.body, ping(number));
            assert_eq!(received.verdict, Verdict::Verified);
        }
    };
    future::zip(sending, receiving).await;
}

#[test]
fn frames_go_both_ways_in_order_and_goodbye_ends_it() {
    smol::block_on(soon(async {
        let (server, pin) = serve();
        let client = bind();
        let tls = ClientTls::new(Trust::Pins(vec![pin])).alpn([alpn::MACULA]);
        let dial = DialConfig::new(tls.build(client.clock()).expect("client TLS"));
        let remote = server.local_addr();
        let dialled = client.connect_peer(&dial, remote, "localhost", config(2));
        let (near, far) = future::zip(dialled, server.accept_peer()).await;
        let (near, far) = (near.expect("connected"), far.expect("accepted"));
        assert_eq!(far.peer_id(), Identity::from_seed(&[2; 32]).node_id());
        assert!(near.connected().bound && far.connected().bound);
        future::zip(exchange(&near, 2000), exchange(&far, 2000)).await;
        let (end, other) = future::zip(near.close("operator_stop"), far.recv()).await;
        assert_eq!(end.reason, EndReason::PeerClosedDuringDrain);
        assert_eq!(other.expect_err("the end").reason.name(), "goodbye");

        // Whoever stops serving can begin again.
        server.stop_serving_peers();
        assert!(server.accept_peer().await.is_none());
        let refused = client.connect_peer(&dial, remote, "localhost", config(3)).await;
        let Err(PeerConnectError::Ended(end)) = refused else {
            panic!("nobody serves")
        };
        assert_eq!(end.reason, EndReason::Refused(Some(Code::SHUTDOWN.get())));
        server.serve_peers(PeerListenConfig::new(config(4)), 16);
        let dialled = client.connect_peer(&dial, remote, "localhost", config(3));
        let (near, far) = future::zip(dialled, server.accept_peer()).await;
        assert_eq!(
            near.expect("connected").peer_id(),
            Identity::from_seed(&[4; 32]).node_id()
        );
        assert_eq!(
            far.expect("accepted").peer_id(),
            Identity::from_seed(&[3; 32]).node_id()
        );
    }));
}
