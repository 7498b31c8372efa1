//! Streams of users, and what there is to look at.

use super::{Action, Controller, ControllerStats, LinkState, machine::State};
use crate::{
    dist::{
        handshake::{Established, Role},
        streams::Side,
        user::{self, Owner, Priority, UserError, UserStream, Users},
    },
    wire::etf::Atom,
};

impl Controller {
    // ----- users ---------------------------------------------------------------------------------------------------

    /// The streams of users, to look at.
    pub fn users(&self) -> &Users {
        &self.users
    }

    /// Runs an operation on the streams of users.
    pub fn with_users<T>(
        &mut self,
        actions: &mut Vec<Action>,
        run: impl FnOnce(&mut Users, &mut Vec<user::Action>) -> T,
    ) -> T {
        let mut out = Vec::new();
        let result = run(&mut self.users, &mut out);
        actions.extend(out.into_iter().map(Action::User));
        result
    }

    /// The transport opened a stream for `owner`.
    ///
    /// # Errors
    /// [`UserError`]: it cannot be used.
    pub fn user_opened(
        &mut self,
        stream: u64,
        owner: Owner,
        priority: Priority,
        actions: &mut Vec<Action>,
    ) -> Result<(), UserError> {
        self.with_users(actions, |users, out| users.opened(stream, owner, priority, out))
    }

    /// All streams of users that are not over, by id.
    pub fn user_streams(&self) -> impl Iterator<Item = UserStream> + '_ {
        self.users.list()
    }

    // ----- what is there -------------------------------------------------------------------------------------------

    /// Which end this is.
    pub fn side(&self) -> Side {
        self.side
    }

    /// How far it is.
    pub fn state(&self) -> LinkState {
        match self.state {
            State::Connecting => LinkState::Connecting,
            State::Handshaking => LinkState::Handshaking,
            State::Up => LinkState::Up,
            State::Leaving(_) => LinkState::Leaving,
            State::Over => LinkState::Over,
        }
    }

    /// The other node: what the owner [calls](Self::set_node) it, or else what it called itself, or whom this side dials.
    pub fn node(&self) -> Option<&Atom> {
        let dialled = match self.handshake.role() {
            Role::Dialler { peer } => Some(peer),
            Role::Acceptor => None,
        };
        self.node.as_ref().or(self.handshake.peer()).or(dialled)
    }

    /// Calls the other node by another name from now on. Nothing else changes.
    pub fn set_node(&mut self, node: Atom) {
        self.node = Some(node);
    }

    /// The outcome of the handshake, once it is complete.
    pub fn established(&self) -> Option<&Established> {
        self.established.as_deref()
    }

    /// Bytes of messages that were taken and not pulled yet, lengths included.
    pub fn pending(&self) -> usize {
        self.pool.pending()
    }

    /// Whether no more messages are taken because too much waits.
    pub fn is_congested(&self) -> bool {
        self.pool.is_congested()
    }

    /// Whether a tick waits to be written.
    pub fn has_pending_tick(&self) -> bool {
        self.lane.has_pending_tick()
    }

    /// What was done.
    pub fn stats(&self) -> ControllerStats {
        ControllerStats {
            lane: self.lane.stats(),
            pool: self.pool.stats(),
            users: self.users.stats(),
        }
    }
}
