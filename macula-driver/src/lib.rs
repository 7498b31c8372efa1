//! What the adapters of Macula share: sockets in batches, the driver, and all handles. No runtime in it.
//!
//! ```text
//!   handles ──lock──> sans-IO endpoint <──lock── driver <──> socket, timer (of a runtime)
//!      └── wakes the driver when there is something to send; it wakes them when there is news ──┘
//! ```
//!
//! There is no channel and no second buffer between a handle and the endpoint: reading and writing a stream is a call on the
//! sans-IO endpoint under one lock, and what does not fit stays with the caller. An adapter implements [`Socket`] with the
//! UDP socket and the timer of its runtime, and [`Runtime`], with which endpoints, relays, nodes and servers spawn their tasks, look up names and make connections over TCP.

mod active;
mod clock;
mod connection;
mod dispatch;
pub mod dist;
#[cfg(feature = "dns")]
mod dns;
mod driver;
mod endpoint;
mod error;
mod extension;
mod incoming;
#[cfg(feature = "futures-io")]
mod io_futures;
#[cfg(feature = "tokio")]
mod io_tokio;
pub mod key_file;
mod peer;
mod relay;
mod rpc;
mod runtime;
mod shards;
mod shared;
mod socket;
mod stream;
pub mod tcp;
mod udp;
mod waiters;

pub use active::{Active, ActiveStream, StreamEvent};
pub use connection::{Connecting, Connection};
pub use driver::{Driver, Socket};
pub use endpoint::{Endpoint, Options, start, start_with};
pub use error::{ConnectError, ConnectionLost, ReadError, WriteError};
pub use extension::{Context, Extension, RawStream};
pub use incoming::Incoming;
pub use peer::{Peer, PeerConnectError, PeerEnd};
pub use quinn_udp::UdpSockRef;
pub use relay::{NodeEvent, OpenError, RelayClient, RelayServer, RelaySnapshot, Resolve, Tunnel};
pub use rpc::{
    Call, CallControl, CallError, CallReceiver, CallSender, IntoValue, Overload, PingError, RpcClient, RpcConnectError,
    RpcServer, RpcServerConfig, ServerCall,
};
pub use runtime::Runtime;
pub use shards::start_shards;
pub use shared::DriverStats;
pub use socket::{SocketOptions, bind};
pub use stream::{RecvStream, SendStream, Stream};

/// 32 bytes from the operating system's generator, for keys and seeds.
///
/// # Errors
/// When the system has no randomness to give.
pub fn entropy() -> std::io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
    Ok(bytes)
}
