//! Two ends, with more and more streams between them.

use std::{
    future::Future,
    pin::Pin,
    sync::mpsc::{Sender, channel},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use futures_util::future::try_join_all;
use macula_bench::{Result, cpu};
use macula_tokio::tls::Credentials;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    runtime::Runtime,
    sync::oneshot,
};

/// Streams on which something is under way at a time.
const LANES: usize = 10;
/// Bytes of a message, and of an answer.
const MESSAGE: usize = 64;
/// Bytes of a block, its message included.
const BLOCK: usize = 16 << 10;

/// Both directions of a stream.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

pub(crate) type Boxed<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

/// The end that opens streams.
pub(crate) trait Opener: Send {
    fn open(&mut self) -> Boxed<'_, Box<dyn Duplex>>;
}

/// Starts everybody: the others on threads of their own, the opener on this one.
pub(crate) type Start = fn(Credentials) -> Boxed<'static, (Box<dyn Opener>, Vec<Party>)>;

/// What is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Streams,
    Tunnels,
    Connections,
}

impl Kind {
    pub(crate) fn name(self, work: Work) -> &'static str {
        match (self, work) {
            (_, Work::Idle) => "idle connections",
            (Self::Streams, _) => "streams",
            (Self::Tunnels, _) => "tunnels",
            (Self::Connections, _) => "connections",
        }
    }
}

/// What is done on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Work {
    Message,
    Block,
    /// A message, always on the same stream.
    Idle,
}

impl Work {
    /// Idle streams of a connection are no work for anybody, idle connections might be.
    pub(crate) fn of(kind: Kind) -> &'static [Self] {
        match kind {
            Kind::Connections => &[Self::Message, Self::Block, Self::Idle],
            Kind::Streams | Kind::Tunnels => &[Self::Message, Self::Block],
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Message => "messages",
            Self::Block => "blocks",
            Self::Idle => "messages on one",
        }
    }

    /// How often it is done in a round.
    pub(crate) fn times(self) -> usize {
        match self {
            Self::Message => 20_000,
            Self::Block => 10_000,
            Self::Idle => 5_000,
        }
    }

    /// Of what the cost is told.
    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::Message | Self::Idle => "message",
            Self::Block => "byte",
        }
    }

    /// How many of those one is.
    pub(crate) fn units(self) -> f64 {
        match self {
            Self::Message | Self::Idle => 1.0,
            Self::Block => BLOCK as f64,
        }
    }

    pub(crate) fn decimals(self) -> usize {
        match self {
            Self::Message | Self::Idle => 0,
            Self::Block => 2,
        }
    }
}

/// A thread with a runtime, for somebody who takes part. It ends when this is dropped.
pub(crate) struct Party {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Party {
    /// Runs `begin` on a thread of its own, and what it has begun until the end; answers what it tells.
    pub(crate) fn start<T: Send + 'static, F: Future<Output = Result<T>>>(
        begin: impl FnOnce() -> F + Send + 'static,
    ) -> Result<(T, Self)> {
        let (tell, told) = channel();
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn(move || run(begin, &tell, stopped));
        let party = Self {
            stop: Some(stop),
            thread: Some(thread),
        };
        Ok((told.recv()??, party))
    }
}

fn run<T, F: Future<Output = Result<T>>>(
    begin: impl FnOnce() -> F,
    tell: &Sender<Result<T>>,
    stopped: oneshot::Receiver<()>,
) {
    let begun = runtime().and_then(|runtime| {
        let begun = runtime.block_on(begin())?;
        Ok((runtime, begun))
    });
    match begun {
        Ok((runtime, begun)) => {
            let _ = tell.send(Ok(begun));
            let _ = runtime.block_on(stopped);
            runtime.shutdown_background();
        }
        Err(error) => drop(tell.send(Err(error))),
    }
}

impl Drop for Party {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// Answers every message of a stream, and what belongs to a block with it.
pub(crate) async fn answer(mut stream: impl Duplex) {
    let mut message = [0; MESSAGE];
    while stream.read_exact(&mut message).await.is_ok() {
        if message[0] == 1 {
            let mut rest = vec![0; BLOCK - MESSAGE];
            if stream.read_exact(&mut rest).await.is_err() {
                return;
            }
        }
        if stream.write_all(&message).await.is_err() {
            return;
        }
    }
}

pub(crate) struct Scene {
    pub(crate) kind: Kind,
    runtime: Runtime,
    opener: Box<dyn Opener>,
    others: Vec<Party>,
    lanes: Vec<Vec<Box<dyn Duplex>>>,
}

impl Scene {
    pub(crate) fn start(kind: Kind, start: Start, credentials: &Credentials) -> Result<Self> {
        let runtime = runtime()?;
        let (opener, others) = runtime.block_on(start(credentials.clone()))?;
        Ok(Self {
            kind,
            runtime,
            opener,
            others,
            lanes: (0..LANES).map(|_| Vec::new()).collect(),
        })
    }

    /// Opens as many as are missing.
    pub(crate) fn grow(&mut self, count: usize) -> Result<()> {
        let open = self.lanes.iter().map(Vec::len).sum();
        self.runtime.block_on(async {
            for number in open..count {
                let mut stream = self.opener.open().await?;
                ask(&mut *stream, &[0; MESSAGE]).await?;
                self.lanes[number % LANES].push(stream);
            }
            Ok(())
        })
    }

    /// Does it so often; answers what each time cost.
    pub(crate) fn work(&mut self, work: Work, times: usize) -> Result<Duration> {
        let question: &[u8] = match work {
            Work::Message | Work::Idle => &[0; MESSAGE],
            Work::Block => &[1; BLOCK],
        };
        // Fewer streams than lanes are only there when nothing is measured.
        let taken = self.lanes.iter().take_while(|lane| !lane.is_empty()).count();
        let lanes = match work {
            Work::Message | Work::Block => &mut self.lanes[..taken],
            Work::Idle => &mut self.lanes[..1],
        };
        let each = times.div_ceil(lanes.len());
        let done = each * lanes.len();
        let limit = Instant::now() + Duration::from_secs(60);
        let before = cpu::of_process(std::process::id());
        self.runtime.block_on(async {
            let lanes = lanes.iter_mut().map(|lane| async move {
                let width = if work == Work::Idle { 1 } else { lane.len() };
                for number in 0..each {
                    ask(&mut *lane[number % width], question).await?;
                }
                Result::Ok(())
            });
            tokio::time::timeout_at(limit.into(), try_join_all(lanes)).await?
        })?;
        let used = cpu::of_process(std::process::id()).saturating_sub(before);
        Ok(used / u32::try_from(done)?)
    }

    /// Ends everything, and waits for the threads.
    pub(crate) fn end(self) {
        let Self {
            runtime,
            opener,
            others,
            lanes,
            ..
        } = self;
        drop(lanes);
        drop(opener);
        runtime.shutdown_background();
        drop(others);
    }
}

async fn ask(stream: &mut dyn Duplex, question: &[u8]) -> Result<()> {
    stream.write_all(question).await?;
    let mut answer = [0; MESSAGE];
    stream.read_exact(&mut answer).await?;
    if answer[0] == question[0] {
        Ok(())
    } else {
        Err("not the answer".into())
    }
}
