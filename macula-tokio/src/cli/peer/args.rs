//! The command line of `macula peer`.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand, ValueEnum};
use macula_proto::{
    identity::NodeId,
    peering::{BindingMode, Duplicates},
};

use super::super::{
    args::{IdentityArgs, TrustArgs},
    values::{self, HostPort},
};

const PEER_HELP: &str = "\
A peering connection carries signed frames between two nodes that know each other by their node ids, which are public keys. \
`listen` takes such connections, `connect` makes one, sends frames, and takes its leave.

Examples:
  alice$  macula key new alice.key
  alice$  macula peer listen --self-signed --identity alice.key --echo     prints her node id and a pin: copy both
  bob$    macula peer connect alice.example --pin PIN --expect NODE_ID --count 10

Without --identity a node has a new key each time.";

#[derive(Debug, Args)]
#[command(after_help = PEER_HELP)]
pub(crate) struct PeerArgs {
    #[command(subcommand)]
    pub(crate) command: PeerCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PeerCommand {
    /// Take peers, and show the frames they send
    Listen(Box<ListenArgs>),
    /// Dial a peer, send frames, show what comes back, say goodbye
    Connect(Box<ConnectArgs>),
}

const LISTEN_HELP: &str = "\
Examples:
  macula peer listen --self-signed --echo
      on port 4433 of every address; every frame that comes is sent back
  macula peer listen --cert node.pem --key node.pem --identity node.key --listen 127.0.0.1:0 --allow NODE_ID
      with a lasting certificate and identity, on a free local port, for one peer alone
  macula peer listen --self-signed --duplicates keep --binding require --json
      who is in cannot be pushed out, and CONNECTs that were overheard elsewhere are worthless

A frame that the peer signed is echoed with the same frame id under the signature of this node; any other goes back as it came. \
Whoever speaks RPC, on the same ALPN, is refused.

Frames wait in the network until their events are written: who reads standard output slowly slows the peers down. --quiet tells \
of frames by number alone, when a connection is over. SIGTERM and Ctrl-C say GOODBYE to everybody and wait 5 s for them to leave; \
a second signal exits at once.";

#[derive(Debug, Args)]
#[command(after_help = LISTEN_HELP)]
pub(crate) struct ListenArgs {
    /// UDP address to listen on [default: [::]:4433, which is IPv4 and IPv6]
    #[arg(long, value_name = "HOST:PORT", value_parser = values::peer_address)]
    pub(crate) listen: Option<HostPort>,
    #[command(flatten)]
    pub(crate) certificate: IdentityArgs,
    #[command(flatten)]
    pub(crate) node: PeerNodeArgs,
    /// Send every frame back
    #[arg(long)]
    pub(crate) echo: bool,
    /// What happens when an identity that is connected comes again
    #[arg(long, value_name = "POLICY", default_value = "replace")]
    pub(crate) duplicates: DuplicatesArg,
    /// Let in this peer only; can be repeated [default: everybody]
    #[arg(long, value_name = "NODE_ID")]
    pub(crate) allow: Vec<NodeId>,
    /// Peers at once; more are refused [default: 65536]
    #[arg(long, value_name = "NUMBER", value_parser = values::count)]
    pub(crate) max_peers: Option<usize>,
    /// Connections that may be in their handshake at once; one more displaces the oldest [default: 1024]
    #[arg(long, value_name = "NUMBER", value_parser = values::count)]
    pub(crate) max_handshakes: Option<usize>,
}

const CONNECT_HELP: &str = "\
Examples:
  macula peer connect alice.example --pin PIN
      one test frame to port 4433
  macula peer connect alice.example --pin PIN --expect NODE_ID --count 100000 --quiet
      many, to nobody but the node with this id, and only their number is told
  printf 'one\\ntwo\\n' | macula peer connect alice.example --ca ca.pem --identity bob.key --send -
      a frame for each line
  macula peer connect [::1]:4433 --insecure --expect NODE_ID --binding require
      whoever shows whatever certificate: the peer proves with its key that this very connection is its own

The frames are of type `publish`, topic `macula/test`, realm 0, `seq` from 0 on, each payload a byte string. With an echoing \
peer all of them come back, and the command is done as soon as they have; otherwise when nothing has come for the time of \
--wait. Then it says GOODBYE, waits up to 5 s for the peer to leave, and exits.

Exit codes: 0 all was sent and the connection ended with a GOODBYE, 1 it was refused or lost, 2 usage, 3 time-out of the dial or \
the handshake.";

#[derive(Debug, Args)]
#[command(after_help = CONNECT_HELP)]
pub(crate) struct ConnectArgs {
    /// The peer to dial; port 4433 unless given
    #[arg(value_name = "HOST[:PORT]", value_parser = values::peer_address)]
    pub(crate) peer: HostPort,
    #[command(flatten)]
    pub(crate) node: PeerNodeArgs,
    /// Take no other peer than the one with this node id (64 hex digits)
    #[arg(long, value_name = "NODE_ID")]
    pub(crate) expect: Option<NodeId>,
    /// Send the lines of this file, without their ends, one in each frame; - for standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) send: Option<PathBuf>,
    /// Frames to send; of a file, at most [default: 1, or all lines of the file]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) count: Option<u64>,
    /// Leave when all is sent and nothing has come for this long
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = values::duration)]
    pub(crate) wait: Duration,
    #[command(flatten)]
    pub(crate) trust: TrustArgs,
}

