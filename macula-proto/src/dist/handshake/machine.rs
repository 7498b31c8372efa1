use std::time::Instant;

use bytes::{Bytes, BytesMut};

use super::{Action, Decision, Established, Event, Failure, HandshakeConfig, Role, Standing};
use crate::{
    Now, Rng,
    wire::{
        dist::{
            Flags,
            handshake::{
                Ack, Challenge, Complement, Digest, MAX_MESSAGE, Message, Name, OldName, Parser, Reply, Sender, Status,
            },
        },
        etf::Atom,
    },
};

/// Bytes kept while nothing is expected of the peer: a message that came too early, and ticks.
const MAX_HELD: usize = 2 * MAX_MESSAGE;

/// The handshake of one connection. See the [module](super).
#[derive(Debug)]
pub struct Handshake {
    config: HandshakeConfig,
    role: Role,
    parser: Parser,
    state: State,
    /// The number that the peer has to prove itself with.
    challenge: u32,
    peer: Option<Peer>,
    /// Bytes not looked at yet.
    held: BytesMut,
    deadline: Option<Instant>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Peer {
    name: Atom,
    creation: u32,
    flags: Flags,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Fresh,
    // Dialler.
    AwaitStatus,
    AwaitWanted,
    AwaitChallenge,
    AwaitAck,
    // Acceptor.
    AwaitName,
    /// `old`: the name was of the old form.
    AwaitStanding {
        old: bool,
    },
    AwaitAlive {
        old: bool,
    },
    AwaitComplement,
    AwaitReply,
    // Either.
    Up,
    Failed,
}

impl Handshake {
    /// A handshake that has not begun. The number for the peer is drawn from `rng`.
    pub fn new(role: Role, config: HandshakeConfig, rng: &mut Rng) -> Self {
        let peer_side = if role == Role::Acceptor {
            Sender::Dialler
        } else {
            Sender::Acceptor
        };
        Self {
            parser: Parser::new(peer_side, config.carrier),
            config,
            role,
            state: State::Fresh,
            challenge: u32::from_be_bytes(rng.bytes()),
            peer: None,
            held: BytesMut::new(),
            deadline: None,
        }
    }

    /// Takes one event and appends what is to be done to `actions`.
    pub fn handle(&mut self, now: Now, event: Event, actions: &mut Vec<Action>) {
        if matches!(self.state, State::Up | State::Failed) {
            return;
        }
        match event {
            Event::Start => self.start(now, actions),
            Event::Received(bytes) => self.received(bytes, actions),
            Event::Standing(standing) => self.standing(standing, actions),
            Event::Wanted(wanted) => self.wanted(wanted, actions),
            Event::Abort => self.fail(Failure::Aborted, actions),
            Event::Lost => self.fail(Failure::Lost, actions),
            Event::Timeout => {
                if self.deadline.is_some_and(|at| at <= now.mono) {
                    self.fail(Failure::TimedOut, actions);
                }
            }
        }
    }

    /// When [`Event::Timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    /// Which side this is.
    pub fn role(&self) -> &Role {
        &self.role
    }

    /// What the other node calls itself, as soon as it has said so, proved or not.
    pub fn peer(&self) -> Option<&Atom> {
        self.peer.as_ref().map(|peer| &peer.name)
    }

    /// Whether the handshake is complete.
    pub fn is_up(&self) -> bool {
        self.state == State::Up
    }

    fn start(&mut self, now: Now, actions: &mut Vec<Action>) {
        if self.state != State::Fresh {
            return;
        }
        self.deadline = Some(now.mono + self.config.timeout);
        match self.role {
            Role::Dialler { .. } => {
                let (flags, creation, name) = (self.config.flags, self.config.creation, self.config.name.clone());
                self.send(&Message::Name(Name { flags, creation, name }), actions);
                self.state = State::AwaitStatus;
            }
            Role::Acceptor => self.state = State::AwaitName,
        }
        self.parse(Bytes::new(), actions);
    }

    fn received(&mut self, bytes: Bytes, actions: &mut Vec<Action>) {
        self.parse(bytes, actions);
    }

