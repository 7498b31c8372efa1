//! Address translation in front of a host.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use super::{
    HostId,
    clock::{Nanos, nanos},
};

/// A NAT in front of a host: others see an address of the NAT, and can only answer.
///
/// The mapping does not depend on whom the host talks to (RFC 4787, "endpoint-independent"). It is made when the host sends
/// something, and every new one has another port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nat {
    /// A mapping is forgotten when the host has sent nothing for this long. Default 60 s; many home routers take 30 s.
    pub timeout: Option<Duration>,
    /// A mapping is replaced after this long whatever is sent, as some mobile networks do every minute. Default never.
    pub rebind_every: Option<Duration>,
    /// From whom datagrams are let in. Default [`NatFilter::Address`].
    pub filter: NatFilter,
}

/// Who may send to a host behind a NAT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum NatFilter {
    /// Everybody who knows the address.
    Open,
    /// Hosts that something was sent to, from any of their ports.
    #[default]
    Address,
    /// Addresses and ports that something was sent to.
    AddressAndPort,
}

impl Default for Nat {
    fn default() -> Self {
        Self {
            timeout: Some(Duration::from_secs(60)),
            rebind_every: None,
            filter: NatFilter::default(),
        }
    }
}

#[derive(Debug)]
pub(super) struct NatState {
    pub(super) nat: Nat,
    pub(super) ip: IpAddr,
    next_port: u16,
    mapping: Option<Mapping>,
}

#[derive(Debug)]
struct Mapping {
    port: u16,
    since: Nanos,
    last_sent: Nanos,
    sent_to: BTreeSet<SocketAddr>,
}

/// Ports below are left out.
const FIRST_PORT: u16 = 20_000;

impl NatState {
    pub(super) fn new(host: HostId, nat: Nat) -> Self {
        let [_, a, b, c] = host.0.wrapping_add(1).to_be_bytes();
        // Of the network for measurements (RFC 2544), and the next ones.
        let ip = Ipv4Addr::new(198, 18_u8.wrapping_add(a), b, c);
        Self {
            nat,
            ip: ip.into(),
            next_port: FIRST_PORT,
            mapping: None,
        }
    }

    /// The address that others see when the host sends now, and whether it is a new one.
    pub(super) fn outbound(&mut self, now: Nanos, to: SocketAddr) -> (SocketAddr, bool) {
        let live = self.live(now);
        if !live {
            self.mapping = Some(Mapping {
                port: self.next_port,
                since: now,
                last_sent: now,
                sent_to: BTreeSet::new(),
            });
            self.next_port = self.next_port.checked_add(1).unwrap_or(FIRST_PORT);
        }
        let port = self.mapping.as_mut().map_or(FIRST_PORT, |mapping| {
            mapping.last_sent = now;
            mapping.sent_to.insert(to);
            mapping.port
        });
        (SocketAddr::new(self.ip, port), !live)
    }

    /// Whether a datagram from `from` to this port of the NAT reaches the host.
    pub(super) fn lets_in(&self, now: Nanos, from: SocketAddr, port: u16) -> bool {
        let Some(mapping) = self.mapping.as_ref().filter(|_| self.live(now)) else {
            return false;
        };
        let known = match self.nat.filter {
            NatFilter::Open => true,
            NatFilter::Address => mapping.sent_to.iter().any(|to| to.ip() == from.ip()),
            NatFilter::AddressAndPort => mapping.sent_to.contains(&from),
        };
        mapping.port == port && known
    }

    /// Forgets the mapping.
    pub(super) fn rebind(&mut self) {
        self.mapping = None;
    }

    /// The address that others see now.
    pub(super) fn address(&self, now: Nanos) -> Option<SocketAddr> {
        let mapping = self.mapping.as_ref().filter(|_| self.live(now))?;
        Some(SocketAddr::new(self.ip, mapping.port))
    }

    fn live(&self, now: Nanos) -> bool {
        self.mapping.as_ref().is_some_and(|mapping| {
            let silent = self
                .nat
                .timeout
                .is_some_and(|time| now - mapping.last_sent >= nanos(time));
            let old = self
                .nat
                .rebind_every
                .is_some_and(|time| now - mapping.since >= nanos(time));
            !silent && !old
        })
    }
}
