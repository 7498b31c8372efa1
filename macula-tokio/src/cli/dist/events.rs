//! What `macula dist` tells.

use std::fmt::{self, Write as _};

use serde::Serialize;

/// Characters of a term that are shown; more are cut off.
const LONGEST_TERM: usize = 64 << 10;

/// Something to tell. With `--json` it is an object whose `event` is the name of the variant in snake case.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum DistEvent {
    /// Who this node is, and the processes that take messages.
    Node {
        name: String,
        carrier: String,
        processes: Vec<String>,
    },
    /// There is a connection with a node. Over QUIC: where it is, and whether the session of an earlier connection was resumed.
    Connected {
        peer: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        remote: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        resumed: Option<bool>,
    },
    /// It is over.
    Disconnected { peer: String, reason: String },
    /// A node, or a domain, is left alone for a while.
    Waiting { peer: String, seconds: f64 },
    /// A message came. `term` is as Erlang prints it.
    Message {
        #[serde(skip_serializing_if = "Option::is_none")]
        from: Option<String>,
        to: String,
        term: String,
    },
    /// A `gen_server:call` came.
    Call { from: String, to: String, term: String },
    /// A process asked one of this node to end, or was linked with it and has ended.
    Exit {
        from: String,
        to: String,
        reason: String,
        linked: bool,
    },
    /// There is a stream with a node. `own`: it was opened here.
    StreamOpen { peer: String, stream: u64, own: bool },
    /// Bytes came on it, in hex.
    StreamData { peer: String, stream: u64, data: String },
    /// It is over.
    StreamClosed {
        peer: String,
        stream: u64,
        reason: String,
        bytes_in: u64,
        bytes_out: u64,
    },
}

/// The line for people.
impl fmt::Display for DistEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node {
                name,
                carrier,
                processes,
            } => write!(f, "node {name}, over {carrier}, with {}", processes.join(", ")),
            Self::Connected { peer, remote, resumed } => {
                write!(f, "connected: {peer}")?;
                if let Some(remote) = remote {
                    write!(f, " at {remote}")?;
                }
                f.write_str(if *resumed == Some(true) { ", resumed" } else { "" })
            }
            Self::Disconnected { peer, reason } => write!(f, "disconnected: {peer}: {reason}"),
            Self::Waiting { peer, seconds } => write!(f, "waiting {seconds:.1} s before {peer} is tried again"),
            Self::Message { from, to, term } => match from {
                Some(from) => write!(f, "message from {from} to {to}: {term}"),
                None => write!(f, "message to {to}: {term}"),
            },
            Self::Call { from, to, term } => write!(f, "call from {from} to {to}: {term}"),
            Self::Exit {
                from,
                to,
                reason,
                linked,
            } => {
                let what = if *linked { "link with" } else { "exit signal from" };
                write!(f, "{what} {from} to {to}: {reason}")
            }
            Self::StreamOpen {
                peer,
                stream,
                own: true,
            } => write!(f, "stream {stream} open to {peer}"),
            Self::StreamOpen { peer, stream, .. } => write!(f, "stream {stream} open from {peer}"),
            Self::StreamData { peer, stream, data } => {
                write!(f, "stream {stream} of {peer}: {} bytes", data.len() / 2)
            }
            Self::StreamClosed {
                peer,
                stream,
                reason,
                bytes_in,
                bytes_out,
            } => write!(
                f,
                "stream {stream} closed: {peer}, {reason}, {bytes_in} bytes in, {bytes_out} bytes out"
            ),
        }
    }
}

/// A term as Erlang prints it, on one line, and not for ever.
pub(super) fn shown(term: &impl fmt::Display) -> String {
    let mut short = Short {
        text: String::new(),
        left: LONGEST_TERM,
    };
    if write!(short, "{term}").is_err() {
        short.text.push('…');
    }
    short.text
}

/// A text that fails to become longer than it may be.
struct Short {
    text: String,
    left: usize,
}

impl fmt::Write for Short {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        for char in piece.chars() {
            self.left = self.left.checked_sub(1).ok_or(fmt::Error)?;
            match char.is_control() {
                true => self.text.extend(char.escape_default()),
                false => self.text.push(char),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cli::events, dist::Term};

