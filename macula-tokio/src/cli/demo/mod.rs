//! `macula demo`: the whole way through a relay, in one process on loopback, with every byte checked.

mod echo;
mod load;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    io::{self, IsTerminal as _},
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use macula_proto::{
    quic::tls::{ClientAuth, Trust},
    tunnel::{Name, client::session::EncodingChoice, relay::RelayConfig},
};
use serde::Serialize;
use tokio::{net::TcpListener, task::JoinHandle, time::Instant};

use super::{
    args::DemoArgs,
    backend::{Backend, NodeEvent, NodeHandle, NodeOptions, RelayHandle, RelayOptions},
    events::Events,
    expose::{self, Service},
    forward,
    node::Pool,
    outcome::{Failure, Outcome},
    report::Bytes,
    signals::Signals,
    tls,
    values::HostPort,
};
use crate::tcp::SpliceOptions;

/// For the nodes to be ready, and for what is under way to come back at the end.
const GRACE: Duration = Duration::from_secs(20);
/// Most tunnels, so that the file descriptors of an ordinary process are enough: each needs four.
const MOST_TUNNELS: usize = 200;

pub(crate) async fn run<B: Backend>(backend: &B, args: DemoArgs, events: &Events, signals: &mut Signals) -> Outcome {
    if args.tunnels > MOST_TUNNELS {
        return Err(Failure::Usage(format!("the demo opens {MOST_TUNNELS} tunnels at most")));
    }
    let limit = args.seconds.saturating_mul(2) + GRACE;
    tokio::select! {
        outcome = demo(backend, &args, events) => outcome,
        () = tokio::time::sleep(limit) => Err(Failure::Timeout(format!("not done within {} s", limit.as_secs()))),
        () = signals.stop() => Err(Failure::failed("interrupted", "interrupted")),
    }
}

async fn demo<B: Backend>(backend: &B, args: &DemoArgs, events: &Events) -> Outcome {
    let started = Instant::now();
    let scene = Scene::build(backend).await?;
    let ready = started.elapsed();
    // Some of the time at most, and never long: a few thousand round trips say it all.
    let patience = (args.seconds / 4).min(Duration::from_secs(3));
    let rounds = load::round_trips(scene.forward, patience).await.map_err(check)?;
    let bar = progress_bar(args.size, events.is_json());
    let bulk = load::bulk(scene.forward, args.size, args.tunnels, args.seconds, &bar).await;
    bar.finish_and_clear();
    let bulk = bulk.map_err(check)?;
    scene.end().await;
    let report = Report::new(ready, &rounds, &bulk, args.tunnels);
    events.print(report.text(events.is_json()));
    Ok(())
}

fn check(error: io::Error) -> Failure {
    Failure::failed("check", error)
}