    /// Takes in messages as long as one is expected.
    fn parse(&mut self, bytes: Bytes, actions: &mut Vec<Action>) {
        let mut input = if self.held.is_empty() {
            bytes
        } else {
            self.held.extend_from_slice(&bytes);
            std::mem::take(&mut self.held).freeze()
        };
        while self.is_listening() {
            match self.parser.next(&mut input) {
                None => return,
                Some(Ok(message)) => self.message(message, &mut input, actions),
                Some(Err(error)) => self.fail(error.into(), actions),
            }
        }
        if matches!(self.state, State::Up | State::Failed) {
            return;
        }
        if input.len() > MAX_HELD {
            return self.fail(Failure::Flood, actions);
        }
        self.held = BytesMut::from(&input[..]);
    }

    fn is_listening(&self) -> bool {
        !matches!(
            self.state,
            State::Fresh | State::AwaitWanted | State::AwaitStanding { .. } | State::Up | State::Failed
        )
    }

    fn message(&mut self, message: Message, input: &mut Bytes, actions: &mut Vec<Action>) {
        match (self.state, message) {
            (State::AwaitStatus, Message::Status(status)) => self.status(status, actions),
            (State::AwaitChallenge, Message::Challenge(challenge)) => self.challenged(challenge, actions),
            (State::AwaitAck, Message::Ack(ack)) => {
                if ack.digest == Digest::of(&self.config.cookie, self.challenge) {
                    self.up(input, actions);
                } else {
                    self.fail(Failure::Cookie, actions);
                }
            }
            (State::AwaitName, Message::Name(Name { flags, creation, name })) => {
                self.named(Peer { name, creation, flags }, false, actions);
            }
            (State::AwaitName, Message::OldName(OldName { flags, name })) => {
                self.named(
                    Peer {
                        name,
                        creation: 0,
                        flags,
                    },
                    true,
                    actions,
                );
            }
            (State::AwaitAlive { old }, Message::Status(Status::True)) => self.send_challenge(old, actions),
            (State::AwaitAlive { .. }, Message::Status(Status::False)) => self.fail(Failure::Alive, actions),
            (State::AwaitComplement, Message::Complement(complement)) => self.complement(complement, actions),
            (State::AwaitReply, Message::Reply(reply)) => self.reply(&reply, input, actions),
            (_, message) => self.fail(Failure::Unexpected(message.kind()), actions),
        }
    }

    fn status(&mut self, status: Status, actions: &mut Vec<Action>) {
        match status {
            Status::Ok | Status::OkSimultaneous => self.state = State::AwaitChallenge,
            Status::Alive => {
                self.state = State::AwaitWanted;
                actions.push(Action::AskWanted);
            }
            Status::Nok => self.fail(Failure::Nok, actions),
            Status::NotAllowed => self.fail(Failure::NotAllowed, actions),
            // This node has a name.
            Status::Named { .. } | Status::True | Status::False => {
                self.fail(Failure::Unexpected("status"), actions);
            }
        }
    }

    fn wanted(&mut self, wanted: bool, actions: &mut Vec<Action>) {
        if self.state != State::AwaitWanted {
            return;
        }
        let status = if wanted { Status::True } else { Status::False };
        self.send(&Message::Status(status), actions);
        if !wanted {
            return self.fail(Failure::Alive, actions);
        }
        self.state = State::AwaitChallenge;
        self.parse(Bytes::new(), actions);
    }

    fn challenged(&mut self, challenge: Challenge, actions: &mut Vec<Action>) {
        let Challenge {
            flags,
            challenge,
            creation,
            name,
        } = challenge;
        if let Role::Dialler { peer } = &self.role
            && *peer != name
        {
            let expected = peer.clone();
            return self.fail(Failure::OtherNode { expected, found: name }, actions);
        }
        if !self.accept_flags(Peer { name, creation, flags }, Flags::NONE, actions) {
            return;
        }
        let digest = Digest::of(&self.config.cookie, challenge);
        self.send(
            &Message::Reply(Reply {
                challenge: self.challenge,
                digest,
            }),
            actions,
        );
        self.state = State::AwaitAck;
    }

