//! `macula peer connect`.

use std::{
    cell::Cell,
    fmt,
    future::pending,
    io::{self, IsTerminal as _},
    net::SocketAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use macula_proto::{
    Code,
    identity::NodeId,
    peering::{EndReason, PeeringConfig, SendError, TransportError},
    quic::{DialConfig, alpn, tls::ClientTls},
    wire::{
        Value,
        frame::{Body, Id32, Publish},
    },
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until, timeout},
};

use super::{
    LEAVING,
    args::ConnectArgs,
    events::{PeerEvent, Teller},
    source::Source,
};
use crate::{
    Endpoint, Options, Peer, PeerConnectError, PeerEnd,
    cli::{
        events::Events,
        outcome::{Failure, Outcome},
        signals::Signals,
        tls,
    },
    relay::invalid,
};

/// What the frames are about.
const TOPIC: &[u8] = b"macula/test";
/// How long the end of a connection is announced to a peer that does not answer.
const FAREWELL: Duration = Duration::from_secs(1);
/// How long an address of several may take before the next one is tried.
const NEXT_ADDRESS: Duration = Duration::from_secs(3);
/// Frames from which on a progress bar is worth its while.
const MANY: u64 = 1000;

pub(super) async fn run(args: ConnectArgs, events: &Events, signals: &mut Signals) -> Outcome {
    let source = Source::new(args.send.as_deref(), args.count)?;
    let (trust, credentials) = tls::trust(&args.trust)?;
    let mut config = super::peering(&args.node, events)?;
    config.expected_peer = args.expect;
    let own = config.identity.node_id();
    let mut options = Options::default();
    options.limits = config.limits.clone();
    let failed = |error: io::Error| Failure::failed("connect", error);
    let endpoint = Endpoint::bind_any(options).map_err(failed)?;
    let mut tls = ClientTls::new(trust).alpn([alpn::MACULA]);
    if let Some(credentials) = credentials {
        tls = tls.credentials(credentials);
    }
    let mut dial = DialConfig::new(tls.build(endpoint.clock()).map_err(|error| failed(invalid(error)))?);
    dial.transport = super::transport(args.node.idle);
    dial.handshake_timeout = args.node.timeout;
    let dialled = tokio::select! {
        dialled = connect(&endpoint, &args, &dial, &config, events) => dialled.map(Some),
        () = signals.stop() => Ok(None),
        () = events.closed() => Ok(None),
    };
    let outcome = match dialled {
        Ok(Some(peer)) => {
            let teller = Teller::new(&peer, 0, events, args.node.quiet);
            let session = Session {
                peer,
                own,
                teller,
                wait: args.wait,
                echoed: Cell::new(0),
                last: Cell::new(Instant::now()),
                news: Notify::new(),
                bar: progress_bar(source.expected(), events, args.node.quiet),
            };
            session.run(source, events, signals).await
        }
        Ok(None) => Ok(()),
        Err(failure) => Err(failure),
    };
    endpoint.close(Code::CLOSED, "");
    let _ = timeout(FAREWELL, endpoint.wait_idle()).await;
    outcome
}

/// Tries one address of the peer after the other.
async fn connect(
    endpoint: &Endpoint,
    args: &ConnectArgs,
    dial: &DialConfig,
    config: &PeeringConfig,
    events: &Events,
) -> Result<Peer, Failure> {
    let at = &args.peer;
    let addresses = at.resolve().await;
    let addresses = addresses.map_err(|error| Failure::failed("connect", format_args!("{at}: {error}")))?;
    let (last, others) = addresses.split_last().ok_or_else(|| no_address(args))?;
    let dial_one = |remote: SocketAddr| endpoint.connect_peer(dial, remote, &at.host, config.clone());
    for &other in others {
        match timeout(NEXT_ADDRESS, dial_one(other)).await {
            Ok(Ok(peer)) => return Ok(peer),
            // Whoever answers, if only to refuse, is the one.
            Ok(Err(error)) if answered(&error) => return Err(refused(args, &error, events)),
            Ok(Err(error)) => tracing::info!(%other, %error, "no peer at this address"),
            Err(_) => tracing::info!(%other, "no answer from this address"),
        }
    }
    let connected = dial_one(*last).await;
    connected.map_err(|error| refused(args, &error, events))
}

fn no_address(args: &ConnectArgs) -> Failure {
    Failure::failed("connect", format_args!("{} has no address", args.peer))
}

fn answered(error: &PeerConnectError) -> bool {
    match error {
        PeerConnectError::Ended(end) => !matches!(
            end.reason,
            EndReason::ConnectFailed(TransportError::TimedOut | TransportError::Unreachable)
        ),
        _ => false,
    }
}

