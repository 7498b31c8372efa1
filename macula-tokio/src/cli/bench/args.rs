//! The command line of `macula bench`.

use std::time::Duration;

use clap::{Args, ValueEnum};
use macula_proto::tunnel::Name;

use super::super::{
    args::{EncodingArg, TrustArgs},
    values::{self, HostPort},
};

const BENCH_HELP: &str = "\
Everything runs in this process, on loopback: both ends, and a relay where there is one, share the processors of this machine, and \
so do other programs. Compare runs of this command with each other, on a quiet machine; between machines the rows say what to expect, not \
more.

Rows:
  direct-bulk   one stream on a connection between two nodes, written and read in blocks of 64 KiB: 10^6 bytes a second until the last \
byte was read, and the processor time of both ends for 2^30 bytes
  direct-trips  64 bytes there and back on such a stream, each message behind the answer to the one before: the time that half of them took \
at most, and the one that 99 of 100 took at most
  relay-bulk    as direct-bulk in a tunnel: two nodes that dialled a relay, the relay in between; its processor time is in it
  relay-trips   as direct-trips in such a tunnel
  rpc-chunks    chunks of 64 bytes on one call: how many a second the other end has taken, and what one costs both ends
  rpc-blocks    the same with chunks of 64 KiB
  rpc-calls     calls with 64 bytes there and back, 64 of them at a time, on one connection
  peering       connections of peers who know each other by their keys, eight dialled at a time and left again: handshakes a second, TLS \
and signatures included

With --relay, the two relay rows go through that relay: what they show is the way there and back, and the relay's own work is not in \
the processor time. Nothing else leaves this machine.

Examples:
  macula bench
  macula bench --only direct-bulk,relay-bulk --seconds 10 --datagrams 9000
  macula bench --only relay-bulk,relay-trips --relay relay.example --pin PIN
      what a path gives, through a relay of one's own
  macula bench --json | jq -r 'select(.event == \"row\") | [.row, .per_second] | @tsv'

With --json: `setting` once, then a `row` for each, with what it counted (bytes, trips, chunks, calls, handshakes) in `count`, \
`seconds`, `per_second`, and `cpu_seconds` where the system tells it; rows of round trips have `p50_us`, `p99_us` and `max_us`.";

#[derive(Debug, Args)]
#[command(after_help = BENCH_HELP)]
pub(crate) struct BenchArgs {
    /// Measure these rows alone; several with commas between them, or repeated
    #[arg(long, value_name = "ROW", value_delimiter = ',')]
    pub(crate) only: Vec<Row>,
    /// How long each row is measured, behind a tenth of that to warm up
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = values::positive_duration)]
    pub(crate) seconds: Duration,
    /// Give up after this time [default: twice what the rows take, and 30 s]
    #[arg(long, value_name = "SECONDS", value_parser = values::positive_duration)]
    pub(crate) timeout: Option<Duration>,
    /// Longest datagrams, without headers of UDP and IP; more than the path carries is found out and does no harm
    #[arg(long, value_name = "BYTES", default_value = "1452", value_parser = clap::value_parser!(u16).range(1200..=65_000))]
    pub(crate) datagrams: u16,
    /// Send the tunnels of the relay rows through this relay
    #[arg(long, value_name = "HOST[:PORT]", value_parser = values::relay_address)]
    pub(crate) relay: Option<HostPort>,
    /// Take the names NAME-1 and NAME-2 at the relay [default: random ones]
    #[arg(long, value_name = "NAME", value_parser = values::name, requires = "relay")]
    pub(crate) name: Option<Name>,
    /// Encoding of control messages to the relay; auto finds out what it speaks
    #[arg(long, value_name = "ENCODING", default_value = "auto")]
    pub(crate) encoding: EncodingArg,
    #[command(flatten)]
    pub(crate) trust: TrustArgs,
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Row {
    /// One stream between two nodes
    DirectBulk,
    /// Round trips between two nodes
    DirectTrips,
    /// One tunnel of a relay
    RelayBulk,
    /// Round trips through a relay
    RelayTrips,
    /// Chunks of 64 bytes on one call
    RpcChunks,
    /// Chunks of 64 KiB on one call
    RpcBlocks,
    /// Calls without chunks
    RpcCalls,
    /// Handshakes of peers
    Peering,
}

impl Row {
    /// As it is written on the command line and told.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::DirectBulk => "direct-bulk",
            Self::DirectTrips => "direct-trips",
            Self::RelayBulk => "relay-bulk",
            Self::RelayTrips => "relay-trips",
            Self::RpcChunks => "rpc-chunks",
            Self::RpcBlocks => "rpc-blocks",
            Self::RpcCalls => "rpc-calls",
            Self::Peering => "peering",
        }
    }

    /// Whether it goes through a relay.
    pub(crate) fn is_relayed(self) -> bool {
        matches!(self, Self::RelayBulk | Self::RelayTrips)
    }
}
