//! Several endpoints on one port: whose a datagram is.

use bytes::BytesMut;

use super::{DatagramMeta, Endpoint, cids};

/// Misdirected datagrams kept until the driver passes them on; more are dropped, as a network may do.
const MAX_STRAYS: usize = 1024;

/// One of the endpoints that share a UDP port, each with a socket of its own (`SO_REUSEPORT`), so that they can use a processor
/// each. The default is the only one.
///
/// The kernel spreads datagrams by the addresses of both ends, so a client that keeps its address reaches the same socket all
/// the time. The connection ids that a shard hands out say its index, and the datagrams of a client whose address changed
/// (RFC 9000 §9) are [passed on](Endpoint::poll_stray) to the shard that knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shard {
    index: u8,
    count: u8,
}

impl Shard {
    /// The only one on its port.
    pub const ONLY: Self = Self { index: 0, count: 1 };
    /// As many can share a port.
    pub const MAX: u8 = 64;

    /// The one with this index of `count`; `None` unless `count` is 1 to [`MAX`](Self::MAX), and the index below it.
    pub const fn new(index: u8, count: u8) -> Option<Self> {
        if index < count && count <= Self::MAX {
            Some(Self { index, count })
        } else {
            None
        }
    }

    /// Which one it is, from 0 on.
    pub const fn index(self) -> u8 {
        self.index
    }

    /// How many there are.
    pub const fn count(self) -> u8 {
        self.count
    }

    /// Whether others share the port.
    pub const fn is_one_of_many(self) -> bool {
        self.count > 1
    }
}

impl Default for Shard {
    fn default() -> Self {
        Self::ONLY
    }
}

/// A datagram for another shard of the same port.
#[derive(Debug)]
pub struct Stray {
    /// The index of the shard that it belongs to.
    pub owner: u8,
    /// Where it came from and how.
    pub meta: DatagramMeta,
    /// Its bytes.
    pub data: BytesMut,
}

impl Endpoint {
    /// The shard that this endpoint is.
    pub fn shard(&self) -> Shard {
        self.shard
    }

    /// The next datagram that belongs to another shard, to be handed in there. Up to 1,024 are kept, more are counted as
    /// [`strays_dropped`](super::EndpointStats::strays_dropped).
    pub fn poll_stray(&mut self) -> Option<Stray> {
        self.strays.pop_front()
    }

    /// Which other shard made the connection id that a datagram is for, if one did.
    pub(super) fn goes_to(&self, datagram: &[u8]) -> Option<u8> {
        if !self.shard.is_one_of_many() {
            return None;
        }
        let owner = cids::shard_of(self.cid_key.as_ref()?, datagram)?;
        (owner != self.shard.index && owner < self.shard.count).then_some(owner)
    }

    pub(super) fn keep_stray(&mut self, owner: u8, meta: DatagramMeta, data: BytesMut) {
        if self.strays.len() < MAX_STRAYS {
            self.stats.strays += 1;
            self.strays.push_back(Stray { owner, meta, data });
        } else {
            self.stats.strays_dropped += 1;
        }
    }
}
