//! From events of the endpoint to whoever waits for them.

use bytes::Bytes;
use macula_proto::{
    Code, Event,
    quic::{self, Accept, CloseListener, CloseReason, ConnectionHandle, Dir, Side, StreamId},
};

use crate::{
    extension::{Context, Extension},
    shared::{Phase, State},
    waiters::Wait,
};

/// Connections with early streams that are kept until their handshake is complete.
const MAX_EARLY: usize = 1024;

const DIRS: [Dir; 2] = [Dir::Bi, Dir::Uni];

impl State {
    /// Takes all events out of the endpoint, after what handles have gathered for it was handed over.
    pub(crate) fn drain_events(&mut self) {
        while let Some(outgoing) = self.outgoing.pop() {
            outgoing.hand_over(self, true);
        }
        while let Some(event) = self.endpoint.poll_event(self.now) {
            self.dispatch(event);
        }
        if self.endpoint.quic().is_idle() && self.waiters.is_waiting(Wait::Idle) {
            self.signal(Wait::Idle);
        }
    }

    fn dispatch(&mut self, event: Event) {
        let mut left = Some(event);
        if !self.extensions.is_empty() {
            let mut extensions = std::mem::take(&mut self.extensions);
            for extension in &mut extensions {
                let Some(event) = left.take() else { break };
                left = extension.on_event(&mut Context { state: self }, event);
            }
            self.extensions = extensions;
        }
        match left {
            Some(Event::Quic(event)) => self.on_quic(event),
            Some(event) => tracing::debug!(?event, "an event that nobody takes"),
            None => {}
        }
    }

    fn on_quic(&mut self, event: quic::Event) {
        use quic::Event as E;
        match event {
            E::Incoming {
                incoming,
                remote,
                validated,
            } => {
                self.incoming.push_back((incoming, remote, validated));
                if self.incoming.len() > self.accept_limit {
                    // The oldest was decided by its time-out long ago: the endpoint keeps no more than these.
                    self.incoming.pop_front();
                }
                self.signal(Wait::Incoming);
            }
            E::Connected { conn, side, .. } => self.on_connected(conn, side),
            E::Closed { conn, reason, .. } => self.on_closed(conn, &reason),
            E::StreamOpened { conn, stream } => self.on_opened(conn, stream),
            E::StreamsWaiting { conn, dir } => self.signal(Wait::Accept(conn, dir)),
            E::StreamsAvailable { conn, dir } => self.signal(Wait::Open(conn, dir)),
            E::EarlyDataRejected { conn } => self.wake_streams(conn),
            E::Readable { conn, stream } | E::Finished { conn, stream } | E::Reset { conn, stream, .. } => {
                self.wake_reader(conn, stream);
            }
            E::Writable { conn, stream } => self.wake_writer(conn, stream),
            E::Delivered { conn, stream } => {
                if let Some(entry) = self.stream_entry(conn, stream) {
                    entry.delivered = true;
                }
                self.wake_writer(conn, stream);
            }
            E::Stopped { conn, stream, code } => {
                if let Some(entry) = self.stream_entry(conn, stream) {
                    entry.stopped = Some(code);
                }
                self.wake_writer(conn, stream);
            }
            _ => {}
        }
    }

    fn on_connected(&mut self, conn: ConnectionHandle, side: Side) {
        let early = self.early.remove(&conn).unwrap_or_default();
        if let Some(entry) = self.conns.get_mut(&conn) {
            entry.established = true;
        } else if side == Side::Client || self.phase != Phase::Open {
            // The dial was given up, or nobody will ever accept.
            self.close(conn, Code::CLOSED, b"");
            return;
        } else if self.accepted.len() >= self.accept_limit {
            self.stats.refused_unaccepted += 1;
            self.close(conn, Code::LIMIT, b"too many connections wait to be accepted");
            return;
        } else {
            self.adopt_connection(conn);
            if let Some(entry) = self.conns.get_mut(&conn) {
                entry.established = true;
            }
            self.accepted.push_back(conn);
            self.signal(Wait::Accepted);
        }
        for stream in early {
            self.on_opened(conn, stream);
        }
        self.signal(Wait::Connected(conn));
        for dir in DIRS {
            self.signal(Wait::Open(conn, dir));
        }
    }

