//! The command line.

use std::{path::PathBuf, time::Duration};

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use macula_proto::{
    identity::{NodeId, puzzle},
    quic::tls::Pin,
    tunnel::{Name, client::session::EncodingChoice, relay::Takeover},
};

use super::{
    beam::args::BeamArgs,
    bench::args::BenchArgs,
    dist::args::DistArgs,
    inspect::{Format, HexBytes},
    peer::args::PeerArgs,
    rpc::args::RpcArgs,
    values::{self, HostPort},
};

const OVERVIEW: &str = "\
A relay joins nodes that cannot reach each other: every node dials out to it and says its name. One node exposes a TCP \
service under its name, another forwards a local port to that name, and the relay passes the bytes on.";

const START: &str = "\
Try it, with everything in one process:
  macula demo

Across three machines:
  relay$    macula relay --self-signed               prints a pin: copy it
  service$  macula expose --relay HOST --pin PIN --name web --to localhost:8080
  client$   macula forward --relay HOST --pin PIN --name me --target web --listen localhost:80

Erlang nodes, on hosts that cannot reach each other:
  host$     macula beam --help

Addresses are HOST:PORT, [IPV6]:PORT or quic://HOST:PORT; unless given, the port of a relay is 4434 and that of a peer 4433.
Events go to standard output, logs to standard error.
Exit codes: 0 done, 1 failed, 2 usage, 3 time-out.";

/// Mesh transport over QUIC: relay, tunnels and what belongs to them.
#[derive(Debug, Parser)]
#[command(name = "macula", version, long_about = OVERVIEW, after_help = START)]
pub(crate) struct Cli {
    /// Print every event as one JSON object a line
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Log more: -v what happens, -vv details, -vvv everything (RUST_LOG overrides)
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a relay
    Relay(Box<RelayArgs>),
    /// Make a TCP service reachable under a name
    Expose(Box<ExposeArgs>),
    /// Make a name reachable on a local TCP port
    Forward(Box<ForwardArgs>),
    /// Let the BEAM node of this host into a cluster through a relay
    Beam(Box<BeamArgs>),
    /// Show what a running relay is doing
    Status(StatusArgs),
    /// Empty a running relay and stop it
    Drain(DrainArgs),
    /// Check the whole way through a relay, in this process alone
    Demo(DemoArgs),
    /// Measure what this machine, or the way through a relay, can do
    Bench(Box<BenchArgs>),
    /// Take peers or dial one, and exchange signed frames
    Peer(PeerArgs),
    /// Offer procedures or call them, with streams of chunks in either or both directions
    Rpc(RpcArgs),
    /// Be a node among Erlang nodes, over QUIC or TCP
    Dist(DistArgs),
    /// Make and show the key files that nodes are known by
    Key(KeyArgs),
    /// Look into captured bytes, or make bytes of what was looked at
    Inspect(InspectArgs),
    /// Print the completion script of a shell
    Completions(CompletionsArgs),
}

const RELAY_HELP: &str = "\
Examples:
  macula relay --self-signed
      on port 4434 of every address, with a certificate made at this start; clients use the pin it prints
  macula relay --cert relay.pem --key relay.key --access access.toml --metrics 127.0.0.1:9100
      with a lasting certificate, rules for names, and figures for Prometheus
  macula relay --config relay.toml --listen 127.0.0.1:0
      settings from a file, but on a free local port

A configuration file (TOML) has the keys cert, key, self-signed, listen, access, takeover, admin, \
no-admin, metrics, no-router, sockets, spin, max-tunnels-per-node, max-rate-per-node, max-handshakes and drain-timeout, with the meaning of the \
options of the same names. Options given here win. Its relative paths start at the file's own directory.

SIGHUP reads the access file and the certificate again; if one of them is broken the old one stays. SIGTERM and Ctrl-C \
drain for the time of --drain-timeout and exit; a second signal exits at once.";

