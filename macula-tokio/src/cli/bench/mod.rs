//! `macula bench`: what this machine, and the way through a relay, can do.

pub(crate) mod args;
mod report;
mod scenes;
mod work;

use std::{
    io::{self, IsTerminal as _},
    thread,
    time::Duration,
};

use clap::ValueEnum as _;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use self::{
    args::{BenchArgs, Row},
    report::{Measured, Report, Setting},
    scenes::{Calls, Peers, Streams},
};
use super::{
    args::TrustArgs,
    events::Events,
    outcome::{Failure, Outcome},
    signals::Signals,
};

/// For everything besides measuring.
const GRACE: Duration = Duration::from_secs(30);
/// Between two looks of the progress bar at the clock.
const TICK: Duration = Duration::from_millis(100);

pub(crate) async fn run(args: BenchArgs, events: &Events, signals: &mut Signals) -> Outcome {
    let rows = rows(&args)?;
    let count = u32::try_from(rows.len()).unwrap_or(u32::MAX);
    let expected = with_warm_up(args.seconds).saturating_mul(count);
    let limit = args.timeout.unwrap_or(expected.saturating_mul(2).saturating_add(GRACE));
    let bar = progress_bar(expected, events.is_json());
    let outcome = tokio::select! {
        outcome = measure(&args, &rows, events, &bar) => outcome,
        () = tokio::time::sleep(limit) => Err(Failure::Timeout(format!("not done within {} s", limit.as_secs_f64()))),
        () = signals.stop() => Err(Failure::failed("interrupted", "interrupted")),
    };
    bar.finish_and_clear();
    outcome
}

/// The rows asked for, each once, in the order in which help shows them.
fn rows(args: &BenchArgs) -> Result<Vec<Row>, Failure> {
    let wanted = |row: &&Row| args.only.is_empty() || args.only.contains(row);
    let rows: Vec<Row> = Row::value_variants().iter().filter(wanted).copied().collect();
    let usage = |message: &str| Err(Failure::Usage(message.to_owned()));
    let TrustArgs {
        ca,
        pin,
        insecure,
        client_cert,
        client_key: _,
    } = &args.trust;
    let trusts = ca.is_some() || !pin.is_empty() || *insecure || client_cert.is_some();
    match args.relay {
        None if trusts => usage("--ca, --pin, --insecure and --client-cert are about the relay of --relay"),
        Some(_) if !rows.iter().any(|row| row.is_relayed()) => usage("--only leaves nothing that goes through --relay"),
        _ => Ok(rows),
    }
}

/// How long a row takes, setting up left aside.
fn with_warm_up(time: Duration) -> Duration {
    time + time / 10
}

async fn measure(args: &BenchArgs, rows: &[Row], events: &Events, bar: &ProgressBar) -> Outcome {
    let processors = thread::available_parallelism().map_or(1, usize::from);
    warn_of_what_disturbs(processors);
    let setting = Setting {
        event: "setting",
        version: env!("CARGO_PKG_VERSION"),
        processors,
        datagrams: args.datagrams,
        relay: args.relay.as_ref().map(ToString::to_string),
    };
    print(events, bar, setting.line(events.is_json()));
    for (number, &row) in (0..).zip(rows) {
        bar.set_message(row.name());
        let begun = with_warm_up(args.seconds).saturating_mul(number);
        let measured = tokio::select! {
            measured = one(args, row) => measured?,
            () = advance(bar, begun, with_warm_up(args.seconds)) => unreachable!("a progress bar has no end"),
        };
        print(events, bar, Report::new(row, &measured).line(events.is_json()));
    }
    Ok(())
}

/// A row, from its set-up to its end.
async fn one(args: &BenchArgs, row: Row) -> Result<Measured, Failure> {
    let (warm_up, time) = (args.seconds / 10, args.seconds);
    match row {
        Row::DirectBulk | Row::DirectTrips | Row::RelayBulk | Row::RelayTrips => {
            let streams = match row.is_relayed() {
                true => Streams::relayed(args).await?,
                false => Streams::direct(args).await?,
            };
            let measured = match row {
                Row::DirectBulk | Row::RelayBulk => {
                    streams.bulk(warm_up).await?;
                    streams.bulk(time).await?
                }
                _ => {
                    streams.trips(warm_up).await?;
                    streams.trips(time).await?
                }
            };
            streams.end().await;
            Ok(measured)
        }
        Row::RpcChunks | Row::RpcBlocks | Row::RpcCalls => {
            let calls = Calls::start(args).await?;
            let measured = match row {
                Row::RpcCalls => {
                    calls.calls(warm_up).await?;
                    calls.calls(time).await?
                }
                _ => {
                    let size = if row == Row::RpcChunks { 64 } else { 64 << 10 };
                    calls.chunks(size, warm_up).await?;
                    calls.chunks(size, time).await?
                }
            };
            calls.end().await;
            Ok(measured)
        }
        Row::Peering => {
            let peers = Peers::start(args)?;
            peers.handshakes(warm_up).await?;
            let measured = peers.handshakes(time).await?;
            peers.end().await;
            Ok(measured)
        }
    }
}

fn warn_of_what_disturbs(processors: usize) {
    if cfg!(debug_assertions) {
        tracing::warn!("this is a debug build: figures say nothing about a release build");
    }
    let load = std::fs::read_to_string("/proc/loadavg").ok();
    let load: Option<f64> = load.and_then(|text| text.split(' ').next()?.parse().ok());
    let most = u32::try_from(processors).map_or(1.0, f64::from) / 2.0;
    if let Some(load) = load.filter(|&load| load > most) {
        tracing::warn!(load, "other work runs on this machine, and will be in the figures");
    }
}

// ----- output ------------------------------------------------------------------------------------------------------

/// Prints a line above the progress bar.
fn print(events: &Events, bar: &ProgressBar, line: String) {
    if bar.is_hidden() {
        return events.print(line);
    }
    bar.suspend(|| {
        events.print(line);
        events.flush();
    });
}

fn progress_bar(expected: Duration, json: bool) -> ProgressBar {
    let hidden = json || !io::stderr().is_terminal();
    let target = match hidden {
        true => ProgressDrawTarget::hidden(),
        false => ProgressDrawTarget::stderr(),
    };
    let bar = ProgressBar::with_draw_target(Some(millis(expected)), target);
    match ProgressStyle::with_template("{bar:40} {msg}, {eta} left") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Moves the bar with time, from the beginning of a row to its end and no further.
async fn advance(bar: &ProgressBar, begun: Duration, row: Duration) {
    let started = tokio::time::Instant::now();
    let mut ticks = tokio::time::interval(TICK);
    loop {
        ticks.tick().await;
        bar.set_position(millis(begun + started.elapsed().min(row)));
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
