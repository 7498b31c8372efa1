use std::{
    fmt,
    future::Future,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use macula_proto::{
    dist::{
        handshake::{Failure, Role, Standing},
        node::{Call, CommandError, NodeStats, RegisterError, Signal, Target},
    },
    wire::etf::{Atom, Pid, Term},
};

use super::{
    ByteReader, ByteWriter, CallError, ConnectError, DownReason, Mailbox, NodeConfig, NodeEvent, exchange,
    shared::{Link, Shared},
    sync::{Subscriber, outcome},
};
use crate::{
    Runtime,
    runtime::{First, first},
};

/// How long the farewells of QUIC connections may take to leave.
const LAST_PACKETS: Duration = Duration::from_secs(1);

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
    /// Starts a node whose tasks run there, without connections. They do so wherever its methods are called.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] for a name that is not `name@host`; those of the operating system's randomness.
    pub fn start_on(runtime: impl Runtime, config: NodeConfig) -> io::Result<Self> {
        let shared = Shared::new(Box::new(runtime), config)?;
        Ok(Self(Arc::new(Handle(Arc::new(shared)))))
    }

    /// Connects to the node of that name over a stream of bytes that leads to it, which `open` makes, and waits until it is done. At once
    /// there if the nodes are connected; if both dial at once, one connection stays. Dropping the future leaves the dial to go on.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect_with<R: ByteReader, W: ByteWriter>(
        &self,
        name: &str,
        open: impl Future<Output = io::Result<(R, W)>> + Send + 'static,
    ) -> Result<(), ConnectError> {
        self.dial(name, |shared, (id, link), peer, deadline| async move {
            let halves = match first(shared.until(deadline, open), link.close.raised()).await {
                First::One(Some(Ok(halves))) => halves,
                First::One(Some(Err(error))) => return Err(ConnectError::Io(error)),
                First::One(None) => return Err(ConnectError::Io(io::ErrorKind::TimedOut.into())),
                First::Other(()) => return Err(ConnectError::Handshake(Failure::Aborted)),
            };
            let (tell, told) = outcome();
            let on_up = |result: Result<(), Failure>| tell.tell(result.map_err(ConnectError::Handshake));
            let task = Arc::clone(&shared);
            shared.spawn(exchange::run(task, (id, link), Role::Dialler { peer }, halves, on_up));
            told.told().await.unwrap_or(Err(ConnectError::Handshake(Failure::Lost)))
        })
        .await
    }

    /// Who lets nodes in that call over streams of bytes. It does not keep the node alive.
    pub fn admission(&self) -> Admission {
        Admission(Arc::clone(self.shared()))
    }

    /// Begins a connection, which `open` opens and leaves to a task of its own once it is up or in its handshake.
    pub(super) async fn dial<F>(
        &self,
        name: &str,
        open: impl FnOnce(Arc<Shared>, (u64, Arc<Link>), Atom, Instant) -> F,
    ) -> Result<(), ConnectError>
    where
        F: Future<Output = Result<(), ConnectError>> + Send + 'static,
    {
        let peer = Atom::new(name).map_err(|_| ConnectError::Name)?;
        if peer == self.shared().name || !peer.contains('@') {
            return Err(ConnectError::Name);
        }
        let shared = Arc::clone(self.shared());
        let deadline = Instant::now() + shared.config.setup_time;
        let begun = {
            let mut state = shared.lock();
            let (id, link) = state.add_connection();
            let dial = state.table.dial(&peer, id);
            dial.map(|()| (id, link)).map_err(|standing| (standing, id))
        };
        let (id, link) = match begun {
            Ok(begun) => begun,
            Err((standing, id)) => {
                shared.gone(id, None, DownReason::Closed);
                return match standing {
                    Standing::Connected | Standing::Replacing => Ok(()),
                    _ => self.met(&peer, deadline, Failure::TimedOut).await,
                };
            }
        };
        let (tell, told) = outcome();
        let opening = open(Arc::clone(&shared), (id, link), peer.clone(), deadline);
        let (task, dialled) = (Arc::clone(&shared), peer.clone());
        shared.spawn(async move {
            let opened = opening.await;
            if opened.is_err() {
                task.gone(id, Some(&dialled), DownReason::Closed);
            }
            tell.tell(opened);
        });
        let lost = ConnectError::Handshake(Failure::Lost);
        match told.told().await.unwrap_or(Err(lost)) {
            // The other node's own dial may be the one that stays.
            Err(ConnectError::Handshake(failure @ (Failure::Nok | Failure::Aborted))) => {
                self.met(&peer, deadline, failure).await
            }
            result => result,
        }
    }

    /// Waits until a connection that was not begun here is up.
    async fn met(&self, peer: &Atom, deadline: Instant, failure: Failure) -> Result<(), ConnectError> {
        let up = self.shared().when(|state| state.node.connection(peer).is_some());
        let up = self.shared().until(deadline, up).await;
        up.ok_or(ConnectError::Handshake(failure))
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

    /// `gen_server:call`, without a time-out: put the runtime's around it. An answer that comes after the future was dropped is lost.
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
        let deadline = Instant::now() + self.shared().config.setup_time;
        let answer = self.shared().until(deadline, call).await;
        matches!(answer, Some(Ok(answer)) if answer.is_atom("yes"))
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
        self.shared().when(|state| state.connections() == 0).await;
        if let Some(quic) = self.shared().quic.get() {
            let deadline = Instant::now() + LAST_PACKETS;
            self.shared().until(deadline, quic.endpoint.wait_idle()).await;
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

/// Lets nodes in that call over streams of bytes. It does not keep the node alive.
#[derive(Debug, Clone)]
pub struct Admission(Arc<Shared>);

impl Admission {
    /// Lets a node in. The connection is then the node's affair; it is closed at once if there are too many.
    pub fn admit<R: ByteReader, W: ByteWriter>(&self, halves: (R, W)) {
        let connection = {
            let mut state = self.0.lock();
            if state.connections() >= self.0.config.connections {
                tracing::debug!("too many connections");
                return;
            }
            state.add_connection()
        };
        let shared = Arc::clone(&self.0);
        self.0
            .spawn(exchange::run(shared, connection, Role::Acceptor, halves, |_| {}));
    }

    /// Waits until the node ends.
    pub async fn closed(&self) {
        self.0.closed().await;
    }
}

/// What comes and goes, for one subscriber.
#[derive(Debug)]
pub struct Events(Subscriber<NodeEvent>);

impl Events {
    /// The next event; `None` once the node has ended. Cancellation-safe.
    pub async fn next(&mut self) -> Option<NodeEvent> {
        let event = self.0.next().await?;
        Some(event.unwrap_or_else(NodeEvent::Missed))
    }

    /// The next event if there is one already. A connection is told of before anything that came over it is handed out: who calls this
    /// upon a message knows of its node.
    pub fn try_next(&mut self) -> Option<NodeEvent> {
        let event = self.0.try_next()?;
        Some(event.unwrap_or_else(NodeEvent::Missed))
    }
}
