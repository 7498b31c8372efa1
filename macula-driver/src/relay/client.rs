//! A node: its way to its relays, and tunnels from and to it.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt, io,
    net::SocketAddr,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use macula_proto::{
    Code, Event,
    endpoint::{ClientConfigError, ClientEvent, ClientId, RelayAddress, RelayClientConfig},
    quic::{CloseReason, DialConfig, TransportConfig, tls::ClientTls},
    tunnel::{
        Name,
        client::{
            session::{RequestError, RequestId, SessionConfig, SessionStatus},
            supervisor::{Attempt, DownReason, RelayIndex, Report, SupervisorConfig, SupervisorStatus},
        },
    },
    wire::control::TunnelId,
};

use super::{
    Tunnel, invalid,
    key::{self, Node as Key},
};
use crate::{
    Context, Endpoint, Extension, Options, RawStream, Runtime,
    runtime::{First, first},
};

/// Incoming tunnels that wait to be taken, unless said otherwise.
const BACKLOG: usize = 256;

/// Events kept for a user that does not fetch them; then the oldest are dropped.
const MAX_EVENTS: usize = 1024;

/// A node that is reachable through relays under its name.
///
/// It stays connected by itself: when a relay goes it dials again, or the next one, with growing and jittered pauses.
/// Cloning is cheap; when the last clone is dropped the node disconnects.
#[derive(Debug, Clone)]
pub struct RelayClient {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    endpoint: Endpoint,
    client: ClientId,
    name: Name,
}

/// The task that looks up addresses of relays, on whatever runtime: ask for the [`next`](Self::next) one, answer.
#[derive(Debug)]
pub struct Resolve {
    endpoint: Endpoint,
    client: ClientId,
}

/// Something that happened on the way to the relays.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum NodeEvent {
    /// A relay is being dialled.
    Dialling {
        /// The relay.
        relay: RelayAddress,
    },
    /// The node is reachable under its name.
    Identified {
        /// The relay.
        relay: RelayAddress,
    },
    /// The connection to a relay, or the try to make one, is over.
    Down {
        /// The relay.
        relay: RelayAddress,
        /// At what stage.
        why: DownReason,
        /// How the connection ended, if there was one.
        reason: Option<CloseReason>,
        /// Failures of this relay in a row.
        failures: u32,
    },
    /// Nothing is dialled for a while.
    Waiting {
        /// The relay that is next, as things stand.
        relay: RelayAddress,
        /// For how long.
        duration: Duration,
        /// Whether it waits because this process got no time to run.
        starved: bool,
    },
}

impl fmt::Display for NodeEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dialling { relay } => write!(f, "dialling {relay}"),
            Self::Identified { relay } => write!(f, "identified at {relay}"),
            Self::Down { relay, why, reason, .. } => {
                write!(f, "{relay} {why}")?;
                match reason {
                    Some(reason) => write!(f, ": {reason}"),
                    None => Ok(()),
                }
            }
            Self::Waiting { relay, duration, .. } => write!(f, "next try, of {relay}, in {duration:.1?}"),
        }
    }
}

/// Why there is no tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenError {
    /// The relay, or the way to it, answered this.
    Request(RequestError),
    /// The node was stopped.
    Stopped,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request(error) => error.fmt(f),
            Self::Stopped => f.write_str("the node was stopped"),
        }
    }
}

impl std::error::Error for OpenError {}

impl RelayClient {
    /// Starts a node on a socket of its own, with the default settings. `tls` needs the ALPN `macula-dist`.
    ///
    /// It returns at once; [`identified`](Self::identified) waits for the relay.
    ///
    /// # Errors
    /// As [`Endpoint::bind_any`]; [`io::ErrorKind::InvalidInput`] for settings that cannot be used.
    pub fn connect<R: Runtime>(
        relays: impl IntoIterator<Item = RelayAddress>,
        name: impl Into<Name>,
        tls: &ClientTls,
    ) -> io::Result<Self> {
        let endpoint = Endpoint::bind_any::<R>(Options::default())?;
        let mut dial = DialConfig::new(tls.build(endpoint.clock()).map_err(invalid)?);
        dial.transport = TransportConfig::relay();
        let config = RelayClientConfig {
            relays: relays.into_iter().collect(),
            dial,
            session: SessionConfig::new(name.into()),
            supervisor: SupervisorConfig::default(),
        };
        let (client, resolve) = Self::start(endpoint, config, BACKLOG).map_err(invalid)?;
        resolve.spawn::<R>()?;
        Ok(client)
    }

