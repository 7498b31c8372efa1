//! What happened in a world: kept, printed, compared.

use std::{collections::VecDeque, fmt, net::SocketAddr, time::Duration};

use super::{DropReason, HostId, digest::Digest};
use crate::Event;

/// A checkpoint is kept every so many records.
const CHECKPOINT: u64 = 1024;
/// Lines shown before a difference.
const CONTEXT: usize = 10;

/// How much of a trace is kept. The digest covers everything in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Detail {
    /// Nothing but the digest, and one of its earlier values for every 1,024 records, so that two runs can be compared and the
    /// moment found at which they part.
    #[default]
    Digest,
    /// The last so many records.
    Last(usize),
    /// Every record. A second of a busy world has tens of thousands.
    All,
}

/// One thing that happened at a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its place in the trace, from 0.
    pub number: u64,
    /// Time since the world began.
    pub at: Duration,
    /// Where.
    pub host: HostId,
    /// What.
    pub what: What,
}

/// Something that happens at a host.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum What {
    /// The endpoint sent a datagram.
    Sent {
        /// The number of the datagram.
        id: u64,
        /// Where it is to go.
        to: SocketAddr,
        /// Bytes of UDP payload.
        length: usize,
        /// A sum over its bytes, to compare traces by.
        sum: u64,
    },
    /// The network or the host dropped a datagram.
    Dropped {
        /// The number of the datagram.
        id: u64,
        /// Bytes of UDP payload.
        length: usize,
        /// Why.
        reason: DropReason,
    },
    /// The endpoint was given a datagram.
    Received {
        /// The number of the datagram.
        id: u64,
        /// Where it came from, as the host sees it.
        from: SocketAddr,
        /// Bytes of UDP payload.
        length: usize,
    },
    /// A deadline of the endpoint passed.
    Timeout,
    /// The NAT in front of the host gave it a new address.
    Mapped {
        /// The address.
        address: SocketAddr,
    },
    /// The endpoint told something: an [`Event`], in words.
    Event(String),
    /// Something was done to the host, in words.
    Fault(String),
}

/// What happened in a world, in order.
///
/// Two runs with the same seed, and the same operations at the same moments, have equal traces, to the last byte of every datagram.
#[derive(Debug, Default)]
pub struct Trace {
    detail: Detail,
    kept: VecDeque<Record>,
    count: u64,
    digest: Digest,
    /// The time, and the digest before the record.
    checkpoints: Vec<(Duration, [u64; 2])>,
}

/// Where two traces part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The first record that differs; if it is not kept, the first of the 1,024 among which it is.
    pub number: u64,
    /// When, or since when.
    pub at: Duration,
    /// The records before it, and then those that differ, where they are kept.
    context: Vec<String>,
}

impl Trace {
    /// A value that differs, all but certainly, when anything in the trace does. It says nothing to other versions of this crate.
    pub fn digest(&self) -> u128 {
        let [a, b] = self.digest.value();
        u128::from(a) << 64 | u128::from(b)
    }

    /// Records so far, those that are not kept included.
    pub fn len(&self) -> u64 {
        self.count
    }

    /// Whether nothing has happened yet.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Keeps so much from now on.
    pub fn set_detail(&mut self, detail: Detail) {
        self.detail = detail;
        self.trim();
    }

