//! Streaming calls: the machine of one side of a call, and two of them joined within a process.
//!
//! A call has two sides, the client that opened it and the server that handles it. Either sends chunks in order, as far as
//! the call's [`Mode`] lets it, and says when it has no more; the server may settle the call with one terminal reply.
//!
//! - [`stream`] is one side of one call, without a wire format or a connection.
//! - [`pair`] joins two sides within a process.
//! - [`session`] is all calls of one link, with messages for the bytes of a connection.
//! - [`router`] passes calls between the nodes that are connected to it.

pub mod pair;
pub mod router;
pub mod session;
pub mod stream;

mod config;
mod registry;

pub use crate::wire::rpc::{Chunk, EndRole, Fault, Mode, Outcome, StreamId};
pub use config::{EncodingChoice, RpcConfig, RpcLimits};
pub use registry::{Kind, Registry};
pub use stream::{Info, RecvError, ReplyError, Role, SendError};
