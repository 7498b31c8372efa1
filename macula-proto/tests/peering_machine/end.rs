//! Deadlines to the millisecond, and how it ends.

use macula_proto::{
    Now,
    peering::{Action, Event, Peering, Refusal, Role, TransportError},
    wire::frame::{Body, Text},
};

use crate::{
    close, config, connect_of, connected, ended, feed, frames, goodbye, machine, ms, ping, pull, received, show,
    signed, start,
};

/// Fires the machine's deadline, which is `after` from `now`: a millisecond early nothing happens.
#[track_caller]
fn expires(peering: &mut Peering, now: Now, after: u64, end: &str) {
    assert_eq!(peering.poll_timeout(), Some(now.after(ms(after)).mono));
    assert_eq!(feed(peering, now.after(ms(after - 1)), Event::Timeout), []);
    let actions = feed(peering, now.after(ms(after)), Event::Timeout);
    assert_eq!(ended(&actions).as_deref(), Some(end));
    assert_eq!(peering.poll_timeout(), None);
}

#[test]
fn a_dial_and_a_handshake_have_30_seconds_each() {
    let now = start();
    let mut dialler = machine(Role::Dialler, config(Role::Dialler));
    assert_eq!(dialler.poll_timeout(), None);
    feed(&mut dialler, now, Event::Dialling);
    expires(&mut dialler, now, 30_000, "connect_failed(timeout)");

    let mut dialler = machine(Role::Dialler, config(Role::Dialler));
    feed(&mut dialler, now, Event::Dialling);
    let later = now.after(ms(29_000));
    feed(&mut dialler, later, Event::Start { exporter: None });
    feed(&mut dialler, later.after(ms(1000)), Event::StreamOpened);
    expires(&mut dialler, later, 30_000, "handshake_timeout");

    let mut acceptor = machine(Role::Acceptor, config(Role::Acceptor));
    feed(&mut acceptor, now, Event::Start { exporter: None });
    feed(
        &mut acceptor,
        now.after(ms(10)),
        received(&signed(connect_of(1).into(), 1, now)),
    );
    expires(&mut acceptor, now, 30_000, "handshake_timeout");
}

#[test]
fn skipped_frames_buy_no_time() {
    let now = start();
    let mut acceptor = machine(Role::Acceptor, config(Role::Acceptor));
    feed(&mut acceptor, now, Event::Start { exporter: None });
    feed(&mut acceptor, now.after(ms(20_000)), received(&signed(ping(1), 1, now)));
    expires(&mut acceptor, now, 30_000, "handshake_timeout");
}

#[test]
fn a_connection_that_is_up_has_no_deadline() {
    for role in [Role::Dialler, Role::Acceptor] {
        assert_eq!(connected(role, config(role), start()).poll_timeout(), None);
    }
}

#[test]
fn draining_takes_5_seconds() {
    let now = start();
    let mut peering = connected(Role::Dialler, config(Role::Dialler), now);
    feed(&mut peering, now, close());
    // Late frames buy no time.
    feed(&mut peering, now.after(ms(3000)), received(&signed(ping(1), 2, now)));
    assert_eq!(peering.stats().late, 1);
    expires(&mut peering, now, 5000, "drained");

    let mut peering = connected(Role::Dialler, config(Role::Dialler), now);
    feed(&mut peering, now, received(&signed(goodbye("tired"), 2, now)));
    expires(&mut peering, now, 5000, "goodbye(tired)");

    let mut acceptor = machine(Role::Acceptor, config(Role::Acceptor));
    feed(&mut acceptor, now, Event::Start { exporter: None });
    feed(&mut acceptor, now, received(&signed(connect_of(1).into(), 1, now)));
    feed(&mut acceptor, now, Event::Refuse(Refusal::Duplicate));
    expires(&mut acceptor, now, 5000, "not_admitted(duplicate)");
}

