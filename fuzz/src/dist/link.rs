//! Both ends of a distribution connection: handshake, control stream, data streams and streams of users.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use arbitrary::{Arbitrary, Unstructured};
use bytes::{Bytes, BytesMut};
use macula_proto::{
    Code, Now, Rng,
    dist::{
        controller::{Action, Controller, ControllerConfig, EndReason, Event, LinkState, Purpose},
        handshake::{HandshakeConfig, Standing},
        streams::{Side, Slot},
        user::{self, Owner, Priority},
    },
    wire::etf::Atom,
};

use crate::script::{at, ms, operations, pick, start};

#[derive(Debug, Arbitrary)]
enum Op {
    /// Everything moves.
    Settle,
    Pull {
        end: bool,
        stream: u8,
        most: u16,
    },
    Deliver {
        end: bool,
        stream: u8,
        most: u16,
    },
    Send {
        end: bool,
        size: u16,
        key: u8,
    },
    Take(bool),
    Inject {
        end: bool,
        stream: u8,
        bytes: Vec<u8>,
    },
    Flip {
        end: bool,
        stream: u8,
        at: u16,
        bit: u8,
    },
    Tick(bool),
    Wakeup(bool),
    Transport {
        end: bool,
        queued: u16,
        in_flight: u16,
    },
    OpenUser {
        end: bool,
        owner: u8,
    },
    Accept {
        end: bool,
        owner: u8,
        stop: bool,
    },
    User {
        end: bool,
        stream: u8,
        owner: u8,
        what: u8,
    },
    OwnerGone {
        end: bool,
        owner: u8,
    },
    StreamEvent {
        end: bool,
        stream: u8,
        what: u8,
    },
    Sleep(u16),
    Due,
    Leave(bool),
    Close(bool),
    Lost,
    Displaced(bool),
}

struct End {
    controller: Controller,
    sent: Vec<Bytes>,
    got: usize,
    dirty: BTreeSet<u64>,
    finished: BTreeSet<u64>,
    up: bool,
    over: bool,
    next_user: u64,
}

struct Pair {
    now: Now,
    ends: [End; 2],
    wires: BTreeMap<(usize, u64), BytesMut>,
    events: VecDeque<(usize, Event)>,
    /// Bytes or ends of streams were made up.
    spoilt: bool,
    lost: bool,
}

/// Two nodes come up over streams that are cut anywhere, talk and leave, while bytes are damaged, streams end and users do what
/// they may not. Messages arrive once and in order; each end is over once and silent afterwards; a user stream is only its
/// owner's; and what is kept is bounded.
pub fn dist_link(data: &[u8]) {
    let mut pair = Pair::new();
    for op in operations::<Op>(Unstructured::new(data), 300) {
        pair.apply(op);
        pair.feed();
        pair.check();
    }
    pair.apply(Op::Lost);
    pair.feed();
    for end in &pair.ends {
        assert!(
            end.over && end.controller.state() == LinkState::Over,
            "never told of its end"
        );
        assert_eq!(end.controller.poll_timeout(), None);
        assert_eq!(end.controller.user_streams().count(), 0, "streams of users are left");
    }
}

impl Pair {
    fn new() -> Self {
        let end = |end: usize| {
            let name = |end: usize| Atom::new(["a@h", "b@h"][end]).expect("a name");
            let mut config = ControllerConfig::new(HandshakeConfig::new(name(end), 1, "x".into()));
            config.pool.inbox = 8192;
            config.pool.early = 1024;
            config.pool.backlog = 8192;
            config.users.streams = 6;
            config.users.early = 2;
            config.users.acceptors = 2;
            let dialled = (end == 0).then(|| name(1));
            let controller = Controller::new(dialled, config, &mut Rng::from_seed(end as u64));
            End {
                next_user: if controller.side() == Side::Client { 20 } else { 17 },
                controller,
                sent: Vec::new(),
                got: 0,
                dirty: BTreeSet::new(),
                finished: BTreeSet::new(),
                up: false,
                over: false,
            }
        };
        let mut pair = Self {
            now: start(),
            ends: [end(0), end(1)],
            wires: BTreeMap::new(),
            events: [(0, Event::Connected), (1, Event::Connected)].into(),
            spoilt: false,
            lost: false,
        };
        pair.feed();
        pair
    }

