//! Handshakes per second: peering beside plain QUIC, ours and quinn's.
//!
//! `cargo bench -p macula-tokio --bench handshakes [-- --json] [--rounds N] [--only WORDS]`
//!
//! Both ends run in one process on one thread: a current-thread runtime for each pair. A handshake is a dial that succeeded
//! at both ends, TLS without resumption included, and for peering CONNECT and HELLO with their signatures, their checks and the
//! binding to the TLS session. Eight dials are under way at a time, and the connections of a round end after it. The pairs take turns; printed are medians over the rounds.

#[path = "../common/mod.rs"]
mod common;
mod pairs;

use std::time::{Duration, Instant};

use common::{Arguments, Result, median};
use pairs::{OursPeering, OursQuic, Pair, Quinn};
use serde_json::json;
use tokio::{runtime::Runtime, task::JoinSet};

/// Handshakes of a round.
const HANDSHAKES: usize = 400;
/// Dials under way at a time.
const AT_ONCE: u8 = 8;

/// A pair of ends and the thread they share.
struct Bench {
    name: &'static str,
    runtime: Runtime,
    pair: Box<dyn Pair>,
    /// Handshakes per second, round by round.
    rates: Vec<f64>,
}

impl Bench {
    fn new<P: Pair + 'static>(name: &'static str, make: fn() -> Result<P>) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let pair = Box::new(runtime.block_on(async { make() })?);
        Ok(Self {
            name,
            runtime,
            pair,
            rates: Vec::new(),
        })
    }

    fn round(&mut self, handshakes: usize) -> Result<f64> {
        let each = handshakes.div_ceil(usize::from(AT_ONCE));
        let all = each * usize::from(AT_ONCE);
        let seen = self.pair.seen().clone();
        let expected = seen.accepted() + all;
        let name = self.name;
        self.runtime.block_on(async {
            let started = Instant::now();
            let mut diallers = JoinSet::new();
            for slot in 0..AT_ONCE {
                diallers.spawn(self.pair.dial(slot, each));
            }
            let mut held = Vec::new();
            while let Some(dialled) = diallers.join_next().await {
                held.push(dialled??);
            }
            // The last ones: a client's handshake is complete before the server's.
            wait(name, || seen.accepted() == expected).await?;
            let took = started.elapsed();
            drop(held);
            wait(name, || seen.ended() == expected).await?;
            Ok(all as f64 / took.as_secs_f64())
        })
    }
}

/// Waits for something that is due.
async fn wait(name: &str, what: impl Fn() -> bool) -> Result<()> {
    let started = Instant::now();
    while !what() {
        if started.elapsed() > Duration::from_secs(10) {
            return Err(format!("{name}: a connection was lost").into());
        }
        tokio::task::yield_now().await;
    }
    Ok(())
}

const QUINN: &str = "quinn";

fn main() -> Result<()> {
    let arguments = Arguments::read();
    let mut benches = vec![
        Bench::new(QUINN, Quinn::start)?,
        Bench::new("ours, QUIC only", OursQuic::start)?,
        Bench::new("ours, peering", OursPeering::start)?,
    ];
    benches.retain(|bench| arguments.wants(bench.name));
    let handshakes = if arguments.quick {
        usize::from(AT_ONCE)
    } else {
        HANDSHAKES
    };
    // The first handshakes fill caches and pools.
    for bench in &mut benches {
        bench.round(usize::from(AT_ONCE))?;
    }
    for _ in 0..arguments.rounds {
        for bench in &mut benches {
            let rate = bench.round(handshakes)?;
            bench.rates.push(rate);
        }
    }
    report(&benches, &arguments, handshakes);
    Ok(())
}

fn report(benches: &[Bench], arguments: &Arguments, handshakes: usize) {
    let quinn = benches.iter().find(|bench| bench.name == QUINN);
    let quinn = quinn.map_or(f64::NAN, |bench| median(&bench.rates));
    if !arguments.json {
        println!(
            "Handshakes per second, both ends on one thread, {AT_ONCE} at a time, medians of {} rounds of {handshakes} in turn.",
            arguments.rounds
        );
        println!("TLS 1.3 by rustls and ring, one self-signed certificate as the root, no resumption.\n");
        println!("{:18} {:>8} {:>12} {:>10}", "", "to quinn", "per second", "us each");
    }
    for bench in benches {
        let rate = median(&bench.rates);
        let (ratio, each) = (rate / quinn, 1e6 / rate);
        if arguments.json {
            let line = json!({
                "case": bench.name,
                "rounds": arguments.rounds,
                "handshakes": handshakes,
                "per_second": rate,
                "ratio_to_quinn": ratio,
                "all_rounds": bench.rates,
            });
            println!("{line}");
        } else {
            println!("{:18} {ratio:7.2}x {rate:12.0} {each:10.0}", bench.name);
        }
    }
}
