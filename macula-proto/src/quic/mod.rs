//! QUIC over quinn-proto: the only room that names it.
//!
//! [`Endpoint`] is everything that shares one UDP socket, as a machine without a socket. Whoever embeds it hands in
//! datagrams and the time, and takes datagrams and events out:
//!
//! ```text
//!   datagrams ──> handle_datagram ─┐                ┌─> poll_event ────> connected, readable, closed ..
//!   the clock ──> handle_timeout ──┤    Endpoint    ├─> poll_transmit ─> datagrams
//!   operations ─> connection(..) ──┘                └─> poll_timeout ──> when to come back
//! ```
//!
//! After any input: poll events until there are none, then datagrams until there are none, then sleep until the
//! time-out or the next input. [`Connection`] and [`Stream`] are borrowed for a few operations and hold nothing.

mod accept;
pub mod alpn;
mod blocks;
mod cids;
mod close;
mod config;
mod congestion;
mod conn;
mod connect_error;
mod connection;
mod endpoint;
mod event;
mod handle;
#[cfg(feature = "qlog")]
mod qlog;
mod reset;
mod shard;
#[cfg(feature = "sim")]
mod simulated;
mod slots;
mod stats;
mod stream;
mod stream_state;
pub mod tls;
mod turns;

pub use accept::{CloseListener, UnknownIncoming};
pub use close::Closable;
pub use config::{
    Accept, AddressValidation, ConfigError, Congestion, DatagramSize, DialConfig, EndpointConfig, ListenConfig,
    TransportConfig,
};
pub use connect_error::ConnectError;
pub use connection::{Connection, OpenError, UnknownConnection, UnknownStream};
pub use endpoint::{DatagramMeta, Endpoint, Transmit};
pub use event::{CloseReason, Event};
pub use handle::{ConnectionHandle, Dir, IncomingHandle, Owner, Side, StreamId};
#[cfg(feature = "qlog")]
pub use qlog::Qlog;
pub use reset::ResetKey;
pub use shard::{Shard, Stray};
pub use stats::{ConnectionStats, EndpointStats, StreamStats};
pub use stream::{ClosedStream, EnqueueError, ReadError, Stream, WriteError, Written};
pub use stream_state::Active;
