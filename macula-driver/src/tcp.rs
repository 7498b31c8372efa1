//! TCP connections over tunnels.
//!
//! A tunnel carries one TCP connection: [`splice`] copies bytes both ways and passes every end on as what it is. The end
//! of one direction (FIN) leaves the other direction open. A TCP connection that was reset resets the tunnel with
//! [`Code::TCP_RESET`], and a tunnel that ends in any other way than by FIN resets the TCP connection, so that neither side
//! can mistake a cut for an end.

use std::{
    error, fmt,
    future::{Future, pending, poll_fn},
    io,
    net::Shutdown,
    pin::pin,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use macula_proto::Code;
use socket2::SockRef;

use crate::{
    ReadError, Runtime, WriteError,
    runtime::{First, first},
};

/// A TCP connection on some runtime.
pub trait Tcp: Send + Sync {
    /// Reads some bytes; 0 is the end.
    ///
    /// # Errors
    /// Those of the connection.
    fn read(&self, buffer: &mut [u8]) -> impl Future<Output = io::Result<usize>> + Send;

    /// Writes some bytes.
    ///
    /// # Errors
    /// Those of the connection.
    fn write(&self, bytes: &[u8]) -> impl Future<Output = io::Result<usize>> + Send;

    /// Ready with the error that the connection died of, also while nobody reads or writes. Whoever reads or writes may be told
    /// instead.
    fn failed(&self) -> impl Future<Output = io::Error> + Send;

    /// The socket itself.
    fn socket(&self) -> SockRef<'_>;
}

/// The receiving half of a tunnel. Errors are either a reset, for which [`reset_code`] finds the code, or mean that the tunnel is
/// lost.
pub trait TunnelRecv: Send {
    /// Reads some bytes; 0 is the end.
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>>;

    /// Tells the peer to send nothing more, and why.
    fn stop(&mut self, code: Code);
}

/// The sending half of a tunnel. Errors are as for [`TunnelRecv`], a peer that stopped the stream being a reset too.
pub trait TunnelSend: Send {
    /// Takes some bytes, which travel without a flush.
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>>;

    /// Ends the direction with FIN.
    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

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

/// Settings of a splice.
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
pub async fn splice<R: Runtime>(
    tcp: impl Tcp,
    mut recv: impl TunnelRecv,
    mut send: impl TunnelSend,
    options: &SpliceOptions,
    cut: impl Future<Output = Code>,
) -> Spliced {
    let up = Flow::default();
    let down = Flow::default();
    let started = Instant::now();
    let end = {
        let both = both(
            tcp_to_tunnel(&tcp, &mut send, &up, options.buffer, started),
            tunnel_to_tcp(&mut recv, &tcp, &down, options.buffer, started),
        );
        let copying = first(both, tcp.failed());
        let cuts = first(idle::<R>([&up, &down], options.idle, started), cut);
        match first(copying, cuts).await {
            First::One(First::One(done)) => done.err().unwrap_or(SpliceEnd::Finished),
            First::One(First::Other(error)) => tcp_fault(&error),
            First::Other(First::One(())) => SpliceEnd::Idle,
            First::Other(First::Other(code)) => SpliceEnd::Cut(code),
        }
    };
    if let Some(code) = end.code() {
        // A direction that ended with FIN is left alone: its last bytes may still be on their way.
        if !up.is_done() {
            send.reset(code);
        }
        if !down.is_done() {
            recv.stop(code);
        }
        reset_socket(&tcp.socket());
    }
    Spliced {
        from_tunnel: down.bytes(),
        to_tunnel: up.bytes(),
        end,
    }
}

/// Makes a TCP connection end with a reset (RST) instead of in good order when its last handle is dropped, so that the peer sees
/// an error.
pub fn reset_socket(socket: &SockRef<'_>) {
    // Where that cannot be set the connection is gone already, and nothing is left to be told.
    let _ = socket.set_linger(Some(Duration::ZERO));
}

/// Runs both to their ends, or to the first error.
async fn both<E>(
    one: impl Future<Output = Result<(), E>>,
    other: impl Future<Output = Result<(), E>>,
) -> Result<(), E> {
    let (mut one, mut other) = (pin!(one), pin!(other));
    let (mut one_done, mut other_done) = (false, false);
    poll_fn(|cx| {
        if !one_done && let Poll::Ready(done) = one.as_mut().poll(cx) {
            done?;
            one_done = true;
        }
        if !other_done && let Poll::Ready(done) = other.as_mut().poll(cx) {
            done?;
            other_done = true;
        }
        match one_done && other_done {
            true => Poll::Ready(Ok(())),
            false => Poll::Pending,
        }
    })
    .await
}

/// What one direction did so far. Atomics only because the future may move between threads.
#[derive(Debug, Default)]
struct Flow {
    bytes: AtomicU64,
    /// Milliseconds from the start to the last progress.
    last: AtomicU64,
    done: AtomicBool,
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
        self.done.store(true, Ordering::Relaxed);
    }

    fn is_done(&self) -> bool {
        self.done.load(Ordering::Relaxed)
    }
}

async fn tcp_to_tunnel(
    tcp: &impl Tcp,
    send: &mut impl TunnelSend,
    flow: &Flow,
    size: usize,
    started: Instant,
) -> Result<(), SpliceEnd> {
    let mut buffer = vec![0; size];
    loop {
        let length = tcp.read(&mut buffer).await.map_err(|error| tcp_fault(&error))?;
        let mut rest = buffer.get(..length).unwrap_or_default();
        if rest.is_empty() {
            break;
        }
        while !rest.is_empty() {
            let written = poll_fn(|cx| send.poll_write(cx, rest)).await;
            let written = some(written).map_err(|error| tunnel_fault(&error))?;
            flow.progress(written, started);
            rest = rest.get(written..).unwrap_or_default();
        }
    }
    let finished = poll_fn(|cx| send.poll_finish(cx)).await;
    finished.map_err(|error| tunnel_fault(&error))?;
    flow.finish();
    Ok(())
}

async fn tunnel_to_tcp(
    recv: &mut impl TunnelRecv,
    tcp: &impl Tcp,
    flow: &Flow,
    size: usize,
    started: Instant,
) -> Result<(), SpliceEnd> {
    let mut buffer = vec![0; size];
    loop {
        let length = poll_fn(|cx| recv.poll_read(cx, &mut buffer)).await;
        let length = length.map_err(|error| tunnel_fault(&error))?;
        let mut rest = buffer.get(..length).unwrap_or_default();
        if rest.is_empty() {
            break;
        }
        while !rest.is_empty() {
            let written = some(tcp.write(rest).await).map_err(|error| tcp_fault(&error))?;
            flow.progress(written, started);
            rest = rest.get(written..).unwrap_or_default();
        }
    }
    // Before the shutdown: the tunnel's direction is over whatever becomes of the FIN.
    flow.finish();
    tcp.socket()
        .shutdown(Shutdown::Write)
        .map_err(|error| tcp_fault(&error))
}

/// A write of nothing is an error.
fn some(written: io::Result<usize>) -> io::Result<usize> {
    match written {
        Ok(0) => Err(io::ErrorKind::WriteZero.into()),
        written => written,
    }
}

async fn idle<R: Runtime>(flows: [&Flow; 2], limit: Option<Duration>, started: Instant) {
    let Some(limit) = limit else {
        return pending().await;
    };
    // Outside of every runtime there is no timer to be had.
    let Ok(runtime) = R::current() else {
        return pending().await;
    };
    loop {
        let last = flows.map(|flow| flow.last.load(Ordering::Relaxed)).into_iter().max();
        let due = started + Duration::from_millis(last.unwrap_or_default()) + limit;
        if due <= Instant::now() {
            return;
        }
        runtime.sleep_until(due).await;
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
