//! A tunnel to another node.

use macula_proto::{
    Code,
    endpoint::{ClientId, RelayAddress},
    tunnel::Name,
    wire::control::TunnelId,
};

use crate::{Endpoint, RecvStream, SendStream, Stream};

/// A tunnel to another node, as a stream of bytes in each direction.
///
/// Reading and writing are the stream's: the end of one direction (shutdown, FIN), a reset and a stop arrive at the other
/// node as what they are. Dropping it abandons what is not finished.
#[derive(Debug)]
pub struct Tunnel {
    pub(crate) stream: Stream,
    pub(super) id: TunnelId,
    pub(super) peer: Name,
    pub(super) relay: RelayAddress,
    pub(super) endpoint: Endpoint,
    pub(super) client: ClientId,
}

impl Tunnel {
    /// The id by which both nodes and the relay know it.
    pub fn id(&self) -> TunnelId {
        self.id
    }

    /// The name of the other node; of an incoming tunnel, as the relay tells it.
    pub fn peer(&self) -> &Name {
        &self.peer
    }

    /// The relay it goes through.
    pub fn relay(&self) -> &RelayAddress {
        &self.relay
    }

    /// The stream it is.
    pub fn stream(&mut self) -> &mut Stream {
        &mut self.stream
    }

    /// The two directions, to be used by different tasks.
    pub fn split(self) -> (SendStream, RecvStream) {
        self.stream.split()
    }

    /// Gives the tunnel up at once: the other node sees `code`, bytes on their way are lost, and the relay is told to end
    /// it even if it passes no resets on.
    pub fn abort(self, code: Code) {
        let stream = self.stream.id();
        let client = self.client;
        self.endpoint.with(|cx| {
            let now = cx.now();
            // A node that was stopped has ended its tunnels already.
            let _ = cx.endpoint().close_tunnel(now, client, stream, code);
        });
    }
}
