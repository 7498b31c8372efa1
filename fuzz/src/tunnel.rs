//! A node's side of a relay connection, the choice of relays, and both sides together.

mod session;
mod supervisor;
mod world;

pub use session::session;
pub use supervisor::supervisor;
pub use world::tunnels;
