//! The command line of `macula dist`.

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

use clap::{Args, Subcommand, ValueEnum};
use macula_proto::{dist::user::Priority, quic::tls::Pin, wire::etf::Atom};

use super::super::{
    args::{IdentityArgs, TrustArgs},
    outcome::Failure,
    settings::{self, Identity},
    values::{self, HostPort},
};
use crate::dist::discovery::{Entry, is_node_name};

const DIST_HELP: &str = "\
Erlang nodes talk to each other by distribution: messages to processes, links, monitors. Over QUIC, as nodes with erlang_quic \
do, or over TCP, as all others do by themselves. `macula dist node --help` shows how to be one of them.";

#[derive(Debug, Args)]
#[command(after_help = DIST_HELP)]
pub(crate) struct DistArgs {
    #[command(subcommand)]
    pub(crate) command: DistCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DistCommand {
    /// Be a node: answer pings, show the messages that come, carry streams of bytes
    Node(Box<DistNodeArgs>),
}

const NODE_HELP: &str = "\
Examples:
  macula dist node --name a@left.example --listen '[::]:4433' --echo
      lets in nodes with the cookie in ~/.erlang.cookie, and prints a pin for them
  macula dist node --name b@right.example --connect a@left.example=left.example:4433 --pin PIN --send macula=hello
      says hello to the process `macula` over there, which answers, as it echoes
  macula dist node --name c@host --connect a@left.example=left.example:4433 --pin PIN --stream < picture.jpg > same.jpg
      a stream of bytes beside the messages, there and back
  macula dist node --name d@127.0.0.1 --carrier tcp --listen 127.0.0.1:0 --epmd --json
      a node for the Erlang nodes of this machine, from which `{macula, 'd@127.0.0.1'} ! hello` reaches it
  macula dist node --name e@host --connect-srv cluster.example --insecure
      nodes that are listed in DNS, under _erlang-dist._quic.cluster.example

The cookie is what all nodes of a cluster know. The first of these counts: --cookie, --cookie-file, MACULA_COOKIE in the environment, and \
~/.erlang.cookie, where Erlang nodes have it. Other users of this machine can see what stands on a command line: prefer the \
others. Files that anybody but their owner may read are refused.

Messages come to registered processes: `macula`, or those of --register. With --echo they go back to whoever sent them, calls of \
gen_server are answered with the request, and streams get their bytes back. Messages wait in the network until they are shown: who \
reads standard output slowly slows the other nodes down, unless it is --quiet.

Nodes of --connect and --connect-srv are dialled until there is a connection, and again when it is lost, after a pause that grows from \
0.5 to 30 s. With --stream a failure ends the command.

With --stream standard output is what comes back and nothing else (with --json an event for each piece), and the command ends \
with the stream. SIGTERM and Ctrl-C close all connections in good order; a second signal exits at once.

Exit codes: 0 done, 1 failed, 2 usage, 3 time-out.";

const TRUST: &str = "Trust in nodes that are dialled over QUIC (default: the roots of the operating system)";
const COOKIE: &str = "Cookie (default: MACULA_COOKIE, ~/.erlang.cookie)";
const NODES: &str = "Other nodes";

#[derive(Debug, Args)]
#[command(after_help = NODE_HELP)]
pub(crate) struct DistNodeArgs {
    /// Name of this node, such as a@left.example
    #[arg(long, value_name = "NAME@HOST")]
    pub(crate) name: NodeName,
    /// The cookie itself; other users of this machine can see it here
    #[arg(long, help_heading = COOKIE, value_name = "COOKIE", conflicts_with = "cookie_file")]
    pub(crate) cookie: Option<String>,
    /// A file with the cookie, which its owner alone may read
    #[arg(long, help_heading = COOKIE, value_name = "FILE")]
    pub(crate) cookie_file: Option<PathBuf>,
    /// Address to let nodes in at: UDP, or TCP with --carrier tcp; port 4433 unless given
    #[arg(long, value_name = "HOST[:PORT]", value_parser = values::peer_address)]
    pub(crate) listen: Option<HostPort>,
    /// What connections with nodes go over
    #[arg(long, value_name = "CARRIER", default_value = "quic")]
    pub(crate) carrier: CarrierArg,
    #[command(flatten)]
    pub(crate) certificate: IdentityArgs,
    /// Keep a connection with this node, at this address; can be repeated, for one node too
    #[arg(long, help_heading = NODES, value_name = "NAME@HOST=HOST:PORT")]
    pub(crate) connect: Vec<Entry>,
    /// Keep connections with the nodes that SRV records of _erlang-dist._quic.DOMAIN list: x.y.z is the node x@y.z, or, with a name in
    /// front, NAME@x.y.z; can be repeated
    #[arg(long, help_heading = NODES, value_name = "[NAME@]DOMAIN")]
    pub(crate) connect_srv: Vec<SrvArg>,
    /// Name server to ask for them, port 53 unless given [default: those of the operating system]
    #[arg(long, help_heading = NODES, value_name = "HOST[:PORT]", requires = "connect_srv", value_parser = values::dns_address)]
    pub(crate) dns: Option<HostPort>,
    /// Let in this node only, over QUIC; can be repeated [default: all with the cookie]
    #[arg(long, help_heading = NODES, value_name = "NAME@HOST")]
    pub(crate) allow: Vec<NodeName>,
    /// Enter this node in the EPMD at this address, where Erlang nodes look for it; with --carrier tcp
    #[arg(long, help_heading = NODES, value_name = "HOST:PORT", num_args = 0..=1, default_missing_value = "127.0.0.1:4369",
          value_parser = values::tcp_address)]
    pub(crate) epmd: Option<HostPort>,
    /// A process that takes messages, by the name it is registered under; can be repeated [default: macula]
    #[arg(long, value_name = "PROCESS", value_parser = process)]
    pub(crate) register: Vec<String>,
    /// Send everything back to where it came from
    #[arg(long)]
    pub(crate) echo: bool,
    /// Send this text, as a binary, to the process of this name on every node that a connection comes up with; can be repeated
    #[arg(long, value_name = "PROCESS=TEXT")]
    pub(crate) send: Vec<Greeting>,
    /// Open a stream to this node, or to the first there is a connection with; standard input goes there, standard output is what
    /// comes back
    #[arg(long, value_name = "NAME@HOST", num_args = 0..=1, default_missing_value = StreamTo::ANY)]
    pub(crate) stream: Option<StreamTo>,
    /// Priority of the stream, from 16 (most urgent) to 255
    #[arg(long, value_name = "NUMBER", default_value_t = 128, requires = "stream", value_parser = clap::value_parser!(u8).range(16..))]
    pub(crate) priority: u8,
    /// A node of which nothing is heard for this long is lost; about the same on all nodes
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = values::positive_duration)]
    pub(crate) net_ticktime: Duration,
    /// How long a dial with its handshake may take
    #[arg(long, value_name = "SECONDS", default_value = "7", value_parser = values::positive_duration)]
    pub(crate) timeout: Duration,
    /// Serve figures for Prometheus at http://HOST:PORT/metrics
    #[arg(long, value_name = "HOST:PORT", value_parser = values::tcp_address)]
    pub(crate) metrics: Option<HostPort>,
    /// Do not tell of messages, nor of bytes on streams
    #[arg(long)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) trust: DistTrustArgs,
}

