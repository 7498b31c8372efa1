//! What is measured, the same for every case: one stream of bytes, and one small message there and back.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use macula_bench::Result;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes given to a write, and room given to a read.
const BLOCK: usize = 64 << 10;
/// Bytes of a small message.
const MESSAGE: usize = 64;

const SINK: u8 = b'S';
const ECHO: u8 = b'E';

/// A stream in both directions.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Unpin + Send + 'static {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Duplex for T {}

/// The end that opens streams.
pub(crate) trait Opener: Send + 'static {
    fn open(&mut self) -> impl Future<Output = Result<impl Duplex>> + Send;
}

/// The end that takes them.
pub(crate) trait Acceptor: Send + 'static {
    fn accept(&mut self) -> impl Future<Output = Result<impl Duplex>> + Send;
}

/// Takes one stream after the other; ends when no more can come.
pub(crate) async fn serve(mut acceptor: impl Acceptor) {
    while let Ok(stream) = acceptor.accept().await {
        if let Err(error) = answer(stream).await {
            eprintln!("a stream failed: {error}");
        }
    }
}

async fn answer(mut stream: impl Duplex) -> Result<()> {
    match stream.read_u8().await? {
        SINK => {
            let mut buffer = vec![0; BLOCK];
            let mut total = 0u64;
            loop {
                match stream.read(&mut buffer).await? {
                    0 => break,
                    read => total += read as u64,
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
        other => return Err(format!("an unknown request: {other}").into()),
    }
    stream.shutdown().await?;
    drain(stream).await
}

/// Sends `bytes`, and waits until the other end says that it has read them.
pub(crate) async fn bulk(opener: &mut impl Opener, bytes: u64) -> Result<Duration> {
    let block = vec![0x5a; BLOCK];
    let mut stream = opener.open().await?;
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
pub(crate) async fn trips(opener: &mut impl Opener, count: usize) -> Result<Vec<Duration>> {
    let mut stream = opener.open().await?;
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

async fn drain(mut stream: impl Duplex) -> Result<()> {
    match stream.read(&mut [0]).await? {
        0 => Ok(()),
        _ => Err("more bytes than expected".into()),
    }
}