    fn stream(&self, end: usize, number: u8) -> (u64, Purpose) {
        let side = self.ends[end].controller.side();
        let mut all = vec![(0, Purpose::Control)];
        all.extend(Slot::ALL.map(|slot| (slot.stream_id(side), Purpose::Data(slot))));
        all[usize::from(number) % all.len()]
    }

    fn with<T>(&mut self, end: usize, run: impl FnOnce(&mut Controller, Now, &mut Vec<Action>) -> T) -> T {
        let mut actions = Vec::new();
        let result = run(&mut self.ends[end].controller, self.now, &mut actions);
        self.act(end, actions);
        result
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Settle => self.settle(),
            Op::Pull { end, stream, most } => {
                let (stream, purpose) = self.stream(end.into(), stream);
                self.pull(end.into(), stream, purpose, most.into());
            }
            Op::Deliver { end, stream, most } => {
                let (stream, _) = self.stream(end.into(), stream);
                self.deliver(end.into(), stream, most.into());
            }
            Op::Send { end, size, key } => self.send(end.into(), size, key),
            Op::Take(end) => self.take(end.into()),
            Op::Inject { end, stream, bytes } => {
                self.spoilt = true;
                let (stream, _) = self.stream(end.into(), stream);
                self.wires
                    .entry((end.into(), stream))
                    .or_default()
                    .extend_from_slice(&bytes);
            }
            Op::Flip { end, stream, at, bit } => {
                let (stream, _) = self.stream(end.into(), stream);
                let wire = self.wires.entry((end.into(), stream)).or_default();
                if !wire.is_empty() {
                    let at = usize::from(at) % wire.len();
                    wire[at] ^= 1 << (bit % 8);
                    self.spoilt = true;
                }
            }
            Op::Tick(end) => self.events.push_back((end.into(), Event::Tick)),
            Op::Wakeup(end) => self.events.push_back((end.into(), Event::Wakeup)),
            Op::Transport { end, queued, in_flight } => {
                let (queued, in_flight) = (queued.into(), u64::from(in_flight) * 64);
                self.events.push_back((
                    end.into(),
                    Event::Transport {
                        queued,
                        window: 1000,
                        in_flight,
                    },
                ));
            }
            Op::Sleep(time) => self.wait(self.now.after(ms(u64::from(time) * 2))),
            Op::Due => {
                let due = self.ends.iter().filter_map(|end| end.controller.poll_timeout()).min();
                self.wait(at(self.now, due));
            }
            Op::Leave(end) => self.events.push_back((end.into(), Event::Leave(Code::SHUTDOWN))),
            Op::Close(end) => self.events.push_back((end.into(), Event::Close(Code::CLOSED))),
            Op::Displaced(end) => self.events.push_back((end.into(), Event::Displaced)),
            Op::Lost => {
                self.lost = true;
                self.wires.clear();
                for end in [0, 1] {
                    self.events
                        .push_back((end, Event::Lost(EndReason::Lost(String::new()))));
                }
            }
            op => self.user(op),
        }
    }

    fn user(&mut self, op: Op) {
        match op {
            Op::OpenUser { end, owner } => {
                let end = usize::from(end);
                if self.ends[end].controller.users().may_open().is_err() {
                    return;
                }
                let stream = self.ends[end].next_user;
                self.ends[end].next_user += 4;
                let owner = Owner(u64::from(owner % 3));
                let priority = Priority::clamped(stream as i64);
                let opened = self.with(end, |controller, _, actions| {
                    controller.user_opened(stream, owner, priority, actions)
                });
                assert_eq!(opened, Ok(()), "may be opened, and is not");
                self.events.push_back((1 - end, Event::Arrived(stream)));
            }
            Op::Accept { end, owner, stop } => {
                let owner = Owner(u64::from(owner % 3));
                self.with(end.into(), |controller, _, actions| {
                    controller.with_users(actions, |users, _| {
                        if stop {
                            users.stop_accepting(owner);
                        } else {
                            let _ = users.accept(owner);
                        }
                    });
                });
            }
            Op::OwnerGone { end, owner } => {
                let owner = Owner(u64::from(owner % 3));
                self.with(end.into(), |controller, _, actions| {
                    controller.with_users(actions, |users, out| users.owner_gone(owner, Code::CANCELLED, out));
                });
                let users = self.ends[usize::from(end)].controller.users();
                assert!(
                    users.list().all(|stream| stream.owner != owner),
                    "streams of somebody who is gone"
                );
            }
            Op::User {
                end,
                stream,
                owner,
                what,
            } => {
                let streams: Vec<_> = self.ends[usize::from(end)].controller.user_streams().collect();
                let Some(&state) = pick(&streams, stream) else { return };
                let (stream, owner) = (state.stream, Owner(u64::from(owner % 3)));
                let done = self.with(end.into(), |controller, _, actions| {
                    controller.with_users(actions, |users, out| match what % 6 {
                        0 => users.finish(stream, owner, out),
                        1 => users.close(stream, owner, out),
                        2 => users.reset(stream, owner, Code::CANCELLED, out),
                        3 => users.hand_over(stream, owner, Owner(1), out),
                        4 => users.may_read(stream, owner),
                        _ => users.may_send(stream, owner).or(if state.send_fin {
                            Ok(())
                        } else {
                            Err(user::UserError::NotOwner)
                        }),
                    })
                });
                if state.owner != owner && what % 6 != 5 {
                    assert_eq!(done, Err(user::UserError::NotOwner), "somebody else's stream");
                }
            }
            Op::StreamEvent { end, stream, what } => {
                let code = Code::CANCELLED;
                let streams: Vec<_> = self.ends[usize::from(end)].controller.user_streams().collect();
                let user = pick(&streams, stream).map(|state| state.stream);
                // Those of data and control now and then.
                let (own, _) = self.stream(1 - usize::from(end), stream);
                let stream = user.filter(|_| what < 240).unwrap_or(own);
                if user.is_none() || what >= 240 {
                    self.spoilt = true;
                }
                let event = match what % 6 {
                    0 => Event::Finished(stream),
                    1 => Event::Reset(stream, code),
                    2 => Event::Stopped(stream, code),
                    3 => Event::Readable(stream),
                    4 => Event::Writable(stream),
                    _ => Event::Arrived(u64::from(what)),
                };
                self.events.push_back((end.into(), event));
            }
            _ => {}
        }
    }

    fn send(&mut self, end: usize, size: u16, key: u8) {
        let number = self.ends[end].sent.len() as u32;
        let mut message = vec![key; usize::from(size % 3000) + 4];
        message[..4].copy_from_slice(&number.to_be_bytes());
        let message = Bytes::from(message);
        let (up, over) = (self.ends[end].up, self.ends[end].over);
        let sent = self.with(end, |controller, _, actions| {
            controller.send(message.clone(), key.into(), actions)
        });
        if sent.is_ok() {
            assert!(up && !over, "taken without being up");
            self.ends[end].sent.push(message);
        }
    }

    fn take(&mut self, end: usize) {
        let Some(message) = self.with(end, |controller, _, actions| controller.next_message(actions)) else {
            return;
        };
        assert!(self.ends[end].up);
        let place = self.ends[end].got;
        self.ends[end].got += 1;
        assert!(
            self.spoilt || self.ends[1 - end].sent[place] == message,
            "lost, doubled or out of order"
        );
    }

    fn pull(&mut self, end: usize, stream: u64, purpose: Purpose, most: usize) -> bool {
        if most == 0 {
            return false;
        }
        match self.with(end, |controller, now, actions| {
            controller.poll_output(now, purpose, most, actions)
        }) {
            Some(piece) => {
                assert!(!piece.is_empty() && piece.len() <= most);
                if !self.lost {
                    self.wires.entry((end, stream)).or_default().extend_from_slice(&piece);
                }
                true
            }
            None => {
                self.ends[end].dirty.remove(&stream);
                false
            }
        }
    }

    fn deliver(&mut self, from: usize, stream: u64, most: usize) -> bool {
        let to = 1 - from;
        let room = self.ends[to].controller.room(stream);
        let Some(wire) = self.wires.get_mut(&(from, stream)) else {
            return false;
        };
        let piece = wire.split_to(most.min(wire.len()).min(room)).freeze();
        let (moved, empty) = (!piece.is_empty(), wire.is_empty());
        if moved {
            self.events.push_back((to, Event::Received { stream, bytes: piece }));
            self.feed();
        }
        if empty && !self.ends[from].dirty.contains(&stream) && self.ends[from].finished.remove(&stream) {
            self.events.push_back((to, Event::Finished(stream)));
            self.events.push_back((from, Event::Delivered(stream)));
            self.feed();
        }
        moved
    }

    fn settle(&mut self) {
        for _ in 0..200 {
            let mut moved = false;
            for end in [0, 1] {
                for number in 0..5 {
                    let (stream, purpose) = self.stream(end, number);
                    moved |= self.pull(end, stream, purpose, 1 << 14);
                    moved |= self.deliver(end, stream, 1 << 14);
                }
            }
            self.feed();
            let pause = self.ends.iter().filter_map(|end| end.controller.poll_timeout()).min();
            // In the handshake pieces leave some time apart.
            if let Some(pause) = pause.filter(|pause| *pause <= self.now.mono + ms(50)) {
                self.wait(at(self.now, Some(pause)));
                moved = true;
            }
            if !moved {
                return;
            }
        }
    }

    fn wait(&mut self, until: Now) {
        self.now = until;
        for end in [0, 1] {
            if self.ends[end]
                .controller
                .poll_timeout()
                .is_some_and(|due| due <= until.mono)
            {
                self.with(end, |controller, now, actions| {
                    controller.handle(now, Event::Timeout, actions)
                });
                let due = self.ends[end].controller.poll_timeout();
                assert!(due.is_none_or(|due| due > until.mono), "a deadline that is over");
            }
        }
    }

    fn feed(&mut self) {
        while let Some((end, event)) = self.events.pop_front() {
            self.with(end, |controller, now, actions| controller.handle(now, event, actions));
        }
    }

    fn act(&mut self, end: usize, actions: Vec<Action>) {
        for action in actions {
            let side = self.ends[end].controller.side();
            let id = |purpose: Purpose| match purpose {
                Purpose::Control => 0,
                Purpose::Data(slot) => slot.stream_id(side),
            };
            let state = &mut self.ends[end];
            assert!(!state.over, "after the end: {action:?}");
            match action {
                Action::Open(purpose) => self.events.push_back((end, Event::Opened(purpose))),
                Action::Writable(purpose) => _ = state.dirty.insert(id(purpose)),
                Action::Finish(purpose) => _ = state.finished.insert(id(purpose)),
                Action::AskStanding { .. } => self.events.push_back((end, Event::Standing(Standing::New))),
                Action::AskWanted => self.events.push_back((end, Event::Wanted(true))),
                Action::Up(_) => assert!(!std::mem::replace(&mut state.up, true), "up twice"),
                Action::Close { code, .. } => {
                    let reason = EndReason::PeerClosed(code);
                    self.events.push_back((1 - end, Event::Lost(reason)));
                }
                Action::Down(_) => state.over = true,
                Action::Read
                | Action::Ping
                | Action::PeerTick
                | Action::Congested
                | Action::SendReady
                | Action::Messages
                | Action::User(_) => {}
            }
        }
    }

    fn check(&self) {
        for end in &self.ends {
            assert!(end.controller.pending() <= 8192 + 3010, "too much waits to be sent");
            assert!(end.controller.user_streams().count() <= 6, "too many streams of users");
            assert_eq!(end.controller.state() == LinkState::Over, end.over);
            assert_eq!(end.controller.established().is_some(), end.up);
        }
    }
}
