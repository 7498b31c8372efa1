//! Who takes streams.

use std::fmt;

use macula_proto::dist::user::Owner;

use super::{
    DistConnection, DistStream,
    key::{self, Stream as OfStream},
    table::Links,
};
use crate::Endpoint;

/// Takes streams that other nodes open, and those that are handed over to it.
///
/// There may be several: each new stream goes to the next of them in turn. Dropping it resets the streams that wait to be taken;
/// those that were taken go on.
pub struct DistAcceptor {
    pub(super) endpoint: Endpoint,
    pub(super) owner: u64,
    /// Only of this connection, which lives as long as there is a handle of it.
    _of: Option<DistConnection>,
}

impl DistAcceptor {
    pub(super) fn new(endpoint: &Endpoint, of: Option<DistConnection>) -> Self {
        let dist = of.as_ref().map(DistConnection::id);
        let owner = endpoint.with_extension(|links: &mut Links, cx| links.add_acceptor(cx, dist));
        Self {
            endpoint: endpoint.clone(),
            owner: owner.unwrap_or_default(),
            _of: of,
        }
    }

    /// The next stream. `None` once the connection, or for an acceptor of all connections the endpoint, is closed. Cancellation-safe.
    pub async fn accept(&self) -> Option<DistStream> {
        let owner = self.owner;
        loop {
            let look = |links: &mut Links, cx: &mut crate::Context<'_>| links.next_stream(cx, owner);
            let key = key::stream(owner, OfStream::Accept);
            let taken = self.endpoint.wait(key, look).await.flatten()?;
            // One that the peer gave up before it was taken is passed over.
            if let Some(slot) = taken.slot {
                return Some(DistStream::new(DistConnection::of(taken.inner), taken.id, slot));
            }
        }
    }

    /// What the streams that wait for this acceptor belong to, as [`DistConnection::streams`] tells.
    pub fn owner(&self) -> Owner {
        Owner(self.owner)
    }
}

impl Drop for DistAcceptor {
    fn drop(&mut self) {
        let owner = self.owner;
        self.endpoint
            .with_extension(|links: &mut Links, cx| links.remove_acceptor(cx, owner));
    }
}

impl fmt::Debug for DistAcceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DistAcceptor")
            .field("owner", &self.owner)
            .finish_non_exhaustive()
    }
}
