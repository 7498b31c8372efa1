//! Distribution connections: messages per second, bytes per second, and how long ticks take while long messages are on their way.
//!
//! `cargo bench -p macula-bench --bench dist [-- --json] [--rounds N] [--only WORDS]`
//!
//! Each end has a runtime with one thread of its own, as it would have a process of its own. The cases are set up first and then
//! take turns; printed are medians over the rounds, and for ticks the percentiles of all rounds together. Ours goes over QUIC
//! with TLS 1.3; beside it stands what Erlang nodes do by themselves: one TCP connection without encryption.

mod quic;
mod tcp;

use std::time::Duration;

use macula_bench::{Arguments, Column, Result, Table};
use quic::Quic;
use tcp::Tcp;
use tokio::runtime::{Builder, Runtime};

/// Messages of a round: how long each is, and how many.
const MESSAGES: [(usize, usize); 3] = [(64, 200_000), (4 << 10, 50_000), (1 << 20, 256)];
/// Length of the messages behind which ticks have to arrive.
const LONG: usize = 64 << 20;
/// Ticks of a round, and the time between two.
const TICKS: usize = 60;
const BETWEEN: Duration = Duration::from_millis(25);

/// A connection between two ends, both at work.
pub(crate) trait Link {
    /// Sends so many messages of this length, and says how long it took until all were taken at the other end.
    fn transfer(&mut self, length: usize, count: usize) -> Result<Duration>;

    /// Keeps messages of this length on their way, as many as can be at once, and sends ticks: how long each took.
    fn ticks(&mut self, length: usize, count: usize) -> Result<Vec<Duration>>;
}

/// A runtime with a thread of its own.
pub(crate) fn end(name: &str) -> Result<Runtime> {
    Ok(Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name(name)
        .enable_all()
        .build()?)
}

type Make = fn() -> Result<Box<dyn Link>>;

const TCP: &str = "TCP, not encrypted";

const CASES: [(&str, Make); 3] = [
    ("QUIC, spread over 4 streams", || Ok(Box::new(Quic::spread()?))),
    ("QUIC, one stream, as deployed", || Ok(Box::new(Quic::single()?))),
    (TCP, || Ok(Box::new(Tcp::start()?))),
];

/// One for each length of message, and three of ticks.
const COLUMNS: [Column; MESSAGES.len() + 3] = [
    Column::new("64 B, /s", "messages_per_second_64"),
    Column::new("4 KiB, /s", "messages_per_second_4096"),
    Column::new("1 MiB, /s", "messages_per_second_1_mib"),
    Column::new("tick p50 us", "tick_p50_us"),
    Column::new("tick p99 us", "tick_p99_us").at(0.99),
    Column::new("tick max us", "tick_max_us").at(1.0),
];

const NOTES: [&str; 2] = [
    "Distribution connections over loopback, medians of the rounds in turn; ticks while messages of 64 MiB are on their way.",
    "Ours: TLS 1.3 by rustls and ring, datagrams of up to 1,452 bytes. TCP: no encryption, one stream.",
];

fn main() -> Result<()> {
    let arguments = Arguments::read(7);
    let mut table = Table::new(&COLUMNS, &[TCP]);
    let mut links = Vec::new();
    for (name, make) in CASES.iter().filter(|(name, _)| arguments.wants(name)) {
        links.push(make().map_err(|error| format!("{name}: {error}"))?);
        table.row(*name);
    }
    // The first round only fills caches and windows.
    for link in &mut links {
        transfers(link.as_mut(), arguments.quick, |_, _| {})?;
    }
    for _ in 0..arguments.rounds {
        for (row, link) in links.iter_mut().enumerate() {
            transfers(link.as_mut(), arguments.quick, |column, rate| {
                table.add(row, column, rate)
            })?;
            let (length, ticks) = if arguments.quick { (1 << 20, 3) } else { (LONG, TICKS) };
            for tick in link.ticks(length, ticks)? {
                let micros = tick.as_secs_f64() * 1e6;
                (MESSAGES.len()..COLUMNS.len()).for_each(|column| table.add(row, column, micros));
            }
        }
    }
    table.print(&arguments, &NOTES);
    Ok(())
}

/// Sends messages of each length; tells how many went in a second.
fn transfers(link: &mut dyn Link, quick: bool, mut tell: impl FnMut(usize, f64)) -> Result<()> {
    for (column, (length, count)) in MESSAGES.into_iter().enumerate() {
        let count = if quick { count.div_ceil(1000) } else { count };
        tell(column, count as f64 / link.transfer(length, count)?.as_secs_f64());
    }
    Ok(())
}
