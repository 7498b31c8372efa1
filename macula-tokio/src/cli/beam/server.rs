//! The part of EPMD: the local node registers here, and asks here for its peers.

use std::{
    convert::Infallible,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use macula_proto::Rng;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::timeout,
};

use super::{
    super::{events::Events, outcome::Failure},
    args::BeamName,
    epmd::{self, MAX_REQUEST, Registration, Request},
    events::BeamEvent,
};

/// Clients at once, the node that is registered among them; more are turned away.
const MAX_CLIENTS: usize = 64;
/// How long a client may take to say what it wants, and to take its answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a name that is taken is waited for: its node may have ended, and nobody have noticed yet.
const LAST_LIFE: Duration = Duration::from_secs(1);
/// How long to take a breath when no connection can be accepted, for want of file descriptors for instance.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long whoever has taken our port may take to say who it is.
const INQUIRY: Duration = Duration::from_secs(1);
/// The longest answer to that which is read.
const MAX_ANSWER: u64 = 4096;
/// Creations below are those that EPMD gave to nodes before version 6.
const FIRST_CREATION: u32 = 4;

/// The port mapper at one TCP port of several addresses.
#[derive(Debug)]
pub(super) struct Epmd {
    shared: Arc<Shared>,
    listeners: Vec<(Answers, TcpListener)>,
}

#[derive(Debug)]
struct Shared {
    port: u16,
    local: BeamName,
    registered: watch::Sender<Option<Registration>>,
    creation: watch::Sender<u32>,
    events: Events,
}

/// For whom the port mapper at one address answers.
#[derive(Debug, Clone)]
enum Answers {
    /// The local node, once it is registered.
    Local,
    /// A peer, whose connections are taken at a port here.
    Peer(Arc<Registration>),
}

impl Epmd {
    /// Listens for the local node, which may register now and then, and is found at 127.0.0.1 as well.
    pub(super) async fn bind(local: BeamName, port: u16, rng: &mut Rng, events: Events) -> Result<Self, Failure> {
        let hosts = [Ipv4Addr::LOCALHOST, local.host];
        let creation = u32::from_be_bytes(rng.bytes());
        let mut epmd = Self {
            shared: Arc::new(Shared {
                port,
                local,
                registered: watch::Sender::new(None),
                creation: watch::Sender::new(creation),
                events,
            }),
            listeners: Vec::new(),
        };
        for host in hosts {
            epmd.listeners.push((Answers::Local, listen(host, port).await?));
        }
        Ok(epmd)
    }

    /// Answers at the address of a peer that it listens at a port there, which is where the returned listener does.
    pub(super) async fn add_peer(&mut self, peer: &BeamName) -> Result<(TcpListener, SocketAddr), Failure> {
        let listener = listen(peer.host, self.shared.port).await?;
        let failed = |error| Failure::failed("listen", format_args!("cannot listen on {}: {error}", peer.host));
        let door = TcpListener::bind((peer.host, 0)).await.map_err(failed)?;
        let addr = door.local_addr().map_err(failed)?;
        let answers = Answers::Peer(Arc::new(Registration::assumed(&peer.short, addr.port())));
        self.listeners.push((answers, listener));
        Ok((door, addr))
    }

    /// Where it listens.
    pub(super) fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.listeners
            .iter()
            .map(|(_, listener)| listener.local_addr())
            .collect()
    }

    /// What the local node has registered.
    pub(super) fn registered(&self) -> watch::Receiver<Option<Registration>> {
        self.shared.registered.subscribe()
    }

    /// Answers for ever. Dropping the future closes all connections, so that the node is not registered any more.
    pub(super) async fn serve(&self) -> Infallible {
        let mut clients = JoinSet::new();
        loop {
            tokio::select! {
                (answers, accepted) = accept(&self.listeners) => match accepted {
                    Ok(tcp) if clients.len() < MAX_CLIENTS => {
                        let (shared, answers) = (self.shared.clone(), answers.clone());
                        clients.spawn(async move { shared.client(tcp, &answers).await });
                    }
                    Ok(_) => tracing::warn!("too many EPMD clients: one was turned away"),
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept an EPMD client");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(ended) = clients.join_next() => if let Err(error) = ended {
                    tracing::error!(%error, "the task of an EPMD client failed");
                },
            }
        }
    }
}

impl Shared {
    /// One connection, from its request to its end.
    async fn client(&self, mut tcp: TcpStream, answers: &Answers) {
        let request = match timeout(PATIENCE, read_request(&mut tcp)).await {
            Ok(Ok(request)) => request,
            Ok(Err(error)) => return tracing::info!(%error, "no EPMD request"),
            Err(_) => return tracing::info!("an EPMD client asked nothing"),
        };
        let answer = match request {
            Request::Register(node) => return self.register(tcp, node, answers).await,
            Request::Port(name) => epmd::port(self.known(answers).filter(|node| node.name == name).as_ref()),
            Request::Names => epmd::names(self.port, &self.known(answers)),
            Request::Kill => epmd::kill_refused(),
            Request::Stop => epmd::stop_refused(),
            // It would be closed without an answer by others too that do not want to be asked.
            Request::Dump => return,
        };
        let _ = say(&mut tcp, &answer).await;
    }

    fn known(&self, answers: &Answers) -> Option<Registration> {
        match answers {
            Answers::Local => self.registered.borrow().clone(),
            Answers::Peer(peer) => Some(Registration::clone(peer)),
        }
    }

