//! Streams and announcements that wait for each other.

use std::collections::BTreeSet;

use super::{Action, Progress, RequestError, RequestId, Session, Timer};
use crate::{
    Code, Now,
    tunnel::{Name, StreamKey},
    wire::control::{Reason, TunnelId},
};

/// A tunnel that the relay announced and whose stream is not there.
#[derive(Debug)]
pub(super) enum Announced {
    /// By `tunnel_ok`, to this request.
    Granted(RequestId),
    /// By `tunnel_notify`, from this node.
    Incoming(Name),
}

impl Session {
    pub(super) fn stream_arrived(&mut self, now: Now, stream: StreamKey, actions: &mut Vec<Action>) {
        let limits = &self.config.limits;
        if self.held.contains_key(&stream) || self.active.contains_key(&stream) {
            self.stats.stale_events += 1;
        } else if self.held.len() >= limits.orphan_streams {
            self.stats.streams_refused += 1;
            actions.push(Action::RejectStream {
                stream,
                code: Code::LIMIT,
            });
        } else {
            self.held.insert(stream, None);
            self.timers.arm(now.mono, Timer::Stream(stream), limits.orphan_timeout);
        }
    }

    pub(super) fn prefix(&mut self, stream: StreamKey, id: TunnelId, actions: &mut Vec<Action>) {
        match self.held.get_mut(&stream) {
            Some(known @ None) => *known = Some(id),
            Some(Some(_)) | None => {
                self.stats.stale_events += 1;
                return;
            }
        }
        if let Some(&code) = self.unwanted.get(&id) {
            self.release(stream);
            actions.push(Action::RejectStream { stream, code });
        } else if let Some((serial, announced)) = self.take_announced(id) {
            self.timers.clear(Timer::Announced(id, serial));
            self.hand_out(id, stream, announced, actions);
        } else {
            self.held_by_id.insert((id, stream));
        }
    }

    pub(super) fn stream_lost(&mut self, stream: StreamKey) {
        if !self.release(stream) {
            self.stats.stale_events += 1;
        }
    }

    pub(super) fn stream_expired(&mut self, stream: StreamKey, actions: &mut Vec<Action>) {
        if self.release(stream) {
            self.stats.streams_expired += 1;
            actions.push(Action::RejectStream {
                stream,
                code: Code::TIMEOUT,
            });
        }
    }

    pub(super) fn tunnel_notify(&mut self, now: Now, tunnel: TunnelId, source: Name, actions: &mut Vec<Action>) {
        if !self.is_allowed(&source) {
            self.stats.incoming_refused += 1;
            self.refuse_tunnel(now, tunnel, Code::NOT_ALLOWED, Reason::NotAllowed, actions);
        } else if self.inbound >= self.config.limits.orphan_streams && self.first_held(tunnel).is_none() {
            self.stats.announcements_refused += 1;
            self.refuse_tunnel(now, tunnel, Code::LIMIT, Reason::Busy, actions);
        } else {
            self.announce(now, tunnel, Announced::Incoming(source), actions);
        }
    }

    /// Sets who may open tunnels to here. Those that were announced and have no stream yet are judged anew.
    pub(super) fn allow_from(&mut self, now: Now, names: Option<BTreeSet<Name>>, actions: &mut Vec<Action>) {
        self.config.allow_from = names;
        let refused: Vec<_> = self
            .announced
            .iter()
            .filter(|(_, announced)| matches!(announced, Announced::Incoming(source) if !self.is_allowed(source)))
            .map(|((id, _), _)| *id)
            .collect();
        for tunnel in refused {
            self.stats.incoming_refused += 1;
            self.refuse_tunnel(now, tunnel, Code::NOT_ALLOWED, Reason::NotAllowed, actions);
        }
    }

    fn is_allowed(&self, source: &Name) -> bool {
        let names = self.config.allow_from.as_ref();
        names.is_none_or(|names| names.contains(source))
    }

