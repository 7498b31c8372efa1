//! The cases, and how the processes of each are started.

use std::{net::SocketAddr, time::Duration};

use macula_bench::{Result, our_setup, party::Party};
use macula_tokio::DatagramSize;
use serde_json::{Value, json};

/// Which tokio runtime every party of a case runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flavour {
    Multi,
    Current,
}

/// What sender and receiver are made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ends {
    Quinn,
    Ours,
    Tcp,
    /// quinn-proto by hand.
    Bare,
}

/// What is between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Path {
    Direct,
    /// Our relay.
    Macula,
    /// A relay written on quinn.
    Quinn,
    /// A forwarder of TCP connections.
    Tcp,
    /// A relay on quinn-proto by hand.
    Bare,
}

/// Settings of our endpoints.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tuning {
    pub(crate) size: DatagramSize,
    pub(crate) spin: Duration,
    /// Of the relay.
    pub(crate) relay_spin: Duration,
    /// Of the relay, each with a thread of its own if there are several.
    pub(crate) sockets: u8,
}

#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) flavour: Flavour,
    pub(crate) ends: Ends,
    pub(crate) path: Path,
    pub(crate) tuning: Tuning,
    /// Connections of the sender, which its streams are spread over.
    pub(crate) nodes: usize,
}

const fn case(name: &'static str, flavour: Flavour, ends: Ends, path: Path) -> Case {
    Case {
        name,
        flavour,
        ends,
        path,
        tuning: Tuning {
            size: DatagramSize::UpTo(1452),
            spin: Duration::ZERO,
            relay_spin: Duration::ZERO,
            sockets: 1,
        },
        nodes: 1,
    }
}

const fn nodes(mut case: Case, nodes: usize) -> Case {
    case.nodes = nodes;
    case
}

const fn up_to(mut case: Case, size: u16) -> Case {
    case.tuning.size = DatagramSize::UpTo(size);
    case
}

const SPIN: Duration = Duration::from_micros(50);

const fn spinning(mut case: Case) -> Case {
    case.tuning.spin = SPIN;
    relay_spinning(case)
}

const fn relay_spinning(mut case: Case) -> Case {
    case.tuning.relay_spin = SPIN;
    case
}

const fn sockets(mut case: Case, sockets: u8) -> Case {
    case.tuning.sockets = sockets;
    case
}

/// What the others are compared with.
pub(crate) const QUINN_MT: &str = "quinn direct, MT";
pub(crate) const QUINN_CT: &str = "quinn direct, CT";
pub(crate) const QUINN_RELAY_MT: &str = "quinn, quinn relay, MT";
pub(crate) const QUINN_RELAY_CT: &str = "quinn, quinn relay, CT";

use Flavour::{Current, Multi};

pub(crate) const ONE: [Case; 24] = [
    case(QUINN_MT, Multi, Ends::Quinn, Path::Direct),
    case("ours direct, MT", Multi, Ends::Ours, Path::Direct),
    case(QUINN_CT, Current, Ends::Quinn, Path::Direct),
    case("ours direct, CT", Current, Ends::Ours, Path::Direct),
    case("bare quinn-proto direct", Current, Ends::Bare, Path::Direct),
    case("ours, our relay, MT", Multi, Ends::Ours, Path::Macula),
    case("quinn, our relay, MT", Multi, Ends::Quinn, Path::Macula),
    case(QUINN_RELAY_MT, Multi, Ends::Quinn, Path::Quinn),
    case("TCP forwarder, MT", Multi, Ends::Tcp, Path::Tcp),
    case("ours, our relay, CT", Current, Ends::Ours, Path::Macula),
    case("quinn, our relay, CT", Current, Ends::Quinn, Path::Macula),
    case(QUINN_RELAY_CT, Current, Ends::Quinn, Path::Quinn),
    case("TCP forwarder, CT", Current, Ends::Tcp, Path::Tcp),
    case("bare quinn-proto, bare relay", Current, Ends::Bare, Path::Bare),
    relay_spinning(case("ours, our relay spinning, CT", Current, Ends::Ours, Path::Macula)),
    sockets(
        case("ours, our relay of 2 sockets, CT", Current, Ends::Ours, Path::Macula),
        2,
    ),
    up_to(
        case("bare quinn-proto direct, 9000", Current, Ends::Bare, Path::Direct),
        9000,
    ),
    up_to(case("ours direct, MT, 9000", Multi, Ends::Ours, Path::Direct), 9000),
    up_to(case("ours direct, CT, 9000", Current, Ends::Ours, Path::Direct), 9000),
    up_to(case("ours direct, MT, 65000", Multi, Ends::Ours, Path::Direct), 65_000),
    up_to(
        case("ours direct, CT, 65000", Current, Ends::Ours, Path::Direct),
        65_000,
    ),
    up_to(
        case("ours, our relay, CT, 65000", Current, Ends::Ours, Path::Macula),
        65_000,
    ),
    spinning(case("ours direct, CT, spinning", Current, Ends::Ours, Path::Direct)),
    spinning(case("ours, our relay, CT, spinning", Current, Ends::Ours, Path::Macula)),
];

