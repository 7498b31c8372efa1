//! Simulated seconds per second of the wall clock, for 2, 100 and 1,000 endpoints behind one relay that lose one datagram in a
//! hundred, each sending 1 KiB a second to its partner.
//!
//! `cargo bench -p macula-tests --bench sim [-- --json]`

#[path = "../swarm/crowd.rs"]
mod crowd;

use std::time::Duration;

use crowd::{Measured, measure};

/// Runs of each; the median counts.
const RUNS: u64 = 5;

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

fn main() {
    let json = std::env::args().any(|arg| arg == "--json");
    let sizes = [(2, 1000), (100, 60), (1000, 10)];
    // One after the other and again, so that a slow moment of the machine does not hit one of them alone.
    let mut runs: Vec<Vec<Measured>> = vec![Vec::new(); sizes.len()];
    for seed in 0..RUNS {
        for (runs, (count, seconds)) in runs.iter_mut().zip(sizes) {
            runs.push(measure(seed, count, Duration::from_secs(seconds)));
        }
    }
    if !json {
        println!(
            "One relay, 20 ms and 1 % loss in each direction, 1 KiB a second from everybody; medians of {RUNS} runs."
        );
        println!();
        println!("| endpoints | simulated s / wall s | datagrams / wall s | to connect all: wall s |");
        println!("|---:|---:|---:|---:|");
    }
    for runs in runs {
        let of = |figure: fn(&Measured) -> f64| median(runs.iter().map(figure).collect());
        let count = runs[0].count;
        let ratio = of(|run| run.talk.0 / run.talk.1);
        let rate = of(|run| run.datagrams as f64 / run.talk.1);
        let link = of(|run| run.link.1);
        if json {
            println!(
                r#"{{"bench":"sim","endpoints":{count},"simulated_per_wall":{ratio:.2},"datagrams_per_wall":{rate:.0},"connect_wall_seconds":{link:.3}}}"#
            );
        } else {
            println!("| {count} | {ratio:.1} | {rate:.0} | {link:.2} |");
        }
    }
}
