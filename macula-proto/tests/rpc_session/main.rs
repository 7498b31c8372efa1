//! Sessions against scripted peers: what goes over the wire, message by message.

mod calls;
mod faults;
mod greeting;
mod peer;
mod props;
