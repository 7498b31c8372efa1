//! Every state of a stream, every event.

use std::time::Instant;

use macula_proto::{
    rpc::{
        EndRole, Mode, Outcome,
        stream::{Action, Config, Event, Loss, Output, Role, Stats, Stream, WaiterId},
    },
    wire::Value,
};

use crate::{
    ID, await_reply, data, fault, feed, ms, raw, recv,
    show::{self, Row},
    start,
};

/// A state's name, whose it is, and the events that lead there.
type State = (&'static str, Role, Mode, &'static [&'static str]);

const C: Role = Role::Client;
const S: Role = Role::Server;
const B: Mode = Mode::Bidi;

const OPEN: &[State] = &[
    ("c awaited", C, B, &[]),
    ("c awaited, send refused", C, B, &["Send"]),
    ("c awaited, send closed", C, B, &["CloseSend"]),
    ("c open", C, B, &["Attached"]),
    ("c open, blocked", C, B, &["Attached", "Writable(false)"]),
    ("c open, send refused", C, B, &["Attached", "Writable(false)", "Send"]),
    ("c open, queued", C, B, &["Attached", "PeerData"]),
    ("c open, full", C, B, &["Attached", "PeerData", "PeerData"]),
    ("c open, recv waits", C, B, &["Attached", "Recv"]),
    ("c open, recv waits a second", C, B, &["Attached", "Recv for 1 s"]),
    (
        "c open, all wait",
        C,
        B,
        &["Attached", "AwaitReply", "Recv", "Recv for 1 s"],
    ),
    ("c send closed", C, B, &["Attached", "CloseSend"]),
    ("c recv closed", C, B, &["Attached", "end(send)"]),
    ("c recv closed, queued", C, B, &["Attached", "PeerData", "end(send)"]),
    (
        "c recv closed, send refused",
        C,
        B,
        &["Attached", "end(send)", "Writable(false)", "Send"],
    ),
    ("c replied", C, B, &["Attached", "PeerReply"]),
    ("c replied, queued", C, B, &["Attached", "PeerData", "PeerReply"]),
    ("c replied, send closed", C, B, &["Attached", "PeerReply", "CloseSend"]),
    ("c replied, recv closed", C, B, &["Attached", "PeerReply", "end(send)"]),
    ("c both closed", C, B, &["Attached", "CloseSend", "end(send)"]),
    (
        "c both closed, reply waits",
        C,
        B,
        &["Attached", "CloseSend", "end(send)", "AwaitReply"],
    ),
    ("c server_stream", C, Mode::ServerStream, &["Attached"]),
    ("c client_stream", C, Mode::ClientStream, &["Attached"]),
    ("s awaited, replied", S, B, &["SetReply"]),
    ("s open", S, B, &["Attached"]),
    ("s replied", S, B, &["Attached", "SetReply"]),
    ("s send closed", S, B, &["Attached", "CloseSend"]),
    ("s both closed", S, B, &["Attached", "CloseSend", "end(send)"]),
    ("s server_stream", S, Mode::ServerStream, &["Attached"]),
    ("s client_stream", S, Mode::ClientStream, &["Attached"]),
    (
        "s client_stream, ended",
        S,
        Mode::ClientStream,
        &["Attached", "end(send)"],
    ),
];

const ENDED: &[State] = &[
    ("c awaited, closed", C, B, &["CloseSend", "Close"]),
    ("c awaited, aborted", C, B, &["Abort"]),
    ("c complete", C, B, &["Attached", "CloseSend", "end(send)", "PeerReply"]),
    (
        "c complete, queued",
        C,
        B,
        &["Attached", "PeerData", "CloseSend", "end(send)", "PeerReply"],
    ),
    (
        "c complete, server_stream",
        C,
        Mode::ServerStream,
        &["Attached", "end(send)", "PeerReply"],
    ),
    (
        "c complete, client_stream",
        C,
        Mode::ClientStream,
        &["Attached", "CloseSend", "PeerReply"],
    ),
    ("c closed", C, B, &["Attached", "Close"]),
    ("c closed, queued", C, B, &["Attached", "PeerData", "Close"]),
    ("c closed, replied", C, B, &["Attached", "PeerReply", "Close"]),
    ("c peer closed", C, B, &["Attached", "end(both)"]),
    ("c peer closed, queued", C, B, &["Attached", "PeerData", "end(both)"]),
    ("c aborted", C, B, &["Attached", "Abort"]),
    ("c failed", C, B, &["Attached", "PeerError"]),
    ("c failed, queued", C, B, &["Attached", "PeerData", "PeerError"]),
    ("c failed, replied", C, B, &["Attached", "PeerReply", "PeerError"]),
    ("c lost", C, B, &["Attached", "disconnected"]),
    ("c lost, queued", C, B, &["Attached", "PeerData", "disconnected"]),
    ("c lost, recv closed", C, B, &["Attached", "end(send)", "disconnected"]),
    ("c peer down", C, B, &["Attached", "peer down"]),
    ("c owner down", C, B, &["Attached", "PeerData", "OwnerDown"]),
    ("s complete", S, B, &["Attached", "CloseSend", "end(send)", "SetReply"]),
    ("s closed", S, B, &["Attached", "Close"]),
    ("s failed", S, B, &["Attached", "PeerError"]),
    ("s lost, replied", S, B, &["Attached", "SetReply", "disconnected"]),
];

const EVENTS: &[&str] = &[
    "Attached",
    "Writable(true)",
    "Writable(false)",
    "Send",
    "CloseSend",
    "Close",
    "SetReply",
    "SetError",
    "Abort",
    "OwnerDown",
    "Recv",
    "Recv now",
    "AwaitReply",
    "AwaitReply now",
    "CancelWait",
    "PeerData",
    "repeat or gap",
    "end(send)",
    "end(both)",
    "PeerError",
    "PeerReply",
    "PeerReply(err)",
    "disconnected",
    "peer down",
    "Timeout early",
    "Timeout",
];

/// Two chunks fill the inbox; the call has five seconds without a word, and ten in all.
fn config(now: Instant) -> Config {
    Config {
        inbox_limit: 2 * raw("x").cost(),
        waiters: 3,
        deadline: Some(now + ms(10_000)),
        idle: Some(ms(5_000)),
    }
}

fn event(stream: &Stream, name: &str, now: Instant) -> Event {
    let due = stream.info().seq_in;
    match name {
        "Attached" => Event::Attached,
        "Writable(true)" => Event::Writable(true),
        "Writable(false)" => Event::Writable(false),
        "Send" => Event::Send(raw("out")),
        "CloseSend" => Event::CloseSend,
        "Close" => Event::Close,
        "SetReply" => Event::SetReply(Value::text("fine")),
        "SetError" => Event::SetError(fault("bad")),
        "Abort" => Event::Abort(fault("enough")),
        "OwnerDown" => Event::OwnerDown,
        "Recv" => recv(1, None),
        "Recv for 1 s" => recv(2, Some(now + ms(1_000))),
        "Recv now" => recv(3, Some(now)),
        "AwaitReply" => await_reply(4, None),
        "AwaitReply now" => await_reply(5, Some(now)),
        "CancelWait" => Event::CancelWait(WaiterId(1)),
        "PeerData" => data(due, "x"),
        "repeat or gap" => data(due.checked_sub(1).unwrap_or(due + 1), "x"),
        "end(send)" => Event::PeerEnd(EndRole::Send),
        "end(both)" => Event::PeerEnd(EndRole::Both),
        "PeerError" => Event::PeerError(fault("theirs")),
        "PeerReply" => Event::PeerReply(Outcome::Ok(Value::text("done"))),
        "PeerReply(err)" => Event::PeerReply(Outcome::Err(fault("failed"))),
        "disconnected" => Event::CarrierLost(Loss::Connection(fault("disconnected"))),
        "peer down" => Event::CarrierLost(Loss::PeerDown),
        "Timeout early" | "Timeout" => Event::Timeout,
        other => panic!("{other}"),
    }
}

fn in_state((_, role, mode, script): &State, now: Instant) -> Stream {
    let mut stream = Stream::new(ID, *role, *mode, config(now), now);
    for name in *script {
        let event = event(&stream, name, now);
        feed(&mut stream, now, event);
    }
    stream
}

fn counted(before: Stats, after: Stats) -> String {
    let mut text = String::new();
    for (was, is, word) in [
        (before.against_mode, after.against_mode, " (against mode)"),
        (before.late, after.late, " (late)"),
        (before.extra_replies, after.extra_replies, " (extra)"),
    ] {
        if is > was {
            text += word;
        }
    }
    text
}

/// What holds in every cell.
fn check(place: &str, now: Instant, before: &Stream, after: &Stream, actions: &[Action]) {
    let (was, is) = (before.info(), after.info());
    let finished = actions.iter().filter(|action| **action == Action::Finished).count();
    assert_eq!(
        finished,
        usize::from(is.finished && !was.finished),
        "{place}: {actions:?}"
    );
    assert!(!was.finished || is.finished, "{place}");
    assert!(
        after.poll_timeout().is_none_or(|at| at > now),
        "{place}: due in the past"
    );
    if is.finished {
        assert_eq!(
            (is.recv_waiters, is.reply_waiters, is.inbox_chunks),
            (0, 0, 0),
            "{place}"
        );
        assert_eq!(after.poll_timeout(), None, "{place}");
        assert!(after.inbox_has_room(), "{place}");
    }
    assert!(
        is.recv_waiters == 0 || is.inbox_chunks == 0,
        "{place}: waits beside a chunk"
    );
    assert!(!is.closed_recv || is.recv_waiters == 0, "{place}: waits for nothing");
    assert!(
        was.closed_send <= is.closed_send && was.closed_recv <= is.closed_recv,
        "{place}"
    );
    let emitted = |wanted: fn(&Output) -> bool| {
        actions
            .iter()
            .any(|action| matches!(action, Action::Emit(output) if wanted(output)))
    };
    assert!(is.attached || !emitted(|_| true), "{place}: nobody to tell");
    if emitted(|output| matches!(output, Output::Data { .. })) {
        assert_eq!(is.seq_out, was.seq_out + 1, "{place}");
    }
}

fn cells(states: &[State]) -> Vec<(String, String, String)> {
    let mut cells = Vec::new();
    for state in states {
        for name in EVENTS {
            let began = start();
            let before = in_state(state, began);
            let mut stream = in_state(state, began);
            let mut now = began + ms(500);
            if *name == "Timeout" {
                now = stream.poll_timeout().unwrap_or(now);
            }
            let event = event(&stream, name, now);
            let actions = feed(&mut stream, now, event);
            let place = format!("{} x {name}", state.0);
            check(&place, now, &before, &stream, &actions);
            let cell = show::actions(&actions) + &counted(before.stats(), stream.stats());
            cells.push((state.0.to_owned(), (*name).to_owned(), cell));
        }
    }
    cells
}

fn check_cells(states: &[State], expected: &[(&str, Row)]) {
    show::check_table(&cells(states), expected);
}

#[test]
fn every_cell_of_a_call_that_is_under_way() {
    check_cells(OPEN, super::table_open::CELLS);
}

#[test]
fn every_cell_of_a_call_that_is_over() {
    check_cells(ENDED, super::table_ended::CELLS);
}
