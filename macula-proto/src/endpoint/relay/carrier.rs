//! What a relay does with the connections of one shard: actions carried out, events told.

use std::{
    collections::{BTreeMap, HashMap},
    time::Instant,
};

use bytes::Bytes;

use super::{
    super::lane::{Lane, refuse},
    crossing::{Crossing, RelayMessage, Told, Way},
    direction::{End, Place},
    keys::Keys,
    splice::Splices,
};
use crate::{
    Code, Limits, Now,
    quic::{self, ConnectionHandle, Dir, OpenError, Shard, Side, StreamId},
    tunnel::{
        ConnKey, StreamKey,
        relay::{Action, Event, TunnelBytes, TunnelKey},
    },
};

/// Bytes of one control stream that may be on their way to the shard that decides, before no more are read.
const UNHEARD: usize = 64 << 10;

/// What an event comes to.
#[derive(Debug)]
pub(super) enum Seen {
    Nothing,
    Told(Told),
    /// There may be something on the control stream of this connection.
    Control(ConnectionHandle),
}

/// The connections of a relay on one shard.
#[derive(Debug)]
pub(super) struct Carrier {
    keys: Keys,
    splices: Splices,
    /// The control streams, once they are there.
    lanes: BTreeMap<ConnectionHandle, Option<Lane>>,
    backlog: usize,
    /// Bytes of control streams that the shard that decides has not heard yet, if that is another one.
    unheard: HashMap<ConnectionHandle, usize>,
}

impl Carrier {
    pub(super) fn new(shard: Shard, limits: &Limits) -> Self {
        Self {
            keys: Keys(shard),
            splices: Splices::new(limits.splice_block),
            lanes: BTreeMap::new(),
            backlog: limits.control_backlog,
            unheard: HashMap::new(),
        }
    }

    pub(super) fn runs(&self, conn: ConnectionHandle) -> bool {
        self.lanes.contains_key(&conn)
    }

    pub(super) fn tunnel_bytes(&self, tunnel: TunnelKey) -> Option<TunnelBytes> {
        self.splices.bytes(tunnel)
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.splices.next_deadline()
    }

    pub(super) fn handle_timeout(&mut self, now: Now) {
        self.splices.handle_timeout(now);
    }

    // ----- events --------------------------------------------------------------------------------------------------

    /// Takes over a connection whose handshake is complete.
    pub(super) fn connected(&mut self, quic: &mut quic::Endpoint, handle: ConnectionHandle) -> Option<Told> {
        let conn = quic.connection(handle).ok()?;
        self.lanes.insert(handle, None);
        Some(Told::Event(Event::Connected {
            conn: self.keys.key(handle),
            pin: conn.handshake().peer_pin.map(|pin| pin.0),
            remote: conn.remote_address(),
        }))
    }

    /// Takes an event of a connection of the relay.
    pub(super) fn on_event(&mut self, quic: &mut quic::Endpoint, event: &quic::Event) -> Seen {
        let Some(conn) = event.connection() else {
            return Seen::Nothing;
        };
        let key = self.keys.key(conn);
        if let quic::Event::Closed { .. } = event {
            self.lanes.remove(&conn);
            self.unheard.remove(&conn);
            self.splices.connection_lost(conn);
            return Seen::Told(Told::Event(Event::ConnectionLost { conn: key }));
        }
        if let quic::Event::StreamsAvailable { dir: Dir::Bi, .. } = event {
            return Seen::Told(Told::Event(Event::StreamsAvailable { conn: key }));
        }
        let Some(stream) = event.stream() else {
            return Seen::Nothing;
        };
        if let quic::Event::StreamOpened { .. } = event {
            return self.stream_opened(quic, conn, stream);
        }
        if self.splices.on_event(quic, End { conn, stream }, event) {
            return Seen::Nothing;
        }
        match self.lanes.get_mut(&conn) {
            Some(Some(lane)) if lane.stream() == stream => match event {
                quic::Event::Writable { .. } => {
                    lane.flush(quic);
                    Seen::Nothing
                }
                quic::Event::Readable { .. } | quic::Event::Reset { .. } => Seen::Control(conn),
                _ => Seen::Nothing,
            },
            _ => Seen::Nothing,
        }
    }