    /// Starts a node. At most `backlog` incoming tunnels wait for [`incoming`](Self::incoming); more are refused, and with 0
    /// all are.
    ///
    /// Whoever starts it [spawns](Resolve::spawn) a task for [`Resolve`], or no relay is ever found.
    ///
    /// # Errors
    /// [`ClientConfigError`] when there is no relay or the name cannot be used.
    pub fn start(
        endpoint: Endpoint,
        config: RelayClientConfig,
        backlog: usize,
    ) -> Result<(Self, Resolve), ClientConfigError> {
        let name = config.session.name.clone();
        if endpoint.with_extension(|_: &mut Nodes, _| ()).is_none() {
            endpoint.add_extension(Nodes::default());
        }
        let start = |nodes: &mut Nodes, cx: &mut Context<'_>| {
            let now = cx.now();
            let client = cx.endpoint().relay_client(now, config)?;
            nodes.0.insert(client, Node::new(backlog));
            Ok::<_, ClientConfigError>(client)
        };
        let client = endpoint
            .with_extension(start)
            .unwrap_or(Err(ClientConfigError::NoRelay))?;
        let resolve = Resolve {
            endpoint: endpoint.clone(),
            client,
        };
        let inner = Inner { endpoint, client, name };
        let inner = Arc::new(inner);
        Ok((Self { inner }, resolve))
    }

    /// The name of the node.
    pub fn name(&self) -> &Name {
        &self.inner.name
    }

    /// The endpoint of the node.
    pub fn endpoint(&self) -> &Endpoint {
        &self.inner.endpoint
    }

    /// The next thing that happened on the way to the relays. `None` once the node is stopped. Cancellation-safe.
    ///
    /// For a user that is slow the last 1,024 are kept.
    pub async fn next_event(&self) -> Option<NodeEvent> {
        self.next(Key::Events, |node| node.events.pop_front()).await
    }

    /// Waits until the node is identified at a relay. False once the node is stopped. Cancellation-safe.
    pub async fn identified(&self) -> bool {
        let client = self.inner.client;
        let look = |nodes: &mut Nodes, cx: &mut Context<'_>| {
            if !nodes.0.contains_key(&client) {
                return Poll::Ready(false);
            }
            match cx.endpoint().client_status(client) {
                Ok((SupervisorStatus::Up(_), _)) => Poll::Ready(true),
                Ok(_) => Poll::Pending,
                Err(_) => Poll::Ready(false),
            }
        };
        let key = key::node(client, Key::Events);
        self.inner.endpoint.wait(key, look).await.unwrap_or(false)
    }

    /// Opens a tunnel to the node named `target`. Dropping the future gives the request up.
    ///
    /// # Errors
    /// [`OpenError`], within 15 s by default. Not being connected at the moment is one at once.
    pub async fn open(&self, target: impl Into<Name>) -> Result<Tunnel, OpenError> {
        let target = target.into();
        let (client, endpoint) = (self.inner.client, &self.inner.endpoint);
        let ask = |nodes: &mut Nodes, cx: &mut Context<'_>| {
            let now = cx.now();
            let request = cx.endpoint().open_tunnel(now, client, target.clone()).ok()?;
            nodes.0.get_mut(&client)?.requests.insert(request, None);
            Some(request)
        };
        let request = endpoint.with_extension(ask).flatten().ok_or(OpenError::Stopped)?;
        let mut pending = Pending {
            inner: &self.inner,
            request: Some(request),
        };
        let look = |nodes: &mut Nodes, _: &mut Context<'_>| match nodes.0.get_mut(&client) {
            None => Poll::Ready(Err(OpenError::Stopped)),
            Some(node) => match node.requests.get_mut(&request).and_then(Option::take) {
                None => Poll::Pending,
                Some(outcome) => {
                    node.requests.remove(&request);
                    Poll::Ready(outcome.map_err(OpenError::Request))
                }
            },
        };
        let outcome = endpoint.wait(key::node(client, Key::Opened), look).await;
        pending.request = None;
        let found = outcome.unwrap_or(Err(OpenError::Stopped))?;
        Ok(self.tunnel(found, target))
    }

    /// The next tunnel that another node opened to this one. `None` once the node is stopped. Cancellation-safe.
    pub async fn incoming(&self) -> Option<Tunnel> {
        let (source, found) = self.next(Key::Incoming, |node| node.incoming.pop_front()).await?;
        Some(self.tunnel(found, source))
    }

    /// Accepts tunnels only from these names from now on; `None`: from everybody. The names are what the relay says.
    pub fn allow_from(&self, names: Option<BTreeSet<Name>>) {
        let client = self.inner.client;
        self.inner.endpoint.with(|cx| {
            let now = cx.now();
            let _ = cx.endpoint().allow_tunnels_from(now, client, names);
        });
    }

    /// State of the node: of its way to the relays, and of its session while there is one. `None` once it is stopped.
    pub fn status(&self) -> Option<(SupervisorStatus, Option<SessionStatus>)> {
        let client = self.inner.client;
        self.inner.endpoint.with(|cx| cx.endpoint().client_status(client).ok())
    }

    /// Disconnects the node for good; its tunnels end. Other nodes of the endpoint go on.
    pub fn stop(&self) {
        self.inner.stop();
    }

    async fn next<T>(&self, what: Key, mut take: impl FnMut(&mut Node) -> Option<T>) -> Option<T> {
        let client = self.inner.client;
        let look = |nodes: &mut Nodes, _: &mut Context<'_>| match nodes.0.get_mut(&client) {
            None => Poll::Ready(None),
            Some(node) => match take(node) {
                Some(found) => Poll::Ready(Some(found)),
                None => Poll::Pending,
            },
        };
        self.inner.endpoint.wait(key::node(client, what), look).await.flatten()
    }

    fn tunnel(&self, found: Found, peer: Name) -> Tunnel {
        Tunnel {
            stream: self.inner.endpoint.stream(found.raw),
            id: found.id,
            peer,
            relay: found.relay,
            endpoint: self.inner.endpoint.clone(),
            client: self.inner.client,
        }
    }
}

