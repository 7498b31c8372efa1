//! Links of `macula rpc`, in whatever way they are made.

use std::{fmt::Display, future::Future, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use macula_driver::RpcConnectError;
use macula_proto::{
    Code,
    peering::{EndReason as PeerEndReason, PeeringConfig},
    quic::{DialConfig, TransportConfig, alpn, tls::ClientTls},
    rpc::{RpcConfig, session::EndReason},
    tunnel::{Name, client::session::SessionConfig},
};
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::{
    FAREWELL, MAX_CALLS,
    args::{CallArgs, CarrierArg, rpc_encoding},
};
use crate::{
    Endpoint, Options, Peer, PeerConnectError, RelayClient,
    cli::{
        args::TrustArgs,
        network,
        outcome::{Failure, Outcome},
        peer, tls,
        values::HostPort,
    },
    relay::invalid,
    rpc::RpcClient,
};

/// How long an address of several may take before the next one is tried.
const NEXT_ADDRESS: Duration = Duration::from_secs(3);

/// How to dial, with whom to believe.
pub(super) fn dial(endpoint: &Endpoint, trust: &TrustArgs, protocol: &'static [u8]) -> Result<DialConfig, Failure> {
    let (trust, credentials) = tls::trust(trust)?;
    let mut tls = ClientTls::new(trust).alpn([protocol]);
    if let Some(credentials) = credentials {
        tls = tls.credentials(credentials);
    }
    let tls = tls.build(endpoint.clock());
    Ok(DialConfig::new(tls.map_err(|error| Failure::failed("connect", error))?))
}

/// Loses a peer after this time, if it is said, and keeps the connection alive often enough for it.
fn idle(dial: &mut DialConfig, time: Option<Duration>) {
    if let Some(time) = time {
        let transport = &mut dial.transport;
        transport.idle_timeout = Some(time);
        transport.keep_alive = transport.keep_alive.map(|often| often.min(time / 3));
    }
}

/// Dials for calls, one address after the other.
pub(super) async fn dial_rpc(
    endpoint: &Endpoint,
    at: &HostPort,
    dial: &DialConfig,
    config: &RpcConfig,
) -> Result<RpcClient, Failure> {
    let dialled = each_address(at, |remote| {
        endpoint.connect_rpc(dial, remote, &at.host, config.clone())
    });
    dialled.await?.map_err(|error| match error {
        RpcConnectError::Ended(EndReason::HandshakeTimeout) => Failure::Timeout(no_link(at, error)),
        error => Failure::failed("connect", no_link(at, error)),
    })
}

fn no_link(at: impl Display, error: impl Display) -> String {
    format!("no connection with {at}: {error}")
}

/// Tries each address of a host, the last one for as long as it takes. The outcome is that of the one that answered, or the last.
async fn each_address<T, E: Display, F: Future<Output = Result<T, E>>>(
    at: &HostPort,
    dial: impl Fn(SocketAddr) -> F,
) -> Result<Result<T, E>, Failure> {
    let addresses = at.resolve().await;
    let addresses = addresses.map_err(|error| Failure::failed("connect", format_args!("{at}: {error}")))?;
    let Some((last, others)) = addresses.split_last() else {
        return Err(Failure::failed("connect", format_args!("{at} has no address")));
    };
    for &other in others {
        match timeout(NEXT_ADDRESS, dial(other)).await {
            Ok(Ok(found)) => return Ok(Ok(found)),
            Ok(Err(error)) => tracing::info!(%other, %error, "no connection with this address"),
            Err(_) => tracing::info!(%other, "no answer from this address"),
        }
    }
    Ok(dial(*last).await)
}

/// What calls on a connection of its own travel on.
pub(super) fn carrier(link: &RpcClient) -> &'static str {
    match link.hello().stream_per_call {
        true => "per-call",
        false => "shared",
    }
}

/// A link that a call is made on, with all that it needs.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) client: RpcClient,
    pub(super) carrier: &'static str,
    /// An address, a name or a node id.
    pub(super) peer: String,
    endpoint: Endpoint,
    below: Below,
}

/// What a link runs on, besides connections of its own.
#[derive(Debug)]
enum Below {
    Nothing,
    Relay(RelayClient),
    /// And who passes over the frames that are of no call.
    Peer(Peer, JoinHandle<()>),
}

impl Link {
    /// Connects within the time there is.
    pub(super) async fn connect(args: &CallArgs, direct: Option<&HostPort>) -> Result<Self, Failure> {
        let connecting = async {
            match (direct.or(args.router.as_ref()), &args.target) {
                (Some(at), _) if args.carrier == CarrierArg::Signed => Self::signed(args, at).await,
                (Some(at), _) => Self::dialled(args, at).await,
                (None, Some(target)) => Self::through_relay(args, target).await,
                (None, None) => Err(Failure::Usage("whom to call is missing".to_owned())),
            }
        };
        tokio::select! {
            connected = connecting => connected,
            () = sleep(args.timeout) => {
                let after = args.timeout.as_secs_f64();
                Err(Failure::Timeout(format!("no connection within {after} s")))
            }
        }
    }

    async fn dialled(args: &CallArgs, at: &HostPort) -> Result<Self, Failure> {
        let (endpoint, config) = begin(args)?;
        let mut dial = dial(&endpoint, &args.trust, alpn::MACULA)?;
        idle(&mut dial, args.idle);
        // The one above is to be the one that tells.
        dial.handshake_timeout = args.timeout + FAREWELL;
        let client = dial_rpc(&endpoint, at, &dial, &config).await?;
        let carrier = carrier(&client);
        if args.carrier == CarrierArg::PerCall && carrier != "per-call" {
            client.close();
            let message = format!("{at} cannot give each call a stream of its own");
            return Err(Failure::failed("carrier", message));
        }
        Ok(Self {
            client,
            carrier,
            peer: at.to_string(),
            endpoint,
            below: Below::Nothing,
        })
    }

