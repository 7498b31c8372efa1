//! Figures of a node for Prometheus.

use std::fmt;

use macula_proto::dist::node::NodeStats;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, gauge::ConstGauge},
    registry::Unit,
};

use crate::{
    cli::metrics::{self, Figures, counter, gauge},
    dist::{Node, QuicLink},
};

/// Those of a node.
pub(super) struct OfNode(pub(super) Node);

impl Figures for OfNode {
    async fn text(&self) -> String {
        let node = &self.0;
        let peers: Vec<_> = node.nodes().iter().map(|peer| peer.as_str().to_owned()).collect();
        let links = peers.iter().map(|peer| (peer.clone(), node.quic_link(peer)));
        let snapshot = Snapshot {
            stats: node.stats(),
            links: links.filter_map(|(peer, link)| Some((peer, link?))).collect(),
            peers: peers.len(),
        };
        metrics::text("macula_dist", snapshot)
    }
}

#[derive(Debug)]
struct Snapshot {
    stats: NodeStats,
    peers: usize,
    /// Of connections over QUIC, by node.
    links: Vec<(String, QuicLink)>,
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let out = &mut encoder;
        gauge(
            out,
            "nodes",
            "Nodes that there is a connection with",
            metrics::count(self.peers),
        )?;
        let stats = &self.stats;
        for (name, help, value) in [
            (
                "messages_received",
                "Messages that came over connections, of all kinds",
                stats.received,
            ),
            (
                "messages_sent",
                "Messages put out for connections, of all kinds",
                stats.sent,
            ),
            ("signals_delivered", "Signals put into mailboxes", stats.delivered),
            (
                "messages_dropped",
                "Messages for processes, names and aliases that are not there",
                stats.dropped,
            ),
            (
                "messages_stray",
                "Messages about links and monitors that there are none of",
                stats.stray,
            ),
            (
                "messages_ignored",
                "Messages of kinds that mean nothing here",
                stats.ignored,
            ),
            (
                "messages_unreadable",
                "Messages that could not be read",
                stats.unreadable,
            ),
            ("pings", "Calls of net_adm:ping answered", stats.pings),
            (
                "links_refused",
                "Links and monitors refused because of a limit",
                stats.refused,
            ),
            (
                "spawns_refused",
                "Requests to spawn a process, all refused",
                stats.spawns_refused,
            ),
        ] {
            counter(out, name, help, value)?;
        }
        self.per_link(out, "streams", "Streams that are not over, by node", |link| {
            metrics::count(link.streams.len())
        })?;
        self.per_link(
            out,
            "congested",
            "Whether so much waits that no more is taken, by node",
            |link| u64::from(link.congested),
        )?;
        self.per_link(
            out,
            "packets_sent",
            "Packets sent on the connection that is there now, by node",
            |link| link.transport.packets_sent,
        )?;
        self.per_link(out, "packets_lost", "Of those: packets lost, by node", |link| {
            link.transport.packets_lost
        })?;
        let help = "Smoothed round-trip time, by node";
        let mut all = out.encode_descriptor("rtt", help, Some(&Unit::Seconds), MetricType::Gauge)?;
        for (peer, link) in &self.links {
            let rtt = ConstGauge::new(link.transport.rtt.as_secs_f64());
            rtt.encode(all.encode_family(&[("node", &**peer)])?)?;
        }
        Ok(())
    }
}

impl Snapshot {
    fn per_link(
        &self,
        out: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        of: impl Fn(&QuicLink) -> u64,
    ) -> Result<(), fmt::Error> {
        let mut all = out.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (peer, link) in &self.links {
            let value = ConstGauge::new(i64::try_from(of(link)).unwrap_or(i64::MAX));
            value.encode(all.encode_family(&[("node", &**peer)])?)?;
        }
        Ok(())
    }
}
