//! RPC: its messages, one call, all calls of a link, and the router of calls.

mod messages;
mod router;
mod session;
mod stream;

pub use messages::rpc;
pub use router::rpc_router;
pub use session::rpc_session;
pub use stream::rpc_stream;
