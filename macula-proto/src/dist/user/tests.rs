use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const A: Owner = Owner(1);
const B: Owner = Owner(2);

fn users(side: Side) -> Users {
    let mut users = Users::new(side, UserConfig::default());
    users.up(&mut Vec::new());
    users
}

fn arrived(users: &mut Users, stream: u64) -> Vec<Action> {
    let mut out = Vec::new();
    users.arrived(stream, &mut out);
    out
}

fn accepted(owner: Owner, stream: u64) -> Vec<Action> {
    let (priority, event) = (Priority::default(), UserEvent::Accepted);
    vec![
        Action::Prioritise { stream, priority },
        Action::Tell { owner, stream, event },
    ]
}

fn refused(stream: u64) -> Vec<Action> {
    let code = Code::new(0x100).unwrap();
    vec![Action::Abort { stream, code }]
}

#[test]
fn either_direction_can_be_given_up_alone() {
    let mut users = users(Side::Client);
    let (stream, code) = (20, Code::CANCELLED);
    users.opened(stream, A, Priority::default(), &mut Vec::new()).unwrap();
    let mut out = Vec::new();
    assert_eq!(users.stop(stream, B, code, &mut out), Err(UserError::NotOwner));
    assert_eq!(users.abandon(stream, B, code, &mut out), Err(UserError::NotOwner));
    users.stop(stream, A, code, &mut out).unwrap();
    users.stop(stream, A, code, &mut out).unwrap();
    let entry = users.get(stream).unwrap();
    assert!(entry.recv_fin && !entry.send_fin && users.may_send(stream, A).is_ok());
    users.abandon(stream, A, code, &mut out).unwrap();
    assert_eq!(out, [Action::Stop { stream, code }, Action::Abandon { stream, code }]);
    assert_eq!((users.get(stream), users.stats().reset), (None, 1));
    assert_eq!(users.abandon(stream, A, code, &mut out), Err(UserError::Unknown));

    // What was finished is not taken back.
    users.opened(24, A, Priority::default(), &mut Vec::new()).unwrap();
    out.clear();
    users.finish(24, A, &mut out).unwrap();
    users.abandon(24, A, code, &mut out).unwrap();
    assert_eq!(out, [Action::Finish(24)]);
}

#[test]
fn priorities_are_clamped() {
    for (asked, got) in [
        (i64::MIN, 16),
        (0, 16),
        (15, 16),
        (16, 16),
        (128, 128),
        (255, 255),
        (256, 255),
    ] {
        assert_eq!(Priority::clamped(asked).get(), got, "{asked}");
    }
    assert_eq!(Priority::default().get(), 128);
}

#[test]
fn only_ids_behind_those_of_data_are_for_users() {
    for (side, first) in [(Side::Client, 20), (Side::Server, 17)] {
        let mut users = users(side);
        let mut out = Vec::new();
        for id in (0..first).chain([first + 1, first + 2, first + 3]) {
            assert_eq!(
                users.opened(id, A, Priority::default(), &mut out),
                Err(UserError::Unknown),
                "{side:?} {id}"
            );
        }
        for id in [first, first + 4, first + 400] {
            assert_eq!(users.opened(id, A, Priority::clamped(20), &mut out), Ok(()));
        }
        assert_eq!(
            users.opened(first, B, Priority::default(), &mut out),
            Err(UserError::Unknown)
        );
        let priority = Priority::clamped(20);
        let expected = [first, first + 4, first + 400].map(|stream| Action::Prioritise { stream, priority });
        assert_eq!(out, expected);
        assert_eq!(users.stats().opened, 3);
    }
}

#[test]
fn those_who_accept_take_turns() {
    let mut users = users(Side::Server);
    assert_eq!(arrived(&mut users, 20), refused(20));
    for owner in [A, B, A] {
        users.accept(owner).unwrap();
    }
    assert_eq!(arrived(&mut users, 24), accepted(A, 24));
    assert_eq!(arrived(&mut users, 28), accepted(B, 28));
    assert_eq!(arrived(&mut users, 32), accepted(A, 32));
    users.stop_accepting(B);
    assert_eq!(arrived(&mut users, 36), accepted(A, 36));
    users.stop_accepting(A);
    assert_eq!(arrived(&mut users, 40), refused(40));
    assert_eq!(users.get(28).unwrap().owner, B, "who stops keeps what it has");
    assert_eq!((users.stats().accepted, users.stats().refused), (4, 2));
}

