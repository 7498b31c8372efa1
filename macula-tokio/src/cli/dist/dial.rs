//! Connections that a node keeps.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use macula_proto::{Code, Rng, dist::handshake};
use tokio::{
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep},
};

use super::{args::CarrierArg, events::DistEvent, teller::Teller};
use crate::{
    cli::outcome::Failure,
    dist::{
        ConnectError, Events as NodeEvents, Node, NodeEvent,
        discovery::{Discovery, DiscoveryError, srv::SrvRecords},
    },
};

/// Shortest and longest pause before a node, or a domain, is tried again.
const PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(30)];

/// A domain is not asked more often than this for its nodes.
const OFTEN: Duration = Duration::from_secs(5);

/// Dials for a node.
#[derive(Clone)]
pub(super) struct Dialler {
    pub(super) node: Node,
    pub(super) carrier: CarrierArg,
    pub(super) teller: Teller,
    /// How long a dial may take.
    pub(super) timeout: Duration,
    /// Whether the first failure is the last.
    pub(super) once: bool,
    pub(super) rng: Arc<Mutex<Rng>>,
}

impl Dialler {
    /// Keeps a connection with a node; what it returns says that it is given up.
    pub(super) async fn keep<D: Discovery>(self, discovery: Arc<D>, peer: String) -> Failure {
        let mut pauses = Pauses::default();
        loop {
            let mut events = self.node.events();
            let begun = Instant::now();
            match self.connect(&*discovery, &peer).await {
                Ok(()) => self.down(&mut events, &peer).await,
                Err(failure) if self.once => return failure,
                Err(failure) => self.teller.failure(&failure),
            }
            self.wait(&peer, pauses.next(begun.elapsed())).await;
        }
    }

    /// Keeps connections with all nodes of a domain; what it returns says that it is given up.
    pub(super) async fn keep_all(self, records: Arc<SrvRecords>, domain: String) -> Failure {
        let mut pauses = Pauses::default();
        let mut kept: BTreeMap<String, AbortHandle> = BTreeMap::new();
        let mut diallers = JoinSet::new();
        loop {
            let pause = match records.nodes().await {
                Ok(mut nodes) => {
                    nodes.retain(|node| node != self.node.name().as_str());
                    kept.retain(|node, dialler| {
                        let listed = nodes.contains(node);
                        if !listed {
                            dialler.abort();
                        }
                        listed
                    });
                    for node in nodes {
                        let dialler = || diallers.spawn(self.clone().keep(Arc::clone(&records), node.clone()));
                        kept.entry(node.clone()).or_insert_with(dialler);
                    }
                    pauses = Pauses::default();
                    records.fresh_for().max(OFTEN)
                }
                Err(error) => {
                    let failure = not_found(&domain, error);
                    if self.once {
                        return failure;
                    }
                    self.teller.failure(&failure);
                    let pause = self.jittered(pauses.next(Duration::ZERO));
                    self.told(&domain, pause);
                    pause
                }
            };
            let again = sleep(pause);
            tokio::pin!(again);
            loop {
                tokio::select! {
                    () = &mut again => break,
                    Some(ended) = diallers.join_next(), if !diallers.is_empty() => if let Ok(failure) = ended {
                        return failure;
                    },
                }
            }
        }
    }

    async fn connect<D: Discovery>(&self, discovery: &D, peer: &str) -> Result<(), Failure> {
        let places = discovery.lookup(peer).await;
        let places = places.map_err(|error| not_found(peer, error))?;
        let mut last = None;
        for place in places {
            let begun = Instant::now();
            let connected = match self.carrier {
                CarrierArg::Quic => self.node.connect_quic(peer, place.address).await,
                CarrierArg::Tcp => self.node.connect(peer, place.address).await,
            };
            match connected {
                Ok(()) => return Ok(()),
                // Whoever answers, if only to refuse, is the one.
                Err(error) if answered(&error) => return Err(not_connected(peer, &place.address, &error)),
                // Of the two clocks that a dial over QUIC has, either may tell first.
                Err(error) if begun.elapsed() >= self.timeout => {
                    let failure = not_connected(peer, &place.address, &error);
                    last = Some(Failure::Timeout(failure.to_string()));
                }
                Err(error) => last = Some(not_connected(peer, &place.address, &error)),
            }
        }
        Err(last.unwrap_or_else(|| not_found(peer, DiscoveryError::NotFound(peer.to_owned()))))
    }

    /// Waits until there is no connection with a node any more. `events`: those from before there was one.
    async fn down(&self, events: &mut NodeEvents, peer: &str) {
        loop {
            match events.next().await {
                Some(NodeEvent::Up(_)) => {}
                Some(NodeEvent::Down(node, _)) if node.as_str() != peer => {}
                None => return,
                // Of a connection that was replaced, perhaps, or among those that were missed.
                Some(_) if self.node.nodes().iter().any(|node| node.as_str() == peer) => {}
                Some(_) => return,
            }
        }
    }

