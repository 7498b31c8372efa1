//! Traffic that knows what must come back.

use std::{io, net::SocketAddr, time::Duration};

use indicatif::ProgressBar;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::JoinSet,
    time::Instant,
};

/// Bytes of one round trip.
const PING: usize = 64;
/// Round trips at most.
const ROUNDS: usize = 5000;
/// Bytes written at once.
const BLOCK: usize = 64 << 10;

/// Sends small messages over one tunnel, each after the answer to the one before, for `patience` at most.
pub(super) async fn round_trips(to: SocketAddr, patience: Duration) -> io::Result<Vec<Duration>> {
    let mut tcp = TcpStream::connect(to).await?;
    tcp.set_nodelay(true)?;
    let mut source = Noise::new()?;
    let (mut ping, mut pong) = ([0; PING], [0; PING]);
    let mut times = Vec::with_capacity(ROUNDS);
    let end = Instant::now() + patience;
    while times.len() < ROUNDS && Instant::now() < end {
        source.fill(&mut ping);
        let sent = Instant::now();
        tcp.write_all(&ping).await?;
        tcp.read_exact(&mut pong).await?;
        times.push(sent.elapsed());
        if ping != pong {
            return Err(wrong("a small message came back changed"));
        }
    }
    tcp.shutdown().await?;
    match tcp.read(&mut pong).await? {
        0 => Ok(times),
        _ => Err(wrong("more came back than was sent")),
    }
}

/// What went through the tunnels in each direction, and how long it took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bulk {
    pub(super) bytes: u64,
    pub(super) time: Duration,
}

/// Sends `size` bytes through so many tunnels at once, or less if `patience` ends before, and compares what comes back.
pub(super) async fn bulk(
    to: SocketAddr,
    size: u64,
    tunnels: usize,
    patience: Duration,
    bar: &ProgressBar,
) -> io::Result<Bulk> {
    let started = Instant::now();
    let end = started + patience;
    let mut tasks = JoinSet::new();
    let count = u64::try_from(tunnels).unwrap_or(u64::MAX).max(1);
    for index in 0..count {
        let share = size / count + u64::from(index < size % count);
        tasks.spawn(one(to, share, end, bar.clone()));
    }
    let mut bytes = 0;
    while let Some(done) = tasks.join_next().await {
        bytes += done.map_err(io::Error::other)??;
    }
    Ok(Bulk {
        bytes,
        time: started.elapsed(),
    })
}

async fn one(to: SocketAddr, share: u64, end: Instant, bar: ProgressBar) -> io::Result<u64> {
    let (read, write) = TcpStream::connect(to).await?.into_split();
    let source = Noise::new()?;
    // Both at once: what comes back fills every buffer on the way if nobody reads it.
    let (sent, received) = tokio::try_join!(send(write, source, share, end), receive(read, source, bar))?;
    match sent == received {
        true => Ok(sent),
        false => Err(wrong(format!("{sent} bytes were sent and {received} came back"))),
    }
}

async fn send(mut tcp: OwnedWriteHalf, mut source: Noise, share: u64, end: Instant) -> io::Result<u64> {
    let mut block = vec![0; BLOCK];
    let mut sent = 0;
    while sent < share && Instant::now() < end {
        source.fill(&mut block);
        let length = usize::try_from(share - sent).unwrap_or(BLOCK).min(BLOCK);
        tcp.write_all(block.get(..length).unwrap_or_default()).await?;
        sent += u64::try_from(length).unwrap_or_default();
    }
    tcp.shutdown().await?;
    Ok(sent)
}

async fn receive(mut tcp: OwnedReadHalf, mut source: Noise, bar: ProgressBar) -> io::Result<u64> {
    let (mut expected, mut got) = (vec![0; BLOCK], vec![0; BLOCK]);
    let mut received: u64 = 0;
    // Place in the block that is expected now; a new one is made when it is used up.
    let mut at = BLOCK;
    loop {
        if at == BLOCK {
            source.fill(&mut expected);
            at = 0;
        }
        let length = tcp.read(got.get_mut(..BLOCK - at).unwrap_or_default()).await?;
        if length == 0 {
            return Ok(received);
        }
        if got.get(..length) != expected.get(at..at + length) {
            return Err(wrong(format!(
                "bytes changed on the way, behind the first {received} of a tunnel"
            )));
        }
        at += length;
        let length = u64::try_from(length).unwrap_or_default();
        received += length;
        bar.inc(length);
    }
}

fn wrong(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

/// Bytes that look random, faster than any network, and again from a copy. (SplitMix64.)
#[derive(Debug, Clone, Copy)]
struct Noise(u64);

impl Noise {
    fn new() -> io::Result<Self> {
        let [a, b, c, d, e, f, g, h, ..] = macula_driver::entropy()?;
        Ok(Self(u64::from_ne_bytes([a, b, c, d, e, f, g, h])))
    }

    fn fill(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            let bytes = (mixed ^ (mixed >> 31)).to_le_bytes();
            for (to, from) in chunk.iter_mut().zip(bytes) {
                *to = from;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    type Fault = fn(&mut Vec<u8>);

    /// A service that is not an echo: it changes what comes back by `change`.
    async fn liar(change: Fault) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut tcp, _)) = listener.accept().await {
                let mut all = Vec::new();
                let _ = tcp.read_to_end(&mut all).await;
                change(&mut all);
                let _ = tcp.write_all(&all).await;
            }
        });
        addr
    }

    #[tokio::test]
    async fn every_kind_of_fault_is_found() {
        let faults: [(Fault, &str); 4] = [
            (|all| all[70_000] ^= 1, "changed on the way"),
            (|all| all.truncate(99_999), "100000 bytes were sent and 99999 came back"),
            (|all| all.extend([0; 16]), "changed on the way"),
            (|all| all.rotate_left(16), "changed on the way"),
        ];
        for (fault, message) in faults {
            let to = liar(fault).await;
            let found = bulk(to, 100_000, 1, Duration::from_secs(10), &ProgressBar::hidden()).await;
            let error = found.unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
        let to = liar(|_| {}).await;
        let fine = bulk(to, 100_000, 3, Duration::from_secs(10), &ProgressBar::hidden())
            .await
            .unwrap();
        assert_eq!(fine.bytes, 100_000);
    }
}
