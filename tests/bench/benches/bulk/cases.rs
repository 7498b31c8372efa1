//! The cases: who sends to whom on what.

use std::{
    future::Future,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use macula_bench::{Result, our_setup, quinn_setup::Setup};
use macula_driver::{Connection, Endpoint, Options};
use macula_proto::quic::{
    DatagramSize, DialConfig, ListenConfig,
    tls::{ClientTls, Credentials, ServerTls, Trust},
};
use tokio::runtime::{Builder, Runtime};

/// Bytes given to a write, and room given to a read.
const BLOCK: usize = 64 << 10;
const PROTOCOL: &[u8] = b"bulk";

pub(crate) const QUINN_MT: &str = "quinn MT";
pub(crate) const QUINN_CT: &str = "quinn CT";

/// Whose endpoints, and on what they run.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Quinn(Threads),
    Tokio(Threads, DatagramSize),
    Smol(DatagramSize),
}

/// Of each party.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Threads {
    Many,
    One,
}

#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    kind: Kind,
}

const fn case(name: &'static str, kind: Kind) -> Case {
    Case { name, kind }
}

/// quinn's ceiling, unless told otherwise.
const USUAL: DatagramSize = DatagramSize::UpTo(1452);
const JUMBO: DatagramSize = DatagramSize::UpTo(9000);
const LARGEST: DatagramSize = DatagramSize::Discover;

pub(crate) const CASES: [Case; 11] = [
    case(QUINN_MT, Kind::Quinn(Threads::Many)),
    case(QUINN_CT, Kind::Quinn(Threads::One)),
    case("macula-tokio MT", Kind::Tokio(Threads::Many, USUAL)),
    case("macula-tokio CT", Kind::Tokio(Threads::One, USUAL)),
    case("macula-smol", Kind::Smol(USUAL)),
    case("macula-tokio MT, 9000", Kind::Tokio(Threads::Many, JUMBO)),
    case("macula-tokio CT, 9000", Kind::Tokio(Threads::One, JUMBO)),
    case("macula-smol, 9000", Kind::Smol(JUMBO)),
    case("macula-tokio MT, 65000", Kind::Tokio(Threads::Many, LARGEST)),
    case("macula-tokio CT, 65000", Kind::Tokio(Threads::One, LARGEST)),
    case("macula-smol, 65000", Kind::Smol(LARGEST)),
];

type Running<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What runs the futures of a party.
#[derive(Debug, Clone)]
enum Executor {
    Tokio(Arc<Runtime>),
    Smol,
}

impl Executor {
    fn tokio(threads: Threads) -> Result<Self> {
        let mut builder = match threads {
            Threads::Many => Builder::new_multi_thread(),
            Threads::One => Builder::new_current_thread(),
        };
        Ok(Self::Tokio(Arc::new(builder.enable_all().build()?)))
    }

    fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        match self {
            Self::Tokio(runtime) => runtime.block_on(future),
            Self::Smol => smol::block_on(future),
        }
    }

    fn spawn<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> Running<T> {
        match self {
            Self::Tokio(runtime) => {
                let task = runtime.spawn(future);
                Box::pin(async { task.await.expect("it does not panic") })
            }
            Self::Smol => Box::pin(smol::spawn(future)),
        }
    }

    /// Starts a task that nobody waits for.
    fn start(&self, future: impl Future<Output = Result<()>> + Send + 'static) {
        match self {
            Self::Tokio(runtime) => drop(runtime.spawn(future)),
            // A task of smol ends with its handle.
            Self::Smol => smol::spawn(future).detach(),
        }
    }

    /// Runs a future for good, on a thread of its own where there are no others.
    fn serve(&self, future: impl Future<Output = ()> + Send + 'static) {
        let this = self.clone();
        std::thread::spawn(move || this.block_on(future));
    }

    fn bind(&self) -> Result<Endpoint> {
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let options = Options::default();
        Ok(match self {
            Self::Tokio(runtime) => {
                let _entered = runtime.enter();
                (*macula_tokio::Endpoint::bind(at, options)?).clone()
            }
            Self::Smol => (*macula_smol::Endpoint::bind(at, options)?).clone(),
        })
    }
}

/// The connection of a case, at the sender.
enum Sender {
    Ours(Connection),
    Quinn(quinn::Connection),
}

/// A case, set up.
pub(crate) struct Scene {
    executor: Executor,
    sender: Sender,
    /// What lives as long as the connection.
    _endpoint: Box<dyn std::any::Any>,
}

impl Scene {
    pub(crate) fn build(case: &Case) -> Result<Self> {
        let credentials = our_setup::credentials()?;
        match case.kind {
            Kind::Quinn(threads) => Self::quinn(&credentials, threads),
            Kind::Tokio(threads, size) => Self::ours(
                credentials,
                [Executor::tokio(threads)?, Executor::tokio(threads)?],
                size,
            ),
            Kind::Smol(size) => Self::ours(credentials, [Executor::Smol, Executor::Smol], size),
        }
    }

