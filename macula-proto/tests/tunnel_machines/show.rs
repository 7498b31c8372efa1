//! Actions as short text, so that a table of them can be read.

use macula_proto::{
    tunnel::{ConnKey, client::session, client::supervisor, relay},
    wire::{
        Encoding,
        control::{Message, TunnelId},
    },
};

use crate::decode;

pub(crate) fn message(bytes: &[u8]) -> String {
    let (encoding, message) = decode(bytes);
    let text = match message {
        Message::Identify { name } => format!("id({})", name.escape_ascii()),
        Message::Identified => "id_ok".to_owned(),
        Message::TunnelRequest { target } => format!("tun_req({})", target.escape_ascii()),
        Message::TunnelOk { tunnel } => format!("tun_ok{}", id(tunnel)),
        Message::TunnelError { reason } => format!("tun_err({reason})"),
        Message::TunnelNotify { tunnel, source } => format!("tun_notify{}({})", id(tunnel), source.escape_ascii()),
        Message::TunnelClose { tunnel } => format!("tun_close{}", id(tunnel)),
    };
    match encoding {
        Encoding::MessagePack => text,
        Encoding::Cbor => format!("cbor:{text}"),
    }
}

/// Ids made of one repeated byte are shown by it, random ones not at all.
fn id(tunnel: TunnelId) -> String {
    let bytes = tunnel.as_bytes();
    if bytes.iter().all(|byte| byte == &bytes[0]) {
        format!("#{}", bytes[0])
    } else {
        String::new()
    }
}

fn conn(key: ConnKey) -> String {
    match key.0 {
        0..26 => char::from(b'A' + key.0 as u8).to_string(),
        other => other.to_string(),
    }
}

pub(crate) fn relay(actions: &[relay::Action]) -> String {
    list(actions.iter().map(relay_action))
}

fn relay_action(action: &relay::Action) -> String {
    use relay::Action;
    match action {
        Action::SendControl { conn: to, bytes } => format!("{}<{}", conn(*to), message(bytes)),
        Action::OpenStream { conn: to, .. } => format!("{}.open", conn(*to)),
        Action::Splice { requester, target, .. } => {
            let (r, t) = (requester, target);
            format!("splice {}{}-{}{}", conn(r.0), r.1.0, conn(t.0), t.1.0)
        }
        Action::DropStream { conn: of, stream, code } => format!("{}.drop{} {code}", conn(*of), stream.0),
        Action::EndTunnel { code, .. } => format!("end {code}"),
        Action::CloseConnection { conn: of, code, .. } => format!("{}.close {code}", conn(*of)),
        Action::Report(report) => relay_report(report),
    }
}

fn relay_report(report: &relay::Report) -> String {
    use relay::Report;
    match report {
        Report::Identified { conn: of, name } => format!("[{}={name}]", conn(*of)),
        Report::Displaced { name, old, new } => format!("[{name} {}>{}]", conn(*old), conn(*new)),
        Report::IdentifyRefused { conn: of, name, .. } => format!("[{}!={name}]", conn(*of)),
        Report::TunnelOpened { source, target, .. } => format!("[{source}>{target}]"),
        Report::TunnelClosed { reason, bytes, .. } => {
            format!("[over {reason:?}{}]", if bytes.is_some() { " with bytes" } else { "" })
        }
        Report::RequestRefused { conn: of, why, .. } => format!("[{} refused {why}]", conn(*of)),
        Report::Disconnected { conn: of, closed, .. } => {
            format!("[{} {}]", conn(*of), if closed.is_some() { "closed" } else { "lost" })
        }
        Report::Draining => "[draining]".to_owned(),
        Report::Drained => "[drained]".to_owned(),
        other => format!("{other:?}"),
    }
}

pub(crate) fn session(actions: &[session::Action]) -> String {
    use session::Action;
    list(actions.iter().map(|action| match action {
        Action::SendControl(bytes) => message(bytes),
        Action::RejectStream { stream, code } => format!("reject s{} {code}", stream.0),
        Action::Identified => "identified".to_owned(),
        Action::Opened {
            request,
            tunnel,
            stream,
        } => format!("opened r{} {} s{}", request.0, id(*tunnel), stream.0),
        Action::RequestFailed { request, error } => match error {
            session::RequestError::Refused(reason) => format!("failed r{} refused({reason})", request.0),
            error => format!("failed r{} {error:?}", request.0),
        },
        Action::Incoming { tunnel, source, stream } => format!("incoming {} {source} s{}", id(*tunnel), stream.0),
        Action::Close { code, .. } => format!("close {code}"),
    }))
}

pub(crate) fn supervisor(actions: &[supervisor::Action]) -> String {
    use supervisor::{Action, Report};
    list(actions.iter().map(|action| match action {
        Action::Dial { relay, .. } => format!("dial {}", relay.0),
        Action::AbandonDial { relay, .. } => format!("abandon {}", relay.0),
        Action::Report(Report::Waiting { relay, starved, .. }) => {
            format!("[wait {}{}]", relay.0, if *starved { " starved" } else { "" })
        }
        Action::Report(Report::Dialling { .. }) => "[dialling]".to_owned(),
        Action::Report(Report::Up { .. }) => "[up]".to_owned(),
        Action::Report(Report::Down { why, failures, .. }) => format!("[down {why:?} {failures}]"),
        Action::Report(Report::Stopped) => "[stopped]".to_owned(),
        Action::Report(other) => format!("{other:?}"),
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

/// Compares a whole table of cells, all differences at once.
pub(crate) fn check_table(name: &str, actual: &[(String, String, String)], expected: &[(&str, &[(&str, &str)])]) {
    let expected: Vec<_> = expected
        .iter()
        .flat_map(|(state, row)| row.iter().map(move |(event, cell)| (*state, *event, *cell)))
        .collect();
    let mut wrong = String::new();
    for (state, event, cell) in actual {
        let found = expected.iter().find(|(s, e, _)| s == state && e == event);
        let wanted = found.map(|(_, _, cell)| *cell);
        if wanted != Some(cell) {
            wrong += &format!("{state} x {event}:\n  is     {cell}\n  wanted {wanted:?}\n");
        }
    }
    if std::env::var_os("PRINT_TABLES").is_some() {
        let mut last = "";
        for (state, event, cell) in actual {
            if state != last {
                println!(
                    "{}    (\n        \"{state}\",\n        &[",
                    if last.is_empty() { "" } else { "        ],\n    ),\n" }
                );
                last = state;
            }
            println!("            ({event:?}, {cell:?}),");
        }
        println!("        ],\n    ),");
    }
    assert!(wrong.is_empty(), "{name}:\n{wrong}");
    assert_eq!(
        actual.len(),
        expected.len(),
        "{name}: the table has cells for states or events that are not there"
    );
}