#[derive(Debug, Args, Default)]
#[command(after_help = RELAY_HELP)]
pub(crate) struct RelayArgs {
    /// Read settings from this TOML file
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// UDP address to listen on [default: [::]:4434, which is IPv4 and IPv6]
    #[arg(long, value_name = "HOST:PORT", value_parser = values::relay_address)]
    pub(crate) listen: Option<HostPort>,
    #[command(flatten)]
    pub(crate) identity: IdentityArgs,
    /// Rules for names: who may take them, who may open tunnels to them (TOML)
    #[arg(long, value_name = "FILE")]
    pub(crate) access: Option<PathBuf>,
    /// Whether a node may take a name that another connection holds [default: replace]
    #[arg(long, value_name = "POLICY")]
    pub(crate) takeover: Option<TakeoverArg>,
    /// Unix socket for `macula status` and `macula drain` [default: $XDG_RUNTIME_DIR/macula/relay.sock, else
    /// /run/macula/relay.sock]
    #[arg(long, value_name = "SOCKET")]
    pub(crate) admin: Option<PathBuf>,
    /// Have no admin socket
    #[arg(long, conflicts_with = "admin")]
    pub(crate) no_admin: bool,
    /// Serve figures for Prometheus at http://HOST:PORT/metrics
    #[arg(long, value_name = "HOST:PORT", value_parser = values::tcp_address)]
    pub(crate) metrics: Option<HostPort>,
    /// Route no calls between nodes that register procedures (ALPN macula), only tunnels
    #[arg(long)]
    pub(crate) no_router: bool,
    /// Sockets on the port, with a thread for each, so that a busy relay can use as many processors; more than one need
    /// --no-router [default: 1]
    #[arg(long, value_name = "NUMBER", value_parser = values::sockets)]
    pub(crate) sockets: Option<u8>,
    /// Go on looking for datagrams for so long, 0 to 1000, before a thread sleeps: shorter round trips for a busier processor
    /// [default: 0]
    #[arg(long, value_name = "MICROSECONDS", value_parser = values::spin)]
    pub(crate) spin: Option<Duration>,
    /// Tunnels from and to one node at once [default: no limit]
    #[arg(long, value_name = "NUMBER", value_parser = values::count)]
    pub(crate) max_tunnels_per_node: Option<usize>,
    /// Bytes per second of one node over all of its tunnels, such as 10MB or 512KiB [default: no limit]
    #[arg(long, value_name = "BYTES", value_parser = values::rate)]
    pub(crate) max_rate_per_node: Option<u64>,
    /// Clients that may be in their handshake at once [default: 1024]
    #[arg(long, value_name = "NUMBER", value_parser = values::count)]
    pub(crate) max_handshakes: Option<usize>,
    /// How long SIGTERM and Ctrl-C wait for tunnels to end by themselves [default: 5]
    #[arg(long, value_name = "SECONDS", value_parser = values::duration)]
    pub(crate) drain_timeout: Option<Duration>,
}

const CERTIFICATE: &str = "Certificate (a pair of files, or --self-signed)";

/// Who a listener is.
#[derive(Debug, Args, Default)]
pub(crate) struct IdentityArgs {
    /// Certificate chain, leaf first (PEM)
    #[arg(long, help_heading = CERTIFICATE, value_name = "PEM", requires = "key")]
    pub(crate) cert: Option<PathBuf>,
    /// Private key of the certificate (PEM, no passphrase)
    #[arg(long, help_heading = CERTIFICATE, value_name = "PEM", requires = "cert")]
    pub(crate) key: Option<PathBuf>,
    /// Make a certificate at every start and print its pin
    #[arg(long, help_heading = CERTIFICATE, conflicts_with_all = ["cert", "key"])]
    pub(crate) self_signed: bool,
}

/// What happens to a name that is held already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TakeoverArg {
    /// The newer connection gets it and the older one is closed
    Replace,
    /// The older connection keeps it
    Refuse,
}

impl From<TakeoverArg> for Takeover {
    fn from(arg: TakeoverArg) -> Self {
        match arg {
            TakeoverArg::Replace => Self::Replace,
            TakeoverArg::Refuse => Self::Refuse,
        }
    }
}

