//! What all handles and tasks of one node share.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Instant, SystemTime},
};

use macula_proto::{
    Now, Rng,
    dist::{
        handshake::{Established, HandshakeConfig, Standing},
        node::{self, Action, CommandError, Target},
        nodes::{Nodes, Superseded},
    },
    wire::etf::{Atom, Pid, Term},
};
use tokio::{
    sync::{Notify, broadcast},
    task::AbortHandle,
};

use super::{DownReason, NodeConfig, NodeEvent};
use crate::entropy;

/// Events that a slow subscriber may be behind.
const EVENTS: usize = 256;

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: NodeConfig,
    pub(super) name: Atom,
    pub(super) creation: u32,
    state: Mutex<State>,
    /// Something that was refused may be tried again.
    room: Notify,
    /// A connection came up or is gone.
    pub(super) changed: Notify,
    pub(super) events: broadcast::Sender<NodeEvent>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) node: node::Node<u64>,
    pub(super) table: Nodes<u64>,
    connections: BTreeMap<u64, Arc<Link>>,
    mailboxes: BTreeMap<Pid, Arc<Notify>>,
    pub(super) listeners: Vec<AbortHandle>,
    pub(super) rng: Rng,
    next: u64,
    closed: bool,
}

/// How a connection's task is woken.
#[derive(Debug, Default)]
pub(super) struct Link {
    pub(super) writable: Notify,
    pub(super) readable: Notify,
    pub(super) close: Notify,
}

pub(super) type Actions = Vec<Action<u64>>;

impl Shared {
    pub(super) fn new(config: NodeConfig) -> io::Result<Self> {
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
            state: Mutex::new(State {
                node: node::Node::new(of_node),
                table: Nodes::new(name.clone()),
                connections: BTreeMap::new(),
                mailboxes: BTreeMap::new(),
                listeners: Vec::new(),
                rng,
                next: 0,
                closed: false,
            }),
            name,
            creation,
            room: Notify::new(),
            changed: Notify::new(),
            events: broadcast::Sender::new(EVENTS),
        })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
                        link.writable.notify_one();
                    }
                }
                Action::Readable(id) => {
                    if let Some(link) = state.connections.get(&id) {
                        link.readable.notify_one();
                    }
                }
                Action::Room => self.room.notify_waiters(),
                Action::Signal(pid) => {
                    if let Some(wake) = state.mailboxes.get(&pid) {
                        wake.notify_one();
                    }
                }
                Action::Ended(pid) => {
                    if let Some(wake) = state.mailboxes.remove(&pid) {
                        wake.notify_one();
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
            let room = self.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            match self.with(&mut command) {
                Err(CommandError::Busy) => room.await,
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

    pub(super) fn add_mailbox(&self) -> Result<(Pid, Arc<Notify>), CommandError> {
        let mut state = self.lock();
        if state.closed {
            return Err(CommandError::Ended);
        }
        let pid = state.node.spawn()?;
        let wake = Arc::new(Notify::new());
        state.mailboxes.insert(pid.clone(), Arc::clone(&wake));
        Ok((pid, wake))
    }

    pub(super) fn end_mailbox(&self, pid: &Pid, reason: &Term) {
        self.with(|state, actions| {
            state.mailboxes.remove(pid);
            state.node.end(pid, reason, actions);
        });
    }

    pub(super) fn handshake(&self, carrier: macula_proto::wire::dist::handshake::Carrier) -> HandshakeConfig {
        let mut config = HandshakeConfig::new(self.name.clone(), self.creation, self.config.cookie.clone());
        config.flags = self.config.flags;
        config.timeout = self.config.setup_time;
        config.carrier = carrier;
        config
    }

    /// A node calls over connection `id`: how things stand.
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

    /// The handshake of connection `id` is complete.
    pub(super) fn up(&self, id: u64, established: &Established) -> Result<(), Superseded> {
        let peer = &established.peer;
        let earlier = self.with(|state, actions| {
            let earlier = state.table.up(peer, id)?;
            if let Some(earlier) = earlier {
                state.node.handle(node::Event::Down { connection: earlier }, actions);
                state.close(earlier);
            }
            let up = node::Event::Up {
                connection: id,
                peer: peer.clone(),
                common: established.common,
            };
            state.node.handle(up, actions);
            Ok(earlier)
        })?;
        if earlier.is_some() {
            self.tell(NodeEvent::Down(peer.clone(), DownReason::Replaced));
        }
        self.tell(NodeEvent::Up(peer.clone()));
        Ok(())
    }

    /// Connection `id` is gone; `peer` as far as it is known.
    pub(super) fn gone(&self, id: u64, peer: Option<&Atom>, reason: DownReason) {
        let was_up = self.with(|state, actions| {
            let Some(peer) = peer else {
                state.connections.remove(&id);
                return false;
            };
            let was_up = state.table.connected(peer) == Some(id);
            state.node.handle(node::Event::Down { connection: id }, actions);
            state.table.gone(peer, id);
            state.connections.remove(&id);
            was_up
        });
        self.changed.notify_waiters();
        if let (true, Some(peer)) = (was_up, peer) {
            self.tell(NodeEvent::Down(peer.clone(), reason));
        }
    }

    fn tell(&self, event: NodeEvent) {
        // Nobody may listen.
        let _ = self.events.send(event);
        self.changed.notify_waiters();
    }

    /// Ends everything.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        for listener in state.listeners.drain(..) {
            listener.abort();
        }
        for link in state.connections.values() {
            link.close.notify_one();
        }
        for wake in std::mem::take(&mut state.mailboxes).values() {
            wake.notify_one();
        }
        drop(state);
        self.changed.notify_waiters();
    }
}

impl State {
    /// A connection that begins.
    pub(super) fn add_connection(&mut self) -> (u64, Arc<Link>) {
        let id = self.next;
        self.next += 1;
        let link = Arc::new(Link::default());
        if self.closed {
            link.close.notify_one();
        }
        self.connections.insert(id, Arc::clone(&link));
        (id, link)
    }

    pub(super) fn is_open(&self, pid: &Pid) -> bool {
        self.mailboxes.contains_key(pid)
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.len()
    }

    pub(super) fn close(&self, connection: u64) {
        if let Some(link) = self.connections.get(&connection) {
            link.close.notify_one();
        }
    }
}

pub(super) fn now() -> Now {
    let unix = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    Now::new(Instant::now(), u64::try_from(unix.as_millis()).unwrap_or(u64::MAX))
}
