//! Hosts, and what becomes of them.

use std::{collections::VecDeque, net::SocketAddr, time::Duration};

use super::{Due, HostDown, World};
use crate::{
    Endpoint, Now,
    quic::ConfigError,
    sim::{Fault, HostConfig, HostId, Nat, clock::nanos, host::Host, link::Wire, nat::NatState, trace::What},
};

impl World {
    /// Adds a host, and starts it.
    ///
    /// # Errors
    /// [`ConfigError`] names the setting that is out of range: one of the endpoint's, or an `address` that another host has.
    pub fn add(&mut self, config: HostConfig) -> Result<HostId, ConfigError> {
        let id = HostId(u32::try_from(self.hosts.len()).map_err(|_| ConfigError("hosts"))?);
        let address = config.address.unwrap_or_else(|| id.address());
        if self.by_ip.contains_key(&address.ip()) {
            return Err(ConfigError("address"));
        }
        let nat = config.nat;
        let host = Host {
            endpoint: Some(self.endpoint(id, &config, 0)?),
            config,
            address,
            starts: 1,
            nat: None,
            up: Wire::default(),
            down: Wire::default(),
            stalled_until: None,
            inbox: VecDeque::new(),
            inbox_bytes: 0,
            timer: None,
            fired: None,
            in_poll: false,
            in_send: false,
        };
        self.hosts.push(host);
        self.by_ip.insert(address.ip(), id);
        self.set_nat(id, nat);
        Ok(id)
    }

    /// All hosts.
    pub fn hosts(&self) -> impl Iterator<Item = HostId> + use<> {
        (0..u32::try_from(self.hosts.len()).unwrap_or(u32::MAX)).map(HostId)
    }

    /// Does something with the endpoint of a host: sets it up, reads, writes, looks at it.
    ///
    /// # Errors
    /// [`HostDown`] if it crashed. A host that stalls can be used, but nothing leaves it.
    pub fn with<T>(&mut self, host: HostId, run: impl FnOnce(&mut Endpoint, Now) -> T) -> Result<T, HostDown> {
        let clock = self.clock;
        let entry = self.hosts.get_mut(host.index()).ok_or(HostDown(host))?;
        let now = clock.at(entry.config.clock_offset_ms);
        let result = run(entry.endpoint.as_mut().ok_or(HostDown(host))?, now);
        self.touch(host);
        Ok(result)
    }

    /// Looks at the endpoint of a host; `None` while it is down.
    pub fn endpoint_of(&self, host: HostId) -> Option<&Endpoint> {
        self.hosts.get(host.index())?.endpoint.as_ref()
    }

    /// The address of a host: what its own socket is bound to.
    ///
    /// # Panics
    /// If the host is one of another world.
    pub fn address(&self, host: HostId) -> SocketAddr {
        self.host(host).address
    }

    /// The address at which others see a host behind a NAT, while there is a mapping; otherwise its own.
    ///
    /// # Panics
    /// If the host is one of another world.
    pub fn outside_address(&self, host: HostId) -> Option<SocketAddr> {
        let host = self.host(host);
        match &host.nat {
            Some(nat) => nat.address(self.clock.now),
            None => Some(host.address),
        }
    }

    /// Whether a host is up, if only stalled.
    pub fn is_up(&self, host: HostId) -> bool {
        self.endpoint_of(host).is_some()
    }

    /// Gives a name these addresses. Nodes that look up their relays get them; addresses in numbers need no entry.
    pub fn set_name(&mut self, name: impl Into<String>, addresses: Vec<SocketAddr>) {
        self.names.insert(name.into(), addresses);
    }

    fn endpoint(&self, id: HostId, config: &HostConfig, start: u64) -> Result<Endpoint, ConfigError> {
        let seed = self.seed.number("endpoint", &[u64::from(id.0), start]);
        Endpoint::simulated(&config.endpoint, config.limits.clone(), seed)
    }

    fn host(&self, host: HostId) -> &Host {
        #[expect(
            clippy::indexing_slicing,
            reason = "a host of another world is the caller's mistake, as documented"
        )]
        &self.hosts[host.index()]
    }

    // ----- faults --------------------------------------------------------------------------------------------------

    /// Does something to the world, now.
    pub fn apply(&mut self, fault: Fault) {
        let host = match fault {
            Fault::Link { from, .. } | Fault::Cut { from, .. } | Fault::Heal { from, .. } => from,
            Fault::Isolate(host)
            | Fault::Stall { host, .. }
            | Fault::Crash(host)
            | Fault::Restart(host)
            | Fault::Nat(host, _)
            | Fault::Rebind(host) => host,
            Fault::HealAll => HostId(0),
        };
        self.trace.record(self.elapsed(), host, What::Fault(fault.to_string()));
        match fault {
            Fault::Link { from, to, link } => self.set_link(from, to, link),
            Fault::Cut { from, to } => self.link_state(from, to).cut = true,
            Fault::Heal { from, to } => self.link_state(from, to).cut = false,
            Fault::Isolate(host) => _ = self.isolated.insert(host),
            Fault::HealAll => {
                self.isolated.clear();
                self.links.values_mut().for_each(|link| link.cut = false);
            }
            Fault::Stall { host, time } => self.stall(host, time),
            Fault::Crash(host) => {
                if let Some(host) = self.hosts.get_mut(host.index()) {
                    host.stop();
                }
            }
            Fault::Restart(host) => self.restart(host),
            Fault::Nat(host, nat) => self.set_nat(host, nat),
            Fault::Rebind(host) => {
                if let Some(nat) = self.hosts.get_mut(host.index()).and_then(|host| host.nat.as_mut()) {
                    nat.rebind();
                }
            }
        }
    }

    fn stall(&mut self, host: HostId, time: Duration) {
        let until = self.clock.now.saturating_add(nanos(time));
        if let Some(entry) = self
            .hosts
            .get_mut(host.index())
            .filter(|entry| entry.endpoint.is_some())
        {
            let until = entry.stalled_until.map_or(until, |before| before.max(until));
            entry.stalled_until = Some(until);
            self.queue.push(until, Due::Awake(host, until));
        }
    }

    fn restart(&mut self, host: HostId) {
        let Some(entry) = self.hosts.get(host.index()) else {
            return;
        };
        // The settings were good the first time.
        let endpoint = self.endpoint(host, &entry.config, entry.starts).ok();
        if let Some(entry) = self.hosts.get_mut(host.index()) {
            entry.stop();
            entry.starts += 1;
            entry.endpoint = endpoint;
        }
        self.touch(host);
    }

    fn set_nat(&mut self, host: HostId, nat: Option<Nat>) {
        let Some(entry) = self.hosts.get_mut(host.index()) else {
            return;
        };
        match (&mut entry.nat, nat) {
            (Some(state), Some(nat)) => state.nat = nat,
            (state, nat) => *state = nat.map(|nat| NatState::new(host, nat)),
        }
        // Its own address can be reached only if there is no NAT.
        let own = entry.address.ip();
        let outside = entry.nat.as_ref().map(|nat| nat.ip);
        match outside {
            Some(outside) => {
                self.by_ip.remove(&own);
                self.by_ip.insert(outside, host);
            }
            None => _ = self.by_ip.insert(own, host),
        }
    }
}
