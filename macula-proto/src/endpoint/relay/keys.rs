//! Names of connections that say on which shard they are.

use crate::{
    quic::{ConnectionHandle, Shard},
    tunnel::ConnKey,
};

/// Where the index of the shard stands in a key: above the index of the connection, below its generation.
const AT: u32 = 24;

/// From handles of one shard to keys of the whole relay, and back.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keys(pub(super) Shard);

impl Keys {
    pub(super) fn key(self, conn: ConnectionHandle) -> ConnKey {
        ConnKey(conn.to_bits() | u64::from(self.0.index()) << AT)
    }

    pub(super) fn shard(self, conn: ConnKey) -> u8 {
        let [_, _, _, _, shard, ..] = conn.0.to_be_bytes();
        if self.0.is_one_of_many() { shard } else { 0 }
    }

    /// The handle of a connection of this shard.
    pub(super) fn handle(self, conn: ConnKey) -> Option<ConnectionHandle> {
        let shard = self.shard(conn);
        let bits = conn.0 ^ u64::from(shard) << AT;
        (shard == self.0.index()).then(|| ConnectionHandle::from_bits(bits))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_says_where_its_connection_is() {
        let handle = ConnectionHandle::from_bits(0xffff_ffff_00ff_ffff);
        let shards = [Shard::ONLY, Shard::new(0, 2).unwrap(), Shard::new(63, 64).unwrap()];
        for shard in shards {
            let keys = Keys(shard);
            let key = keys.key(handle);
            assert_eq!(keys.shard(key), shard.index());
            assert_eq!(keys.handle(key), Some(handle));
            if shard.is_one_of_many() {
                let other = Shard::new(1 - shard.index().min(1) + 10 * u8::from(shard.index() == 0), 64).unwrap();
                assert_eq!(Keys(other).handle(key), None);
            }
        }
        // The only one on its port may have any number of connections.
        let many = ConnectionHandle::from_bits(0x1_1234_5678);
        assert_eq!(Keys(Shard::ONLY).handle(Keys(Shard::ONLY).key(many)), Some(many));
    }
}
