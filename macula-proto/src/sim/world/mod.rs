//! The world: hosts, the network between them, and the order in which things happen.

mod hosts;
mod network;
mod turn;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::{
    DropReason, Fault, HostId, Link, Trace,
    chance::Seed,
    clock::{Clock, Nanos, nanos},
    host::{Datagram, Host},
    link::LinkState,
    qlog,
    queue::Queue,
};
#[cfg(feature = "self-signed")]
use crate::quic::tls::{Credentials, SelfSigned};
use crate::{Event, Now, Rng};

/// Endpoints on a network of their own, in virtual time.
///
/// Nothing happens but in [`next`](Self::next), which lets time pass up to the next thing that happens. See the
/// [module](super) for a whole program.
#[derive(Debug)]
pub struct World {
    seed: Seed,
    clock: Clock,
    hosts: Vec<Host>,
    by_ip: HashMap<IpAddr, HostId>,
    names: BTreeMap<String, Vec<SocketAddr>>,
    default_link: Link,
    links: BTreeMap<(HostId, HostId), LinkState>,
    isolated: BTreeSet<HostId>,
    queue: Queue<Due>,
    happenings: VecDeque<Happening>,
    to_poll: VecDeque<HostId>,
    to_send: VecDeque<HostId>,
    next_datagram: u64,
    trace: Trace,
    stats: WorldStats,
    violations: Vec<Violation>,
}

/// Something that happened, for the program that runs the world.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Happening {
    /// An endpoint told something.
    Event {
        /// Where.
        host: HostId,
        /// What.
        event: Event,
    },
    /// A fault that was scheduled was done. After a [`Fault::Restart`] the new endpoint of the host has to be set up.
    Fault(Fault),
    /// The time of [`World::wake_at`] has come.
    Wake(u64),
}

/// A host that is down, or that there is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is down")]
pub struct HostDown(pub HostId);

/// Something that an endpoint must not do: a bug in this crate, or in a change of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{host} after {at:?}: {what}")]
pub struct Violation {
    /// When.
    pub at: Duration,
    /// Where.
    pub host: HostId,
    /// What.
    pub what: &'static str,
}

/// Counters of a world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct WorldStats {
    /// Datagrams that endpoints sent.
    pub sent: u64,
    /// Their bytes.
    pub bytes_sent: u64,
    /// Datagrams that endpoints received, second copies included.
    pub received: u64,
    /// Datagrams that links delivered twice.
    pub duplicated: u64,
    /// Datagrams whose bits were changed.
    pub corrupted: u64,
    /// Datagrams that were dropped, by reason, in the order of [`DropReason::ALL`].
    pub dropped: [u64; DropReason::ALL.len()],
    /// Events that endpoints told.
    pub events: u64,
    /// Time-outs of endpoints.
    pub timeouts: u64,
}

impl WorldStats {
    /// Datagrams dropped for this reason.
    pub fn dropped_for(&self, reason: DropReason) -> u64 {
        self.dropped.get(reason as usize).copied().unwrap_or_default()
    }
}

#[derive(Debug)]
enum Due {
    /// A datagram is at the port of its receiver.
    Arrival(HostId, Box<Datagram>),
    /// It is through.
    Delivery(HostId, Box<Datagram>),
    Timer(HostId, Nanos),
    Awake(HostId, Nanos),
    Fault(Fault),
    Wake(u64),
}

impl World {
    /// A world without hosts. Everything random in it follows from `seed`.
    pub fn new(seed: u64) -> Self {
        Self {
            seed: Seed(seed),
            clock: Clock::new(),
            hosts: Vec::new(),
            by_ip: HashMap::new(),
            names: BTreeMap::new(),
            default_link: Link::default(),
            links: BTreeMap::new(),
            isolated: BTreeSet::new(),
            queue: Queue::new(),
            happenings: VecDeque::new(),
            to_poll: VecDeque::new(),
            to_send: VecDeque::new(),
            next_datagram: 0,
            trace: Trace::default(),
            stats: WorldStats::default(),
            violations: Vec::new(),
        }
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.seed.0
    }

    /// A generator for a purpose of the caller's. The same purpose gives the same draws in every run with this seed, whatever
    /// else is drawn.
    pub fn rng(&self, purpose: &str) -> Rng {
        self.seed.stream(&format!("caller: {purpose}"), &[])
    }