impl Inner {
    fn stop(&self) {
        let client = self.client;
        self.endpoint.with_extension(|nodes: &mut Nodes, cx| {
            let now = cx.now();
            let _ = cx.endpoint().stop_client(now, client);
            if let Some(node) = nodes.0.remove(&client) {
                node.discard(cx);
            }
            for what in [Key::Events, Key::Incoming, Key::Opened, Key::Resolve] {
                cx.wake(key::node(client, what));
            }
        });
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Resolve {
    /// Spawns a task that looks up names as the runtime does, as long as the node lives.
    ///
    /// # Errors
    /// Those of [`Runtime::current`].
    pub fn spawn<R: Runtime>(self) -> io::Result<()> {
        let runtime = R::current()?;
        R::detach(runtime.spawn(self.run(runtime.clone())));
        Ok(())
    }

    /// A look-up that hangs is overtaken by the next one.
    async fn run<R: Runtime>(self, runtime: R) {
        let mut next = self.next().await;
        while let Some((attempt, address)) = next {
            let looking = runtime.look_up(&address.host, address.port);
            next = match first(looking, self.next()).await {
                First::One(Ok(found)) => {
                    self.answer(attempt, &found);
                    self.next().await
                }
                First::One(Err(error)) => {
                    tracing::debug!(%address, %error, "cannot be looked up");
                    self.answer(attempt, &[]);
                    self.next().await
                }
                First::Other(newer) => newer,
            };
        }
    }

    /// The next address to look up; [`answer`](Self::answer) it. `None` once the node is stopped.
    pub async fn next(&self) -> Option<(Attempt, RelayAddress)> {
        let client = self.client;
        let look = |nodes: &mut Nodes, _: &mut Context<'_>| match nodes.0.get_mut(&client) {
            None => Poll::Ready(None),
            Some(node) => match node.resolve.take() {
                Some(found) => Poll::Ready(Some(found)),
                None => Poll::Pending,
            },
        };
        self.endpoint
            .wait(key::node(client, Key::Resolve), look)
            .await
            .flatten()
    }

    /// The addresses found, best first; none when the name has none.
    pub fn answer(&self, attempt: Attempt, addresses: &[SocketAddr]) {
        let client = self.client;
        self.endpoint.with(|cx| {
            let now = cx.now();
            let _ = cx.endpoint().resolved(now, client, attempt, addresses);
        });
    }
}

/// A request whose future may be dropped.
struct Pending<'a> {
    inner: &'a Inner,
    request: Option<RequestId>,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        let Some(request) = self.request else { return };
        let client = self.inner.client;
        self.inner.endpoint.with_extension(|nodes: &mut Nodes, cx| {
            let now = cx.now();
            let outcome = nodes.0.get_mut(&client).and_then(|node| node.requests.remove(&request));
            match outcome.flatten() {
                Some(Ok(found)) => cx.discard(found.raw, Code::CANCELLED),
                Some(Err(_)) => {}
                None => {
                    let _ = cx.endpoint().cancel_request(now, client, request);
                }
            }
        });
    }
}

// ----- under the lock ----------------------------------------------------------------------------------------------

/// All nodes of an endpoint.
#[derive(Debug, Default)]
struct Nodes(BTreeMap<ClientId, Node>);

/// What a node has for its user.
#[derive(Debug)]
struct Node {
    events: VecDeque<NodeEvent>,
    incoming: VecDeque<(Name, Found)>,
    backlog: usize,
    /// Requests that somebody waits for, and their outcomes.
    requests: BTreeMap<RequestId, Option<Result<Found, RequestError>>>,
    /// Only the latest attempt matters.
    resolve: Option<(Attempt, RelayAddress)>,
    /// How the last connection ended, until its consequences are told.
    ended: Option<CloseReason>,
}

