//! 1,000 streams at once: what they carry together, and how evenly.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use macula_bench::{Arguments, Column, Result, Table};
use serde_json::{Value, json};

use crate::cases::{Case, MANY, Scene};

/// Streams at once.
const STREAMS: usize = 1000;
/// At most so long until every stream has carried something, then this, and for how long is counted then.
const START: Duration = Duration::from_secs(4);
const SETTLE: Duration = Duration::from_millis(1000);
const COUNT: Duration = Duration::from_millis(3000);

const COLUMNS: [Column; 7] = [
    Column::new("slowest/median", "slowest_of_median").decimals(2).alone(),
    Column::new("fastest/median", "fastest_of_median").decimals(2).alone(),
    Column::new("all MB/s", "mb_per_s"),
    Column::new("least kB/s", "least_kb_per_s").decimals(1),
    Column::new("median kB/s", "median_kb_per_s").decimals(1),
    Column::new("most kB/s", "most_kb_per_s").decimals(1),
    Column::new("relay s/GiB", "relay_cpu_s_per_gib").decimals(2),
];

const NOTES: [&str; 4] = [
    "1,000 streams at once over loopback, a process for each party, each stream written as fast as it takes 64 KiB blocks; counted",
    "at the receiver for 3 s, medians of the rounds in turn. The sender is one node with one connection, or 100 nodes with ten",
    "streams each; over TCP each stream is a connection, and not encrypted. Otherwise as with one stream.",
    "",
];

pub(crate) fn measure(arguments: &Arguments) -> Result<()> {
    let bases = ["1 node, quinn relay, MT", "1 node, quinn relay, CT"];
    let mut table = Table::new(&COLUMNS, &bases);
    let cases: Vec<_> = MANY.iter().filter(|case| arguments.wants(case.name)).collect();
    for case in &cases {
        table.row(case.name);
    }
    for _ in 0..arguments.rounds {
        for (row, case) in cases.iter().enumerate() {
            round(case, arguments.quick, &mut table, row).map_err(|error| format!("{}: {error}", case.name))?;
        }
    }
    table.print(arguments, &NOTES);
    Ok(())
}

/// Everything anew, so that no case has idle connections of another beside it.
fn round(case: &Case, quick: bool, table: &mut Table, row: usize) -> Result<()> {
    let (streams, settle, count) = if quick {
        (20, Duration::ZERO, Duration::from_millis(100))
    } else {
        (STREAMS, SETTLE, COUNT)
    };
    let mut scene = Scene::start(case)?;
    scene.sender.ask(&json!({ "flood": streams }))?;
    // Some may never get anything through; that is a result, too.
    let opened = Instant::now();
    while counts(&mut scene)?.iter().filter(|count| **count > 0).count() < streams && opened.elapsed() < START {
        sleep(Duration::from_millis(20));
    }
    sleep(settle);
    let (cpu, started, before) = (scene.cpu().1, Instant::now(), counts(&mut scene)?);
    sleep(count);
    let mut after = counts(&mut scene)?;
    let (time, cpu_after) = (started.elapsed().as_secs_f64(), scene.cpu().1);
    after.resize(streams, 0);
    let before = before.into_iter().chain(std::iter::repeat(0));
    let mut carried: Vec<_> = after
        .iter()
        .zip(before)
        .map(|(after, before)| (after - before) as f64)
        .collect();
    carried.sort_by(f64::total_cmp);
    let total: f64 = carried.iter().sum();
    let [least, median, most] = [carried[0], carried[streams / 2], carried[streams - 1]];
    table.add(row, 0, least / median);
    table.add(row, 1, most / median);
    table.add(row, 2, total / time / 1e6);
    for (column, bytes) in [(3, least), (4, median), (5, most)] {
        table.add(row, column, bytes / time / 1e3);
    }
    if let (Some(before), Some(after)) = (cpu, cpu_after) {
        let gib = total / f64::from(1 << 30);
        table.add(row, 6, after.saturating_sub(before).as_secs_f64() / gib);
    }
    Ok(())
}

/// Bytes that the receiver has of each stream.
fn counts(scene: &mut Scene) -> Result<Vec<u64>> {
    let answer = scene.receiver.ask(&json!("counts"))?;
    let counts = answer.as_array().ok_or("no counts")?;
    Ok(counts.iter().filter_map(Value::as_u64).collect())
}
