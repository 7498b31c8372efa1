//! One stream, side by side: quinn, ours, and ours through a relay.
//!
//! `cargo bench -p macula-bench --bench tunnel [-- --json] [--rounds N] [--only WORDS]`
//!
//! Every party (sender, receiver, relay) has a runtime and threads of its own, as it would have a process of its own. All
//! cases are set up first; then they take turns, so that whatever else the machine does hits all of them alike. The medians
//! over all rounds are printed. Without `--bench` (as `cargo test --benches` runs it) or with `--test` there is one tiny
//! round, which only shows that everything works.

mod cases;
mod ours;
mod quinn_ends;
mod scripted;
mod work;

use std::time::Duration;

use cases::{Bulk, CASES, QUINN_CT, QUINN_MT, Scene};
use macula_bench::{Arguments, Column, Result, Table};

/// What every case gets: a round of bulk is about this long.
const BULK_TIME: Duration = Duration::from_millis(400);
/// Least and most bytes of a round of bulk.
const BULK: (u64, u64) = (32 << 20, 256 << 20);
/// Round trips of a round.
const TRIPS: usize = 2000;

const COLUMNS: [Column; 5] = [
    Column::new("bulk MB/s", "bulk_mb_per_s"),
    Column::new("p50 us", "round_trip_p50_us").decimals(1),
    Column::new("p99 us", "round_trip_p99_us").decimals(1),
    Column::new("cpu s/GiB", "cpu_s_per_gib").decimals(2),
    Column::new("relay s/GiB", "relay_cpu_s_per_gib").decimals(2),
];

const NOTES: [&str; 6] = [
    "One stream over loopback, all parties in one process with a runtime each, medians of the rounds in turn.",
    "MT: tokio multi-thread (its default); CT: current-thread, one thread a party. The same for all: TLS 1.3 by",
    "rustls and ring with AES-GCM, one self-signed certificate, datagrams up to 1452 bytes (the last row discovers",
    "65000), windows, socket buffers of 4 MiB; 64 KiB blocks through AsyncWrite and AsyncRead. Round trips: 64 bytes,",
    "2000 a round. The relay is ours in both pairs of rows; cpu counts all parties.",
    "",
];

fn main() -> Result<()> {
    let arguments = Arguments::read(7);
    let mut table = Table::new(&COLUMNS, &[QUINN_MT, QUINN_CT]);
    let mut cases = Vec::new();
    for case in CASES.iter().filter(|case| arguments.wants(case.name)) {
        let scene = Scene::build(case).map_err(|error| format!("{}: {error}", case.name))?;
        let bytes = if arguments.quick {
            1 << 20
        } else {
            size_of_a_round(&scene)?
        };
        cases.push((scene, bytes));
        table.row(case.name);
    }
    let trips = if arguments.quick { 20 } else { TRIPS };
    for _ in 0..arguments.rounds {
        for (row, (scene, bytes)) in cases.iter().enumerate() {
            add_bulk(&mut table, row, &scene.bulk(*bytes)?);
            add_trips(&mut table, row, scene.trips(trips)?);
        }
    }
    table.print(&arguments, &NOTES);
    Ok(())
}

fn add_bulk(table: &mut Table, row: usize, bulk: &Bulk) {
    let gib = bulk.bytes as f64 / f64::from(1 << 30);
    table.add(row, 0, bulk.bytes as f64 / 1e6 / bulk.time.as_secs_f64());
    table.add(row, 3, bulk.cpu.as_secs_f64() / gib);
    if !bulk.relay_cpu.is_zero() {
        table.add(row, 4, bulk.relay_cpu.as_secs_f64() / gib);
    }
}

fn add_trips(table: &mut Table, row: usize, mut times: Vec<Duration>) {
    times.sort();
    for (column, share) in [(1, 0.5), (2, 0.99)] {
        let at = (times.len() as f64 * share) as usize;
        table.add(row, column, times[at].as_secs_f64() * 1e6);
    }
}

/// Warms up, and finds out how much this case carries in the time of a round.
fn size_of_a_round(scene: &Scene) -> Result<u64> {
    scene.bulk(BULK.0)?;
    let bulk = scene.bulk(BULK.0)?;
    scene.trips(TRIPS / 10)?;
    let bytes = bulk.bytes as f64 / bulk.time.as_secs_f64() * BULK_TIME.as_secs_f64();
    Ok((bytes as u64 >> 20 << 20).clamp(BULK.0, BULK.1))
}
