//! Hosts: an endpoint each, and the machine it runs on.

use std::{
    collections::VecDeque,
    fmt,
    net::{Ipv4Addr, SocketAddr},
};

use bytes::BytesMut;

use super::{Nat, clock::Nanos, link::DEFAULT_QUEUE, link::Wire, nat::NatState};
use crate::{Endpoint, Limits, quic::EndpointConfig};

/// The port of a host that is given no address.
pub const DEFAULT_PORT: u16 = 4434;

/// Names a host of a world; counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub(super) u32);

impl HostId {
    /// The host of this number, in any world that has so many: for plans that are made before their world.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn get(self) -> u32 {
        self.0
    }

    pub(super) fn index(self) -> usize {
        self.0 as usize
    }

    /// The address it has if it is given none.
    pub(super) fn address(self) -> SocketAddr {
        let [_, a, b, c] = self.0.wrapping_add(1).to_be_bytes();
        SocketAddr::from((Ipv4Addr::new(10, a, b, c), DEFAULT_PORT))
    }
}

impl fmt::Display for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "h{}", self.0)
    }
}

/// What a host is made with.
#[derive(Debug, Clone)]
pub struct HostConfig {
    /// Settings of its endpoint. One without a reset key gets another key with every start, so that peers notice a restart only
    /// when their connections time out.
    pub endpoint: EndpointConfig,
    /// Caps of its endpoint.
    pub limits: Limits,
    /// Its address; each host needs an IP address of its own. Default 10.0.0.1 for the first host, 10.0.0.2 for the second and
    /// so on, port 4434.
    pub address: Option<SocketAddr>,
    /// What it is called in traces. Default `h0`, `h1` and so on.
    pub name: Option<String>,
    /// Its port to the network, which all that it sends and receives goes through.
    pub port: Port,
    /// The NAT in front of it. Default none.
    pub nat: Option<Nat>,
    /// Bytes that its socket holds while it stalls; what comes beyond is dropped. Default 1 MiB.
    pub receive_buffer: usize,
    /// Milliseconds that its wall clock is ahead of the true time. Default 0.
    pub clock_offset_ms: i64,
}

impl Default for HostConfig {
    fn default() -> Self {
        Self {
            endpoint: EndpointConfig::default(),
            limits: Limits::default(),
            address: None,
            name: None,
            port: Port::default(),
            nat: None,
            receive_buffer: 1 << 20,
            clock_offset_ms: 0,
        }
    }
}

/// What a host can send and receive altogether.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port {
    /// Bytes of UDP payload per second that it can send; `None` (default): as many as it wants.
    pub up: Option<u64>,
    /// Bytes of UDP payload per second that it can receive; `None` (default): as many as come.
    pub down: Option<u64>,
    /// Bytes that may wait in each direction; datagrams beyond are dropped. Default 256 KiB.
    pub queue: usize,
}

impl Default for Port {
    fn default() -> Self {
        Self {
            up: None,
            down: None,
            queue: DEFAULT_QUEUE,
        }
    }
}

/// A datagram on its way.
#[derive(Debug)]
pub(super) struct Datagram {
    pub(super) id: u64,
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) data: BytesMut,
}

#[derive(Debug)]
pub(super) struct Host {
    pub(super) config: HostConfig,
    pub(super) address: SocketAddr,
    /// `None` while it is down.
    pub(super) endpoint: Option<Endpoint>,
    /// How often it was started.
    pub(super) starts: u64,
    pub(super) nat: Option<NatState>,
    pub(super) up: Wire,
    pub(super) down: Wire,
    pub(super) stalled_until: Option<Nanos>,
    /// What its socket holds while it stalls.
    pub(super) inbox: VecDeque<Datagram>,
    pub(super) inbox_bytes: usize,
    /// The earliest entry of the queue that stands for a deadline of the endpoint.
    pub(super) timer: Option<Nanos>,
    /// When it was last called because of one.
    pub(super) fired: Option<Nanos>,
    pub(super) in_poll: bool,
    pub(super) in_send: bool,
}

impl Host {
    pub(super) fn is_stalled(&self, now: Nanos) -> bool {
        self.stalled_until.is_some_and(|until| until > now)
    }

    pub(super) fn name(&self, id: HostId) -> String {
        self.config.name.clone().unwrap_or_else(|| id.to_string())
    }

    pub(super) fn stop(&mut self) {
        self.endpoint = None;
        self.stalled_until = None;
        self.inbox.clear();
        self.inbox_bytes = 0;
        self.timer = None;
        self.fired = None;
    }
}
