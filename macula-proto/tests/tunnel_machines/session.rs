//! What a session does, case by case.

use std::time::Duration;

use macula_proto::{
    Code, Now,
    tunnel::{
        Name, StreamKey,
        client::session::{Action, EncodingChoice, Event, RequestId, Session, SessionConfig},
    },
    wire::{
        Encoding,
        control::{Message, Reason, TunnelId},
    },
};

use crate::{encode, garbage, mp, ms, show, start, tunnel_id};

struct Rig {
    session: Session,
    now: Now,
}

impl Rig {
    fn fresh(change: impl FnOnce(&mut SessionConfig)) -> Self {
        let mut config = SessionConfig::new(Name::from("alice"));
        change(&mut config);
        Self {
            session: Session::new(config).expect("a good name"),
            now: start(),
        }
    }

    fn identified(change: impl FnOnce(&mut SessionConfig)) -> Self {
        let mut rig = Self::fresh(change);
        rig.feed(Event::Connected);
        rig.say(&Message::Identified);
        rig
    }

    fn feed(&mut self, event: Event<'_>) -> String {
        let mut actions: Vec<Action> = Vec::new();
        self.session.handle(self.now, event, &mut actions);
        show::session(&actions)
    }

    fn say(&mut self, message: &Message) -> String {
        self.feed(Event::ControlBytes(&mp(message)))
    }

    fn ask(&mut self, request: u64) -> String {
        let target = Name::from("bob");
        let request = RequestId(request);
        self.feed(Event::Request { request, target })
    }

    fn stream(&mut self, stream: u64, id: TunnelId) -> String {
        let stream = StreamKey(stream);
        let arrived = self.feed(Event::StreamArrived { stream });
        if arrived != "-" {
            return arrived;
        }
        self.feed(Event::Prefix { stream, id })
    }

    fn notify(&mut self, tunnel: u8, source: &str) -> String {
        self.say(&Message::TunnelNotify {
            tunnel: tunnel_id(tunnel),
            source: source.as_bytes().to_vec().into(),
        })
    }

    fn ok(&mut self, tunnel: u8) -> String {
        let tunnel = tunnel_id(tunnel);
        self.say(&Message::TunnelOk { tunnel })
    }

    fn advance(&mut self, by: Duration) -> String {
        self.now = self.now.after(by);
        self.feed(Event::Timeout)
    }
}

#[test]
fn auto_finds_out_what_the_relay_speaks() {
    let mut rig = Rig::fresh(|_| {});
    assert_eq!(rig.feed(Event::Connected), "id(alice)");
    assert_eq!(rig.advance(ms(999)), "-");
    assert_eq!(rig.advance(ms(1)), "cbor:id(alice)");
    assert_eq!(rig.advance(ms(2_000)), "-", "once");
    let answer = encode(&Message::Identified, Encoding::Cbor);
    assert_eq!(rig.feed(Event::ControlBytes(&answer)), "identified");
    assert_eq!(rig.ask(1), "cbor:tun_req(bob)");

    // An answer in MessagePack, even a late one, keeps to that.
    let mut rig = Rig::fresh(|_| {});
    rig.feed(Event::Connected);
    rig.advance(ms(1_000));
    assert_eq!(rig.say(&Message::Identified), "identified");
    assert_eq!(rig.say(&Message::Identified), "-", "the answer to the repeat");
    assert_eq!(rig.ask(1), "tun_req(bob)");
    assert_eq!(rig.session.stats().unexpected, 0);
    // Each message is read by its own first byte.
    let ok = Message::TunnelOk { tunnel: tunnel_id(1) };
    assert_eq!(rig.feed(Event::ControlBytes(&encode(&ok, Encoding::Cbor))), "-");
    assert_eq!(rig.stream(5, tunnel_id(1)), "opened r1 #1 s5");
}

#[test]
fn a_chosen_encoding_is_not_repeated_in_another() {
    for (encoding, first) in [
        (EncodingChoice::Cbor, "cbor:id(alice)"),
        (EncodingChoice::MessagePack, "id(alice)"),
    ] {
        let mut rig = Rig::fresh(|config| config.encoding = encoding);
        assert_eq!(rig.feed(Event::Connected), first);
        assert_eq!(rig.advance(ms(9_999)), "-");
        assert_eq!(rig.advance(ms(1)), "close timeout");
        assert!(rig.session.is_empty());
    }
}

