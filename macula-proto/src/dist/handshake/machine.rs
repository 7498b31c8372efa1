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
    /// The name that a node without one is given, and which run of it that is: two random numbers.
    gift: (u64, u32),
    /// What this node is called here.
    own: (Atom, u32),
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
    AwaitStanding(Caller),
    AwaitAlive(Caller),
    AwaitComplement,
    AwaitReply,
    // Either.
    Up,
    Failed,
}

/// How a node that calls has said its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Caller {
    Named,
    /// In the old form, which leaves out something that comes later.
    Old,
    /// It has none.
    Nameless,
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
            own: (config.name.clone(), config.creation),
            config,
            role,
            state: State::Fresh,
            challenge: u32::from_be_bytes(rng.bytes()),
            // The lowest creations mean something else on old nodes.
            gift: (u64::from_be_bytes(rng.bytes()), u32::from_be_bytes(rng.bytes()).max(4)),
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
            State::Fresh | State::AwaitWanted | State::AwaitStanding(_) | State::Up | State::Failed
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
                let caller = if flags.contains(Flags::NAME_ME) {
                    Caller::Nameless
                } else {
                    Caller::Named
                };
                self.named(Peer { name, creation, flags }, caller, actions);
            }
            (State::AwaitName, Message::OldName(OldName { flags, name })) => {
                let peer = Peer {
                    name,
                    creation: 0,
                    flags,
                };
                self.named(peer, Caller::Old, actions);
            }
            (State::AwaitAlive(caller), Message::Status(Status::True)) => self.send_challenge(caller, actions),
            (State::AwaitAlive(_), Message::Status(Status::False)) => self.fail(Failure::Alive, actions),
            (State::AwaitComplement, Message::Complement(complement)) => self.complement(complement, actions),
            (State::AwaitReply, Message::Reply(reply)) => self.reply(&reply, input, actions),
            (_, message) => self.fail(Failure::Unexpected(message.kind()), actions),
        }
    }

    fn status(&mut self, status: Status, actions: &mut Vec<Action>) {
        let nameless = self.config.is_nameless();
        match status {
            Status::Nok => self.fail(Failure::Nok, actions),
            Status::NotAllowed => self.fail(Failure::NotAllowed, actions),
            Status::Ok | Status::OkSimultaneous if !nameless => self.state = State::AwaitChallenge,
            Status::Alive if !nameless => {
                self.state = State::AwaitWanted;
                actions.push(Action::AskWanted);
            }
            Status::Named { name, creation } if nameless => {
                let host = parts(&name).map(|(_, host)| host);
                if host != Some(self.config.name.as_str()) {
                    return self.fail(Failure::GivenName(name), actions);
                }
                self.own = (name, creation);
                self.state = State::AwaitChallenge;
            }
            // Who asks for a name needs one, and who has one is called by no other.
            _ => self.fail(Failure::Unexpected("status"), actions),
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
        if !self.has_flags(&Peer { name, creation, flags }, Flags::NONE, actions) {
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

    fn named(&mut self, peer: Peer, caller: Caller, actions: &mut Vec<Action>) {
        let told = peer.name.clone();
        // An old name leaves out the upper half of the flags.
        let later = match caller {
            Caller::Old => Flags::from_bits(!0 << 32),
            Caller::Named | Caller::Nameless => Flags::NONE,
        };
        if !self.has_flags(&peer, later, actions) {
            return;
        }
        let peer = match caller {
            Caller::Nameless => self.christened(peer),
            Caller::Named | Caller::Old => Some(peer).filter(|peer| parts(&peer.name).is_some()),
        };
        let peer = peer.filter(|peer| peer.name != self.config.name && !self.config.is_nameless());
        let Some(peer) = peer else {
            self.send(&Message::Status(Status::NotAllowed), actions);
            return self.fail(Failure::Name(told), actions);
        };
        let name = peer.name.clone();
        self.peer = Some(peer);
        self.state = State::AwaitStanding(caller);
        actions.push(Action::AskStanding { peer: name });
    }

    /// A node that told its host alone, with a name.
    fn christened(&self, peer: Peer) -> Option<Peer> {
        let host = peer.name;
        if !self.config.give_names || host.is_empty() || host.contains('@') {
            return None;
        }
        let (name, creation) = self.gift;
        let name = Atom::new(format!("{}@{host}", base36(name))).ok()?;
        Some(Peer {
            name,
            creation,
            flags: peer.flags,
        })
    }

    fn standing(&mut self, standing: Standing, actions: &mut Vec<Action>) {
        let (State::AwaitStanding(caller), Some(peer)) = (self.state, &self.peer) else {
            return;
        };
        let decision = match Decision::of(&self.config.name, &peer.name, standing) {
            // A node of the very name that was drawn is another one.
            Decision::OkSimultaneous | Decision::Alive if caller == Caller::Nameless => Decision::Nok,
            decision => decision,
        };
        let status = match decision {
            Decision::Ok if caller == Caller::Nameless => Status::Named {
                name: peer.name.clone(),
                creation: peer.creation,
            },
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
            Decision::Ok | Decision::OkSimultaneous => self.send_challenge(caller, actions),
            Decision::Alive => self.state = State::AwaitAlive(caller),
            Decision::Nok | Decision::NotAllowed => return self.fail(Failure::TurnedAway(decision), actions),
        }
        self.parse(Bytes::new(), actions);
    }

    fn send_challenge(&mut self, caller: Caller, actions: &mut Vec<Action>) {
        let (flags, creation, name) = (self.config.flags, self.config.creation, self.config.name.clone());
        let challenge = Challenge {
            flags,
            challenge: self.challenge,
            creation,
            name,
        };
        self.send(&Message::Challenge(challenge), actions);
        self.state = match caller {
            Caller::Old => State::AwaitComplement,
            Caller::Named | Caller::Nameless => State::AwaitReply,
        };
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
        if self.has_flags(&peer, Flags::NONE, actions) {
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

    /// Whether the peer can do what it has to. Flags in `later` are not known yet. A dialler that cannot is told.
    fn has_flags(&mut self, peer: &Peer, later: Flags, actions: &mut Vec<Action>) -> bool {
        let missing = self.config.required.without(peer.flags.expanded()).without(later);
        self.peer = Some(peer.clone());
        if missing.is_empty() {
            return true;
        }
        if self.state == State::AwaitName {
            self.send(&Message::Status(Status::NotAllowed), actions);
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
        let (own, own_creation) = self.own.clone();
        // Who asked for a name has one now.
        let peer_flags = peer.flags.expanded().without(Flags::NAME_ME);
        actions.push(Action::Up(Box::new(Established {
            own,
            own_creation,
            peer: peer.name,
            peer_creation: peer.creation,
            peer_flags,
            common: peer_flags & self.config.flags.expanded(),
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

/// The two parts of a node's name, if it is one.
fn parts(name: &str) -> Option<(&str, &str)> {
    name.split_once('@')
        .filter(|(name, host)| !name.is_empty() && !host.is_empty())
}

/// A number in digits and capital letters, as OTP nodes make names of random ones.
fn base36(number: u64) -> String {
    let digit = |place: u32| number.checked_div(36_u64.pow(place)).unwrap_or(0) % 36;
    // 36^12 is the highest power below 2^64.
    let digits = (0..13).rev().map(digit).skip_while(|digit| *digit == 0);
    digits
        .filter_map(|digit| char::from_digit(digit as u32, 36))
        .map(|it| it.to_ascii_uppercase())
        .collect()
}