/// What both ends have.
#[derive(Debug, Args)]
pub(crate) struct PeerNodeArgs {
    /// Key file of this node, see `macula key` [default: a new key]
    #[arg(long, value_name = "FILE")]
    pub(crate) identity: Option<PathBuf>,
    /// Proof that a handshake was made for this connection and is not replayed
    #[arg(long, value_name = "MODE", default_value = "optional")]
    pub(crate) binding: BindingArg,
    /// Take only peers whose clock is at most this far from ours [default: any]
    #[arg(long, value_name = "SECONDS", value_parser = values::positive_duration)]
    pub(crate) max_skew: Option<Duration>,
    /// Take only peers whose node id solves a puzzle of this difficulty, see `macula key grind` [default: any]
    #[arg(long, value_name = "BITS", value_parser = values::puzzle_bits)]
    pub(crate) puzzle: Option<u16>,
    /// How long the dial may take, and then the handshake
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = values::positive_duration)]
    pub(crate) timeout: Duration,
    /// A peer of which nothing is heard for this long is lost; the smaller value of both ends counts
    #[arg(long, value_name = "SECONDS", default_value = "300", value_parser = values::positive_duration)]
    pub(crate) idle: Duration,
    /// Tell of frames by number alone, when the connection is over
    #[arg(long)]
    pub(crate) quiet: bool,
}

/// What happens when an identity that is connected comes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DuplicatesArg {
    /// The newer connection stays and the older one is closed
    Replace,
    /// The older connection stays and the newer one is refused
    Keep,
    /// Both stay
    Both,
}

impl From<DuplicatesArg> for Duplicates {
    fn from(arg: DuplicatesArg) -> Self {
        match arg {
            DuplicatesArg::Replace => Self::ReplaceOlder,
            DuplicatesArg::Keep => Self::KeepOlder,
            DuplicatesArg::Both => Self::KeepBoth,
        }
    }
}

/// What to do about binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BindingArg {
    /// Neither send nor check it
    Off,
    /// Send it, check it when the peer sends it, and take peers without
    #[value(alias = "send")]
    Optional,
    /// Send it, and take no peer without
    Require,
}

impl From<BindingArg> for BindingMode {
    fn from(arg: BindingArg) -> Self {
        match arg {
            BindingArg::Off => Self::Off,
            BindingArg::Optional => Self::Send,
            BindingArg::Require => Self::Require,
        }
    }
}
