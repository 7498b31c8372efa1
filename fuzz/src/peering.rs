//! Both ends of a peering connection, an acceptor's door, and their frames.

mod frame;
mod gate;
mod link;

pub use frame::frame;
pub use gate::gate;
pub use link::peering;