    fn ours(credentials: Credentials, [near, far]: [Executor; 2], size: DatagramSize) -> Result<Self> {
        let pin = credentials.pin();
        let server = far.bind()?;
        let tls = ServerTls::new(credentials).alpn([PROTOCOL]).build(server.clock())?;
        let mut listen = ListenConfig::new(tls);
        listen.transport.datagram_size = size;
        server.listen(listen)?;
        let remote = server.local_addr();
        let tasks = far.clone();
        far.serve(async move {
            let Some(connection) = server.accept().await else {
                return;
            };
            while let Ok(stream) = connection.accept_bi().await {
                tasks.start(take_ours(stream));
            }
        });
        let client = near.bind()?;
        let tls = ClientTls::new(Trust::Pins(vec![pin]))
            .alpn([PROTOCOL])
            .build(client.clock())?;
        let mut dial = DialConfig::new(tls);
        dial.transport.datagram_size = size;
        let connection = near.block_on(client.connect(&dial, remote, "localhost"))?;
        Ok(Self {
            executor: near,
            sender: Sender::Ours(connection),
            _endpoint: Box::new(client),
        })
    }

    fn quinn(credentials: &Credentials, threads: Threads) -> Result<Self> {
        let (near, far) = (Executor::tokio(threads)?, Executor::tokio(threads)?);
        let (Executor::Tokio(near_runtime), Executor::Tokio(far_runtime)) = (&near, &far) else {
            return Err("quinn is on tokio".into());
        };
        let server = {
            let _entered = far_runtime.enter();
            Setup::new(PROTOCOL).never_resuming().listen(credentials)?
        };
        let remote = server.local_addr()?;
        far.serve(async move {
            let Some(Ok(connection)) = (match server.accept().await {
                Some(incoming) => Some(incoming.await),
                None => None,
            }) else {
                return;
            };
            while let Ok((send, recv)) = connection.accept_bi().await {
                tokio::spawn(take_quinns(send, recv));
            }
        });
        let (client, config) = {
            let _entered = near_runtime.enter();
            Setup::new(PROTOCOL).never_resuming().dialler(credentials)?
        };
        let connection = near.block_on(async {
            client
                .connect_with(config, remote, "localhost")?
                .await
                .map_err(Into::into)
        });
        let connection = connection.map_err(|error: Box<dyn std::error::Error + Send + Sync>| error)?;
        Ok(Self {
            executor: near,
            sender: Sender::Quinn(connection),
            _endpoint: Box::new(client),
        })
    }

    /// Sends this many bytes over so many streams at once, and waits until the other end says that it has read them.
    pub(crate) fn send(&self, streams: usize, bytes: u64) -> Result<Duration> {
        let each = bytes / streams as u64;
        self.executor.block_on(async {
            let started = Instant::now();
            let running: Vec<_> = (0..streams)
                .map(|_| match &self.sender {
                    Sender::Ours(connection) => self.executor.spawn(send_ours(connection.clone(), each)),
                    Sender::Quinn(connection) => self.executor.spawn(send_quinns(connection.clone(), each)),
                })
                .collect();
            for stream in running {
                stream.await?;
            }
            Ok(started.elapsed())
        })
    }
}

// ----- ours --------------------------------------------------------------------------------------------------------

async fn send_ours(connection: Connection, bytes: u64) -> Result<()> {
    let block = vec![0x5a; BLOCK];
    let (mut send, mut recv) = connection.open_bi().await?.split();
    for length in blocks(bytes) {
        send.write_all(&block[..length]).await?;
    }
    send.finish()?;
    checked(recv.read_to_end(8).await?, bytes)
}

async fn take_ours(stream: macula_driver::Stream) -> Result<()> {
    let (mut send, mut recv) = stream.split();
    let (mut buffer, mut total) = (vec![0; BLOCK], 0u64);
    loop {
        match recv.read(&mut buffer).await? {
            0 => break,
            read => total += read as u64,
        }
    }
    send.write_all(&total.to_be_bytes()).await?;
    send.finish()?;
    send.delivered().await?;
    Ok(())
}

// ----- quinn's -----------------------------------------------------------------------------------------------------

async fn send_quinns(connection: quinn::Connection, bytes: u64) -> Result<()> {
    let block = vec![0x5a; BLOCK];
    let (mut send, mut recv) = connection.open_bi().await?;
    for length in blocks(bytes) {
        send.write_all(&block[..length]).await?;
    }
    send.finish()?;
    checked(Some(recv.read_to_end(8).await?), bytes)
}

async fn take_quinns(mut send: quinn::SendStream, mut recv: quinn::RecvStream) -> Result<()> {
    let (mut buffer, mut total) = (vec![0; BLOCK], 0u64);
    while let Some(read) = recv.read(&mut buffer).await? {
        total += read as u64;
    }
    send.write_all(&total.to_be_bytes()).await?;
    send.finish()?;
    send.stopped().await?;
    Ok(())
}

/// The lengths of the blocks that make this many bytes.
fn blocks(bytes: u64) -> impl Iterator<Item = usize> {
    let whole = std::iter::repeat_n(BLOCK, (bytes / BLOCK as u64) as usize);
    whole.chain(Some((bytes % BLOCK as u64) as usize).filter(|rest| *rest > 0))
}

fn checked(answer: Option<Vec<u8>>, sent: u64) -> Result<()> {
    match answer {
        Some(answer) if answer == sent.to_be_bytes() => Ok(()),
        _ => Err(format!("{sent} bytes did not all arrive").into()),
    }
}
