//! The command line of `macula rpc`.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand, ValueEnum};
use macula_proto::{
    identity::NodeId,
    rpc::{EncodingChoice, Kind, Mode},
    tunnel::{Name, client::session},
    wire::Encoding,
};

use super::super::{
    args::{EncodingArg, IdentityArgs, TrustArgs},
    values::{self, HostPort},
};

const RPC_HELP: &str = "\
A call names a procedure, and carries chunks in either or both directions until both ends are done; the serving side may have a \
last word, the reply. `serve` offers procedures, `call` makes a call with standard input and output as its two directions.

Examples:
  alice$  macula rpc serve --self-signed                        prints a pin: copy it
  bob$    macula rpc call alice.example --pin PIN echo
  bob$    macula rpc call alice.example --pin PIN count '{\"n\":5}'

Nodes that cannot reach each other meet at a relay: see --relay and --router of both.";

#[derive(Debug, Args)]
#[command(after_help = RPC_HELP)]
pub(crate) struct RpcArgs {
    #[command(subcommand)]
    pub(crate) command: RpcCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RpcCommand {
    /// Offer procedures: built-in ones, files, commands
    Serve(Box<ServeArgs>),
    /// Call a procedure, with standard input and output as its two directions
    Call(Box<CallArgs>),
}

const SERVE_HELP: &str = "\
Built-in procedures:
  echo    both directions; sends every chunk back
  count   {\"n\": N}; sends the numbers 1 to N
  sum     takes a number in each chunk, as a value or as text; the reply is their sum
  cat     {\"path\": FILE}; sends a file below the directory of --root, in chunks of 64 KiB

Examples:
  macula rpc serve --self-signed
      on port 4433 of every address, signed calls of peers included
  macula rpc serve --cert node.pem --key node.pem --listen 127.0.0.1:0 --root /srv/files
      with a lasting certificate, on a free local port, and with `cat`
  macula rpc serve --self-signed --exec upper='tr a-z A-Z'
      a command of one's own: what callers send is its standard input, what it prints goes to them
  macula rpc serve --relay relay.example --pin PIN --name alice
      to whoever opens a tunnel to `alice` at a relay
  macula rpc serve --router relay.example --pin PIN --prefix acme/demo/alice/tools
      through a relay that routes procedures; callers name `echo` or `acme/demo/alice/tools/echo_v1`

Each command of --exec runs in a shell, once for each call, and is killed with all it started when the call ends. If it fails, so \
does the call. Whoever can connect can call.

SIGTERM and Ctrl-C offer nothing new, wait for the calls that run as long as --drain-timeout says, and exit; a second signal exits \
at once.";

#[derive(Debug, Args)]
#[command(after_help = SERVE_HELP)]
pub(crate) struct ServeArgs {
    /// UDP address to listen on [default, without --relay and --router: [::]:4433, which is IPv4 and IPv6]
    #[arg(long, value_name = "HOST:PORT", value_parser = values::peer_address, conflicts_with_all = ["relay", "router"])]
    pub(crate) listen: Option<HostPort>,
    /// Serve in tunnels that other nodes open to this one at a relay; repeated, the next one takes over when one fails
    #[arg(long, value_name = "HOST[:PORT]", value_parser = values::relay_address, requires = "name", conflicts_with = "router")]
    pub(crate) relay: Vec<HostPort>,
    /// Name of this node at the relay
    #[arg(long, value_name = "NAME", value_parser = values::name, requires = "relay")]
    pub(crate) name: Option<Name>,
    /// Register the procedures with this relay's router, and again whenever the connection was lost
    #[arg(long, value_name = "HOST[:PORT]", value_parser = values::relay_address)]
    pub(crate) router: Option<HostPort>,
    /// Offer every procedure as PREFIX/NAME_v1 too; four segments, as deployed callers need it
    #[arg(long, value_name = "ORG/A/B/C", value_parser = prefix)]
    pub(crate) prefix: Option<String>,
    /// Offer `cat` for the files below this directory; links that lead out of it are refused
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// Offer a command as a procedure of both directions; can be repeated
    #[arg(long, value_name = "NAME=COMMAND", value_parser = exec)]
    pub(crate) exec: Vec<Exec>,
    /// Commands that may run at once; one more is refused
    #[arg(long, value_name = "NUMBER", default_value = "64", value_parser = values::count)]
    pub(crate) max_commands: usize,
    /// Key file of this node, see `macula key`, which signed calls are served with [default: a new key]
    #[arg(long, value_name = "FILE")]
    pub(crate) identity: Option<PathBuf>,
    /// Encoding of what is told to a relay or router; auto finds out what it speaks
    #[arg(long, value_name = "ENCODING", default_value = "auto")]
    pub(crate) encoding: EncodingArg,
    /// Do not tell of each call
    #[arg(long)]
    pub(crate) quiet: bool,
    /// How long SIGTERM and Ctrl-C wait for calls to end by themselves
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = values::duration)]
    pub(crate) drain_timeout: Duration,
    #[command(flatten)]
    pub(crate) certificate: IdentityArgs,
    #[command(flatten)]
    pub(crate) trust: TrustArgs,
}

const CALL_USAGE: &str = "\
macula rpc call [OPTIONS] <HOST[:PORT]> <PROC> [ARGS]
       macula rpc call [OPTIONS] --relay <HOST[:PORT]> --target <NAME> <PROC> [ARGS]
       macula rpc call [OPTIONS] --router <HOST[:PORT]> <PROC> [ARGS]";

const CALL_HELP: &str = "\
Examples:
  macula rpc call alice.example --pin PIN count '{\"n\":5}'
      prints 1 to 5, a line for each
  macula rpc call alice.example --pin PIN cat '{\"path\":\"notes.txt\"}' > notes.txt
      fetches a file
  seq 1 10 | macula rpc call alice.example --pin PIN sum
      sends each line in a chunk of its own, and prints the reply: 55
  macula rpc call alice.example --pin PIN echo < picture.jpg | cmp - picture.jpg
      there and back
  macula rpc call --relay relay.example --pin PIN --target alice upper < notes.txt
      in a tunnel of a relay
  macula rpc call --router relay.example --pin PIN acme/demo/alice/tools/count_v1 '{\"n\":5}'
      to whoever registered the procedure with the relay's router
  macula rpc call alice.example --insecure --carrier signed --expect NODE_ID echo < notes.txt
      in signed frames, with the peer known by its key rather than by a certificate

Modes: in server-stream only chunks come, in client-stream they only go, in bidi both, in unary neither. The built-in procedures \
have their own; others are called in bidi unless told otherwise. Standard input is read in client-stream and bidi alone, up to its \
end.

Chunks of bytes are printed as they are, values as a line of JSON each, in which byte strings are lower-case hex. The reply is printed \
in client-stream and unary, where nothing else comes; --json shows it always.

Carriers: `shared` runs all calls on one stream, as deployed peers do, `per-call` gives each its own, and auto takes the better one \
that the peer knows. `signed` is a peering connection. A tunnel of --relay is one stream.

Exit codes: 0 the call is done, 1 it failed or could not be made, 2 usage, 3 time-out.";

#[derive(Debug, Args)]
#[command(after_help = CALL_HELP, override_usage = CALL_USAGE)]
pub(crate) struct CallArgs {
    /// Whom to dial (port 4433 unless given) unless --relay or --router says it, the procedure, and its arguments as JSON
    /// [default: null]
    #[arg(value_name = "CALL", required = true, num_args = 1..=3)]
    pub(crate) what: Vec<String>,
    /// Open a tunnel at this relay; repeated, the next one takes over when one fails
    #[arg(long, value_name = "HOST[:PORT]", value_parser = values::relay_address, requires = "target", conflicts_with = "router")]
    pub(crate) relay: Vec<HostPort>,
    /// Name of the node at the relay that serves the call
    #[arg(long, value_name = "NAME", value_parser = values::name, requires = "relay")]
    pub(crate) target: Option<Name>,
    /// Name of this node at the relay [default: a random one]
    #[arg(long, value_name = "NAME", value_parser = values::name, requires = "relay")]
    pub(crate) name: Option<Name>,
    /// Call through the router of this relay
    #[arg(long, value_name = "HOST[:PORT]", value_parser = values::relay_address)]
    pub(crate) router: Option<HostPort>,
    /// Who sends chunks [default: that of a built-in procedure of this name, else bidi]
    #[arg(long, value_name = "MODE")]
    pub(crate) mode: Option<ModeArg>,
    /// What the call travels on
    #[arg(long, value_name = "CARRIER", default_value = "auto")]
    pub(crate) carrier: CarrierArg,
    /// Encoding of messages; auto finds out what the peer speaks
    #[arg(long, value_name = "ENCODING", default_value = "auto")]
    pub(crate) encoding: EncodingArg,
    /// How standard input is cut: `lines`, each with its end, `json`, a value from each line, or at most SIZE bytes [default: lines
    /// for sum, else 64KiB]
    #[arg(long, value_name = "lines|json|SIZE", value_parser = chunk)]
    pub(crate) chunk: Option<ChunkArg>,
    /// Give the call up after this time, wherever it is [default: never; 30 s for unary calls]
    #[arg(long, value_name = "SECONDS", value_parser = values::positive_duration)]
    pub(crate) deadline: Option<Duration>,
    /// How long connecting may take
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = values::positive_duration)]
    pub(crate) timeout: Duration,
    /// A peer of which nothing is heard for this long is lost; the smaller value of both ends counts [default: 60, signed 300, at a
    /// relay 120]
    #[arg(long, value_name = "SECONDS", value_parser = values::positive_duration)]
    pub(crate) idle: Option<Duration>,
    /// Key file of this node, see `macula key`, for --carrier signed [default: a new key]
    #[arg(long, value_name = "FILE")]
    pub(crate) identity: Option<PathBuf>,
    /// Call no other peer than the one with this node id, with --carrier signed (64 hex digits)
    #[arg(long, value_name = "NODE_ID")]
    pub(crate) expect: Option<NodeId>,
    #[command(flatten)]
    pub(crate) trust: TrustArgs,
}

