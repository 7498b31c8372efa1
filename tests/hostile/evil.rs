//! A node of whose two relays one is hostile, in memory. The tunnel through the good one is not to be disturbed.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use macula_proto::{
    Code, Event, Limits,
    endpoint::{ClientEvent, ClientId, RelayClientConfig},
    quic::{
        self, CloseReason, ConnectionHandle, DialConfig, Dir, ListenConfig, StreamId, alpn,
        tls::{ClientTls, Credentials, SelfSigned, ServerTls, Trust},
    },
    tunnel::{
        Name,
        client::{
            session::{SessionConfig, SessionStats, SessionStatus},
            supervisor::{SupervisorConfig, SupervisorStatus},
        },
        relay::RelayConfig,
    },
    wire::control::{Decoder, Message, TunnelId},
};

use crate::{
    attacker::{Bystander, closed, frame},
    world::{self, World},
};

/// A host that is a node of a good relay and of a hostile one.
pub(crate) struct Trap {
    pub(crate) world: World,
    /// The hostile relay.
    pub(crate) evil: usize,
    /// The host of the node, and its role towards the hostile relay.
    pub(crate) victim: (usize, ClientId),
    pub(crate) bystander: Bystander,
}

/// A connection of the victim, seen by the hostile relay.
#[derive(Debug)]
pub(crate) struct Caught {
    pub(crate) conn: ConnectionHandle,
    pub(crate) control: StreamId,
    decoder: Decoder,
}

impl Trap {
    pub(crate) fn new() -> Self {
        let mut world = World::new();
        let relay = world.add_relay(RelayConfig::default());
        let alice = world.add_node("alice", &[relay]);
        let bob = world.add_node("bob", &[relay]);
        world.identified(relay, "alice");
        world.identified(relay, "bob");
        let request = world.open(alice, "bob");
        let near = (alice.0, world.opened(alice.0, request));
        let (_, conn, stream) = world.incoming(bob.0);
        let bystander = Bystander::new(near, (bob.0, (conn, stream)));

        let evil = world.add(Limits::default());
        let endpoint = world.hosts[evil].endpoint.quic();
        let credentials = Credentials::self_signed(&[9; 32], &SelfSigned::default()).unwrap();
        let tls = ServerTls::new(credentials).alpn([alpn::MACULA_DIST]);
        let mut listen = ListenConfig::new(tls.build(endpoint.clock()).unwrap());
        listen.transport = world::transport();
        endpoint.listen(listen).unwrap();

        // Bob is caught: on the endpoint of his good tunnel.
        let address = world.hosts[evil].address.to_string().parse().unwrap();
        let now = world.now;
        let endpoint = &mut world.hosts[bob.0].endpoint;
        let tls = ClientTls::new(Trust::Insecure).alpn([alpn::MACULA_DIST]);
        let mut dial = DialConfig::new(tls.build(endpoint.quic().clock()).unwrap());
        dial.transport = world::transport();
        let config = RelayClientConfig {
            relays: vec![address],
            dial,
            session: SessionConfig::new(Name::from("bob")),
            supervisor: SupervisorConfig::default(),
        };
        let client = endpoint.relay_client(now, config).unwrap();
        Self {
            world,
            evil,
            victim: (bob.0, client),
            bystander,
        }
    }

    pub(crate) fn tick(&mut self) {
        self.bystander.tick(&mut self.world);
    }

    /// Waits for the victim's connection and its first stream.
    pub(crate) fn catch(&mut self) -> Caught {
        let (conn, control) = self.world.find(self.evil, "the victim", |event| match event {
            Event::Quic(quic::Event::StreamOpened { conn, stream }) => Some((*conn, *stream)),
            _ => None,
        });
        let mut caught = Caught {
            conn,
            control,
            decoder: Decoder::new(4096),
        };
        assert!(matches!(self.hear(&mut caught), Message::Identify { .. }));
        caught
    }

    /// As [`catch`](Self::catch), with the answer that makes the victim trust.
    pub(crate) fn catch_identified(&mut self) -> Caught {
        let caught = self.catch();
        self.say(&caught, &frame(&Message::Identified));
        self.world.run_until("the victim to be identified", |world| {
            let (_, session) = world.hosts[self.victim.0]
                .endpoint
                .client_status(self.victim.1)
                .unwrap();
            session.is_some_and(|session| session.identified).then_some(())
        });
        caught
    }

    pub(crate) fn say(&mut self, caught: &Caught, bytes: &[u8]) {
        self.write(caught, caught.control, bytes);
    }