    async fn register(&self, mut tcp: TcpStream, node: Registration, answers: &Answers) {
        let (port, highest) = (node.port, node.highest);
        let Some(_registered) = self.admit(node, answers).await else {
            let _ = say(&mut tcp, &epmd::registered(highest, None)).await;
            return;
        };
        let creation = self.next_creation();
        if say(&mut tcp, &epmd::registered(highest, Some(creation))).await.is_err() {
            return;
        }
        let name = || self.local.to_string();
        BeamEvent::Registered { node: name(), port }.tell(&self.events);
        // A registered node says nothing more; whatever it is, only the end matters.
        let mut nothing = [0; 64];
        while matches!(tcp.read(&mut nothing).await, Ok(1..)) {}
        BeamEvent::Unregistered { node: name() }.tell(&self.events);
    }

    /// Takes a registration down, or tells why not.
    async fn admit(&self, node: Registration, answers: &Answers) -> Option<Registered<'_>> {
        let refused = |why: &str| {
            let name = String::from_utf8_lossy(&node.name);
            self.events
                .error("register", format_args!("a node {name:?} was not registered: {why}"));
        };
        if !matches!(answers, Answers::Local) {
            refused("it came to the address of a peer");
            return None;
        }
        if node.name != self.local.short.as_bytes() {
            refused(&format!("this is the EPMD of {} alone", self.local));
            return None;
        }
        if node.port == 0 {
            refused("it listens nowhere");
            return None;
        }
        if !self.take(&node) {
            let mut registered = self.registered.subscribe();
            let gone = registered.wait_for(Option::is_none);
            let _ = timeout(LAST_LIFE, gone).await;
            if !self.take(&node) {
                refused("the name is taken by a node that runs");
                return None;
            }
        }
        Some(Registered(self))
    }

    fn take(&self, node: &Registration) -> bool {
        self.registered.send_if_modified(|registered| {
            let free = registered.is_none();
            if free {
                *registered = Some(node.clone());
            }
            free
        })
    }

    /// Another one for every life of the node.
    fn next_creation(&self) -> u32 {
        let mut next = 0;
        self.creation.send_modify(|creation| {
            *creation = creation.checked_add(1).unwrap_or_default().max(FIRST_CREATION);
            next = *creation;
        });
        next
    }
}

/// Holds while the node's connection is there.
struct Registered<'a>(&'a Shared);

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.0.registered.send_replace(None);
    }
}

async fn accept(listeners: &[(Answers, TcpListener)]) -> (&Answers, io::Result<TcpStream>) {
    std::future::poll_fn(|cx| {
        for (answers, listener) in listeners {
            if let std::task::Poll::Ready(accepted) = listener.poll_accept(cx) {
                return std::task::Poll::Ready((answers, accepted.map(|(tcp, _)| tcp)));
            }
        }
        std::task::Poll::Pending
    })
    .await
}

async fn read_request(tcp: &mut TcpStream) -> io::Result<Request> {
    let mut bytes = Vec::with_capacity(64);
    loop {
        match epmd::request(&bytes) {
            Ok(Some(request)) => return Ok(request),
            Ok(None) => {}
            Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        }
        // With its length field; more is never kept.
        let room = MAX_REQUEST + 2 - bytes.len();
        let mut limited = (&mut *tcp).take(u64::try_from(room).unwrap_or_default());
        if limited.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

async fn say(tcp: &mut TcpStream, answer: &[u8]) -> io::Result<()> {
    match timeout(PATIENCE, tcp.write_all(answer)).await {
        Ok(said) => said,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Listens, or says what stands in the way and what helps.
async fn listen(host: Ipv4Addr, port: u16) -> Result<TcpListener, Failure> {
    let addr = SocketAddr::from((host, port));
    let error = match TcpListener::bind(addr).await {
        Ok(listener) => return Ok(listener),
        Err(error) => error,
    };
    let help = match error.kind() {
        io::ErrorKind::AddrInUse => taken(addr).await,
        io::ErrorKind::AddrNotAvailable => {
            format!("{error}: on macOS every loopback address is made first, with `sudo ifconfig lo0 alias {host}`")
        }
        _ => error.to_string(),
    };
    Err(Failure::failed(
        "listen",
        format_args!("cannot listen on {addr}: {help}"),
    ))
}

/// Who has taken the address, and what to do.
async fn taken(addr: SocketAddr) -> String {
    let another = "give this command and its node another port: --epmd-port here, and ERL_EPMD_PORT in the environment of \
                   the node";
    match timeout(INQUIRY, inquire(addr)).await {
        Ok(Ok(Some(nodes))) => {
            let nodes = if nodes.is_empty() {
                "no node".to_owned()
            } else {
                nodes.join(", ")
            };
            format!(
                "an EPMD or another `macula beam` listens there already, with {nodes} registered. Either end it (`epmd -kill`) \
                 and start this command before the node; or {another}"
            )
        }
        _ => format!("another program listens there, which is no EPMD. Either end it; or {another}"),
    }
}

/// The names that an EPMD answers with, if it is one.
async fn inquire(addr: SocketAddr) -> io::Result<Option<Vec<String>>> {
    let mut tcp = TcpStream::connect(addr).await?;
    tcp.write_all(&epmd::names_request()).await?;
    let mut answer = Vec::new();
    tcp.take(MAX_ANSWER).read_to_end(&mut answer).await?;
    Ok(epmd::names_in(&answer, addr.port()))
}