const EXPOSE_HELP: &str = "\
Examples:
  macula expose --relay relay.example --pin PIN --name web --to localhost:8080
      tunnels to `web` become TCP connections to port 8080
  macula expose --relay one.example --relay two.example --name web --to 192.0.2.7:80
      two relays, the second taking over when the first fails
  macula expose --relay relay.example --name db --to localhost:5432 --allow-from alice
      only alice gets in

Which client holds a name, the relay decides: who must be sure uses a relay with an access file, and --client-cert.";

#[derive(Debug, Args)]
#[command(after_help = EXPOSE_HELP)]
pub(crate) struct ExposeArgs {
    #[command(flatten)]
    pub(crate) node: NodeArgs,
    /// TCP service that tunnels lead to
    #[arg(long, value_name = "HOST:PORT", value_parser = values::tcp_address)]
    pub(crate) to: HostPort,
    /// Take tunnels from this node only; can be repeated [default: from everybody]
    #[arg(long, value_name = "NAME", value_parser = values::name)]
    pub(crate) allow_from: Vec<Name>,
    /// How long connecting to the service may take
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = values::positive_duration)]
    pub(crate) connect_timeout: Duration,
}

const FORWARD_HELP: &str = "\
Examples:
  macula forward --relay relay.example --pin PIN --name me --target web --listen localhost:80
      connections to port 80 here come out at whoever exposes `web`
  macula forward --relay relay.example --ca ca.pem --name me --target db --listen 127.0.0.1:0
      on a free port, which the event `listening` tells";

#[derive(Debug, Args)]
#[command(after_help = FORWARD_HELP)]
pub(crate) struct ForwardArgs {
    #[command(flatten)]
    pub(crate) node: NodeArgs,
    /// Name of the node to reach
    #[arg(long, value_name = "NAME", value_parser = values::name)]
    pub(crate) target: Name,
    /// Local TCP address to listen on
    #[arg(long, value_name = "HOST:PORT", value_parser = values::tcp_address)]
    pub(crate) listen: HostPort,
}

/// What every node needs.
#[derive(Debug, Args)]
pub(crate) struct NodeArgs {
    /// Relay to use; repeated, the next one takes over when one fails
    #[arg(long, value_name = "HOST[:PORT]", required = true, value_parser = values::relay_address)]
    pub(crate) relay: Vec<HostPort>,
    /// Name of this node at the relay
    #[arg(long, value_name = "NAME", value_parser = values::name)]
    pub(crate) name: Name,
    /// Encoding of control messages; auto finds out what the relay speaks
    #[arg(long, value_name = "ENCODING", default_value = "auto")]
    pub(crate) encoding: EncodingArg,
    /// Tunnels at once; more are refused
    #[arg(long, value_name = "NUMBER", default_value = "1024", value_parser = values::count)]
    pub(crate) max_tunnels: usize,
    /// End a tunnel on which nothing moved for this long [default: never]
    #[arg(long, value_name = "SECONDS", value_parser = values::positive_duration)]
    pub(crate) idle: Option<Duration>,
    /// How long SIGTERM and Ctrl-C wait for tunnels to end by themselves
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = values::duration)]
    pub(crate) drain_timeout: Duration,
    #[command(flatten)]
    pub(crate) trust: TrustArgs,
}

const TRUST: &str = "Trust (default: the roots of the operating system)";
const OWN: &str = "Own certificate";

/// Whom a dialler believes, and what it shows of itself.
#[derive(Debug, Args, Default)]
pub(crate) struct TrustArgs {
    /// Believe servers with a certificate signed by a root in this file
    #[arg(long, help_heading = TRUST, value_name = "PEM", conflicts_with_all = ["pin", "insecure"])]
    pub(crate) ca: Option<PathBuf>,
    /// Believe the server whose certificate has this SHA-256 fingerprint (64 hex digits); can be repeated
    #[arg(long, help_heading = TRUST, value_name = "HEX", conflicts_with = "insecure")]
    pub(crate) pin: Vec<Pin>,
    /// Believe every server, so that anybody on the way can read and change everything
    #[arg(long, help_heading = TRUST)]
    pub(crate) insecure: bool,
    /// Certificate to show to servers that ask for one (PEM)
    #[arg(long, help_heading = OWN, value_name = "PEM", requires = "client_key")]
    pub(crate) client_cert: Option<PathBuf>,
    /// Private key of that certificate (PEM)
    #[arg(long, help_heading = OWN, value_name = "PEM", requires = "client_cert")]
    pub(crate) client_key: Option<PathBuf>,
}

