//! What is done with streams, calls and peers while they are measured.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::report::Measured;
use crate::cli::outcome::Failure;

/// Bytes of a write, and room for a read.
const BLOCK: usize = 64 << 10;
/// Bytes of a small message.
pub(super) const MESSAGE: usize = 64;
/// Round trips whose times are kept; more are not made.
const MOST_TRIPS: usize = 1_000_000;

/// What the end that opens a stream asks of the other.
const SINK: u8 = b'S';
const ECHO: u8 = b'E';

/// Both directions of a stream.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

pub(super) fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::failed("bench", error)
}

/// Does what the other end of a stream wants.
pub(super) async fn answer(mut stream: impl Duplex) -> std::io::Result<()> {
    match stream.read_u8().await? {
        SINK => {
            let mut buffer = vec![0; BLOCK];
            let mut total: u64 = 0;
            loop {
                match stream.read(&mut buffer).await? {
                    0 => break,
                    length => total += u64::try_from(length).unwrap_or_default(),
                }
            }
            stream.write_u64(total).await?;
        }
        ECHO => {
            let mut message = [0; MESSAGE];
            while stream.read_exact(&mut message).await.is_ok() {
                stream.write_all(&message).await?;
            }
        }
        _ => {}
    }
    stream.shutdown().await
}

/// Sends blocks for this time. All of them have been read when it ends.
pub(super) async fn bulk(mut stream: Box<dyn Duplex>, time: Duration) -> Result<Measured, Failure> {
    let block = vec![0x5A; BLOCK];
    stream.write_u8(SINK).await.map_err(failed)?;
    let clock = Clock::start();
    let mut sent: u64 = 0;
    while clock.elapsed() < time {
        stream.write_all(&block).await.map_err(failed)?;
        sent += u64::try_from(BLOCK).unwrap_or_default();
    }
    stream.shutdown().await.map_err(failed)?;
    let received = stream.read_u64().await.map_err(failed)?;
    let measured = clock.stop(received);
    match received == sent {
        true => Ok(measured),
        false => Err(failed(format_args!("{sent} bytes were sent and {received} arrived"))),
    }
}

/// Sends small messages for this time, each after the answer to the one before.
pub(super) async fn trips(mut stream: Box<dyn Duplex>, time: Duration) -> Result<Measured, Failure> {
    stream.write_u8(ECHO).await.map_err(failed)?;
    let mut message = [0x5A; MESSAGE];
    let mut times = Vec::new();
    let clock = Clock::start();
    while clock.elapsed() < time && times.len() < MOST_TRIPS {
        let sent = Instant::now();
        stream.write_all(&message).await.map_err(failed)?;
        stream.read_exact(&mut message).await.map_err(failed)?;
        times.push(sent.elapsed());
    }
    let mut measured = clock.stop(u64::try_from(times.len()).unwrap_or_default());
    stream.shutdown().await.map_err(failed)?;
    times.sort_unstable();
    measured.trips = times;
    Ok(measured)
}

/// Lets so many tasks do the same until this time is over; each says how often it did it.
pub(super) async fn lanes<F>(count: u8, time: Duration, lane: impl Fn(u8, Instant) -> F) -> Result<Measured, Failure>
where
    F: Future<Output = Result<u64, Failure>> + Send + 'static,
{
    let clock = Clock::start();
    let end = Instant::now() + time;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..count {
        tasks.spawn(lane(number, end));
    }
    let mut done = 0;
    while let Some(lane) = tasks.join_next().await {
        done += lane.map_err(failed)??;
    }
    Ok(clock.stop(done))
}

/// Wall clock and processor time.
#[derive(Debug)]
pub(super) struct Clock {
    started: Instant,
    cpu: Option<Duration>,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self {
            cpu: processor_time(),
            started: Instant::now(),
        }
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    pub(super) fn stop(&self, count: u64) -> Measured {
        let time = self.elapsed();
        let cpu = processor_time()
            .zip(self.cpu)
            .map(|(now, then)| now.saturating_sub(then));
        Measured {
            count,
            time,
            cpu,
            trips: Vec::new(),
        }
    }
}

/// What this process has used so far, of all processors together.
#[cfg(unix)]
fn processor_time() -> Option<Duration> {
    use rustix::time::{ClockId, clock_gettime};
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).ok()
}

#[cfg(not(unix))]
fn processor_time() -> Option<Duration> {
    None
}