#[test]
fn closing_twice_is_closing_once() {
    let now = start();
    let mut peering = connected(Role::Acceptor, config(Role::Acceptor), now);
    let mut actions = feed(&mut peering, now, close());
    actions.extend(feed(&mut peering, now.after(ms(1000)), close()));
    let sent = frames(&pull(&mut peering, &mut actions));
    assert_eq!(sent.len(), 1);
    let Body::Goodbye(goodbye) = &sent[0].frame.body else {
        panic!("{sent:?}");
    };
    assert_eq!(
        (&goodbye.reason, &goodbye.detail),
        (&Text::from("operator_stop"), &None)
    );
    assert!(sent[0].raw.is_signed());
    actions.extend(feed(&mut peering, now.after(ms(4999)), Event::Timeout));
    assert_eq!(show::actions(&actions), "write");
    let actions = feed(&mut peering, now.after(ms(5000)), Event::Timeout);
    assert_eq!(show::actions(&actions), "close closed, ended drained");
    assert_eq!(feed(&mut peering, now.after(ms(6000)), close()), []);
}

#[test]
fn goodbye_comes_behind_what_was_taken() {
    let now = start();
    let mut peering = connected(Role::Dialler, config(Role::Dialler), now);
    let mut actions = Vec::new();
    for byte in 0..3 {
        assert_eq!(peering.send(now, ping(byte), &mut actions), Ok(u64::from(byte)));
    }
    feed(&mut peering, now, close());
    let sent = frames(&pull(&mut peering, &mut actions));
    let types: Vec<_> = sent.iter().map(|frame| frame.frame.frame_type()).collect();
    assert_eq!(types, ["ping", "ping", "ping", "goodbye"]);
}

#[test]
fn a_reason_that_cannot_be_sent_is_replaced() {
    let now = start();
    let mut peering = connected(Role::Dialler, config(Role::Dialler), now);
    let mut actions = feed(
        &mut peering,
        now,
        Event::Close {
            reason: Text::from("undefined"),
            detail: None,
        },
    );
    let sent = frames(&pull(&mut peering, &mut actions));
    assert!(matches!(&sent[0].frame.body, Body::Goodbye(goodbye) if goodbye.reason == "operator_stop"));
}

#[test]
fn closing_before_the_handshake_ends_with_the_given_reason() {
    let now = start();
    let mut peering = machine(Role::Dialler, config(Role::Dialler));
    feed(&mut peering, now, Event::Dialling);
    let reason = Text::from("changed_my_mind");
    let actions = feed(&mut peering, now, Event::Close { reason, detail: None });
    assert_eq!(show::actions(&actions), "close closed, ended changed_my_mind");
}

#[test]
fn the_end_names_the_frames_that_did_not_make_it_out() {
    let now = start();
    let mut peering = connected(Role::Dialler, config(Role::Dialler), now);
    let mut actions = Vec::new();
    for byte in 0..4 {
        peering.send(now, ping(byte), &mut actions).expect("taken");
    }
    let whole = signed(ping(0), 1, now).wire_length();
    assert_eq!(peering.queued(), 4 * whole);
    peering.poll_output(whole, &mut actions).expect("the first");
    peering
        .poll_output(whole - 1, &mut actions)
        .expect("most of the second");
    let actions = feed(&mut peering, now, Event::ConnectionLost(TransportError::TimedOut));
    assert_eq!(show::actions(&actions), "ended peer_closed without 1..4");
}

#[test]
fn after_a_goodbye_what_was_begun_is_sent_to_its_end() {
    let now = start();
    let mut peering = connected(Role::Dialler, config(Role::Dialler), now);
    let mut actions = Vec::new();
    let mut sent = Vec::new();
    for byte in 0..3 {
        peering.send(now, ping(byte), &mut actions).expect("taken");
    }
    sent.extend(peering.poll_output(10, &mut actions).expect("a piece"));
    feed(&mut peering, now, received(&signed(goodbye("tired"), 2, now)));
    let mut actions = Vec::new();
    sent.extend(pull(&mut peering, &mut actions));
    assert_eq!(actions, [Action::FinishStream]);
    assert_eq!(frames(&sent).len(), 1);
    let actions = feed(&mut peering, now, Event::ConnectionLost(TransportError::Closed));
    assert_eq!(show::actions(&actions), "ended goodbye(tired) without 1..3");
}

#[test]
fn a_goodbye_that_the_peer_did_not_sign_ends_nothing() {
    let now = start();
    let mut peering = connected(Role::Dialler, config(Role::Dialler), now);
    let actions = feed(&mut peering, now, received(&signed(goodbye("tired"), 3, now)));
    assert_eq!(show::actions(&actions), "goodbye other_signer");
    assert!(peering.is_connected());
}
