//! TCP connections over tunnels.
//!
//! A tunnel carries one TCP connection: [`splice_tcp`] copies bytes both ways and passes every end on as what it is. The end
//! of one direction (FIN) leaves the other direction open. A TCP connection that was reset resets the tunnel with
//! [`Code::TCP_RESET`], and a tunnel that ends in any other way than by FIN resets the TCP connection, so that neither side
//! can mistake a cut for an end.

#[cfg(test)]
pub(crate) mod pipe;
#[cfg(test)]
mod tests;

use std::{
    error, fmt,
    future::{Future, pending},
    io,
    net::Shutdown,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use macula_driver::{ReadError, RecvStream, SendStream, WriteError};
use macula_proto::Code;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest},
    net::TcpStream,
    time::Instant,
};

/// The receiving half of a tunnel.
///
/// The peer's FIN reads as the end of the stream; a reset is an error for which [`reset_code`] finds the code; every other
/// error means that the tunnel is lost.
pub trait RecvHalf: AsyncRead + Unpin + Send {
    /// Tells the peer to send nothing more, and why.
    fn stop(&mut self, code: Code);
}

/// The sending half of a tunnel.
///
/// Shutting it down is the FIN. What is written travels without a flush. Errors are as for [`RecvHalf`], a peer that stopped
/// the stream being a reset too.
pub trait SendHalf: AsyncWrite + Unpin + Send {
    /// Ends the stream abruptly, and tells the peer why.
    fn reset(&mut self, code: Code);
}

/// What an error of reading from or writing to a tunnel carries when the peer reset or stopped the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamReset(pub Code);

impl fmt::Display for StreamReset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the peer reset the stream: {}", self.0)
    }
}

impl error::Error for StreamReset {}

impl From<StreamReset> for io::Error {
    fn from(reset: StreamReset) -> Self {
        Self::new(io::ErrorKind::ConnectionReset, reset)
    }
}

/// The code with which the peer reset or stopped a stream; `None` for errors of another kind.
pub fn reset_code(error: &io::Error) -> Option<Code> {
    let inner = error.get_ref()?;
    if let Some(StreamReset(code)) = inner.downcast_ref() {
        return Some(*code);
    }
    if let Some(ReadError::Reset(code)) = inner.downcast_ref() {
        return Some(*code);
    }
    match inner.downcast_ref() {
        Some(WriteError::Stopped(code)) => Some(*code),
        _ => None,
    }
}

impl RecvHalf for RecvStream {
    fn stop(&mut self, code: Code) {
        // A stream that is over has nothing to stop.
        let _ = Self::stop(self, code);
    }
}

impl SendHalf for SendStream {
    fn reset(&mut self, code: Code) {
        // A stream that is over has nothing to reset.
        let _ = Self::reset(self, code);
    }
}

/// Settings of [`splice_tcp`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpliceOptions {
    /// Ends the tunnel when nothing moved in either direction for this long. Default never.
    pub idle: Option<Duration>,
    /// Bytes copied at once, per direction; this is also all that is held between the two ends. Default 64 KiB.
    pub buffer: usize,
}

impl Default for SpliceOptions {
    fn default() -> Self {
        Self {
            idle: None,
            buffer: 64 << 10,
        }
    }
}

/// What became of a splice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spliced {
    /// Bytes that came out of the tunnel and were taken by the TCP connection.
    pub from_tunnel: u64,
    /// Bytes that came from the TCP connection and were taken by the tunnel.
    pub to_tunnel: u64,
    /// How it ended.
    pub end: SpliceEnd,
}

/// How a splice ended. All but the first end both sides at once.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SpliceEnd {
    /// Both directions ended with FIN.
    Finished,
    /// The other end of the tunnel reset or stopped it.
    TunnelReset(Code),
    /// The tunnel went away with its connection.
    TunnelLost(String),
    /// The TCP connection was reset or failed.
    TcpReset(String),
    /// Nothing moved for the time given.
    Idle,
    /// The caller ended it.
    Cut(Code),
}

impl SpliceEnd {
    /// What the other end of the tunnel is told; `None` after an ordinary end.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Finished => None,
            Self::TunnelReset(code) | Self::Cut(code) => Some(*code),
            Self::TunnelLost(_) => Some(Code::PEER_GONE),
            Self::TcpReset(_) => Some(Code::TCP_RESET),
            Self::Idle => Some(Code::TIMEOUT),
        }
    }
}

impl fmt::Display for SpliceEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Finished => f.write_str("finished"),
            Self::TunnelReset(code) => write!(f, "reset by the peer: {code}"),
            Self::TunnelLost(why) => write!(f, "tunnel lost: {why}"),
            Self::TcpReset(why) => write!(f, "TCP connection reset: {why}"),
            Self::Idle => f.write_str("idle"),
            Self::Cut(code) => write!(f, "{code}"),
        }
    }
}

