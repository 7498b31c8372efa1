//! What many calls cost: nothing besides themselves while they are idle, nothing per chunk that somebody waits for, and no
//! more than the limit while nobody reads.
//!
//! One test function only: the allocator counts for the whole process.

use std::time::Instant;

use bytes::Bytes;
use macula_proto::rpc::{
    Chunk, Mode, StreamId,
    stream::{Action, Config, Event, Output, Role, Stream, WaiterId},
};
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

#[expect(
    clippy::disallowed_methods,
    reason = "an Instant can come from nowhere else; only differences count"
)]
fn start() -> Instant {
    Instant::now()
}

/// What `work` makes the memory grow by, at its peak and for good.
fn grows<T>(work: impl FnOnce() -> T) -> (usize, usize, T) {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let result = work();
    let (peak, after) = (MEMORY.peak_usage(), MEMORY.current_usage());
    (peak.saturating_sub(before), after.saturating_sub(before), result)
}

fn stream(role: Role, config: Config, now: Instant) -> Stream {
    Stream::new(StreamId([1; 16]), role, Mode::Bidi, config, now)
}

#[test]
fn calls_cost_what_they_hold() {
    let now = start();
    let mut actions = Vec::with_capacity(16);

    // Idle calls have nothing besides themselves.
    let count = 10_000;
    let (peak, _, mut calls) = grows(|| {
        let mut calls = Vec::with_capacity(count);
        calls.extend((0..count).map(|_| stream(Role::Client, Config::default(), now)));
        calls
    });
    assert!(peak <= count * size_of::<Stream>(), "{peak}");
    let (peak, _, ()) = grows(|| {
        for call in &mut calls {
            call.handle(now, Event::Attached, &mut actions);
            call.handle(now, Event::Send(Chunk::Raw(Bytes::from_static(b"x"))), &mut actions);
            actions.clear();
        }
    });
    assert_eq!(peak, 0);
    drop(calls);

    // A chunk that somebody waits for goes straight through.
    let (mut from, mut to) = (
        stream(Role::Client, Config::default(), now),
        stream(Role::Server, Config::default(), now),
    );
    from.handle(now, Event::Attached, &mut actions);
    to.handle(now, Event::Attached, &mut actions);
    let body = Bytes::from(vec![7; 64 << 10]);
    let mut pass = || {
        let (waiter, chunk) = (WaiterId(1), Chunk::Raw(body.clone()));
        to.handle(now, Event::Recv { waiter, until: None }, &mut actions);
        from.handle(now, Event::Send(chunk), &mut actions);
        let Some(Action::Emit(Output::Data { seq, chunk })) = actions.pop() else {
            panic!("{actions:?}");
        };
        to.handle(now, Event::PeerData { seq, chunk }, &mut actions);
        let got = actions.pop();
        assert!(matches!(got, Some(Action::Received { result: Ok(_), .. })), "{got:?}");
    };
    pass();
    let (peak, kept, ()) = grows(|| (0..10_000).for_each(|_| pass()));
    assert_eq!((peak, kept), (0, 0));

    // A call that nobody reads holds what its limit allows, with the smallest of chunks too, and keeps nothing once it is read.
    for size in [0, 1, 100, 10_000] {
        let config = Config::default();
        let mut call = stream(Role::Client, config, now);
        call.handle(now, Event::Attached, &mut actions);
        let mut seq = 0;
        let (peak, _, ()) = grows(|| {
            while call.inbox_has_room() {
                let chunk = Chunk::Raw(Bytes::from(vec![0; size].into_boxed_slice()));
                call.handle(now, Event::PeerData { seq, chunk }, &mut actions);
                actions.clear();
                seq += 1;
            }
        });
        // Its queue doubles when it grows, and holds the old one until it has moved.
        let bound = 3 * config.inbox_limit + size;
        assert!(peak <= bound, "{peak} bytes for {seq} chunks of {size}");
        let (_, kept, ()) = grows(|| {
            for _ in 0..seq {
                let waiter = WaiterId(1);
                call.handle(now, Event::Recv { waiter, until: None }, &mut actions);
                actions.clear();
            }
        });
        assert_eq!((kept, call.info().inbox_bytes), (0, 0));
    }
}
