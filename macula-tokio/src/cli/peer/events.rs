//! What `macula peer` tells.

use std::{cell::Cell, fmt};

use macula_proto::{
    peering::{EndReason, Received},
    wire::frame::Body,
};
use serde::Serialize;

use super::super::events::{self, Events};
use crate::{Peer, PeerEnd};

/// Something to tell. With `--json` it is an object whose `event` is the name of the variant in snake case.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum PeerEvent {
    /// Who this node is; `fresh` if its key was made for this run.
    Identity { node_id: String, fresh: bool },
    /// The handshake is complete. `bound`: the peer proved that this connection is its own.
    Connected {
        peer: String,
        connection: u64,
        remote: String,
        bound: bool,
        capabilities: u64,
    },
    /// A frame came. `seq` is that of frames of type `publish`.
    Frame {
        #[serde(rename = "type")]
        kind: String,
        frame_id: String,
        verify: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        seq: Option<u64>,
        connection: u64,
    },
    /// The peer announced the end.
    Goodbye {
        reason: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
        connection: u64,
    },
    /// It is over, or never was. `reason` is one word, `message` says more; frames that came and that were handed over for
    /// sending are counted, GOODBYE not among them.
    Disconnected {
        reason: String,
        message: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        peer: Option<String>,
        connection: u64,
        received: u64,
        sent: u64,
    },
}

/// The line for people.
impl fmt::Display for PeerEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Identity { node_id, fresh: false } => write!(f, "node id {node_id}"),
            Self::Identity { node_id, fresh: true } => write!(f, "node id {node_id} (a new key)"),
            Self::Connected {
                peer, remote, bound, ..
            } => {
                let bound = if *bound { "" } else { ", not bound" };
                write!(f, "connected: {peer} at {remote}{bound}")
            }
            Self::Frame {
                kind,
                frame_id,
                verify,
                seq,
                ..
            } => {
                write!(f, "frame {kind} {frame_id} {verify}")?;
                seq.map_or(Ok(()), |seq| write!(f, ", seq {seq}"))
            }
            Self::Goodbye { reason, .. } => write!(f, "goodbye: {reason}"),
            Self::Disconnected {
                message,
                peer,
                received,
                sent,
                ..
            } => match peer {
                Some(peer) => write!(
                    f,
                    "disconnected: {peer}: {message}, {received} frames came, {sent} were sent"
                ),
                None => write!(f, "disconnected: {message}"),
            },
        }
    }
}

impl PeerEvent {
    /// One line, with its end.
    pub(super) fn line(&self, json: bool) -> String {
        events::line(self, json)
    }

    pub(super) fn tell(&self, events: &Events) {
        events.print(self.line(events.is_json()));
    }

    /// The end of a connection that never was.
    pub(super) fn not_connected(end: &PeerEnd) -> Self {
        Self::Disconnected {
            reason: end.reason.name().into_owned(),
            message: end.to_string(),
            peer: None,
            connection: 0,
            received: 0,
            sent: 0,
        }
    }
}

/// Tells of one connection, and counts what goes over it.
#[derive(Debug)]
pub(super) struct Teller {
    events: Events,
    quiet: bool,
    peer: String,
    connection: u64,
    pub(super) received: Cell<u64>,
    pub(super) sent: Cell<u64>,
}

impl Teller {
    /// For a peer whose handshake is complete, which it tells.
    pub(super) fn new(peer: &Peer, connection: u64, events: &Events, quiet: bool) -> Self {
        let connected = peer.connected();
        let teller = Self {
            events: events.clone(),
            quiet,
            peer: peer.peer_id().to_string(),
            connection,
            received: Cell::new(0),
            sent: Cell::new(0),
        };
        let event = PeerEvent::Connected {
            peer: teller.peer.clone(),
            connection,
            remote: peer.remote_address().to_string(),
            bound: connected.bound,
            capabilities: connected.capabilities,
        };
        event.tell(events);
        teller
    }

    /// Tells of a frame, and waits for whoever reads.
    pub(super) async fn frame(&self, received: &Received) {
        self.received.set(self.received.get() + 1);
        if self.quiet {
            return;
        }
        let frame = &received.decoded.frame;
        let seq = match &frame.body {
            Body::Publish(publish) => Some(publish.seq),
            _ => None,
        };
        let event = PeerEvent::Frame {
            kind: frame.frame_type().escape_debug().to_string(),
            frame_id: frame.header.frame_id.to_string(),
            verify: received.verdict.name(),
            seq,
            connection: self.connection,
        };
        self.events.print_when_room(event.line(self.events.is_json())).await;
    }

    /// Tells of the end.
    pub(super) fn end(&self, end: &PeerEnd) {
        if let Some((reason, detail)) = &end.goodbye {
            let event = PeerEvent::Goodbye {
                reason: reason.to_string(),
                detail: detail.as_ref().map(|bytes| super::super::inspect::hex(bytes)),
                connection: self.connection,
            };
            event.tell(&self.events);
        }
        let reason = match &end.reason {
            // `goodbye` is what the peer said, not a word of its own choice.
            EndReason::Closed(_) => "closed".into(),
            other => other.name(),
        };
        let event = PeerEvent::Disconnected {
            reason: reason.into_owned(),
            message: end.to_string(),
            peer: Some(self.peer.clone()),
            connection: self.connection,
            received: self.received.get(),
            sent: self.sent.get(),
        };
        event.tell(&self.events);
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
                PeerEvent::Identity {
                    node_id: text("ab"),
                    fresh: true,
                },
                r#"{"event":"identity","node_id":"ab","fresh":true}"#,
                "node id ab (a new key)",
            ),
            (
                PeerEvent::Connected {
                    peer: text("ab"),
                    connection: 3,
                    remote: text("[::1]:1"),
                    bound: false,
                    capabilities: 7,
                },
                r#"{"event":"connected","peer":"ab","connection":3,"remote":"[::1]:1","bound":false,"capabilities":7}"#,
                "connected: ab at [::1]:1, not bound",
            ),
            (
                PeerEvent::Frame {
                    kind: text("publish"),
                    frame_id: text("01"),
                    verify: "verified",
                    seq: Some(4),
                    connection: 3,
                },
                r#"{"event":"frame","type":"publish","frame_id":"01","verify":"verified","seq":4,"connection":3}"#,
                "frame publish 01 verified, seq 4",
            ),
            (
                PeerEvent::Frame {
                    kind: text("ping"),
                    frame_id: text("01"),
                    verify: "unsigned",
                    seq: None,
                    connection: 0,
                },
                r#"{"event":"frame","type":"ping","frame_id":"01","verify":"unsigned","connection":0}"#,
                "frame ping 01 unsigned",
            ),
            (
                PeerEvent::Goodbye {
                    reason: text("operator_stop"),
                    detail: None,
                    connection: 0,
                },
                r#"{"event":"goodbye","reason":"operator_stop","connection":0}"#,
                "goodbye: operator_stop",
            ),
            (
                PeerEvent::Disconnected {
                    reason: text("aborted"),
                    message: text("aborted(displaced)"),
                    peer: Some(text("ab")),
                    connection: 0,
                    received: 1,
                    sent: 2,
                },
                r#"{"event":"disconnected","reason":"aborted","message":"aborted(displaced)","peer":"ab","connection":0,"received":1,"sent":2}"#,
                "disconnected: ab: aborted(displaced), 1 frames came, 2 were sent",
            ),
        ] {
            assert_eq!(event.line(true), format!("{json}\n"));
            assert_eq!(event.line(false), format!("{human}\n"));
        }
    }
}
