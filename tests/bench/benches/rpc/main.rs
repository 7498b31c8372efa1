//! Streaming RPC beside tonic over TLS and bare quinn streams.
//!
//! `cargo bench -p macula-bench --features tonic --bench rpc [-- --json] [--rounds N] [--only WORDS] [--with WORDS]`; without
//! the feature there is no tonic beside it.
//!
//! With `--with`, only contenders with these words in their names run; what is compared with must be among them.
//!
//! Client and server run in one process, each on a thread with a current-thread runtime, and one connection is between them.
//!
//! - *chunks*: the client sends so many chunks on one call, the server counts their bytes and answers with the sum. The time is from the
//!   first chunk to the answer.
//! - *unary, one by one*: 64 bytes there and back, the next call after the answer: the time of each.
//! - *unary, 64 at a time*: calls per second.
//!
//! tonic takes the chunks of a call from a stream. A program that has them one by one puts a channel before it, as here; *all at once* is
//! without one, from an iterator, which lets tonic pack hundreds of small chunks into one piece before anything is sent.
//!
//! All use TLS 1.3 by rustls and ring with one self-signed certificate, and UDP datagrams of up to 1452 bytes where there are any. quinn's
//! *call* is a bidirectional stream, 64 bytes each way with the end behind them; its *chunks* are writes of that size, without
//! anything around them, and so have no boundaries. The contenders take turns; printed are medians over the rounds.

mod ours;
mod quinn_streams;
#[cfg(feature = "tonic")]
mod tonic_calls;

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_lite::future::Boxed;
use macula_bench::{Arguments, Column, Result, Table, median, our_setup};
use macula_tokio::tls::Credentials;
use tokio::runtime::Runtime;

/// What is measured of a rate in each round.
const LONG_ENOUGH: Duration = Duration::from_millis(300);
/// Calls under way at a time, where there are several.
const AT_ONCE: usize = 64;

/// The client's end of one connection.
pub(crate) trait Client: Send {
    /// Sends `count` chunks on one call; answers how many bytes the server has counted.
    fn chunks(&self, chunk: Bytes, count: usize) -> Boxed<Result<u64>>;

    /// One call with an answer as long as the question.
    fn unary(&self, question: Bytes) -> Boxed<Result<usize>>;
}

/// A contender: its client, and the thread that this runs on.
struct Contender {
    name: &'static str,
    runtime: Runtime,
    client: Box<dyn Client>,
}

/// Starts both ends of a contender.
type Starter = fn(Credentials) -> Boxed<Result<Box<dyn Client>>>;

impl Contender {
    fn new(name: &'static str, credentials: &Credentials, start: Starter) -> Result<Self> {
        let runtime = runtime()?;
        let client = runtime.block_on(start(credentials.clone()))?;
        Ok(Self { name, runtime, client })
    }
}

pub(crate) fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

const TONIC: &str = "tonic, TLS";
const QUINN: &str = "quinn streams";

const ALL: &[(&str, Starter)] = &[
    #[cfg(feature = "tonic")]
    (TONIC, |c| Box::pin(tonic_calls::one_by_one(c))),
    #[cfg(feature = "tonic")]
    ("tonic, TLS, all at once", |c| Box::pin(tonic_calls::at_once(c))),
    (QUINN, |c| Box::pin(quinn_streams::start(c))),
    ("ours, stream per call", |c| Box::pin(ours::per_call(c))),
    ("ours, shared stream", |c| Box::pin(ours::shared(c))),
    ("ours, signed frames", |c| Box::pin(ours::signed(c))),
];

/// What is measured.
struct Case {
    name: &'static str,
    column: Column,
    run: fn(&Contender, bool) -> Result<f64>,
}

