//! Connections that the router runs: its actions carried out, its events fed.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Instant,
};

use bytes::Bytes;

use super::{Endpoint, lane::refuse};
use crate::{
    Code, Now, Rng,
    quic::{self, ConnectionHandle, ReadError, Side, StreamId, WriteError, alpn},
    rpc::router::{Action, ConnKey, Event, Router, RouterConfig, RouterStats, RouterStatus, StreamEnded},
};

/// The first byte of an RPC connection: the version of a message.
const RPC: u8 = 1;
/// How much is read at once, in bytes.
const PIECE: usize = 64 << 10;

/// Procedures of the nodes that are connected here, for each other.
///
/// A router takes connections with ALPN `macula` whose first byte is that of an RPC message. It can run beside a relay and beside
/// peers on the same socket; where peers are served too, that byte tells who takes the connection.
impl Endpoint {
    /// Routes calls between nodes on connections accepted from now on. [`quic::Endpoint::listen`] comes beside it, with the ALPN
    /// `macula`. Another call changes nothing before [`stop_router`](Self::stop_router).
    pub fn serve_router(&mut self, config: RouterConfig) {
        if self.router.is_none() {
            let rng = self.rng.fork();
            self.router = Some(RouterRole::new(config, rng));
        }
    }

    /// Whether a router runs here.
    pub fn is_router(&self) -> bool {
        self.router.is_some()
    }

    /// Makes the router take nothing new: calls and registrations are refused with `draining`, calls under way go on, and a
    /// connection without any is closed with [`Code::DRAINING`] a second later.
    pub fn drain_router(&mut self, now: Now) {
        self.with_router(|router, quic| router.tell(quic, now, Event::Drain));
    }

    /// Closes all connections of the router with `code`, and routes no more.
    pub fn stop_router(&mut self, now: Now, code: Code) {
        self.with_router(|router, quic| router.tell(quic, now, Event::Stop(code)));
        self.router = None;
    }

    /// A snapshot of the router, if one runs here. The numbers of its connections are those of
    /// [`ConnectionHandle::to_bits`].
    pub fn router_status(&self) -> Option<RouterStatus> {
        self.router.as_ref().map(|router| router.machine.status())
    }

    /// Counters of the router, if one runs here.
    pub fn router_stats(&self) -> Option<RouterStats> {
        self.router.as_ref().map(RouterRole::stats)
    }

    pub(super) fn with_router(&mut self, run: impl FnOnce(&mut RouterRole, &mut quic::Endpoint)) {
        if let Some(router) = &mut self.router {
            run(router, &mut self.quic);
        }
    }
}

/// A router inside an endpoint.
#[derive(Debug)]
pub(super) struct RouterRole {
    machine: Router,
    conns: BTreeMap<ConnectionHandle, Link>,
    actions: VecDeque<Action>,
    scratch: Vec<Action>,
    extra_streams: u64,
    /// Connections that turned out to be something else.
    strangers: u64,
}

/// A connection, as far as the machine does not know it.
#[derive(Debug, Default)]
struct Link {
    /// The only stream, once it is there.
    stream: Option<StreamId>,
    /// Its first byte was that of a message.
    begun: bool,
}

impl RouterRole {
    fn new(config: RouterConfig, rng: Rng) -> Self {
        Self {
            machine: Router::new(config, rng),
            conns: BTreeMap::new(),
            actions: VecDeque::new(),
            scratch: Vec::new(),
            extra_streams: 0,
            strangers: 0,
        }
    }

    /// Whether an event is about a connection of this role, or one that it takes over now.
    pub(super) fn takes(&self, event: &quic::Event) -> bool {
        let arrives = match event {
            quic::Event::Connected { side, alpn, .. } => *side == Side::Server && alpn.as_deref() == Some(alpn::MACULA),
            _ => false,
        };
        arrives || event.connection().is_some_and(|conn| self.conns.contains_key(&conn))
    }

    pub(super) fn on_event(&mut self, quic: &mut quic::Endpoint, now: Now, event: &quic::Event) {
        let Some(conn) = event.connection() else { return };
        match event {
            quic::Event::Connected { .. } => self.connected(quic, now, conn),
            quic::Event::Closed { .. } => {
                self.conns.remove(&conn);
                self.feed(now, Event::Lost(key(conn)));
            }
            quic::Event::StreamOpened { stream, .. } => self.stream_opened(quic, now, conn, *stream),
            _ => {
                let own = self.conns.get(&conn).and_then(|link| link.stream);
                if own.is_some() && own == event.stream() {
                    self.stream_event(quic, now, conn, event);
                }
            }
        }
        self.work(quic, now);
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.machine.poll_timeout()
    }

    pub(super) fn handle_timeout(&mut self, quic: &mut quic::Endpoint, now: Now) {
        if self.machine.poll_timeout().is_some_and(|at| at <= now.mono) {
            self.tell(quic, now, Event::Timeout);
        }
    }

    // ----- inside --------------------------------------------------------------------------------------------------

    fn stats(&self) -> RouterStats {
        let mut stats = self.machine.stats();
        stats.extra_streams = self.extra_streams;
        stats.failed += self.strangers;
        stats
    }

