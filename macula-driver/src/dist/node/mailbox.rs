use std::{fmt, sync::Arc};

use super::{Node, sync::Flag};
use macula_proto::{
    dist::node::{CommandError, RegisterError, Signal, Target},
    wire::etf::{Atom, Pid, Reference, Term},
};

/// A process of a node: a pid, and what is sent to it. Dropping it ends the process with the reason `normal`.
///
/// Its mailbox is [bounded](super::NodeLimits::mailbox): those who send to it wait once it is full, and with them everything that comes
/// over the same connections. So take what comes.
pub struct Mailbox {
    node: Node,
    pid: Pid,
    wake: Arc<Flag>,
}

impl Mailbox {
    pub(super) fn new(node: Node, pid: Pid, wake: Arc<Flag>) -> Self {
        Self { node, pid, wake }
    }

    /// Its pid.
    pub fn pid(&self) -> &Pid {
        &self.pid
    }

    /// The node it belongs to.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The next signal: a message, the end of a linked or monitored process. `None` once the process was killed from outside or the node
    /// shut down. Cancellation-safe.
    pub async fn recv(&mut self) -> Option<Signal> {
        loop {
            if let Some(signal) = self.try_recv() {
                return Some(signal);
            }
            if !self.is_open() {
                return None;
            }
            self.wake.raised().await;
        }
    }

    /// The next signal, if there is one already.
    pub fn try_recv(&mut self) -> Option<Signal> {
        self.node
            .shared()
            .with(|state, actions| state.node.receive(&self.pid, actions))
    }

    /// Whether the process is alive.
    pub fn is_open(&self) -> bool {
        self.node.shared().lock().is_open(&self.pid)
    }

    /// Gives the process a name, by which others reach it: `{Name, Node} ! Message`.
    ///
    /// # Errors
    /// [`RegisterError`].
    pub fn register(&self, name: &str) -> Result<(), RegisterError> {
        self.node.register(name, self)
    }

    /// Sends a message, and waits while too much waits already. It is lost without a word when nobody is there to take it.
    /// Cancellation-safe: dropped, nothing was sent.
    ///
    /// # Errors
    /// [`CommandError`].
    pub async fn send(&self, to: impl Into<Target>, term: impl Into<Term>) -> Result<(), CommandError> {
        self.node.shared().send(Some(&self.pid), &to.into(), term.into()).await
    }

    /// Links the process with another one: the end of either reaches the other as [`Signal::Exit`].
    ///
    /// # Errors
    /// [`CommandError`]; that the other one is not there comes as a signal.
    pub async fn link(&self, other: &Pid) -> Result<(), CommandError> {
        let link = |state: &mut super::shared::State, actions: &mut _| state.node.link(&self.pid, other, actions);
        self.node.shared().when_room(link).await
    }

    /// Takes a link down.
    pub fn unlink(&self, other: &Pid) {
        self.node
            .shared()
            .with(|state, actions| state.node.unlink(&self.pid, other, actions));
    }

    /// Monitors a process: its end comes as [`Signal::Down`] with the reference returned here.
    ///
    /// # Errors
    /// [`CommandError`]; that the other one is not there comes as a signal.
    pub async fn monitor(&self, target: impl Into<Target>) -> Result<Reference, CommandError> {
        let target = target.into();
        let monitor =
            |state: &mut super::shared::State, actions: &mut _| state.node.monitor(&self.pid, &target, actions);
        self.node.shared().when_room(monitor).await
    }

    /// Takes a monitor back. Whether there was such a monitor; if not, its down has come already.
    pub fn demonitor(&self, reference: &Reference) -> bool {
        let demonitor =
            |state: &mut super::shared::State, actions: &mut _| state.node.demonitor(&self.pid, reference, actions);
        self.node.shared().with(demonitor)
    }

    /// `exit(Other, Reason)`: asks another process to end. `kill` ends it whether it wants or not.
    ///
    /// # Errors
    /// [`CommandError`].
    pub async fn exit(&self, other: &Pid, reason: impl Into<Term>) -> Result<(), CommandError> {
        let reason = reason.into();
        let exit =
            |state: &mut super::shared::State, actions: &mut _| state.node.exit(&self.pid, other, &reason, actions);
        self.node.shared().when_room(exit).await
    }

    /// Another address of the process, which can be [taken back](Self::unalias).
    ///
    /// # Errors
    /// [`CommandError`].
    pub fn alias(&self) -> Result<Reference, CommandError> {
        self.node.shared().lock().node.alias(&self.pid)
    }

    /// Takes an alias back: what is sent to it from now on is dropped.
    pub fn unalias(&self, alias: &Reference) -> bool {
        self.node.shared().lock().node.unalias(&self.pid, alias)
    }

    /// Ends the process with a reason, which linked and monitoring processes get.
    pub fn close(self, reason: impl Into<Term>) {
        self.node.shared().end_mailbox(&self.pid, &reason.into());
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        if let Ok(normal) = Atom::new("normal") {
            self.node.shared().end_mailbox(&self.pid, &normal.into());
        }
    }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Mailbox").field(&self.pid).finish()
    }
}
