//! One direction between two hosts: what happens to each datagram on it.

use std::time::Duration;

use super::{
    Chance, DropReason, HostId,
    chance::Seed,
    clock::{Nanos, nanos, transmission},
};
use crate::Rng;

/// Bytes that may wait in front of a link or a host's port when its bandwidth is limited and nothing else is said.
pub const DEFAULT_QUEUE: usize = 256 << 10;

/// How one direction between two hosts behaves.
///
/// Jitter alone never changes the order of datagrams, as in a router's queue; [`reorder`](Self::reorder) does.
///
/// ```
/// use std::time::Duration;
///
/// use macula_proto::sim::{Chance, Link};
///
/// let mobile = Link {
///     delay: Duration::from_millis(40),
///     jitter: Duration::from_millis(15),
///     bandwidth: Some(2_000_000),
///     loss: Chance::percent(0.5),
///     ..Link::default()
/// };
/// assert_eq!(mobile.mtu, 1472);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Time that each datagram is on its way. Default 5 ms.
    pub delay: Duration,
    /// Further time, drawn anew for each datagram, from nothing up to this. Default none.
    pub jitter: Duration,
    /// Bytes of UDP payload per second; `None` (default): as many as come.
    pub bandwidth: Option<u64>,
    /// Bytes that may wait for the bandwidth; datagrams beyond are dropped. Default 256 KiB.
    pub queue: usize,
    /// How many datagrams are lost. Default none.
    pub loss: Chance,
    /// How many datagrams are late, and may be overtaken. Default none.
    pub reorder: Chance,
    /// By how much those are late. Default 20 ms.
    pub reorder_by: Duration,
    /// How many datagrams come twice. Default none.
    pub duplicate: Chance,
    /// How many datagrams come with wrong bits. Default none.
    pub corrupt: Chance,
    /// Longest UDP payload that gets through, in bytes; longer datagrams vanish. Default 1,472 (Ethernet and IPv4).
    pub mtu: usize,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            delay: Duration::from_millis(5),
            jitter: Duration::ZERO,
            bandwidth: None,
            queue: DEFAULT_QUEUE,
            loss: Chance::NEVER,
            reorder: Chance::NEVER,
            reorder_by: Duration::from_millis(20),
            duplicate: Chance::NEVER,
            corrupt: Chance::NEVER,
            mtu: 1472,
        }
    }
}

impl Link {
    /// A link that only delays.
    pub fn with_delay(delay: Duration) -> Self {
        Self {
            delay,
            ..Self::default()
        }
    }
}

/// A queue in front of a wire of limited bandwidth.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Wire {
    free_at: Nanos,
}

impl Wire {
    /// When a datagram has left; `None` if too much waits before it.
    pub(super) fn pass(&mut self, now: Nanos, length: usize, bandwidth: Option<u64>, queue: usize) -> Option<Nanos> {
        let Some(bandwidth) = bandwidth else {
            return Some(now);
        };
        let start = self.free_at.max(now);
        // What is being sent at this moment counts as waiting too; an empty queue takes any datagram.
        if start > now && start - now > transmission(queue, bandwidth) {
            return None;
        }
        self.free_at = start.saturating_add(transmission(length, bandwidth));
        Some(self.free_at)
    }
}

/// What is drawn for, each from a stream of its own.
#[derive(Debug, Clone, Copy)]
enum Purpose {
    Loss,
    Jitter,
    Reorder,
    Duplicate,
    Corrupt,
}

impl Purpose {
    const COUNT: usize = 5;

    const fn name(self) -> &'static str {
        match self {
            Self::Loss => "loss",
            Self::Jitter => "jitter",
            Self::Reorder => "reorder",
            Self::Duplicate => "duplicate",
            Self::Corrupt => "corrupt",
        }
    }
}

/// A link at work.
#[derive(Debug)]
pub(super) struct LinkState {
    pub(super) link: Link,
    /// Nothing gets through.
    pub(super) cut: bool,
    ends: [u64; 2],
    seed: Seed,
    wire: Wire,
    last_arrival: Nanos,
    draws: [Option<Box<Rng>>; Purpose::COUNT],
}

/// A datagram that gets through, once or twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Passage {
    pub(super) arrives: Nanos,
    pub(super) again: Option<Nanos>,
    pub(super) corrupted: bool,
}

impl LinkState {
    pub(super) fn new(seed: Seed, from: HostId, to: HostId, link: Link) -> Self {
        Self {
            link,
            cut: false,
            ends: [u64::from(from.0), u64::from(to.0)],
            seed,
            wire: Wire::default(),
            last_arrival: 0,
            draws: Default::default(),
        }
    }

    /// What becomes of a datagram that is put on the link now.
    pub(super) fn pass(&mut self, now: Nanos, length: usize) -> Result<Passage, DropReason> {
        let link = self.link;
        if self.cut {
            return Err(DropReason::Cut);
        }
        if length > link.mtu {
            return Err(DropReason::TooLong);
        }
        if self.happens(Purpose::Loss, link.loss) {
            return Err(DropReason::Lost);
        }
        let left = self.wire.pass(now, length, link.bandwidth, link.queue);
        let left = left.ok_or(DropReason::QueueFull)?;
        let mut arrives = left + nanos(link.delay) + self.up_to(Purpose::Jitter, link.jitter);
        if self.happens(Purpose::Reorder, link.reorder) {
            arrives += nanos(link.reorder_by);
        } else {
            arrives = arrives.max(self.last_arrival);
            self.last_arrival = arrives;
        }
        let corrupted = self.happens(Purpose::Corrupt, link.corrupt);
        let twice = self.happens(Purpose::Duplicate, link.duplicate);
        let again = twice.then(|| arrives + 1 + self.up_to(Purpose::Duplicate, link.delay));
        Ok(Passage {
            arrives,
            again,
            corrupted,
        })
    }

    /// Flips one to three bits.
    pub(super) fn spoil(&mut self, data: &mut [u8]) {
        let length = data.len() as u64;
        let rng = self.rng(Purpose::Corrupt);
        for _ in 0..=rng.below(3) {
            let at = usize::try_from(rng.below(length)).unwrap_or_default();
            let bit = 1 << rng.below(8);
            if let Some(byte) = data.get_mut(at) {
                *byte ^= bit;
            }
        }
    }

    fn happens(&mut self, purpose: Purpose, chance: Chance) -> bool {
        chance != Chance::NEVER && chance.happens(self.rng(purpose))
    }

    fn up_to(&mut self, purpose: Purpose, most: Duration) -> Nanos {
        match nanos(most) {
            0 => 0,
            most => self.rng(purpose).below(most.saturating_add(1)),
        }
    }

    fn rng(&mut self, purpose: Purpose) -> &mut Rng {
        let (seed, ends) = (self.seed, self.ends);
        let [loss, jitter, reorder, duplicate, corrupt] = &mut self.draws;
        let slot = match purpose {
            Purpose::Loss => loss,
            Purpose::Jitter => jitter,
            Purpose::Reorder => reorder,
            Purpose::Duplicate => duplicate,
            Purpose::Corrupt => corrupt,
        };
        slot.get_or_insert_with(|| Box::new(seed.stream(purpose.name(), &ends)))
    }
}
