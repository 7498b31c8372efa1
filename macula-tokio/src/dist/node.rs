use std::{fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use macula_proto::{
    dist::{
        handshake::{Failure, Role, Standing},
        node::{Call, CommandError, NodeStats, RegisterError, Signal, Target},
    },
    wire::etf::{Atom, Pid, Term},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{broadcast, oneshot},
    time::{Instant, timeout, timeout_at},
};

use super::{CallError, ConnectError, Mailbox, NodeConfig, NodeEvent, carrier::ByteStream, connection, shared::Shared};

/// How long a listener rests after it could not accept, for lack of file descriptors perhaps.
const REST: Duration = Duration::from_millis(100);

/// A node. Clones are the same node, which ends with the last of them and of its mailboxes.
#[derive(Clone)]
pub struct Node(Arc<Handle>);

struct Handle(Arc<Shared>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Node {
    /// Starts a node, without connections and listeners. Call it, and everything else here, within a tokio runtime.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] for a name that is not `name@host`; those of the operating system's randomness.
    pub fn start(config: NodeConfig) -> io::Result<Self> {
        let shared = Shared::new(config)?;
        Ok(Self(Arc::new(Handle(Arc::new(shared)))))
    }

    /// Listens for nodes on a TCP address, until the node ends; returns the address with its real port. Erlang nodes find it
    /// through a port mapper ([`epmd`](super::epmd)), or take the port for granted (`-erl_epmd_port`).
    ///
    /// # Errors
    /// Those of the operating system.
    pub async fn listen(&self, address: SocketAddr) -> io::Result<SocketAddr> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let shared = Arc::clone(self.shared());
        let task = tokio::spawn(accept(shared, listener));
        self.shared().lock().listeners.push(task.abort_handle());
        Ok(address)
    }

    /// Connects to the node of that name at a TCP address, and waits until it is done. At once there if the nodes are connected; if both
    /// dial at once, one connection stays. Dropping the future leaves the dial to go on.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect(&self, name: &str, address: SocketAddr) -> Result<(), ConnectError> {
        let dial = async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(stream)
        };
        self.dial(name, dial).await
    }

    /// As [`connect`](Self::connect), over a stream of bytes that leads to the other node: TLS, or a tunnel.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect_over<S>(&self, name: &str, stream: S) -> Result<(), ConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.dial(name, async move { Ok(stream) }).await
    }

    /// Lets a node in that calls over a stream of bytes. The connection is then the node's affair.
    pub fn accept_over<S>(&self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        admit(self.shared(), stream);
    }

    async fn dial<S>(
        &self,
        name: &str,
        stream: impl Future<Output = io::Result<S>> + Send + 'static,
    ) -> Result<(), ConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let peer = Atom::new(name).map_err(|_| ConnectError::Name)?;
        if peer == self.shared().name || !peer.contains('@') {
            return Err(ConnectError::Name);
        }
        let shared = Arc::clone(self.shared());
        let deadline = Instant::now() + shared.config.setup_time;
        let dial = {
            let mut state = shared.lock();
            let (id, link) = state.add_connection();
            state
                .table
                .dial(&peer, id)
                .map(|()| (id, link))
                .map_err(|standing| (standing, id))
        };
        let (id, link) = match dial {
            Ok(dial) => dial,
            Err((standing, id)) => {
                shared.gone(id, None, super::DownReason::Closed);
                return match standing {
                    Standing::Connected | Standing::Replacing => Ok(()),
                    _ => self.met(&peer, deadline, Failure::TimedOut).await,
                };
            }
        };
        let (tell, told) = oneshot::channel();
        let role = Role::Dialler { peer: peer.clone() };
        let dialled = peer.clone();
        tokio::spawn(async move {
            let opened = tokio::select! {
                opened = timeout_at(deadline, stream) => opened.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
                () = link.close.notified() => Err(io::ErrorKind::ConnectionAborted.into()),
            };
            match opened {
                Ok(stream) => {
                    let on_up = |result: Result<(), Failure>| {
                        let _ = tell.send(result.map_err(ConnectError::Handshake));
                    };
                    connection::run(shared, (id, link), role, ByteStream::new(stream), on_up).await;
                }
                Err(error) => {
                    shared.gone(id, Some(&dialled), super::DownReason::Closed);
                    let _ = tell.send(Err(ConnectError::Io(error)));
                }
            }
        });
        match told.await.unwrap_or(Err(ConnectError::Handshake(Failure::Lost))) {
            // The other node's own dial may be the one that stays.
            Err(ConnectError::Handshake(failure @ (Failure::Nok | Failure::Aborted))) => {
                self.met(&peer, deadline, failure).await
            }
            Err(ConnectError::Io(error)) if error.kind() == io::ErrorKind::ConnectionAborted => {
                self.met(&peer, deadline, Failure::Aborted).await
            }
            result => result,
        }
    }

    /// Waits until a connection that was not begun here is up.
    async fn met(&self, peer: &Atom, deadline: Instant, failure: Failure) -> Result<(), ConnectError> {
        let up = async {
            loop {
                let changed = self.shared().changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if self.shared().lock().node.connection(peer).is_some() {
                    return;
                }
                changed.await;
            }
        };
        timeout_at(deadline, up)
            .await
            .map_err(|_| ConnectError::Handshake(failure))
    }

    /// Closes the connection with a node, after what is still to be sent, for which there is a second. Whether there was one.
    pub fn disconnect(&self, name: &str) -> bool {
        let state = self.shared().lock();
        let connection = state.node.connection(name);
        if let Some(connection) = connection {
            state.close(connection);
        }
        connection.is_some()
    }

    /// A new process.
    ///
    /// # Errors
    /// [`CommandError::Limit`]; [`CommandError::Ended`] once the node has [shut down](Self::shutdown).
    pub fn mailbox(&self) -> Result<Mailbox, CommandError> {
        let (pid, wake) = self.shared().add_mailbox()?;
        Ok(Mailbox::new(self.clone(), pid, wake))
    }

    /// Gives a process a name, by which others reach it.
    ///
    /// # Errors
    /// [`RegisterError`].
    pub fn register(&self, name: &str, mailbox: &Mailbox) -> Result<(), RegisterError> {
        let name = Atom::new(name).or_else(|_| Atom::new("undefined"));
        let name = name.map_err(|_| RegisterError::Ended)?;
        self.shared().lock().node.register(name, mailbox.pid())
    }

    /// Takes a name away again. Whether a process had it.
    pub fn unregister(&self, name: &str) -> bool {
        self.shared().lock().node.unregister(name)
    }

    /// The process with a name.
    pub fn whereis(&self, name: &str) -> Option<Pid> {
        self.shared().lock().node.whereis(name)
    }

    /// Sends a message from the node itself; see [`Mailbox::send`].
    ///
    /// # Errors
    /// [`CommandError`].
    pub async fn send(&self, to: impl Into<Target>, term: impl Into<Term>) -> Result<(), CommandError> {
        self.shared().send(None, &to.into(), term.into()).await
    }

    /// `gen_server:call`, without a time-out: put `tokio::time::timeout` around it. An answer that comes after the future was dropped is lost.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn call(&self, to: impl Into<Target>, request: impl Into<Term>) -> Result<Term, CallError> {
        let to = to.into();
        let mut mailbox = self.mailbox()?;
        let monitor = mailbox.monitor(to.clone()).await?;
        let call = Call::new(mailbox.pid().clone(), monitor.clone(), request);
        match mailbox.send(to, call.into_term()).await {
            // The down says why.
            Ok(()) | Err(CommandError::NotConnected(_)) => {}
            Err(error) => return Err(error.into()),
        }
        loop {
            match mailbox.recv().await.ok_or(CommandError::Ended)? {
                Signal::Message { term, .. } => {
                    if let Ok(answer) = Call::answer(term, &monitor) {
                        return Ok(answer);
                    }
                }
                Signal::Down { reference, reason, .. } if reference == monitor => return Err(CallError::Down(reason)),
                Signal::Down { .. } | Signal::Exit { .. } => {}
            }
        }
    }

    /// `net_adm:ping` over the connection that there is: whether the other node answers, within the time that a connection may take
    /// to be set up.
    pub async fn ping(&self, name: &str) -> bool {
        let (Ok(node), Ok(net_kernel), Ok(is_auth)) = (Atom::new(name), Atom::new("net_kernel"), Atom::new("is_auth"))
        else {
            return false;
        };
        let request = [Term::Atom(is_auth), Term::Atom(self.shared().name.clone())];
        let call = self.call((net_kernel, node), request);
        let answer = timeout(self.shared().config.setup_time, call).await;
        matches!(answer, Ok(Ok(answer)) if answer.is_atom("yes"))
    }

    /// The nodes that there is a connection with, by name.
    pub fn nodes(&self) -> Vec<Atom> {
        self.shared()
            .lock()
            .node
            .peers()
            .map(|(peer, _)| peer.clone())
            .collect()
    }

    /// What comes and goes from now on.
    pub fn events(&self) -> Events {
        Events(self.shared().events.subscribe())
    }

    /// The node's name.
    pub fn name(&self) -> &Atom {
        &self.shared().name
    }

    /// Which run of the node this is.
    pub fn creation(&self) -> u32 {
        self.shared().creation
    }

    /// What was done.
    pub fn stats(&self) -> NodeStats {
        self.shared().lock().node.stats()
    }

    /// Ends the node: its listeners and mailboxes at once, its connections after what is still to be sent, for which there is a second.
    /// Returns when all are closed.
    pub async fn shutdown(&self) {
        self.shared().close();
        loop {
            let changed = self.shared().changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.shared().lock().connections() == 0 {
                return;
            }
            changed.await;
        }
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.0.0
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Node").field(&self.shared().name).finish()
    }
}

async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let _ = stream.set_nodelay(true);
                admit(&shared, stream);
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(REST).await;
            }
        }
    }
}

fn admit<S>(shared: &Arc<Shared>, stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = {
        let mut state = shared.lock();
        if state.connections() >= shared.config.connections {
            tracing::debug!("too many connections");
            return;
        }
        state.add_connection()
    };
    let run = connection::run(
        Arc::clone(shared),
        connection,
        Role::Acceptor,
        ByteStream::new(stream),
        |_| {},
    );
    tokio::spawn(run);
}

/// What comes and goes, for one subscriber.
#[derive(Debug)]
pub struct Events(broadcast::Receiver<NodeEvent>);

impl Events {
    /// The next event; `None` once the node has ended. Cancellation-safe.
    pub async fn next(&mut self) -> Option<NodeEvent> {
        match self.0.recv().await {
            Ok(event) => Some(event),
            Err(broadcast::error::RecvError::Lagged(missed)) => Some(NodeEvent::Missed(missed)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}
