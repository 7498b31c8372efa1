//! Two programs and a link between them, of each kind.

use std::{sync::Arc, time::Duration};

use macula_proto::{
    Event, Limits,
    endpoint::{IncomingCall, PeerEvent, PeerListenConfig, RpcEvent, RpcId},
    identity::Identity,
    peering::PeeringConfig,
    quic::{
        DialConfig, ListenConfig, alpn,
        tls::{ClientTls, Credentials, SelfSigned, ServerTls, Trust},
    },
    rpc::{
        Chunk, EncodingChoice, Kind, Mode, Outcome, RecvError, ReplyError, RpcConfig,
        session::{CallId, EndReason, Request},
    },
    tunnel::relay::RelayConfig,
    wire::{Encoding, Value},
};

use crate::world::{World, transport};

/// What carries the calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carrier {
    /// A connection, each call on a stream of its own.
    PerCall,
    /// A connection, all calls on one stream, in MessagePack.
    SharedMsgpack,
    /// A connection, all calls on one stream, in CBOR.
    SharedCbor,
    /// A tunnel of a relay.
    Tunnel,
    /// Signed frames of a peering connection.
    Signed,
    /// The process itself.
    Local,
}

impl Carrier {
    pub(crate) const ALL: [Self; 6] = [
        Self::PerCall,
        Self::SharedMsgpack,
        Self::SharedCbor,
        Self::Tunnel,
        Self::Signed,
        Self::Local,
    ];

    /// Those between two endpoints.
    pub(crate) fn remote() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|carrier| *carrier != Self::Local)
    }
}

/// A client, a server, and a link.
pub(crate) struct Ends {
    pub(crate) world: World,
    pub(crate) carrier: Carrier,
    pub(crate) client: usize,
    pub(crate) server: usize,
    pub(crate) link: RpcId,
}

/// The procedures that every server here offers.
pub(crate) const PROCEDURES: [(&str, Kind); 4] = [
    ("echo", Kind::Stream(Mode::Bidi)),
    ("count", Kind::Stream(Mode::ServerStream)),
    ("sum", Kind::Stream(Mode::ClientStream)),
    ("add", Kind::Unary),
];

pub(crate) fn config(number: u8) -> RpcConfig {
    RpcConfig::new([number; 32])
}

impl Ends {
    pub(crate) fn new(carrier: Carrier) -> Self {
        Self::with(carrier, |_| {})
    }

    /// With these settings at both ends.
    pub(crate) fn with(carrier: Carrier, adapt: impl Fn(&mut RpcConfig)) -> Self {
        let make = |number| {
            let mut config = config(number);
            match carrier {
                Carrier::SharedMsgpack => config.stream_per_call = false,
                Carrier::SharedCbor => {
                    config.stream_per_call = false;
                    config.encoding = EncodingChoice::Only(Encoding::Cbor);
                }
                _ => {}
            }
            adapt(&mut config);
            config
        };
        let mut ends = match carrier {
            Carrier::PerCall | Carrier::SharedMsgpack | Carrier::SharedCbor => connection(make(1), make(2)),
            Carrier::Tunnel => tunnel(make(1), make(2)),
            Carrier::Signed => signed(make(1), make(2)),
            Carrier::Local => local(),
        };
        ends.carrier = carrier;
        for (name, kind) in PROCEDURES {
            assert!(ends.world.hosts[ends.server].endpoint.advertise(name, kind));
        }
        ends
    }

    // ----- the client ----------------------------------------------------------------------------------------------

    pub(crate) fn open(&mut self, procedure: &str, kind: Kind, args: Value) -> CallId {
        let request = Request {
            args,
            ..Request::new(procedure.to_owned(), kind)
        };
        self.request(request)
    }

    pub(crate) fn request(&mut self, request: Request) -> CallId {
        let now = self.world.now;
        let endpoint = &mut self.world.hosts[self.client].endpoint;
        endpoint.open_call(now, self.link, request).unwrap()
    }

    /// The next call that comes in at the server.
    pub(crate) fn incoming(&mut self) -> IncomingCall {
        let server = self.server;
        self.world.run_until("an incoming call", |world| {
            world.hosts[server].endpoint.next_incoming_call()
        })
    }