    fn stream_opened(&mut self, quic: &mut quic::Endpoint, conn: ConnectionHandle, stream: StreamId) -> Seen {
        let is_control = stream.dir() == Dir::Bi && stream.initiator() == Side::Client && stream.index() == 0;
        if !is_control {
            refuse(quic, conn, stream, Code::REFUSED);
            return Seen::Told(Told::Event(Event::ExtraStream {
                conn: self.keys.key(conn),
            }));
        }
        let lane = Lane::new(quic, conn, stream, self.backlog);
        self.lanes.insert(conn, Some(lane));
        Seen::Control(conn)
    }

    /// What comes next on the control stream of a connection, if something is there.
    pub(super) fn read_control(&mut self, quic: &mut quic::Endpoint, handle: ConnectionHandle) -> Option<Told> {
        let lane = self.lanes.get_mut(&handle)?.as_mut()?;
        if self.unheard.get(&handle).is_some_and(|bytes| *bytes >= UNHEARD) {
            return None;
        }
        let conn = self.keys.key(handle);
        Some(match lane.read(quic)? {
            Ok(bytes) => {
                if self.keys.0.index() > 0 {
                    *self.unheard.entry(handle).or_default() += bytes.len();
                }
                Told::ControlBytes { conn, bytes }
            }
            Err(end) => Told::Event(Event::ControlEnded { conn, end }),
        })
    }

    /// The shard that decides has heard so much. Answers the connection, of whose control stream more may be read.
    pub(super) fn heard(&mut self, conn: ConnKey, bytes: usize) -> Option<ConnectionHandle> {
        let handle = self.keys.handle(conn)?;
        let unheard = self.unheard.get_mut(&handle)?;
        *unheard = unheard.saturating_sub(bytes);
        Some(handle)
    }

    // ----- actions -------------------------------------------------------------------------------------------------

    /// Carries out an action, and says what came of it.
    pub(super) fn carry(&mut self, quic: &mut quic::Endpoint, now: Now, action: Action) -> Option<Told> {
        match action {
            Action::SendControl { conn, bytes } => {
                let lane = self.lanes.get_mut(&self.keys.handle(conn)?)?.as_mut()?;
                return lane
                    .send(quic, &bytes)
                    .err()
                    .map(|_| Told::Event(Event::ControlStalled { conn }));
            }
            Action::OpenStream { conn, ticket } => {
                return match quic.connection(self.keys.handle(conn)?).ok()?.open(Dir::Bi) {
                    Ok(stream) => Some(Told::Event(Event::StreamOpened {
                        ticket,
                        stream: StreamKey(stream.get()),
                    })),
                    Err(OpenError::Blocked) => Some(Told::Event(Event::StreamUnavailable { ticket })),
                    // The loss of the connection settles the ticket.
                    Err(_) => None,
                };
            }
            Action::Splice {
                tunnel,
                id,
                requester,
                target,
                rates,
            } => {
                let ends = (self.place(requester)?, self.place(target)?);
                self.splices.start(quic, now, tunnel, &id, ends, rates);
            }
            Action::DropStream { conn, stream, code } => {
                refuse(quic, self.keys.handle(conn)?, StreamId::new(stream.0)?, code);
            }
            Action::EndTunnel { tunnel, code } => {
                return Some(Told::PartEnded(tunnel, self.splices.end(quic, tunnel, code)?));
            }
            Action::CloseConnection { conn, code, reason } => {
                if let Ok(mut conn) = quic.connection(self.keys.handle(conn)?) {
                    conn.close(now, code, Bytes::from_static(reason.as_bytes()));
                }
            }
            Action::Report(_) => {}
        }
        None
    }

    fn place(&self, (conn, stream): (ConnKey, StreamKey)) -> Option<Place> {
        Some(match self.keys.handle(conn) {
            Some(conn) => Place::Here(End {
                conn,
                stream: StreamId::new(stream.0)?,
            }),
            None => Place::There(self.keys.shard(conn)),
        })
    }

    // ----- tunnels -------------------------------------------------------------------------------------------------

    /// Moves tunnel bytes; `None` when nothing can move. Answers a tunnel that is over with it.
    pub(super) fn run(&mut self, quic: &mut quic::Endpoint, now: Now) -> Option<Option<Told>> {
        let over = self.splices.run(quic, now)?;
        Some(over.map(|(tunnel, part)| Told::PartEnded(tunnel, part)))
    }

    pub(super) fn on_crossing(&mut self, quic: &mut quic::Endpoint, way: Way, crossing: Crossing) {
        self.splices.on_crossing(quic, way, crossing);
    }

    /// What is to be said to other shards about tunnels.
    pub(super) fn outbox(&mut self) -> impl Iterator<Item = (u8, RelayMessage)> + '_ {
        self.splices.outbox()
    }
}
