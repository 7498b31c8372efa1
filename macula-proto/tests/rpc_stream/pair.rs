//! Both sides of a call within one process.

use std::{collections::VecDeque, time::Instant};

use macula_proto::{
    rpc::{
        Mode,
        pair::Pair,
        stream::{Action, Config, Event, Loss, Output, Role},
    },
    wire::Value,
};
use proptest::{collection::vec, prelude::*};

use crate::{
    ID, await_reply, data, fault,
    model::{Expected, Model},
    ms,
    props::{Act, Owner, act, mode, settings},
    raw, recv, show, start,
};

const C: Role = Role::Client;
const S: Role = Role::Server;

fn pair(mode: Mode, now: Instant) -> Pair {
    Pair::new(ID, mode, Config::default(), Config::default(), now)
}

fn of(role: Role, actions: &[(Role, Action)]) -> Vec<Action> {
    let own = actions.iter().filter(|(whose, _)| *whose == role);
    own.map(|(_, action)| action.clone()).collect()
}

/// What an event does on the client's side, and on the server's.
fn tell(pair: &mut Pair, now: Instant, role: Role, event: Event) -> (String, String) {
    let mut actions = Vec::new();
    pair.handle(now, role, event, &mut actions);
    (show::actions(&of(C, &actions)), show::actions(&of(S, &actions)))
}

fn tells(pair: &mut Pair, now: Instant, steps: &[(Role, Event, &str, &str)]) {
    for (role, event, client, server) in steps {
        let told = tell(pair, now, *role, event.clone());
        assert_eq!(told, ((*client).to_owned(), (*server).to_owned()), "{role:?} {event:?}");
    }
}

#[test]
fn a_call_within_a_process() {
    let now = start();
    let mut pair = pair(Mode::Bidi, now);
    tells(
        &mut pair,
        now,
        &[
            (C, recv(1, None), "-", "-"),
            (C, await_reply(2, None), "-", "-"),
            (C, Event::Send(raw("hello")), "-", "readable"),
            (S, recv(3, None), "-", "#3 gets 'hello'"),
            (S, Event::Send(raw("you")), "#1 gets 'you'", "-"),
            (C, Event::CloseSend, "-", "readable"),
            (S, recv(4, None), "-", "#4 gets eof"),
            (
                S,
                Event::SetReply(Value::text("fine")),
                "#2 replied fine",
                "reply ready",
            ),
            (S, Event::CloseSend, "readable, finished", "finished"),
        ],
    );
}

#[test]
fn a_full_inbox_holds_the_sender_back_and_room_lets_it_go_on() {
    let now = start();
    let config = Config {
        inbox_limit: 2 * raw("x").cost(),
        ..Config::default()
    };
    let mut pair = Pair::new(ID, Mode::Bidi, Config::default(), config, now);
    tells(
        &mut pair,
        now,
        &[
            (C, Event::Send(raw("x")), "-", "readable"),
            (C, Event::Send(raw("x")), "-", "-"),
            (C, Event::Send(raw("x")), "refused 'x' would_block", "-"),
            (S, recv(1, None), "send ready", "#1 gets 'x'"),
            (C, Event::Send(raw("x")), "-", "-"),
            (C, Event::Send(raw("x")), "refused 'x' would_block", "-"),
            (
                S,
                Event::Close,
                "readable, reply ready, send ready, finished",
                "reply ready",
            ),
        ],
    );
}

#[test]
fn the_mode_holds_within_a_process_too() {
    let now = start();
    let mut pair = pair(Mode::ServerStream, now);
    assert_eq!(
        tell(&mut pair, now, C, Event::Send(raw("x"))).0,
        "refused 'x' wrong_mode"
    );
    assert_eq!(tell(&mut pair, now, S, Event::Send(raw("x"))).0, "readable");
}

#[test]
fn an_owner_that_goes_away_is_an_error_for_the_other() {
    let now = start();
    let mut pair = pair(Mode::Bidi, now);
    tell(&mut pair, now, C, recv(1, None));
    let (client, _) = tell(&mut pair, now, S, Event::OwnerDown);
    assert_eq!(client, "#1 gets owner_down, reply ready, finished");
}

