//! What all handles and tasks of one node share.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    future::Future,
    io,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Instant,
};

use bytes::Bytes;
use macula_proto::{
    Code, Now, Rng,
    dist::{
        handshake::{Established, HandshakeConfig, Standing},
        node::{self, Action, CommandError, Target},
        nodes::{Nodes, Superseded},
    },
    wire::{
        dist::{Flags, handshake::Carrier},
        etf::{Atom, Pid, Term},
    },
};

use super::{
    DownReason, NodeConfig, NodeEvent,
    quic::Quic,
    sync::{Broadcast, Changes, Flag},
};
use crate::{
    clock,
    dist::DistConnection,
    entropy,
    runtime::{AnyRuntime, First, first},
};

/// Events that a slow subscriber may be behind.
const EVENTS: usize = 256;

/// Messages, and bytes, taken at once to be sent.
const BATCH: (usize, usize) = (64, 256 << 10);

pub(super) struct Shared {
    pub(super) config: NodeConfig,
    pub(super) name: Atom,
    pub(super) creation: u32,
    pub(super) runtime: Box<dyn AnyRuntime>,
    pub(super) quic: OnceLock<Quic>,
    state: Mutex<State>,
    /// Something that was refused may be tried again.
    room: Changes,
    /// A connection came up or is gone, or the node ends.
    pub(super) changed: Changes,
    pub(super) events: Broadcast<NodeEvent>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) node: node::Node<u64>,
    pub(super) table: Nodes<u64>,
    connections: BTreeMap<u64, Arc<Link>>,
    /// Those of them that are over QUIC.
    pub(super) quic: BTreeMap<u64, DistConnection>,
    mailboxes: BTreeMap<Pid, Arc<Flag>>,
    pub(super) rng: Rng,
    next: u64,
    closed: bool,
}

/// How a connection's task is woken.
#[derive(Debug, Default)]
pub(super) struct Link {
    pub(super) writable: Flag,
    pub(super) readable: Flag,
    pub(super) close: Flag,
}

pub(super) type Actions = Vec<Action<u64>>;

impl Shared {
    pub(super) fn new(runtime: Box<dyn AnyRuntime>, config: NodeConfig) -> io::Result<Self> {
        let invalid = || io::Error::new(io::ErrorKind::InvalidInput, "a node's name is NAME@HOST");
        let (short, host) = config.name.split_once('@').ok_or_else(invalid)?;
        let name = Atom::new(&config.name).map_err(|_| invalid())?;
        if short.is_empty() || host.is_empty() {
            return Err(invalid());
        }
        let mut rng = Rng::from_entropy(entropy()?);
        let creation = u32::from_be_bytes(rng.bytes()).max(4);
        let mut of_node = node::NodeConfig::new(name.clone(), creation);
        of_node.limits = config.limits.clone();
        Ok(Self {
            config,
            runtime,
            quic: OnceLock::new(),
            state: Mutex::new(State {
                node: node::Node::new(of_node),
                table: Nodes::new(name.clone()),
                connections: BTreeMap::new(),
                quic: BTreeMap::new(),
                mailboxes: BTreeMap::new(),
                rng,
                next: 0,
                closed: false,
            }),
            name,
            creation,
            room: Changes::default(),
            changed: Changes::default(),
            events: Broadcast::new(EVENTS),
        })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.runtime.run(Box::pin(task));
    }

    /// What `future` gives, unless that takes longer.
    pub(super) async fn until<T>(&self, deadline: Instant, future: impl Future<Output = T>) -> Option<T> {
        match first(future, self.runtime.timer(deadline)).await {
            First::One(value) => Some(value),
            First::Other(()) => None,
        }
    }

    /// Runs a command and does what it asks for.
    pub(super) fn with<R>(&self, command: impl FnOnce(&mut State, &mut Actions) -> R) -> R {
        let mut state = self.lock();
        let mut actions = Vec::new();
        let result = command(&mut state, &mut actions);
        self.apply(&mut state, actions);
        result
    }