    #[test]
    fn lines_are_as_promised() {
        let text = str::to_owned;
        for (event, json, human) in [
            (
                DistEvent::Node {
                    name: text("a@h"),
                    carrier: text("quic"),
                    processes: vec![text("macula"), text("x")],
                },
                r#"{"event":"node","name":"a@h","carrier":"quic","processes":["macula","x"]}"#,
                "node a@h, over quic, with macula, x",
            ),
            (
                DistEvent::Connected {
                    peer: text("b@h"),
                    remote: Some(text("[::1]:1")),
                    resumed: Some(true),
                },
                r#"{"event":"connected","peer":"b@h","remote":"[::1]:1","resumed":true}"#,
                "connected: b@h at [::1]:1, resumed",
            ),
            (
                DistEvent::Connected {
                    peer: text("b@h"),
                    remote: None,
                    resumed: None,
                },
                r#"{"event":"connected","peer":"b@h"}"#,
                "connected: b@h",
            ),
            (
                DistEvent::Disconnected {
                    peer: text("b@h"),
                    reason: text("closed"),
                },
                r#"{"event":"disconnected","peer":"b@h","reason":"closed"}"#,
                "disconnected: b@h: closed",
            ),
            (
                DistEvent::Waiting {
                    peer: text("b@h"),
                    seconds: 0.5,
                },
                r#"{"event":"waiting","peer":"b@h","seconds":0.5}"#,
                "waiting 0.5 s before b@h is tried again",
            ),
            (
                DistEvent::Message {
                    from: Some(text("<b@h.1.0>")),
                    to: text("macula"),
                    term: text("{hello,1}"),
                },
                r#"{"event":"message","from":"<b@h.1.0>","to":"macula","term":"{hello,1}"}"#,
                "message from <b@h.1.0> to macula: {hello,1}",
            ),
            (
                DistEvent::Call {
                    from: text("<b@h.1.0>"),
                    to: text("macula"),
                    term: text("get"),
                },
                r#"{"event":"call","from":"<b@h.1.0>","to":"macula","term":"get"}"#,
                "call from <b@h.1.0> to macula: get",
            ),
            (
                DistEvent::Exit {
                    from: text("<b@h.1.0>"),
                    to: text("macula"),
                    reason: text("normal"),
                    linked: true,
                },
                r#"{"event":"exit","from":"<b@h.1.0>","to":"macula","reason":"normal","linked":true}"#,
                "link with <b@h.1.0> to macula: normal",
            ),
            (
                DistEvent::StreamOpen {
                    peer: text("b@h"),
                    stream: 20,
                    own: false,
                },
                r#"{"event":"stream_open","peer":"b@h","stream":20,"own":false}"#,
                "stream 20 open from b@h",
            ),
            (
                DistEvent::StreamData {
                    peer: text("b@h"),
                    stream: 20,
                    data: text("00ff"),
                },
                r#"{"event":"stream_data","peer":"b@h","stream":20,"data":"00ff"}"#,
                "stream 20 of b@h: 2 bytes",
            ),
            (
                DistEvent::StreamClosed {
                    peer: text("b@h"),
                    stream: 20,
                    reason: text("finished"),
                    bytes_in: 1,
                    bytes_out: 2,
                },
                r#"{"event":"stream_closed","peer":"b@h","stream":20,"reason":"finished","bytes_in":1,"bytes_out":2}"#,
                "stream 20 closed: b@h, finished, 1 bytes in, 2 bytes out",
            ),
        ] {
            assert_eq!(events::line(&event, true), format!("{json}\n"));
            assert_eq!(events::line(&event, false), format!("{human}\n"));
        }
    }

    #[test]
    fn terms_are_one_line_of_bounded_length() {
        assert_eq!(shown(&Term::from([Term::Int(1), Term::NIL])), "{1,[]}");
        assert_eq!(shown(&"a\nb\u{1b}[0m"), "a\\nb\\u{1b}[0m");
        assert_eq!(shown(&"ä".repeat(LONGEST_TERM)).chars().count(), LONGEST_TERM);
        let cut = shown(&"ä".repeat(LONGEST_TERM + 1));
        assert_eq!(cut.chars().count(), LONGEST_TERM + 1);
        assert!(cut.ends_with('…'));
    }
}