    fn on_closed(&mut self, conn: ConnectionHandle, reason: &CloseReason) {
        self.early.remove(&conn);
        let Some(entry) = self.conns.get_mut(&conn) else { return };
        entry.closed = Some(reason.clone());
        self.signal(Wait::Connected(conn));
        self.signal(Wait::Closed(conn));
        for dir in DIRS {
            self.signal(Wait::Accept(conn, dir));
            self.signal(Wait::Open(conn, dir));
        }
        self.wake_streams(conn);
    }

    fn on_opened(&mut self, conn: ConnectionHandle, stream: StreamId) {
        let Some(entry) = self.conns.get_mut(&conn) else {
            self.early.entry(conn).or_default().push(stream);
            if self.early.len() > MAX_EARLY {
                self.early.pop_first();
            }
            return;
        };
        entry.opened[stream.dir() as usize].push_back(stream);
        // Kept from now on, so that a reset that comes early is not lost.
        if let Ok(mut connection) = self.endpoint.quic().connection(conn)
            && let Ok(mut stream) = connection.stream(stream)
        {
            stream.hold();
        }
        self.signal(Wait::Accept(conn, stream.dir()));
    }

    /// Takes a connection into the hands of the program, with streams accepted one by one: those not accepted then wait
    /// in the transport, within its limits.
    pub(crate) fn adopt_connection(&mut self, conn: ConnectionHandle) {
        self.keep(conn);
        if let Ok(mut connection) = self.endpoint.quic().connection(conn) {
            for dir in DIRS {
                connection.set_accept(dir, Accept::OnDemand);
            }
        }
    }

    fn close(&mut self, conn: ConnectionHandle, code: Code, reason: &'static [u8]) {
        let now = self.now;
        if let Ok(mut connection) = self.endpoint.quic().connection(conn) {
            connection.close(now, code, Bytes::from_static(reason));
        }
    }

    fn stream_entry(&mut self, conn: ConnectionHandle, stream: StreamId) -> Option<&mut crate::shared::StreamEntry> {
        self.conns.get_mut(&conn)?.streams.get_mut(&stream)
    }

    fn wake_reader(&mut self, conn: ConnectionHandle, stream: StreamId) {
        let waker = self.stream_entry(conn, stream).and_then(|entry| entry.reader.take());
        self.wake.extend(waker);
    }

    fn wake_writer(&mut self, conn: ConnectionHandle, stream: StreamId) {
        let waker = self.stream_entry(conn, stream).and_then(|entry| entry.writer.take());
        self.wake.extend(waker);
    }

    #[expect(clippy::iter_over_hash_type, reason = "all are woken; the order decides nothing")]
    fn wake_streams(&mut self, conn: ConnectionHandle) {
        let Some(entry) = self.conns.get_mut(&conn) else { return };
        for stream in entry.streams.values_mut() {
            self.wake.extend(stream.reader.take());
            self.wake.extend(stream.writer.take());
        }
    }

    pub(crate) fn tell_extensions(&mut self, mut tell: impl FnMut(&mut dyn Extension, &mut Context<'_>)) {
        let mut extensions = std::mem::take(&mut self.extensions);
        for extension in &mut extensions {
            tell(&mut **extension, &mut Context { state: self });
        }
        self.extensions = extensions;
    }

    /// Lets nothing new begin.
    pub(crate) fn shut(&mut self) {
        if self.phase != Phase::Open {
            return;
        }
        self.phase = Phase::Closed;
        self.tell_extensions(|extension, cx| extension.on_closed(cx));
        let now = self.now;
        self.endpoint.quic().close_listener(now, CloseListener::KeepConnections);
        self.incoming.clear();
        self.drop_unaccepted();
        self.signal(Wait::Accepted);
        self.signal(Wait::Incoming);
    }

    /// Ends everything: the driver is gone, and nobody will hear from the network again.
    pub(crate) fn stop(&mut self, why: &str) {
        if self.phase == Phase::Dead {
            return;
        }
        self.phase = Phase::Dead;
        let now = self.tick();
        let reason = Bytes::copy_from_slice(why.as_bytes());
        self.endpoint.quic().close_all(now, Code::SHUTDOWN, &reason);
        self.drain_events();
        self.tell_extensions(|extension, cx| extension.on_stopped(cx));
        self.accepted.clear();
        self.incoming.clear();
        self.waiters.take_all(&mut self.wake);
    }
}
