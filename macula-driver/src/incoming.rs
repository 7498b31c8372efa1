//! Connections that wait for a decision.

use std::{net::SocketAddr, sync::Arc};

use macula_proto::quic::{IncomingHandle, UnknownIncoming};

use crate::{
    connection::{ConnRef, Connecting},
    shared::Shared,
};

/// A connection that wants in, where the listener accepts [on demand](macula_proto::quic::Accept::OnDemand). Dropping it
/// refuses it.
#[derive(Debug)]
#[must_use = "dropping it refuses the connection"]
pub struct Incoming {
    shared: Arc<Shared>,
    handle: Option<IncomingHandle>,
    remote: SocketAddr,
    validated: bool,
}

impl Incoming {
    pub(crate) fn new(shared: Arc<Shared>, handle: IncomingHandle, remote: SocketAddr, validated: bool) -> Self {
        Self {
            shared,
            handle: Some(handle),
            remote,
            validated,
        }
    }

    /// Where it comes from.
    pub fn remote_address(&self) -> SocketAddr {
        self.remote
    }

    /// Whether the address is known to be the sender's own: it answered a Retry, or showed a token.
    pub fn is_validated(&self) -> bool {
        self.validated
    }

    /// Accepts it; the answer is a future of the connection.
    ///
    /// # Errors
    /// [`UnknownIncoming`] if it waited too long or turned out to be broken.
    pub fn accept(mut self) -> Result<Connecting, UnknownIncoming> {
        let handle = self.handle.take().ok_or(UnknownIncoming)?;
        let conn = self.shared.locked(|state| {
            let now = state.tick();
            let conn = state.endpoint.quic().accept(now, handle);
            if let Ok(conn) = conn {
                state.adopt_connection(conn);
            }
            state.kick();
            conn
        })?;
        Ok(Connecting::new(ConnRef::new(&self.shared, conn, true)))
    }

    /// Refuses it: the peer is told at once.
    pub fn refuse(self) {
        drop(self);
    }

    /// Makes it prove its address (RFC 9000 §8.1.2); it then comes again.
    ///
    /// # Errors
    /// [`UnknownIncoming`] if it waited too long, or has proved its address already and is refused now.
    pub fn retry(mut self) -> Result<(), UnknownIncoming> {
        let handle = self.handle.take().ok_or(UnknownIncoming)?;
        self.shared.locked(|state| {
            state.kick();
            state.endpoint.quic().retry(handle)
        })
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if let Some(handle) = self.handle.take() {
            self.shared.locked(|state| {
                // It may have timed out by itself.
                let _ = state.endpoint.quic().refuse(handle);
                state.kick();
            });
        }
    }
}