    pub(crate) fn write(&mut self, caught: &Caught, stream: StreamId, mut bytes: &[u8]) {
        let evil = self.evil;
        self.world.run_until("the bytes are taken", |world| {
            while !bytes.is_empty() {
                let quic = world.hosts[evil].endpoint.quic();
                let Ok(mut conn) = quic.connection(caught.conn) else {
                    return Some(());
                };
                let Ok(mut stream) = conn.stream(stream) else {
                    return Some(());
                };
                match stream.write(bytes) {
                    Ok(written) => bytes = &bytes[written..],
                    Err(quic::WriteError::Blocked) => return None,
                    Err(_) => return Some(()),
                }
            }
            Some(())
        });
    }

    pub(crate) fn hear(&mut self, caught: &mut Caught) -> Message {
        let (evil, end) = (self.evil, (caught.conn, caught.control));
        self.world.run_until("a message", |world| {
            loop {
                if let Some(message) = caught.decoder.next() {
                    return Some(message.unwrap().1);
                }
                match world.with(evil, end, |stream| stream.read_chunk(usize::MAX)) {
                    Ok(Some(bytes)) => caught.decoder.push(&bytes),
                    _ => return None,
                }
            }
        })
    }

    pub(crate) fn open(&mut self, caught: &Caught, dir: Dir) -> Option<StreamId> {
        let quic = self.world.hosts[self.evil].endpoint.quic();
        quic.connection(caught.conn).ok()?.open(dir).ok()
    }

    pub(crate) fn status(&self) -> (SupervisorStatus, Option<SessionStatus>) {
        self.world.hosts[self.victim.0]
            .endpoint
            .client_status(self.victim.1)
            .unwrap()
    }

    pub(crate) fn session(&self) -> SessionStatus {
        self.status().1.expect("there is a session")
    }

    pub(crate) fn stats(&self) -> SessionStats {
        self.world.hosts[self.victim.0]
            .endpoint
            .client_stats(self.victim.1)
            .unwrap()
    }

    /// The code and the words with which the victim closed the connection.
    pub(crate) fn closed_with(&mut self, caught: &Caught) -> (Code, String) {
        match closed(&mut self.world, self.evil, caught.conn) {
            CloseReason::Peer { code, reason } => (code, String::from_utf8(reason.to_vec()).unwrap()),
            other => panic!("not closed by the victim: {other}"),
        }
    }

    /// Tunnels that the victim took for its own.
    pub(crate) fn handed_out(&mut self) -> usize {
        let client = self.victim.1;
        let events = self.world.hosts[self.victim.0].events.iter();
        let handed = events.filter(|event| match event {
            Event::Client { client: found, event } if *found == client => {
                matches!(event, ClientEvent::Opened { .. } | ClientEvent::Incoming { .. })
            }
            _ => false,
        });
        handed.count()
    }

    /// How often the hostile relay saw streams being stopped with this code.
    pub(crate) fn stopped(&self, code: Code) -> usize {
        let events = self.world.hosts[self.evil].events.iter();
        let stopped = events
            .filter(|event| matches!(event, Event::Quic(quic::Event::Stopped { code: found, .. }) if *found == code));
        stopped.count()
    }

    /// The victim holds nothing of what the hostile relay sent, and the bystander is well.
    pub(crate) fn nothing_is_left(&mut self) {
        for _ in 0..20 {
            self.world.run_for(Duration::from_secs(1));
            self.tick();
        }
        if let (_, Some(session)) = self.status() {
            assert_eq!((session.unidentified_streams, session.pending_inbound), (0, 0));
            assert_eq!((session.pending_outbound, session.active_tunnels), (0, 0));
        }
        let conn = self.world.hosts[self.victim.0]
            .endpoint
            .client_connection(self.victim.1)
            .unwrap();
        if let Some(conn) = conn
            && let Ok(conn) = self.world.hosts[self.victim.0].endpoint.quic().connection(conn)
        {
            assert!(conn.stats().streams_open <= 1, "{:?}", conn.stats());
        }
    }
}

/// A tunnel id, different for each number.
pub(crate) fn id(number: u64) -> TunnelId {
    let mut bytes = [b'0'; TunnelId::LENGTH];
    bytes[..16].copy_from_slice(format!("{number:016X}").as_bytes());
    TunnelId::from_bytes(bytes)
}

pub(crate) fn frames(messages: impl IntoIterator<Item = Message>) -> Bytes {
    let mut bytes = BytesMut::new();
    for message in messages {
        bytes.extend_from_slice(&frame(&message));
    }
    bytes.freeze()
}