#[test]
fn names_that_cannot_be_sent_are_refused() {
    for name in [String::new(), "x".repeat(256)] {
        let error = Session::new(SessionConfig::new(Name::from(name.as_str()))).expect_err("a bad name");
        assert_eq!((error.length, error.max), (name.len(), 255));
    }
}

#[test]
fn a_late_answer_is_not_given_to_the_next_request() {
    let mut rig = Rig::identified(|_| {});
    rig.ask(1);
    assert_eq!(rig.advance(ms(14_999)), "-");
    rig.ask(2);
    assert_eq!(rig.advance(ms(1)), "failed r1 Timeout");
    assert_eq!(rig.ok(1), "tun_close#1", "for the one that timed out");
    assert_eq!(rig.stream(4, tunnel_id(1)), "reject s4 cancelled");
    assert_eq!(rig.ok(2), "-");
    assert_eq!(rig.stream(5, tunnel_id(2)), "opened r2 #2 s5");
    assert_eq!(rig.session.stats().late_tunnels, 1);

    // Likewise with a cancel, and when the stream comes before its answer.
    rig.ask(3);
    rig.ask(4);
    assert_eq!(rig.feed(Event::Cancel { request: RequestId(3) }), "failed r3 Cancelled");
    assert_eq!(rig.stream(6, tunnel_id(3)), "-");
    assert_eq!(rig.ok(3), "tun_close#3, reject s6 cancelled");
    assert_eq!(
        rig.say(&Message::TunnelError {
            reason: Reason::TargetGone
        }),
        "failed r4 refused(target_gone)"
    );
}

#[test]
fn a_relay_that_skips_an_answer_is_left() {
    let mut rig = Rig::identified(|_| {});
    rig.ask(1);
    assert_eq!(rig.advance(ms(15_000)), "failed r1 Timeout");
    rig.advance(ms(10_000));
    rig.ask(2);
    assert_eq!(rig.advance(ms(4_999)), "-");
    assert_eq!(rig.advance(ms(1)), "failed r2 Lost, close timeout");
    assert!(rig.session.is_empty());

    // The clock runs for each request from when it was sent.
    let mut rig = Rig::identified(|_| {});
    rig.ask(1);
    rig.advance(ms(14_000));
    rig.ask(2);
    rig.say(&Message::TunnelError { reason: Reason::Busy });
    assert_eq!(rig.advance(ms(15_000)), "failed r2 Timeout");
    assert_eq!(rig.advance(ms(14_999)), "-");
    assert_eq!(rig.advance(ms(1)), "close timeout");
}

#[test]
fn a_grant_without_a_stream_times_out() {
    let mut rig = Rig::identified(|_| {});
    rig.ask(1);
    rig.advance(ms(14_000));
    rig.ok(1);
    assert_eq!(rig.session.status().pending_outbound, 1);
    assert_eq!(rig.advance(ms(1_000)), "tun_close#1, failed r1 Timeout");
    assert_eq!(rig.stream(1, tunnel_id(1)), "reject s1 cancelled");
    // That is remembered for a while only.
    rig.advance(ms(15_000));
    assert_eq!(rig.stream(2, tunnel_id(1)), "-");
    assert_eq!(rig.advance(ms(15_000)), "reject s2 timeout");
    assert!(rig.session.is_empty());
}

#[test]
fn requests_are_capped_even_if_given_up() {
    let mut rig = Rig::identified(|config| config.limits.pending_requests = 3);
    for request in 0..3 {
        rig.ask(request);
        rig.feed(Event::Cancel {
            request: RequestId(request),
        });
    }
    assert_eq!(rig.ask(9), "failed r9 Busy", "three answers are still to come");
    rig.say(&Message::TunnelError { reason: Reason::Busy });
    assert_eq!(rig.ask(10), "tun_req(bob)");
}