    fn apply(&self, state: &mut State, actions: Actions) {
        for action in actions {
            match action {
                Action::Writable(id) => {
                    if let Some(link) = state.connections.get(&id) {
                        link.writable.raise();
                    }
                }
                Action::Readable(id) => {
                    if let Some(link) = state.connections.get(&id) {
                        link.readable.raise();
                    }
                }
                Action::Room => self.room.tell(),
                Action::Signal(pid) => {
                    if let Some(wake) = state.mailboxes.get(&pid) {
                        wake.raise();
                    }
                }
                Action::Ended(pid) => {
                    if let Some(wake) = state.mailboxes.remove(&pid) {
                        wake.raise();
                    }
                }
                Action::Close { connection, error } => {
                    tracing::debug!(%error, "a node broke the rules");
                    state.close(connection);
                }
            }
        }
    }

    /// Runs a command until there is room for it.
    pub(super) async fn when_room<R>(
        &self,
        mut command: impl FnMut(&mut State, &mut Actions) -> Result<R, CommandError>,
    ) -> Result<R, CommandError> {
        loop {
            let count = self.room.count();
            match self.with(&mut command) {
                Err(CommandError::Busy) => self.room.after(count).await,
                result => return result,
            }
        }
    }

    pub(super) async fn send(&self, from: Option<&Pid>, to: &Target, term: Term) -> Result<(), CommandError> {
        let mut term = Some(term);
        self.when_room(|state, actions| {
            state.node.ready(from, to)?;
            let term = term.take().unwrap_or(Term::NIL);
            match from {
                Some(from) => state.node.send(from, to, term, actions),
                None => state.node.send_as_node(to, term, actions),
            }
        })
        .await
    }

    pub(super) fn add_mailbox(&self) -> Result<(Pid, Arc<Flag>), CommandError> {
        let mut state = self.lock();
        if state.closed {
            return Err(CommandError::Ended);
        }
        let pid = state.node.spawn()?;
        let wake = Arc::new(Flag::default());
        state.mailboxes.insert(pid.clone(), Arc::clone(&wake));
        Ok((pid, wake))
    }

    pub(super) fn end_mailbox(&self, pid: &Pid, reason: &Term) {
        self.with(|state, actions| {
            state.mailboxes.remove(pid);
            state.node.end(pid, reason, actions);
        });
    }

    pub(super) fn handshake(&self, carrier: Carrier) -> HandshakeConfig {
        let mut config = HandshakeConfig::new(self.name.clone(), self.creation, self.config.cookie.clone());
        config.flags = self.config.flags;
        config.timeout = self.config.setup_time;
        config.carrier = carrier;
        config
    }

    // ----- connections ---------------------------------------------------------------------------------------------

    /// A node calls over connection `id`, a stream of bytes: how things stand.
    pub(super) fn standing(&self, peer: &Atom, id: u64) -> Standing {
        let mut state = self.lock();
        if state.closed {
            return Standing::Forbidden;
        }
        let calling = state.table.call(peer, id);
        if let Some(abort) = calling.abort {
            state.close(abort);
        }
        calling.standing
    }

    /// The handshake of connection `id`, a stream of bytes, is complete.
    pub(super) fn up(&self, id: u64, established: &Established) -> Result<(), Superseded> {
        let peer = &established.peer;
        let earlier = self.with(|state, actions| {
            let earlier = state.table.up(peer, id)?;
            state.replace(earlier, actions);
            state.up(id, peer, established.common, actions);
            Ok(earlier)
        })?;
        self.tell_up(peer, earlier.is_some());
        Ok(())
    }

    /// Connection `id`, over QUIC, is up. Which of several over QUIC stays was decided below, so that it stays whatever there is over
    /// streams of bytes.
    pub(super) fn prevail(&self, id: u64, peer: &Atom, common: Flags) {
        let earlier = self.with(|state, actions| {
            let (earlier, pending) = state.table.prevail(peer, id);
            if let Some(pending) = pending {
                state.close(pending);
            }
            state.replace(earlier, actions);
            state.up(id, peer, common, actions);
            earlier
        });
        self.tell_up(peer, earlier.is_some());
    }

