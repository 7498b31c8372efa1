//! Sans-IO core of the Macula mesh transport.

pub mod codes;
pub mod limits;
pub mod quic;
pub mod time;
pub mod tunnel;
pub mod wire;

pub use codes::Code;
pub use limits::Limits;
pub use time::Now;