#[test]
fn streams_and_announcements_are_capped_and_expire() {
    let mut rig = Rig::identified(|config| config.limits.orphan_streams = 2);
    for (stream, id) in [(1, 11), (2, 12)] {
        assert_eq!(rig.stream(stream, tunnel_id(id)), "-");
        rig.notify(id + 10, "bob");
    }
    assert_eq!(rig.stream(3, tunnel_id(13)), "reject s3 limit");
    assert_eq!(rig.notify(23, "bob"), "tun_close#23");
    let status = rig.session.status();
    assert_eq!((status.unidentified_streams, status.pending_inbound), (2, 2));
    // One whose stream is there is no burden.
    assert_eq!(rig.notify(11, "bob"), "incoming #11 bob s1");
    assert_eq!(rig.advance(ms(14_999)), "-");
    assert_eq!(rig.advance(ms(1)), "reject s2 timeout, tun_close#21, tun_close#22");
    let stats = rig.session.stats();
    assert_eq!((stats.streams_refused, stats.streams_expired), (1, 1));
    assert_eq!((stats.announcements_refused, stats.announcements_expired), (1, 2));
}

#[test]
fn the_memory_of_refused_tunnels_is_capped() {
    let mut rig = Rig::identified(|config| {
        config.limits.orphan_streams = 4;
        config.allow_from = Some([].into());
    });
    for tunnel in 0..100 {
        assert_eq!(rig.notify(tunnel, "bob"), format!("tun_close#{tunnel}"));
    }
    let forgotten = (0..100_u8).filter(|&tunnel| rig.stream(1_000 + u64::from(tunnel), tunnel_id(tunnel)) == "-");
    assert_eq!(forgotten.count(), 4, "held until they are rejected for their number");
    assert_eq!(rig.session.stats().incoming_refused, 100);
}

#[test]
fn a_tunnel_to_oneself_that_is_not_allowed_fails() {
    let mut rig = Rig::identified(|config| config.allow_from = Some([].into()));
    rig.ask(1);
    assert_eq!(rig.notify(1, "alice"), "tun_close#1");
    assert_eq!(rig.ok(1), "failed r1 refused(not_allowed)");
    assert_eq!(rig.stream(1, tunnel_id(1)), "reject s1 not_allowed");
    assert_eq!(rig.stream(2, tunnel_id(1)), "reject s2 not_allowed");

    rig.ask(2);
    assert_eq!(rig.ok(2), "-");
    assert_eq!(rig.notify(2, "alice"), "tun_close#2, failed r2 refused(not_allowed)");
}

#[test]
fn a_request_number_may_be_used_again_after_its_outcome() {
    let mut rig = Rig::identified(|_| {});
    rig.ask(1);
    rig.feed(Event::Cancel { request: RequestId(1) });
    rig.ask(1);
    assert_eq!(rig.ok(1), "tun_close#1", "the answer to the first");
    assert_eq!(rig.ok(2), "-");
    assert_eq!(rig.stream(2, tunnel_id(2)), "opened r1 #2 s2");
}

#[test]
fn nothing_is_due_once_a_tunnel_is_handed_out() {
    for announced_first in [false, true] {
        let mut rig = Rig::identified(|_| {});
        rig.ask(1);
        if announced_first {
            rig.notify(2, "bob");
            rig.ok(1);
        }
        rig.stream(1, tunnel_id(1));
        rig.stream(2, tunnel_id(2));
        if !announced_first {
            rig.notify(2, "bob");
            rig.ok(1);
        }
        assert_eq!(rig.session.status().active_tunnels, 2);
        assert_eq!(rig.session.poll_timeout(), None);
    }
}

#[test]
fn an_announcement_may_come_before_identified() {
    let mut rig = Rig::fresh(|_| {});
    rig.feed(Event::Connected);
    assert_eq!(rig.notify(1, "bob"), "-");
    assert_eq!(rig.say(&Message::Identified), "identified");
    assert_eq!(rig.stream(1, tunnel_id(1)), "incoming #1 bob s1");
}

#[test]
fn malformed_messages_are_skipped_up_to_the_limit() {
    let mut rig = Rig::identified(|config| config.limits.control_malformed = 2);
    assert_eq!(rig.feed(Event::ControlBytes(&garbage())), "-");
    assert_eq!(rig.feed(Event::ControlBytes(&garbage())), "-");
    rig.ask(1);
    assert_eq!(
        rig.feed(Event::ControlBytes(&garbage())),
        "failed r1 Lost, close protocol"
    );
    assert_eq!(rig.session.stats().malformed, 3);
    assert_eq!(Code::PROTOCOL.get(), 0x101);
}
