//! What is due, and calling the endpoints that it is due for.

use std::{net::SocketAddr, num::NonZeroUsize, time::Duration};

use bytes::{Bytes, BytesMut};

use super::{Due, Happening, Violation, World};
use crate::{
    Endpoint, Event,
    endpoint::ClientEvent,
    sim::{
        HostId,
        clock::{Nanos, nanos},
        trace::What,
    },
};

/// Datagrams that an endpoint may hand out at once.
const BATCH: NonZeroUsize = NonZeroUsize::new(16).expect("16 is not 0");
/// How much later an endpoint is called that asks for a moment which has passed.
const SPIN: Duration = Duration::from_micros(1);

impl World {
    /// Moves to the next moment at which something is due, and does all that is due then.
    pub(super) fn advance(&mut self) {
        if let Some(at) = self.queue.next_at() {
            self.clock.now = self.clock.now.max(at);
        }
        while let Some(due) = self.queue.pop_due(self.clock.now) {
            match due {
                Due::Arrival(host, datagram) => self.arrive(host, datagram),
                Due::Delivery(host, datagram) => self.deliver(host, *datagram),
                Due::Timer(host, at) => self.fire(host, at),
                Due::Awake(host, at) => self.awake(host, at),
                Due::Fault(fault) => {
                    self.apply(fault);
                    self.happenings.push_back(Happening::Fault(fault));
                }
                Due::Wake(token) => self.happenings.push_back(Happening::Wake(token)),
            }
        }
    }

    /// Has a host polled before time goes on.
    pub(super) fn touch(&mut self, host: HostId) {
        if let Some(entry) = self.hosts.get_mut(host.index())
            && !std::mem::replace(&mut entry.in_poll, true)
        {
            self.to_poll.push_back(host);
        }
    }

    /// Collects the events of a host.
    pub(super) fn poll(&mut self, id: HostId) {
        let Some(host) = self.hosts.get_mut(id.index()) else {
            return;
        };
        host.in_poll = false;
        // What is left undone is done when it is awake.
        if host.is_stalled(self.clock.now) {
            return;
        }
        let now = self.clock.at(host.config.clock_offset_ms);
        let at = Duration::from_nanos(self.clock.now);
        let Some(endpoint) = &mut host.endpoint else {
            return;
        };
        while let Some(event) = endpoint.poll_event(now) {
            self.stats.events += 1;
            self.trace.event(at, id, &event);
            if let Event::Client {
                client,
                event: ClientEvent::Resolve { attempt, address },
            } = &event
            {
                let literal = || address.host.trim_matches(['[', ']']).parse().ok();
                let found = match self.names.get(&address.host) {
                    Some(found) => found.clone(),
                    None => literal()
                        .map(|ip| SocketAddr::new(ip, address.port))
                        .into_iter()
                        .collect(),
                };
                // A node that was stopped meanwhile needs no answer.
                let _ = endpoint.resolved(now, *client, *attempt, &found);
                continue;
            }
            self.happenings.push_back(Happening::Event { host: id, event });
        }
        if !std::mem::replace(&mut host.in_send, true) {
            self.to_send.push_back(id);
        }
    }

    /// Puts the datagrams of a host on the network, and notes when it wants to be called again.
    pub(super) fn send(&mut self, id: HostId) {
        let offset = self.hosts.get(id.index()).map_or(0, |host| host.config.clock_offset_ms);
        let now = self.clock.at(offset);
        loop {
            let mut buf = Vec::new();
            let Some(host) = self.hosts.get_mut(id.index()) else {
                return;
            };
            host.in_send = false;
            if host.is_stalled(self.clock.now) {
                return;
            }
            let Some(endpoint) = &mut host.endpoint else {
                return;
            };
            let Some(transmit) = endpoint.poll_transmit(now, BATCH, &mut buf) else {
                break;
            };
            // The datagrams of a batch share its buffer.
            let mut batch = BytesMut::from(Bytes::from(buf));
            let size = transmit.segment_size.unwrap_or(transmit.size).max(1);
            while !batch.is_empty() {
                let datagram = batch.split_to(size.min(batch.len()));
                self.transmit(id, transmit.destination, datagram);
            }
        }
        self.note_deadline(id);
    }

    fn note_deadline(&mut self, id: HostId) {
        let Some(host) = self.hosts.get_mut(id.index()) else {
            return;
        };
        let Some(at) = host.endpoint.as_ref().and_then(Endpoint::poll_timeout) else {
            return;
        };
        let mut at = self.clock.since_start(at).max(self.clock.now);
        if at == self.clock.now && host.fired == Some(at) {
            at += nanos(SPIN);
            self.violations.push(Violation {
                at: Duration::from_nanos(self.clock.now),
                host: id,
                what: "asks for a time-out that is not later than the one just handled",
            });
        }
        // An entry that is too early is looked at again when its time has come.
        if host.timer.is_none_or(|noted| at < noted) {
            host.timer = Some(at);
            self.queue.push(at, Due::Timer(id, at));
        }
    }

    fn fire(&mut self, id: HostId, at: Nanos) {
        let Some(host) = self.hosts.get_mut(id.index()) else {
            return;
        };
        if host.timer != Some(at) {
            return;
        }
        host.timer = None;
        if host.is_stalled(self.clock.now) {
            return;
        }
        let now = self.clock.at(host.config.clock_offset_ms);
        let Some(endpoint) = &mut host.endpoint else {
            return;
        };
        match endpoint.poll_timeout() {
            Some(due) if due <= now.mono => {
                self.trace
                    .record(Duration::from_nanos(self.clock.now), id, What::Timeout);
                self.stats.timeouts += 1;
                host.fired = Some(self.clock.now);
                endpoint.handle_timeout(now);
                self.touch(id);
            }
            _ => self.note_deadline(id),
        }
    }

    fn awake(&mut self, id: HostId, at: Nanos) {
        let Some(host) = self.hosts.get_mut(id.index()) else {
            return;
        };
        if host.stalled_until != Some(at) {
            return;
        }
        host.stalled_until = None;
        host.inbox_bytes = 0;
        for datagram in std::mem::take(&mut host.inbox) {
            self.deliver(id, datagram);
        }
        // Its timers may be late.
        if let Some(host) = self.hosts.get_mut(id.index()) {
            host.timer = None;
        }
        self.touch(id);
    }
}
