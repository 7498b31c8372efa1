//! The command line of `macula beam`.

use std::{collections::BTreeSet, fmt, net::Ipv4Addr, str::FromStr, time::Duration};

use clap::Args;
use macula_proto::tunnel::Name;

use super::super::{
    args::{EncodingArg, NodeArgs, TrustArgs},
    values::{self, HostPort},
};

/// Where nodes look for their EPMD unless they are told otherwise.
const EPMD_PORT: &str = "4369";

const BEAM_HELP: &str = "\
Two hosts that cannot reach each other, a relay that both can reach, and on each host one command before its node starts:
  relay$  macula relay --self-signed               prints a pin: copy it
  left$   macula beam --relay HOST --pin PIN --name a@127.1.0.1 --peer b@127.1.0.2
  left$   erl -name a@127.1.0.1 -setcookie COOKIE -kernel inet_dist_use_interface '{127,1,0,1}'
On the right host the same with a and b the other way round; then, in either node, net_adm:ping of the other one.

This command takes the place of EPMD. The node registers with it as with any EPMD, at 127.0.0.1, and asks for its peers at \
the loopback addresses in their names, where this command answers too and takes their connections. Those go through a tunnel \
to the `macula beam` of the peer, which connects to the port that its own node has registered. Tunnels are taken from \
the peers named here and from nobody else. The cookie stays between the nodes.

Every node has an address of its own in 127.0.0.0/8, the same on all hosts, and not 127.0.0.1. On Linux all of them are there; \
on macOS each is made first: `sudo ifconfig lo0 alias 127.1.0.2`.

At the relay this command goes by the name of its node, as in `a@127.1.0.1`, or by that of --relay-name; its peers then \
write --peer a@127.1.0.1=NAME. Which client holds a name, the relay decides: see its access file, and --client-cert.

Where an EPMD runs already, for other nodes, take another port: --epmd-port 4370 here and ERL_EPMD_PORT=4370 in the environment \
of the node. It may be a different port on each host.";

#[derive(Debug, Args)]
#[command(after_help = BEAM_HELP)]
pub(crate) struct BeamArgs {
    /// Relay to use; repeated, the next one takes over when one fails
    #[arg(long, value_name = "HOST[:PORT]", required = true, value_parser = values::relay_address)]
    pub(crate) relay: Vec<HostPort>,
    /// The local node, such as a@127.1.0.1
    #[arg(long, value_name = "NODE")]
    pub(crate) name: BeamName,
    /// A node elsewhere, and its name at the relay if that is another one; can be repeated
    #[arg(long, value_name = "NODE[=NAME]", required = true)]
    pub(crate) peer: Vec<PeerName>,
    /// Name of this command at the relay [default: that of the local node]
    #[arg(long, value_name = "NAME", value_parser = values::name)]
    pub(crate) relay_name: Option<Name>,
    /// TCP port on which to take the place of EPMD
    #[arg(long, value_name = "PORT", default_value = EPMD_PORT, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) epmd_port: u16,
    /// Encoding of control messages; auto finds out what the relay speaks
    #[arg(long, value_name = "ENCODING", default_value = "auto")]
    pub(crate) encoding: EncodingArg,
    /// Tunnels at once; more are refused
    #[arg(long, value_name = "NUMBER", default_value = "1024", value_parser = values::count)]
    pub(crate) max_tunnels: usize,
    #[command(flatten)]
    pub(crate) trust: TrustArgs,
}

impl BeamArgs {
    /// What cannot be meant, although each argument could.
    pub(super) fn check(&self) -> Result<(), String> {
        let mut hosts = BTreeSet::from([self.name.host]);
        let mut names = BTreeSet::from([self.local_relay_name()]);
        for peer in &self.peer {
            if !hosts.insert(peer.node.host) {
                return Err(format!(
                    "two nodes at {}: every node needs a loopback address of its own",
                    peer.node.host
                ));
            }
            if !names.insert(peer.relay_name.clone()) {
                return Err(format!("two nodes are {} at the relay", peer.relay_name));
            }
        }
        Ok(())
    }

    /// Who may open tunnels to here.
    pub(super) fn relay_names_of_peers(&self) -> Vec<Name> {
        self.peer.iter().map(|peer| peer.relay_name.clone()).collect()
    }

    /// What this needs as any node does.
    pub(super) fn node(&mut self) -> NodeArgs {
        NodeArgs {
            relay: std::mem::take(&mut self.relay),
            name: self.local_relay_name(),
            encoding: self.encoding,
            max_tunnels: self.max_tunnels,
            // Ticks see to it that a dead peer is noticed.
            idle: None,
            // A connection between nodes does not end by itself.
            drain_timeout: Duration::ZERO,
            trust: std::mem::take(&mut self.trust),
        }
    }

