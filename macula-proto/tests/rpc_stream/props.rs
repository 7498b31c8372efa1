//! Arbitrary histories of a call: machine and model agree about everything that can be seen.
//!
//! Two sides are joined by a carrier that holds messages back for as long as it likes, loses the connection, and, where it is
//! rude, says things that no peer said.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::Bytes;
use macula_proto::{
    rpc::{
        Chunk, EndRole, Mode, Outcome,
        stream::{Action, Config, Event, Loss, Output, Role, Stream, WaiterId},
    },
    wire::Value,
};
use proptest::{collection::vec, option, prelude::*, sample::select};

use crate::{
    ID, await_reply, fault,
    model::{Expected, Model},
    ms, recv, start,
};

/// Messages that the carrier holds before it takes no more chunks.
const WIRE: usize = 4;

#[derive(Debug, Clone)]
pub(crate) enum Act {
    Send(usize),
    SendTerm(usize),
    CloseSend,
    Close,
    SetReply,
    SetError,
    Abort,
    OwnerDown,
    /// Waits for so many milliseconds.
    Recv(Option<u64>),
    AwaitReply(Option<u64>),
    /// The how-manieth waiter before the last.
    CancelWait(u64),
}

#[derive(Debug, Clone)]
enum Op {
    Act(Role, Act),
    /// The carrier hands the oldest message of this side to the other.
    Deliver(Role),
    Attach(Role),
    /// The connection is lost, or the other process; what was under way with it.
    Lose(bool),
    /// Time passes, and what is due fires exactly then.
    Wait(u64),
    /// Time passes, and what is due fires late.
    Oversleep(u64),
    /// The carrier is full, or not, at its own discretion.
    Writable(Role, bool),
    /// Nobody's word.
    Rude(Role, Rude),
}

#[derive(Debug, Clone)]
enum Rude {
    /// A chunk this far from the number that is due, whether there is room or not.
    Data(i8, usize),
    End(EndRole),
    Error,
    Reply,
}

fn role() -> impl Strategy<Value = Role> {
    select(vec![Role::Client, Role::Server])
}

pub(crate) fn act() -> impl Strategy<Value = Act> {
    let wait = || option::weighted(0.7, prop_oneof![1 => Just(0), 2 => 0u64..400]);
    prop_oneof![
        20 => (0usize..120).prop_map(Act::Send),
        3 => (0usize..120).prop_map(Act::SendTerm),
        3 => Just(Act::CloseSend),
        1 => Just(Act::Close),
        2 => Just(Act::SetReply),
        1 => Just(Act::SetError),
        1 => Just(Act::Abort),
        1 => Just(Act::OwnerDown),
        20 => wait().prop_map(Act::Recv),
        5 => wait().prop_map(Act::AwaitReply),
        2 => (0u64..4).prop_map(Act::CancelWait),
    ]
}

fn rude() -> impl Strategy<Value = Rude> {
    prop_oneof![
        6 => (prop_oneof![8 => Just(0i8), 1 => -2i8..=2], 0usize..120).prop_map(|(off, size)| Rude::Data(off, size)),
        1 => select(vec![EndRole::Send, EndRole::Both]).prop_map(Rude::End),
        1 => Just(Rude::Error),
        2 => Just(Rude::Reply),
    ]
}

fn op(rudeness: u32) -> impl Strategy<Value = Op> {
    let rare = 1;
    prop_oneof![
        60 => (role(), act()).prop_map(|(role, act)| Op::Act(role, act)),
        40 => role().prop_map(Op::Deliver),
        2 => role().prop_map(Op::Attach),
        rare => any::<bool>().prop_map(Op::Lose),
        6 => (0u64..500).prop_map(Op::Wait),
        3 => (0u64..500).prop_map(Op::Oversleep),
        2 => (role(), any::<bool>()).prop_map(|(role, writable)| Op::Writable(role, writable)),
        rudeness => (role(), rude()).prop_map(|(role, rude)| Op::Rude(role, rude)),
    ]
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    inbox_limit: usize,
    waiters: u32,
    deadline: Option<u64>,
    idle: Option<u64>,
}

impl Settings {
    pub(crate) fn config(self, now: Instant) -> Config {
        Config {
            inbox_limit: self.inbox_limit,
            waiters: self.waiters,
            deadline: self.deadline.map(|deadline| now + ms(deadline)),
            idle: self.idle.map(ms),
        }
    }
}

pub(crate) fn settings() -> impl Strategy<Value = Settings> {
    let limit = prop_oneof![0usize..400, Just(256 << 10)];
    let times = (option::weighted(0.2, 0u64..2_000), option::weighted(0.2, 1u64..800));
    (limit, 0u32..5, times).prop_map(|(inbox_limit, waiters, (deadline, idle))| Settings {
        inbox_limit,
        waiters,
        deadline,
        idle,
    })
}

pub(crate) fn mode() -> impl Strategy<Value = Mode> {
    select(vec![Mode::ServerStream, Mode::ClientStream, Mode::Bidi, Mode::Bidi])
}

