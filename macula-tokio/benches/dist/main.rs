//! Distribution connections: messages per second, bytes per second, and how long ticks take while long messages are on their way.
//!
//! `cargo bench -p macula-tokio --bench dist [-- --json] [--rounds N] [--only WORDS]`
//!
//! Each end has a runtime with one thread of its own, as it would have a process of its own. The cases are set up first and then
//! take turns; printed are medians over the rounds, and for ticks the percentiles of all rounds together. Ours goes over QUIC
//! with TLS 1.3; beside it stands what Erlang nodes do by themselves: one TCP connection without encryption.

#[path = "../common/mod.rs"]
mod common;
mod quic;
mod tcp;

use std::time::Duration;

use common::{Arguments, Result, median};
use quic::Quic;
use serde_json::json;
use tcp::Tcp;
use tokio::runtime::{Builder, Runtime};

/// Messages of a round: how long each is, and how many.
const MESSAGES: [(usize, usize); 3] = [(64, 200_000), (4 << 10, 50_000), (1 << 20, 256)];
/// Length of the messages behind which ticks have to arrive.
const LONG: usize = 64 << 20;
/// Ticks of a round, and the time between two.
const TICKS: usize = 60;
const BETWEEN: Duration = Duration::from_millis(25);

/// A connection between two ends, both at work.
pub(crate) trait Link {
    /// Sends so many messages of this length, and says how long it took until all were taken at the other end.
    fn transfer(&mut self, length: usize, count: usize) -> Result<Duration>;

    /// Keeps messages of this length on their way, as many as can be at once, and sends ticks: how long each took.
    fn ticks(&mut self, length: usize, count: usize) -> Result<Vec<Duration>>;
}

/// A runtime with a thread of its own.
pub(crate) fn end(name: &str) -> Result<Runtime> {
    Ok(Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name(name)
        .enable_all()
        .build()?)
}

struct Series {
    name: &'static str,
    link: Box<dyn Link>,
    /// Messages per second for each length, round by round.
    rates: [Vec<f64>; MESSAGES.len()],
    ticks: Vec<Duration>,
}

type Make = fn() -> Result<Box<dyn Link>>;

const CASES: [(&str, Make); 3] = [
    ("QUIC, spread over 4 streams", || Ok(Box::new(Quic::spread()?))),
    ("QUIC, one stream, as deployed", || Ok(Box::new(Quic::single()?))),
    ("TCP, not encrypted", || Ok(Box::new(Tcp::start()?))),
];

fn main() -> Result<()> {
    let arguments = Arguments::read();
    let mut all = Vec::new();
    for (name, make) in CASES.iter().filter(|(name, _)| arguments.wants(name)) {
        all.push(Series {
            name,
            link: make().map_err(|error| format!("{name}: {error}"))?,
            rates: Default::default(),
            ticks: Vec::new(),
        });
    }
    for round in 0..=arguments.rounds {
        for series in &mut all {
            series.round(&arguments, round > 0)?;
        }
    }
    for series in &mut all {
        series.ticks.sort_unstable();
    }
    report(&all, &arguments);
    Ok(())
}

impl Series {
    /// The first round only fills caches and windows.
    fn round(&mut self, arguments: &Arguments, counts: bool) -> Result<()> {
        for ((length, count), rates) in MESSAGES.into_iter().zip(&mut self.rates) {
            let count = if arguments.quick { count.div_ceil(1000) } else { count };
            let took = self.link.transfer(length, count)?;
            if counts {
                rates.push(count as f64 / took.as_secs_f64());
            }
        }
        let (length, ticks) = if arguments.quick { (1 << 20, 3) } else { (LONG, TICKS) };
        if counts {
            self.ticks.extend(self.link.ticks(length, ticks)?);
        }
        Ok(())
    }

    /// The tick that is behind this share of all, in microseconds.
    fn tick(&self, share: f64) -> f64 {
        let last = self.ticks.len().saturating_sub(1);
        let at = (share * last as f64).round() as usize;
        self.ticks.get(at).map_or(f64::NAN, |tick| tick.as_secs_f64() * 1e6)
    }
}

const SHARES: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("max", 1.0)];

fn report(all: &[Series], arguments: &Arguments) {
    if arguments.json {
        for series in all {
            let [small, medium, large] = &series.rates;
            let line = json!({
                "case": series.name,
                "rounds": arguments.rounds,
                "messages_per_second_64": median(small),
                "messages_per_second_4096": median(medium),
                "bytes_per_second_1_mib": median(large) * MESSAGES[2].0 as f64,
                "tick_p50_us": series.tick(0.5),
                "tick_p99_us": series.tick(0.99),
                "tick_max_us": series.tick(1.0),
                "ticks": series.ticks.len(),
            });
            println!("{line}");
        }
        return;
    }
    println!(
        "Distribution connections over loopback, medians of {} rounds in turn; ticks while messages of {} MiB are on their way.",
        arguments.rounds,
        LONG >> 20
    );
    println!("Ours: TLS 1.3 by rustls and ring, datagrams of up to 1,452 bytes. TCP: no encryption, one stream.\n");
    let heads = SHARES.map(|(name, _)| format!("tick {name} us"));
    let [p50, p99, max] = &heads;
    println!(
        "{:30} {:>12} {:>12} {:>12} {p50:>12} {p99:>12} {max:>12}",
        "", "64 B, /s", "4 KiB, /s", "1 MiB, MB/s"
    );
    for series in all {
        let [small, medium, large] = &series.rates;
        let bytes = median(large) * MESSAGES[2].0 as f64 / 1e6;
        let [p50, p99, max] = SHARES.map(|(_, share)| series.tick(share));
        println!(
            "{:30} {:>12.0} {:>12.0} {bytes:>12.0} {p50:>12.0} {p99:>12.0} {max:>12.0}",
            series.name,
            median(small),
            median(medium)
        );
    }
}