/// Whom a node believes that it dials.
#[derive(Debug, Args, Default)]
pub(crate) struct DistTrustArgs {
    /// Believe nodes with a certificate for the host in their name, signed by a root in this file
    #[arg(long, help_heading = TRUST, value_name = "PEM", conflicts_with_all = ["pin", "insecure"])]
    pub(crate) ca: Option<PathBuf>,
    /// Believe nodes whose certificate has this SHA-256 fingerprint (64 hex digits); can be repeated
    #[arg(long, help_heading = TRUST, value_name = "HEX", conflicts_with = "insecure")]
    pub(crate) pin: Vec<Pin>,
    /// Believe every node that knows the cookie, although somebody on the way may read and change everything
    #[arg(long, help_heading = TRUST)]
    pub(crate) insecure: bool,
}

impl DistNodeArgs {
    /// What cannot be meant, although each argument could.
    pub(super) fn check(&self) -> Result<(), Failure> {
        let usage = |message: &str| Err(Failure::Usage(message.to_owned()));
        if self.listen.is_none() && self.connect.is_empty() && self.connect_srv.is_empty() {
            return usage("a node alone: --listen lets others in, --connect and --connect-srv reach them");
        }
        let tcp = self.carrier == CarrierArg::Tcp;
        if tcp && self.stream.is_some() {
            return usage("streams need QUIC: --carrier tcp has messages alone");
        }
        if tcp && (!self.trust.pin.is_empty() || self.trust.ca.is_some() || self.shows_certificate()) {
            return usage(
                "over TCP nothing is encrypted, and there are no certificates: --ca, --pin, --cert and --self-signed are for QUIC",
            );
        }
        if tcp && !self.allow.is_empty() {
            return usage("--allow is for QUIC: over TCP the cookie alone lets nodes in");
        }
        if self.epmd.is_some() && !(tcp && self.listen.is_some()) {
            return usage(
                "EPMD is asked for the ports of nodes that listen over TCP: --epmd needs --carrier tcp and --listen",
            );
        }
        if self.listen.is_none() && (self.shows_certificate() || !self.allow.is_empty()) {
            return usage("--cert, --self-signed and --allow are for nodes that let others in: --listen");
        }
        match self.connect.iter().find(|entry| entry.node == self.name.0) {
            Some(entry) => Err(Failure::Usage(format!("{} is this node itself", entry.node))),
            None => Ok(()),
        }
    }