/// Turns acts into events, each chunk unlike all others.
#[derive(Debug, Default)]
pub(crate) struct Owner {
    chunks: u64,
    waiters: u64,
}

impl Owner {
    pub(crate) fn event(&mut self, now: Instant, act: &Act) -> Event {
        let until = |after: &Option<u64>| after.map(|after| now + ms(after));
        match act {
            Act::Send(size) => Event::Send(self.chunk(*size)),
            Act::SendTerm(size) => {
                let Chunk::Raw(bytes) = self.chunk(*size) else {
                    unreachable!("a raw chunk")
                };
                Event::Send(Chunk::Term(Value::Array(vec![Value::Bytes(bytes), Value::Null])))
            }
            Act::CloseSend => Event::CloseSend,
            Act::Close => Event::Close,
            Act::SetReply => Event::SetReply(self.number()),
            Act::SetError => Event::SetError(fault("bad")),
            Act::Abort => Event::Abort(fault("enough")),
            Act::OwnerDown => Event::OwnerDown,
            Act::Recv(after) => recv(self.waiter(), until(after)),
            Act::AwaitReply(after) => await_reply(self.waiter(), until(after)),
            Act::CancelWait(back) => Event::CancelWait(WaiterId(self.waiters.saturating_sub(*back))),
        }
    }

    fn number(&mut self) -> Value {
        self.chunks += 1;
        Value::Uint(self.chunks)
    }

    fn chunk(&mut self, size: usize) -> Chunk {
        self.chunks += 1;
        let mut bytes = self.chunks.to_be_bytes().to_vec();
        bytes.resize(size.max(8), 0);
        Chunk::Raw(Bytes::from(bytes))
    }

    fn waiter(&mut self) -> u64 {
        self.waiters += 1;
        self.waiters
    }
}

struct World {
    now: Instant,
    owner: Owner,
    /// The client's and the server's side.
    sides: [(Stream, Model); 2],
    /// What each side has said and the other has not heard, and whether the carrier told it to wait.
    wires: [(VecDeque<Output>, bool); 2],
    sent: [Vec<Chunk>; 2],
    lost: bool,
    /// Somebody said what nobody said.
    rude: bool,
}

fn index(role: Role) -> usize {
    match role {
        Role::Client => 0,
        Role::Server => 1,
    }
}

impl World {
    fn new(mode: Mode, settings: [Settings; 2], attached: bool) -> Self {
        let now = start();
        let side = |role: Role| {
            let config = settings[index(role)].config(now);
            (
                Stream::new(ID, role, mode, config, now),
                Model::new(role, mode, config, now),
            )
        };
        let mut world = Self {
            now,
            owner: Owner::default(),
            sides: [side(Role::Client), side(Role::Server)],
            wires: Default::default(),
            sent: Default::default(),
            lost: false,
            rude: false,
        };
        if attached {
            world.step(Role::Client, Event::Attached);
            world.step(Role::Server, Event::Attached);
        }
        world
    }

    fn run(&mut self, op: &Op) {
        match op {
            Op::Act(role, act) => {
                let event = self.owner.event(self.now, act);
                self.step(*role, event);
            }
            Op::Deliver(from) => self.deliver(*from),
            Op::Attach(role) => self.step(*role, Event::Attached),
            Op::Lose(process) => self.lose(*process),
            Op::Wait(by) => self.wait(ms(*by)),
            Op::Oversleep(by) => {
                self.now += ms(*by);
                self.step(Role::Client, Event::Timeout);
                self.step(Role::Server, Event::Timeout);
            }
            Op::Writable(role, writable) => self.step(*role, Event::Writable(*writable)),
            Op::Rude(role, rude) => self.rude(*role, rude),
        }
    }

    /// One event for machine and model of one side.
    fn step(&mut self, role: Role, event: Event) {
        let (stream, model) = &mut self.sides[index(role)];
        let mut actions = Vec::new();
        let timeout = event == Event::Timeout;
        let what = format!("{role:?} {event:?}");
        stream.handle(self.now, event.clone(), &mut actions);
        let expected = model.step(self.now, event);
        assert_eq!(Expected::of(&actions), expected, "{what}");
        assert_eq!(stream.info(), model.info(), "{what}");
        assert_eq!(stream.stats(), model.stats(), "{what}");
        assert_eq!(stream.poll_timeout(), model.due(), "{what}");
        assert_eq!(stream.inbox_has_room(), model.has_room(), "{what}");
        if timeout {
            assert!(
                stream.poll_timeout().is_none_or(|due| due > self.now),
                "{what}: still due"
            );
        }
        let finished = actions.iter().position(|action| *action == Action::Finished);
        assert!(
            finished.is_none_or(|at| at + 1 == actions.len()),
            "{what}: not the last"
        );
        for output in expected.emitted {
            if let Output::Data { chunk, .. } = &output {
                self.sent[index(role)].push(chunk.clone());
            }
            self.wires[index(role)].0.push_back(output);
        }
        self.pace(role);
    }

