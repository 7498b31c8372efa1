//! What a node knows of one of its processes, and of one of its connections.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    mem::size_of,
};

use super::{Signal, Target, outgoing::Outgoing};
use crate::wire::{
    dist::{Flags, Form, MessageDecoder, control},
    etf::{Atom, Pid, Reference, Term},
};

#[derive(Debug)]
pub(super) struct Process<K> {
    inbox: VecDeque<(Signal, usize)>,
    /// Bytes of all signals in `inbox`.
    pub(super) bytes: usize,
    pub(super) name: Option<Atom>,
    pub(super) links: BTreeMap<Pid, Link>,
    /// Monitors that this process has set.
    pub(super) monitors: BTreeMap<Reference, Target>,
    /// Monitors that others have set on this process.
    pub(super) watchers: BTreeMap<Reference, Watcher>,
    pub(super) aliases: BTreeSet<Reference>,
    /// Connections that are not read because this mailbox is full.
    pub(super) blocks: BTreeSet<K>,
    /// A local process was told to wait.
    pub(super) refused: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Link {
    Active,
    /// Taken down by this side, and not yet confirmed by the other one. Until then what comes over it means nothing.
    Unlinking(u64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Watcher {
    pub(super) pid: Pid,
    /// How it named the process.
    pub(super) named: control::Process,
}

impl<K> Process<K> {
    pub(super) fn new() -> Self {
        Self {
            inbox: VecDeque::new(),
            bytes: 0,
            name: None,
            links: BTreeMap::new(),
            monitors: BTreeMap::new(),
            watchers: BTreeMap::new(),
            aliases: BTreeSet::new(),
            blocks: BTreeSet::new(),
            refused: false,
        }
    }

    /// Whether the mailbox was empty.
    pub(super) fn push(&mut self, signal: Signal) -> bool {
        let cost = cost_of(&signal);
        self.bytes = self.bytes.saturating_add(cost);
        let was_empty = self.inbox.is_empty();
        self.inbox.push_back((signal, cost));
        was_empty
    }

    pub(super) fn pop(&mut self) -> Option<Signal> {
        let (signal, cost) = self.inbox.pop_front()?;
        self.bytes = self.bytes.saturating_sub(cost);
        Some(signal)
    }
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) peer: Atom,
    pub(super) common: Flags,
    pub(super) form: Form,
    pub(super) decoder: MessageDecoder,
    pub(super) outgoing: Outgoing,
    /// Long messages go in fragments, numbered from here.
    pub(super) sequence: Option<u64>,
    /// The peer's monitors: which process each one watches.
    pub(super) watched: BTreeMap<Reference, u64>,
    /// Links across the connection.
    pub(super) links: usize,
    /// Mailboxes that are full because of it.
    pub(super) blocked: usize,
    /// So much waits to be sent that it is not read.
    pub(super) clogged: bool,
    /// A process was told to wait.
    pub(super) refused: bool,
}

/// Bytes of memory, about, without what the allocator adds. A binary that shares a buffer counts its own length.
fn cost_of(signal: &Signal) -> usize {
    let terms = match signal {
        Signal::Message { term, .. } => cost(term),
        Signal::Exit { reason, .. } | Signal::Down { reason, .. } => cost(reason),
    };
    size_of::<(Signal, usize)>().saturating_add(terms)
}

/// What a term takes up beside its own place.
fn cost(term: &Term) -> usize {
    let all = |elements: &[Term]| {
        let each = elements.iter().map(|element| size_of::<Term>() + cost(element));
        each.fold(0, usize::saturating_add)
    };
    match term {
        Term::Int(_) | Term::Float(_) | Term::Pid(_) => 0,
        Term::Atom(atom) => atom.len(),
        Term::Big(big) => big.magnitude().len(),
        Term::String(bytes) | Term::Binary(bytes) | Term::Bits(bytes, _) => bytes.len(),
        Term::Tuple(elements) | Term::List(elements) => all(elements),
        Term::ImproperList(elements, tail) => all(elements) + size_of::<Term>() + cost(tail),
        Term::Map(entries) => {
            let each = entries
                .iter()
                .map(|(key, value)| 2 * size_of::<Term>() + cost(key) + cost(value));
            each.fold(0, usize::saturating_add)
        }
        Term::Port(_) | Term::Reference(_) | Term::Export(_) => 64,
        Term::Fun(fun) => 256 + all(&fun.free),
    }
}
