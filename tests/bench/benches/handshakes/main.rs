//! Handshakes per second: peering beside plain QUIC, ours and quinn's.
//!
//! `cargo bench -p macula-bench --bench handshakes [-- --json] [--rounds N] [--only WORDS]`
//!
//! Both ends run in one process on one thread: a current-thread runtime for each pair. A handshake is a dial that succeeded
//! at both ends, TLS without resumption included, and for peering CONNECT and HELLO with their signatures, their checks and the
//! binding to the TLS session. Eight dials are under way at a time, and the connections of a round end after it. The pairs take
//! turns; printed are medians over the rounds.

mod pairs;

use std::time::{Duration, Instant};

use macula_bench::{Arguments, Column, Result, Table};
use pairs::{OursPeering, OursQuic, Pair, Quinn};
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
}

impl Bench {
    fn new<P: Pair + 'static>(name: &'static str, make: fn() -> Result<P>) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let pair = Box::new(runtime.block_on(async { make() })?);
        Ok(Self { name, runtime, pair })
    }

    fn round(&self, handshakes: usize) -> Result<f64> {
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

const COLUMNS: [Column; 2] = [
    Column::new("per second", "per_second"),
    Column::new("us each", "us_each"),
];

const NOTES: [&str; 2] = [
    "Handshakes per second, both ends on one thread, 8 at a time, medians of rounds of 400 in turn. TLS 1.3 by rustls and ring,",
    "one self-signed certificate as the root, no resumption.",
];

fn main() -> Result<()> {
    let arguments = Arguments::read(7);
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
    let mut table = Table::new(&COLUMNS, &[QUINN]);
    // The first handshakes fill caches and pools.
    for bench in &benches {
        bench.round(usize::from(AT_ONCE))?;
        table.row(bench.name);
    }
    for _ in 0..arguments.rounds {
        for (row, bench) in benches.iter().enumerate() {
            let rate = bench.round(handshakes)?;
            table.add(row, 0, rate);
            table.add(row, 1, 1e6 / rate);
        }
    }
    table.print(&arguments, &NOTES);
    Ok(())
}