    async fn wait(&self, peer: &str, pause: Duration) {
        let pause = self.jittered(pause);
        self.told(peer, pause);
        sleep(pause).await;
    }

    /// So that the nodes of one that was started again do not come all at once.
    fn jittered(&self, pause: Duration) -> Duration {
        let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
        pause / 2 + rng.duration_below(pause)
    }

    fn told(&self, peer: &str, pause: Duration) {
        let event = DistEvent::Waiting {
            peer: peer.to_owned(),
            seconds: (pause.as_secs_f64() * 1000.0).round() / 1000.0,
        };
        self.teller.tell(&event);
    }
}

/// Pauses that grow, until something went well for long enough.
#[derive(Debug)]
struct Pauses(Duration);

impl Default for Pauses {
    fn default() -> Self {
        Self(PAUSES[0])
    }
}

impl Pauses {
    /// The next one. `lasted`: how long the last try and what came of it took.
    fn next(&mut self, lasted: Duration) -> Duration {
        if lasted >= PAUSES[1] {
            self.0 = PAUSES[0];
        }
        let pause = self.0;
        self.0 = (pause * 2).min(PAUSES[1]);
        pause
    }
}

fn not_found(what: &str, error: DiscoveryError) -> Failure {
    match &error {
        DiscoveryError::TimedOut(..) => Failure::Timeout(format!("{what}: {error}")),
        _ => Failure::failed("discovery", format_args!("{what}: {error}")),
    }
}

/// Whether there was somebody.
fn answered(error: &ConnectError) -> bool {
    match error {
        ConnectError::Io(_) => false,
        ConnectError::Handshake(failure) => !matches!(failure, handshake::Failure::TimedOut),
        _ => true,
    }
}

fn not_connected(peer: &str, at: &std::net::SocketAddr, error: &ConnectError) -> Failure {
    let message = format!("no connection with {peer} at {at}: {error}");
    match error {
        ConnectError::Io(error) if error.kind() == io::ErrorKind::TimedOut => Failure::Timeout(message),
        ConnectError::Handshake(handshake::Failure::TimedOut) => Failure::Timeout(message),
        ConnectError::Handshake(handshake::Failure::Cookie) => Failure::failed("cookie", message),
        ConnectError::Refused(code) if *code == Code::NOT_ALLOWED => Failure::failed("cookie", message),
        ConnectError::Handshake(handshake::Failure::NotAllowed) => Failure::failed("not_allowed", message),
        // Nodes that speak TCP say no more to a wrong cookie than that.
        ConnectError::Handshake(handshake::Failure::Lost) => Failure::failed(
            "cookie",
            format_args!("{message} during the handshake, as it is when the cookies differ"),
        ),
        ConnectError::Handshake(_) | ConnectError::Refused(_) => Failure::failed("handshake", message),
        _ => Failure::failed("connect", message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_bound_and_begin_anew() {
        let mut pauses = Pauses::default();
        let mut next = |lasted: u64| pauses.next(Duration::from_secs(lasted)).as_millis();
        let grown: Vec<_> = (0..8).map(|_| next(0)).collect();
        assert_eq!(grown, [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
        assert_eq!((next(29), next(30), next(1)), (30_000, 500, 1000));
    }

    #[test]
    fn failures_have_their_kinds() {
        let at = "127.0.0.1:1".parse().unwrap();
        let kind = |error: ConnectError| {
            let failure = not_connected("a@h", &at, &error);
            assert!(
                failure
                    .to_string()
                    .starts_with("no connection with a@h at 127.0.0.1:1: "),
                "{failure}"
            );
            failure.kind().to_owned()
        };
        let io = |kind: io::ErrorKind| ConnectError::Io(kind.into());
        assert_eq!(kind(io(io::ErrorKind::ConnectionRefused)), "connect");
        assert_eq!(kind(io(io::ErrorKind::TimedOut)), "timeout");
        assert_eq!(kind(ConnectError::Handshake(handshake::Failure::TimedOut)), "timeout");
        assert_eq!(kind(ConnectError::Handshake(handshake::Failure::Lost)), "cookie");
        assert_eq!(
            kind(ConnectError::Handshake(handshake::Failure::NotAllowed)),
            "not_allowed"
        );
        assert_eq!(kind(ConnectError::Refused(Code::NOT_ALLOWED)), "cookie");
        assert_eq!(kind(ConnectError::Refused(Code::LIMIT)), "handshake");
    }
}