    /// A self-signed certificate and its key, which follow from the seed and `name`. It is valid for `name`.
    ///
    /// # Panics
    /// If `name` cannot stand in a certificate.
    #[cfg(feature = "self-signed")]
    pub fn credentials(&self, name: &str) -> Credentials {
        let key = self.seed.stream(&format!("credentials: {name}"), &[]).bytes();
        let content = SelfSigned {
            names: vec![name.to_owned()],
            ..SelfSigned::default()
        };
        #[expect(clippy::expect_used, reason = "the caller's mistake, as documented")]
        Credentials::self_signed(&key, &content).expect("a name that can stand in a certificate")
    }

    // ----- time ----------------------------------------------------------------------------------------------------

    /// Time since the world began.
    pub fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.clock.now)
    }

    /// Now, by the true time.
    pub fn now(&self) -> Now {
        self.clock.at(0)
    }

    /// Sets what the true time is at the beginning of the world, in milliseconds since the Unix epoch. Default
    /// 2027-01-15 08:00 UTC.
    pub fn set_unix_ms(&mut self, unix_ms: u64) {
        self.clock.unix_ms = unix_ms;
    }

    /// Lets time pass up to the next thing that happens, but not beyond `until` (since the world began); `None` when nothing
    /// happens before.
    ///
    /// What the caller does before the next call is done at the moment of the last happening, and no time passes meanwhile.
    pub fn next(&mut self, until: Duration) -> Option<Happening> {
        let until = nanos(until);
        loop {
            if let Some(happening) = self.happenings.pop_front() {
                return Some(happening);
            }
            if let Some(host) = self.to_poll.pop_front() {
                self.poll(host);
            } else if let Some(host) = self.to_send.pop_front() {
                self.send(host);
            } else if self.queue.next_at().is_some_and(|at| at <= until) {
                self.advance();
            } else {
                self.clock.now = self.clock.now.max(until);
                return None;
            }
        }
    }

    /// Lets time pass, and gives everything that happens meanwhile.
    pub fn run_for(&mut self, time: Duration) -> Vec<Happening> {
        let until = self.elapsed() + time;
        std::iter::from_fn(|| self.next(until)).collect()
    }

    /// Lets time pass until `done` answers something, which is asked after everything that happens and once at the beginning with
    /// `None`. `None` when it has not answered within `time`.
    pub fn run_until<T>(
        &mut self,
        time: Duration,
        mut done: impl FnMut(&mut Self, Option<Happening>) -> Option<T>,
    ) -> Option<T> {
        let until = self.elapsed() + time;
        let mut found = done(self, None);
        while found.is_none() {
            let happening = self.next(until)?;
            found = done(self, Some(happening));
        }
        found
    }

    /// Makes [`next`](Self::next) answer [`Happening::Wake`] with this number when so much time has passed since the world began.
    pub fn wake_at(&mut self, at: Duration, token: u64) {
        self.queue.push(self.not_before_now(at), Due::Wake(token));
    }

    /// Does something when so much time has passed since the world began, and tells with [`Happening::Fault`].
    pub fn schedule(&mut self, at: Duration, fault: Fault) {
        self.queue.push(self.not_before_now(at), Due::Fault(fault));
    }

    fn not_before_now(&self, at: Duration) -> Nanos {
        nanos(at).max(self.clock.now)
    }

    // ----- what it says --------------------------------------------------------------------------------------------

    /// What happened so far.
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// What happened so far, to say how much of it is kept.
    pub fn trace_mut(&mut self) -> &mut Trace {
        &mut self.trace
    }

    /// Writes what is kept of the trace as qlog (JSON text sequences, version 0.3), for tools that show such files. Datagrams are events
    /// of the category `transport`; what else happens, of `simulation`.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_qlog(&self, out: &mut dyn io::Write) -> io::Result<()> {
        let title = format!("seed {}", self.seed.0);
        let name = |host: HostId| {
            self.hosts
                .get(host.index())
                .map_or_else(|| host.to_string(), |entry| entry.name(host))
        };
        qlog::write(out, &title, &self.trace, &name)
    }

    /// Counters.
    pub fn stats(&self) -> WorldStats {
        self.stats
    }

    /// What endpoints did against their contract. Empty unless there is a bug in them.
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// When the next thing is going to happen, as far as is known now; `None` when nothing ever will unless something is done.
    pub fn next_at(&self) -> Option<Duration> {
        if self.happenings.is_empty() && self.to_poll.is_empty() && self.to_send.is_empty() {
            self.queue.next_at().map(Duration::from_nanos)
        } else {
            Some(self.elapsed())
        }
    }
}
