//! The world: hosts, the network between them, and the order in which things happen.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    io,
    net::{IpAddr, SocketAddr},
    num::NonZeroUsize,
    time::Duration,
};

use bytes::{Bytes, BytesMut};

use super::{
    DropReason, Fault, HostConfig, HostId, Link, Nat, Port, Trace,
    chance::Seed,
    clock::{Clock, Nanos, nanos},
    digest::sum,
    host::{Datagram, Host},
    link::{LinkState, Wire},
    nat::NatState,
    qlog,
    queue::Queue,
    trace::What,
};
#[cfg(feature = "self-signed")]
use crate::quic::tls::{Credentials, SelfSigned};
use crate::{
    Endpoint, Event, Now, Rng,
    endpoint::ClientEvent,
    quic::{ConfigError, DatagramMeta},
};

/// Datagrams that an endpoint may hand out at once.
const BATCH: NonZeroUsize = NonZeroUsize::new(16).expect("16 is not 0");
/// How much later an endpoint is called that asks for a moment which has passed.
const SPIN: Duration = Duration::from_micros(1);

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

    // ----- hosts ---------------------------------------------------------------------------------------------------

    /// Adds a host, and starts it.
    ///
    /// # Errors
    /// [`ConfigError`] names the setting that is out of range: one of the endpoint's, or an `address` that another host has.
    pub fn add(&mut self, config: HostConfig) -> Result<HostId, ConfigError> {
        let id = HostId(u32::try_from(self.hosts.len()).map_err(|_| ConfigError("hosts"))?);
        let address = config.address.unwrap_or_else(|| id.address());
        if self.by_ip.contains_key(&address.ip()) {
            return Err(ConfigError("address"));
        }
        let nat = config.nat;
        let host = Host {
            endpoint: Some(self.endpoint(id, &config, 0)?),
            config,
            address,
            starts: 1,
            nat: None,
            up: Wire::default(),
            down: Wire::default(),
            stalled_until: None,
            inbox: VecDeque::new(),
            inbox_bytes: 0,
            timer: None,
            fired: None,
            in_poll: false,
            in_send: false,
        };
        self.hosts.push(host);
        self.by_ip.insert(address.ip(), id);
        self.set_nat(id, nat);
        Ok(id)
    }

    /// All hosts.
    pub fn hosts(&self) -> impl Iterator<Item = HostId> + use<> {
        (0..u32::try_from(self.hosts.len()).unwrap_or(u32::MAX)).map(HostId)
    }

    /// Does something with the endpoint of a host: sets it up, reads, writes, looks at it.
    ///
    /// # Errors
    /// [`HostDown`] if it crashed. A host that stalls can be used, but nothing leaves it.
    pub fn with<T>(&mut self, host: HostId, run: impl FnOnce(&mut Endpoint, Now) -> T) -> Result<T, HostDown> {
        let clock = self.clock;
        let entry = self.hosts.get_mut(host.index()).ok_or(HostDown(host))?;
        let now = clock.at(entry.config.clock_offset_ms);
        let result = run(entry.endpoint.as_mut().ok_or(HostDown(host))?, now);
        self.touch(host);
        Ok(result)
    }

    /// Looks at the endpoint of a host; `None` while it is down.
    pub fn endpoint_of(&self, host: HostId) -> Option<&Endpoint> {
        self.hosts.get(host.index())?.endpoint.as_ref()
    }

    /// The address of a host: what its own socket is bound to.
    ///
    /// # Panics
    /// If the host is one of another world.
    pub fn address(&self, host: HostId) -> SocketAddr {
        self.host(host).address
    }

    /// The address at which others see a host behind a NAT, while there is a mapping; otherwise its own.
    ///
    /// # Panics
    /// If the host is one of another world.
    pub fn outside_address(&self, host: HostId) -> Option<SocketAddr> {
        let host = self.host(host);
        match &host.nat {
            Some(nat) => nat.address(self.clock.now),
            None => Some(host.address),
        }
    }

    /// Whether a host is up, if only stalled.
    pub fn is_up(&self, host: HostId) -> bool {
        self.endpoint_of(host).is_some()
    }

    /// Gives a name these addresses. Nodes that look up their relays get them; addresses in numbers need no entry.
    pub fn set_name(&mut self, name: impl Into<String>, addresses: Vec<SocketAddr>) {
        self.names.insert(name.into(), addresses);
    }

    fn endpoint(&self, id: HostId, config: &HostConfig, start: u64) -> Result<Endpoint, ConfigError> {
        let seed = self.seed.number("endpoint", &[u64::from(id.0), start]);
        Endpoint::simulated(&config.endpoint, config.limits.clone(), seed)
    }

    fn host(&self, host: HostId) -> &Host {
        #[expect(
            clippy::indexing_slicing,
            reason = "a host of another world is the caller's mistake, as documented"
        )]
        &self.hosts[host.index()]
    }

    // ----- the network ---------------------------------------------------------------------------------------------

    /// How directions behave that nothing else was said about.
    pub fn set_default_link(&mut self, link: Link) {
        for state in self.links.values_mut() {
            if state.link == self.default_link {
                state.link = link;
            }
        }
        self.default_link = link;
    }

    /// How one direction behaves.
    pub fn set_link(&mut self, from: HostId, to: HostId, link: Link) {
        self.link_state(from, to).link = link;
    }

    /// How both directions between two hosts behave.
    pub fn set_link_between(&mut self, a: HostId, b: HostId, link: Link) {
        self.set_link(a, b, link);
        self.set_link(b, a, link);
    }

    /// How a direction behaves now.
    pub fn link(&self, from: HostId, to: HostId) -> Link {
        let state = self.links.get(&(from, to));
        state.map_or(self.default_link, |state| state.link)
    }

    /// What a host can send and receive altogether from now on.
    pub fn set_port(&mut self, host: HostId, port: Port) {
        if let Some(host) = self.hosts.get_mut(host.index()) {
            host.config.port = port;
        }
    }

    /// Cuts every direction between two groups of hosts.
    pub fn partition(&mut self, left: &[HostId], right: &[HostId]) {
        for a in left {
            for b in right {
                self.apply(Fault::Cut { from: *a, to: *b });
                self.apply(Fault::Cut { from: *b, to: *a });
            }
        }
    }

    /// Puts a datagram on the network that no host sent, as an attacker can who forges the sender's address. It is subject to no link.
    pub fn inject(&mut self, from: SocketAddr, to: SocketAddr, data: &[u8]) {
        let id = self.datagram_id();
        let Some(host) = self.by_ip.get(&to.ip()).copied() else {
            return;
        };
        let data = BytesMut::from(data);
        let datagram = Box::new(Datagram { id, from, to, data });
        self.queue.push(self.clock.now, Due::Arrival(host, datagram));
    }

    fn link_state(&mut self, from: HostId, to: HostId) -> &mut LinkState {
        let (seed, link) = (self.seed, self.default_link);
        let new = || LinkState::new(seed, from, to, link);
        self.links.entry((from, to)).or_insert_with(new)
    }

    // ----- faults --------------------------------------------------------------------------------------------------

    /// Does something to the world, now.
    pub fn apply(&mut self, fault: Fault) {
        let host = match fault {
            Fault::Link { from, .. } | Fault::Cut { from, .. } | Fault::Heal { from, .. } => from,
            Fault::Isolate(host)
            | Fault::Stall { host, .. }
            | Fault::Crash(host)
            | Fault::Restart(host)
            | Fault::Nat(host, _)
            | Fault::Rebind(host) => host,
            Fault::HealAll => HostId(0),
        };
        self.trace.record(self.elapsed(), host, What::Fault(fault.to_string()));
        match fault {
            Fault::Link { from, to, link } => self.set_link(from, to, link),
            Fault::Cut { from, to } => self.link_state(from, to).cut = true,
            Fault::Heal { from, to } => self.link_state(from, to).cut = false,
            Fault::Isolate(host) => _ = self.isolated.insert(host),
            Fault::HealAll => {
                self.isolated.clear();
                self.links.values_mut().for_each(|link| link.cut = false);
            }
            Fault::Stall { host, time } => self.stall(host, time),
            Fault::Crash(host) => {
                if let Some(host) = self.hosts.get_mut(host.index()) {
                    host.stop();
                }
            }
            Fault::Restart(host) => self.restart(host),
            Fault::Nat(host, nat) => self.set_nat(host, nat),
            Fault::Rebind(host) => {
                if let Some(nat) = self.hosts.get_mut(host.index()).and_then(|host| host.nat.as_mut()) {
                    nat.rebind();
                }
            }
        }
    }

    fn stall(&mut self, host: HostId, time: Duration) {
        let until = self.clock.now.saturating_add(nanos(time));
        if let Some(entry) = self
            .hosts
            .get_mut(host.index())
            .filter(|entry| entry.endpoint.is_some())
        {
            let until = entry.stalled_until.map_or(until, |before| before.max(until));
            entry.stalled_until = Some(until);
            self.queue.push(until, Due::Awake(host, until));
        }
    }

    fn restart(&mut self, host: HostId) {
        let Some(entry) = self.hosts.get(host.index()) else {
            return;
        };
        // The settings were good the first time.
        let endpoint = self.endpoint(host, &entry.config, entry.starts).ok();
        if let Some(entry) = self.hosts.get_mut(host.index()) {
            entry.stop();
            entry.starts += 1;
            entry.endpoint = endpoint;
        }
        self.touch(host);
    }

    fn set_nat(&mut self, host: HostId, nat: Option<Nat>) {
        let Some(entry) = self.hosts.get_mut(host.index()) else {
            return;
        };
        match (&mut entry.nat, nat) {
            (Some(state), Some(nat)) => state.nat = nat,
            (state, nat) => *state = nat.map(|nat| NatState::new(host, nat)),
        }
        // Its own address can be reached only if there is no NAT.
        let own = entry.address.ip();
        let outside = entry.nat.as_ref().map(|nat| nat.ip);
        match outside {
            Some(outside) => {
                self.by_ip.remove(&own);
                self.by_ip.insert(outside, host);
            }
            None => _ = self.by_ip.insert(own, host),
        }
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

    // ----- inside --------------------------------------------------------------------------------------------------

    /// Moves to the next moment at which something is due, and does all that is due then.
    fn advance(&mut self) {
        if let Some(at) = self.queue.next_at() {
            self.clock.now = self.clock.now.max(at);
        }
        while let Some(due) = self.queue.pop_due(self.clock.now) {
            match due {
                Due::Arrival(host, datagram) => self.arrive(host, datagram),
                Due::Delivery(host, datagram) => self.deliver(host, *datagram),
                Due::Timer(host, at) => self.fire(host, at),
                Due::Awake(host, at) => self.awake(host, at),
                Due::Fault(fault) => {
                    self.apply(fault);
                    self.happenings.push_back(Happening::Fault(fault));
                }
                Due::Wake(token) => self.happenings.push_back(Happening::Wake(token)),
            }
        }
    }

    /// Has a host polled before time goes on.
    fn touch(&mut self, host: HostId) {
        if let Some(entry) = self.hosts.get_mut(host.index())
            && !std::mem::replace(&mut entry.in_poll, true)
        {
            self.to_poll.push_back(host);
        }
    }

    /// Collects the events of a host.
    fn poll(&mut self, id: HostId) {
        let Some(host) = self.hosts.get_mut(id.index()) else {
            return;
        };
        host.in_poll = false;
        // What is left undone is done when it is awake.
        if host.is_stalled(self.clock.now) {
            return;
        }
        let now = self.clock.at(host.config.clock_offset_ms);
        let at = Duration::from_nanos(self.clock.now);
        let Some(endpoint) = &mut host.endpoint else {
            return;
        };
        while let Some(event) = endpoint.poll_event(now) {
            self.stats.events += 1;
            self.trace.event(at, id, &event);
            if let Event::Client {
                client,
                event: ClientEvent::Resolve { attempt, address },
            } = &event
            {
                let literal = || address.host.trim_matches(['[', ']']).parse().ok();
                let found = match self.names.get(&address.host) {
                    Some(found) => found.clone(),
                    None => literal()
                        .map(|ip| SocketAddr::new(ip, address.port))
                        .into_iter()
                        .collect(),
                };
                // A node that was stopped meanwhile needs no answer.
                let _ = endpoint.resolved(now, *client, *attempt, &found);
                continue;
            }
            self.happenings.push_back(Happening::Event { host: id, event });
        }
        if !std::mem::replace(&mut host.in_send, true) {
            self.to_send.push_back(id);
        }
    }

    /// Puts the datagrams of a host on the network, and notes when it wants to be called again.
    fn send(&mut self, id: HostId) {
        let offset = self.hosts.get(id.index()).map_or(0, |host| host.config.clock_offset_ms);
        let now = self.clock.at(offset);
        loop {
            let mut buf = Vec::new();
            let Some(host) = self.hosts.get_mut(id.index()) else {
                return;
            };
            host.in_send = false;
            if host.is_stalled(self.clock.now) {
                return;
            }
            let Some(endpoint) = &mut host.endpoint else {
                return;
            };
            let Some(transmit) = endpoint.poll_transmit(now, BATCH, &mut buf) else {
                break;
            };
            // The datagrams of a batch share its buffer.
            let mut batch = BytesMut::from(Bytes::from(buf));
            let size = transmit.segment_size.unwrap_or(transmit.size).max(1);
            while !batch.is_empty() {
                let datagram = batch.split_to(size.min(batch.len()));
                self.transmit(id, transmit.destination, datagram);
            }
        }
        self.note_deadline(id);
    }

    fn note_deadline(&mut self, id: HostId) {
        let Some(host) = self.hosts.get_mut(id.index()) else {
            return;
        };
        let Some(at) = host.endpoint.as_ref().and_then(Endpoint::poll_timeout) else {
            return;
        };
        let mut at = self.clock.since_start(at).max(self.clock.now);
        if at == self.clock.now && host.fired == Some(at) {
            at += nanos(SPIN);
            self.violations.push(Violation {
                at: Duration::from_nanos(self.clock.now),
                host: id,
                what: "asks for a time-out that is not later than the one just handled",
            });
        }
        // An entry that is too early is looked at again when its time has come.
        if host.timer.is_none_or(|noted| at < noted) {
            host.timer = Some(at);
            self.queue.push(at, Due::Timer(id, at));
        }
    }

    fn fire(&mut self, id: HostId, at: Nanos) {
        let Some(host) = self.hosts.get_mut(id.index()) else {
            return;
        };
        if host.timer != Some(at) {
            return;
        }
        host.timer = None;
        if host.is_stalled(self.clock.now) {
            return;
        }
        let now = self.clock.at(host.config.clock_offset_ms);
        let Some(endpoint) = &mut host.endpoint else {
            return;
        };
        match endpoint.poll_timeout() {
            Some(due) if due <= now.mono => {
                self.trace
                    .record(Duration::from_nanos(self.clock.now), id, What::Timeout);
                self.stats.timeouts += 1;
                host.fired = Some(self.clock.now);
                endpoint.handle_timeout(now);
                self.touch(id);
            }
            _ => self.note_deadline(id),
        }
    }

    fn awake(&mut self, id: HostId, at: Nanos) {
        let Some(host) = self.hosts.get_mut(id.index()) else {
            return;
        };
        if host.stalled_until != Some(at) {
            return;
        }
        host.stalled_until = None;
        host.inbox_bytes = 0;
        for datagram in std::mem::take(&mut host.inbox) {
            self.deliver(id, datagram);
        }
        // Its timers may be late.
        if let Some(host) = self.hosts.get_mut(id.index()) {
            host.timer = None;
        }
        self.touch(id);
    }

    fn datagram_id(&mut self) -> u64 {
        let id = self.next_datagram;
        self.next_datagram += 1;
        id
    }

    /// Sends a datagram on its way.
    fn transmit(&mut self, from: HostId, to: SocketAddr, data: BytesMut) {
        let id = self.datagram_id();
        let (now, at, length) = (self.clock.now, self.elapsed(), data.len());
        self.stats.sent += 1;
        self.stats.bytes_sent += length as u64;
        let what = What::Sent {
            id,
            to,
            length,
            sum: sum(&data),
        };
        self.trace.record(at, from, what);
        let Some(host) = self.hosts.get_mut(from.index()) else {
            return;
        };
        let mut source = host.address;
        if let Some(nat) = &mut host.nat {
            let (address, new) = nat.outbound(now, to);
            source = address;
            if new {
                self.trace.record(at, from, What::Mapped { address });
            }
        }
        let port = host.config.port;
        let left = host.up.pass(now, length, port.up, port.queue);
        let target = self.by_ip.get(&to.ip()).copied();
        let datagram = Datagram {
            id,
            from: source,
            to,
            data,
        };
        let passed = match (left, target) {
            (None, _) => Err(DropReason::QueueFull),
            (_, None) => Err(DropReason::NoRoute),
            (Some(left), Some(target)) => self.cross(from, target, left, datagram),
        };
        if let Err(reason) = passed {
            self.drop_datagram(from, id, length, reason);
        }
    }

    /// Takes a datagram over the link to another host.
    fn cross(&mut self, from: HostId, to: HostId, left: Nanos, mut datagram: Datagram) -> Result<(), DropReason> {
        if self.isolated.contains(&from) || self.isolated.contains(&to) {
            return Err(DropReason::Cut);
        }
        let link = self.link_state(from, to);
        let passage = link.pass(left, datagram.data.len())?;
        if passage.corrupted {
            link.spoil(&mut datagram.data);
            self.stats.corrupted += 1;
        }
        if let Some(again) = passage.again {
            self.stats.duplicated += 1;
            let copy = Box::new(Datagram {
                data: datagram.data.clone(),
                ..datagram
            });
            self.queue.push(again, Due::Arrival(to, copy));
        }
        self.queue.push(passage.arrives, Due::Arrival(to, Box::new(datagram)));
        Ok(())
    }

    /// A datagram is in front of its receiver.
    fn arrive(&mut self, id: HostId, datagram: Box<Datagram>) {
        let now = self.clock.now;
        let length = datagram.data.len();
        let Some(host) = self.hosts.get_mut(id.index()) else {
            return;
        };
        let known = match &host.nat {
            Some(nat) if datagram.to.ip() == nat.ip => {
                let let_in = nat.lets_in(now, datagram.from, datagram.to.port());
                let_in.then_some(()).ok_or(DropReason::NotMapped)
            }
            Some(_) => Err(DropReason::NotMapped),
            None if datagram.to == host.address => Ok(()),
            None => Err(DropReason::HostDown),
        };
        let port = host.config.port;
        let through = known.and_then(|()| {
            let through = host.down.pass(now, length, port.down, port.queue);
            through.ok_or(DropReason::QueueFull)
        });
        match through {
            Ok(through) if through > now => self.queue.push(through, Due::Delivery(id, datagram)),
            Ok(_) => self.deliver(id, *datagram),
            Err(reason) => self.drop_datagram(id, datagram.id, length, reason),
        }
    }

    /// Gives a datagram to its endpoint, or keeps it while the host stalls.
    fn deliver(&mut self, id: HostId, datagram: Datagram) {
        let at = self.elapsed();
        let length = datagram.data.len();
        let Some(host) = self.hosts.get_mut(id.index()) else {
            return;
        };
        let Some(endpoint) = &mut host.endpoint else {
            return self.drop_datagram(id, datagram.id, length, DropReason::HostDown);
        };
        if host.stalled_until.is_some_and(|until| until > self.clock.now) {
            if host.inbox_bytes + length > host.config.receive_buffer {
                return self.drop_datagram(id, datagram.id, length, DropReason::BufferFull);
            }
            host.inbox_bytes += length;
            host.inbox.push_back(datagram);
            return;
        }
        let what = What::Received {
            id: datagram.id,
            from: datagram.from,
            length,
        };
        self.trace.record(at, id, what);
        self.stats.received += 1;
        let now = self.clock.at(host.config.clock_offset_ms);
        endpoint.handle_datagram(now, DatagramMeta::from(datagram.from), datagram.data);
        self.touch(id);
    }

    fn drop_datagram(&mut self, host: HostId, id: u64, length: usize, reason: DropReason) {
        let what = What::Dropped { id, length, reason };
        self.trace.record(self.elapsed(), host, what);
        if let Some(count) = self.stats.dropped.get_mut(reason as usize) {
            *count += 1;
        }
    }
}
