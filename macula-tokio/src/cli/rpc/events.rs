//! What `macula rpc` tells.

use std::fmt;

use macula_proto::{
    endpoint::RpcId,
    rpc::{Chunk, Fault},
    wire::Value,
};
use serde::Serialize;
use serde_json::Value as Json;

use super::{super::inspect::hex, json::to_json};
use crate::cli::events::{self, Events};

/// Something to tell. With `--json` it is an object whose `event` is the name of the variant in snake case.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum RpcEvent {
    /// Who this node is; `fresh` if its key was made for this run.
    Identity { node_id: String, fresh: bool },
    /// What can be called here.
    Serving { procedures: Vec<String> },
    /// The procedures were registered with a router.
    Registered { router: String, procedures: usize },
    /// There is a link. `peer` is where it is, its name, or, on a signed link, its node id.
    Connected {
        peer: String,
        carrier: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        link: Option<u64>,
    },
    /// A call of a peer is over. `outcome` is `ok` or the code of a fault.
    Call {
        procedure: String,
        outcome: String,
        seconds: f64,
        #[serde(skip_serializing_if = "Option::is_none")]
        message: Option<String>,
        link: u64,
    },
    /// A chunk came: `raw` ones as hex, others as the value they are.
    Chunk { encoding: &'static str, body: Json },
    /// The serving side's last word.
    Reply {
        #[serde(skip_serializing_if = "Option::is_none")]
        result: Option<Json>,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<FaultJson>,
    },
    /// A link is over.
    Disconnected {
        reason: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        peer: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        link: Option<u64>,
    },
}

/// What went wrong with a call, in the peer's words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct FaultJson {
    pub(super) code: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) message: Option<String>,
}

impl From<&Fault> for FaultJson {
    fn from(fault: &Fault) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            code: text(&fault.code),
            message: fault.message.as_deref().map(text),
        }
    }
}

impl RpcEvent {
    pub(super) fn chunk(chunk: &Chunk) -> Self {
        Self::Chunk {
            encoding: chunk.encoding(),
            body: match chunk {
                Chunk::Raw(bytes) => hex(bytes).into(),
                Chunk::Term(value) => to_json(value),
            },
        }
    }

    pub(super) fn reply(reply: &Result<Value, Fault>) -> Self {
        Self::Reply {
            result: reply.as_ref().ok().map(to_json),
            error: reply.as_ref().err().map(FaultJson::from),
        }
    }

    /// The number that links are known by, as long as the process lives.
    pub(super) fn number(link: RpcId) -> Option<u64> {
        (link != RpcId::LOCAL).then(|| link.get())
    }

    /// One line, with its end.
    pub(super) fn line(&self, json: bool) -> String {
        events::line(self, json)
    }

    pub(super) fn tell(&self, events: &Events) {
        events.print(self.line(events.is_json()));
    }
}

/// The line for people.
impl fmt::Display for RpcEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Identity { node_id, fresh } => {
                let fresh = if *fresh { " (a new key)" } else { "" };
                write!(f, "node id {node_id}{fresh}")
            }
            Self::Serving { procedures } => write!(f, "serving {}", procedures.join(", ")),
            Self::Registered { router, procedures } => write!(f, "{procedures} procedures registered with {router}"),
            Self::Connected { peer, carrier, .. } => write!(f, "connected: {peer}, {carrier}"),
            Self::Call {
                procedure,
                outcome,
                message,
                seconds,
                ..
            } => {
                write!(f, "call of {}: {}", procedure.escape_debug(), outcome.escape_debug())?;
                if let Some(message) = message {
                    write!(f, ", {}", message.escape_debug())?;
                }
                write!(f, ", {seconds:.3} s")
            }
            Self::Chunk { body, .. } => write!(f, "chunk {body}"),
            Self::Reply {
                result: Some(result), ..
            } => write!(f, "reply {result}"),
            Self::Reply { error, .. } => match error {
                Some(error) => write!(f, "error reply {}", error.code.escape_debug()),
                None => f.write_str("no reply"),
            },
            Self::Disconnected { reason, peer, .. } => match peer {
                Some(peer) => write!(f, "disconnected: {peer}: {reason}"),
                None => write!(f, "disconnected: {reason}"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_as_promised() {
        let text = str::to_owned;
        for (event, json, human) in [
            (
                RpcEvent::Serving {
                    procedures: vec![text("count"), text("echo")],
                },
                r#"{"event":"serving","procedures":["count","echo"]}"#,
                "serving count, echo",
            ),
            (
                RpcEvent::Connected {
                    peer: text("[::1]:1"),
                    carrier: "per-call",
                    link: None,
                },
                r#"{"event":"connected","peer":"[::1]:1","carrier":"per-call"}"#,
                "connected: [::1]:1, per-call",
            ),
            (
                RpcEvent::Call {
                    procedure: text("cat"),
                    outcome: text("not_found"),
                    seconds: 0.25,
                    message: Some(text("no such file")),
                    link: 3,
                },
                r#"{"event":"call","procedure":"cat","outcome":"not_found","seconds":0.25,"message":"no such file","link":3}"#,
                "call of cat: not_found, no such file, 0.250 s",
            ),
            (
                RpcEvent::chunk(&Chunk::Raw(vec![0xab, 0].into())),
                r#"{"event":"chunk","encoding":"raw","body":"ab00"}"#,
                "chunk \"ab00\"",
            ),
            (
                RpcEvent::chunk(&Chunk::Term(Value::Uint(7))),
                r#"{"event":"chunk","encoding":"msgpack","body":7}"#,
                "chunk 7",
            ),
            (
                RpcEvent::reply(&Ok(Value::Null)),
                r#"{"event":"reply","result":null}"#,
                "reply null",
            ),
            (
                RpcEvent::reply(&Err(Fault::from_code("gone"))),
                r#"{"event":"reply","error":{"code":"gone"}}"#,
                "error reply gone",
            ),
            (
                RpcEvent::Disconnected {
                    reason: text("closed"),
                    peer: None,
                    link: Some(4),
                },
                r#"{"event":"disconnected","reason":"closed","link":4}"#,
                "disconnected: closed",
            ),
        ] {
            assert_eq!(event.line(true), format!("{json}\n"));
            assert_eq!(event.line(false), format!("{human}\n"));
        }
    }
}