    /// The records that are kept, oldest first.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.kept.iter()
    }

    /// Where another trace first differs from this one; `None` if they are the same.
    pub fn difference(&self, other: &Self) -> Option<Difference> {
        if self.count == other.count && self.digest() == other.digest() {
            return None;
        }
        let parted = self
            .checkpoints
            .iter()
            .zip(&other.checkpoints)
            .take_while(|(own, other)| own.1 == other.1)
            .last();
        let (at, index) = match parted {
            Some((checkpoint, _)) => {
                let index = self.checkpoints.iter().position(|own| own.1 == checkpoint.1);
                (checkpoint.0, index.unwrap_or(0) as u64 * CHECKPOINT)
            }
            None => (Duration::ZERO, 0),
        };
        Some(self.kept_difference(other).unwrap_or(Difference {
            number: index,
            at,
            context: Vec::new(),
        }))
    }

    /// The same, among the records that both keep.
    fn kept_difference(&self, other: &Self) -> Option<Difference> {
        let first = self.kept.front()?.number.max(other.kept.front()?.number);
        let own: Vec<_> = self.kept.iter().filter(|record| record.number >= first).collect();
        let others: Vec<_> = other.kept.iter().filter(|record| record.number >= first).collect();
        let common = own.iter().zip(&others).take_while(|(a, b)| a == b).count();
        // Everything that both keep is different only if it began before.
        if common == 0 && first > 0 {
            return None;
        }
        let differ = own.get(common).or_else(|| others.get(common))?;
        let before = own.iter().take(common).skip(common.saturating_sub(CONTEXT));
        let mut context: Vec<_> = before.map(|record| format!("  {record}")).collect();
        for (sign, records) in [('-', &own), ('+', &others)] {
            let line = records
                .get(common)
                .map_or("the end".to_owned(), |record| record.to_string());
            context.push(format!("{sign} {line}"));
        }
        Some(Difference {
            number: differ.number,
            at: differ.at,
            context,
        })
    }

    // ----- writing -------------------------------------------------------------------------------------------------

    pub(super) fn record(&mut self, at: Duration, host: HostId, what: What) {
        self.begin(at, host);
        let digest = &mut self.digest;
        match &what {
            What::Sent { id, to, length, sum } => {
                digest.words([1, *id, *length as u64, *sum]);
                digest.address(*to);
            }
            What::Dropped { id, length, reason } => digest.words([2, *id, *length as u64, *reason as u64]),
            What::Received { id, from, length } => {
                digest.words([3, *id, *length as u64]);
                digest.address(*from);
            }
            What::Timeout => digest.words([4]),
            What::Mapped { address } => {
                digest.words([5]);
                digest.address(*address);
            }
            What::Event(text) => {
                digest.words([6]);
                digest.written(format_args!("{text}"));
            }
            What::Fault(text) => {
                digest.words([7]);
                digest.bytes(text.as_bytes());
            }
        }
        self.keep(at, host, what);
    }

    /// An event, which is put into words only if it is kept.
    pub(super) fn event(&mut self, at: Duration, host: HostId, event: &Event) {
        if self.detail != Detail::Digest {
            return self.record(at, host, What::Event(format!("{event:?}")));
        }
        self.begin(at, host);
        self.digest.words([6]);
        self.digest.written(format_args!("{event:?}"));
        self.count += 1;
    }

    fn begin(&mut self, at: Duration, host: HostId) {
        if self.count.is_multiple_of(CHECKPOINT) {
            self.checkpoints.push((at, self.digest.value()));
        }
        let nanos = super::clock::nanos(at);
        self.digest.words([nanos, u64::from(host.0)]);
    }

    fn keep(&mut self, at: Duration, host: HostId, what: What) {
        let number = self.count;
        self.count += 1;
        if self.detail != Detail::Digest {
            self.kept.push_back(Record { number, at, host, what });
            self.trim();
        }
    }

    fn trim(&mut self) {
        let most = match self.detail {
            Detail::Digest => 0,
            Detail::Last(most) => most,
            Detail::All => return,
        };
        while self.kept.len() > most {
            self.kept.pop_front();
        }
    }
}

/// Every record that is kept, one a line.
impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for record in &self.kept {
            writeln!(f, "{record}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.at.as_secs();
        let rest = self.at.subsec_nanos();
        write!(f, "{seconds:>5}.{rest:09} {:<5} {}", self.host.to_string(), self.what)
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sent { id, to, length, .. } => write!(f, "sent #{id} to {to}, {length} bytes"),
            Self::Dropped { id, length, reason } => write!(f, "dropped #{id}, {length} bytes: {reason}"),
            Self::Received { id, from, length } => write!(f, "received #{id} from {from}, {length} bytes"),
            Self::Timeout => f.write_str("timeout"),
            Self::Mapped { address } => write!(f, "seen as {address}"),
            Self::Event(event) => write!(f, "event {event}"),
            Self::Fault(fault) => write!(f, "fault {fault}"),
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the traces part at record {}, {:?}", self.number, self.at)?;
        if self.context.is_empty() {
            return f.write_str(" or soon after (records are not kept)");
        }
        for line in &self.context {
            write!(f, "\n{line}")?;
        }
        Ok(())
    }
}