    fn local_relay_name(&self) -> Name {
        let own = || Name::from(self.name.to_string().as_str());
        self.relay_name.clone().unwrap_or_else(own)
    }
}

/// The full name of a BEAM node whose host is a loopback address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BeamName {
    /// What stands before the `@`, by which EPMD knows it.
    pub(super) short: String,
    pub(super) host: Ipv4Addr,
}

impl FromStr for BeamName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((short, host)) = text.split_once('@') else {
            return Err(format!("no host in {text:?}; write NAME@127.x.y.z"));
        };
        let ordinary = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        if short.is_empty() || !short.chars().all(ordinary) {
            return Err(format!(
                "{short:?} is not the name of a node (letters, digits, _ and -)"
            ));
        }
        if text.len() > 255 {
            return Err(format!(
                "a node's name has at most 255 bytes, this one has {}",
                text.len()
            ));
        }
        let own =
            |host: &Ipv4Addr| host.is_loopback() && !matches!(host.octets(), [_, 0, 0, 0 | 1] | [_, 255, 255, 255]);
        match host.parse() {
            Ok(host) if own(&host) => Ok(Self {
                short: short.to_owned(),
                host,
            }),
            Ok(Ipv4Addr::LOCALHOST) => Err("every node needs a loopback address of its own, such as 127.1.0.1; \
                 127.0.0.1 is where nodes look for their EPMD"
                .to_owned()),
            _ => Err(format!(
                "{host:?} is not a loopback address: every node needs one of its own in its name, such as {short}@127.1.0.1"
            )),
        }
    }
}

impl fmt::Display for BeamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.short, self.host)
    }
}

/// A node elsewhere, and what the `macula beam` next to it is called at the relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PeerName {
    pub(super) node: BeamName,
    pub(super) relay_name: Name,
}

impl FromStr for PeerName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (node, relay_name) = text.split_once('=').unwrap_or((text, text));
        Ok(Self {
            node: node.parse()?,
            relay_name: values::name(relay_name)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::args::{Cli, Command};

    #[test]
    fn names_of_nodes() {
        for text in ["a@127.1.0.1", "my_node-2@127.255.255.254", "A@127.0.0.2"] {
            let name: BeamName = text.parse().unwrap();
            assert_eq!(name.to_string(), text);
        }
        for (text, why) in [
            ("a", "no host"),
            ("@127.1.0.1", "is not the name of a node"),
            ("a b@127.1.0.1", "is not the name of a node"),
            ("a@b@127.1.0.1", "is not a loopback address"),
            ("a@host", "is not a loopback address"),
            ("a@192.0.2.1", "is not a loopback address"),
            ("a@::1", "is not a loopback address"),
            ("a@127.0.0.0", "is not a loopback address"),
            ("a@127.255.255.255", "is not a loopback address"),
            ("a@127.0.0.1", "127.0.0.1 is where nodes look for their EPMD"),
            (&format!("{}@127.1.0.1", "x".repeat(250)), "at most 255 bytes"),
        ] {
            let error = text.parse::<BeamName>().unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn peers_may_be_called_something_else_at_the_relay() {
        let peer: PeerName = "b@127.1.0.2".parse().unwrap();
        assert_eq!(
            (peer.node.short.as_str(), peer.relay_name.to_string().as_str()),
            ("b", "b@127.1.0.2")
        );
        let peer: PeerName = "b@127.1.0.2=right".parse().unwrap();
        assert_eq!(
            (peer.node.short.as_str(), peer.relay_name.to_string().as_str()),
            ("b", "right")
        );
        assert!("b@127.1.0.2=".parse::<PeerName>().is_err());
    }

    #[test]
    fn no_two_nodes_are_one() {
        let check = |line: &str| {
            let line = format!("macula beam --relay r --name a@127.1.0.1 {line}");
            let Command::Beam(args) = Cli::try_parse_from(line.split(' ')).unwrap().command else {
                unreachable!("the subcommand is beam");
            };
            args.check()
        };
        assert_eq!(check("--peer b@127.1.0.2 --peer a@127.1.0.3"), Ok(()));
        for (line, why) in [
            ("--peer b@127.1.0.1", "two nodes at 127.1.0.1"),
            ("--peer b@127.1.0.2 --peer c@127.1.0.2", "two nodes at 127.1.0.2"),
            (
                "--peer b@127.1.0.2=x --peer c@127.1.0.3=x",
                "two nodes are x at the relay",
            ),
            ("--relay-name x --peer b@127.1.0.2=x", "two nodes are x at the relay"),
        ] {
            let error = check(line).unwrap_err();
            assert!(error.contains(why), "{line}: {error}");
        }
    }
}
