//! The Macula mesh transport on smol: QUIC connections and streams, and peers ([`Endpoint`] dereferences to what has `connect_peer`,
//! `serve_peers` and `accept_peer`), under the same names as on tokio, with the byte stream traits of futures-io.
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

pub mod dist;
mod driver;
mod endpoint;

pub use endpoint::Endpoint;
/// Calls between programs: streaming in either or both directions, or one request and one reply.
///
/// A link carries them: a connection of its own ([`connect_rpc`](macula_driver::Endpoint::connect_rpc)), a peering connection
/// ([`Peer::rpc`](macula_driver::Peer::rpc)), or the process itself ([`local_rpc`](macula_driver::Endpoint::local_rpc)). Procedures are
/// [advertised](macula_driver::Endpoint::advertise) for all links of an endpoint, and served by whoever takes calls with
/// [`accept_call`](macula_driver::Endpoint::accept_call).
pub mod rpc {
    pub use macula_driver::{
        Call, CallControl, CallError, CallReceiver, CallSender, IntoValue, PingError, RpcClient, RpcConnectError,
        ServerCall,
    };
    pub use macula_proto::{
        endpoint::{RpcId, RpcInfo, UnknownLink},
        rpc::{
            Chunk, EncodingChoice, Fault, Info, Kind, Mode, Outcome, RpcConfig, RpcLimits, SendError, StreamId,
            session::{CallId, EndReason, OpenError, PeerHello, Request, SessionStats},
        },
        wire::{Encoding, Value, ValueError, from_value, to_value},
    };
}

pub use macula_driver::{
    Active, ActiveStream, ConnectError, Connecting, Connection, ConnectionLost, Context, DriverStats, Extension,
    Incoming, Options, Peer, PeerConnectError, PeerEnd, RawStream, ReadError, RecvStream, SendStream, SocketOptions,
    Stream, StreamEvent, WriteError, entropy,
};
pub use macula_proto::{
    self as proto, Code, Limits,
    endpoint::{PeerListenConfig, PeerServiceStats},
    quic::{
        Accept, AddressValidation, CloseListener, CloseReason, ConfigError, Congestion, ConnectionStats, DatagramSize,
        DialConfig, Dir, EndpointConfig, EndpointStats, ListenConfig, Side, StreamId, StreamStats, TransportConfig,
        alpn, tls,
    },
};
