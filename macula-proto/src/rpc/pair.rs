//! Both sides of a call within one process.
//!
//! What one side tells the other arrives at once, and a full inbox holds the sender back, without a network or a wire format.
//!
//! ```
//! # fn call(now: std::time::Instant) {
//! use macula_proto::rpc::{
//!     Chunk, Mode, StreamId,
//!     pair::Pair,
//!     stream::{Action, Config, Event, Role, WaiterId},
//! };
//!
//! let (client, server) = (Config::default(), Config::default());
//! let mut call = Pair::new(StreamId([1; 16]), Mode::Bidi, client, server, now);
//! let mut actions = Vec::new();
//! let (waiter, chunk) = (WaiterId(1), Chunk::Raw("hello".into()));
//! call.handle(now, Role::Server, Event::Recv { waiter, until: None }, &mut actions);
//! call.handle(now, Role::Client, Event::Send(chunk.clone()), &mut actions);
//! assert_eq!(actions, [(Role::Server, Action::Received { waiter, result: Ok(chunk) })]);
//! # }
//! ```

use std::{collections::VecDeque, mem, time::Instant};

use crate::{
    deadlines::earliest,
    rpc::{
        Mode, StreamId,
        stream::{Action, Config, Event, Loss, Role, Stream},
    },
};

/// A client's and a server's side, joined. Each behaves as it would across a network; see [`stream`](super::stream).
#[derive(Debug)]
pub struct Pair {
    client: Stream,
    server: Stream,
    /// What is to be done by one side, and kept for its capacity.
    scratch: Vec<Action>,
    /// What the sides have still to be told.
    pending: VecDeque<(Role, Event)>,
}

impl Pair {
    /// Two sides of a call that has just begun.
    pub fn new(id: StreamId, mode: Mode, client: Config, server: Config, now: Instant) -> Self {
        let mut pair = Self {
            client: Stream::new(id, Role::Client, mode, client, now),
            server: Stream::new(id, Role::Server, mode, server, now),
            scratch: Vec::new(),
            pending: VecDeque::new(),
        };
        for role in [Role::Client, Role::Server] {
            // A side that has done nothing yet has nothing to ask for.
            pair.side_mut(role).handle(now, Event::Attached, &mut Vec::new());
        }
        pair
    }

    /// Takes what the owner of one side does, and appends what is to be done, and on which side, to `actions`. There is never
    /// anything to emit, and nothing about the room in an inbox: the pair sees to it. Events that are not
    /// [the owner's](Event::is_local) come from the pair, and are ignored here, [`Event::Timeout`] excepted.
    pub fn handle(&mut self, now: Instant, role: Role, event: Event, actions: &mut Vec<(Role, Action)>) {
        if event.is_local() || event == Event::Timeout {
            self.run(now, role, event, actions);
        }
    }

    /// One side is gone, all of it, without a word: `peer_down` for the other. Nothing can be done on the lost side any more.
    pub fn lose(&mut self, now: Instant, role: Role, actions: &mut Vec<(Role, Action)>) {
        // Its own end is nobody's concern, and must not be told to the peer.
        let side = self.side_mut(role);
        for event in [Event::CarrierLost(Loss::PeerDown), Event::OwnerDown] {
            side.handle(now, event, &mut Vec::new());
        }
        self.run(now, role.other(), Event::CarrierLost(Loss::PeerDown), actions);
    }

    /// Fires what is due on both sides.
    pub fn handle_timeout(&mut self, now: Instant, actions: &mut Vec<(Role, Action)>) {
        for role in [Role::Client, Role::Server] {
            self.run(now, role, Event::Timeout, actions);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        earliest(self.client.poll_timeout(), self.server.poll_timeout())
    }

    /// One of the sides.
    pub fn side(&self, role: Role) -> &Stream {
        match role {
            Role::Client => &self.client,
            Role::Server => &self.server,
        }
    }

    fn side_mut(&mut self, role: Role) -> &mut Stream {
        match role {
            Role::Client => &mut self.client,
            Role::Server => &mut self.server,
        }
    }

    fn run(&mut self, now: Instant, role: Role, event: Event, actions: &mut Vec<(Role, Action)>) {
        let mut next = Some((role, event));
        while let Some((role, event)) = next.take().or_else(|| self.pending.pop_front()) {
            let mut scratch = mem::take(&mut self.scratch);
            self.side_mut(role).handle(now, event, &mut scratch);
            for action in scratch.drain(..) {
                let told = match action {
                    Action::Emit(output) => output.into_event(),
                    Action::InboxFull => Event::Writable(false),
                    Action::InboxRoom => Event::Writable(true),
                    action => {
                        actions.push((role, action));
                        continue;
                    }
                };
                self.pending.push_back((role.other(), told));
            }
            self.scratch = scratch;
        }
    }
}
