//! The distribution handshake of one connection, on either side of it.
//!
//! The dialler tells its name, the acceptor whether it may go on; then each proves to the other that it knows the cookie. No
//! secret crosses the connection, but who reads along can try cookies against the proofs.
//!
//! The acceptor asks ([`Action::AskStanding`]) how things stand with the node that calls: whether there is a connection already,
//! or a dial on its way the other direction. Of two nodes that dial each other at once the dial of the one with the greater name
//! stays: the other one is answered `nok`, or, if it has not been told yet, takes back its own dial and says `ok_simultaneous`.
//! A dialler whose node is still connected from the acceptor's point of view is asked (`alive`) whether that
//! connection is dead.

mod machine;
mod types;

pub use machine::Handshake;
pub use types::{Action, Decision, Established, Event, Failure, HandshakeConfig, Role, Standing};

#[cfg(test)]
mod pair;
#[cfg(test)]
mod tests;