    /// The relay says that a tunnel is there: hands it out if its stream is there too, or else keeps it in mind.
    pub(super) fn announce(&mut self, now: Now, id: TunnelId, announced: Announced, actions: &mut Vec<Action>) {
        if self.unwanted.contains_key(&id) {
            // Only a tunnel to oneself, whose other end was refused, or a relay that uses an id twice.
            if let Announced::Granted(request) = announced {
                self.requests.remove(&request);
                self.fail(request, RequestError::Refused(Reason::NotAllowed), actions);
            }
        } else if let Some(stream) = self.first_held(id) {
            self.hand_out(id, stream, announced, actions);
        } else {
            let serial = self.serial();
            match &announced {
                Announced::Granted(request) => {
                    self.requests.insert(*request, Progress::Granted(id, serial));
                }
                Announced::Incoming(_) => {
                    self.inbound += 1;
                    let wait = self.config.limits.orphan_timeout;
                    self.timers.arm(now.mono, Timer::Announced(id, serial), wait);
                }
            }
            self.announced.insert((id, serial), announced);
        }
    }

    pub(super) fn announcement_expired(&mut self, now: Now, id: TunnelId, serial: u64, actions: &mut Vec<Action>) {
        if self.announced.remove(&(id, serial)).is_some() {
            self.inbound = self.inbound.saturating_sub(1);
            self.stats.announcements_expired += 1;
            self.refuse_tunnel(now, id, Code::TIMEOUT, Reason::from("timeout"), actions);
        }
    }

    /// Has the relay end a tunnel, and rejects its streams: those that are there, and those that come in the next time.
    pub(super) fn refuse_tunnel(
        &mut self,
        now: Now,
        id: TunnelId,
        code: Code,
        reason: Reason,
        actions: &mut Vec<Action>,
    ) {
        self.send_close(id, actions);
        while let Some(stream) = self.first_held(id) {
            self.release(stream);
            actions.push(Action::RejectStream { stream, code });
        }
        while let Some((serial, announced)) = self.take_announced(id) {
            self.timers.clear(Timer::Announced(id, serial));
            if let Announced::Granted(request) = announced {
                self.requests.remove(&request);
                self.fail(request, RequestError::Refused(reason.clone()), actions);
            }
        }
        if self.unwanted.len() >= self.config.limits.orphan_streams
            && !self.unwanted.contains_key(&id)
            && let Some((forgotten, _)) = self.unwanted.pop_first()
        {
            self.timers.clear(Timer::Unwanted(forgotten));
        }
        self.unwanted.insert(id, code);
        self.timers
            .arm(now.mono, Timer::Unwanted(id), self.config.limits.orphan_timeout);
    }

    fn hand_out(&mut self, tunnel: TunnelId, stream: StreamKey, announced: Announced, actions: &mut Vec<Action>) {
        self.release(stream);
        self.active.insert(stream, tunnel);
        match announced {
            Announced::Granted(request) => {
                self.requests.remove(&request);
                self.timers.clear(Timer::Request(request));
                self.stats.opened += 1;
                actions.push(Action::Opened {
                    request,
                    tunnel,
                    stream,
                });
            }
            Announced::Incoming(source) => {
                self.stats.incoming += 1;
                actions.push(Action::Incoming { tunnel, source, stream });
            }
        }
    }

    fn first_held(&self, id: TunnelId) -> Option<StreamKey> {
        let mut streams = self.held_by_id.range((id, StreamKey(0))..=(id, StreamKey(u64::MAX)));
        streams.next().map(|&(_, stream)| stream)
    }

    fn take_announced(&mut self, id: TunnelId) -> Option<(u64, Announced)> {
        let (&key, _) = self.announced.range((id, 0)..=(id, u64::MAX)).next()?;
        let announced = self.announced.remove(&key)?;
        if matches!(announced, Announced::Incoming(_)) {
            self.inbound = self.inbound.saturating_sub(1);
        }
        Some((key.1, announced))
    }

    /// Takes a stream out of those that are held.
    fn release(&mut self, stream: StreamKey) -> bool {
        let Some(id) = self.held.remove(&stream) else {
            return false;
        };
        self.timers.clear(Timer::Stream(stream));
        if let Some(id) = id {
            self.held_by_id.remove(&(id, stream));
        }
        true
    }
}