/// How control messages are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum EncodingArg {
    /// MessagePack, then CBOR if nothing answers
    Auto,
    /// MessagePack
    Msgpack,
    /// CBOR
    Cbor,
}

impl From<EncodingArg> for EncodingChoice {
    fn from(arg: EncodingArg) -> Self {
        match arg {
            EncodingArg::Auto => Self::Auto,
            EncodingArg::Msgpack => Self::MessagePack,
            EncodingArg::Cbor => Self::Cbor,
        }
    }
}

/// Which relay to talk to on this machine.
#[derive(Debug, Args)]
pub(crate) struct AdminArgs {
    /// Admin socket of the relay [default: where `macula relay` puts it]
    #[arg(long, value_name = "SOCKET")]
    pub(crate) admin: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  macula status\n  macula status --watch\n  macula status --json | jq .names")]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
    /// Show it again and again until Ctrl-C
    #[arg(long)]
    pub(crate) watch: bool,
    /// Time between two looks with --watch
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = values::positive_duration)]
    pub(crate) interval: Duration,
}

const DRAIN_HELP: &str = "\
The relay takes nothing new, tells its clients to go elsewhere, and exits when the last tunnel has ended. After a \
time-out (exit code 3) it goes on draining.

Example:
  macula drain --timeout 10m";

#[derive(Debug, Args)]
#[command(after_help = DRAIN_HELP)]
pub(crate) struct DrainArgs {
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
    /// Wait this long at most [default: for ever]
    #[arg(long, value_name = "SECONDS", value_parser = values::duration)]
    pub(crate) timeout: Option<Duration>,
}

const DEMO_HELP: &str = "\
Starts a relay, a node that exposes an echo service and a node that forwards to it, all on loopback; measures round \
trips, sends random bytes through several tunnels both ways at once, and compares what comes back.

Examples:
  macula demo
  macula demo --size 1GiB --tunnels 32 --seconds 60";

#[derive(Debug, Args)]
#[command(after_help = DEMO_HELP)]
pub(crate) struct DemoArgs {
    /// Bytes to send, over all tunnels, in each direction
    #[arg(long, value_name = "BYTES", default_value = "256MiB", value_parser = values::size)]
    pub(crate) size: u64,
    /// Tunnels at once
    #[arg(long, value_name = "NUMBER", default_value = "8", value_parser = values::count)]
    pub(crate) tunnels: usize,
    /// Send nothing more after this time, even if not all is sent
    #[arg(long, value_name = "SECONDS", default_value = "15", value_parser = values::positive_duration)]
    pub(crate) seconds: Duration,
}

const KEY_HELP: &str = "\
A key file holds the Ed25519 key pair of a node: its public half is the node's id, its secret half never leaves the file.

Examples:
  macula key new node.key
  macula key show node.key
  macula key grind node.key --puzzle 16";

#[derive(Debug, Args)]
#[command(after_help = KEY_HELP)]
pub(crate) struct KeyArgs {
    #[command(subcommand)]
    pub(crate) command: KeyCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a key and store it in a new file, readable by its owner alone
    New(NewKeyArgs),
    /// Show the node id in a key file and how good its puzzle is; never the secret
    Show(ShowKeyArgs),
    /// Search for a key whose node id solves a puzzle, and store it in a new file
    Grind(GrindKeyArgs),
}

#[derive(Debug, Args)]
pub(crate) struct NewKeyArgs {
    #[command(flatten)]
    pub(crate) place: KeyPlaceArgs,
    /// Zero bits that the SHA-256 of the node id begins with [default: any]
    #[arg(long, value_name = "BITS", value_parser = values::puzzle_bits)]
    pub(crate) puzzle: Option<u16>,
}

