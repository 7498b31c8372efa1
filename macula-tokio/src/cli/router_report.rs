//! What the router of a relay says of itself.

use std::{collections::BTreeMap, fmt};

use macula_proto::{
    rpc::router::{Refusal, RouterStats, RouterStatus},
    wire::rpc::Kind,
};
use serde::{Deserialize, Serialize};

/// The state of a router. Fields may be added; readers ignore those they do not know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RouterReport {
    /// Connected nodes.
    pub(crate) nodes: usize,
    /// Nodes that serve it, for each registered procedure.
    pub(crate) procedures: BTreeMap<String, usize>,
    /// Streaming calls under way.
    pub(crate) streams: usize,
    /// Unary calls that wait for their reply.
    pub(crate) calls: usize,
    /// Counters since the start.
    pub(crate) counters: BTreeMap<String, u64>,
    /// Messages received by type, those that came.
    pub(crate) messages: BTreeMap<String, u64>,
    /// What was refused, by reason.
    pub(crate) refused: BTreeMap<String, u64>,
}

impl RouterReport {
    pub(crate) fn new(status: &RouterStatus, stats: &RouterStats) -> Self {
        let procedures = status.procedures.iter();
        let named = |(name, value): (&str, u64)| (name.to_owned(), value);
        Self {
            nodes: status.nodes.len(),
            procedures: procedures
                .map(|(name, nodes)| (name.escape_ascii().to_string(), *nodes))
                .collect(),
            streams: status.streams,
            calls: status.calls,
            counters: counters(stats).map(|(name, _, value)| (name.to_owned(), value)).into(),
            messages: messages(stats).filter(|(_, count)| *count > 0).map(named).collect(),
            refused: refused(stats).map(named).collect(),
        }
    }
}

/// Name, meaning and value of each counter of a router.
pub(crate) fn counters(stats: &RouterStats) -> [(&'static str, &'static str, u64); 16] {
    [
        ("connections", "Connections of nodes", stats.connections),
        ("routed", "Messages passed on", stats.routed),
        ("routed_bytes", "Bytes of messages passed on", stats.routed_bytes),
        ("recoded", "Messages passed on in another encoding", stats.recoded),
        ("registered", "Registrations of procedures", stats.registered),
        ("streams_routed", "Streaming calls routed", stats.streams),
        ("calls_routed", "Unary calls routed", stats.calls),
        ("ignored", "Messages of kinds that are not served", stats.ignored),
        ("stray", "Messages for calls that are not there", stats.stray),
        ("malformed", "Messages that could not be read", stats.malformed),
        ("timeouts", "Unary calls without a reply in time", stats.timeouts),
        ("idle", "Streaming calls ended because nothing went on them", stats.idle),
        (
            "stalled",
            "Calls ended because a node did not take a message",
            stats.stalled,
        ),
        (
            "disconnected",
            "Calls ended because the other node went",
            stats.disconnected,
        ),
        ("silent", "Connections closed because they said nothing", stats.silent),
        (
            "failed",
            "Connections closed because they broke the protocol",
            stats.failed,
        ),
    ]
}

/// Messages received by type.
pub(crate) fn messages(stats: &RouterStats) -> impl Iterator<Item = (&'static str, u64)> {
    Kind::ALL.iter().map(|kind| kind.as_str()).zip(stats.messages)
}

/// What was refused, by reason.
pub(crate) fn refused(stats: &RouterStats) -> impl Iterator<Item = (&'static str, u64)> {
    Refusal::ALL.iter().map(|why| why.as_str()).zip(stats.refused)
}

/// One line for people.
impl fmt::Display for RouterReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "router: nodes {}, procedures {}, streams {}, calls {}",
            self.nodes,
            self.procedures.len(),
            self.streams,
            self.calls
        )?;
        let troubles = [
            "stray",
            "malformed",
            "timeouts",
            "idle",
            "stalled",
            "disconnected",
            "silent",
            "failed",
        ];
        let counted = self
            .counters
            .iter()
            .filter(|(name, _)| troubles.contains(&name.as_str()));
        let counted = counted.map(|(name, &value)| (name.clone(), value));
        let refused = self
            .refused
            .iter()
            .map(|(why, &value)| (format!("refused {why}"), value));
        counted
            .chain(refused)
            .filter(|(_, value)| *value > 0)
            .try_for_each(|(name, value)| write!(f, ", {name} {value}"))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn figures() -> (RouterStatus, RouterStats) {
        let mut status = RouterStatus::default();
        status.procedures = vec![("org/a/b/c/echo_v1".into(), 2), (vec![0xFF].into(), 1)];
        status.streams = 3;
        status.calls = 4;
        let mut stats = RouterStats::default();
        stats.routed = 50;
        stats.stalled = 1;
        stats.messages[0] = 7;
        stats.refused[0] = 2;
        (status, stats)
    }

    #[test]
    fn a_line_for_people_and_data_for_programs() {
        let (status, stats) = figures();
        let report = RouterReport::new(&status, &stats);
        let expected = "router: nodes 0, procedures 2, streams 3, calls 4, stalled 1, refused not_found 2";
        assert_eq!(report.to_string(), expected);
        assert_eq!(report.procedures[r"\xff"], 1);
        assert_eq!(report.messages, [("connect".to_owned(), 7)].into());
        assert_eq!(report.counters["routed"], 50);
    }
}