pub(crate) const MANY: [Case; 9] = [
    case("1 node, our relay, MT", Multi, Ends::Ours, Path::Macula),
    case("1 node, our relay, CT", Current, Ends::Ours, Path::Macula),
    case("1 node, quinn relay, MT", Multi, Ends::Quinn, Path::Quinn),
    case("1 node, quinn relay, CT", Current, Ends::Quinn, Path::Quinn),
    nodes(case("100 nodes, our relay, CT", Current, Ends::Ours, Path::Macula), 100),
    nodes(
        sockets(
            case(
                "100 nodes, our relay of 2 sockets, CT",
                Current,
                Ends::Ours,
                Path::Macula,
            ),
            2,
        ),
        100,
    ),
    nodes(
        case("100 nodes, quinn relay, CT", Current, Ends::Quinn, Path::Quinn),
        100,
    ),
    case("TCP forwarder, MT", Multi, Ends::Tcp, Path::Tcp),
    case("TCP forwarder, CT", Current, Ends::Tcp, Path::Tcp),
];

pub(crate) fn named(name: &str) -> Result<&'static Case> {
    static ALL: [&[Case]; 2] = [&ONE, &MANY];
    let mut all = ALL.into_iter().flatten();
    Ok(all.find(|case| case.name == name).ok_or("an unknown case")?)
}

/// A case whose processes run.
#[derive(Debug)]
pub(crate) struct Scene {
    // Who would complain about the end of the others ends first.
    pub(crate) receiver: Party,
    pub(crate) sender: Party,
    pub(crate) relay: Option<Party>,
}

impl Scene {
    pub(crate) fn start(case: &Case) -> Result<Self> {
        Self::try_start(case).map_err(|error| format!("{}: {error}", case.name).into())
    }

    fn try_start(case: &Case) -> Result<Self> {
        let pem = our_setup::credentials()?.to_pem();
        let start = |role: &str, to: Option<SocketAddr>| -> Result<(Party, Value)> {
            let mut party = Party::start(&[role, case.name])?;
            let ready = party.ask(&json!({ "credentials": pem, "to": to.map(|to| to.to_string()) }))?;
            Ok((party, ready))
        };
        let address = |ready: &Value| -> Result<Option<SocketAddr>> {
            let address = ready["address"].as_str().map(str::parse).transpose();
            Ok(address?)
        };
        // A forwarder of TCP has to know where to; a relay is who the others have to know.
        let (relay, receiver, to) = if case.path == Path::Tcp {
            let (receiver, ready) = start("receive", None)?;
            let (relay, ready) = start("relay", address(&ready)?)?;
            (Some(relay), receiver, address(&ready)?)
        } else if case.path == Path::Direct {
            let (receiver, ready) = start("receive", None)?;
            (None, receiver, address(&ready)?)
        } else {
            let (relay, ready) = start("relay", None)?;
            let to = address(&ready)?;
            let (receiver, _) = start("receive", to)?;
            (Some(relay), receiver, to)
        };
        let (sender, _) = start("send", to)?;
        Ok(Self {
            relay,
            receiver,
            sender,
        })
    }
}

impl Scene {
    /// Processor time so far: of all, and of the relay.
    pub(crate) fn cpu(&self) -> (Duration, Option<Duration>) {
        let relay = self.relay.as_ref().map(Party::cpu);
        let all = self.sender.cpu() + self.receiver.cpu() + relay.unwrap_or_default();
        (all, relay)
    }
}