/// Copies between a TCP connection and a tunnel until both directions have ended, or the first fault, or `cut` is ready.
///
/// Whatever it is, it is over on both sides when this returns, and the counts are exact. Dropping the future drops all three
/// handles instead.
pub async fn splice_tcp<R: RecvHalf, W: SendHalf>(
    tcp: TcpStream,
    mut recv: R,
    mut send: W,
    options: &SpliceOptions,
    cut: impl Future<Output = Code>,
) -> Spliced {
    let up = Flow::default();
    let down = Flow::default();
    let started = Instant::now();
    let both = async {
        tokio::try_join!(
            tcp_to_tunnel(&tcp, &mut send, &up, options.buffer, started),
            tunnel_to_tcp(&mut recv, &tcp, &down, options.buffer, started),
        )
    };
    let end = tokio::select! {
        biased;
        done = both => done.err().unwrap_or(SpliceEnd::Finished),
        error = tcp_error(&tcp) => tcp_fault(&error),
        () = idle([&up, &down], options.idle, started) => SpliceEnd::Idle,
        code = cut => SpliceEnd::Cut(code),
    };
    if let Some(code) = end.code() {
        // A direction that ended with FIN is left alone: its last bytes may still be on their way.
        if !up.is_done() {
            send.reset(code);
        }
        if !down.is_done() {
            recv.stop(code);
        }
        reset_tcp(tcp);
    }
    Spliced {
        from_tunnel: down.bytes(),
        to_tunnel: up.bytes(),
        end,
    }
}

/// Closes a TCP connection with a reset (RST) instead of an orderly end, so that the peer sees an error.
pub fn reset_tcp(tcp: TcpStream) {
    // Where that cannot be set the connection is gone already, and nothing is left to be told.
    let _ = SockRef::from(&tcp).set_linger(Some(Duration::ZERO));
    drop(tcp);
}

/// What one direction did so far. Atomics only because the future may move between threads.
#[derive(Debug, Default)]
struct Flow {
    bytes: AtomicU64,
    /// Milliseconds from the start to the last progress.
    last: AtomicU64,
    done: AtomicU64,
}

impl Flow {
    fn progress(&self, bytes: usize, started: Instant) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let last = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(last, Ordering::Relaxed);
    }

    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn finish(&self) {
        self.done.store(1, Ordering::Relaxed);
    }

    fn is_done(&self) -> bool {
        self.done.load(Ordering::Relaxed) == 1
    }
}

async fn tcp_to_tunnel<W: SendHalf>(
    tcp: &TcpStream,
    send: &mut W,
    flow: &Flow,
    size: usize,
    started: Instant,
) -> Result<(), SpliceEnd> {
    let mut buffer = vec![0; size];
    loop {
        let length = read_tcp(tcp, &mut buffer).await.map_err(|error| tcp_fault(&error))?;
        let mut rest = buffer.get(..length).unwrap_or_default();
        if rest.is_empty() {
            break;
        }
        while !rest.is_empty() {
            let written = send.write(rest).await.map_err(|error| tunnel_fault(&error))?;
            if written == 0 {
                return Err(tunnel_fault(&io::ErrorKind::WriteZero.into()));
            }
            flow.progress(written, started);
            rest = rest.get(written..).unwrap_or_default();
        }
    }
    send.shutdown().await.map_err(|error| tunnel_fault(&error))?;
    flow.finish();
    Ok(())
}

async fn tunnel_to_tcp<R: RecvHalf>(
    recv: &mut R,
    tcp: &TcpStream,
    flow: &Flow,
    size: usize,
    started: Instant,
) -> Result<(), SpliceEnd> {
    let mut buffer = vec![0; size];
    loop {
        let length = recv.read(&mut buffer).await.map_err(|error| tunnel_fault(&error))?;
        let mut rest = buffer.get(..length).unwrap_or_default();
        if rest.is_empty() {
            break;
        }
        while !rest.is_empty() {
            let written = write_tcp(tcp, rest).await.map_err(|error| tcp_fault(&error))?;
            flow.progress(written, started);
            rest = rest.get(written..).unwrap_or_default();
        }
    }
    // Before the shutdown: the tunnel's direction is over whatever becomes of the FIN.
    flow.finish();
    SockRef::from(tcp)
        .shutdown(Shutdown::Write)
        .map_err(|error| tcp_fault(&error))
}

async fn read_tcp(tcp: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        tcp.readable().await?;
        match tcp.try_read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            done => return done,
        }
    }
}

async fn write_tcp(tcp: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    loop {
        tcp.writable().await?;
        match tcp.try_write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            done => return done,
        }
    }
}

/// Ready with the error that the TCP connection died of. While a direction waits for the tunnel nobody else would notice.
async fn tcp_error(tcp: &TcpStream) -> io::Error {
    if tcp.ready(Interest::ERROR).await.is_ok()
        && let Ok(Some(error)) = tcp.take_error()
    {
        return error;
    }
    // Whoever read or wrote meanwhile was told instead.
    pending().await
}

async fn idle(flows: [&Flow; 2], limit: Option<Duration>, started: Instant) {
    let Some(limit) = limit else {
        return pending().await;
    };
    loop {
        let last = flows.map(|flow| flow.last.load(Ordering::Relaxed)).into_iter().max();
        let due = started + Duration::from_millis(last.unwrap_or_default()) + limit;
        if due <= Instant::now() {
            return;
        }
        tokio::time::sleep_until(due).await;
    }
}

fn tcp_fault(error: &io::Error) -> SpliceEnd {
    SpliceEnd::TcpReset(error.to_string())
}

fn tunnel_fault(error: &io::Error) -> SpliceEnd {
    match reset_code(error) {
        Some(code) => SpliceEnd::TunnelReset(code),
        None => SpliceEnd::TunnelLost(error.to_string()),
    }
}