/// A command that is a procedure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Exec {
    pub(crate) name: String,
    pub(crate) command: String,
}

fn exec(text: &str) -> Result<Exec, String> {
    match text.split_once('=') {
        Some((name, command)) if !name.is_empty() && !command.trim().is_empty() => Ok(Exec {
            name: name.to_owned(),
            command: command.to_owned(),
        }),
        _ => Err("write NAME=COMMAND, such as upper='tr a-z A-Z'".to_owned()),
    }
}

fn prefix(text: &str) -> Result<String, String> {
    let segments: Vec<&str> = text.split('/').collect();
    match segments.len() == 4 && segments.iter().all(|segment| !segment.is_empty()) {
        true => Ok(text.to_owned()),
        false => Err("a prefix has four segments, such as acme/demo/alice/tools".to_owned()),
    }
}

/// Who sends chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ModeArg {
    /// The one who serves
    ServerStream,
    /// The one who calls
    ClientStream,
    /// Both
    Bidi,
    /// Nobody: arguments there, a reply back
    Unary,
}

impl From<ModeArg> for Kind {
    fn from(arg: ModeArg) -> Self {
        match arg {
            ModeArg::ServerStream => Self::Stream(Mode::ServerStream),
            ModeArg::ClientStream => Self::Stream(Mode::ClientStream),
            ModeArg::Bidi => Self::Stream(Mode::Bidi),
            ModeArg::Unary => Self::Unary,
        }
    }
}