    async fn signed(args: &CallArgs, at: &HostPort) -> Result<Self, Failure> {
        let (endpoint, config) = begin(args)?;
        let mut dial = dial(&endpoint, &args.trust, alpn::MACULA)?;
        dial.transport = TransportConfig::peering();
        idle(&mut dial, args.idle);
        dial.handshake_timeout = args.timeout + FAREWELL;
        let mut peering = PeeringConfig::new(Arc::new(peer::identity(args.identity.as_deref())?));
        peering.expected_peer = args.expect;
        peering.limits.peering_handshake_timeout = args.timeout + FAREWELL;
        let dialled = each_address(at, |remote| {
            endpoint.connect_peer(&dial, remote, &at.host, peering.clone())
        });
        let peer = dialled.await?.map_err(|error| match &error {
            PeerConnectError::Ended(end) if end.reason == PeerEndReason::HandshakeTimeout => {
                Failure::Timeout(no_link(at, error))
            }
            _ => Failure::failed("connect", no_link(at, error)),
        })?;
        let client = peer.rpc(config).await;
        let client = client.map_err(|error| Failure::failed("connect", no_link(at, error)))?;
        let others = peer.clone();
        let others = tokio::spawn(async move { while others.recv().await.is_ok() {} });
        Ok(Self {
            client,
            carrier: "signed",
            peer: peer.peer_id().to_string(),
            endpoint,
            below: Below::Peer(peer, others),
        })
    }

    async fn through_relay(args: &CallArgs, target: &Name) -> Result<Self, Failure> {
        let (endpoint, config) = begin(args)?;
        let mut dial = dial(&endpoint, &args.trust, alpn::MACULA_DIST)?;
        dial.transport = TransportConfig::relay();
        idle(&mut dial, args.idle);
        let name = match &args.name {
            Some(name) => name.clone(),
            None => {
                let entropy = crate::entropy().map_err(|error| Failure::failed("entropy", error))?;
                let hex = super::super::inspect::hex(&entropy);
                Name::from(format!("rpc-{}", hex.get(..12).unwrap_or_default()).as_str())
            }
        };
        let mut session = SessionConfig::new(name);
        session.encoding = args.encoding.into();
        let node = network::node_config(&args.relay, dial, session);
        // Nobody has a reason to open a tunnel to this node.
        let node = RelayClient::start(&endpoint, node, 0);
        let node = node.map_err(|error| Failure::failed("node", invalid(error)))?;
        node.identified().await;
        let failed = |error: &dyn Display| Failure::failed("open", format_args!("no tunnel to {target}: {error}"));
        let tunnel = node.open(target.clone()).await.map_err(|error| failed(&error))?;
        let client = endpoint.rpc_over(tunnel, true, config).await;
        let client = client.map_err(|error| match error {
            RpcConnectError::Ended(EndReason::HandshakeTimeout) => Failure::Timeout(no_link(target, error)),
            error => Failure::failed("connect", no_link(target, error)),
        })?;
        Ok(Self {
            client,
            carrier: "tunnel",
            peer: target.to_string(),
            endpoint,
            below: Below::Relay(node),
        })
    }

    /// Ends it in good order, and waits a little for the peer to hear of it.
    pub(super) async fn close(self) {
        self.client.close();
        let _ = timeout(FAREWELL, self.client.closed()).await;
        match self.below {
            Below::Nothing => {}
            Below::Relay(node) => node.stop(),
            Below::Peer(peer, others) => {
                let _ = timeout(FAREWELL, peer.close(peer::LEAVING)).await;
                others.abort();
            }
        }
        drop(self.client);
        self.endpoint.close(Code::CLOSED, "");
        let _ = timeout(FAREWELL, self.endpoint.wait_idle()).await;
    }
}

/// An endpoint of its own, and how this node shows itself.
fn begin(args: &CallArgs) -> Result<(Endpoint, RpcConfig), Failure> {
    let endpoint = Endpoint::bind_any(Options::default()).map_err(|error| Failure::failed("connect", error))?;
    let node_id = crate::entropy().map_err(|error| Failure::failed("entropy", error))?;
    let mut config = RpcConfig::new(node_id);
    config.encoding = rpc_encoding(args.encoding);
    config.stream_per_call = args.carrier != CarrierArg::Shared;
    config.handshake_timeout = args.timeout + FAREWELL;
    config.limits.calls = MAX_CALLS;
    if let Some(router) = &args.router {
        config.target_relay = Bytes::copy_from_slice(router.to_string().as_bytes());
    }
    Ok((endpoint, config))
}

/// What cannot be meant together.
pub(super) fn check(args: &CallArgs) -> Outcome {
    let usage = |message: &str| Err(Failure::Usage(message.to_owned()));
    let direct = args.relay.is_empty() && args.router.is_none();
    match args.carrier {
        CarrierArg::Signed if !direct => return usage("--carrier signed is for peers that are dialled themselves"),
        CarrierArg::Signed if rpc_encoding(args.encoding) != macula_proto::rpc::EncodingChoice::Auto => {
            return usage("--encoding has no meaning with --carrier signed");
        }
        CarrierArg::PerCall if !args.relay.is_empty() => {
            return usage("a tunnel of --relay is one stream for all calls");
        }
        CarrierArg::Signed => {}
        _ if args.identity.is_some() || args.expect.is_some() => {
            return usage("--identity and --expect are for --carrier signed");
        }
        _ => {}
    }
    Ok(())
}
