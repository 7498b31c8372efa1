//! Who takes part in a row: both ends, and a relay where there is one.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use macula_proto::{
    Code,
    identity::Identity,
    peering::{Duplicates, PeeringConfig},
    quic::{
        DatagramSize, DialConfig, ListenConfig, TransportConfig, alpn,
        tls::{ClientTls, Credentials, ServerTls, Trust},
    },
    rpc::{Chunk, Kind, Mode, RpcConfig},
    tunnel::{Name, client::session::SessionConfig, relay::RelayConfig},
    wire::Value,
};
use tokio::{
    task::{JoinHandle, JoinSet},
    time::timeout,
};

use super::{
    args::BenchArgs,
    report::Measured,
    work::{self, Clock, Duplex, MESSAGE, failed},
};
use crate::{
    Connection, Endpoint, NodeEvent, Options, PeerListenConfig, RelayClient, RelayServer,
    cli::{inspect::hex, network, outcome::Failure, tls, values::HostPort},
    relay::invalid,
    rpc::{RpcClient, RpcServer, ServerCall},
};

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const SERVER_NAME: &str = "localhost";
/// The protocol of direct connections.
const DIRECT: &[u8] = b"macula-bench";
/// How long the relay may take to know a node.
const IDENTIFIED: Duration = Duration::from_secs(20);
/// How long the end of a connection is announced to peers that do not answer.
const FAREWELL: Duration = Duration::from_secs(1);
/// Calls under way at a time.
const CALLS: u8 = 64;
/// Dials under way at a time.
const DIALS: u8 = 8;
/// Chunks between two looks at the clock.
const BETWEEN_LOOKS: u64 = 64;

/// Ends when it is dropped.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn transport(args: &BenchArgs, mut transport: TransportConfig) -> TransportConfig {
    transport.datagram_size = DatagramSize::UpTo(args.datagrams);
    transport
}

fn socket(options: Options) -> Result<Endpoint, Failure> {
    Endpoint::bind(LOOPBACK, options).map_err(failed)
}

/// What a listener on loopback needs, and how to dial it.
fn pair(
    args: &BenchArgs,
    ends: [&Endpoint; 2],
    protocol: &[u8],
    kind: TransportConfig,
) -> Result<(ListenConfig, DialConfig), Failure> {
    let [server, client] = ends;
    let credentials = tls::self_signed()?;
    let trust = Trust::Pins(vec![credentials.pin()]);
    let tls = ServerTls::new(credentials).alpn([protocol]).resumable_sessions(0);
    let mut listen = ListenConfig::new(tls.build(server.clock()).map_err(failed)?);
    listen.transport = transport(args, kind);
    let tls = ClientTls::new(trust).alpn([protocol]).resumable_servers(0);
    let mut dial = DialConfig::new(tls.build(client.clock()).map_err(failed)?);
    dial.transport = listen.transport.clone();
    Ok((listen, dial))
}

/// Two ends, one of which opens streams that the other serves.
pub(super) struct Streams {
    opener: Opener,
    endpoints: Vec<Endpoint>,
    _relay: Option<RelayServer>,
    _serving: Task,
}

enum Opener {
    Direct(Connection),
    Tunnel(RelayClient, Name),
}

impl Streams {
    /// On a connection between the two.
    pub(super) async fn direct(args: &BenchArgs) -> Result<Self, Failure> {
        let (server, client) = (socket(Options::default())?, socket(Options::default())?);
        let (listen, dial) = pair(args, [&server, &client], DIRECT, TransportConfig::relay())?;
        server.listen(listen).map_err(failed)?;
        let address = server.local_addr();
        let endpoints = vec![server.clone(), client.clone()];
        let serving = tokio::spawn(async move {
            let mut streams = JoinSet::new();
            if let Some(connection) = server.accept().await {
                while let Ok(stream) = connection.accept_bi().await {
                    streams.spawn(work::answer(stream));
                }
            }
        });
        let connection = client.connect(&dial, address, SERVER_NAME).await.map_err(failed)?;
        Ok(Self {
            opener: Opener::Direct(connection),
            endpoints,
            _relay: None,
            _serving: Task(serving),
        })
    }