fn refused(args: &ConnectArgs, error: &PeerConnectError, events: &Events) -> Failure {
    let mut message = format!("no connection with {}: {error}", args.peer);
    if let PeerConnectError::Ended(end) = error {
        PeerEvent::not_connected(end).tell(events);
        if let EndReason::Refused(Some(code)) = end.reason
            && let Some(name) = Code::new(code).and_then(Code::name)
        {
            message = format!("{message}, {name}");
        }
        let late = EndReason::ConnectFailed(TransportError::TimedOut);
        if end.reason == EndReason::HandshakeTimeout || end.reason == late {
            return Failure::Timeout(message);
        }
    }
    Failure::failed("connect", message)
}

/// A connection, from its handshake to its end.
struct Session {
    peer: Peer,
    own: NodeId,
    teller: Teller,
    wait: Duration,
    /// Frames of ours that came back.
    echoed: Cell<u64>,
    /// When something came or was sent last.
    last: Cell<Instant>,
    /// Something came.
    news: Notify,
    bar: ProgressBar,
}

impl Session {
    async fn run(self, mut source: Source, events: &Events, signals: &mut Signals) -> Outcome {
        let sent_all = Cell::new(false);
        let work = async {
            self.send_all(&mut source).await?;
            sent_all.set(true);
            self.quiet().await;
            Ok(())
        };
        let (outcome, ended) = tokio::select! {
            biased;
            () = signals.stop() => (Ok(()), None),
            () = events.closed() => (Ok(()), None),
            outcome = work => (outcome, None),
            end = self.receive() => (Ok(()), Some(end)),
        };
        let early = ended.is_some() && !sent_all.get();
        let end = match ended {
            Some(end) => end,
            None => {
                tokio::select! {
                    end = self.peer.close(LEAVING) => end,
                    () = signals.stop() => {
                        self.peer.abort(Code::CLOSED);
                        return Err(Failure::failed("interrupted", "interrupted while saying goodbye"));
                    }
                }
            }
        };
        self.bar.finish_and_clear();
        self.teller.end(&end);
        outcome?;
        match end.reason.is_good() && !early {
            true => Ok(()),
            false => Err(Failure::failed(
                "disconnected",
                format_args!("the connection ended: {end}"),
            )),
        }
    }

    async fn send_all(&self, source: &mut Source) -> Outcome {
        while let Some(payload) = source.next().await? {
            let seq = self.teller.sent.get();
            let frame = Body::from(self.publish(seq, payload));
            match self.peer.send(frame).await {
                Ok(_) => self.teller.sent.set(seq + 1),
                // The one that receives will say why.
                Err(SendError::Closing) => return pending().await,
                Err(error) => return Err(Failure::failed("send", error)),
            }
        }
        self.last.set(Instant::now());
        Ok(())
    }

    fn publish(&self, seq: u64, payload: Vec<u8>) -> Publish {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Publish {
            topic: Bytes::from_static(TOPIC),
            realm: Id32([0; 32]),
            publisher: self.own,
            seq,
            payload: Value::Bytes(payload.into()),
            published_at_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
            ttl_ms: None,
        }
    }

    /// Takes frames until the end.
    async fn receive(&self) -> PeerEnd {
        loop {
            let received = match self.peer.recv().await {
                Ok(received) => received,
                Err(end) => return end,
            };
            self.teller.frame(&received).await;
            if let Body::Publish(publish) = &received.decoded.frame.body
                && publish.publisher == self.own
                && publish.seq == self.echoed.get()
            {
                self.echoed.set(publish.seq + 1);
            }
            self.bar.set_position(self.echoed.get());
            self.last.set(Instant::now());
            self.news.notify_one();
        }
    }

    /// Ready when all frames are back, or nothing has come for a while.
    async fn quiet(&self) {
        let sent = self.teller.sent.get();
        while sent == 0 || self.echoed.get() < sent {
            let until = self.last.get() + self.wait;
            if Instant::now() >= until {
                return;
            }
            tokio::select! {
                () = sleep_until(until) => {}
                () = self.news.notified() => {}
            }
        }
    }
}

/// Where there is something to see, and nothing else is written to the same terminal.
fn progress_bar(count: Option<u64>, events: &Events, quiet: bool) -> ProgressBar {
    let talkative = !quiet && io::stdout().is_terminal();
    let hidden = events.is_json() || talkative || !io::stderr().is_terminal();
    let bar = match count {
        Some(count) if count >= MANY && !hidden => {
            ProgressBar::with_draw_target(Some(count), ProgressDrawTarget::stderr())
        }
        _ => return ProgressBar::hidden(),
    };
    let template = "{bar:40} {human_pos} of {human_len} frames came back, {rate}, {elapsed}";
    match ProgressStyle::with_template(template) {
        Ok(style) => {
            let rate = |state: &ProgressState, out: &mut dyn fmt::Write| {
                let _ = write!(out, "{:.0} a second", state.per_sec());
            };
            bar.with_style(style.with_key("rate", rate))
        }
        Err(_) => bar,
    }
}