#[test]
fn a_side_that_is_lost_is_peer_down_for_the_other() {
    for lost in [C, S] {
        let now = start();
        let mut pair = pair(Mode::Bidi, now);
        let left = lost.other();
        tell(&mut pair, now, lost, recv(1, None));
        tell(&mut pair, now, left, recv(2, None));
        tell(&mut pair, now, left, await_reply(3, None));
        let mut actions = Vec::new();
        pair.lose(now, lost, &mut actions);
        assert_eq!(
            show::actions(&of(left, &actions)),
            "#2 gets peer_down, #3 replied peer_down, finished"
        );
        assert_eq!(of(lost, &actions), [], "nobody is there to be told");
        assert!(pair.side(C).is_finished() && pair.side(S).is_finished());
        assert_eq!(pair.poll_timeout(), None);
    }
}

#[test]
fn what_is_not_the_owners_is_not_taken() {
    let now = start();
    let mut pair = pair(Mode::Bidi, now);
    for event in [
        data(0, "x"),
        Event::PeerError(fault("x")),
        Event::CarrierLost(Loss::PeerDown),
        Event::Writable(false),
    ] {
        assert_eq!(tell(&mut pair, now, C, event), ("-".to_owned(), "-".to_owned()));
    }
    assert!(pair.side(C).can_send());
}

#[test]
fn time_outs_of_both_sides_are_fired() {
    let now = start();
    let deadline = |after| Config {
        deadline: Some(now + ms(after)),
        ..Config::default()
    };
    let mut pair = Pair::new(ID, Mode::Bidi, deadline(200), deadline(100), now);
    assert_eq!(pair.poll_timeout(), Some(now + ms(100)));
    let mut actions = Vec::new();
    pair.handle_timeout(now + ms(99), &mut actions);
    assert_eq!(actions, []);
    pair.handle_timeout(now + ms(100), &mut actions);
    assert_eq!(show::actions(&of(C, &actions)), "readable, reply ready, finished");
    assert_eq!(pair.side(C).fault().expect("given up").code, "timeout");
    assert_eq!(pair.poll_timeout(), None);
}

/// Two models joined as a pair is.
struct Joined {
    models: [Model; 2],
}

impl Joined {
    fn step(&mut self, now: Instant, role: Role, event: Event) -> Vec<(Role, Expected)> {
        let mut pending = VecDeque::from([(role, event)]);
        let mut all = Vec::new();
        while let Some((role, event)) = pending.pop_front() {
            let model = &mut self.models[usize::from(role == S)];
            let had_room = model.has_room();
            let mut expected = model.step(now, event);
            // The same order as there: what is told before the room is.
            pending.extend(
                expected
                    .emitted
                    .drain(..)
                    .map(|output: Output| (role.other(), output.into_event())),
            );
            if model.has_room() != had_room {
                pending.push_back((role.other(), Event::Writable(!had_room)));
            }
            all.push((role, expected));
        }
        all
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_pair_does_what_two_models_do(
        mode in mode(), settings in [settings(), settings()],
        acts in vec((any::<bool>(), prop_oneof![30 => act().prop_map(Some), 1 => Just(None)], 0u64..40), 1..120),
    ) {
        let mut now = start();
        let [client, server] = settings.map(|settings| settings.config(now));
        let mut pair = Pair::new(ID, mode, client, server, now);
        let mut joined = Joined { models: [Model::new(C, mode, client, now), Model::new(S, mode, server, now)] };
        joined.step(now, C, Event::Attached);
        joined.step(now, S, Event::Attached);
        let mut owner = Owner::default();
        for (server, act, pause) in acts {
            let role = if server { S } else { C };
            now += ms(pause);
            let event = match &act {
                Some(act) => owner.event(now, act),
                None => Event::Timeout,
            };
            let mut actions = Vec::new();
            pair.handle(now, role, event.clone(), &mut actions);
            let wanted = joined.step(now, role, event);
            for role in [C, S] {
                let is = Expected::of_many(&of(role, &actions));
                let mut own = Expected::default();
                wanted.iter().filter(|(whose, _)| *whose == role).for_each(|(_, expected)| own.join(expected));
                prop_assert_eq!(is, own.without_room());
                prop_assert_eq!(pair.side(role).info(), joined.models[usize::from(role == S)].info());
            }
            if matches!(act, Some(Act::OwnerDown)) {
                break;
            }
        }
    }
}
