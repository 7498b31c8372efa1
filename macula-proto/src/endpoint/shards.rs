//! Several endpoints on one port: what they have for each other.

use super::{Endpoint, relay::RelayMessage};
use crate::{
    Now,
    quic::{Shard, Stray},
    tunnel::ConnKey,
};

/// Something that one endpoint has for another one of the same port.
#[derive(Debug)]
pub struct ShardMessage(Kind);

#[derive(Debug)]
enum Kind {
    Stray(Stray),
    Relay(RelayMessage),
}

impl ShardMessage {
    /// Whether it is a datagram, which may be dropped where too many wait, as on any network. Nothing else may be.
    pub fn may_be_dropped(&self) -> bool {
        matches!(self.0, Kind::Stray(_))
    }
}

/// Several endpoints that [share a port](Shard), each with a socket and, if its driver wants, a processor of its own.
///
/// A relay can run on all of them together: [`serve_relay`](Self::serve_relay) on each, with the same settings. The one with index 0
/// decides and reports; all have connections and move the bytes of their tunnels. A connection without a relay lives on the
/// shard that accepted it, and nothing of it concerns the others.
///
/// What they have for each other has to be carried by whoever drives them, in order between each two, and promptly: no datagram
/// is sent instead. Nothing of it is repeated, or lost but for [datagrams](ShardMessage::may_be_dropped), and all live as long as one
/// of them does.
impl Endpoint {
    /// The shard that this endpoint is.
    pub fn shard(&self) -> Shard {
        self.quic.shard()
    }

    /// What this endpoint has for another one: its index and the message. Poll until there is none, after events and datagrams
    /// were polled.
    pub fn poll_shard(&mut self) -> Option<(u8, ShardMessage)> {
        if let Some(stray) = self.quic.poll_stray() {
            return Some((stray.owner, ShardMessage(Kind::Stray(stray))));
        }
        let (to, message) = self.relay.as_mut()?.poll_post()?;
        Some((to, ShardMessage(Kind::Relay(message))))
    }

    /// Takes what the shard with index `from` has for this one. Events, datagrams and messages may follow, as after any input.
    pub fn handle_shard(&mut self, now: Now, from: u8, ShardMessage(kind): ShardMessage) {
        match kind {
            Kind::Stray(Stray { meta, data, .. }) => self.handle_datagram(now, meta, data),
            Kind::Relay(message) => {
                self.with_relay(|relay, quic, out| relay.on_message(quic, now, from, message, out));
            }
        }
    }

    /// The index of the shard that has a connection of the relay, as its [status](Self::relay_status) names it, and its handle
    /// there if that is this one.
    pub fn relay_connection(&self, conn: ConnKey) -> Option<(u8, Option<crate::quic::ConnectionHandle>)> {
        let relay = self.relay.as_ref()?;
        Some((relay.shard_of(conn), relay.handle(conn)))
    }
}
