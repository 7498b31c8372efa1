//! Bulk over one stream and over many, side by side: quinn, `macula-tokio` and `macula-smol`.
//!
//! `cargo bench -p macula-tests --bench bulk [-- --json] [--rounds N] [--only WORDS]`
//!
//! Sender and receiver are in one process. All cases are set up first; then they take turns, so that whatever else the machine
//! does hits all of them alike. Medians over all rounds are printed. Without `--bench` (as `cargo test --benches` runs it) or with
//! `--test` there is one tiny round, which only shows that everything works.

mod cases;
#[path = "../../../macula-tokio/benches/common/mod.rs"]
mod common;
#[path = "../../../macula-tokio/benches/tunnel/cpu.rs"]
mod cpu;
mod report;

use std::{
    env,
    process::{Command, exit},
    time::Duration,
};

use cases::{CASES, Scene};
use common::{Arguments, Result};
use report::Series;

/// What every case gets: a round of bulk is about this long.
const ROUND: Duration = Duration::from_millis(400);
/// Least and most bytes of a round, all streams together.
const BYTES: (u64, u64) = (32 << 20, 512 << 20);
/// Streams at once, for the second figure.
const MANY: usize = 16;

/// smol has one thread unless this says otherwise, and reads it once.
const SMOL_THREADS: &str = "SMOL_THREADS";

fn main() -> Result<()> {
    if env::var_os(SMOL_THREADS).is_none() {
        let threads = std::thread::available_parallelism()?.to_string();
        let mut again = Command::new(env::current_exe()?);
        let status = again.args(env::args().skip(1)).env(SMOL_THREADS, threads).status()?;
        exit(status.code().unwrap_or(1));
    }
    let arguments = Arguments::read();
    let mut cases = Vec::new();
    for case in CASES.iter().filter(|case| arguments.wants(case.name)) {
        let scene = Scene::build(case).map_err(|error| format!("{}: {error}", case.name))?;
        let bytes = [1, MANY].map(|streams| {
            if arguments.quick {
                Ok(1 << 20)
            } else {
                size_of_a_round(&scene, streams)
            }
        });
        let [one, many] = bytes;
        cases.push((scene, Series::new(case.name), [(1, one?), (MANY, many?)]));
    }
    for _ in 0..arguments.rounds {
        for (scene, series, work) in &mut cases {
            for (index, (streams, bytes)) in work.iter().enumerate() {
                let before = cpu::of_threads("");
                let time = scene.send(*streams, *bytes)?;
                series.add(index, *bytes, time, cpu::of_threads("") - before);
            }
        }
    }
    let series: Vec<_> = cases.into_iter().map(|(_, series, _)| series).collect();
    if arguments.json {
        report::print_json(&series, arguments.rounds);
    } else {
        report::print_table(&series, arguments.rounds);
    }
    Ok(())
}

/// Warms up, and finds out how much this case carries in the time of a round.
fn size_of_a_round(scene: &Scene, streams: usize) -> Result<u64> {
    scene.send(streams, BYTES.0)?;
    let time = scene.send(streams, BYTES.0)?;
    let bytes = BYTES.0 as f64 / time.as_secs_f64() * ROUND.as_secs_f64();
    Ok((bytes as u64 >> 20 << 20).clamp(BYTES.0, BYTES.1))
}
