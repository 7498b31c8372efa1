//! One distribution connection: its streams read and written.

use std::{collections::VecDeque, net::SocketAddr, time::Instant};

use bytes::Bytes;

use crate::{
    Now,
    dist::{
        controller::{Action, Controller, EndReason, Event, Purpose},
        streams::{CONTROL_URGENCY, DATA_URGENCY, Slot},
        user::Owner,
    },
    quic::{self, Connection, ConnectionHandle, Dir, OpenError, ReadError, StreamId, WriteError},
    wire::etf::Atom,
};

/// Largest piece that is read at once, in bytes.
const READ_PIECE: usize = 64 << 10;
/// Largest piece that is written at once. Between two of them the other data streams have their turn.
const WRITE_PIECE: usize = 16 << 10;
/// Bytes that data streams may always have on their way.
const LEAST_WINDOW: u64 = 64 << 10;
/// Bytes that only the control stream may have on their way: a tick never waits for data to be acknowledged.
const CONTROL_WINDOW: u64 = 64 << 10;

/// A connection, its controller, and what waits between them.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) controller: Controller,
    pub(super) conn: ConnectionHandle,
    pub(super) remote: SocketAddr,
    /// The node, as the table of nodes knows it.
    pub(super) peer: Option<Atom>,
    control: Out,
    data: [Out; Slot::COUNT],
    /// Streams to be opened.
    pub(super) opening: VecDeque<Purpose>,
    /// The data stream that is written first the next time.
    turn: usize,
    /// Its limit of bytes on their way, and how many congestion windows may be.
    most: u64,
    windows: u64,
    /// The program knows of it.
    pub(super) known: bool,
    /// Streams of users that came before the program could say who takes them; `None` once it could.
    pub(super) early: Option<Vec<StreamId>>,
    /// The program was told that there are messages.
    pub(super) told_messages: bool,
    /// Somebody wants to open a stream and has to wait.
    pub(super) wants_stream: bool,
    /// Counted among those in their handshake.
    pub(super) counted: bool,
    /// It waits to be written.
    pub(super) dirty: bool,
    /// Its producer waits for the next turn.
    pub(super) wake: bool,
    /// It is over, and the program was not told yet.
    pub(super) ended: Option<EndReason>,
    pub(super) over: bool,
    /// The QUIC connection is gone.
    pub(super) gone: bool,
    pub(super) supervisor: Option<Owner>,
    pub(super) deadline: Option<Instant>,
}

/// What waits to be written on one stream.
#[derive(Debug, Default)]
struct Out {
    stream: Option<StreamId>,
    pending: Bytes,
    blocked: bool,
    finish: bool,
    over: bool,
}

/// How much may be on its way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Bytes.
    pub(super) most: u64,
    /// Congestion windows.
    pub(super) windows: u64,
}

impl Link {
    pub(super) fn new(controller: Controller, conn: ConnectionHandle, remote: SocketAddr, bounds: Bounds) -> Self {
        Self {
            controller,
            conn,
            remote,
            peer: None,
            control: Out::default(),
            data: Default::default(),
            opening: VecDeque::new(),
            turn: 0,
            most: bounds.most,
            windows: bounds.windows,
            known: false,
            early: Some(Vec::new()),
            told_messages: false,
            wants_stream: false,
            counted: false,
            dirty: false,
            wake: false,
            ended: None,
            over: false,
            gone: false,
            supervisor: None,
            deadline: None,
        }
    }

    /// The peer opened the control stream.
    pub(super) fn control_arrived(&mut self, stream: StreamId) {
        self.control.stream = Some(stream);
    }

    /// Opens the next stream that is wanted, if the peer allows it.
    pub(super) fn open_next(&mut self, quic: &mut quic::Endpoint) -> Option<Purpose> {
        let purpose = *self.opening.front()?;
        let mut connection = quic.connection(self.conn).ok()?;
        let stream = match connection.open(Dir::Bi) {
            Ok(stream) => stream,
            Err(OpenError::Blocked | OpenError::ConnectionLost) => return None,
        };
        self.opening.pop_front();
        let urgency = match purpose {
            Purpose::Control => CONTROL_URGENCY,
            Purpose::Data(_) => DATA_URGENCY,
        };
        if let Ok(mut stream) = connection.stream(stream) {
            let _ = stream.set_priority(priority(urgency));
        }
        if let Some(out) = self.out(purpose) {
            out.stream = Some(stream);
        }
        Some(purpose)
    }

    /// What a stream of this side is for, unless it is a user's.
    pub(super) fn purpose(&self, stream: StreamId) -> Option<Purpose> {
        if self.control.stream == Some(stream) {
            return Some(Purpose::Control);
        }
        let slot = Slot::ALL.into_iter().find(|slot| {
            self.data
                .get(slot.index())
                .is_some_and(|out| out.stream == Some(stream))
        })?;
        Some(Purpose::Data(slot))
    }

    /// The stream takes bytes again.
    pub(super) fn unblocked(&mut self, purpose: Purpose) {
        if let Some(out) = self.out(purpose) {
            out.blocked = false;
        }
    }

