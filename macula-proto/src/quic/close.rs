//! Closing whatever it is.

use bytes::Bytes;

use super::{CloseListener, ConnectionHandle, Endpoint, StreamId};
use crate::{Code, Now};

/// Something that can be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Closable {
    /// The listener; its connections go with it.
    Listener,
    /// A connection.
    Connection(ConnectionHandle),
    /// A stream.
    Stream(ConnectionHandle, StreamId),
}

impl Endpoint {
    /// Closes a stream, a connection or the listener in the ordinary way, and says whether there was anything to close.
    ///
    /// A stream is finished behind what was written, and what the peer still sends is not wanted
    /// ([`Code::CLOSED`]); a connection is closed with [`Code::CLOSED`]; a listener closes its connections with
    /// [`Code::SHUTDOWN`].
    pub fn close(&mut self, now: Now, what: Closable) -> bool {
        match what {
            Closable::Listener => {
                let listening = self.is_listening();
                self.close_listener(now, CloseListener::CloseConnections);
                listening
            }
            Closable::Connection(handle) => {
                let Ok(mut conn) = self.connection(handle) else {
                    return false;
                };
                let open = !conn.is_closed();
                conn.close(now, Code::CLOSED, Bytes::new());
                open
            }
            Closable::Stream(handle, stream) => {
                let Ok(mut conn) = self.connection(handle) else {
                    return false;
                };
                let Ok(mut stream) = conn.stream(stream) else {
                    return false;
                };
                let finished = stream.finish().is_ok();
                let stopped = stream.stop(Code::CLOSED).is_ok();
                finished || stopped
            }
        }
    }
}
