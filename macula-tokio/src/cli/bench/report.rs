//! What a row found out, for people and for programs.

use std::{fmt, time::Duration};

use serde::Serialize;

use super::args::Row;

/// What the rows have in common.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Setting {
    pub(super) event: &'static str,
    pub(super) version: &'static str,
    pub(super) processors: usize,
    pub(super) datagrams: u16,
    /// The relay of the relay rows, if it is not one in this process.
    pub(super) relay: Option<String>,
}

impl Setting {
    /// What to print.
    pub(super) fn line(&self, json: bool) -> String {
        match json {
            true => serde_json::to_string(self).unwrap_or_default() + "\n",
            false => self.to_string(),
        }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            version,
            processors,
            datagrams,
            ..
        } = self;
        write!(
            f,
            "macula {version}, {processors} processors, everything in one process on loopback, datagrams up to {datagrams} bytes"
        )?;
        match &self.relay {
            Some(relay) => writeln!(f, "; relay rows through {relay}\n"),
            None => writeln!(f, "\n"),
        }
    }
}

/// What was counted, in how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Measured {
    /// Bytes, trips, chunks, calls or handshakes.
    pub(super) count: u64,
    pub(super) time: Duration,
    /// Processor time of this process.
    pub(super) cpu: Option<Duration>,
    /// Times of round trips, in order of size.
    pub(super) trips: Vec<Duration>,
}

/// A row as it is told.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Report {
    event: &'static str,
    row: &'static str,
    unit: &'static str,
    count: u64,
    seconds: f64,
    per_second: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_seconds: Option<f64>,
    #[serde(flatten)]
    trips: Option<Trips>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Trips {
    p50_us: f64,
    p99_us: f64,
    max_us: f64,
}

impl Report {
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    pub(super) fn new(row: Row, measured: &Measured) -> Self {
        let seconds = measured.time.as_secs_f64();
        let at = |per_cent: usize| {
            let last = measured.trips.len().saturating_sub(1);
            let index = (measured.trips.len() * per_cent / 100).min(last);
            let time = measured.trips.get(index).copied().unwrap_or_default();
            rounded(time.as_secs_f64() * 1e6, 10.0)
        };
        let trips = (!measured.trips.is_empty()).then(|| Trips {
            p50_us: at(50),
            p99_us: at(99),
            max_us: at(100),
        });
        Self {
            event: "row",
            row: row.name(),
            unit: match row {
                Row::DirectBulk | Row::RelayBulk => "bytes",
                Row::DirectTrips | Row::RelayTrips => "trips",
                Row::RpcChunks | Row::RpcBlocks => "chunks",
                Row::RpcCalls => "calls",
                Row::Peering => "handshakes",
            },
            count: measured.count,
            seconds: rounded(seconds, 1e6),
            per_second: rounded(measured.count as f64 / seconds.max(1e-9), 10.0),
            cpu_seconds: measured.cpu.map(|time| rounded(time.as_secs_f64(), 1e6)),
            trips,
        }
    }

    /// The line to print.
    pub(super) fn line(&self, json: bool) -> String {
        match json {
            true => serde_json::to_string(self).unwrap_or_default() + "\n",
            false => format!("{self}\n"),
        }
    }
}

fn rounded(value: f64, parts: f64) -> f64 {
    (value * parts).round() / parts
}

impl fmt::Display for Report {
    #[expect(clippy::cast_precision_loss, reason = "for people, a few digits of it")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, second) = match (&self.trips, self.unit) {
            (Some(trips), _) => (
                format!("p50 {:.1} µs", trips.p50_us),
                format!("p99 {:.1} µs", trips.p99_us),
            ),
            (None, "bytes") => {
                let gibibytes = self.count as f64 / f64::from(1 << 30);
                let cost = |cpu: f64| format!("{:.2} s of processor a GiB", cpu / gibibytes);
                (format!("{:.1} MB/s", self.per_second / 1e6), self.cost(cost))
            }
            (None, unit) => {
                let cost = |cpu: f64| format!("{:.2} µs of processor each", cpu * 1e6 / self.count as f64);
                (format!("{:.0} {unit}/s", self.per_second), self.cost(cost))
            }
        };
        write!(f, "{:12}  {first:>20}  {second:>28}", self.row)
    }
}

impl Report {
    fn cost(&self, text: impl FnOnce(f64) -> String) -> String {
        self.cpu_seconds
            .filter(|_| self.count > 0)
            .map(text)
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(count: u64, trips: Vec<Duration>) -> Measured {
        Measured {
            count,
            time: Duration::from_millis(500),
            cpu: Some(Duration::from_millis(750)),
            trips,
        }
    }

    #[test]
    fn rows_for_people_and_for_programs() {
        let table = [
            (
                Report::new(Row::RelayBulk, &measured(1 << 29, vec![])),
                "relay-bulk             1073.7 MB/s     1.50 s of processor a GiB\n",
                "{\"event\":\"row\",\"row\":\"relay-bulk\",\"unit\":\"bytes\",\"count\":536870912,\"seconds\":0.5,\
                 \"per_second\":1073741824.0,\"cpu_seconds\":0.75}\n",
            ),
            (
                Report::new(Row::RpcCalls, &measured(100_000, vec![])),
                "rpc-calls           200000 calls/s     7.50 µs of processor each\n",
                "{\"event\":\"row\",\"row\":\"rpc-calls\",\"unit\":\"calls\",\"count\":100000,\"seconds\":0.5,\
                 \"per_second\":200000.0,\"cpu_seconds\":0.75}\n",
            ),
            (
                Report::new(
                    Row::DirectTrips,
                    &measured(200, (1..=200).map(Duration::from_micros).collect()),
                ),
                "direct-trips          p50 101.0 µs                  p99 199.0 µs\n",
                "{\"event\":\"row\",\"row\":\"direct-trips\",\"unit\":\"trips\",\"count\":200,\"seconds\":0.5,\
                 \"per_second\":400.0,\"cpu_seconds\":0.75,\"p50_us\":101.0,\"p99_us\":199.0,\"max_us\":200.0}\n",
            ),
        ];
        for (report, people, programs) in table {
            assert_eq!(report.line(false), people);
            assert_eq!(report.line(true), programs);
        }
        let unknown = Measured {
            cpu: None,
            ..measured(0, vec![])
        };
        let report = Report::new(Row::Peering, &unknown);
        assert_eq!(report.line(false).trim_end(), "peering             0 handshakes/s");
        assert!(!report.line(true).contains("cpu"));
    }
}
