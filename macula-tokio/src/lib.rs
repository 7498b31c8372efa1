//! The Macula mesh transport on tokio: QUIC connections and streams, and what runs on them.
//!
//! An echo server and its client, who knows the server by its certificate's pin:
//!
//! ```
//! use macula_tokio::{
//!     DialConfig, Endpoint, ListenConfig, Options, entropy,
//!     tls::{ClientTls, Credentials, SelfSigned, ServerTls, Trust},
//! };
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let credentials = Credentials::self_signed(&entropy()?, &SelfSigned::default())?;
//! let pin = credentials.pin();
//!
//! let server = Endpoint::bind("127.0.0.1:0".parse()?, Options::default())?;
//! let tls = ServerTls::new(credentials).alpn(["echo"]).build(server.clock())?;
//! server.listen(ListenConfig::new(tls))?;
//! let address = server.local_addr();
//! tokio::spawn(async move {
//!     while let Some(connection) = server.accept().await {
//!         while let Ok(stream) = connection.accept_bi().await {
//!             tokio::spawn(async move {
//!                 let (mut send, mut recv) = stream.split();
//!                 tokio::io::copy(&mut recv, &mut send).await?;
//!                 send.shutdown().await
//!             });
//!         }
//!     }
//! });
//!
//! let client = Endpoint::bind("127.0.0.1:0".parse()?, Options::default())?;
//! let tls = ClientTls::new(Trust::Pins(vec![pin])).alpn(["echo"]).build(client.clock())?;
//! let connection = client.connect(&DialConfig::new(tls), address, "localhost").await?;
//! let mut stream = connection.open_bi().await?;
//! stream.write_all(b"hello").await?;
//! stream.shutdown().await?;
//! let mut answer = String::new();
//! stream.read_to_string(&mut answer).await?;
//! assert_eq!(answer, "hello");
//! # Ok(())
//! # }
//! ```
//!
//! All futures of this crate are cancellation-safe unless they say otherwise: dropping one loses nothing. Time-outs are
//! therefore `tokio::time::timeout` around them.

#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
pub mod dist;
mod driver;
mod endpoint;
mod relay;
pub mod rpc;
mod runtime;
pub mod tcp;

pub use endpoint::Endpoint;
pub use macula_driver::{
    Active, ActiveStream, ConnectError, Connecting, Connection, ConnectionLost, Context, DriverStats, Extension,
    Incoming, NodeEvent, OpenError, Options, Peer, PeerConnectError, PeerEnd, RawStream, ReadError, RecvStream,
    RelaySnapshot, SendStream, SocketOptions, Stream, StreamEvent, Tunnel, WriteError, entropy, key_file,
};
pub use macula_proto::{
    self as proto, Code, Limits,
    endpoint::{ParseAddressError, PeerListenConfig, PeerServiceStats, RelayAddress, RelayClientConfig},
    quic::{
        Accept, AddressValidation, CloseListener, CloseReason, ConfigError, Congestion, ConnectionStats, DatagramSize,
        DialConfig, Dir, EndpointConfig, EndpointStats, ListenConfig, Side, StreamId, StreamStats, TransportConfig,
        alpn, tls,
    },
};
pub use relay::{RelayClient, RelayServer};

/// The programs in the README and in `docs/`, so that they are compiled and run.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../../README.md")]
    mod readme {}
    #[doc = include_str!("../../docs/tokio.md")]
    mod tokio {}
    #[doc = include_str!("../../docs/peering.md")]
    mod peering {}
    #[doc = include_str!("../../docs/rpc.md")]
    mod rpc {}
    #[doc = include_str!("../../docs/embedding.md")]
    mod embedding {}
    #[doc = include_str!("../../docs/dist.md")]
    mod dist {}
}
