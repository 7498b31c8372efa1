//! One stream at a time: bulk, and round trips.

use std::time::Duration;

use macula_bench::{Arguments, Column, Result, Table};
use serde_json::json;

use crate::cases::{ONE, QUINN_CT, QUINN_MT, QUINN_RELAY_CT, QUINN_RELAY_MT, Scene};

/// What every case gets: a round of bulk is about this long.
const BULK_TIME: Duration = Duration::from_millis(400);
/// Least and most bytes of a round of bulk.
const BULK: (u64, u64) = (32 << 20, 512 << 20);
/// Round trips of a round.
const TRIPS: usize = 2000;

const COLUMNS: [Column; 5] = [
    Column::new("bulk MB/s", "bulk_mb_per_s"),
    Column::new("p50 us", "round_trip_p50_us").decimals(1),
    Column::new("p99 us", "round_trip_p99_us").decimals(1),
    Column::new("cpu s/GiB", "cpu_s_per_gib").decimals(2),
    Column::new("relay s/GiB", "relay_cpu_s_per_gib").decimals(2),
];

const NOTES: [&str; 9] = [
    "One stream over loopback, a process for each party, medians of the rounds in turn. MT: tokio multi-thread (its default); CT:",
    "current-thread. First the ends, then what is between them. The same for all but TCP, which is not encrypted: TLS 1.3 by rustls",
    "and ring with AES-GCM, one self-signed certificate, datagrams up to 1452 bytes (or what the name says), windows,",
    "socket buffers of 4 MiB. For all: 64 KiB blocks through AsyncWrite and AsyncRead; the quinn relay and the TCP forwarder",
    "copy with tokio's copy_bidirectional and 64 KiB buffers. Round trips: 64 bytes, 2000 a round. Processor time: of all parties,",
    "and of the relay alone. Spinning: drivers go on looking for 50 us before they sleep. Bare quinn-proto: that crate and a socket,",
    "driven by one thread without a runtime, tasks or handles, each send as large as the kernel takes it: what QUIC itself takes",
    "here.",
    "",
];

/// A case under way.
struct Running {
    scene: Scene,
    bytes: u64,
}

pub(crate) fn measure(arguments: &Arguments) -> Result<()> {
    let bases = [QUINN_MT, QUINN_CT, QUINN_RELAY_MT, QUINN_RELAY_CT];
    let mut table = Table::new(&COLUMNS, &bases);
    let mut cases = Vec::new();
    for case in ONE.iter().filter(|case| arguments.wants(case.name)) {
        let mut running = Running {
            scene: Scene::start(case)?,
            bytes: 1 << 20,
        };
        if !arguments.quick {
            running.warm_up()?;
        }
        cases.push(running);
        table.row(case.name);
    }
    let trips = if arguments.quick { 20 } else { TRIPS };
    for _ in 0..arguments.rounds {
        for (row, running) in cases.iter_mut().enumerate() {
            running.bulk(&mut table, row)?;
            let times = running.trips(trips)?;
            for (column, share) in [(1, 0.5), (2, 0.99)] {
                let at = (times.len() as f64 * share) as usize;
                table.add(row, column, times[at] as f64 / 1e3);
            }
        }
    }
    table.print(arguments, &NOTES);
    Ok(())
}

impl Running {
    /// Finds out how much this case carries in the time of a round.
    fn warm_up(&mut self) -> Result<()> {
        self.transfer(BULK.0)?;
        let time = self.transfer(BULK.0)?;
        self.trips(TRIPS / 10)?;
        let bytes = BULK.0 as f64 / time.as_secs_f64() * BULK_TIME.as_secs_f64();
        self.bytes = (bytes as u64 >> 20 << 20).clamp(BULK.0, BULK.1);
        Ok(())
    }

    fn transfer(&mut self, bytes: u64) -> Result<Duration> {
        let answer = self.scene.sender.ask(&json!({ "bulk": bytes }))?;
        let nanoseconds = answer["nanoseconds"].as_u64().ok_or("no time")?;
        Ok(Duration::from_nanos(nanoseconds))
    }

    fn bulk(&mut self, table: &mut Table, row: usize) -> Result<()> {
        let gib = self.bytes as f64 / f64::from(1 << 30);
        let before = self.scene.cpu();
        let time = self.transfer(self.bytes)?;
        let after = self.scene.cpu();
        table.add(row, 0, self.bytes as f64 / 1e6 / time.as_secs_f64());
        table.add(row, 3, after.0.saturating_sub(before.0).as_secs_f64() / gib);
        if let (Some(before), Some(after)) = (before.1, after.1) {
            table.add(row, 4, after.saturating_sub(before).as_secs_f64() / gib);
        }
        Ok(())
    }

    /// Nanoseconds, sorted.
    fn trips(&mut self, count: usize) -> Result<Vec<u64>> {
        let answer = self.scene.sender.ask(&json!({ "trips": count }))?;
        let times = answer.as_array().ok_or("no times")?;
        let mut times: Vec<_> = times.iter().filter_map(|time| time.as_u64()).collect();
        times.sort_unstable();
        Ok(times)
    }
}