#[test]
fn what_comes_before_the_node_is_up_waits() {
    let mut users = Users::new(
        Side::Client,
        UserConfig {
            early: 2,
            ..UserConfig::default()
        },
    );
    users.accept(A).unwrap();
    assert_eq!(users.may_open(), Err(UserError::NotUp));
    assert!(arrived(&mut users, 17).is_empty());
    assert!(arrived(&mut users, 21).is_empty());
    assert_eq!(arrived(&mut users, 25), refused(25), "not more than a few");
    let mut out = Vec::new();
    users.up(&mut out);
    assert_eq!(out, [accepted(A, 17), accepted(A, 21)].concat());
}

#[test]
fn only_the_owner_does_anything() {
    let mut users = users(Side::Client);
    let mut out = Vec::new();
    users.opened(20, A, Priority::default(), &mut out).unwrap();
    out.clear();
    assert_eq!(users.may_send(20, B), Err(UserError::NotOwner));
    assert_eq!(users.may_read(20, B), Err(UserError::NotOwner));
    assert_eq!(users.finish(20, B, &mut out), Err(UserError::NotOwner));
    assert_eq!(users.close(20, B, &mut out), Err(UserError::NotOwner));
    assert_eq!(users.reset(20, B, Code::CLOSED, &mut out), Err(UserError::NotOwner));
    assert_eq!(users.hand_over(20, B, B, &mut out), Err(UserError::NotOwner));
    assert_eq!(users.hand_over(24, A, B, &mut out), Err(UserError::Unknown));
    assert!(out.is_empty());
    users.hand_over(20, A, B, &mut out).unwrap();
    let event = UserEvent::HandedOver;
    assert_eq!(
        out,
        [Action::Tell {
            owner: B,
            stream: 20,
            event
        }]
    );
    assert_eq!(users.may_send(20, A), Err(UserError::NotOwner));
    assert_eq!(users.may_send(20, B), Ok(()));
}

#[test]
fn the_two_directions_end_by_themselves() {
    let mut users = users(Side::Client);
    let mut out = Vec::new();
    for id in [20, 24, 28, 32] {
        users.opened(id, A, Priority::default(), &mut out).unwrap();
    }
    out.clear();
    users.finish(20, A, &mut out).unwrap();
    users.finish(20, A, &mut out).unwrap();
    assert_eq!(out, [Action::Finish(20)]);
    assert_eq!(users.may_send(20, A), Err(UserError::SendClosed));
    let state = users.get(20).unwrap();
    assert!(state.send_fin && !state.recv_fin);
    users.peer_finished(20);
    assert_eq!(users.get(20), None, "both are over");
    out.clear();

    users.peer_reset(24, Code::TIMEOUT, &mut out);
    users.peer_reset(24, Code::TIMEOUT, &mut out);
    users.peer_stopped(24, Code::CLOSED, &mut out);
    let tell = |stream, event| Action::Tell {
        owner: A,
        stream,
        event,
    };
    assert_eq!(
        out,
        [
            tell(24, UserEvent::Reset(Code::TIMEOUT)),
            tell(24, UserEvent::Stopped(Code::CLOSED)),
        ]
    );
    assert_eq!(users.get(24), None);
    out.clear();

    users.close(28, A, &mut out).unwrap();
    let code = Code::CLOSED;
    assert_eq!(out, [Action::Finish(28), Action::Stop { stream: 28, code }]);
    assert_eq!(users.get(28), None);
    out.clear();

    users.reset(32, A, Code::LIMIT, &mut out).unwrap();
    let code = Code::LIMIT;
    assert_eq!(out, [Action::Abort { stream: 32, code }]);
    assert_eq!(users.list().count(), 0);
}

