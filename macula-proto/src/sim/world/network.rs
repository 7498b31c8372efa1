//! The network between hosts, and the way of a datagram through it.

use std::net::SocketAddr;

use bytes::BytesMut;

use super::{Due, World};
use crate::{
    quic::DatagramMeta,
    sim::{
        DropReason, Fault, HostId, Link, Port, clock::Nanos, digest::sum, host::Datagram, link::LinkState, trace::What,
    },
};

impl World {
    /// How directions behave that nothing else was said about.
    pub fn set_default_link(&mut self, link: Link) {
        for state in self.links.values_mut() {
            if state.link == self.default_link {
                state.link = link;
            }
        }
        self.default_link = link;
    }

    /// How one direction behaves.
    pub fn set_link(&mut self, from: HostId, to: HostId, link: Link) {
        self.link_state(from, to).link = link;
    }

    /// How both directions between two hosts behave.
    pub fn set_link_between(&mut self, a: HostId, b: HostId, link: Link) {
        self.set_link(a, b, link);
        self.set_link(b, a, link);
    }

    /// How a direction behaves now.
    pub fn link(&self, from: HostId, to: HostId) -> Link {
        let state = self.links.get(&(from, to));
        state.map_or(self.default_link, |state| state.link)
    }

    /// What a host can send and receive altogether from now on.
    pub fn set_port(&mut self, host: HostId, port: Port) {
        if let Some(host) = self.hosts.get_mut(host.index()) {
            host.config.port = port;
        }
    }

    /// Cuts every direction between two groups of hosts.
    pub fn partition(&mut self, left: &[HostId], right: &[HostId]) {
        for a in left {
            for b in right {
                self.apply(Fault::Cut { from: *a, to: *b });
                self.apply(Fault::Cut { from: *b, to: *a });
            }
        }
    }

    /// Puts a datagram on the network that no host sent, as an attacker can who forges the sender's address. It is subject to no link.
    pub fn inject(&mut self, from: SocketAddr, to: SocketAddr, data: &[u8]) {
        let id = self.datagram_id();
        let Some(host) = self.by_ip.get(&to.ip()).copied() else {
            return;
        };
        let data = BytesMut::from(data);
        let datagram = Box::new(Datagram { id, from, to, data });
        self.queue.push(self.clock.now, Due::Arrival(host, datagram));
    }

    pub(super) fn link_state(&mut self, from: HostId, to: HostId) -> &mut LinkState {
        let (seed, link) = (self.seed, self.default_link);
        let new = || LinkState::new(seed, from, to, link);
        self.links.entry((from, to)).or_insert_with(new)
    }

    // ----- the way of a datagram -----------------------------------------------------------------------------------

    fn datagram_id(&mut self) -> u64 {
        let id = self.next_datagram;
        self.next_datagram += 1;
        id
    }

    /// Sends a datagram on its way.
    pub(super) fn transmit(&mut self, from: HostId, to: SocketAddr, data: BytesMut) {
        let id = self.datagram_id();
        let (now, at, length) = (self.clock.now, self.elapsed(), data.len());
        self.stats.sent += 1;
        self.stats.bytes_sent += length as u64;
        let what = What::Sent {
            id,
            to,
            length,
            sum: sum(&data),
        };
        self.trace.record(at, from, what);
        let Some(host) = self.hosts.get_mut(from.index()) else {
            return;
        };
        let mut source = host.address;
        if let Some(nat) = &mut host.nat {
            let (address, new) = nat.outbound(now, to);
            source = address;
            if new {
                self.trace.record(at, from, What::Mapped { address });
            }
        }
        let port = host.config.port;
        let left = host.up.pass(now, length, port.up, port.queue);
        let target = self.by_ip.get(&to.ip()).copied();
        let datagram = Datagram {
            id,
            from: source,
            to,
            data,
        };
        let passed = match (left, target) {
            (None, _) => Err(DropReason::QueueFull),
            (_, None) => Err(DropReason::NoRoute),
            (Some(left), Some(target)) => self.cross(from, target, left, datagram),
        };
        if let Err(reason) = passed {
            self.drop_datagram(from, id, length, reason);
        }
    }

    /// Takes a datagram over the link to another host.
    fn cross(&mut self, from: HostId, to: HostId, left: Nanos, mut datagram: Datagram) -> Result<(), DropReason> {
        if self.isolated.contains(&from) || self.isolated.contains(&to) {
            return Err(DropReason::Cut);
        }
        let link = self.link_state(from, to);
        let passage = link.pass(left, datagram.data.len())?;
        if passage.corrupted {
            link.spoil(&mut datagram.data);
            self.stats.corrupted += 1;
        }
        if let Some(again) = passage.again {
            self.stats.duplicated += 1;
            let copy = Box::new(Datagram {
                data: datagram.data.clone(),
                ..datagram
            });
            self.queue.push(again, Due::Arrival(to, copy));
        }
        self.queue.push(passage.arrives, Due::Arrival(to, Box::new(datagram)));
        Ok(())
    }

    /// A datagram is in front of its receiver.
    pub(super) fn arrive(&mut self, id: HostId, datagram: Box<Datagram>) {
        let now = self.clock.now;
        let length = datagram.data.len();
        let Some(host) = self.hosts.get_mut(id.index()) else {
            return;
        };
        let known = match &host.nat {
            Some(nat) if datagram.to.ip() == nat.ip => {
                let let_in = nat.lets_in(now, datagram.from, datagram.to.port());
                let_in.then_some(()).ok_or(DropReason::NotMapped)
            }
            Some(_) => Err(DropReason::NotMapped),
            None if datagram.to == host.address => Ok(()),
            None => Err(DropReason::HostDown),
        };
        let port = host.config.port;
        let through = known.and_then(|()| {
            let through = host.down.pass(now, length, port.down, port.queue);
            through.ok_or(DropReason::QueueFull)
        });
        match through {
            Ok(through) if through > now => self.queue.push(through, Due::Delivery(id, datagram)),
            Ok(_) => self.deliver(id, *datagram),
            Err(reason) => self.drop_datagram(id, datagram.id, length, reason),
        }
    }

    /// Gives a datagram to its endpoint, or keeps it while the host stalls.
    pub(super) fn deliver(&mut self, id: HostId, datagram: Datagram) {
        let at = self.elapsed();
        let length = datagram.data.len();
        let Some(host) = self.hosts.get_mut(id.index()) else {
            return;
        };
        let Some(endpoint) = &mut host.endpoint else {
            return self.drop_datagram(id, datagram.id, length, DropReason::HostDown);
        };
        if host.stalled_until.is_some_and(|until| until > self.clock.now) {
            if host.inbox_bytes + length > host.config.receive_buffer {
                return self.drop_datagram(id, datagram.id, length, DropReason::BufferFull);
            }
            host.inbox_bytes += length;
            host.inbox.push_back(datagram);
            return;
        }
        let what = What::Received {
            id: datagram.id,
            from: datagram.from,
            length,
        };
        self.trace.record(at, id, what);
        self.stats.received += 1;
        let now = self.clock.at(host.config.clock_offset_ms);
        endpoint.handle_datagram(now, DatagramMeta::from(datagram.from), datagram.data);
        self.touch(id);
    }

    fn drop_datagram(&mut self, host: HostId, id: u64, length: usize, reason: DropReason) {
        let what = What::Dropped { id, length, reason };
        self.trace.record(self.elapsed(), host, what);
        if let Some(count) = self.stats.dropped.get_mut(reason as usize) {
            *count += 1;
        }
    }
}