    fn tell(&mut self, quic: &mut quic::Endpoint, now: Now, event: Event) {
        self.feed(now, event);
        self.work(quic, now);
    }

    fn connected(&mut self, quic: &mut quic::Endpoint, now: Now, conn: ConnectionHandle) {
        self.conns.insert(conn, Link::default());
        self.feed(now, Event::Connected(key(conn)));
        // With early data its stream can have been announced before.
        if let Some(first) = StreamId::new(0)
            && quic.connection(conn).is_ok_and(|mut conn| conn.stream(first).is_ok())
        {
            self.stream_opened(quic, now, conn, first);
        }
    }

    fn stream_opened(&mut self, quic: &mut quic::Endpoint, now: Now, conn: ConnectionHandle, stream: StreamId) {
        let Some(link) = self.conns.get_mut(&conn) else { return };
        if link.stream == Some(stream) {
            return;
        }
        if StreamId::new(0) != Some(stream) {
            self.extra_streams += 1;
            return refuse(quic, conn, stream, Code::REFUSED);
        }
        link.stream = Some(stream);
        if let Ok(mut conn) = quic.connection(conn)
            && let Ok(mut stream) = conn.stream(stream)
        {
            stream.hold();
        }
        self.read(quic, now, conn);
        self.flush(quic, now, conn);
    }

    fn stream_event(&mut self, quic: &mut quic::Endpoint, now: Now, conn: ConnectionHandle, event: &quic::Event) {
        match event {
            quic::Event::Readable { .. } | quic::Event::Finished { .. } => self.read(quic, now, conn),
            quic::Event::Reset { code, .. } => self.feed(now, Event::Ended(key(conn), StreamEnded::Reset(*code))),
            quic::Event::Stopped { code, .. } => self.feed(now, Event::Ended(key(conn), StreamEnded::Stopped(*code))),
            quic::Event::Writable { .. } => self.flush(quic, now, conn),
            _ => {}
        }
    }

    /// Reads as long as the machine takes it.
    fn read(&mut self, quic: &mut quic::Endpoint, now: Now, conn: ConnectionHandle) {
        while self.machine.wants(key(conn))
            && let Some(link) = self.conns.get_mut(&conn)
            && let Some(stream) = link.stream
            && let Ok(mut connection) = quic.connection(conn)
            && let Ok(mut stream) = connection.stream(stream)
        {
            let event = match stream.read_chunk(PIECE) {
                Ok(Some(bytes)) => {
                    let begun = std::mem::replace(&mut link.begun, true);
                    if !begun && bytes.first() != Some(&RPC) {
                        self.strangers += 1;
                        connection.close(now, Code::PROTOCOL, Bytes::from_static(b"not rpc"));
                        return self.feed(now, Event::Lost(key(conn)));
                    }
                    Event::Received(key(conn), bytes)
                }
                Ok(None) => Event::Ended(key(conn), StreamEnded::Finished),
                Err(ReadError::Reset(code)) => Event::Ended(key(conn), StreamEnded::Reset(code)),
                Err(_) => return,
            };
            self.feed(now, event);
        }
    }

    /// Writes what waits, as far as it goes.
    fn flush(&mut self, quic: &mut quic::Endpoint, now: Now, conn: ConnectionHandle) {
        let Some(stream) = self.conns.get(&conn).and_then(|link| link.stream) else {
            return;
        };
        let Ok(mut connection) = quic.connection(conn) else {
            return;
        };
        let Ok(mut stream) = connection.stream(stream) else {
            return;
        };
        loop {
            let blocks = self.machine.output(key(conn));
            if blocks.is_empty() {
                break;
            }
            match stream.write_chunks(blocks) {
                Ok(_) => {
                    self.machine.wrote(now, key(conn), &mut self.scratch);
                    self.actions.extend(self.scratch.drain(..));
                }
                Err(WriteError::Blocked) => break,
                Err(WriteError::Stopped(code)) => {
                    return self.feed(now, Event::Ended(key(conn), StreamEnded::Stopped(code)));
                }
                // The end of the connection is reported by itself.
                Err(_) => break,
            }
        }
    }

    fn feed(&mut self, now: Now, event: Event) {
        self.machine.handle(now, event, &mut self.scratch);
        self.actions.extend(self.scratch.drain(..));
    }

    /// Carries out actions until there are none.
    fn work(&mut self, quic: &mut quic::Endpoint, now: Now) {
        while let Some(action) = self.actions.pop_front() {
            match action {
                Action::Write(conn) => self.flush(quic, now, handle(conn)),
                Action::Read(conn) => self.read(quic, now, handle(conn)),
                Action::Close(conn, code, words) => {
                    if let Ok(mut conn) = quic.connection(handle(conn)) {
                        conn.close(now, code, Bytes::from_static(words.as_bytes()));
                    }
                }
            }
        }
    }
}

fn key(conn: ConnectionHandle) -> ConnKey {
    ConnKey(conn.to_bits())
}

fn handle(conn: ConnKey) -> ConnectionHandle {
    ConnectionHandle::from_bits(conn.0)
}
