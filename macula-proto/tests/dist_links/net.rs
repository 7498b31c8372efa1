//! Nodes on one network.

use bytes::Bytes;
use macula_proto::{
    Event, Limits,
    dist::{handshake::HandshakeConfig, pool::SendError},
    endpoint::{DistConfig, DistEnd, DistEvent, DistId},
    quic::{
        DatagramSize, ListenConfig, TransportConfig, alpn,
        tls::{ClientTls, Credentials, SelfSigned, ServerTls, Trust},
    },
    wire::etf::Atom,
};

use crate::world::World;

/// Hosts that are nodes.
pub(crate) struct Net {
    pub(crate) world: World,
    pub(crate) names: Vec<Atom>,
}

/// Both ends of a connection: the host and the connection there.
pub(crate) type End = (usize, DistId);

pub(crate) fn atom(name: &str) -> Atom {
    Atom::new(name).unwrap()
}

pub(crate) fn transport() -> TransportConfig {
    let mut transport = TransportConfig::dist();
    transport.datagram_size = DatagramSize::UpTo(1452);
    transport
}

pub(crate) fn config(name: &str) -> DistConfig {
    let handshake = HandshakeConfig::new(atom(name), 7, "monster".into());
    let tls = ClientTls::new(Trust::Insecure).early_data(true);
    let mut config = DistConfig::new(handshake, tls);
    config.transport = transport();
    config
}

impl Net {
    /// Nodes of these names with the same settings.
    pub(crate) fn new(names: &[&str]) -> Self {
        Self::with(names, |_, _| {})
    }

    pub(crate) fn with(names: &[&str], adapt: impl Fn(usize, &mut DistConfig)) -> Self {
        let mut net = Self {
            world: World::new(),
            names: Vec::new(),
        };
        for (index, name) in names.iter().enumerate() {
            let mut config = config(name);
            adapt(index, &mut config);
            net.add(name, config);
        }
        net
    }

    pub(crate) fn add(&mut self, name: &str, config: DistConfig) -> usize {
        let host = self.world.add(Limits::default());
        let endpoint = &mut self.world.hosts[host].endpoint;
        let credentials = Credentials::self_signed(&[7; 32], &SelfSigned::default()).unwrap();
        let tls = ServerTls::new(credentials).alpn([alpn::ERLANG_DIST]).early_data(true);
        let mut listen = ListenConfig::new(tls.build(endpoint.quic().clock()).unwrap());
        listen.transport = transport();
        endpoint.quic().listen(listen).unwrap();
        endpoint.serve_dist(config);
        self.names.push(atom(name));
        host
    }

    pub(crate) fn dial(&mut self, from: usize, to: usize) -> DistId {
        let (now, node, remote) = (self.world.now, self.names[to].clone(), self.world.hosts[to].address);
        let endpoint = &mut self.world.hosts[from].endpoint;
        endpoint.connect_dist(now, node, remote, "node").unwrap()
    }

    /// Two nodes that are up: a, who dialled, and b.
    pub(crate) fn linked(adapt: impl Fn(usize, &mut DistConfig)) -> (Self, End, End) {
        let mut net = Self::with(&["a@h", "b@h"], adapt);
        let a = net.dial(0, 1);
        net.up(0);
        let b = net.up(1);
        (net, (0, a), (1, b))
    }

    /// Waits for an event of a host.
    pub(crate) fn find<T>(
        &mut self,
        host: usize,
        what: &str,
        mut pick: impl FnMut(DistId, &DistEvent) -> Option<T>,
    ) -> T {
        self.world.find(host, what, |event| match event {
            Event::Dist { dist, event } => pick(*dist, event),
            _ => None,
        })
    }

    pub(crate) fn up(&mut self, host: usize) -> DistId {
        self.find(host, "a node to be up", |dist, event| {
            matches!(event, DistEvent::Up { .. }).then_some(dist)
        })
    }

    pub(crate) fn down(&mut self, (host, dist): End) -> DistEnd {
        self.find(host, "a node to be down", |found, event| match event {
            DistEvent::Down { reason, .. } if found == dist => Some(reason.clone()),
            _ => None,
        })
    }

    /// The events of a connection that were not looked for.
    pub(crate) fn rest(&mut self, (host, dist): End) -> Vec<DistEvent> {
        let events = self.world.hosts[host].events.iter();
        events
            .filter_map(|event| match event {
                Event::Dist { dist: found, event } if *found == dist => Some(event.clone()),
                _ => None,
            })
            .collect()
    }

    pub(crate) fn try_send(&mut self, (host, dist): End, message: &Bytes, key: u64) -> Result<(), SendError> {
        let now = self.world.now;
        self.world.hosts[host]
            .endpoint
            .dist_send(now, dist, message.clone(), key)
    }

    pub(crate) fn recv(&mut self, (host, dist): End) -> Option<Bytes> {
        let now = self.world.now;
        self.world.hosts[host].endpoint.next_dist_message(now, dist)
    }

    /// Sends messages and takes them at the other end, until all are there.
    pub(crate) fn transfer(&mut self, from: End, to: End, messages: &[(u64, Bytes)]) -> Vec<Bytes> {
        let mut received = Vec::new();
        let mut next = messages.iter().peekable();
        let world = &mut self.world;
        world.run_until("all messages", |world| {
            let now = world.now;
            loop {
                let mut moved = false;
                while let Some((key, message)) = next.peek() {
                    match world.hosts[from.0]
                        .endpoint
                        .dist_send(now, from.1, message.clone(), *key)
                    {
                        Ok(()) => _ = next.next(),
                        Err(SendError::Later | SendError::Congested) => break,
                        Err(error) => panic!("{error}"),
                    }
                    moved = true;
                }
                while let Some(message) = world.hosts[to.0].endpoint.next_dist_message(now, to.1) {
                    received.push(message);
                    moved = true;
                }
                world.settle();
                if !moved {
                    break;
                }
            }
            (received.len() == messages.len()).then_some(())
        });
        assert!(next.peek().is_none());
        received
    }
}

/// A message with a number in it.
pub(crate) fn numbered(number: u64) -> Bytes {
    let mut message = number.to_be_bytes().to_vec();
    message.resize(8 + usize::try_from(number % 50).unwrap(), 0x70);
    message.into()
}

pub(crate) fn number(message: &Bytes) -> u64 {
    u64::from_be_bytes(message[..8].try_into().unwrap())
}
