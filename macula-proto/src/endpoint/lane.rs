//! The control stream of a relay connection, both ways.

use bytes::{Buf, Bytes, BytesMut};

use crate::{
    Code,
    quic::{self, ConnectionHandle, ReadError, StreamId, WriteError},
    tunnel::ControlEnd,
};

/// Control goes before tunnels.
const PRIORITY: i32 = 1;

/// A control stream, and what waits to be written on it.
#[derive(Debug)]
pub(super) struct Lane {
    conn: ConnectionHandle,
    stream: StreamId,
    backlog: BytesMut,
    limit: usize,
    ended: bool,
}

/// More waits to be written than may wait: the peer does not read.
pub(super) struct Stalled;

impl Lane {
    pub(super) fn new(quic: &mut quic::Endpoint, conn: ConnectionHandle, stream: StreamId, limit: usize) -> Self {
        if let Ok(mut conn) = quic.connection(conn)
            && let Ok(mut stream) = conn.stream(stream)
        {
            stream.hold();
            let _ = stream.set_priority(PRIORITY);
        }
        Self {
            conn,
            stream,
            backlog: BytesMut::new(),
            limit,
            ended: false,
        }
    }

    pub(super) fn stream(&self) -> StreamId {
        self.stream
    }

    /// Writes `bytes` behind everything before them.
    pub(super) fn send(&mut self, quic: &mut quic::Endpoint, bytes: &Bytes) -> Result<(), Stalled> {
        self.backlog.extend_from_slice(bytes);
        self.flush(quic);
        if self.backlog.len() > self.limit {
            Err(Stalled)
        } else {
            Ok(())
        }
    }

    /// Writes what waits, as far as it goes.
    pub(super) fn flush(&mut self, quic: &mut quic::Endpoint) {
        let Ok(mut conn) = quic.connection(self.conn) else {
            return;
        };
        let Ok(mut stream) = conn.stream(self.stream) else {
            return;
        };
        while !self.backlog.is_empty() {
            match stream.write(&self.backlog) {
                Ok(written) => self.backlog.advance(written),
                Err(WriteError::Blocked) => return,
                // The end of the connection is reported by itself.
                Err(_) => return self.backlog.clear(),
            }
        }
    }

    /// The next bytes from the peer, or how it ended its side; `None` when there is nothing new.
    pub(super) fn read(&mut self, quic: &mut quic::Endpoint) -> Option<Result<Bytes, ControlEnd>> {
        if self.ended {
            return None;
        }
        let mut conn = quic.connection(self.conn).ok()?;
        let end = match conn.stream(self.stream).ok()?.read_chunk(usize::MAX) {
            Ok(Some(bytes)) => return Some(Ok(bytes)),
            Ok(None) => ControlEnd::Finished,
            Err(ReadError::Reset(code)) => ControlEnd::Reset(code),
            Err(_) => return None,
        };
        self.ended = true;
        Some(Err(end))
    }
}

/// Refuses a stream altogether.
pub(super) fn refuse(quic: &mut quic::Endpoint, conn: ConnectionHandle, stream: StreamId, code: Code) {
    if let Ok(mut conn) = quic.connection(conn)
        && let Ok(mut stream) = conn.stream(stream)
    {
        stream.release();
        stream.abort(code);
    }
}
