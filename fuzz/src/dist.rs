//! Erlang distribution: terms and messages, nodes that connect, their links, and their processes.

mod connect;
mod link;
mod messages;
mod node;

pub use connect::dist_connect;
pub use link::dist_link;
pub use messages::{dist, etf};
pub use node::dist_node;
