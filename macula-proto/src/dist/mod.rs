//! Erlang distribution: the machines of a node's connections to other nodes.
//!
//! A connection begins with a [handshake], after which both sides are sure that the other one knows the cookie. Which
//! of two connections stays when two nodes dial each other at once is found with the table of [`nodes`]. From then on the
//! [control lane](control) carries ticks, and the [data pool](pool) the messages, whose bytes [`wire::dist`](crate::wire::dist)
//! reads and writes. What they do to the processes of a node is the business of [`node`], whatever carries them.
//!
//! The machines know neither sockets nor QUIC. They take events and append what is to be done to a list; bytes to be sent are
//! pulled when there is room for them.

pub mod control;
pub mod controller;
pub mod handshake;
pub mod node;
pub mod nodes;
pub mod pool;
pub mod streams;
pub mod user;
