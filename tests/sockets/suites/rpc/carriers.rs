//! Two ends and what carries calls between them.

use std::{any::Any, sync::Arc};

use futures_lite::future::zip;
use macula_proto::{identity::Identity, peering::PeeringConfig, tunnel::relay::RelayConfig, wire::Encoding};

use super::soon;
use crate::{
    adapter::spawn,
    macula::{
        DialConfig, Endpoint, ListenConfig, Options, PeerListenConfig, RelayClient, RelayServer, alpn, entropy,
        rpc::{EncodingChoice, RpcClient, RpcConfig, RpcServer},
        tls::{ClientTls, Credentials, Pin, SelfSigned, ServerTls, Trust},
    },
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carrier {
    Connection { per_call: bool },
    Tunnel,
    Peering,
    Local,
}

/// One end.
pub(crate) struct End {
    /// To the other end.
    pub(crate) client: RpcClient,
    pub(crate) server: RpcServer,
}

pub(crate) struct Rig {
    pub(crate) carrier: Carrier,
    pub(crate) caller: End,
    pub(crate) provider: End,
    /// What lives as long as the rig.
    _kept: Vec<Box<dyn Any + Send>>,
}

pub(crate) fn credentials() -> Credentials {
    Credentials::self_signed(&entropy().unwrap(), &SelfSigned::default()).unwrap()
}

pub(crate) fn bind() -> Endpoint {
    Endpoint::bind("127.0.0.1:0".parse().unwrap(), Options::default()).unwrap()
}

/// Listens with ALPN `macula`.
pub(crate) fn listen() -> (Endpoint, Pin) {
    let (endpoint, credentials) = (bind(), credentials());
    let pin = credentials.pin();
    let tls = ServerTls::new(credentials).alpn([alpn::MACULA]);
    let tls = tls.build(endpoint.clock()).unwrap();
    let mut listen = ListenConfig::new(tls);
    listen.transport.max_bidi_streams = 16_384;
    endpoint.listen(listen).unwrap();
    (endpoint, pin)
}

pub(crate) fn dial(endpoint: &Endpoint, pin: Pin) -> DialConfig {
    let tls = ClientTls::new(Trust::Pins(vec![pin])).alpn([alpn::MACULA]);
    DialConfig::new(tls.build(endpoint.clock()).unwrap())
}

pub(crate) fn config(node: u8) -> RpcConfig {
    RpcConfig::new([node; 32])
}

/// A connection of its own; the first end dialled.
pub(crate) async fn connection(near: RpcConfig, far: RpcConfig) -> (End, End) {
    let (acceptor, pin) = listen();
    acceptor.serve_rpc(far);
    let dialler = bind();
    let dial = dial(&dialler, pin);
    let dialled = dialler.connect_rpc(&dial, acceptor.local_addr(), "localhost", near);
    let (near, far) = soon("connecting", zip(dialled, acceptor.accept_rpc())).await;
    (end(near.unwrap(), &dialler), end(far.unwrap(), &acceptor))
}

fn end(client: RpcClient, endpoint: &Endpoint) -> End {
    let server = RpcServer::new(endpoint);
    End { client, server }
}

impl Rig {
    pub(crate) async fn new(carrier: Carrier) -> Self {
        match carrier {
            Carrier::Connection { per_call } => Self::connection(per_call).await,
            Carrier::Tunnel => Self::tunnel().await,
            Carrier::Peering => Self::peering().await,
            Carrier::Local => Self::local(),
        }
    }

    /// The other end calls.
    pub(crate) fn reversed(mut self) -> Self {
        std::mem::swap(&mut self.caller, &mut self.provider);
        self
    }

    async fn connection(per_call: bool) -> Self {
        let mut near = config(1);
        near.stream_per_call = per_call;
        if per_call {
            near.encoding = EncodingChoice::Only(Encoding::Cbor);
        }
        let (caller, provider) = connection(near, config(2)).await;
        for end in [&caller, &provider] {
            assert_eq!(end.client.info().unwrap().per_call, per_call);
            assert_eq!(end.client.hello().stream_per_call, per_call);
        }
        let hello = provider.client.hello().connect.clone().unwrap();
        assert_eq!(hello.node_id[..], [1; 32]);
        Self {
            carrier: Carrier::Connection { per_call },
            caller,
            provider,
            _kept: Vec::new(),
        }
    }

    async fn tunnel() -> Self {
        let credentials = credentials();
        let pin = credentials.pin();
        let tls = ServerTls::new(credentials).alpn([alpn::MACULA_DIST]);
        let relay = RelayServer::bind("127.0.0.1:0".parse().unwrap(), &tls, RelayConfig::default()).unwrap();
        let address = relay.endpoint().local_addr().to_string();
        let node = |name: &str| {
            let tls = ClientTls::new(Trust::Pins(vec![pin])).alpn([alpn::MACULA_DIST]);
            RelayClient::connect([address.parse().unwrap()], name, &tls).unwrap()
        };
        let (alice, bob) = (node("alice"), node("bob"));
        assert!(soon("identifying", alice.identified()).await);
        assert!(soon("identifying", bob.identified()).await);
        let serving = {
            let bob = bob.clone();
            spawn(async move { bob.serve_rpc(config(2)).await })
        };
        let tunnel = soon("a tunnel", alice.open("bob")).await.unwrap();
        let dialled = alice.endpoint().rpc_over(tunnel, true, config(1));
        let both = zip(dialled, bob.endpoint().accept_rpc());
        let (near, far) = soon("greeting", both).await;
        let server = |node: &RelayClient| RpcServer::new(node.endpoint());
        Self {
            carrier: Carrier::Tunnel,
            caller: End {
                client: near.unwrap(),
                server: server(&alice),
            },
            provider: End {
                client: far.unwrap(),
                server: server(&bob),
            },
            _kept: vec![Box::new((relay, alice, bob, serving))],
        }
    }

    async fn peering() -> Self {
        let identity = |byte| PeeringConfig::new(Arc::new(Identity::from_seed(&[byte; 32])));
        let (acceptor, pin) = listen();
        acceptor.serve_peers(PeerListenConfig::new(identity(2)), 16);
        let dialler = bind();
        let dial = dial(&dialler, pin);
        let near = dialler.connect_peer(&dial, acceptor.local_addr(), "localhost", identity(1));
        let both = zip(near, acceptor.accept_peer());
        let (near, far) = soon("connecting", both).await;
        let (near, far) = (near.unwrap(), far.unwrap());
        let caller = near.rpc(config(1)).await.unwrap();
        let provider = far.rpc(config(2)).await.unwrap();
        assert_eq!(
            caller.peer().unwrap().peer_id(),
            Identity::from_seed(&[2; 32]).node_id()
        );
        Self {
            carrier: Carrier::Peering,
            caller: end(caller, &dialler),
            provider: end(provider, &acceptor),
            _kept: Vec::new(),
        }
    }

    fn local() -> Self {
        let endpoint = bind();
        let server = RpcServer::new(&endpoint);
        let end = || End {
            client: endpoint.local_rpc(),
            server: server.clone(),
        };
        Self {
            carrier: Carrier::Local,
            caller: end(),
            provider: end(),
            _kept: Vec::new(),
        }
    }
}
