//! What a relay says of itself: as data for the admin socket, and as a table for people.

use std::{collections::BTreeMap, fmt, time::Duration};

use macula_proto::{
    quic::ConnectionStats,
    tunnel::relay::{Refusal, RelayStats},
    wire::Encoding,
};
use serde::{Deserialize, Serialize};

use super::{backend::RelaySnapshot, router_report::RouterReport};

/// The state of a relay. Fields may be added; readers ignore those they do not know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct StatusReport {
    pub(crate) version: String,
    pub(crate) uptime_seconds: u64,
    pub(crate) draining: bool,
    pub(crate) listen: Vec<String>,
    pub(crate) pin: String,
    pub(crate) names: Vec<NameReport>,
    pub(crate) connections: Vec<ConnectionReport>,
    pub(crate) tunnels: Vec<TunnelReport>,
    /// Of the router, if one runs beside the relay.
    #[serde(default)]
    pub(crate) router: Option<RouterReport>,
    /// Counters since the start.
    pub(crate) counters: BTreeMap<String, u64>,
    /// Refused tunnel requests by reason since the start.
    pub(crate) refused: BTreeMap<String, u64>,
}

/// A name that is held.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct NameReport {
    pub(crate) name: String,
    pub(crate) connection: u64,
    pub(crate) tunnels: usize,
}

/// A client's connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ConnectionReport {
    pub(crate) connection: u64,
    pub(crate) remote: String,
    pub(crate) names: Vec<String>,
    pub(crate) encoding: Option<String>,
    pub(crate) tunnels: usize,
    pub(crate) pending: usize,
    pub(crate) rtt_ms: f64,
    pub(crate) min_rtt_ms: f64,
    /// Of the packets that the relay sent: those lost, 0 to 1.
    pub(crate) loss: f64,
    pub(crate) packets_sent: u64,
    pub(crate) packets_lost: u64,
    pub(crate) bytes_received: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) congestion_window: u64,
    pub(crate) datagram_size: u16,
}

/// An open tunnel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct TunnelReport {
    pub(crate) id: String,
    pub(crate) source: String,
    pub(crate) target: String,
    /// From the source to the target.
    pub(crate) bytes_in: u64,
    /// From the target to the source.
    pub(crate) bytes_out: u64,
}

impl StatusReport {
    pub(crate) fn new(snapshot: &RelaySnapshot, uptime: Duration, listen: Vec<String>, pin: String) -> Self {
        let status = &snapshot.status;
        let names = status.names.iter().map(|name| NameReport {
            name: name.name.to_string(),
            connection: name.conn.0,
            tunnels: name.tunnels,
        });
        let connections = status.connections.iter().map(|conn| {
            let stats = snapshot.connections.get(&conn.conn).copied().unwrap_or_default();
            ConnectionReport {
                connection: conn.conn.0,
                remote: conn.remote.to_string(),
                names: conn.names.iter().map(ToString::to_string).collect(),
                encoding: conn.encoding.map(|encoding| encoding_name(encoding).to_owned()),
                tunnels: conn.tunnels,
                pending: conn.pending,
                rtt_ms: millis(stats.rtt),
                min_rtt_ms: millis(stats.min_rtt),
                loss: loss(&stats),
                packets_sent: stats.packets_sent,
                packets_lost: stats.packets_lost,
                bytes_received: stats.bytes_received,
                bytes_sent: stats.bytes_sent,
                congestion_window: stats.congestion_window,
                datagram_size: stats.datagram_size,
            }
        });
        let tunnels = status.tunnels.iter().map(|tunnel| {
            let bytes = snapshot.tunnels.get(&tunnel.tunnel).copied().unwrap_or_default();
            TunnelReport {
                id: tunnel.id.to_string(),
                source: tunnel.source.to_string(),
                target: tunnel.target.to_string(),
                bytes_in: bytes.to_target,
                bytes_out: bytes.to_requester,
            }
        });
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: uptime.as_secs(),
            draining: status.draining,
            listen,
            pin,
            names: names.collect(),
            connections: connections.collect(),
            tunnels: tunnels.collect(),
            router: (snapshot.router.as_ref()).map(|(status, stats)| RouterReport::new(status, stats)),
            counters: counters(&snapshot.stats)
                .map(|(name, _, value)| (name.to_owned(), value))
                .into(),
            refused: refused(&snapshot.stats).collect(),
        }
    }
}

