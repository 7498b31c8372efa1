//! Sans-IO core of the Macula mesh transport.

pub mod codes;
pub mod endpoint;
pub mod identity;
pub mod limits;
pub mod peering;
pub mod quic;
pub mod rng;
pub mod time;
pub mod tunnel;
pub mod wall_clock;
pub mod wire;

pub use codes::Code;
pub use endpoint::{Endpoint, Event};
pub use limits::Limits;
pub use rng::Rng;
pub use time::Now;
pub use wall_clock::WallClock;