/// What a call travels on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CarrierArg {
    /// A stream per call if the peer can do that, else a shared one
    Auto,
    /// One stream for everything
    Shared,
    /// A stream for each call, or no call
    PerCall,
    /// Signed frames of a peering connection
    Signed,
}

/// How standard input becomes chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChunkArg {
    /// A line, with its end.
    Lines,
    /// A value of each line.
    Json,
    /// At most so many bytes.
    Size(usize),
}

impl ChunkArg {
    /// Bytes of a chunk, unless told otherwise.
    pub(crate) const DEFAULT: Self = Self::Size(64 << 10);
    /// Longest chunk, in bytes.
    pub(crate) const LONGEST: usize = 1 << 20;
}

fn chunk(text: &str) -> Result<ChunkArg, String> {
    match text {
        "lines" => Ok(ChunkArg::Lines),
        "json" => Ok(ChunkArg::Json),
        size => match usize::try_from(values::size(size).map_err(|error| format!("{error}, lines, json"))?) {
            Ok(size @ 1..=ChunkArg::LONGEST) => Ok(ChunkArg::Size(size)),
            _ => Err("a chunk has 1 byte to 1MiB".to_owned()),
        },
    }
}

/// The encoding of RPC messages.
pub(crate) fn rpc_encoding(arg: EncodingArg) -> EncodingChoice {
    match session::EncodingChoice::from(arg) {
        session::EncodingChoice::Auto => EncodingChoice::Auto,
        session::EncodingChoice::MessagePack => EncodingChoice::Only(Encoding::MessagePack),
        session::EncodingChoice::Cbor => EncodingChoice::Only(Encoding::Cbor),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_prefixes_and_commands() {
        for (text, expected) in [
            ("lines", ChunkArg::Lines),
            ("json", ChunkArg::Json),
            ("1", ChunkArg::Size(1)),
            ("64KiB", ChunkArg::DEFAULT),
            ("1MiB", ChunkArg::Size(ChunkArg::LONGEST)),
        ] {
            assert_eq!(chunk(text), Ok(expected), "{text}");
        }
        for text in ["0", "2MiB", "words", ""] {
            assert!(chunk(text).is_err(), "{text}");
        }
        assert!(prefix("a/b/c/d").is_ok());
        for text in ["a/b/c", "a/b/c/d/e", "a//c/d", ""] {
            assert!(prefix(text).is_err(), "{text}");
        }
        let parsed = exec("up=tr a=b").unwrap();
        assert_eq!((&*parsed.name, &*parsed.command), ("up", "tr a=b"));
        for text in ["up", "=x", "up=", "up= "] {
            assert!(exec(text).is_err(), "{text}");
        }
    }
}