fn progress_bar(size: u64, json: bool) -> ProgressBar {
    let hidden = json || !io::stderr().is_terminal();
    let target = if hidden {
        ProgressDrawTarget::hidden()
    } else {
        ProgressDrawTarget::stderr()
    };
    let style = ProgressStyle::with_template("{bar:40} {bytes} of {total_bytes} came back, {bytes_per_sec}");
    let bar = ProgressBar::with_draw_target(Some(size), target);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Everything that a tunnel needs: a service, a node that exposes it, a relay, a node that forwards to it.
struct Scene<B: Backend> {
    relay: Arc<B::Relay>,
    nodes: [Arc<B::Node>; 2],
    /// Connections to this address come out at the service.
    forward: SocketAddr,
    tasks: Vec<JoinHandle<()>>,
}

impl<B: Backend> Scene<B> {
    async fn build(backend: &B) -> Result<Self, Failure> {
        let silent = Events::silent();
        let service = bind().await?;
        let to = HostPort::new("127.0.0.1", local_port(&service)?);
        let mut tasks = vec![tokio::spawn(echo::serve(service))];
        let credentials = tls::self_signed()?;
        let trust = Trust::Pins(vec![credentials.pin()]);
        let relay = backend.relay(RelayOptions {
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            credentials,
            client_auth: ClientAuth::None,
            relay: RelayConfig::default(),
            router: None,
            sockets: 1,
            spin: Duration::ZERO,
        });
        let relay = Arc::new(relay.await.map_err(|error| Failure::failed("relay", error))?);
        let reports = relay.clone();
        tasks.push(tokio::spawn(
            async move { while reports.next_report().await.is_some() {} },
        ));
        let port = relay.local_addr().port();
        let exposing = node(backend, "service", port, &trust).await?;
        let forwarding = node(backend, "client", port, &trust).await?;
        let listener = bind().await?;
        let forward = (Ipv4Addr::LOCALHOST, local_port(&listener)?).into();
        let nodes = [exposing.clone(), forwarding.clone()];
        let pool = || Pool::new(Events::silent(), SpliceOptions::default(), MOST_TUNNELS + 1);
        let (mut inward, mut outward, events) = (pool(), pool(), silent.clone());
        tasks.push(tokio::spawn(async move {
            let connect_timeout = Duration::from_secs(10);
            let service = Service { to, connect_timeout };
            expose::serve(&*exposing, service, &mut inward, &events).await;
        }));
        tasks.push(tokio::spawn(async move {
            forward::serve(&forwarding, Name::from("service"), &[listener], &mut outward, &silent).await;
        }));
        Ok(Self {
            relay,
            nodes,
            forward,
            tasks,
        })
    }

    async fn end(self) {
        for task in &self.tasks {
            task.abort();
        }
        for node in self.nodes {
            node.close().await;
        }
        self.relay.close().await;
    }
}

async fn bind() -> Result<TcpListener, Failure> {
    let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    bound.map_err(|error| Failure::failed("listen", error))
}

fn local_port(listener: &TcpListener) -> Result<u16, Failure> {
    let addr = listener
        .local_addr()
        .map_err(|error| Failure::failed("listen", error))?;
    Ok(addr.port())
}

/// A node that the relay knows.
async fn node<B: Backend>(backend: &B, name: &str, port: u16, trust: &Trust) -> Result<Arc<B::Node>, Failure> {
    let options = NodeOptions {
        relays: vec![HostPort::new("127.0.0.1", port)],
        name: Name::from(name),
        trust: trust.clone(),
        credentials: None,
        encoding: EncodingChoice::Auto,
        allow_from: None,
    };
    let node = backend
        .node(options)
        .await
        .map_err(|error| Failure::failed("node", error))?;
    let identified = async {
        let mut last = "it went away".to_owned();
        while let Some(event) = node.next_event().await {
            match event {
                NodeEvent::Identified { .. } => return Ok(()),
                NodeEvent::Down { reason, .. } => last = reason,
                NodeEvent::Dialling { .. } | NodeEvent::Waiting { .. } => {}
            }
        }
        Err(Failure::failed(
            "node",
            format_args!("{name} cannot use the relay: {last}"),
        ))
    };
    match tokio::time::timeout(GRACE / 2, identified).await {
        Ok(identified) => identified?,
        Err(_) => return Err(Failure::Timeout(format!("{name} was not identified in time"))),
    }
    Ok(Arc::new(node))
}

/// What the demo found out.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Report {
    event: &'static str,
    ready_ms: f64,
    round_trips: usize,
    rtt_p50_us: f64,
    rtt_p99_us: f64,
    rtt_max_us: f64,
    tunnels: usize,
    /// Each way.
    bytes: u64,
    seconds: f64,
    /// Each way, both at once.
    mib_per_second: f64,
}

impl Report {
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    fn new(ready: Duration, rounds: &[Duration], bulk: &load::Bulk, tunnels: usize) -> Self {
        let mut rounds = rounds.to_vec();
        rounds.sort_unstable();
        let tenth = |value: f64| (value * 10.0).round() / 10.0;
        let at = |per_cent: usize| {
            let index = (rounds.len() * per_cent / 100).min(rounds.len().saturating_sub(1));
            tenth(rounds.get(index).copied().unwrap_or_default().as_secs_f64() * 1e6)
        };
        let seconds = bulk.time.as_secs_f64();
        Self {
            event: "demo",
            ready_ms: tenth(ready.as_secs_f64() * 1e3),
            round_trips: rounds.len(),
            rtt_p50_us: at(50),
            rtt_p99_us: at(99),
            rtt_max_us: at(100),
            tunnels,
            bytes: bulk.bytes,
            seconds: (seconds * 1e3).round() / 1e3,
            mib_per_second: tenth(bulk.bytes as f64 / f64::from(1 << 20) / seconds.max(1e-6)),
        }
    }

    fn text(&self, json: bool) -> String {
        match json {
            true => serde_json::to_string(self).unwrap_or_default() + "\n",
            false => self.to_string(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            ready_ms,
            round_trips,
            rtt_p50_us,
            rtt_p99_us,
            rtt_max_us,
            tunnels,
            bytes,
            seconds,
            mib_per_second,
            ..
        } = self;
        let size = Bytes(*bytes);
        writeln!(
            f,
            "TCP client -> node -> relay -> node -> TCP echo service and back, on loopback\n"
        )?;
        writeln!(f, "  set-up       {ready_ms} ms for a relay and two nodes")?;
        writeln!(
            f,
            "  round trips  {round_trips} of 64 bytes: median {rtt_p50_us} µs, 99 % within {rtt_p99_us} µs, slowest \
             {rtt_max_us} µs"
        )?;
        writeln!(
            f,
            "  bulk         {size} each way at once, {tunnels} tunnels, {seconds} s: {mib_per_second} MiB/s each way"
        )?;
        writeln!(f, "  check        every byte came back as it was sent\n\nok")
    }
}