    /// Opens a streaming call, and takes it at the server.
    pub(crate) fn call(&mut self, procedure: &str, mode: Mode) -> (CallId, CallId) {
        let client = self.open(procedure, Kind::Stream(mode), Value::Null);
        let incoming = self.incoming();
        assert_eq!(incoming.incoming.procedure, procedure);
        (client, incoming.incoming.call)
    }

    // ----- either end ----------------------------------------------------------------------------------------------

    pub(crate) fn send(&mut self, host: usize, call: CallId, chunk: Chunk) {
        let mut chunk = Some(chunk);
        self.world.run_until("room to send", |world| {
            let now = world.now;
            let sent = world.hosts[host].endpoint.call_send(now, call, chunk.take()?);
            match sent {
                Ok(()) => Some(()),
                Err((error, back)) => {
                    assert!(
                        matches!(error.name(), "would_block" | "no_peer"),
                        "only for now: {error}"
                    );
                    chunk = Some(back);
                    None
                }
            }
        });
    }

    pub(crate) fn recv(&mut self, host: usize, call: CallId) -> Result<Chunk, RecvError> {
        self.world.run_until("a chunk or the end", |world| {
            let now = world.now;
            match world.hosts[host].endpoint.call_recv(now, call) {
                Err(RecvError::WouldBlock) => None,
                received => Some(received),
            }
        })
    }

    pub(crate) fn raw(&mut self, host: usize, call: CallId) -> Vec<u8> {
        match self.recv(host, call) {
            Ok(Chunk::Raw(bytes)) => bytes.to_vec(),
            other => panic!("a raw chunk, not {other:?}"),
        }
    }

    pub(crate) fn finish(&mut self, host: usize, call: CallId) {
        let now = self.world.now;
        self.world.hosts[host].endpoint.call_finish(now, call);
    }

    pub(crate) fn close(&mut self, host: usize, call: CallId) {
        let now = self.world.now;
        self.world.hosts[host].endpoint.call_close(now, call);
    }

    pub(crate) fn forget(&mut self, host: usize, call: CallId) {
        let now = self.world.now;
        self.world.hosts[host].endpoint.forget_call(now, call);
    }

    pub(crate) fn set_reply(&mut self, host: usize, call: CallId, outcome: Outcome) -> bool {
        let now = self.world.now;
        self.world.hosts[host].endpoint.call_set_reply(now, call, outcome)
    }

    pub(crate) fn reply(&mut self, host: usize, call: CallId) -> Result<Outcome, ReplyError> {
        self.world.run_until("a reply", |world| {
            let now = world.now;
            world.hosts[host].endpoint.call_reply(now, call)
        })
    }

    /// Waits for the one event that says that the call is over on this side.
    pub(crate) fn finished(&mut self, host: usize, call: CallId) {
        self.world.find(host, "the end of the call", |event| match event {
            Event::Rpc(RpcEvent::Finished(over)) if *over == call => Some(()),
            _ => None,
        });
    }

    pub(crate) fn down(&mut self, host: usize) -> EndReason {
        self.world.find(host, "the end of the link", |event| match event {
            Event::Rpc(RpcEvent::Down { reason, .. }) => Some(reason.clone()),
            _ => None,
        })
    }

    /// After everything was forgotten nothing is left of the calls.
    pub(crate) fn nothing_left(&mut self) {
        self.world.run_for(Duration::from_secs(1));
        for host in [self.client, self.server] {
            let endpoint = &self.world.hosts[host].endpoint;
            let links = (1..8).filter_map(|_| None::<RpcId>).chain([self.link]);
            for link in links {
                if let Some(info) = endpoint.rpc_info(link) {
                    assert_eq!((info.calls, info.queued, info.waiting), (0, 0, 0), "at host {host}");
                }
            }
        }
    }
}

