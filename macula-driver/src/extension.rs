//! Machines of the endpoint beside plain connections: where their events go, and how their handles reach them.

use std::{any::Any, fmt};

use macula_proto::{
    Code, Event, Now,
    quic::{ConnectionHandle, StreamId},
};

use crate::{
    shared::{State, StreamEntry},
    waiters::Wait,
};

/// Takes the events of a machine inside the endpoint, and keeps what its handles need.
///
/// It is called under the endpoint's lock: it must neither block nor use a handle of the endpoint, only the context it is
/// given.
pub trait Extension: Any + Send {
    /// Takes an event, or gives it back for the next extension; plain connections are behind the last one.
    fn on_event(&mut self, cx: &mut Context<'_>, event: Event) -> Option<Event>;

    /// The endpoint was closed, or its last handle dropped: nothing new shall begin, and a machine that would dial again has
    /// to be stopped now. Connections that machines run are closed afterwards.
    fn on_closed(&mut self, _cx: &mut Context<'_>) {}

    /// The driver has stopped: nothing will happen any more. Whoever waits is woken afterwards.
    fn on_stopped(&mut self, _cx: &mut Context<'_>) {}
}

/// The endpoint under its lock.
pub struct Context<'a> {
    pub(crate) state: &'a mut State,
}

impl Context<'_> {
    /// The endpoint itself. The driver runs after whatever is done to it.
    pub fn endpoint(&mut self) -> &mut macula_proto::Endpoint {
        &mut self.state.endpoint
    }

    /// The time, read a moment ago.
    pub fn now(&self) -> Now {
        self.state.now
    }

    /// Wakes everybody who waits for `key` with [`Endpoint::wait`](crate::Endpoint::wait).
    pub fn wake(&mut self, key: u64) {
        self.state.signal(Wait::Custom(key));
    }

    /// Whether the driver has stopped, so that waiting is in vain.
    pub fn is_stopped(&self) -> bool {
        self.state.phase == crate::shared::Phase::Dead
    }

    /// Starts to keep a stream that a machine hands out, so that nothing of it is lost until
    /// [`Endpoint::stream`](crate::Endpoint::stream) makes a handle of it.
    pub fn adopt(&mut self, conn: ConnectionHandle, stream: StreamId) -> RawStream {
        self.state.keep(conn);
        self.state.keep_stream(conn, stream, 2);
        RawStream { conn, stream }
    }

    /// Gives an adopted stream up: both halves end with `code`.
    pub fn discard(&mut self, raw: RawStream, code: Code) {
        let RawStream { conn, stream } = raw;
        self.state.on_connection(conn, |connection| {
            if let Ok(mut stream) = connection.stream(stream) {
                stream.abort(code);
            }
        });
        if let Some(StreamEntry { halves, .. }) = self
            .state
            .conns
            .get_mut(&conn)
            .and_then(|entry| entry.streams.get_mut(&stream))
        {
            *halves = 1;
        }
        self.state.let_go_stream(conn, stream);
        self.state.let_go(conn, false);
    }
}

impl fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("now", &self.state.now)
            .finish_non_exhaustive()
    }
}

/// A stream that is kept and has no handle yet. It must become one, or be discarded, or it stays for ever.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a stream that is neither made a handle nor discarded stays for ever"]
pub struct RawStream {
    pub(crate) conn: ConnectionHandle,
    pub(crate) stream: StreamId,
}

impl RawStream {
    /// The connection of the stream.
    pub fn connection(&self) -> ConnectionHandle {
        self.conn
    }

    /// The id of the stream.
    pub fn id(&self) -> StreamId {
        self.stream
    }
}
