//! One side of a streaming call, and two of them, without any connection.

mod call;
mod model;
mod pair;
mod props;
mod show;
mod table;
mod table_ended;
mod table_open;
mod time;

use std::time::{Duration, Instant};

use bytes::Bytes;
use macula_proto::{
    rpc::{
        Chunk, Fault, Mode, StreamId,
        stream::{Action, Config, Event, Role, Stream, WaiterId},
    },
    wire::Value,
};

const ID: StreamId = StreamId([7; 16]);

/// Some moment to start from.
#[expect(
    clippy::disallowed_methods,
    reason = "an Instant can come from nowhere else; only differences count"
)]
fn start() -> Instant {
    Instant::now()
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn raw(text: &'static str) -> Chunk {
    Chunk::Raw(Bytes::from_static(text.as_bytes()))
}

fn term(text: &str) -> Chunk {
    Chunk::Term(Value::text(text))
}

fn fault(code: &str) -> Fault {
    Fault::new(code, "words")
}

fn data(seq: u64, text: &'static str) -> Event {
    Event::PeerData { seq, chunk: raw(text) }
}

fn recv(waiter: u64, until: Option<Instant>) -> Event {
    let waiter = WaiterId(waiter);
    Event::Recv { waiter, until }
}

fn await_reply(waiter: u64, until: Option<Instant>) -> Event {
    let waiter = WaiterId(waiter);
    Event::AwaitReply { waiter, until }
}

/// A stream that is attached.
fn attached(role: Role, mode: Mode, config: Config, now: Instant) -> Stream {
    let mut stream = Stream::new(ID, role, mode, config, now);
    assert_eq!(feed(&mut stream, now, Event::Attached), []);
    stream
}

fn feed(stream: &mut Stream, now: Instant, event: Event) -> Vec<Action> {
    let mut actions = Vec::new();
    stream.handle(now, event, &mut actions);
    actions
}

/// What an event does, as text.
fn tell(stream: &mut Stream, now: Instant, event: Event) -> String {
    show::actions(&feed(stream, now, event))
}
