//! A relay and whatever its clients send it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use bytes::BytesMut;
use macula_proto::{
    Now, Rng,
    tunnel::{
        ConnKey, ControlEnd, StreamKey,
        relay::{Action, Event, Relay, RelayConfig, SpliceEnd, Ticket, TunnelBytes, TunnelKey},
    },
    wire::{
        Encoding,
        control::{Message, NodeName, TunnelId},
    },
};

/// Clients at once.
const CLIENTS: u8 = 4;
/// Events of one run, so that a run stays short.
const EVENTS: usize = 400;

/// The bytes are a list of what happens: `operation, client, ...`. The machine must never send to, or open a stream at, a
/// connection that is gone or closed; what it sends must be messages of a relay; its deadline must lie behind the time-out
/// just handled; and once all clients are gone it holds nothing.
pub fn relay_session(data: &[u8]) {
    let mut world = World::new();
    let mut script = Script(data);
    for _ in 0..EVENTS {
        let (Some(operation), Some(client)) = (script.byte(), script.byte()) else {
            break;
        };
        world.happen(operation, client % CLIENTS, &mut script);
    }
    for client in 0..CLIENTS {
        world.lose(client);
    }
    assert!(world.relay.is_empty(), "something is left of clients that are gone");
}

struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    /// A length, and as many bytes, or all that are left.
    fn bytes(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte().unwrap_or(0)).min(self.0.len());
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken
    }
}

struct World {
    relay: Relay,
    now: Now,
    /// The connection of each client, if it has one; and whether the relay has closed it.
    conns: BTreeMap<u8, (ConnKey, bool)>,
    tickets: BTreeSet<(Ticket, ConnKey)>,
    tunnels: BTreeMap<TunnelKey, TunnelId>,
    next: u64,
}

impl World {
    fn new() -> Self {
        Self {
            relay: Relay::new(RelayConfig::default(), Rng::from_seed(1)),
            now: Now::new(Instant::now(), 1_750_000_000_000),
            conns: BTreeMap::new(),
            tickets: BTreeSet::new(),
            tunnels: BTreeMap::new(),
            next: 0,
        }
    }

    fn happen(&mut self, operation: u8, client: u8, script: &mut Script<'_>) {
        let Some(&(conn, _)) = self.conns.get(&client) else {
            return self.connect(client);
        };
        let encoding = if operation & 0x80 == 0 {
            Encoding::MessagePack
        } else {
            Encoding::Cbor
        };
        let name = |byte: Option<u8>| NodeName::new(&[b'a' + byte.unwrap_or(0) % CLIENTS]);
        match operation & 0x0f {
            0 => self.lose(client),
            1 | 2 => self.say(
                conn,
                encoding,
                &Message::Identify {
                    name: name(Some(client)),
                },
            ),
            3 => self.say(
                conn,
                encoding,
                &Message::Identify {
                    name: name(script.byte()),
                },
            ),
            4..=6 => self.say(
                conn,
                encoding,
                &Message::TunnelRequest {
                    target: name(script.byte()),
                },
            ),
            7 => {
                let at = usize::from(script.byte().unwrap_or(0)) % self.tunnels.len().max(1);
                let known = self.tunnels.values().nth(at);
                let tunnel = known.copied().unwrap_or(TunnelId::from_bytes([b'0'; 32]));
                self.say(conn, encoding, &Message::TunnelClose { tunnel });
            }
            8 => self.event(Event::ControlBytes {
                conn,
                bytes: script.bytes(),
            }),
            9 => self.event(Event::ControlEnded {
                conn,
                end: ControlEnd::Finished,
            }),
            10 => self.event(Event::ControlStalled { conn }),
            11 => self.event(Event::ExtraStream { conn }),
            12 => self.answer(script.byte().unwrap_or(0)),
            13 => self.event(Event::StreamsAvailable { conn }),
            14 => self.tunnel_ends(script.byte().unwrap_or(0)),
            _ => self.sleep(script.byte().unwrap_or(0)),
        }
    }