const CASES: [Case; 4] = [
    Case {
        name: "64-byte chunks",
        column: Column::new("64 B chunks/s", "chunks_per_s_64"),
        run: |contender, quick| chunks(contender, 64, if quick { 100 } else { 200_000 }),
    },
    Case {
        name: "64 KiB chunks",
        column: Column::new("64 KiB chunks/s", "chunks_per_s_64_kib"),
        run: |contender, quick| chunks(contender, 64 << 10, if quick { 10 } else { 4_000 }),
    },
    Case {
        name: "unary, one by one",
        column: Column::new("unary p50 us", "unary_p50_us").decimals(1),
        run: |contender, quick| latency(contender, if quick { 10 } else { 3_000 }),
    },
    Case {
        name: "unary, 64 at a time",
        column: Column::new("64 unary, calls/s", "unary_calls_per_s"),
        run: |contender, quick| throughput(contender, if quick { AT_ONCE } else { 20_000 }),
    },
];

const NOTES: [&str; 2] = [
    "RPC, one connection, a thread for each end, medians of the rounds in turn. TLS 1.3 by rustls and ring, one self-signed",
    "certificate; tonic over TCP, the others over QUIC with datagrams of up to 1452 bytes.",
];

/// Chunks a second, over as many calls of `count` as it takes to measure long enough.
fn chunks(contender: &Contender, size: usize, count: usize) -> Result<f64> {
    let chunk = Bytes::from(vec![0x5A; size]);
    let (started, mut calls) = (Instant::now(), 0);
    while calls == 0 || started.elapsed() < LONG_ENOUGH {
        let counted = contender
            .runtime
            .block_on(contender.client.chunks(chunk.clone(), count))?;
        let sent = (size * count) as u64;
        if counted != sent {
            return Err(format!("{}: {counted} bytes arrived of {sent}", contender.name).into());
        }
        calls += 1;
    }
    Ok((calls * count) as f64 / started.elapsed().as_secs_f64())
}

fn latency(contender: &Contender, count: usize) -> Result<f64> {
    let question = Bytes::from_static(&[0x5A; 64]);
    let mut times: Vec<Duration> = Vec::with_capacity(count);
    contender.runtime.block_on(async {
        for _ in 0..count {
            let started = Instant::now();
            ask(contender, &question).await?;
            times.push(started.elapsed());
        }
        Result::Ok(())
    })?;
    let micros: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1e6).collect();
    Ok(median(&micros))
}

fn throughput(contender: &Contender, count: usize) -> Result<f64> {
    let question = Bytes::from_static(&[0x5A; 64]);
    let started = Instant::now();
    contender.runtime.block_on(async {
        let lanes = (0..AT_ONCE).map(|_| async {
            for _ in 0..count / AT_ONCE {
                ask(contender, &question).await?;
            }
            Result::Ok(())
        });
        futures_util::future::try_join_all(lanes).await
    })?;
    let done = count / AT_ONCE * AT_ONCE;
    Ok(done as f64 / started.elapsed().as_secs_f64())
}

async fn ask(contender: &Contender, question: &Bytes) -> Result<()> {
    let answered = contender.client.unary(question.clone()).await?;
    if answered == question.len() {
        Ok(())
    } else {
        Err(format!("{}: {answered} bytes were answered", contender.name).into())
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::read(7);
    let credentials = our_setup::credentials()?;
    let cases: Vec<_> = CASES.iter().filter(|case| arguments.wants(case.name)).collect();
    let columns: Vec<_> = cases.iter().map(|case| case.column).collect();
    let mut table = Table::new(&columns, &[TONIC, QUINN]);
    let mut contenders = Vec::new();
    for &(name, start) in ALL {
        if arguments.takes(name) {
            contenders.push(Contender::new(name, &credentials, start)?);
            table.row(name);
        }
    }
    for (column, case) in cases.iter().enumerate() {
        for round in 0..=arguments.rounds {
            for (row, contender) in contenders.iter().enumerate() {
                // The first round warms up.
                let figure = (case.run)(contender, arguments.quick || round == 0)?;
                if round > 0 {
                    table.add(row, column, figure);
                }
            }
        }
    }
    table.print(&arguments, &NOTES);
    Ok(())
}
