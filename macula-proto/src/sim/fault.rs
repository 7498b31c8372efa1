//! What can be done to a world, as values: to be scheduled, drawn, or read from a file.

use std::{fmt, time::Duration};

use super::{HostId, Link, Nat};

/// Something that is done to the network or to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// One direction between two hosts behaves like this from now on.
    Link {
        /// The sending host.
        from: HostId,
        /// The receiving host.
        to: HostId,
        /// How it behaves.
        link: Link,
    },
    /// Nothing gets through in one direction. What is on its way still arrives.
    Cut {
        /// The sending host.
        from: HostId,
        /// The receiving host.
        to: HostId,
    },
    /// A direction that was cut is there again.
    Heal {
        /// The sending host.
        from: HostId,
        /// The receiving host.
        to: HostId,
    },
    /// Nothing gets to a host or from it.
    Isolate(HostId),
    /// Everything that was cut, or isolated, is there again.
    HealAll,
    /// A host does nothing for a while: datagrams wait in its socket, as many as fit, and its timers fire late.
    Stall {
        /// The host.
        host: HostId,
        /// For how long.
        time: Duration,
    },
    /// A host is gone with everything it knew. Nobody is told.
    Crash(HostId),
    /// A host that crashed is there again, with a new endpoint that has to be set up anew. One that is up is restarted.
    Restart(HostId),
    /// A host is behind this NAT from now on, or behind none.
    Nat(HostId, Option<Nat>),
    /// The NAT in front of a host forgets its mapping.
    Rebind(HostId),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link { from, to, link } => write!(f, "{from} to {to} is now {link:?}"),
            Self::Cut { from, to } => write!(f, "{from} to {to} is cut"),
            Self::Heal { from, to } => write!(f, "{from} to {to} is there again"),
            Self::Isolate(host) => write!(f, "{host} is cut off"),
            Self::HealAll => f.write_str("everything that was cut is there again"),
            Self::Stall { host, time } => write!(f, "{host} stalls for {time:?}"),
            Self::Crash(host) => write!(f, "{host} crashes"),
            Self::Restart(host) => write!(f, "{host} starts again"),
            Self::Nat(host, Some(nat)) => write!(f, "{host} is behind {nat:?}"),
            Self::Nat(host, None) => write!(f, "{host} is behind no NAT"),
            Self::Rebind(host) => write!(f, "the NAT of {host} forgets its mapping"),
        }
    }
}

/// Why a datagram was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum DropReason {
    /// No host has that address.
    NoRoute,
    /// The direction is cut.
    Cut,
    /// The link lost it.
    Lost,
    /// It is longer than the link takes.
    TooLong,
    /// Too much waited for the bandwidth of the link or of a host's port.
    QueueFull,
    /// The NAT in front of the receiver has no such mapping, or lets the sender not in.
    NotMapped,
    /// The receiver is down, or listens at another port.
    HostDown,
    /// The receiver stalled, and its socket took no more.
    BufferFull,
}

impl DropReason {
    /// Every one of them.
    pub const ALL: [Self; 8] = [
        Self::NoRoute,
        Self::Cut,
        Self::Lost,
        Self::TooLong,
        Self::QueueFull,
        Self::NotMapped,
        Self::HostDown,
        Self::BufferFull,
    ];

    /// A word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoRoute => "no route",
            Self::Cut => "cut",
            Self::Lost => "lost",
            Self::TooLong => "too long",
            Self::QueueFull => "queue full",
            Self::NotMapped => "not mapped",
            Self::HostDown => "host down",
            Self::BufferFull => "buffer full",
        }
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
