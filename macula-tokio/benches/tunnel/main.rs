//! One stream, side by side: quinn, ours, and ours through a relay.
//!
//! `cargo bench -p macula-tokio --bench tunnel [-- --json] [--rounds N] [--only WORDS]`
//!
//! Every party (sender, receiver, relay) has a runtime and threads of its own, as it would have a process of its own. All
//! cases are set up first; then they take turns, so that whatever else the machine does hits all of them alike. The medians
//! over all rounds are printed. Without `--bench` (as `cargo test --benches` runs it) or with `--test` there is one tiny
//! round, which only shows that everything works.

mod cases;
#[path = "../common/mod.rs"]
mod common;
mod cpu;
mod ours;
mod quinn_ends;
mod report;
mod scripted;
mod work;

use std::time::Duration;

use cases::{CASES, Scene};
use common::{Arguments, Result};
use report::Series;

/// What every case gets: a round of bulk is about this long.
const BULK_TIME: Duration = Duration::from_millis(400);
/// Least and most bytes of a round of bulk.
const BULK: (u64, u64) = (32 << 20, 256 << 20);
/// Round trips of a round.
const TRIPS: usize = 2000;

fn main() -> Result<()> {
    let arguments = Arguments::read();
    let mut cases = Vec::new();
    for case in CASES.iter().filter(|case| arguments.wants(case.name)) {
        let scene = Scene::build(case).map_err(|error| format!("{}: {error}", case.name))?;
        let bytes = if arguments.quick {
            1 << 20
        } else {
            size_of_a_round(&scene)?
        };
        cases.push((scene, Series::new(case, bytes)));
    }
    let trips = if arguments.quick { 20 } else { TRIPS };
    for _ in 0..arguments.rounds {
        for (scene, series) in &mut cases {
            series.bulk(scene.bulk(series.bytes)?);
            series.trips(scene.trips(trips)?);
        }
    }
    let series: Vec<_> = cases.into_iter().map(|(_, series)| series).collect();
    if arguments.json {
        report::print_json(&series, arguments.rounds);
    } else {
        report::print_table(&series, arguments.rounds, trips);
    }
    Ok(())
}

/// Warms up, and finds out how much this case carries in the time of a round.
fn size_of_a_round(scene: &Scene) -> Result<u64> {
    scene.bulk(BULK.0)?;
    let bulk = scene.bulk(BULK.0)?;
    scene.trips(TRIPS / 10)?;
    let bytes = bulk.bytes as f64 / bulk.time.as_secs_f64() * BULK_TIME.as_secs_f64();
    Ok((bytes as u64 >> 20 << 20).clamp(BULK.0, BULK.1))
}