    /// In tunnels of a relay, in this process or elsewhere.
    pub(super) async fn relayed(args: &BenchArgs) -> Result<Self, Failure> {
        let mut endpoints = Vec::new();
        let (relay, at, trust, own) = match &args.relay {
            Some(at) => {
                let (trust, own) = tls::trust(&args.trust)?;
                (None, at.clone(), trust, own)
            }
            None => {
                let credentials = tls::self_signed()?;
                let trust = Trust::Pins(vec![credentials.pin()]);
                let (endpoint, relay) = relay(args, credentials)?;
                endpoints.push(endpoint);
                let at = HostPort::new(Ipv4Addr::LOCALHOST.to_string(), relay.endpoint().local_addr().port());
                (Some(relay), at, trust, None)
            }
        };
        let base = match &args.name {
            Some(name) => name.to_string(),
            None => {
                let random = hex(&crate::entropy().map_err(failed)?);
                format!("bench-{}", random.get(..12).unwrap_or_default())
            }
        };
        let [near, far] = ["1", "2"].map(|number| Name::from(format!("{base}-{number}").as_str()));
        let ((near_end, opener), (far_end, taker)) = tokio::try_join!(
            node(args, &at, &near, &trust, own.as_ref()),
            node(args, &at, &far, &trust, own.as_ref())
        )?;
        endpoints.extend([near_end, far_end]);
        let serving = tokio::spawn(async move {
            let mut streams = JoinSet::new();
            while let Some(tunnel) = taker.incoming().await {
                match *tunnel.peer() == near {
                    true => drop(streams.spawn(work::answer(tunnel))),
                    false => tunnel.abort(Code::REFUSED),
                }
            }
        });
        Ok(Self {
            opener: Opener::Tunnel(opener, far),
            endpoints,
            _relay: relay,
            _serving: Task(serving),
        })
    }

    async fn open(&self) -> Result<Box<dyn Duplex>, Failure> {
        Ok(match &self.opener {
            Opener::Direct(connection) => Box::new(connection.open_bi().await.map_err(failed)?),
            Opener::Tunnel(node, target) => Box::new(node.open(target.clone()).await.map_err(failed)?),
        })
    }

    pub(super) async fn bulk(&self, time: Duration) -> Result<Measured, Failure> {
        work::bulk(self.open().await?, time).await
    }

    pub(super) async fn trips(&self, time: Duration) -> Result<Measured, Failure> {
        work::trips(self.open().await?, time).await
    }

    pub(super) async fn end(self) {
        if let Opener::Tunnel(node, _) = &self.opener {
            node.stop();
        }
        end(&self.endpoints).await;
    }
}

/// Closes what is open, and waits a little for the other ends to hear of it.
async fn end(endpoints: &[Endpoint]) {
    for endpoint in endpoints {
        endpoint.close(Code::CLOSED, "");
    }
    for endpoint in endpoints {
        let _ = timeout(FAREWELL, endpoint.wait_idle()).await;
    }
}

/// A relay as `macula relay` runs it, but for the router.
fn relay(args: &BenchArgs, credentials: Credentials) -> Result<(Endpoint, RelayServer), Failure> {
    let endpoint = socket(Options::relay())?;
    let tls = ServerTls::new(credentials).alpn([alpn::MACULA_DIST]);
    let mut listen = ListenConfig::new(tls.build(endpoint.clock()).map_err(failed)?);
    listen.transport = transport(args, TransportConfig::relay());
    let relay = RelayServer::serve(&endpoint, RelayConfig::default(), listen).map_err(failed)?;
    Ok((endpoint, relay))
}

/// A node that the relay knows.
async fn node(
    args: &BenchArgs,
    at: &HostPort,
    name: &Name,
    trust: &Trust,
    own: Option<&Credentials>,
) -> Result<(Endpoint, RelayClient), Failure> {
    let endpoint = Endpoint::bind_any(Options::default()).map_err(failed)?;
    let mut tls = ClientTls::new(trust.clone()).alpn([alpn::MACULA_DIST]);
    if let Some(own) = own {
        tls = tls.credentials(own.clone());
    }
    let mut dial = DialConfig::new(tls.build(endpoint.clock()).map_err(failed)?);
    dial.transport = transport(args, TransportConfig::relay());
    let mut session = SessionConfig::new(name.clone());
    session.encoding = args.encoding.into();
    let config = network::node_config(std::slice::from_ref(at), dial, session);
    let node = RelayClient::start(&endpoint, config, 4).map_err(|error| failed(invalid(error)))?;
    let mut last = None;
    let identified = async {
        while let Some(event) = node.next_event().await {
            match event {
                NodeEvent::Identified { .. } => return true,
                NodeEvent::Down { why, reason, .. } => {
                    last = Some(reason.map_or_else(|| why.to_string(), |reason| reason.to_string()));
                }
                _ => {}
            }
        }
        false
    };
    match timeout(IDENTIFIED, identified).await {
        Ok(true) => Ok((endpoint, node)),
        Ok(false) => Err(Failure::failed("node", format_args!("{name} was stopped"))),
        Err(_) => Err(Failure::Timeout(match last {
            Some(reason) => format!("{at} does not let {name} in: {reason}"),
            None => format!("no answer from {at}"),
        })),
    }
}

/// Both ends of an RPC connection.
pub(super) struct Calls {
    client: RpcClient,
    endpoints: [Endpoint; 2],
    _server: RpcServer,
}

