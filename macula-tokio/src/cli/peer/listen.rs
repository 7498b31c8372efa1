//! `macula peer listen`.

use std::time::Duration;

use macula_proto::{
    Code,
    peering::{Outgoing, Received, SendError, Verdict},
    quic::tls::Credentials,
};
use tokio::{
    sync::watch,
    task::{JoinSet, LocalSet},
    time::timeout,
};

use super::{LEAVING, args::ListenArgs, events::Teller};
use crate::{
    Endpoint, Options, Peer, PeerEnd, PeerListenConfig,
    cli::{
        events::{Event, Events},
        network,
        outcome::{Failure, Outcome},
        settings,
        signals::Signals,
        tls,
        values::{HostPort, PEER_PORT},
    },
    relay::invalid,
};

/// Peers that wait to be taken; they are taken at once.
const BACKLOG: usize = 1024;
/// How long the end of a connection is announced to peers that do not answer.
const FAREWELL: Duration = Duration::from_secs(1);

pub(super) async fn run(args: ListenArgs, events: &Events, signals: &mut Signals) -> Outcome {
    let certificate = settings::identity_of(&args.certificate).ok_or_else(|| {
        let message = "a listener needs a certificate: --cert and --key, or --self-signed";
        Failure::Usage(message.to_owned())
    })?;
    let credentials = tls::identity(&certificate)?;
    let pin = credentials.pin().to_string();
    let config = config(&args, events)?;
    let endpoint = open(&args, credentials, config).await?;
    events.tell(&Event::Certificate { pin });
    let addr = endpoint.local_addr().to_string();
    events.tell(&Event::Listening { addr });
    // Tasks that tell are of this thread.
    LocalSet::new()
        .run_until(serve(&endpoint, &args, events, signals))
        .await;
    endpoint.close(Code::SHUTDOWN, "shutdown");
    let _ = timeout(FAREWELL, endpoint.wait_idle()).await;
    Ok(())
}

fn config(args: &ListenArgs, events: &Events) -> Result<PeerListenConfig, Failure> {
    let mut config = PeerListenConfig::new(super::peering(&args.node, events)?);
    config.gate.duplicates = args.duplicates.into();
    if !args.allow.is_empty() {
        config.gate.allow_only = Some(args.allow.iter().copied().collect());
    }
    config.gate.connected = args.max_peers.unwrap_or(config.gate.connected);
    config.gate.handshaking = args.max_handshakes.unwrap_or(config.gate.handshaking);
    Ok(config)
}

async fn open(args: &ListenArgs, credentials: Credentials, config: PeerListenConfig) -> Result<Endpoint, Failure> {
    let everywhere = HostPort::new("::", PEER_PORT);
    let at = args.listen.as_ref().unwrap_or(&everywhere);
    let mut options = Options::default();
    options.limits = config.peering.limits.clone();
    let (endpoint, mut listen) = network::listener(at, options, credentials).await?;
    listen.transport = super::transport(args.node.idle);
    endpoint.serve_peers(config, BACKLOG);
    let listening = endpoint.listen(listen);
    listening.map_err(|error| network::cannot_listen(at, invalid(error)))?;
    Ok(endpoint)
}

/// Takes peers until it is told to stop, and says goodbye to them.
async fn serve(endpoint: &Endpoint, args: &ListenArgs, events: &Events, signals: &mut Signals) {
    let (stop, stopping) = watch::channel(false);
    let mut peers = JoinSet::new();
    let mut connection = 0;
    loop {
        tokio::select! {
            () = signals.stop() => break,
            () = events.closed() => break,
            peer = endpoint.accept_peer() => {
                let Some(peer) = peer else { break };
                let teller = Teller::new(&peer, connection, events, args.node.quiet);
                connection += 1;
                peers.spawn_local(keep(peer, teller, args.echo, stopping.clone()));
            }
            rpc = endpoint.accept() => {
                let Some(rpc) = rpc else { break };
                tracing::debug!(remote = ?rpc.remote_address(), "refused: it speaks RPC");
                rpc.close(Code::REFUSED, "no rpc here");
            }
            Some(_) = peers.join_next(), if !peers.is_empty() => {}
        }
    }
    endpoint.stop_serving_peers();
    stop.send_replace(true);
    let gone = async { while peers.join_next().await.is_some() {} };
    tokio::select! {
        () = gone => {}
        () = signals.stop() => {}
    }
}

/// One peer, to its end.
async fn keep(peer: Peer, teller: Teller, echo: bool, mut stopping: watch::Receiver<bool>) {
    let end = tokio::select! {
        end = receive(&peer, &teller, echo) => end,
        // An error means that this command is over.
        _ = stopping.wait_for(|stopping| *stopping) => peer.close(LEAVING).await,
    };
    teller.end(&end);
}

async fn receive(peer: &Peer, teller: &Teller, echo: bool) -> PeerEnd {
    loop {
        let received = match peer.recv().await {
            Ok(received) => received,
            Err(end) => return end,
        };
        teller.frame(&received).await;
        if echo {
            send_back(peer, teller, received).await;
        }
    }
}

/// Sends a frame back: signed anew if it is the peer's own, otherwise as it came.
async fn send_back(peer: &Peer, teller: &Teller, received: Received) {
    let raw = received.decoded.raw;
    let frame = match received.verdict {
        Verdict::Verified => Outgoing::Frame(received.decoded.frame),
        Verdict::OtherSigner | Verdict::Unsigned => Outgoing::Raw(raw.clone()),
    };
    let sent = match peer.send(frame).await {
        Err(SendError::Encode(_)) => peer.send(Outgoing::Raw(raw)).await,
        other => other,
    };
    match sent {
        Ok(_) => teller.sent.set(teller.sent.get() + 1),
        // The end is told by itself.
        Err(SendError::Closing) => {}
        Err(error) => tracing::warn!(%error, "a frame could not be sent back"),
    }
}
