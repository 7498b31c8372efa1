//! Bulk over one stream and over many, side by side: quinn, `macula-tokio` and `macula-smol`.
//!
//! `cargo bench -p macula-bench --bench bulk [-- --json] [--rounds N] [--only WORDS]`
//!
//! Sender and receiver are in one process. All cases are set up first; then they take turns, so that whatever else the machine
//! does hits all of them alike. Medians over all rounds are printed. Without `--bench` (as `cargo test --benches` runs it) or with
//! `--test` there is one tiny round, which only shows that everything works.

mod cases;

use std::{
    env,
    process::{Command, exit},
    time::Duration,
};

use cases::{CASES, QUINN_CT, QUINN_MT, Scene};
use macula_bench::{Arguments, Column, Result, Table, cpu};

/// What every case gets: a round of bulk is about this long.
const ROUND: Duration = Duration::from_millis(400);
/// Least and most bytes of a round, all streams together.
const BYTES: (u64, u64) = (32 << 20, 512 << 20);
/// Streams at once, for the second figure.
const MANY: usize = 16;

const COLUMNS: [Column; 4] = [
    Column::new("1 stream MB/s", "bulk_mb_per_s"),
    Column::new("16 streams MB/s", "many_mb_per_s"),
    Column::new("cpu s/GiB, 1", "bulk_cpu_s_per_gib").decimals(2),
    Column::new("cpu s/GiB, 16", "many_cpu_s_per_gib").decimals(2),
];

const NOTES: [&str; 4] = [
    "Bulk over loopback, both ends in one process, medians of the rounds in turn. MT: tokio multi-thread (its default), a",
    "runtime for each end; CT: current-thread, a runtime and a thread for each end; smol: its global executor with as many",
    "threads as there are processors, for both ends. The same for all: TLS 1.3 by rustls and ring with AES-GCM, a self-signed",
    "certificate, windows, socket buffers of 4 MiB, blocks of 64 KiB, datagrams up to 1452 bytes unless the row says more.",
];

/// smol has one thread unless this says otherwise, and reads it once.
const SMOL_THREADS: &str = "SMOL_THREADS";

fn main() -> Result<()> {
    if env::var_os(SMOL_THREADS).is_none() {
        let threads = std::thread::available_parallelism()?.to_string();
        let mut again = Command::new(env::current_exe()?);
        let status = again.args(env::args().skip(1)).env(SMOL_THREADS, threads).status()?;
        exit(status.code().unwrap_or(1));
    }
    let arguments = Arguments::read(7);
    let mut table = Table::new(&COLUMNS, &[QUINN_MT, QUINN_CT]);
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
        cases.push((scene, [(1, one?), (MANY, many?)]));
        table.row(case.name);
    }
    for _ in 0..arguments.rounds {
        for (row, (scene, work)) in cases.iter().enumerate() {
            for (index, (streams, bytes)) in work.iter().enumerate() {
                let before = cpu::of_threads("");
                let time = scene.send(*streams, *bytes)?;
                let cpu = cpu::of_threads("").saturating_sub(before);
                table.add(row, index, *bytes as f64 / 1e6 / time.as_secs_f64());
                table.add(row, index + 2, cpu.as_secs_f64() * f64::from(1 << 30) / *bytes as f64);
            }
        }
    }
    table.print(&arguments, &NOTES);
    Ok(())
}

/// Warms up, and finds out how much this case carries in the time of a round.
fn size_of_a_round(scene: &Scene, streams: usize) -> Result<u64> {
    scene.send(streams, BYTES.0)?;
    let time = scene.send(streams, BYTES.0)?;
    let bytes = BYTES.0 as f64 / time.as_secs_f64() * ROUND.as_secs_f64();
    Ok((bytes as u64 >> 20 << 20).clamp(BYTES.0, BYTES.1))
}