#[test]
fn an_owner_that_is_gone_takes_its_streams_along() {
    let mut users = users(Side::Client);
    let mut out = Vec::new();
    for (id, owner) in [(20, A), (24, B), (28, A)] {
        users.opened(id, owner, Priority::default(), &mut out).unwrap();
    }
    users.accept(A).unwrap();
    out.clear();
    users.owner_gone(A, Code::CANCELLED, &mut out);
    let code = Code::CANCELLED;
    assert_eq!(out, [20, 28].map(|stream| Action::Abort { stream, code }));
    assert_eq!(users.list().map(|stream| stream.stream).collect::<Vec<_>>(), [24]);
    assert_eq!(arrived(&mut users, 17), refused(17));
}

#[test]
fn there_are_not_more_than_may_be() {
    let config = UserConfig {
        streams: 2,
        acceptors: 1,
        ..UserConfig::default()
    };
    let mut users = Users::new(Side::Client, config);
    users.up(&mut Vec::new());
    users.accept(A).unwrap();
    assert_eq!(users.accept(B), Err(UserError::Limit));
    users.opened(20, A, Priority::default(), &mut Vec::new()).unwrap();
    arrived(&mut users, 17);
    assert_eq!(users.may_open(), Err(UserError::Limit));
    let code = Code::LIMIT;
    assert_eq!(arrived(&mut users, 21), [Action::Abort { stream: 21, code }]);
}

/// What may happen to the table.
#[derive(Debug, Clone)]
enum Step {
    Open(Owner),
    Arrive,
    Accept(Owner),
    StopAccepting(Owner),
    Finish(usize, Owner),
    PeerFinish(usize),
    Stop(usize, Owner),
    Abandon(usize, Owner),
    Reset(usize, Owner),
    PeerReset(usize),
    PeerStop(usize),
    HandOver(usize, Owner, Owner),
    Gone(Owner),
}

fn step() -> impl Strategy<Value = Step> {
    let owner = || (0..3_u64).prop_map(Owner);
    let which = || 0..8_usize;
    prop_oneof![
        3 => owner().prop_map(Step::Open),
        3 => Just(Step::Arrive),
        2 => owner().prop_map(Step::Accept),
        1 => owner().prop_map(Step::StopAccepting),
        2 => (which(), owner()).prop_map(|(which, owner)| Step::Finish(which, owner)),
        2 => which().prop_map(Step::PeerFinish),
        1 => (which(), owner()).prop_map(|(which, owner)| Step::Stop(which, owner)),
        1 => (which(), owner()).prop_map(|(which, owner)| Step::Abandon(which, owner)),
        1 => (which(), owner()).prop_map(|(which, owner)| Step::Reset(which, owner)),
        1 => which().prop_map(Step::PeerReset),
        1 => which().prop_map(Step::PeerStop),
        2 => (which(), owner(), owner()).prop_map(|(which, from, to)| Step::HandOver(which, from, to)),
        1 => owner().prop_map(Step::Gone),
    ]
}

/// The least that the table can be: owner, recv_fin and send_fin of each stream, and a line of acceptors.
#[derive(Default)]
struct Model {
    streams: BTreeMap<u64, (Owner, bool, bool)>,
    line: Vec<Owner>,
}

impl Model {
    fn nth(&self, which: usize) -> u64 {
        self.streams.keys().nth(which).copied().unwrap_or(9999)
    }

    fn owned(&self, stream: u64, owner: Owner) -> bool {
        self.streams.get(&stream).is_some_and(|(found, ..)| *found == owner)
    }

    fn end(&mut self, stream: u64, recv: bool, send: bool) {
        if let Some((_, recv_fin, send_fin)) = self.streams.get_mut(&stream) {
            *recv_fin |= recv;
            *send_fin |= send;
            if *recv_fin && *send_fin {
                self.streams.remove(&stream);
            }
        }
    }
}

