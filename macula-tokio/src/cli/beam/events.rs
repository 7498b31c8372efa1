//! What `macula beam` tells, besides what every node tells.

use std::fmt;

use serde::Serialize;

use super::super::events::{self, Events};

/// Something to tell. With `--json` it is an object whose `event` is the name of the variant in snake case.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum BeamEvent {
    /// Connections to this address come out at that node.
    Listening { addr: String, node: String },
    /// The local node takes connections at this port.
    Registered { node: String, port: u16 },
    /// The local node is gone.
    Unregistered { node: String },
}

/// The line for people.
impl fmt::Display for BeamEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listening { addr, node } => write!(f, "listening on {addr} for {node}"),
            Self::Registered { node, port } => write!(f, "registered: {node} at port {port}"),
            Self::Unregistered { node } => write!(f, "unregistered: {node}"),
        }
    }
}

impl BeamEvent {
    fn line(&self, json: bool) -> String {
        events::line(self, json)
    }

    pub(super) fn tell(&self, events: &Events) {
        events.print(self.line(events.is_json()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_as_promised() {
        let node = || "a@127.1.0.1".to_owned();
        let table = [
            (
                BeamEvent::Listening {
                    addr: "127.1.0.1:7".to_owned(),
                    node: node(),
                },
                r#"{"event":"listening","addr":"127.1.0.1:7","node":"a@127.1.0.1"}"#,
                "listening on 127.1.0.1:7 for a@127.1.0.1",
            ),
            (
                BeamEvent::Registered { node: node(), port: 7 },
                r#"{"event":"registered","node":"a@127.1.0.1","port":7}"#,
                "registered: a@127.1.0.1 at port 7",
            ),
            (
                BeamEvent::Unregistered { node: node() },
                r#"{"event":"unregistered","node":"a@127.1.0.1"}"#,
                "unregistered: a@127.1.0.1",
            ),
        ];
        for (event, json, human) in table {
            assert_eq!(event.line(true), format!("{json}\n"));
            assert_eq!(event.line(false), format!("{human}\n"));
        }
    }
}
