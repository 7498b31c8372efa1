//! `macula rpc serve`.

use std::{
    future::{Future, pending},
    io,
    time::Duration,
};

use bytes::Bytes;
use macula_proto::{
    Code, Rng,
    endpoint::PeerListenConfig,
    identity::Identity,
    peering::{Duplicates, PeeringConfig},
    quic::{TransportConfig, alpn},
    rpc::RpcConfig,
    tunnel::{Name, client::session::SessionConfig},
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::{
    FAREWELL, MAX_CALLS,
    args::{ServeArgs, rpc_encoding},
    connect,
    events::RpcEvent,
    services::Services,
};
use crate::{
    Endpoint, Options, Peer, RelayClient,
    cli::{
        events::{Event, Events},
        network,
        outcome::{Failure, Outcome},
        peer, settings,
        settings::Identity as Certificate,
        signals::Signals,
        tls,
        values::{HostPort, PEER_PORT},
    },
    relay::invalid,
    rpc::{RpcClient, RpcServer},
};

/// Peers that wait to be taken; they are taken at once.
const BACKLOG: usize = 1024;
/// Shortest and longest pause before a router is dialled again.
const PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(30)];
/// How often a router is asked whether it is still there when nothing comes from it.
const PING: Duration = Duration::from_secs(30);
/// How often something is sent to it in any case.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

pub(super) async fn run(args: ServeArgs, events: &Events, signals: &mut Signals) -> Outcome {
    let place = Place::of(&args)?;
    let services = Services::new(&args)?;
    match place {
        Place::Listen(certificate) => listen(&args, &certificate, &services, events, signals).await,
        Place::Relay(name) => in_tunnels(&args, name, &services, events, signals).await,
        Place::Router(router) => at_router(&args, router, &services, events, signals).await,
    }
}

/// Where calls come from.
enum Place {
    Listen(Certificate),
    Relay(Name),
    Router(HostPort),
}

impl Place {
    fn of(args: &ServeArgs) -> Result<Self, Failure> {
        let usage = |message: &str| Err(Failure::Usage(message.to_owned()));
        let certificate = settings::identity_of(&args.certificate);
        let trust = &args.trust;
        let trusts = trust.ca.is_some() || !trust.pin.is_empty() || trust.insecure || trust.client_cert.is_some();
        let place = match (&args.router, &args.name) {
            (Some(router), _) => Self::Router(router.clone()),
            (None, Some(name)) => Self::Relay(name.clone()),
            (None, None) => match certificate {
                Some(_) if trusts => {
                    return usage("--ca, --pin, --insecure and --client-cert are for --relay and --router");
                }
                Some(certificate) => return Ok(Self::Listen(certificate)),
                None => return usage("a listener needs a certificate: --cert and --key, or --self-signed"),
            },
        };
        match certificate {
            Some(_) => usage("--cert and --self-signed are for listeners: what is shown to a relay is --client-cert"),
            None => Ok(place),
        }
    }
}

fn link_config(args: &ServeArgs, identity: &Identity) -> RpcConfig {
    let mut config = RpcConfig::new(*identity.node_id().as_bytes());
    config.encoding = rpc_encoding(args.encoding);
    config.limits.calls = MAX_CALLS;
    config
}

/// What is served, and to whom it is told.
struct Server<'a> {
    rpc: RpcServer,
    events: &'a Events,
    /// Whether links are to end.
    stop: watch::Sender<bool>,
}

impl<'a> Server<'a> {
    fn new(services: &Services, endpoint: &Endpoint, events: &'a Events) -> Self {
        Self {
            rpc: services.offer(endpoint, events),
            events,
            stop: watch::channel(false).0,
        }
    }

    fn teller(&self) -> Teller {
        Teller {
            events: self.events.clone(),
            stopping: self.stop.subscribe(),
        }
    }

    /// Waits for the end, and ends in good order. `work` is done when it was told to stop and its links are over.
    async fn until_told(&self, work: impl Future<Output = ()>, drain: Duration, signals: &mut Signals) -> Outcome {
        tokio::pin!(work);
        let outcome = tokio::select! {
            () = &mut work => Err(Failure::failed("endpoint", "the endpoint has stopped")),
            () = signals.stop() => Ok(()),
            () = self.events.closed() => Ok(()),
        };
        if outcome.is_ok() {
            let goodbye = async {
                let _ = timeout(drain, self.rpc.shutdown()).await;
                self.stop.send_replace(true);
                sleep(FAREWELL).await;
            };
            tokio::select! {
                () = &mut work => {}
                () = goodbye => {}
                () = signals.stop() => {}
            }
        }
        let endpoint = self.rpc.endpoint();
        endpoint.close(Code::SHUTDOWN, "shutdown");
        // Calls that are left end with their links, and commands with their calls.
        let over = async { tokio::join!(endpoint.wait_idle(), self.rpc.shutdown()) };
        let _ = timeout(FAREWELL, over).await;
        outcome
    }
}