    fn shows_certificate(&self) -> bool {
        self.certificate.cert.is_some() || self.certificate.self_signed
    }

    /// What a listener shows: unless it is told, a certificate of this run.
    pub(super) fn identity(&self) -> Identity {
        settings::identity_of(&self.certificate).unwrap_or(Identity::SelfSigned)
    }

    pub(super) fn trust_args(&self) -> TrustArgs {
        TrustArgs {
            ca: self.trust.ca.clone(),
            pin: self.trust.pin.clone(),
            insecure: self.trust.insecure,
            ..TrustArgs::default()
        }
    }

    pub(super) fn processes(&self) -> Vec<String> {
        match self.register.is_empty() {
            true => vec!["macula".to_owned()],
            false => self.register.clone(),
        }
    }

    pub(super) fn stream_priority(&self) -> Priority {
        Priority::clamped(self.priority.into())
    }
}

/// What connections go over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CarrierArg {
    /// QUIC, as nodes with erlang_quic speak it
    Quic,
    /// TCP, as Erlang nodes speak it by themselves; not encrypted
    Tcp,
}

impl fmt::Display for CarrierArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Quic => "quic",
            Self::Tcp => "tcp",
        })
    }
}

/// The name of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeName(pub(super) String);

impl FromStr for NodeName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match is_node_name(text) {
            true => Ok(Self(text.to_owned())),
            false => Err(format!("{text:?} is not the name of a node; write NAME@HOST")),
        }
    }
}

/// Where a stream goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StreamTo {
    /// To the first node there is a connection with.
    Any,
    Node(String),
}

impl StreamTo {
    const ANY: &str = "*";
}

impl FromStr for StreamTo {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            Self::ANY => Ok(Self::Any),
            _ => text.parse().map(|NodeName(node)| Self::Node(node)),
        }
    }
}

/// A domain with nodes, and what they are called if not by their hosts alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SrvArg {
    pub(super) prefix: Option<String>,
    pub(super) domain: String,
}

impl FromStr for SrvArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (prefix, domain) = match text.split_once('@') {
            Some((prefix, domain)) => (Some(prefix.to_owned()), domain),
            None => (None, text),
        };
        // Whatever more is wrong with it, the resolver finds.
        let named = prefix
            .as_ref()
            .is_none_or(|prefix| is_node_name(&format!("{prefix}@{domain}")));
        let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, ':' | '/' | '=' | '@');
        if !named || domain.is_empty() || domain.contains(odd) {
            return Err(format!("{text:?} is not a domain; write DOMAIN, or NAME@DOMAIN"));
        }
        Ok(Self {
            prefix,
            domain: domain.to_owned(),
        })
    }
}