/// Name, meaning and value of each counter of a relay.
pub(crate) fn counters(stats: &RelayStats) -> [(&'static str, &'static str, u64); 14] {
    [
        (
            "connections",
            "Clients that completed their handshake",
            stats.connections,
        ),
        ("identified", "Identify messages answered", stats.identified),
        ("identify_refused", "Identify messages refused", stats.identify_refused),
        (
            "identify_timeouts",
            "Clients that did not identify in time",
            stats.identify_timeouts,
        ),
        ("displaced", "Connections displaced by a newer one", stats.displaced),
        ("requests", "Tunnel requests", stats.requests),
        ("tunnels_opened", "Tunnels opened", stats.tunnels_opened),
        ("tunnels_closed", "Tunnels closed", stats.tunnels_closed),
        (
            "rate_limited",
            "Tunnel requests above the rate limit",
            stats.rate_limited,
        ),
        ("malformed", "Control messages that could not be read", stats.malformed),
        (
            "unexpected",
            "Control messages that only a relay may send",
            stats.unexpected,
        ),
        (
            "stray_closes",
            "Closes of a tunnel that is not there",
            stats.stray_closes,
        ),
        (
            "extra_streams",
            "Streams that clients should not have opened",
            stats.extra_streams,
        ),
        ("closed", "Connections closed by the relay", stats.closed),
    ]
}

/// Refused requests by reason.
pub(crate) fn refused(stats: &RelayStats) -> impl Iterator<Item = (String, u64)> {
    let reasons = Refusal::ALL.iter().map(ToString::to_string);
    reasons.zip(stats.refused)
}

fn encoding_name(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::MessagePack => "msgpack",
        Encoding::Cbor => "cbor",
    }
}

/// Milliseconds with three decimals, which is a microsecond.
fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

#[expect(clippy::cast_precision_loss, reason = "a share for people, four digits of it")]
fn loss(stats: &ConnectionStats) -> f64 {
    match stats.packets_sent {
        0 => 0.0,
        sent => (stats.packets_lost as f64 / sent as f64 * 1e4).round() / 1e4,
    }
}

/// For people: a headline, the names, the tunnels, and counters that are not 0.
impl fmt::Display for StatusReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "relay {} on {}, up {}{}",
            self.version,
            self.listen.join(", "),
            Uptime(self.uptime_seconds),
            if self.draining { ", draining" } else { "" }
        )?;
        writeln!(f, "pin {}", self.pin)?;
        let (connections, tunnels) = (self.connections.len(), self.tunnels.len());
        writeln!(
            f,
            "names {}, connections {connections}, tunnels {tunnels}",
            self.names.len()
        )?;
        if let Some(router) = &self.router {
            writeln!(f, "{router}")?;
        }
        if !self.connections.is_empty() {
            writeln!(f)?;
            self.connection_table().fmt(f)?;
        }
        if !self.tunnels.is_empty() {
            writeln!(f)?;
            self.tunnel_table().fmt(f)?;
        }
        self.troubles(f)
    }
}