    fn tell_up(&self, peer: &Atom, replaced: bool) {
        if replaced {
            self.tell(&NodeEvent::Down(peer.clone(), DownReason::Replaced));
        }
        self.tell(&NodeEvent::Up(peer.clone()));
    }

    /// Connection `id` is gone; `peer` as far as it is known.
    pub(super) fn gone(&self, id: u64, peer: Option<&Atom>, reason: DownReason) {
        let (was_up, last, quic) = self.with(|state, actions| {
            state.connections.remove(&id);
            let quic = state.quic.remove(&id);
            let last = state.closed && state.connections.is_empty();
            let Some(peer) = peer else {
                return (false, last, quic);
            };
            let was_up = state.table.connected(peer) == Some(id);
            state.node.handle(node::Event::Down { connection: id }, actions);
            state.table.gone(peer, id);
            (was_up, last, quic)
        });
        // Its handle takes the lock of the endpoint.
        drop(quic);
        if last {
            self.close_quic();
        }
        if let (true, Some(peer)) = (was_up, peer) {
            self.tell(&NodeEvent::Down(peer.clone(), reason));
        } else {
            self.changed.tell();
        }
    }

    fn tell(&self, event: &NodeEvent) {
        self.events.send(event);
        self.changed.tell();
    }

    /// Messages to be sent on a connection.
    pub(super) fn take(&self, id: u64) -> VecDeque<Bytes> {
        let (messages, bytes) = BATCH;
        self.with(|state, actions| {
            let mut batch = VecDeque::new();
            let mut length = 0;
            while batch.len() < messages && length < bytes {
                let Some(message) = state.node.poll_message(id, actions) else {
                    break;
                };
                length += message.len();
                batch.push_back(message);
            }
            batch
        })
    }

    // ----- the end -------------------------------------------------------------------------------------------------

    /// Ends everything.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        for link in state.connections.values() {
            link.close.raise();
        }
        for wake in std::mem::take(&mut state.mailboxes).values() {
            wake.raise();
        }
        let last = state.connections.is_empty();
        drop(state);
        if last {
            self.close_quic();
        }
        self.changed.tell();
    }

    fn close_quic(&self) {
        if let Some(quic) = self.quic.get() {
            quic.endpoint.close(Code::CLOSED, Bytes::new());
        }
    }

    /// Waits until the node ends.
    pub(super) async fn closed(&self) {
        self.when(|state| state.closed).await;
    }

    /// Waits until it is so, after changes of connections.
    pub(super) async fn when(&self, so: impl Fn(&State) -> bool) {
        loop {
            let count = self.changed.count();
            if so(&self.lock()) {
                return;
            }
            self.changed.after(count).await;
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl State {
    /// A connection that begins.
    pub(super) fn add_connection(&mut self) -> (u64, Arc<Link>) {
        let id = self.next;
        self.next += 1;
        let link = Arc::new(Link::default());
        if self.closed {
            link.close.raise();
        }
        self.connections.insert(id, Arc::clone(&link));
        (id, link)
    }

    fn up(&mut self, id: u64, peer: &Atom, common: Flags, actions: &mut Actions) {
        let up = node::Event::Up {
            connection: id,
            peer: peer.clone(),
            common,
        };
        self.node.handle(up, actions);
    }

    fn replace(&mut self, earlier: Option<u64>, actions: &mut Actions) {
        if let Some(earlier) = earlier {
            self.node.handle(node::Event::Down { connection: earlier }, actions);
            self.close(earlier);
        }
    }

    pub(super) fn is_open(&self, pid: &Pid) -> bool {
        self.mailboxes.contains_key(pid)
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.len()
    }

    pub(super) fn close(&self, connection: u64) {
        if let Some(link) = self.connections.get(&connection) {
            link.close.raise();
        }
    }
}

pub(super) fn now() -> Now {
    clock::now()
}
