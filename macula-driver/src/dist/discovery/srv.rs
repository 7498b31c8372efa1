//! Nodes in the domain name system.
//!
//! A domain lists its nodes in the SRV records of `_erlang-dist._quic.DOMAIN`: host, port, priority and weight. The name of a node
//! follows from its host, as deployed nodes derive it: the first label is what stands before the `@`, so that `a.left.example` is
//! `a@left.example`. Where every host runs one node of the same name, as in `worker@h1.example` and `worker@h2.example`, say so with
//! [`Names::Prefix`].

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use domain::{
    base::{Message, Name, Rtype, message::RecordIter},
    rdata::Srv,
};
use macula_proto::Rng;

use super::{DiscoveryError, MAX_PLACES, Place, finish, is_node_name, resolve};
use crate::{
    Runtime,
    dns::{Config, Failure, Question, addresses, both},
    entropy,
    runtime::{First, first},
};

/// What stands in front of a domain, or of the host of a node and its domain.
const SERVICE: &str = "_erlang-dist._quic";

/// The port of a node that the domain says nothing about: that of deployed nodes.
pub const DEFAULT_PORT: u16 = 4433;

/// Records of one name; of an answer with more, the first ones.
const MAX_RECORDS: usize = 1024;

/// Answers that are remembered.
const CACHE: usize = 256;

/// How the name of a node follows from the host in its record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Names {
    /// As deployed nodes do it: `a.left.example` is the host of `a@left.example`.
    FirstLabel,
    /// This, `@`, and the host.
    Prefix(String),
}

/// Which records, and how they are asked for.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SrvConfig {
    /// The domain: the records are those of `_erlang-dist._quic.DOMAIN`.
    pub domain: String,
    /// Default [`Names::FirstLabel`].
    pub names: Names,
    /// The name servers, which are then also asked for the addresses of hosts; the first one first, and the next one when it has no answer.
    /// Default none: those in `/etc/resolv.conf`, or the one at 127.0.0.1 on systems without such a file; the operating system then looks
    /// up the addresses, in its `hosts` file for one.
    pub servers: Vec<SocketAddr>,
    /// How long the look-up of a name may take, with all servers together. Default 5 s.
    pub timeout: Duration,
    /// Answers are remembered as long as they say, but no longer than this. Default 1 hour.
    pub max_ttl: Duration,
}

impl SrvConfig {
    /// With the defaults for everything else.
    pub fn new(domain: impl Into<String>) -> Self {
        Self {
            domain: domain.into(),
            names: Names::FirstLabel,
            servers: Vec::new(),
            timeout: Duration::from_secs(5),
            max_ttl: Duration::from_secs(3600),
        }
    }
}

/// The nodes of a domain.
#[derive(Debug)]
pub struct SrvRecords {
    config: SrvConfig,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    rng: Rng,
    /// By the name that was asked for.
    cache: BTreeMap<String, (Instant, Arc<[Record]>)>,
}

/// An SRV record.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Record {
    priority: u16,
    weight: u16,
    port: u16,
    /// Without a dot at its end.
    target: String,
}

impl SrvRecords {
    /// Nothing is asked before the first look-up.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] for what cannot be a domain or the first part of a node's name; those of the operating
    /// system's randomness.
    pub fn new(config: SrvConfig) -> io::Result<Self> {
        Self::with_rng(config, Rng::from_entropy(entropy()?))
    }