/// What a node is told when it comes up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Greeting {
    pub(super) process: String,
    pub(super) text: String,
}

impl FromStr for Greeting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, text) = text
            .split_once('=')
            .ok_or_else(|| format!("no `=` in {text:?}; write PROCESS=TEXT"))?;
        Ok(Self {
            process: process(name)?,
            text: text.to_owned(),
        })
    }
}

/// The name of a process.
fn process(text: &str) -> Result<String, String> {
    match Atom::new(text) {
        Ok(_) if text.is_empty() || text == "undefined" => Err(format!("no process can be called {text:?}")),
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::args::{Cli, Command};

    fn node(line: &str) -> DistNodeArgs {
        let line = format!("macula dist node --name a@h {line}");
        let Command::Dist(args) = Cli::try_parse_from(line.split_whitespace()).unwrap().command else {
            unreachable!("the subcommand is dist");
        };
        let DistCommand::Node(args) = args.command;
        *args
    }

    #[test]
    fn what_can_be_left_out() {
        let args = node("--listen 127.0.0.1 --stream --epmd --carrier tcp");
        assert_eq!(args.listen.as_ref().map(|at| at.port), Some(4433));
        assert_eq!(args.stream, Some(StreamTo::Any));
        assert_eq!(args.epmd, Some(HostPort::new("127.0.0.1", 4369)));
        assert_eq!(args.processes(), ["macula"]);
        let args = node("--stream b@h --epmd h:1 --register x --register y --connect-srv d --dns h");
        assert_eq!(args.stream, Some(StreamTo::Node("b@h".to_owned())));
        assert_eq!(args.epmd, Some(HostPort::new("h", 1)));
        assert_eq!(args.dns, Some(HostPort::new("h", 53)));
        assert_eq!(args.processes(), ["x", "y"]);
    }

    #[test]
    fn domains_and_greetings() {
        let srv = |text: &str| text.parse::<SrvArg>().map(|arg| (arg.prefix, arg.domain));
        assert_eq!(srv("d.example"), Ok((None, "d.example".to_owned())));
        assert_eq!(srv("w@d.example"), Ok((Some("w".to_owned()), "d.example".to_owned())));
        for text in ["", "@d", "w@", "a b", "d:1", "a@b@c"] {
            assert!(srv(text).is_err(), "{text}");
        }
        let greeting: Greeting = "macula=a=b".parse().unwrap();
        assert_eq!((&*greeting.process, &*greeting.text), ("macula", "a=b"));
        for text in ["hello", "=x", "undefined=x", &format!("{}=x", "y".repeat(256))] {
            assert!(text.parse::<Greeting>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_goes_together() {
        for line in [
            "--listen h",
            "--connect b@h=h:1 --insecure --stream",
            "--connect-srv d --carrier tcp",
            "--listen h:1 --carrier tcp --epmd --insecure",
            "--listen h --self-signed --allow b@h",
        ] {
            assert_eq!(node(line).check(), Ok(()), "{line}");
        }
        for (line, why) in [
            ("--echo", "a node alone"),
            ("--listen h --carrier tcp --stream", "streams need QUIC"),
            ("--listen h --carrier tcp --self-signed", "nothing is encrypted"),
            ("--listen h --carrier tcp --allow b@h", "--allow is for QUIC"),
            ("--listen h --epmd", "--epmd needs --carrier tcp"),
            (
                "--connect b@h=h:1 --carrier tcp --epmd",
                "--epmd needs --carrier tcp and --listen",
            ),
            ("--connect b@h=h:1 --self-signed", "are for nodes that let others in"),
            ("--connect a@h=h:1", "a@h is this node itself"),
        ] {
            let failure = node(line).check().unwrap_err();
            assert!(failure.to_string().contains(why), "{line}: {failure}");
        }
    }
}
