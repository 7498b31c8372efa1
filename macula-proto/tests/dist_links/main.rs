//! Distribution connections: whole endpoints on a virtual clock.

#![cfg(feature = "self-signed")]

mod handshake;
mod messages;
mod net;
mod resume;
mod streams;
mod ticks;
mod wire;
#[path = "../world/mod.rs"]
mod world;