    /// As [`new`](Self::new), with the randomness that chooses among nodes of the same priority.
    ///
    /// # Errors
    /// Those of `new`.
    pub fn with_rng(mut config: SrvConfig, rng: Rng) -> io::Result<Self> {
        config.domain.truncate(config.domain.trim_end_matches('.').len());
        let domain = &config.domain;
        let named = match &config.names {
            Names::FirstLabel => true,
            Names::Prefix(prefix) => is_node_name(&format!("{prefix}@host")),
        };
        if !named || domain.is_empty() || parse(&format!("{SERVICE}.{domain}")).is_err() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{domain:?} is not the domain of nodes"),
            ));
        }
        let cache = BTreeMap::new();
        Ok(Self {
            config,
            state: Mutex::new(State { rng, cache }),
        })
    }

    /// How long [`nodes_on`](Self::nodes_on) will give the same answer, as far as it is known: until then nothing is asked again.
    pub fn fresh_for(&self) -> Duration {
        let state = self.lock();
        let until = state.cache.get(&self.service()).map(|(until, _)| *until);
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
    }

    /// The nodes that the domain lists, by priority, and at random by weight among those of the same priority; asked for on a runtime.
    ///
    /// # Errors
    /// [`DiscoveryError`].
    pub async fn nodes_on<R: Runtime>(&self) -> Result<Vec<String>, DiscoveryError> {
        let mut nodes = Vec::new();
        for record in self.records::<R>(&self.service()).await? {
            if let Some(node) = self.node_at(&record.target)
                && !nodes.contains(&node)
            {
                nodes.push(node);
            }
        }
        Ok(nodes)
    }

    /// What the domain lists for this node; else, as deployed nodes do it, the SRV records of `_erlang-dist._quic.HOST.DOMAIN`; else the
    /// host in the node's name, at port 4433. At least one place, and at most [`MAX_PLACES`].
    ///
    /// # Errors
    /// [`DiscoveryError`].
    pub async fn lookup_on<R: Runtime>(&self, node: &str) -> Result<Vec<Place>, DiscoveryError> {
        if !is_node_name(node) {
            return Err(DiscoveryError::Name(node.to_owned()));
        }
        let (_, host) = node.split_once('@').unwrap_or_default();
        let mut listed = match self.records::<R>(&self.service()).await {
            Ok(records) => records,
            Err(DiscoveryError::NotFound(_)) => Vec::new(),
            Err(error) => return Err(error),
        };
        listed.retain(|record| self.node_at(&record.target).as_deref() == Some(node));
        if !listed.is_empty() {
            return self.places::<R>(listed, node).await;
        }
        match self
            .records::<R>(&format!("{SERVICE}.{host}.{}", self.config.domain))
            .await
        {
            Ok(records) => self.places::<R>(records, node).await,
            Err(DiscoveryError::NotFound(_)) => match self.addresses::<R>(host, DEFAULT_PORT).await {
                Ok(found) => finish(found, node),
                Err(_) => Err(DiscoveryError::NotFound(node.to_owned())),
            },
            Err(error) => Err(error),
        }
    }

    fn service(&self) -> String {
        format!("{SERVICE}.{}", self.config.domain)
    }

    fn node_at(&self, target: &str) -> Option<String> {
        let node = match &self.config.names {
            Names::FirstLabel => {
                let (name, host) = target.split_once('.')?;
                format!("{name}@{host}")
            }
            Names::Prefix(prefix) => format!("{prefix}@{target}"),
        };
        is_node_name(&node).then_some(node)
    }

    /// The records of a name, in the order in which they are to be tried this time.
    async fn records<R: Runtime>(&self, name: &str) -> Result<Vec<Record>, DiscoveryError> {
        let known = self.cached(name);
        let records = match known {
            Some(records) => records,
            None => {
                let (records, ttl) = self.ask::<R>(name).await?;
                let records: Arc<[Record]> = records.into();
                self.remember(name, Arc::clone(&records), ttl);
                records
            }
        };
        match records.is_empty() {
            true => Err(DiscoveryError::NotFound(name.to_owned())),
            false => Ok(order(records.to_vec(), &mut self.lock().rng)),
        }
    }

    fn cached(&self, name: &str) -> Option<Arc<[Record]>> {
        let state = self.lock();
        let (until, records) = state.cache.get(name)?;
        (Instant::now() < *until).then(|| Arc::clone(records))
    }

    fn remember(&self, name: &str, records: Arc<[Record]>, ttl: Duration) {
        if ttl.is_zero() {
            return;
        }
        let now = Instant::now();
        let mut state = self.lock();
        state.cache.retain(|_, (until, _)| now < *until);
        if state.cache.len() >= CACHE && !state.cache.contains_key(name) {
            state.cache.pop_first();
        }
        let until = now + ttl.min(self.config.max_ttl);
        state.cache.insert(name.to_owned(), (until, records));
    }

    async fn ask<R: Runtime>(&self, name: &str) -> Result<(Vec<Record>, Duration), DiscoveryError> {
        let question = Question {
            name: parse(name).map_err(|()| DiscoveryError::Name(name.to_owned()))?,
            kind: Rtype::SRV,
        };
        let found = self.query::<R, _>(&question, read).await;
        // That there is nothing is not remembered.
        found
            .map(Option::unwrap_or_default)
            .map_err(|failure| self.failed(name, failure))
    }

    async fn query<R: Runtime, T>(
        &self,
        question: &Question,
        read: impl Fn(&Message<Vec<u8>>) -> Option<T>,
    ) -> Result<Option<T>, Failure> {
        let servers = match self.config.servers.is_empty() {
            // Read each time: it may have changed.
            true => Config::of_system(),
            false => Config::of(&self.config.servers),
        };
        let deadline = Instant::now() + self.config.timeout;
        servers.ask(&R::current()?, question, deadline, read).await
    }

    fn failed(&self, name: &str, failure: Failure) -> DiscoveryError {
        let name = name.to_owned();
        match failure {
            Failure::TimedOut => DiscoveryError::TimedOut(name, self.config.timeout),
            Failure::Refused(code) => DiscoveryError::Refused(name, code.to_string()),
            Failure::Unreadable => DiscoveryError::Answer(name),
            Failure::Io(error) => DiscoveryError::Io(name, error),
        }
    }

    /// Addresses of a host.
    async fn addresses<R: Runtime>(&self, host: &str, port: u16) -> Result<Vec<Place>, DiscoveryError> {
        if !self.config.servers.is_empty()
            && host.parse::<IpAddr>().is_err()
            && let Ok(name) = parse(host)
        {
            let of = |kind| {
                let name = name.clone();
                async move {
                    let question = Question { name, kind };
                    let found = self.query::<R, _>(&question, |answer| addresses(answer, MAX_PLACES));
                    // Without addresses of the one kind there may be some of the other, or in the tables of the system.
                    found.await.ok().flatten().unwrap_or_default()
                }
            };
            let (v6, v4) = both(of(Rtype::AAAA), of(Rtype::A)).await;
            let place = |address| Place {
                host: host.to_owned(),
                address: SocketAddr::new(address, port),
            };
            let found: Vec<_> = v6.into_iter().chain(v4).map(place).collect();
            if !found.is_empty() {
                return Ok(found);
            }
        }
        let failed = |error| DiscoveryError::Io(host.to_owned(), error);
        let runtime = R::current().map_err(failed)?;
        let late = runtime.sleep_until(Instant::now() + self.config.timeout);
        match first(resolve::<R>(host, port), late).await {
            First::One(found) => found.map_err(failed),
            First::Other(()) => Err(DiscoveryError::TimedOut(host.to_owned(), self.config.timeout)),
        }
    }

    async fn places<R: Runtime>(&self, records: Vec<Record>, node: &str) -> Result<Vec<Place>, DiscoveryError> {
        let mut places = Vec::new();
        let mut failed = None;
        for record in records.into_iter().take(MAX_PLACES) {
            match self.addresses::<R>(&record.target, record.port).await {
                Ok(found) => places.extend(found),
                Err(error) => failed = Some(error),
            }
            if places.len() >= MAX_PLACES {
                break;
            }
        }
        match failed {
            Some(failed) if places.is_empty() => Err(failed),
            _ => finish(places, node),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn parse(name: &str) -> Result<Name<Vec<u8>>, ()> {
    name.parse().map_err(drop)
}

/// The records in an answer and the shortest time that they may be remembered; nothing if it cannot be read.
fn read(answer: &Message<Vec<u8>>) -> Option<(Vec<Record>, Duration)> {
    let owner = answer.canonical_name()?;
    let mut records = Vec::new();
    let mut ttl: Option<Duration> = None;
    let found: RecordIter<'_, _, Srv<_>> = answer.answer().ok()?.limit_to();
    for record in found {
        let record = record.ok()?;
        if records.len() >= MAX_RECORDS {
            break;
        }
        if *record.owner() != owner {
            continue;
        }
        let own = Duration::from_secs(u64::from(record.ttl().as_secs()));
        ttl = Some(ttl.map_or(own, |ttl| ttl.min(own)));
        let srv = record.data();
        // The root stands for a service that is not there.
        let target = srv.target().to_string();
        let target = target.trim_end_matches('.');
        if !target.is_empty() {
            records.push(Record {
                priority: srv.priority(),
                weight: srv.weight(),
                port: srv.port(),
                target: target.to_ascii_lowercase(),
            });
        }
    }
    Some((records, ttl.unwrap_or_default()))
}

/// The order of RFC 2782: lower priorities first; among equal ones each is drawn with a chance by its weight, and those without weight
/// have hardly any.
fn order(mut records: Vec<Record>, rng: &mut Rng) -> Vec<Record> {
    records.sort_by(|a, b| (a.priority, a.weight, a.port, &a.target).cmp(&(b.priority, b.weight, b.port, &b.target)));
    let mut ordered = Vec::with_capacity(records.len());
    while let Some(first) = records.first() {
        let priority = first.priority;
        let same = records.iter().take_while(|record| record.priority == priority);
        let total: u64 = same.map(|record| u64::from(record.weight)).sum();
        let mut left = rng.below(total + 1);
        // Those without weight stand first, so that they are drawn with 0 alone.
        let drawn = records.iter().position(|record| {
            let drawn = left <= u64::from(record.weight);
            left = left.saturating_sub(u64::from(record.weight));
            drawn
        });
        ordered.push(records.remove(drawn.unwrap_or(0)));
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(priority: u16, weight: u16, target: &str) -> Record {
        Record {
            priority,
            weight,
            port: 4433,
            target: target.to_owned(),
        }
    }

    fn targets(records: &[Record]) -> Vec<&str> {
        records.iter().map(|record| &*record.target).collect()
    }

    #[test]
    fn lower_priorities_come_first_whatever_is_drawn() {
        let records = vec![
            record(2, 9, "d"),
            record(1, 0, "b"),
            record(0, 1, "a"),
            record(2, 0, "c"),
        ];
        for seed in 0..100 {
            let ordered = order(records.clone(), &mut Rng::from_seed(seed));
            assert_eq!(targets(&ordered)[..2], ["a", "b"]);
            assert_eq!(ordered.len(), 4);
        }
    }

    #[test]
    fn chances_are_by_weight() {
        const DRAWS: u32 = 10_000;
        let mut rng = Rng::from_seed(7);
        let mut first = BTreeMap::new();
        for _ in 0..DRAWS {
            let ordered = order(
                vec![record(0, 0, "none"), record(0, 10, "some"), record(0, 89, "most")],
                &mut rng,
            );
            *first.entry(ordered[0].target.clone()).or_insert(0_u32) += 1;
            assert_eq!(ordered.len(), 3);
        }
        // Of 100 draws one is for the record without weight, 10 for the second and 89 for the third.
        let within = |name: &str, percent: u32| {
            let (found, expected) = (first[name], DRAWS * percent / 100);
            assert!(found.abs_diff(expected) < DRAWS / 50, "{name}: {found} of {expected}");
        };
        within("none", 1);
        within("some", 10);
        within("most", 89);
    }

    #[test]
    fn the_same_randomness_gives_the_same_order() {
        let records: Vec<_> = (0..20)
            .map(|number| record(number % 2, 5, &number.to_string()))
            .collect();
        let mut turned = records.clone();
        turned.reverse();
        let one = order(records, &mut Rng::from_seed(3));
        assert_eq!(
            one,
            order(turned, &mut Rng::from_seed(3)),
            "as the server turns them does not count"
        );
    }

    #[test]
    fn names_follow_from_hosts() {
        let of = |names: Names, target: &str| {
            let mut config = SrvConfig::new("example.");
            config.names = names;
            SrvRecords::with_rng(config, Rng::from_seed(0)).unwrap().node_at(target)
        };
        let prefix = || Names::Prefix("worker".to_owned());
        assert_eq!(
            of(Names::FirstLabel, "a.left.example").as_deref(),
            Some("a@left.example")
        );
        assert_eq!(of(Names::FirstLabel, "localhost"), None);
        assert_eq!(of(prefix(), "h1.example").as_deref(), Some("worker@h1.example"));
        assert_eq!(of(prefix(), "localhost").as_deref(), Some("worker@localhost"));
    }

    #[test]
    fn what_is_no_domain_is_refused() {
        let with = |domain: &str, names: Names| {
            let mut config = SrvConfig::new(domain);
            config.names = names;
            SrvRecords::new(config).map(drop).map_err(|error| error.kind())
        };
        let label = "x".repeat(64);
        for domain in ["", ".", "a..b", &label, &"x.".repeat(127)] {
            assert_eq!(
                with(domain, Names::FirstLabel),
                Err(io::ErrorKind::InvalidInput),
                "{domain}"
            );
        }
        assert_eq!(with("example", Names::FirstLabel), Ok(()));
        let prefix = Names::Prefix("a@b".to_owned());
        assert_eq!(with("example", prefix), Err(io::ErrorKind::InvalidInput));
    }
}
