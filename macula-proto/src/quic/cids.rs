//! Connection ids that an endpoint knows for its own.

use std::time::Duration;

use quinn_proto::{ConnectionId, ConnectionIdGenerator, InvalidCid, RandomConnectionIdGenerator};

use super::{ResetKey, Shard};

/// Random bytes at the front. So many that ids hardly ever repeat: a listener that asks for Retry (RFC 9000 §8.1.2) cannot see that
/// it has given one id to two clients, and one of them is then never answered. With three bytes, as in quinn-proto's own
/// generator, that happens to one of 500 clients that come together in every 130th crowd.
const RANDOM: usize = 5;
/// Bytes of their authentication code behind them: of what strangers make up, one in 16 million is taken for an id of ours, and
/// then only for the length of a stateless reset.
const CODE: usize = 3;
const LENGTH: usize = RANDOM + CODE;

/// Makes ids, and knows those made with the same key, by another process perhaps.
///
/// Those of one of several endpoints on a port begin with a byte that says which of them it is.
pub(super) struct Cids {
    key: ResetKey,
    shard: Shard,
    random: Box<dyn ConnectionIdGenerator>,
}

impl Cids {
    pub(super) fn new(key: ResetKey, shard: Shard) -> Self {
        Self {
            key,
            shard,
            random: Box::new(RandomConnectionIdGenerator::new(RANDOM)),
        }
    }

    /// Bytes in front of the authentication code.
    fn front(&self) -> usize {
        usize::from(self.shard.is_one_of_many()) + RANDOM
    }
}

impl ConnectionIdGenerator for Cids {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; 1 + LENGTH];
        let id = &mut id[..self.cid_len()];
        let (front, back) = id.split_at_mut(self.front());
        if self.shard.is_one_of_many() {
            front[0] = self.shard.index();
        }
        let at = front.len() - RANDOM;
        front[at..].copy_from_slice(&self.random.generate_cid());
        back.copy_from_slice(&code(&self.key, front));
        ConnectionId::new(id)
    }

    fn validate(&self, id: &ConnectionId) -> Result<(), InvalidCid> {
        match id.split_last_chunk::<CODE>() {
            Some((front, back)) if front.len() == self.front() && code(&self.key, front) == *back => Ok(()),
            _ => Err(InvalidCid),
        }
    }

    fn cid_len(&self) -> usize {
        self.front() + CODE
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// Which of several endpoints on a port made the id that a datagram is for (RFC 9000 §17): `None` if none of them did.
pub(super) fn shard_of(key: &ResetKey, datagram: &[u8]) -> Option<u8> {
    const LONG: u8 = 0x80;
    let id = match datagram.split_first()? {
        (first, rest) if first & LONG == 0 => rest.get(..=LENGTH)?,
        // Four bytes of version, one of length.
        (_, rest) => rest
            .get(5..)
            .filter(|_| rest[4] as usize == 1 + LENGTH)?
            .get(..=LENGTH)?,
    };
    let (front, back) = id.split_last_chunk::<CODE>()?;
    (code(key, front) == *back).then(|| front[0])
}

fn code(key: &ResetKey, front: &[u8]) -> [u8; CODE] {
    let [a, b, c, ..] = key.mac(front);
    [a, b, c]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn shards() -> [Shard; 3] {
        [Shard::ONLY, Shard::new(0, 2).unwrap(), Shard::new(63, 64).unwrap()]
    }

    #[test]
    fn ids_are_known_to_whoever_has_the_key() {
        for shard in shards() {
            let mut cids = Cids::new(ResetKey::new([1; 32]), shard);
            let id = cids.generate_cid();
            assert_eq!(id.len(), cids.cid_len());
            assert!(Cids::new(ResetKey::new([1; 32]), shard).validate(&id).is_ok());
            assert!(Cids::new(ResetKey::new([2; 32]), shard).validate(&id).is_err());
            for place in 0..id.len() {
                let mut bytes = id.to_vec();
                bytes[place] ^= 1;
                assert!(cids.validate(&ConnectionId::new(&bytes)).is_err());
            }
            for length in [0, 3, 7, 10, 20] {
                assert!(cids.validate(&ConnectionId::new(&vec![0; length])).is_err());
            }
        }
    }

    #[test]
    fn ids_do_not_repeat() {
        let mut cids = Cids::new(ResetKey::new([1; 32]), Shard::ONLY);
        let many: BTreeSet<_> = (0..20_000).map(|_| cids.generate_cid().to_vec()).collect();
        assert_eq!(many.len(), 20_000);
    }

    #[test]
    fn a_datagram_says_whose_it_is() {
        let key = ResetKey::new([1; 32]);
        for index in [0, 1, 63] {
            let id = Cids::new(key.clone(), Shard::new(index, 64).unwrap()).generate_cid();
            let short = [&[0x40], &id[..], b"the rest"].concat();
            let long = [&[0xc0, 0, 0, 0, 1, 9], &id[..], b"the rest"].concat();
            let other = [&[0xc0, 0, 0, 0, 1, 8], &id[..], b"the rest"].concat();
            for (datagram, owner) in [(&short, Some(index)), (&long, Some(index)), (&other, None)] {
                assert_eq!(shard_of(&key, datagram), owner);
                assert_eq!(shard_of(&ResetKey::new([2; 32]), datagram), None);
            }
            for length in 0..10 {
                assert_eq!(shard_of(&key, &short[..length]), None);
                assert_eq!(shard_of(&key, &long[..length]), None);
            }
        }
    }
}