    fn named(&mut self, peer: Peer, old: bool, actions: &mut Vec<Action>) {
        let name = peer.name.clone();
        // An old name leaves out the upper half of the flags.
        let later = if old { Flags::from_bits(!0 << 32) } else { Flags::NONE };
        if !self.accept_flags(peer, later, actions) {
            return;
        }
        let is_node = name
            .split_once('@')
            .is_some_and(|(name, host)| !name.is_empty() && !host.is_empty());
        if !is_node || name == self.config.name {
            self.send(&Message::Status(Status::NotAllowed), actions);
            return self.fail(Failure::Name(name), actions);
        }
        self.state = State::AwaitStanding { old };
        actions.push(Action::AskStanding { peer: name });
    }

    fn standing(&mut self, standing: Standing, actions: &mut Vec<Action>) {
        let (State::AwaitStanding { old }, Some(peer)) = (self.state, &self.peer) else {
            return;
        };
        let decision = Decision::of(&self.config.name, &peer.name, standing);
        let status = match decision {
            Decision::Ok => Status::Ok,
            Decision::OkSimultaneous => Status::OkSimultaneous,
            Decision::Nok => Status::Nok,
            Decision::NotAllowed => Status::NotAllowed,
            Decision::Alive => Status::Alive,
        };
        if decision == Decision::OkSimultaneous {
            actions.push(Action::AbortDial);
        }
        self.send(&Message::Status(status), actions);
        match decision {
            Decision::Ok | Decision::OkSimultaneous => self.send_challenge(old, actions),
            Decision::Alive => self.state = State::AwaitAlive { old },
            Decision::Nok | Decision::NotAllowed => return self.fail(Failure::TurnedAway(decision), actions),
        }
        self.parse(Bytes::new(), actions);
    }

    fn send_challenge(&mut self, old: bool, actions: &mut Vec<Action>) {
        let (flags, creation, name) = (self.config.flags, self.config.creation, self.config.name.clone());
        let challenge = Challenge {
            flags,
            challenge: self.challenge,
            creation,
            name,
        };
        self.send(&Message::Challenge(challenge), actions);
        self.state = if old { State::AwaitComplement } else { State::AwaitReply };
    }

    fn complement(&mut self, complement: Complement, actions: &mut Vec<Action>) {
        let Some(peer) = self.peer.take() else {
            return;
        };
        let Complement { flags, creation } = complement;
        let peer = Peer {
            name: peer.name,
            creation,
            flags: peer.flags.with(flags),
        };
        if self.accept_flags(peer, Flags::NONE, actions) {
            self.state = State::AwaitReply;
        }
    }

    fn reply(&mut self, reply: &Reply, input: &mut Bytes, actions: &mut Vec<Action>) {
        if reply.digest != Digest::of(&self.config.cookie, self.challenge) {
            return self.fail(Failure::Cookie, actions);
        }
        let digest = Digest::of(&self.config.cookie, reply.challenge);
        self.send(&Message::Ack(Ack { digest }), actions);
        self.up(input, actions);
    }

    /// Notes who the peer is, unless it lacks something. Flags in `later` are not known yet.
    fn accept_flags(&mut self, peer: Peer, later: Flags, actions: &mut Vec<Action>) -> bool {
        let flags = peer.flags.expanded();
        let missing = self.config.required.without(flags).without(later);
        self.peer = Some(Peer { flags, ..peer });
        if missing.is_empty() {
            return true;
        }
        self.fail(Failure::Flags { missing }, actions);
        false
    }

    fn up(&mut self, input: &mut Bytes, actions: &mut Vec<Action>) {
        let Some(peer) = self.peer.clone() else {
            return;
        };
        self.state = State::Up;
        self.deadline = None;
        let rest = self.parser.take_rest(std::mem::take(input));
        actions.push(Action::Up(Box::new(Established {
            peer: peer.name,
            peer_creation: peer.creation,
            peer_flags: peer.flags,
            common: peer.flags & self.config.flags.expanded(),
            rest,
        })));
    }

    fn fail(&mut self, failure: Failure, actions: &mut Vec<Action>) {
        self.state = State::Failed;
        self.deadline = None;
        self.held.clear();
        actions.push(Action::Failed(failure));
    }

    fn send(&self, message: &Message, actions: &mut Vec<Action>) {
        actions.push(Action::Send(self.config.carrier.frame(message)));
    }
}
