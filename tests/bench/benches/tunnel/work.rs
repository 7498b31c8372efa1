//! What is measured, the same for every case: a stream of bytes, one small message there and back, and many streams at once.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use macula_bench::Result;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::link::Acceptor;

/// Bytes given to a write, and room given to a read.
pub(crate) const BLOCK: usize = 64 << 10;
/// Bytes of a small message.
pub(crate) const MESSAGE: usize = 64;

/// Asks for all bytes that follow to be counted.
pub(crate) const SINK: u8 = b'S';
/// Asks for all bytes that follow to be sent back.
pub(crate) const ECHO: u8 = b'E';

/// A stream in both directions.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

/// One of any kind.
pub(crate) type Stream = Box<dyn Duplex>;

/// Bytes that came on a stream of bulk.
#[derive(Clone, Default)]
pub(crate) struct Counter(Arc<AtomicU64>);

impl Counter {
    pub(crate) fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes as u64, Relaxed);
    }

    pub(crate) fn read(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Of all streams.
#[derive(Default)]
pub(crate) struct Counters(Mutex<Vec<Counter>>);

impl Counters {
    pub(crate) fn add(&self) -> Counter {
        let counter = Counter::default();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(counter.clone());
        counter
    }

    /// A list, in the order in which the streams came.
    pub(crate) fn read(&self) -> Value {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().map(Counter::read).collect()
    }
}

/// Takes all streams that come.
pub(crate) async fn serve(mut acceptor: Acceptor, counters: Arc<Counters>) {
    while let Ok(stream) = acceptor.accept().await {
        let counters = counters.clone();
        tokio::spawn(async move {
            if let Err(error) = answer(stream, &counters).await {
                eprintln!("a stream failed: {error}");
            }
        });
    }
}

async fn answer(mut stream: Stream, counters: &Counters) -> Result<()> {
    match stream.read_u8().await? {
        SINK => {
            let counter = counters.add();
            let mut buffer = vec![0; BLOCK];
            loop {
                match stream.read(&mut buffer).await? {
                    0 => break,
                    read => counter.add(read),
                }
            }
            stream.write_u64(counter.read()).await?;
        }
        ECHO => {
            let mut message = [0; MESSAGE];
            while stream.read_exact(&mut message).await.is_ok() {
                stream.write_all(&message).await?;
            }
        }
        other => return Err(format!("an unknown request: {other}").into()),
    }
    stream.shutdown().await?;
    drain(stream).await
}

/// Sends `bytes`, and waits until the other end says that it has read them.
pub(crate) async fn bulk(mut stream: Stream, bytes: u64) -> Result<Duration> {
    let block = vec![0x5a; BLOCK];
    stream.write_u8(SINK).await?;
    let started = Instant::now();
    for _ in 0..bytes / BLOCK as u64 {
        stream.write_all(&block).await?;
    }
    stream.shutdown().await?;
    let received = stream.read_u64().await?;
    let time = started.elapsed();
    drain(stream).await?;
    if received != bytes {
        return Err(format!("sent {bytes} bytes, {received} arrived").into());
    }
    Ok(time)
}

/// Sends a small message and waits for its echo, `count` times.
pub(crate) async fn trips(mut stream: Stream, count: usize) -> Result<Vec<Duration>> {
    stream.write_u8(ECHO).await?;
    let mut times = Vec::with_capacity(count);
    let mut message = [7; MESSAGE];
    for _ in 0..count {
        let started = Instant::now();
        stream.write_all(&message).await?;
        stream.read_exact(&mut message).await?;
        times.push(started.elapsed());
    }
    stream.shutdown().await?;
    drain(stream).await?;
    Ok(times)
}

/// Sends as long as it can.
pub(crate) async fn flood(mut stream: Stream) -> Result<()> {
    let block = vec![0x5a; BLOCK];
    stream.write_u8(SINK).await?;
    loop {
        stream.write_all(&block).await?;
    }
}

async fn drain(mut stream: Stream) -> Result<()> {
    match stream.read(&mut [0]).await? {
        0 => Ok(()),
        _ => Err("more bytes than expected".into()),
    }
}