/// Waits until the link of a dialler is up, and returns whether each call has a stream.
pub(crate) fn up(world: &mut World, host: usize, link: RpcId) -> bool {
    world.find(host, "the link", |event| match event {
        Event::Rpc(RpcEvent::Up { link: found, hello }) if *found == link => Some(hello.stream_per_call),
        Event::Rpc(RpcEvent::Down { reason, .. }) => panic!("no link: {reason}"),
        _ => None,
    })
}

pub(crate) fn listen(world: &mut World) -> usize {
    let host = world.add(Limits::default());
    let endpoint = &mut world.hosts[host].endpoint;
    let credentials = Credentials::self_signed(&[7; 32], &SelfSigned::default()).unwrap();
    let tls = ServerTls::new(credentials).alpn([alpn::MACULA]);
    let mut listen = ListenConfig::new(tls.build(endpoint.quic().clock()).unwrap());
    listen.transport = transport();
    listen.transport.max_bidi_streams = 16_384;
    endpoint.quic().listen(listen).unwrap();
    host
}

pub(crate) fn dial_config(world: &mut World, host: usize) -> DialConfig {
    let tls = ClientTls::new(Trust::Insecure).alpn([alpn::MACULA]);
    let mut dial = DialConfig::new(tls.build(world.hosts[host].endpoint.quic().clock()).unwrap());
    dial.transport = transport();
    dial
}

pub(crate) fn dial(world: &mut World, host: usize, server: usize, config: RpcConfig) -> RpcId {
    let dial = dial_config(world, host);
    let (now, remote) = (world.now, world.hosts[server].address);
    let endpoint = &mut world.hosts[host].endpoint;
    endpoint.connect_rpc(now, &dial, remote, "peer", config).unwrap()
}

fn connection(near: RpcConfig, far: RpcConfig) -> Ends {
    let per_call = near.stream_per_call;
    let mut world = World::new();
    let server = listen(&mut world);
    world.hosts[server].endpoint.serve_rpc(far);
    let client = world.add(Limits::default());
    let link = dial(&mut world, client, server, near);
    assert_eq!(up(&mut world, client, link), per_call);
    ends(world, client, server, link)
}

fn tunnel(near: RpcConfig, far: RpcConfig) -> Ends {
    let (mut world, _, alice, bob) = World::with_two_nodes(RelayConfig::default());
    let ((client, near_end), (server, far_end)) = world.tunnel(alice, bob);
    let now = world.now;
    let link = world.hosts[client]
        .endpoint
        .rpc_over_tunnel(now, near_end.0, near_end.1, true, near);
    world.hosts[server]
        .endpoint
        .rpc_over_tunnel(now, far_end.0, far_end.1, false, far);
    assert!(!up(&mut world, client, link));
    ends(world, client, server, link)
}

fn signed(near: RpcConfig, far: RpcConfig) -> Ends {
    let peering = |number| PeeringConfig::new(Arc::new(Identity::from_seed(&[number; 32])));
    let mut world = World::new();
    let server = listen(&mut world);
    world.hosts[server]
        .endpoint
        .serve_peers(PeerListenConfig::new(peering(2)));
    let client = world.add(Limits::default());
    let dial = dial_config(&mut world, client);
    let (now, remote) = (world.now, world.hosts[server].address);
    let endpoint = &mut world.hosts[client].endpoint;
    endpoint.connect_peer(now, &dial, remote, "peer", peering(1)).unwrap();
    let mut connected = |host| {
        world.find(host, "a connected peer", |event| match event {
            Event::Peer {
                peer,
                event: PeerEvent::Connected { .. },
            } => Some(*peer),
            _ => None,
        })
    };
    let (near_peer, far_peer) = (connected(client), connected(server));
    let now = world.now;
    let link = world.hosts[client].endpoint.rpc_over_peer(now, near_peer, near);
    world.hosts[server].endpoint.rpc_over_peer(now, far_peer, far);
    up(&mut world, client, link);
    ends(world, client, server, link)
}

fn local() -> Ends {
    let mut world = World::new();
    let host = world.add(Limits::default());
    ends(world, host, host, RpcId::LOCAL)
}

fn ends(world: World, client: usize, server: usize, link: RpcId) -> Ends {
    Ends {
        world,
        carrier: Carrier::Local,
        client,
        server,
        link,
    }
}