/// Tells of a link.
#[derive(Clone)]
struct Teller {
    events: Events,
    stopping: watch::Receiver<bool>,
}

impl Teller {
    /// Ready when links are to end.
    async fn stopping(&mut self) {
        // An error means that this command is over.
        let _ = self.stopping.wait_for(|stopping| *stopping).await;
    }

    /// Tells of a link, and of its end, which comes in good order when this command stops.
    async fn link(mut self, link: &RpcClient, peer: String, carrier: &'static str) {
        let number = RpcEvent::number(link.id());
        let connected = RpcEvent::Connected {
            peer: peer.clone(),
            carrier,
            link: number,
        };
        connected.tell(&self.events);
        let end = tokio::select! {
            end = link.closed() => end,
            () = self.stopping() => {
                link.close_with(Code::SHUTDOWN);
                link.closed().await
            }
        };
        let disconnected = RpcEvent::Disconnected {
            reason: end.to_string(),
            peer: Some(peer),
            link: number,
        };
        disconnected.tell(&self.events);
    }
}

// ----- on a port ---------------------------------------------------------------------------------------------------

async fn listen(
    args: &ServeArgs,
    certificate: &Certificate,
    services: &Services,
    events: &Events,
    signals: &mut Signals,
) -> Outcome {
    let credentials = tls::identity(certificate)?;
    let pin = credentials.pin().to_string();
    let identity = peer::identity(args.identity.as_deref())?;
    let config = link_config(args, &identity);
    let node_id = identity.node_id().to_string();
    let mut door = PeerListenConfig::new(PeeringConfig::new(identity.into()));
    // Each call from a shell is a connection, and one need not wait for the other.
    door.gate.duplicates = Duplicates::KeepBoth;

    let everywhere = HostPort::new("::", PEER_PORT);
    let at = args.listen.as_ref().unwrap_or(&everywhere);
    let (endpoint, mut listen) = network::listener(at, Options::default(), credentials).await?;
    listen.transport = TransportConfig::rpc_listener();
    listen.transport.max_bidi_streams = MAX_CALLS as u64;

    let fresh = args.identity.is_none();
    RpcEvent::Identity { node_id, fresh }.tell(events);
    events.tell(&Event::Certificate { pin });
    let server = Server::new(services, &endpoint, events);
    endpoint.serve_rpc(config.clone());
    endpoint.serve_peers(door, BACKLOG);
    let listening = endpoint.listen(listen);
    listening.map_err(|error| network::cannot_listen(at, invalid(error)))?;
    let addr = endpoint.local_addr().to_string();
    events.tell(&Event::Listening { addr });
    let work = async {
        let served = async {
            tokio::join!(
                links(&endpoint, None, server.teller()),
                peers(&endpoint, &config, server.teller())
            )
        };
        tokio::select! {
            _ = served => {}
            () = strangers(&endpoint) => {}
        }
    };
    server.until_told(work, args.drain_timeout, signals).await
}

/// Links that peers make, until they are to end.
async fn links(endpoint: &Endpoint, carrier: Option<&'static str>, teller: Teller) {
    let mut links = JoinSet::new();
    let mut stopping = teller.clone();
    loop {
        tokio::select! {
            link = endpoint.accept_rpc() => {
                let Some(link) = link else { break };
                let carrier = carrier.unwrap_or_else(|| connect::carrier(&link));
                let teller = teller.clone();
                links.spawn(async move { teller.link(&link, peer_of(&link), carrier).await });
            }
            Some(_) = links.join_next(), if !links.is_empty() => {}
            () = stopping.stopping() => break,
        }
    }
    links.join_all().await;
}

/// Where the peer of a link is.
fn peer_of(link: &RpcClient) -> String {
    let remote = link.info().and_then(|info| info.remote);
    remote.map_or_else(|| "a peer".to_owned(), |remote| remote.to_string())
}

/// Those who come with signed frames, until they are to end.
async fn peers(endpoint: &Endpoint, config: &RpcConfig, teller: Teller) {
    let mut peers = JoinSet::new();
    let mut stopping = teller.clone();
    loop {
        tokio::select! {
            peer = endpoint.accept_peer() => {
                let Some(peer) = peer else { break };
                peers.spawn(serve_peer(peer, config.clone(), teller.clone()));
            }
            Some(_) = peers.join_next(), if !peers.is_empty() => {}
            () = stopping.stopping() => break,
        }
    }
    peers.join_all().await;
}

