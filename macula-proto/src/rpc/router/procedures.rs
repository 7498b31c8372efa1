//! Who serves what.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::types::ConnKey;

/// Registered procedures, each with the connections of those who serve it.
#[derive(Debug, Default)]
pub(super) struct Procedures {
    by_name: BTreeMap<Bytes, Providers>,
    /// Registrations in all.
    count: usize,
}

#[derive(Debug, Default)]
struct Providers {
    conns: Vec<ConnKey>,
    /// Whose turn it is.
    next: usize,
}

impl Procedures {
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Adds a provider that is none yet.
    pub(super) fn add(&mut self, procedure: Bytes, conn: ConnKey) {
        self.by_name.entry(procedure).or_default().conns.push(conn);
        self.count += 1;
    }

    pub(super) fn remove(&mut self, procedure: &Bytes, conn: ConnKey) {
        let Some(providers) = self.by_name.get_mut(procedure) else {
            return;
        };
        let Some(at) = providers.conns.iter().position(|known| *known == conn) else {
            return;
        };
        providers.conns.remove(at);
        self.count -= 1;
        // Nobody loses a turn because somebody before him went.
        if at < providers.next {
            providers.next -= 1;
        }
        if providers.conns.is_empty() {
            self.by_name.remove(procedure);
        }
    }

    /// Who serves a procedure, the one whose turn it is first.
    pub(super) fn in_turn(&self, procedure: &Bytes) -> impl Iterator<Item = ConnKey> {
        let providers = self.by_name.get(procedure);
        let (before, from) = providers.map_or((&[][..], &[][..]), |providers| {
            let next = providers.next.min(providers.conns.len());
            providers.conns.split_at(next)
        });
        from.iter().chain(before).copied()
    }

    /// A provider got a call: the next one has its turn.
    pub(super) fn took(&mut self, procedure: &Bytes, conn: ConnKey) {
        if let Some(providers) = self.by_name.get_mut(procedure)
            && let Some(at) = providers.conns.iter().position(|known| *known == conn)
        {
            providers.next = (at + 1) % providers.conns.len().max(1);
        }
    }

    /// Names with the number of those who serve them, in the order of names.
    pub(super) fn list(&self) -> Vec<(Bytes, usize)> {
        let all = self.by_name.iter();
        all.map(|(name, providers)| (name.clone(), providers.conns.len()))
            .collect()
    }
}
