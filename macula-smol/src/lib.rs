//! The Macula mesh transport on smol: QUIC connections and streams, and what runs on them, under the same names as on tokio, with
//! the byte stream traits of futures-io.
//!
//! An echo server and its client, who knows the server by its certificate's pin:
//!
//! ```
//! use macula_smol::{
//!     DialConfig, Endpoint, ListenConfig, Options, entropy,
//!     tls::{ClientTls, Credentials, SelfSigned, ServerTls, Trust},
//! };
//! use smol::io::{AsyncReadExt, AsyncWriteExt};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # smol::block_on(async {
//! let credentials = Credentials::self_signed(&entropy()?, &SelfSigned::default())?;
//! let pin = credentials.pin();
//!
//! let server = Endpoint::bind("127.0.0.1:0".parse()?, Options::default())?;
//! let tls = ServerTls::new(credentials).alpn(["echo"]).build(server.clock())?;
//! server.listen(ListenConfig::new(tls))?;
//! let address = server.local_addr();
//! let echo = smol::spawn(async move {
//!     let connection = server.accept().await?;
//!     let (mut send, recv) = connection.accept_bi().await.ok()?.split();
//!     smol::io::copy(recv, &mut send).await.ok()?;
//!     send.close().await.ok()?;
//!     Some(connection.closed().await)
//! });
//!
//! let client = Endpoint::bind("127.0.0.1:0".parse()?, Options::default())?;
//! let tls = ClientTls::new(Trust::Pins(vec![pin])).alpn(["echo"]).build(client.clock())?;
//! let connection = client.connect(&DialConfig::new(tls), address, "localhost").await?;
//! let mut stream = connection.open_bi().await?;
//! stream.write_all(b"hello").await?;
//! stream.close().await?;
//! let mut answer = String::new();
//! stream.read_to_string(&mut answer).await?;
//! assert_eq!(answer, "hello");
//! drop((connection, stream));
//! assert!(echo.await.is_some());
//! # Ok(())
//! # })
//! # }
//! ```
//!
//! All futures of this crate are cancellation-safe unless they say otherwise: dropping one loses nothing. A time-out is therefore
//! [`or`](smol::future::or) with a [`Timer`](smol::Timer). Tasks run on smol's global executor (`SMOL_THREADS` says with how many
//! threads); the futures themselves may be polled by any.

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

/// The programs in `docs/`, so that they are compiled and run.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../../docs/smol.md")]
    mod smol {}
}