    /// The stream is to be finished behind what waits for it.
    pub(super) fn finish(&mut self, purpose: Purpose) {
        if let Some(out) = self.out(purpose) {
            out.finish = true;
        }
    }

    /// Bytes that left the controller and wait for the transport.
    pub(super) fn pending(&self) -> usize {
        self.control.pending.len() + self.data.iter().map(|out| out.pending.len()).sum::<usize>()
    }

    /// Writes what waits, as far as it goes: the control stream first, then the data streams in turn.
    pub(super) fn flush(&mut self, quic: &mut quic::Endpoint, now: Now, actions: &mut Vec<Action>) {
        let Ok(mut connection) = quic.connection(self.conn) else {
            return;
        };
        if connection.is_closed() {
            return;
        }
        let congestion = connection.stats().congestion_window;
        let window = self.window(congestion);
        connection.set_send_window(window + CONTROL_WINDOW);
        let mut end = None;
        let mut writer = Writer {
            connection: &mut connection,
            controller: &mut self.controller,
            now,
            actions,
        };
        while writer.piece(Purpose::Control, &mut self.control, &mut end) {}
        writer.connection.set_send_window(window);
        let mut moved = true;
        while moved {
            moved = false;
            for step in 0..Slot::COUNT {
                let slot = Slot::ALL.get((self.turn + step) % Slot::COUNT).copied();
                if let Some(slot) = slot
                    && let Some(out) = self.data.get_mut(slot.index())
                {
                    moved |= writer.piece(Purpose::Data(slot), out, &mut end);
                }
            }
        }
        self.turn = (self.turn + 1) % Slot::COUNT;
        self.let_users_write(&mut connection);
        if let Some(event) = end {
            self.controller.handle(now, event, actions);
        }
        let queued = if self.data.iter().any(|out| out.blocked) {
            u64::MAX
        } else {
            0
        };
        let event = Event::Transport {
            queued,
            window: congestion,
            in_flight: 0,
        };
        self.controller.handle(now, event, actions);
    }

    /// Half of what data may have on its way is for streams of users: however much they send, there is room for data.
    pub(super) fn let_users_write(&self, connection: &mut Connection<'_>) {
        let window = self.window(connection.stats().congestion_window);
        connection.set_send_window(window / 2);
    }

    /// The next that can be read on a stream, as far as the controller takes it; or all that is there.
    pub(super) fn read(&self, quic: &mut quic::Endpoint, stream: StreamId, all: bool) -> Option<Event> {
        let room = if all {
            READ_PIECE
        } else {
            self.controller.room(stream.get()).min(READ_PIECE)
        };
        if room == 0 {
            return None;
        }
        let mut connection = quic.connection(self.conn).ok()?;
        let number = stream.get();
        match connection.stream(stream).ok()?.read_chunk(room) {
            Ok(Some(bytes)) => Some(Event::Received { stream: number, bytes }),
            Ok(None) => Some(Event::Finished(number)),
            Err(ReadError::Reset(code)) => Some(Event::Reset(number, code)),
            Err(_) => None,
        }
    }

    /// Bytes that may be written and not be acknowledged: those of the congestion window, and some more to follow.
    fn window(&self, congestion: u64) -> u64 {
        let windows = self.windows.saturating_add(1);
        congestion.saturating_mul(windows).max(LEAST_WINDOW).min(self.most)
    }

    fn out(&mut self, purpose: Purpose) -> Option<&mut Out> {
        match purpose {
            Purpose::Control => Some(&mut self.control),
            Purpose::Data(slot) => self.data.get_mut(slot.index()),
        }
    }
}

/// quinn sends what has the higher number first.
pub(super) fn priority(urgency: u8) -> i32 {
    -i32::from(urgency)
}

struct Writer<'a, 'b> {
    connection: &'a mut Connection<'b>,
    controller: &'a mut Controller,
    now: Now,
    actions: &'a mut Vec<Action>,
}

impl Writer<'_, '_> {
    /// Writes one piece. False when there is none, or it is not taken now.
    fn piece(&mut self, purpose: Purpose, out: &mut Out, end: &mut Option<Event>) -> bool {
        let (Some(stream), false, false) = (out.stream, out.blocked, out.over) else {
            return false;
        };
        if out.pending.is_empty()
            && let Some(piece) = self
                .controller
                .poll_output(self.now, purpose, WRITE_PIECE, self.actions)
        {
            out.pending = piece;
        }
        let Ok(mut handle) = self.connection.stream(stream) else {
            return false;
        };
        if out.pending.is_empty() {
            if std::mem::take(&mut out.finish) {
                let _ = handle.finish();
                out.over = true;
            }
            return false;
        }
        match handle.write_chunks(std::slice::from_mut(&mut out.pending)) {
            Ok(_) => true,
            Err(WriteError::Blocked) => {
                out.blocked = true;
                false
            }
            Err(WriteError::Stopped(code)) => {
                out.over = true;
                *end = Some(Event::Stopped(stream.get(), code));
                false
            }
            // The end of the connection is told by itself.
            Err(_) => {
                out.over = true;
                false
            }
        }
    }
}
