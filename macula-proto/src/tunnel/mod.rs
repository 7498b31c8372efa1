//! Relay control: the client machine and the relay machine.
//!
//! Nodes that cannot reach each other each keep one connection to a *relay*. On its first stream a node tells the relay
//! its name (*identify*) and asks for *tunnels* to other names; the relay opens one stream to each of the two nodes,
//! writes the 32-byte tunnel id first on both, and from then on copies raw bytes both ways between them.
//!
//! Three machines live here, none of which knows a socket, a QUIC type or one of the others:
//!
//! - [`relay::Relay`] is the relay's side of all its connections;
//! - [`client::Session`] is a node's side of one connection to one relay;
//! - [`client::Supervisor`] decides which of several relays a node dials, and when.
//!
//! Each takes one event at a time, `handle(now, event, &mut actions)`, appends what is to be done to the caller's list,
//! and keeps no output of its own. Its next deadline is `poll_timeout()`: absolute, found in constant time, and strictly
//! later than the `now` of the time-out that was just handled. Tunnel payload never passes through a machine.
//!
//! Connections and streams are named by opaque tokens, [`ConnKey`] and [`StreamKey`], which whoever executes the actions
//! maps to real ones and must not use twice.

pub mod client;
pub mod relay;

mod name;
mod timers;

pub use name::Name;

/// A connection, named by whoever executes the actions. Never used for a second connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnKey(pub u64);

/// A stream, named by whoever executes the actions. Unique within its connection, and never used for a second stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamKey(pub u64);

/// How the control stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlEnd {
    /// The peer finished it (FIN).
    Finished,
    /// The peer reset it with this code.
    Reset(crate::Code),
}
