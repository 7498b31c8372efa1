//! Names and who holds them.

use super::{Action, NameStatus, Relay, Report, Takeover, Timer};
use crate::{
    Code,
    tunnel::{ConnKey, Name},
    wire::control::Message,
};

/// The connection that holds a name.
#[derive(Debug)]
pub(super) struct Holder {
    pub(super) conn: ConnKey,
    /// Tunnels from and to the name, those still being opened included.
    pub(super) tunnels: usize,
}

impl Holder {
    pub(super) fn status(&self, name: &Name) -> NameStatus {
        NameStatus {
            name: name.clone(),
            conn: self.conn,
            tunnels: self.tunnels,
        }
    }
}

/// Why a client does not get a name.
struct Denied {
    code: Code,
    why: &'static str,
}

impl Relay {
    pub(super) fn identify(&mut self, key: ConnKey, name: &[u8], actions: &mut Vec<Action>) {
        if name.len() > self.config.limits.name {
            self.stats.identify_refused += 1;
            return self.close(key, Code::PROTOCOL, "node name too long", actions);
        }
        let name = Name::new(name);
        if self.names.get(&name).is_none_or(|holder| holder.conn != key) {
            if let Err(denied) = self.check_name(key, &name) {
                return self.deny(key, name, &denied, actions);
            }
            self.take_name(key, &name, actions);
        }
        let Some(conn) = self.conns.get_mut(&key) else { return };
        conn.source = Some(name);
        self.stats.identified += 1;
        self.send(key, &Message::Identified, actions);
    }

    fn check_name(&self, key: ConnKey, name: &Name) -> Result<(), Denied> {
        let deny = |code, why| Err(Denied { code, why });
        let Some(conn) = self.conns.get(&key) else {
            return deny(Code::INTERNAL, "no connection");
        };
        if self.draining {
            deny(Code::DRAINING, "draining")
        } else if name.as_bytes().is_empty() {
            deny(Code::PROTOCOL, "empty node name")
        } else if !self.config.access.may_identify(name, conn.pin.as_ref()) {
            deny(Code::NOT_ALLOWED, "this client may not take this name")
        } else if conn.names.len() >= self.config.limits.names_per_connection {
            deny(Code::LIMIT, "too many names on one connection")
        } else if self.config.takeover == Takeover::Refuse && self.names.contains_key(name) {
            deny(Code::NOT_ALLOWED, "the name is held by another connection")
        } else {
            Ok(())
        }
    }

    fn deny(&mut self, key: ConnKey, name: Name, denied: &Denied, actions: &mut Vec<Action>) {
        self.stats.identify_refused += 1;
        actions.push(Action::Report(Report::IdentifyRefused {
            conn: key,
            name,
            why: denied.why,
        }));
        // On a relay that drains, a connection that is still there has tunnels, and those may run on.
        if denied.code != Code::DRAINING {
            self.close(key, denied.code, denied.why, actions);
        }
    }

    fn take_name(&mut self, key: ConnKey, name: &Name, actions: &mut Vec<Action>) {
        if let Some(old) = self.names.get(name).map(|holder| holder.conn) {
            self.stats.displaced += 1;
            self.close(old, Code::DISPLACED, "name taken over by a newer connection", actions);
            actions.push(Action::Report(Report::Displaced {
                name: name.clone(),
                old,
                new: key,
            }));
        }
        let Some(conn) = self.conns.get_mut(&key) else { return };
        conn.names.insert(name.clone());
        self.names.insert(name.clone(), Holder { conn: key, tunnels: 0 });
        self.timers.clear(Timer::Identify(key));
        actions.push(Action::Report(Report::Identified {
            conn: key,
            name: name.clone(),
        }));
    }

    /// Closes the connections that hold a name which the rules do not give them any more.
    pub(super) fn enforce_access(&mut self, actions: &mut Vec<Action>) {
        let denied: Vec<ConnKey> = self
            .conns
            .iter()
            .filter(|(_, conn)| {
                let pin = conn.pin.as_ref();
                conn.names
                    .iter()
                    .any(|name| !self.config.access.may_identify(name, pin))
            })
            .map(|(&key, _)| key)
            .collect();
        for key in denied {
            self.close(
                key,
                Code::NOT_ALLOWED,
                "this client may not hold this name any more",
                actions,
            );
        }
    }
}