impl StatusReport {
    fn connection_table(&self) -> Table<8> {
        let head = ["NAME", "FROM", "TUNNELS", "RTT", "LOSS", "RECEIVED", "SENT", "SPEAKS"];
        let rows = self.connections.iter().map(|conn| {
            let names = match conn.names.is_empty() {
                true => "-".to_owned(),
                false => conn.names.join(" "),
            };
            [
                names,
                conn.remote.clone(),
                conn.tunnels.to_string(),
                format!("{:.1} ms", conn.rtt_ms),
                format!("{:.2} %", conn.loss * 100.0),
                Bytes(conn.bytes_received).to_string(),
                Bytes(conn.bytes_sent).to_string(),
                conn.encoding.clone().unwrap_or_else(|| "-".to_owned()),
            ]
        });
        Table(std::iter::once(head.map(str::to_owned)).chain(rows).collect())
    }

    fn tunnel_table(&self) -> Table<5> {
        let head = ["TUNNEL", "FROM", "TO", "THERE", "BACK"];
        let rows = self.tunnels.iter().map(|tunnel| {
            [
                tunnel.id.clone(),
                tunnel.source.clone(),
                tunnel.target.clone(),
                Bytes(tunnel.bytes_in).to_string(),
                Bytes(tunnel.bytes_out).to_string(),
            ]
        });
        Table(std::iter::once(head.map(str::to_owned)).chain(rows).collect())
    }

    fn troubles(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ordinary = [
            "connections",
            "identified",
            "requests",
            "tunnels_opened",
            "tunnels_closed",
        ];
        let counters = self
            .counters
            .iter()
            .filter(|(name, _)| !ordinary.contains(&name.as_str()));
        let refused = self.refused.iter();
        let all = counters.map(|(name, &value)| (name.replace('_', " "), value));
        let all = all.chain(refused.map(|(reason, &value)| (format!("refused {reason}"), value)));
        let all: Vec<_> = all
            .filter(|&(_, value)| value > 0)
            .map(|(name, value)| format!("{name} {value}"))
            .collect();
        match all.is_empty() {
            true => Ok(()),
            false => writeln!(f, "\nsince the start: {}", all.join(", ")),
        }
    }
}

/// Columns as wide as their widest cell, two spaces apart.
struct Table<const N: usize>(Vec<[String; N]>);

impl<const N: usize> fmt::Display for Table<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut widths = [0; N];
        for row in &self.0 {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        for row in &self.0 {
            let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
            writeln!(f, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        Ok(())
    }
}

/// A number of bytes for people.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bytes(pub(crate) u64);

impl fmt::Display for Bytes {
    #[expect(clippy::cast_precision_loss, reason = "for people, four digits of it")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut value = self.0 as f64;
        for unit in ["B", "KiB", "MiB", "GiB"] {
            if value < 1000.0 {
                return match unit {
                    "B" => write!(f, "{value} B"),
                    _ => write!(f, "{value:.1} {unit}"),
                };
            }
            value /= 1024.0;
        }
        write!(f, "{value:.1} TiB")
    }
}

struct Uptime(u64);