proptest! {
    #[test]
    fn the_table_does_what_the_model_does(steps in proptest::collection::vec(step(), 0..120)) {
        let mut table = users(Side::Client);
        let mut model = Model::default();
        let (mut own, mut theirs) = (20, 17);
        for step in steps {
            let mut out = Vec::new();
            match step {
                Step::Open(owner) => {
                    table.opened(own, owner, Priority::default(), &mut out).unwrap();
                    model.streams.insert(own, (owner, false, false));
                    own += 4;
                }
                Step::Arrive => {
                    table.arrived(theirs, &mut out);
                    if model.line.is_empty() {
                        prop_assert_eq!(&out, &refused(theirs));
                    } else {
                        let owner = model.line.remove(0);
                        model.line.push(owner);
                        model.streams.insert(theirs, (owner, false, false));
                        prop_assert_eq!(&out, &accepted(owner, theirs));
                    }
                    theirs += 4;
                }
                Step::Accept(owner) => {
                    table.accept(owner).unwrap();
                    if !model.line.contains(&owner) {
                        model.line.push(owner);
                    }
                }
                Step::StopAccepting(owner) => {
                    table.stop_accepting(owner);
                    model.line.retain(|found| *found != owner);
                }
                Step::Finish(which, owner) => {
                    let stream = model.nth(which);
                    let may = model.owned(stream, owner);
                    prop_assert_eq!(table.finish(stream, owner, &mut out).is_ok(), may);
                    if may {
                        model.end(stream, false, true);
                    }
                }
                Step::PeerFinish(which) => {
                    let stream = model.nth(which);
                    table.peer_finished(stream);
                    model.end(stream, true, false);
                }
                Step::Stop(which, owner) => {
                    let stream = model.nth(which);
                    let may = model.owned(stream, owner);
                    let first = may && !model.streams[&stream].1;
                    prop_assert_eq!(table.stop(stream, owner, Code::CLOSED, &mut out).is_ok(), may);
                    prop_assert_eq!(out.len(), usize::from(first));
                    if may {
                        model.end(stream, true, false);
                    }
                }
                Step::Abandon(which, owner) => {
                    let stream = model.nth(which);
                    let may = model.owned(stream, owner);
                    let first = may && !model.streams[&stream].2;
                    prop_assert_eq!(table.abandon(stream, owner, Code::CLOSED, &mut out).is_ok(), may);
                    prop_assert_eq!(out.len(), usize::from(first));
                    if may {
                        model.end(stream, false, true);
                    }
                }
                Step::Reset(which, owner) => {
                    let stream = model.nth(which);
                    let may = model.owned(stream, owner);
                    prop_assert_eq!(table.reset(stream, owner, Code::CLOSED, &mut out).is_ok(), may);
                    if may {
                        model.streams.remove(&stream);
                    }
                }
                Step::PeerReset(which) => {
                    let stream = model.nth(which);
                    table.peer_reset(stream, Code::CLOSED, &mut out);
                    model.end(stream, true, false);
                }
                Step::PeerStop(which) => {
                    let stream = model.nth(which);
                    table.peer_stopped(stream, Code::CLOSED, &mut out);
                    model.end(stream, false, true);
                }
                Step::HandOver(which, from, to) => {
                    let stream = model.nth(which);
                    let may = model.owned(stream, from);
                    prop_assert_eq!(table.hand_over(stream, from, to, &mut out).is_ok(), may);
                    if may && let Some(entry) = model.streams.get_mut(&stream) {
                        entry.0 = to;
                    }
                }
                Step::Gone(owner) => {
                    table.owner_gone(owner, Code::CANCELLED, &mut out);
                    model.line.retain(|found| *found != owner);
                    let gone: Vec<u64> = model.streams.iter().filter(|(_, (found, ..))| *found == owner).map(|(id, _)| *id).collect();
                    let code = Code::CANCELLED;
                    let expected: Vec<Action> = gone.iter().map(|&stream| Action::Abort { stream, code }).collect();
                    prop_assert_eq!(&out, &expected);
                    model.streams.retain(|_, (found, ..)| *found != owner);
                }
            }
            let list: BTreeMap<u64, (Owner, bool, bool)> = table
                .list()
                .map(|entry| (entry.stream, (entry.owner, entry.recv_fin, entry.send_fin)))
                .collect();
            prop_assert_eq!(&list, &model.streams);
            prop_assert_eq!(table.acceptors().collect::<Vec<_>>(), model.line.clone());
        }
    }
}