/// A tunnel's stream before it has a handle.
#[derive(Debug)]
struct Found {
    raw: RawStream,
    id: TunnelId,
    relay: RelayAddress,
}

impl Extension for Nodes {
    fn on_event(&mut self, cx: &mut Context<'_>, event: Event) -> Option<Event> {
        let Event::Client { client, event } = event else {
            return Some(event);
        };
        match self.0.get_mut(&client) {
            Some(node) => node.on_event(cx, client, event),
            None => refuse(cx, event),
        }
        None
    }

    fn on_stopped(&mut self, cx: &mut Context<'_>) {
        for node in std::mem::take(&mut self.0).into_values() {
            node.discard(cx);
        }
    }
}

impl Node {
    fn new(backlog: usize) -> Self {
        Self {
            events: VecDeque::new(),
            incoming: VecDeque::new(),
            backlog,
            requests: BTreeMap::new(),
            resolve: None,
            ended: None,
        }
    }

    fn on_event(&mut self, cx: &mut Context<'_>, client: ClientId, event: ClientEvent) {
        match event {
            ClientEvent::Resolve { attempt, address } => {
                self.resolve = Some((attempt, address));
                cx.wake(key::node(client, Key::Resolve));
            }
            ClientEvent::Disconnected { reason, .. } => self.ended = Some(reason),
            ClientEvent::Relay(report) => self.report(cx, client, report),
            ClientEvent::Opened {
                request,
                tunnel,
                conn,
                stream,
            } => {
                let raw = cx.adopt(conn, stream);
                let found = found(cx, client, raw, tunnel);
                match self.requests.get_mut(&request) {
                    Some(outcome) => *outcome = Some(Ok(found)),
                    None => cx.discard(found.raw, Code::CANCELLED),
                }
                cx.wake(key::node(client, Key::Opened));
            }
            ClientEvent::Failed { request, error } => {
                if let Some(outcome) = self.requests.get_mut(&request) {
                    *outcome = Some(Err(error));
                }
                cx.wake(key::node(client, Key::Opened));
            }
            ClientEvent::Incoming {
                tunnel,
                source,
                conn,
                stream,
            } => {
                let raw = cx.adopt(conn, stream);
                if self.incoming.len() >= self.backlog {
                    return cx.discard(raw, Code::REFUSED);
                }
                let found = found(cx, client, raw, tunnel);
                self.incoming.push_back((source, found));
                cx.wake(key::node(client, Key::Incoming));
            }
            _ => {}
        }
    }

    fn report(&mut self, cx: &mut Context<'_>, client: ClientId, report: Report) {
        let event = match report {
            Report::Dialling { relay } => NodeEvent::Dialling {
                relay: address(cx, client, relay),
            },
            Report::Up { relay } => NodeEvent::Identified {
                relay: address(cx, client, relay),
            },
            Report::Down { relay, why, failures } => NodeEvent::Down {
                relay: address(cx, client, relay),
                why,
                reason: self.ended.take(),
                failures,
            },
            Report::Waiting {
                relay,
                duration,
                starved,
            } => NodeEvent::Waiting {
                relay: address(cx, client, relay),
                duration,
                starved,
            },
            _ => return,
        };
        if self.events.len() >= MAX_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
        cx.wake(key::node(client, Key::Events));
    }

    /// Gives up what nobody will fetch.
    fn discard(self, cx: &mut Context<'_>) {
        let incoming = self.incoming.into_iter().map(|(_, found)| found);
        let opened = self.requests.into_values().flatten().filter_map(Result::ok);
        for found in incoming.chain(opened) {
            cx.discard(found.raw, Code::CANCELLED);
        }
    }
}

/// An event of a node that was stopped meanwhile.
fn refuse(cx: &mut Context<'_>, event: ClientEvent) {
    if let ClientEvent::Opened { conn, stream, .. } | ClientEvent::Incoming { conn, stream, .. } = event {
        let raw = cx.adopt(conn, stream);
        cx.discard(raw, Code::REFUSED);
    }
}

fn found(cx: &mut Context<'_>, client: ClientId, raw: RawStream, id: TunnelId) -> Found {
    let endpoint = cx.endpoint();
    let relay = match endpoint.client_status(client) {
        Ok((SupervisorStatus::Up(relay) | SupervisorStatus::Identifying(relay), _)) => relay,
        _ => RelayIndex(0),
    };
    Found {
        raw,
        id,
        relay: address(cx, client, relay),
    }
}

fn address(cx: &mut Context<'_>, client: ClientId, relay: RelayIndex) -> RelayAddress {
    let known = cx.endpoint().relay_address(client, relay).cloned();
    known.unwrap_or_else(|| RelayAddress {
        host: String::new(),
        port: 0,
    })
}
