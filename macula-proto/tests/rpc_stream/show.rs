//! Actions as short text, so that a table of them can be read.

use std::collections::BTreeMap;

use bytes::Bytes;
use macula_proto::{
    rpc::{
        Chunk, EndRole, Fault, Outcome,
        stream::{Action, Output},
    },
    wire::Value,
};

/// Event names that lead to what is shown before them.
pub(crate) type Row = &'static [(&'static str, &'static [&'static str])];

pub(crate) fn actions(actions: &[Action]) -> String {
    let items: Vec<_> = actions.iter().map(action).collect();
    if items.is_empty() {
        "-".to_owned()
    } else {
        items.join(", ")
    }
}

fn action(action: &Action) -> String {
    match action {
        Action::Emit(Output::Data { seq, chunk: body }) => format!("emit {seq} {}", chunk(body)),
        Action::Emit(Output::End(EndRole::Send)) => "emit end(send)".to_owned(),
        Action::Emit(Output::End(EndRole::Both)) => "emit end(both)".to_owned(),
        Action::Emit(Output::Error(fault)) => format!("emit error {}", code(fault)),
        Action::Emit(Output::Reply(reply)) => format!("emit reply {}", outcome(reply)),
        Action::Received {
            waiter,
            result: Ok(body),
        } => format!("#{} gets {}", waiter.0, chunk(body)),
        Action::Received {
            waiter,
            result: Err(error),
        } => format!("#{} gets {}", waiter.0, text(error.name())),
        Action::Replied {
            waiter,
            result: Ok(reply),
        } => format!("#{} replied {}", waiter.0, outcome(reply)),
        Action::Replied {
            waiter,
            result: Err(error),
        } => format!("#{} replied {}", waiter.0, text(error.name())),
        Action::SendRefused { chunk: body, error } => format!("refused {} {}", chunk(body), error.name()),
        Action::ReplyRefused => "reply refused".to_owned(),
        Action::Readable => "readable".to_owned(),
        Action::ReplyReady => "reply ready".to_owned(),
        Action::SendReady => "send ready".to_owned(),
        Action::InboxFull => "full".to_owned(),
        Action::InboxRoom => "room".to_owned(),
        Action::Finished => "finished".to_owned(),
    }
}

fn chunk(chunk: &Chunk) -> String {
    match chunk {
        Chunk::Raw(bytes) => format!("'{}'", text(bytes)),
        Chunk::Term(value) => value_text(value),
    }
}

fn outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Ok(value) => value_text(value),
        Outcome::Err(fault) => format!("err({})", code(fault)),
    }
}

fn value_text(value: &Value) -> String {
    match value {
        Value::Text(bytes) => text(bytes),
        other => format!("{other:?}"),
    }
}

fn code(fault: &Fault) -> String {
    text(&fault.code)
}

fn text(bytes: impl AsRef<[u8]>) -> String {
    String::from_utf8_lossy(&Bytes::copy_from_slice(bytes.as_ref())).into_owned()
}

/// Compares a whole table of cells, all differences at once. With `PRINT_TABLES` set it is printed as well.
pub(crate) fn check_table(actual: &[(String, String, String)], expected: &[(&str, Row)]) {
    let mut wanted = BTreeMap::new();
    for (state, row) in expected {
        for (cell, events) in *row {
            for event in *events {
                let double = wanted.insert((*state, *event), *cell);
                assert_eq!(double, None, "{state} x {event}: there twice");
            }
        }
    }
    let mut wrong = String::new();
    for (state, event, cell) in actual {
        let wanted = wanted.get(&(state.as_str(), event.as_str()));
        if wanted != Some(&cell.as_str()) {
            wrong += &format!("{state} x {event}:\n  is     {cell}\n  wanted {wanted:?}\n");
        }
    }
    if std::env::var_os("PRINT_TABLES").is_some() {
        print_table(actual);
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert_eq!(
        actual.len(),
        wanted.len(),
        "cells for states or events that are not there"
    );
}

fn print_table(actual: &[(String, String, String)]) {
    let mut states: Vec<&String> = actual.iter().map(|(state, ..)| state).collect();
    states.dedup();
    for state in states {
        let mut cells: Vec<(&String, Vec<&String>)> = Vec::new();
        for (_, event, cell) in actual.iter().filter(|(s, ..)| s == state) {
            match cells.iter_mut().find(|(c, _)| *c == cell) {
                Some((_, events)) => events.push(event),
                None => cells.push((cell, vec![event])),
            }
        }
        println!("    ({state:?}, &[");
        for (cell, events) in cells {
            println!("        ({cell:?}, &{events:?}),");
        }
        println!("    ]),");
    }
}
