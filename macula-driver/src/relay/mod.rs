//! Relays and the nodes that use them, with handles.

mod client;
mod server;
mod tunnel;

pub use client::{NodeEvent, OpenError, RelayClient, Resolve};
pub use server::{RelayServer, RelaySnapshot};
pub use tunnel::Tunnel;

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidInput, error)
}

/// What tasks wait for, besides streams and connections.
mod key {
    use macula_proto::endpoint::ClientId;

    pub(super) const REPORTS: u64 = 1 << 56;

    /// What a node's tasks wait for.
    #[derive(Debug, Clone, Copy)]
    pub(super) enum Node {
        Events = 2,
        Incoming = 3,
        Opened = 4,
        Resolve = 5,
    }

    pub(super) fn node(client: ClientId, what: Node) -> u64 {
        ((what as u64) << 56) | (client.get() & 0x00ff_ffff_ffff_ffff)
    }
}
