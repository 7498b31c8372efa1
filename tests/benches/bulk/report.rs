//! Medians, ratios, and how they are printed.

use std::time::Duration;

use serde_json::json;

use crate::{
    MANY,
    cases::{QUINN_CT, QUINN_MT},
    common::median,
};

/// What was measured of one case, round by round: of one stream, and of many.
pub(crate) struct Series {
    name: &'static str,
    work: [Work; 2],
}

#[derive(Default)]
struct Work {
    /// MB/s.
    rates: Vec<f64>,
    /// Seconds of processor time for a GiB, of both ends.
    cpu: Vec<f64>,
}

impl Series {
    pub(crate) fn new(name: &'static str) -> Self {
        Self {
            name,
            work: Default::default(),
        }
    }

    pub(crate) fn add(&mut self, index: usize, bytes: u64, time: Duration, cpu: Duration) {
        let work = &mut self.work[index];
        work.rates.push(bytes as f64 / 1e6 / time.as_secs_f64());
        work.cpu.push(cpu.as_secs_f64() * f64::from(1 << 30) / bytes as f64);
    }

    /// Rates of one stream and of many, then their processor time.
    fn medians(&self) -> [f64; 4] {
        let [one, many] = &self.work;
        [&one.rates, &many.rates, &one.cpu, &many.cpu].map(|values| median(values))
    }
}

/// Each figure in terms of that of a quinn row; `None` without that row.
fn ratios(all: &[Series], base: &str, of: [f64; 4]) -> Option<[f64; 4]> {
    let base = all.iter().find(|series| series.name == base)?.medians();
    Some([0, 1, 2, 3].map(|index| of[index] / base[index]))
}

pub(crate) fn print_table(all: &[Series], rounds: usize) {
    println!(
        "Bulk over loopback, both ends in one process, medians of {rounds} rounds in turn. MT: tokio multi-thread (its default),"
    );
    println!(
        "a runtime for each end; CT: current-thread, a runtime and a thread for each end; smol: its global executor with as many"
    );
    println!(
        "threads as there are processors, for both ends. The same for all: TLS 1.3 by rustls and ring with AES-GCM, a self-signed"
    );
    println!(
        "certificate, windows, socket buffers of 4 MiB, blocks of 64 KiB, datagrams up to 1452 bytes unless the row says more.\n"
    );
    let header = |first: &str, unit: &str| {
        let many = format!("{MANY} streams{unit}");
        println!(
            "{first:24} {:>14} {many:>16} {:>12} {:>12}",
            format!("1 stream{unit}"),
            "cpu, 1",
            format!("cpu, {MANY}")
        );
    };
    for base in [QUINN_MT, QUINN_CT] {
        header(&format!("to {base}"), "");
        for series in all {
            let [one, many, one_cpu, many_cpu] = ratios(all, base, series.medians()).unwrap_or([f64::NAN; 4]);
            println!(
                "{:24} {one:13.2}x {many:15.2}x {one_cpu:11.2}x {many_cpu:11.2}x",
                series.name
            );
        }
        println!();
    }
    header("", " MB/s");
    for series in all {
        let [one, many, one_cpu, many_cpu] = series.medians();
        println!(
            "{:24} {one:14.0} {many:16.0} {one_cpu:7.2} s/GiB {many_cpu:6.2} s/GiB",
            series.name
        );
    }
}

pub(crate) fn print_json(all: &[Series], rounds: usize) {
    const FIELDS: [&str; 4] = [
        "bulk_mb_per_s",
        "many_mb_per_s",
        "bulk_cpu_s_per_gib",
        "many_cpu_s_per_gib",
    ];
    for series in all {
        let mut line = json!({ "case": series.name, "rounds": rounds, "many_streams": MANY });
        let medians = series.medians();
        for (field, value) in FIELDS.into_iter().zip(medians) {
            line[field] = json!(value);
        }
        for (base, suffix) in [(QUINN_MT, "quinn_mt"), (QUINN_CT, "quinn_ct")] {
            for (field, value) in FIELDS.into_iter().zip(ratios(all, base, medians).into_iter().flatten()) {
                line[format!("{field}_vs_{suffix}")] = json!(value);
            }
        }
        println!("{line}");
    }
}
