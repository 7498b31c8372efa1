//! Which connection a node has with each other node, and which of two stays.

use std::collections::BTreeMap;

use super::handshake::{Decision, Standing};
use crate::wire::etf::Atom;

/// The connections of one node, by the name of the node at the other end. `K` names a connection.
///
/// Of two nodes that dial each other at once, both tables let the same connection stay, in whatever order they learn of things:
/// the dial of the node with the greater name, if neither was complete before the other one began.
#[derive(Debug)]
pub struct Nodes<K> {
    own: Atom,
    table: BTreeMap<Atom, Entry<K>>,
}

#[derive(Debug)]
struct Entry<K> {
    /// The connection whose handshake is complete.
    up: Option<K>,
    /// The one in its handshake, and whether this node dials.
    pending: Option<(K, Direction)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Dialled,
    Accepted,
}

/// How things stand with a node that calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Calling<K> {
    /// What the [handshake](super::handshake) asks for.
    pub standing: Standing,
    /// A connection in its handshake to be taken back: the caller's takes its place.
    pub abort: Option<K>,
}

/// The connection is not the one that counts any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("another connection with the same node took its place")]
pub struct Superseded;

impl<K: Copy + Eq> Nodes<K> {
    /// No connections, of the node `own`.
    pub fn new(own: Atom) -> Self {
        Self {
            own,
            table: BTreeMap::new(),
        }
    }

    /// This node is called so from now on: it had no name, and was given one.
    pub fn set_own(&mut self, own: Atom) {
        self.own = own;
    }

    /// This node begins to dial.
    ///
    /// # Errors
    /// How things stand, when there is a connection already, up or in its handshake.
    pub fn dial(&mut self, peer: &Atom, connection: K) -> Result<(), Standing> {
        match self.table.get(peer) {
            None => {
                let pending = Some((connection, Direction::Dialled));
                self.table.insert(peer.clone(), Entry { up: None, pending });
                Ok(())
            }
            Some(Entry {
                up: Some(_),
                pending: None,
            }) => Err(Standing::Connected),
            Some(Entry { up: Some(_), .. }) => Err(Standing::Replacing),
            Some(_) => Err(Standing::Dialling),
        }
    }

    /// A node calls, over the connection given. Unless it is told to go away, that connection takes the place of another
    /// one in its handshake.
    pub fn call(&mut self, peer: &Atom, connection: K) -> Calling<K> {
        let entry = self.table.entry(peer.clone()).or_insert(Entry {
            up: None,
            pending: None,
        });
        let (standing, abort) = match (&entry.up, entry.pending) {
            (None, None) => (Standing::New, None),
            (Some(_), None) => (Standing::Connected, None),
            (Some(_), Some(_)) => (Standing::Replacing, None),
            (None, Some((dial, Direction::Dialled))) => (Standing::Dialling, Some(dial)),
            // It would not call again if the earlier call were still good.
            (None, Some((call, Direction::Accepted))) => (Standing::New, Some(call)),
        };
        if Decision::of(&self.own, peer, standing) == Decision::Nok {
            return Calling { standing, abort: None };
        }
        entry.pending = Some((connection, Direction::Accepted));
        Calling { standing, abort }
    }

    /// Whether a dial is still the connection that counts: the answer to a peer that asks whether its earlier connection is dead.
    pub fn is_wanted(&self, peer: &str, connection: K) -> bool {
        let pending = self.table.get(peer).and_then(|entry| entry.pending.as_ref());
        pending.is_some_and(|(pending, _)| *pending == connection)
    }

    /// The handshake of a connection is complete. Returns the connection whose place it takes, which is to be closed.
    ///
    /// # Errors
    /// [`Superseded`]: this one is to be closed.
    pub fn up(&mut self, peer: &str, connection: K) -> Result<Option<K>, Superseded> {
        let entry = self.table.get_mut(peer).ok_or(Superseded)?;
        match entry.pending {
            Some((pending, _)) if pending == connection => {
                entry.pending = None;
                Ok(entry.up.replace(connection))
            }
            _ => Err(Superseded),
        }
    }

    /// A connection that was decided on elsewhere is up, such as one over another carrier: it stays, whatever else there is. Returns
    /// the connections whose place it takes, which are to be closed: the one that was up, and the one in its handshake.
    pub fn prevail(&mut self, peer: &Atom, connection: K) -> (Option<K>, Option<K>) {
        let entry = self.table.entry(peer.clone()).or_insert(Entry {
            up: None,
            pending: None,
        });
        let pending = entry.pending.take().map(|(pending, _)| pending);
        let other = |earlier: &K| *earlier != connection;
        (entry.up.replace(connection).filter(other), pending.filter(other))
    }

    /// A connection is gone, or its handshake failed. Without effect for one whose place another one took.
    pub fn gone(&mut self, peer: &str, connection: K) {
        let Some(entry) = self.table.get_mut(peer) else {
            return;
        };
        entry.up = entry.up.take().filter(|up| *up != connection);
        entry.pending = entry.pending.take().filter(|(pending, _)| *pending != connection);
        if entry.up.is_none() && entry.pending.is_none() {
            self.table.remove(peer);
        }
    }

    /// The connection with a node, its handshake complete.
    pub fn connected(&self, peer: &str) -> Option<K> {
        self.table.get(peer)?.up
    }

    /// All nodes with a connection whose handshake is complete, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&Atom, K)> {
        self.table.iter().filter_map(|(peer, entry)| Some((peer, entry.up?)))
    }
}

#[cfg(test)]
mod tests;
