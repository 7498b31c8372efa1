//! Actions as short text, so that a table of them can be read.

use macula_proto::peering::{Action, GateAction};

use crate::node;

/// Node 1 is `n1`, node 2 is `n2`, and so on.
fn name(id: &macula_proto::identity::NodeId) -> String {
    let known = (0..20).find(|&byte| node(byte).node_id() == *id);
    known.map_or_else(|| id.to_string(), |byte| format!("n{byte}"))
}

pub(crate) fn actions(actions: &[Action]) -> String {
    list(actions.iter().map(|action| match action {
        Action::OpenStream => "open".to_owned(),
        Action::Writable => "write".to_owned(),
        Action::FinishStream => "finish".to_owned(),
        Action::TellWhenFlushed => "flush".to_owned(),
        Action::Authorize { peer } => format!("authorize {}", name(peer)),
        Action::Connected(connected) => {
            let bound = if connected.bound { " bound" } else { "" };
            format!("connected {}{bound}", name(&connected.peer))
        }
        Action::Frame(frame) => {
            let kind = frame.decoded.frame.frame_type();
            format!("{kind} {}", frame.verdict.name())
        }
        Action::Goodbye { reason, .. } => format!("goodbye({reason})"),
        Action::SendReady => "ready".to_owned(),
        Action::CloseConnection { code, .. } => format!("close {code}"),
        Action::Ended { reason, unsent } if unsent.is_empty() => format!("ended {reason}"),
        Action::Ended { reason, unsent } => format!("ended {reason} without {unsent:?}"),
    }))
}

pub(crate) fn gate(actions: &[GateAction]) -> String {
    list(actions.iter().map(|action| match action {
        GateAction::Admit(conn) => format!("admit {}", conn.0),
        GateAction::Refuse(conn, why) => format!("refuse {} {}", conn.0, why.name()),
        GateAction::Close(conn, code) => format!("close {} {code}", conn.0),
    }))
}

fn list(items: impl Iterator<Item = String>) -> String {
    let items: Vec<_> = items.collect();
    if items.is_empty() {
        "-".to_owned()
    } else {
        items.join(", ")
    }
}

/// Compares a whole table of cells, all differences at once. With `PRINT_TABLES` set it is printed as well.
pub(crate) fn check_table(actual: &[(String, String, String)], expected: &[(&str, &[(&str, &str)])]) {
    let rows = expected.iter();
    let expected: Vec<_> = rows
        .flat_map(|(state, row)| row.iter().map(move |(event, cell)| (*state, *event, *cell)))
        .collect();
    let mut wrong = String::new();
    let mut last = "";
    for (state, event, cell) in actual {
        let found = expected.iter().find(|(s, e, _)| s == state && e == event);
        let wanted = found.map(|(_, _, cell)| *cell);
        if wanted != Some(cell) {
            wrong += &format!("{state} x {event}:\n  is     {cell}\n  wanted {wanted:?}\n");
        }
        if std::env::var_os("PRINT_TABLES").is_some() {
            if state != last {
                let end = if last.is_empty() { "" } else { "        ],\n    ),\n" };
                println!("{end}    (\n        \"{state}\",\n        &[");
                last = state;
            }
            println!("            ({event:?}, {cell:?}),");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert_eq!(
        actual.len(),
        expected.len(),
        "cells for states or events that are not there"
    );
}