    /// The carrier takes only so much.
    fn pace(&mut self, role: Role) {
        let (wire, waits) = &mut self.wires[index(role)];
        let (full, empty) = (wire.len() >= WIRE, wire.len() < WIRE / 2);
        if full && !*waits || empty && *waits {
            *waits = full;
            self.step(role, Event::Writable(!full));
        }
    }

    fn deliver(&mut self, from: Role) {
        let to = from.other();
        let wire = &mut self.wires[index(from)].0;
        let data = matches!(wire.front(), Some(Output::Data { .. }));
        if self.lost || (data && !self.sides[index(to)].0.inbox_has_room()) {
            return;
        }
        if let Some(output) = wire.pop_front() {
            self.step(to, output.into_event());
        }
        self.pace(from);
    }

    fn lose(&mut self, process: bool) {
        self.lost = true;
        for role in [Role::Client, Role::Server] {
            self.wires[index(role)].0.clear();
            let loss = if process {
                Loss::PeerDown
            } else {
                Loss::Connection(fault("disconnected"))
            };
            self.step(role, Event::CarrierLost(loss));
        }
    }

    fn wait(&mut self, by: Duration) {
        let until = self.now + by;
        loop {
            let due = |side: usize| self.sides[side].0.poll_timeout();
            let next = [due(0), due(1)].into_iter().flatten().min();
            let Some(next) = next.filter(|next| *next <= until) else {
                break;
            };
            self.now = self.now.max(next);
            for role in [Role::Client, Role::Server] {
                if self.sides[index(role)]
                    .0
                    .poll_timeout()
                    .is_some_and(|due| due <= self.now)
                {
                    self.step(role, Event::Timeout);
                }
            }
        }
        self.now = until;
    }

    fn rude(&mut self, role: Role, rude: &Rude) {
        self.rude = true;
        let event = match rude {
            Rude::Data(off, size) => {
                let seq = self.sides[index(role)].0.info().seq_in;
                Event::PeerData {
                    seq: seq.wrapping_add_signed(i64::from(*off)),
                    chunk: self.owner.chunk(*size),
                }
            }
            Rude::End(role) => Event::PeerEnd(*role),
            Rude::Error => Event::PeerError(fault("theirs")),
            Rude::Reply => Event::PeerReply(Outcome::Ok(Value::text("theirs"))),
        };
        self.step(role, event);
    }

    /// What holds between the two sides, whatever has happened.
    fn check(&self) {
        for from in [Role::Client, Role::Server] {
            let (sent, received) = (&self.sent[index(from)], self.sides[index(from.other())].1.received());
            assert!(
                self.rude || sent.starts_with(received),
                "chunks were lost, doubled or reordered"
            );
        }
    }

    /// Lets everything that is under way arrive, with owners that take what there is.
    fn drain(&mut self) {
        for _ in 0..400 {
            for role in [Role::Client, Role::Server] {
                self.deliver(role);
                let now = self.now;
                let waiting = self.sides[index(role)].0.info().recv_waiters;
                if waiting == 0 {
                    let event = self.owner.event(now, &Act::Recv(Some(0)));
                    self.step(role, event);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn machine_and_model_agree_about_calls(
        mode in mode(), settings in [settings(), settings()], attached in prop::bool::weighted(0.9), ops in vec(op(0), 1..150),
    ) {
        let mut world = World::new(mode, settings, attached);
        for op in &ops {
            world.run(op);
        }
        world.check();
    }

    #[test]
    fn machine_and_model_agree_about_rude_peers(
        mode in mode(), settings in [settings(), settings()], attached in prop::bool::weighted(0.9), ops in vec(op(40), 1..100),
    ) {
        let mut world = World::new(mode, settings, attached);
        for op in &ops {
            world.run(op);
        }
    }

    /// Once both have said all they have to say, and hear it, nothing is missing and both are done.
    #[test]
    fn a_call_that_both_close_in_good_order_is_complete(
        settings in [settings(), settings()], ops in vec((role(), (0usize..120).prop_map(Act::Send)), 0..60),
        delivered in vec(role(), 0..60),
    ) {
        let settings = settings.map(|settings| Settings { deadline: None, idle: None, ..settings });
        let mut world = World::new(Mode::Bidi, settings, true);
        let mut delivered = delivered.into_iter();
        for (role, act) in ops {
            world.run(&Op::Act(role, act));
            delivered.next().into_iter().for_each(|role| world.run(&Op::Deliver(role)));
        }
        for (role, act) in [
            (Role::Client, Act::CloseSend), (Role::Server, Act::SetReply), (Role::Server, Act::CloseSend),
        ] {
            world.run(&Op::Act(role, act));
        }
        world.drain();
        world.check();
        for from in [Role::Client, Role::Server] {
            prop_assert_eq!(&world.sent[index(from)][..], world.sides[index(from.other())].1.received());
            prop_assert!(world.sides[index(from)].0.is_finished());
            prop_assert_eq!(world.sides[index(from)].0.fault(), None);
        }
    }
}