const GRIND_HELP: &str = "\
The search takes 2^BITS attempts on average, on every processor of this machine. Ctrl-C gives up, and nothing is stored.";

#[derive(Debug, Args)]
#[command(after_help = GRIND_HELP)]
pub(crate) struct GrindKeyArgs {
    #[command(flatten)]
    pub(crate) place: KeyPlaceArgs,
    /// Zero bits that the SHA-256 of the node id begins with
    #[arg(long, value_name = "BITS", default_value_t = puzzle::DEFAULT_DIFFICULTY, value_parser = values::puzzle_bits)]
    pub(crate) puzzle: u16,
}

/// Where a key file is to be.
#[derive(Debug, Args)]
pub(crate) struct KeyPlaceArgs {
    /// The key file to make
    pub(crate) file: PathBuf,
    /// Replace a file that is there already; its key is lost
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ShowKeyArgs {
    /// The key file
    pub(crate) file: PathBuf,
}

const INSPECT_HELP: &str = "\
One JSON object a line: where a frame begins (offset), how many bytes it takes with its header (length), what it says \
(value), and for peering frames whether its signature holds (verify): ok, bad, unsigned, or unknown without a key to check it \
with. CONNECT and HELLO are checked with the node id they name, all others with --key. What cannot be read gives an object \
with `error` (and no length if the end of it is unknown); reading goes on behind it where the next frame is certain to begin, and ends where it is not: behind an absurd \
length, and behind a bad value of a format without lengths.

Formats: peering (32-bit length, deterministic CBOR), rpc (8 bytes of header, MessagePack or CBOR), control (a relay's: 32-bit \
length, MessagePack or CBOR); cbor, det-cbor and msgpack are values one behind the other.

Values: {\"bytes\": HEX}, {\"text\": TEXT}, {\"text_hex\": HEX} for text that is not UTF-8, {\"null\": true}, true, false, \
integers, {\"uint\": \"N\"} and {\"int\": \"-N\"} for those from 2^53 on, {\"float\": N}, [VALUE, …], and \
{\"map\": [[KEY, VALUE], …]} in the order of the bytes.

--encode reads such lines and writes the bytes. It needs `value` alone, and for rpc `type` (a name or a number); `encoding` \
(msgpack or cbor) counts for rpc and control and is msgpack if it is missing. Signatures are written as they stand.

Examples:
  macula inspect --as peering capture.bin
  macula inspect --as control --hex 0000000981a174a569645f6f6b
  macula inspect --as rpc - < capture.bin | jq .type
  macula inspect --as peering capture.bin | macula inspect --as peering --encode - > same.bin

Exit codes: 0 everything was read, 1 something could not be read (all the rest is printed all the same), 2 usage.";

#[derive(Debug, Args)]
#[command(after_help = INSPECT_HELP)]
pub(crate) struct InspectArgs {
    /// What the bytes are
    #[arg(long = "as", value_name = "FORMAT")]
    pub(crate) format: Format,
    /// File to read, - for standard input
    #[arg(default_value = "-", conflicts_with = "hex")]
    pub(crate) file: PathBuf,
    /// Read these bytes instead of a file (hex digits, white space between them)
    #[arg(long, value_name = "HEX")]
    pub(crate) hex: Option<HexBytes>,
    /// Check signatures with this public key (a node id, 64 hex digits); with --as peering
    #[arg(long, value_name = "HEX", conflicts_with = "encode")]
    pub(crate) key: Option<NodeId>,
    /// The reverse: read lines of JSON, write bytes
    #[arg(long, conflicts_with = "hex")]
    pub(crate) encode: bool,
    /// Write hex digits, a line per frame, instead of bytes
    #[arg(long, requires = "encode")]
    pub(crate) hex_out: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  macula completions bash > /etc/bash_completion.d/macula")]
pub(crate) struct CompletionsArgs {
    /// The shell
    pub(crate) shell: Shell,
}