async fn serve_peer(peer: Peer, config: RpcConfig, teller: Teller) {
    let Ok(link) = peer.rpc(config).await else { return };
    let told = teller.link(&link, peer.peer_id().to_string(), "signed");
    // What is of no call is passed over, so that it holds nothing up.
    let others = async {
        while peer.recv().await.is_ok() {}
        pending().await
    };
    tokio::select! {
        () = told => {}
        () = others => {}
    }
    peer.close(peer::LEAVING).await;
}

/// Connections that speak neither.
async fn strangers(endpoint: &Endpoint) {
    while let Some(connection) = endpoint.accept().await {
        tracing::debug!(remote = ?connection.remote_address(), "refused: it speaks nothing known");
        connection.close(Code::REFUSED, "rpc only");
    }
}

// ----- in tunnels --------------------------------------------------------------------------------------------------

async fn in_tunnels(
    args: &ServeArgs,
    name: Name,
    services: &Services,
    events: &Events,
    signals: &mut Signals,
) -> Outcome {
    let identity = peer::identity(args.identity.as_deref())?;
    let failed = |error: io::Error| Failure::failed("node", error);
    let endpoint = Endpoint::bind_any(Options::default()).map_err(failed)?;
    let mut dial = connect::dial(&endpoint, &args.trust, alpn::MACULA_DIST)?;
    dial.transport = TransportConfig::relay();
    let mut session = SessionConfig::new(name.clone());
    session.encoding = args.encoding.into();
    let node = network::node_config(&args.relay, dial, session);
    let mut config = link_config(args, &identity);
    config.node_name = Bytes::copy_from_slice(name.to_string().as_bytes());
    let server = Server::new(services, &endpoint, events);
    let node = RelayClient::start(&endpoint, node, BACKLOG).map_err(|error| failed(invalid(error)))?;
    let tell = async {
        while let Some(event) = node.next_event().await {
            if let Some(event) = network::node_event(event, &name) {
                events.tell(&event.into());
            }
        }
    };
    let work = async {
        tokio::select! {
            () = tell => {}
            () = node.serve_rpc(config) => {}
            () = links(&endpoint, Some("tunnel"), server.teller()) => {}
        }
    };
    let outcome = server.until_told(work, args.drain_timeout, signals).await;
    node.stop();
    outcome
}

// ----- at a router -------------------------------------------------------------------------------------------------

async fn at_router(
    args: &ServeArgs,
    router: HostPort,
    services: &Services,
    events: &Events,
    signals: &mut Signals,
) -> Outcome {
    let identity = peer::identity(args.identity.as_deref())?;
    let endpoint = Endpoint::bind_any(Options::default()).map_err(|error| Failure::failed("node", error))?;
    let mut dial = connect::dial(&endpoint, &args.trust, alpn::MACULA)?;
    dial.transport.max_bidi_streams = MAX_CALLS as u64;
    // Callers miss a provider whose router was started again until it has noticed.
    dial.transport.keep_alive = Some(KEEP_ALIVE);
    dial.transport.idle_timeout = Some(PING);
    let mut config = link_config(args, &identity);
    config.ping_interval = Some(PING);
    config.target_relay = Bytes::copy_from_slice(router.to_string().as_bytes());
    let entropy = crate::entropy().map_err(|error| Failure::failed("entropy", error))?;
    let mut rng = Rng::from_entropy(entropy);
    let server = Server::new(services, &endpoint, events);
    let work = async {
        let mut pause = PAUSES[0];
        loop {
            let relay = router.to_string();
            events.tell(&Event::Dialling { relay: relay.clone() });
            let begun = Instant::now();
            match connect::dial_rpc(&endpoint, &router, &dial, &config).await {
                Ok(link) => registered(&server, &link, &relay).await,
                Err(failure) => events.tell(&Event::Disconnected {
                    reason: failure.to_string(),
                    relay: Some(relay.clone()),
                    names: Vec::new(),
                }),
            }
            if *server.stop.borrow() {
                return;
            }
            if begun.elapsed() >= PAUSES[1] {
                pause = PAUSES[0];
            }
            // So that the nodes of a router that was started again do not come all at once.
            let jittered = pause / 2 + rng.duration_below(pause);
            events.tell(&Event::Waiting {
                relay,
                seconds: (jittered.as_secs_f64() * 1000.0).round() / 1000.0,
                starved: false,
            });
            sleep(jittered).await;
            pause = (pause * 2).min(PAUSES[1]);
        }
    };
    server.until_told(work, args.drain_timeout, signals).await
}

/// Offers everything at a router until the link is over.
async fn registered(server: &Server<'_>, link: &RpcClient, router: &str) {
    if server.rpc.register_at(link).is_ok() {
        let event = RpcEvent::Registered {
            router: router.to_owned(),
            procedures: server.rpc.procedures().len(),
        };
        event.tell(server.events);
    }
    let teller = server.teller();
    teller.link(link, router.to_owned(), connect::carrier(link)).await;
}
