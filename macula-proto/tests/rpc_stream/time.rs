//! Time-outs fire when they are due, once, and nothing is due in between.

use macula_proto::{
    rpc::{
        EndRole, Mode, Outcome,
        stream::{Config, Event, Role, Stream},
    },
    wire::Value,
};

use crate::{attached, await_reply, data, fault, feed, ms, raw, recv, start, tell};

fn client(now: std::time::Instant, deadline: Option<u64>, idle: Option<u64>) -> Stream {
    let config = Config {
        deadline: deadline.map(|after| now + ms(after)),
        idle: idle.map(ms),
        ..Config::default()
    };
    attached(Role::Client, Mode::Bidi, config, now)
}

#[test]
fn nothing_is_due_unless_somebody_asked_for_it() {
    let now = start();
    let mut stream = client(now, None, None);
    feed(&mut stream, now, recv(1, None));
    assert_eq!(stream.poll_timeout(), None);
    assert_eq!(tell(&mut stream, now + ms(1_000_000), Event::Timeout), "-");
}

#[test]
fn waiters_time_out_in_order_and_are_gone() {
    let now = start();
    let mut stream = client(now, None, None);
    feed(&mut stream, now, recv(1, Some(now + ms(30))));
    feed(&mut stream, now, await_reply(2, Some(now + ms(10))));
    feed(&mut stream, now, recv(3, Some(now + ms(20))));
    for (after, told) in [
        (10, "#2 replied timeout"),
        (20, "#3 gets timeout"),
        (30, "#1 gets timeout"),
    ] {
        let due = stream.poll_timeout().expect("due");
        assert_eq!(due, now + ms(after));
        assert_eq!(tell(&mut stream, due - ms(1), Event::Timeout), "-", "early");
        assert_eq!(tell(&mut stream, due, Event::Timeout), told);
        assert!(stream.poll_timeout().is_none_or(|next| next > due));
    }
    assert_eq!(stream.poll_timeout(), None);
    assert_eq!(tell(&mut stream, now + ms(40), data(0, "a")), "readable");
}

#[test]
fn a_waiter_that_has_its_answer_is_not_due() {
    let now = start();
    let mut stream = client(now, None, None);
    feed(&mut stream, now, recv(1, Some(now + ms(30))));
    feed(&mut stream, now, data(0, "a"));
    assert_eq!(stream.poll_timeout(), None);
}

#[test]
fn the_deadline_ends_the_call_for_both_sides() {
    let now = start();
    let mut stream = client(now, Some(100), None);
    feed(&mut stream, now, recv(1, None));
    feed(&mut stream, now, await_reply(2, Some(now + ms(200))));
    assert_eq!(stream.poll_timeout(), Some(now + ms(100)));
    let told = tell(&mut stream, now + ms(100), Event::Timeout);
    assert_eq!(
        told,
        "emit error timeout, #1 gets timeout, #2 replied timeout, finished"
    );
    assert_eq!(stream.poll_timeout(), None);
    assert_eq!(stream.fault().expect("given up").code, "timeout");
}

#[test]
fn late_time_outs_fire_in_the_order_in_which_they_were_due() {
    let now = start();
    let mut stream = client(now, Some(100), None);
    feed(&mut stream, now, recv(1, Some(now + ms(50))));
    feed(&mut stream, now, recv(2, Some(now + ms(150))));
    let mut actions = Vec::new();
    stream.handle(now + ms(500), Event::Timeout, &mut actions);
    let why: Vec<_> = actions
        .iter()
        .filter_map(|action| match action {
            macula_proto::rpc::stream::Action::Received {
                waiter,
                result: Err(error),
            } => Some((waiter.0, error.to_string())),
            _ => None,
        })
        .collect();
    let first = (1, "nothing to receive in time".to_owned());
    let second = (2, "timeout: the deadline of the call has passed".to_owned());
    assert_eq!(why, [first, second]);
}

#[test]
fn every_sign_of_life_puts_the_idle_time_out_off() {
    let signs = [
        Event::Send(raw("a")),
        data(0, "a"),
        Event::CloseSend,
        Event::PeerEnd(EndRole::Send),
        Event::PeerReply(Outcome::Ok(Value::Null)),
    ];
    for sign in signs {
        let now = start();
        let mut stream = client(now, None, Some(100));
        assert_eq!(stream.poll_timeout(), Some(now + ms(100)));
        feed(&mut stream, now + ms(60), sign.clone());
        assert_eq!(stream.poll_timeout(), Some(now + ms(160)), "{sign:?}");
    }
    // So does one who takes what has arrived, and nobody who merely waits.
    let now = start();
    let mut stream = client(now, None, Some(100));
    feed(&mut stream, now, data(0, "a"));
    feed(&mut stream, now + ms(60), recv(1, None));
    assert_eq!(stream.poll_timeout(), Some(now + ms(160)));
    feed(&mut stream, now + ms(70), recv(2, None));
    feed(&mut stream, now + ms(70), Event::Writable(true));
    assert_eq!(stream.poll_timeout(), Some(now + ms(160)));
    let told = tell(&mut stream, now + ms(160), Event::Timeout);
    assert_eq!(told, "emit error timeout, #2 gets timeout, reply ready, finished");
}

#[test]
fn a_complete_call_has_no_time_outs_even_if_nobody_has_read_it() {
    let now = start();
    let mut stream = client(now, Some(100), Some(50));
    for event in [
        data(0, "a"),
        Event::PeerEnd(EndRole::Send),
        Event::CloseSend,
        Event::PeerReply(Outcome::Ok(Value::Null)),
    ] {
        feed(&mut stream, now, event);
    }
    assert_eq!(stream.poll_timeout(), None);
    assert_eq!(tell(&mut stream, now + ms(1_000), Event::Timeout), "-");
    assert_eq!(
        tell(&mut stream, now + ms(1_000), recv(1, None)),
        "#1 gets 'a', finished"
    );
}

#[test]
fn an_ended_call_has_no_time_outs() {
    for end in [
        Event::Close,
        Event::Abort(fault("x")),
        Event::PeerError(fault("x")),
        Event::OwnerDown,
    ] {
        let now = start();
        let mut stream = client(now, Some(100), Some(50));
        feed(&mut stream, now, recv(1, Some(now + ms(10))));
        feed(&mut stream, now, end);
        assert_eq!(stream.poll_timeout(), None);
    }
}

#[test]
fn a_configured_zero_does_not_spin() {
    let now = start();
    let mut stream = client(now, None, Some(0));
    assert_eq!(stream.poll_timeout(), Some(now + ms(1)));
    // A deadline that has passed ends the call the first time it is looked at.
    let mut past = client(now, Some(0), None);
    assert_eq!(
        tell(&mut past, now, Event::Timeout),
        "emit error timeout, readable, reply ready, finished"
    );
    assert_eq!(past.poll_timeout(), None);
    assert_eq!(tell(&mut stream, now, Event::Timeout), "-");
}