impl fmt::Display for Uptime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (minutes, seconds) = (self.0 / 60, self.0 % 60);
        let (hours, minutes) = (minutes / 60, minutes % 60);
        let (days, hours) = (hours / 24, hours % 24);
        match (days, hours, minutes) {
            (0, 0, 0) => write!(f, "{seconds} s"),
            (0, 0, _) => write!(f, "{minutes} min {seconds} s"),
            (0, _, _) => write!(f, "{hours} h {minutes} min"),
            _ => write!(f, "{days} d {hours} h"),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::net::SocketAddr;

    use macula_proto::{
        quic::EndpointStats,
        tunnel::{
            ConnKey, Name,
            relay::{ConnectionStatus, NameStatus, RelayStatus, TunnelBytes, TunnelKey, TunnelStatus},
        },
        wire::control::TunnelId,
    };

    use super::*;

    /// Two nodes with a tunnel between them, and a client that has not said its name.
    pub(crate) fn snapshot() -> RelaySnapshot {
        let (alice, bob) = (Name::from("alice@host1"), Name::from("bob"));
        let connection = |conn, remote: &str, name: Option<&Name>, tunnels| ConnectionStatus {
            conn: ConnKey(conn),
            remote: remote.parse::<SocketAddr>().unwrap(),
            names: name.cloned().into_iter().collect(),
            encoding: name.map(|_| Encoding::Cbor),
            tunnels,
            pending: 0,
        };
        let name = |conn, name: &Name| NameStatus {
            name: name.clone(),
            conn: ConnKey(conn),
            tunnels: 1,
        };
        let mut stats = RelayStats::default();
        stats.connections = 3;
        stats.malformed = 2;
        stats.refused[0] = 4;
        let mut path = ConnectionStats::default();
        path.rtt = Duration::from_micros(12_345);
        path.min_rtt = Duration::from_millis(12);
        path.packets_sent = 1000;
        path.packets_lost = 5;
        path.bytes_received = 3 << 20;
        path.bytes_sent = 999;
        let mut endpoint = EndpointStats::default();
        endpoint.datagrams_received = 77;
        endpoint.open = 3;
        RelaySnapshot {
            status: RelayStatus {
                draining: false,
                names: vec![name(1, &alice), name(2, &bob)],
                connections: vec![
                    connection(1, "192.0.2.1:50000", Some(&alice), 1),
                    connection(2, "[2001:db8::2]:50000", Some(&bob), 1),
                    connection(3, "192.0.2.3:50000", None, 0),
                ],
                tunnels: vec![TunnelStatus {
                    tunnel: TunnelKey(9),
                    id: TunnelId::from_random([0xAB; 16]),
                    source: alice,
                    target: bob,
                    conns: (ConnKey(1), ConnKey(2)),
                }],
            },
            stats,
            router: None,
            endpoint,
            connections: [(ConnKey(1), path)].into(),
            tunnels: [(
                TunnelKey(9),
                TunnelBytes {
                    to_target: 5000,
                    to_requester: 1 << 30,
                },
            )]
            .into(),
        }
    }

    pub(crate) fn report() -> StatusReport {
        let listen = vec!["[::]:4434".to_owned()];
        StatusReport::new(&snapshot(), Duration::from_secs(7384), listen, "ab".repeat(32))
    }

    #[test]
    fn a_table_for_people() {
        let expected = "\
relay VERSION on [::]:4434, up 2 h 3 min
pin abababababababababababababababababababababababababababababababab
names 2, connections 3, tunnels 1

NAME         FROM                 TUNNELS  RTT      LOSS    RECEIVED  SENT   SPEAKS
alice@host1  192.0.2.1:50000      1        12.3 ms  0.50 %  3.0 MiB   999 B  cbor
bob          [2001:db8::2]:50000  1        0.0 ms   0.00 %  0 B       0 B    cbor
-            192.0.2.3:50000      0        0.0 ms   0.00 %  0 B       0 B    -

TUNNEL                            FROM         TO   THERE    BACK
ABABABABABABABABABABABABABABABAB  alice@host1  bob  4.9 KiB  1.0 GiB

since the start: malformed 2, refused target_not_connected 4
";
        assert_eq!(
            report().to_string(),
            expected.replace("VERSION", env!("CARGO_PKG_VERSION"))
        );
    }

    #[test]
    fn what_is_read_back_is_what_was_said() {
        let report = report();
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<StatusReport>(&text).unwrap(), report);
        let connection = &report.connections[0];
        assert_eq!((connection.rtt_ms, connection.loss), (12.345, 0.005));
        assert_eq!(report.tunnels[0].bytes_in, 5000);
    }

    #[test]
    fn sizes_and_times_for_people() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (5 << 40, "5.0 TiB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
        for (seconds, text) in [(0, "0 s"), (61, "1 min 1 s"), (3600, "1 h 0 min"), (90_000, "1 d 1 h")] {
            assert_eq!(Uptime(seconds).to_string(), text);
        }
    }
}