    fn connect(&mut self, client: u8) {
        let conn = ConnKey(self.next());
        self.conns.insert(client, (conn, false));
        let remote = SocketAddr::from((Ipv4Addr::LOCALHOST, 1000 + u16::from(client)));
        self.event(Event::Connected {
            conn,
            pin: None,
            remote,
        });
    }

    fn lose(&mut self, client: u8) {
        if let Some((conn, _)) = self.conns.remove(&client) {
            self.tickets.retain(|(_, at)| *at != conn);
            self.event(Event::ConnectionLost { conn });
        }
    }

    fn say(&mut self, conn: ConnKey, encoding: Encoding, message: &Message) {
        let mut bytes = BytesMut::new();
        message.encode(encoding, &mut bytes);
        self.event(Event::ControlBytes { conn, bytes: &bytes });
    }

    /// Settles one of the streams that the relay asked for.
    fn answer(&mut self, choice: u8) {
        let at = usize::from(choice >> 1) % self.tickets.len().max(1);
        let Some(&(ticket, conn)) = self.tickets.iter().nth(at) else {
            return;
        };
        self.tickets.remove(&(ticket, conn));
        if choice & 1 == 0 {
            let stream = StreamKey(self.next());
            self.event(Event::StreamOpened { ticket, stream });
        } else {
            self.event(Event::StreamUnavailable { ticket });
        }
    }

    fn tunnel_ends(&mut self, choice: u8) {
        let at = usize::from(choice) % self.tunnels.len().max(1);
        let Some(&tunnel) = self.tunnels.keys().nth(at) else {
            return;
        };
        self.tunnels.remove(&tunnel);
        let (end, bytes) = (SpliceEnd::Finished, TunnelBytes::default());
        self.event(Event::TunnelEnded { tunnel, end, bytes });
    }

    /// Lets time pass, in steps of 100 ms, or to the deadline.
    fn sleep(&mut self, steps: u8) {
        let until = self.now.after(Duration::from_millis(100 * u64::from(steps)));
        self.now = match self.relay.poll_timeout() {
            Some(at) if steps == 0 => self.now.after(at.saturating_duration_since(self.now.mono)),
            _ => until,
        };
        if self.relay.poll_timeout().is_some_and(|at| at <= self.now.mono) {
            self.event(Event::Timeout);
            assert!(
                self.relay.poll_timeout().is_none_or(|at| at > self.now.mono),
                "a deadline that is over"
            );
        }
    }

    fn next(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn event(&mut self, event: Event<'_>) {
        let mut actions = Vec::new();
        self.relay.handle(self.now, event, &mut actions);
        for action in actions {
            self.check(action);
        }
    }

    fn check(&mut self, action: Action) {
        match action {
            Action::SendControl { conn, bytes } => {
                self.assert_open(conn);
                let (_, message) = Message::decode(&bytes[4..]).expect("a message");
                let client_only = ["identify", "tunnel_request", "tunnel_close"];
                assert!(
                    !client_only.contains(&message.kind()),
                    "a relay says {}",
                    message.kind()
                );
            }
            Action::OpenStream { conn, ticket } => {
                self.assert_open(conn);
                assert!(self.tickets.insert((ticket, conn)), "a ticket used twice");
            }
            Action::Splice {
                tunnel,
                id,
                requester,
                target,
                ..
            } => {
                self.assert_open(requester.0);
                self.assert_open(target.0);
                assert_ne!(requester.1, target.1, "both ends on one stream");
                assert!(self.tunnels.insert(tunnel, id).is_none(), "a tunnel's key used twice");
            }
            Action::EndTunnel { tunnel, .. } => {
                assert!(
                    self.tunnels.remove(&tunnel).is_some(),
                    "the end of a tunnel that is not there"
                );
            }
            Action::CloseConnection { conn, .. } => {
                self.assert_open(conn);
                let mut conns = self.conns.values_mut();
                let entry = conns.find(|(open, _)| *open == conn).expect("open");
                entry.1 = true;
            }
            Action::DropStream { .. } | Action::Report(_) => {}
        }
    }

    fn assert_open(&self, conn: ConnKey) {
        assert!(
            self.conns.values().any(|entry| *entry == (conn, false)),
            "{conn:?} is gone or closed"
        );
    }
}
