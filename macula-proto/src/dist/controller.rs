//! The controller of one distribution connection over QUIC, on either side of it.
//!
//! It puts the machines of the other rooms together: the [handshake](super::handshake) and then ticks run over the
//! [control lane](super::control), messages over the [data pool](super::pool), and the streams that are left belong to
//! [users](super::user). It says which streams are opened, and when; what is done with what arrives on each; and how it ends:
//!
//! - The client opens the control stream (0) and its data streams (4, 8, 12, 16) at once; the server its own (1, 5, 9, 13) when
//!   the handshake is complete. Only then are there streams of users.
//! - Messages that come before the node is up are kept, within a limit, and delivered first.
//! - Every quarter of the net tick time a tick is sent if nothing else was; a peer of which nothing was heard for the whole of it
//!   is gone.
//! - A side that leaves in good order sends what it has taken, finishes its data streams, and closes when all of it has
//!   arrived, or after a while. A handshake that is turned away ends with the words that say so.

mod machine;
mod types;
mod view;

pub use machine::Controller;
pub use types::{Action, ControllerConfig, ControllerStats, EndReason, Event, LinkState, Purpose};

#[cfg(test)]
mod tests;
