//! Connection ids that an endpoint knows for its own.

use std::time::Duration;

use quinn_proto::{ConnectionId, ConnectionIdGenerator, InvalidCid, RandomConnectionIdGenerator};

use super::ResetKey;

/// Random bytes at the front. So many that ids hardly ever repeat: a listener that asks for Retry (RFC 9000 §8.1.2) cannot see that
/// it has given one id to two clients, and one of them is then never answered. With three bytes, as in quinn-proto's own
/// generator, that happens to one of 500 clients that come together in every 130th crowd.
const RANDOM: usize = 5;
/// Bytes of their authentication code behind them: of what strangers make up, one in 16 million is taken for an id of ours, and
/// then only for the length of a stateless reset.
const CODE: usize = 3;
const LENGTH: usize = RANDOM + CODE;

/// Makes ids, and knows those made with the same key, by another process perhaps.
pub(super) struct Cids {
    key: ResetKey,
    random: RandomConnectionIdGenerator,
}

impl Cids {
    pub(super) fn new(key: ResetKey) -> Self {
        let random = RandomConnectionIdGenerator::new(RANDOM);
        Self { key, random }
    }

    fn code(&self, random: &[u8]) -> [u8; CODE] {
        let [a, b, c, ..] = self.key.mac(random);
        [a, b, c]
    }
}

impl ConnectionIdGenerator for Cids {
    fn generate_cid(&mut self) -> ConnectionId {
        let random = self.random.generate_cid();
        let mut id = [0; LENGTH];
        let (front, back) = id.split_at_mut(RANDOM);
        front.copy_from_slice(&random);
        back.copy_from_slice(&self.code(&random));
        ConnectionId::new(&id)
    }

    fn validate(&self, id: &ConnectionId) -> Result<(), InvalidCid> {
        match id.split_last_chunk::<CODE>() {
            Some((random, code)) if random.len() == RANDOM && self.code(random) == *code => Ok(()),
            _ => Err(InvalidCid),
        }
    }

    fn cid_len(&self) -> usize {
        LENGTH
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ids_are_known_to_whoever_has_the_key() {
        let mut cids = Cids::new(ResetKey::new([1; 32]));
        let id = cids.generate_cid();
        assert_eq!(id.len(), cids.cid_len());
        assert!(Cids::new(ResetKey::new([1; 32])).validate(&id).is_ok());
        assert!(Cids::new(ResetKey::new([2; 32])).validate(&id).is_err());
        for place in 0..id.len() {
            let mut bytes = id.to_vec();
            bytes[place] ^= 1;
            assert!(cids.validate(&ConnectionId::new(&bytes)).is_err());
        }
        for length in [0, 3, 7, 9, 20] {
            assert!(cids.validate(&ConnectionId::new(&vec![0; length])).is_err());
        }
    }

    #[test]
    fn ids_do_not_repeat() {
        let mut cids = Cids::new(ResetKey::new([1; 32]));
        let many: BTreeSet<_> = (0..20_000).map(|_| cids.generate_cid().to_vec()).collect();
        assert_eq!(many.len(), 20_000);
    }
}
