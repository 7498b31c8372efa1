//! Medians, ratios, and how they are printed.

use std::time::Duration;

use serde_json::json;

use crate::{
    cases::{Bulk, Case, QUINN_CT, QUINN_MT},
    common::median,
};

/// What was measured of one case, round by round.
pub(crate) struct Series {
    name: &'static str,
    /// Of a round of bulk.
    pub(crate) bytes: u64,
    /// MB/s.
    rates: Vec<f64>,
    /// Seconds of processor time for a GiB: all parties, and the relay.
    cpu: Vec<f64>,
    relay_cpu: Vec<f64>,
    /// Microseconds.
    p50: Vec<f64>,
    p99: Vec<f64>,
}

/// The medians of a series.
struct Medians {
    name: &'static str,
    rate: f64,
    cpu: f64,
    relay_cpu: f64,
    p50: f64,
    p99: f64,
}

impl Series {
    pub(crate) fn new(case: &Case, bytes: u64) -> Self {
        Self {
            name: case.name,
            bytes,
            rates: Vec::new(),
            cpu: Vec::new(),
            relay_cpu: Vec::new(),
            p50: Vec::new(),
            p99: Vec::new(),
        }
    }

    pub(crate) fn bulk(&mut self, bulk: Bulk) {
        let gib = bulk.bytes as f64 / f64::from(1 << 30);
        self.rates.push(bulk.bytes as f64 / 1e6 / bulk.time.as_secs_f64());
        self.cpu.push(bulk.cpu.as_secs_f64() / gib);
        self.relay_cpu.push(bulk.relay_cpu.as_secs_f64() / gib);
    }

    pub(crate) fn trips(&mut self, mut times: Vec<Duration>) {
        times.sort();
        let at = |share: f64| {
            let index = (times.len() as f64 * share) as usize;
            times.get(index).map_or(f64::NAN, |time| time.as_secs_f64() * 1e6)
        };
        self.p50.push(at(0.5));
        self.p99.push(at(0.99));
    }

    fn medians(&self) -> Medians {
        Medians {
            name: self.name,
            rate: median(&self.rates),
            cpu: median(&self.cpu),
            relay_cpu: median(&self.relay_cpu),
            p50: median(&self.p50),
            p99: median(&self.p99),
        }
    }
}

/// One of the figures of a row.
type Field = fn(&Medians) -> f64;

/// A share of what a quinn row has; `None` without that row.
fn ratio(all: &[Medians], of: &str, value: f64, field: Field) -> Option<f64> {
    let base = all.iter().find(|medians| medians.name == of).map(field)?;
    Some(value / base)
}

const RATIOS: [(&str, Field); 4] = [
    ("bulk", |medians| medians.rate),
    ("p50", |medians| medians.p50),
    ("p99", |medians| medians.p99),
    ("cpu", |medians| medians.cpu),
];

pub(crate) fn print_table(series: &[Series], rounds: usize, trips: usize) {
    let all: Vec<_> = series.iter().map(Series::medians).collect();
    println!(
        "One stream over loopback, all parties in one process with a runtime each, medians of {rounds} rounds in turn."
    );
    println!(
        "MT: tokio multi-thread (its default); CT: current-thread, one thread a party. The same for all: TLS 1.3 by"
    );
    println!(
        "rustls and ring with AES-GCM, one self-signed certificate, datagrams up to 1452 bytes (the last row discovers"
    );
    println!(
        "65000), windows, socket buffers of 4 MiB; 64 KiB blocks through AsyncWrite and AsyncRead. Round trips: 64 bytes,"
    );
    println!("{trips} a round. The relay is ours in both pairs of rows; cpu counts all parties.\n");
    println!(
        "{:24} {:>9} {:>7} {:>9} {:>9} {:>10} {:>13}",
        "", "bulk MB/s", "Gb/s", "p50 us", "p99 us", "cpu s/GiB", "relay s/GiB"
    );
    for medians in &all {
        println!(
            "{:24} {:9.0} {:7.2} {:9.1} {:9.1} {:10.2} {:>13}",
            medians.name,
            medians.rate,
            medians.rate * 8.0 / 1000.0,
            medians.p50,
            medians.p99,
            medians.cpu,
            if medians.relay_cpu > 0.0 {
                format!("{:.2}", medians.relay_cpu)
            } else {
                "-".to_owned()
            },
        );
    }
    for base in [QUINN_MT, QUINN_CT] {
        println!(
            "\n{:24} {:>9} {:>7} {:>9} {:>10}",
            format!("to {base}"),
            "bulk",
            "p50",
            "p99",
            "cpu"
        );
        for medians in &all {
            let of = |index: usize| {
                let (_, field) = RATIOS[index];
                ratio(&all, base, field(medians), field).unwrap_or(f64::NAN)
            };
            println!(
                "{:24} {:8.2}x {:6.2}x {:8.2}x {:9.2}x",
                medians.name,
                of(0),
                of(1),
                of(2),
                of(3)
            );
        }
    }
}

pub(crate) fn print_json(series: &[Series], rounds: usize) {
    let all: Vec<_> = series.iter().map(Series::medians).collect();
    for (medians, series) in all.iter().zip(series) {
        let mut line = json!({
            "case": medians.name,
            "rounds": rounds,
            "bulk_bytes": series.bytes,
            "bulk_mb_per_s": medians.rate,
            "round_trip_p50_us": medians.p50,
            "round_trip_p99_us": medians.p99,
            "cpu_s_per_gib": medians.cpu,
            "relay_cpu_s_per_gib": medians.relay_cpu,
        });
        for (base, suffix) in [(QUINN_MT, "quinn_mt"), (QUINN_CT, "quinn_ct")] {
            for (name, field) in RATIOS {
                if let Some(ratio) = ratio(&all, base, field(medians), field) {
                    line[format!("{name}_vs_{suffix}")] = json!(ratio);
                }
            }
        }
        println!("{line}");
    }
}