impl Calls {
    pub(super) async fn start(args: &BenchArgs) -> Result<Self, Failure> {
        let (server, client) = (socket(Options::default())?, socket(Options::default())?);
        let (listen, dial) = pair(args, [&server, &client], alpn::MACULA, TransportConfig::relay())?;
        server.listen(listen).map_err(failed)?;
        server.serve_rpc(RpcConfig::new(crate::entropy().map_err(failed)?));
        let serving = RpcServer::new(&server);
        serving.advertise("sink", Mode::ClientStream, async |mut call: ServerCall| {
            let mut bytes: u64 = 0;
            while let Some(chunk) = call.recv().await? {
                if let Chunk::Raw(raw) = chunk {
                    bytes += u64::try_from(raw.len()).unwrap_or_default();
                }
            }
            Ok(Value::from(bytes))
        });
        serving.advertise("echo", Kind::Unary, async |call: ServerCall| Ok(call.args().clone()));
        let config = RpcConfig::new(crate::entropy().map_err(failed)?);
        let link = client
            .connect_rpc(&dial, server.local_addr(), SERVER_NAME, config)
            .await;
        Ok(Self {
            client: link.map_err(failed)?,
            endpoints: [server, client],
            _server: serving,
        })
    }

    /// Sends chunks of this size on one call for this time. All of them have been taken when it ends.
    pub(super) async fn chunks(&self, size: usize, time: Duration) -> Result<Measured, Failure> {
        let chunk = Bytes::from(vec![0x5A; size]);
        let call = self.client.open("sink", Mode::ClientStream, Value::Null).await;
        let call = call.map_err(failed)?;
        let clock = Clock::start();
        let mut sent: u64 = 0;
        while clock.elapsed() < time {
            for _ in 0..BETWEEN_LOOKS {
                call.send(Chunk::Raw(chunk.clone())).await.map_err(failed)?;
            }
            sent += BETWEEN_LOOKS;
        }
        call.finish();
        let counted = call.reply().await.map_err(failed)?.as_u64().unwrap_or_default();
        let measured = clock.stop(sent);
        match counted == sent * u64::try_from(size).unwrap_or_default() {
            true => Ok(measured),
            false => Err(failed(format_args!(
                "{sent} chunks were sent and {counted} bytes arrived"
            ))),
        }
    }

    pub(super) async fn calls(&self, time: Duration) -> Result<Measured, Failure> {
        let client = self.client.clone();
        let lane = move |_, end| {
            let client = client.clone();
            async move {
                let question = Bytes::from_static(&[0x5A; MESSAGE]);
                let mut done = 0;
                while Instant::now() < end {
                    let answer = client
                        .call("echo", Value::bytes(question.clone()))
                        .await
                        .map_err(failed)?;
                    if answer.as_bytes().map(|bytes| bytes.len()) != Some(MESSAGE) {
                        return Err(failed("a call was answered with something else"));
                    }
                    done += 1;
                }
                Ok(done)
            }
        };
        work::lanes(CALLS, time, lane).await
    }

    pub(super) async fn end(self) {
        self.client.close();
        drop(self.client);
        end(&self.endpoints).await;
    }
}

/// Both ends of peering connections, none of which is open yet.
pub(super) struct Peers {
    client: Endpoint,
    server: Endpoint,
    dial: DialConfig,
    _serving: Task,
}

fn identity(number: u8) -> PeeringConfig {
    PeeringConfig::new(Arc::new(Identity::from_seed(&[number; 32])))
}

impl Peers {
    pub(super) fn start(args: &BenchArgs) -> Result<Self, Failure> {
        let (server, client) = (socket(Options::default())?, socket(Options::default())?);
        let (listen, dial) = pair(args, [&server, &client], alpn::MACULA, TransportConfig::peering())?;
        server.listen(listen).map_err(failed)?;
        let mut peers = PeerListenConfig::new(identity(u8::MAX));
        // The same few identities dial again and again.
        peers.gate.duplicates = Duplicates::KeepBoth;
        server.serve_peers(peers, usize::from(DIALS) * 2);
        let accepting = server.clone();
        let serving = tokio::spawn(async move {
            let mut connected = JoinSet::new();
            loop {
                tokio::select! {
                    peer = accepting.accept_peer() => {
                        let Some(peer) = peer else { return };
                        connected.spawn(async move { while peer.recv().await.is_ok() {} });
                    }
                    Some(_) = connected.join_next(), if !connected.is_empty() => {}
                }
            }
        });
        Ok(Self {
            client,
            server,
            dial,
            _serving: Task(serving),
        })
    }

    pub(super) async fn handshakes(&self, time: Duration) -> Result<Measured, Failure> {
        let address = self.server.local_addr();
        let lane = |number, end| {
            let (client, dial) = (self.client.clone(), self.dial.clone());
            async move {
                let config = identity(number);
                let mut done = 0;
                while Instant::now() < end {
                    let peer = client.connect_peer(&dial, address, SERVER_NAME, config.clone()).await;
                    peer.map_err(failed)?.abort(Code::CLOSED);
                    done += 1;
                }
                Ok(done)
            }
        };
        work::lanes(DIALS, time, lane).await
    }

    pub(super) async fn end(self) {
        end(&[self.server, self.client]).await;
    }
}
