//! Calls between programs: streaming in either or both directions, or one request and one reply.
//!
//! A *link* carries calls: a connection of its own ([`connect_rpc`](macula_driver::Endpoint::connect_rpc)), a tunnel of a relay
//! ([`rpc_over`](macula_driver::Endpoint::rpc_over)), a peering connection ([`Peer::rpc`](crate::Peer::rpc)), or the process itself
//! ([`local_rpc`](macula_driver::Endpoint::local_rpc)). Either end makes calls and serves them. Procedures are advertised once, for all links of
//! an endpoint.
//!
//! ```
//! use macula_tokio::{
//!     DialConfig, Endpoint, ListenConfig, Options, alpn, entropy,
//!     rpc::{Chunk, Kind, Mode, RpcConfig, RpcServer, ServerCall, Value},
//!     tls::{ClientTls, Credentials, SelfSigned, ServerTls, Trust},
//! };
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let credentials = Credentials::self_signed(&entropy()?, &SelfSigned::default())?;
//! let pin = credentials.pin();
//!
//! let endpoint = Endpoint::bind("127.0.0.1:0".parse()?, Options::default())?;
//! let tls = ServerTls::new(credentials).alpn([alpn::MACULA]).build(endpoint.clock())?;
//! endpoint.listen(ListenConfig::new(tls))?;
//! endpoint.serve_rpc(RpcConfig::new([1; 32]));
//! let server = RpcServer::new(&endpoint);
//! server.advertise("sum", Mode::ClientStream, async |mut call: ServerCall| {
//!     let mut sum = 0;
//!     while let Some(number) = call.recv_as::<i64>().await? {
//!         sum += number;
//!     }
//!     Ok(Value::from(sum))
//! });
//! server.advertise("add", Kind::Unary, async |call: ServerCall| {
//!     let (a, b): (i64, i64) = call.args_as()?;
//!     Ok(Value::from(a + b))
//! });
//!
//! let near = Endpoint::bind("127.0.0.1:0".parse()?, Options::default())?;
//! let tls = ClientTls::new(Trust::Pins(vec![pin])).alpn([alpn::MACULA]).build(near.clock())?;
//! let dial = DialConfig::new(tls);
//! let client = near.connect_rpc(&dial, endpoint.local_addr(), "localhost", RpcConfig::new([2; 32])).await?;
//! let call = client.open("sum", Mode::ClientStream, ()).await?;
//! for number in [1, 2, 39] {
//!     call.send_term(&number).await?;
//! }
//! call.finish();
//! assert_eq!(call.reply().await?, Value::from(42u64));
//! assert_eq!(client.call_as::<i64>("add", &(40, 2)).await?, 42);
//! # Ok(())
//! # }
//! ```

use std::ops::Deref;

use macula_driver::Endpoint;

use crate::runtime::Tokio;

pub use macula_driver::{
    Call, CallControl, CallError, CallReceiver, CallSender, IntoValue, Overload, PingError, RpcClient, RpcConnectError,
    RpcServerConfig, ServerCall,
};
pub use macula_proto::{
    endpoint::{RpcId, RpcInfo, UnknownLink},
    rpc::{
        Chunk, EncodingChoice, Fault, Info, Kind, Mode, Outcome, RpcConfig, RpcLimits, SendError, StreamId,
        session::{CallId, EndReason, OpenError, PeerHello, Request, SessionStats},
    },
    wire::{Encoding, Value, ValueError, from_value, to_value},
};

/// Serves procedures of an endpoint with functions, on tokio: each call has its own task. It does what
/// [`macula_driver::RpcServer`] does, which it dereferences to.
#[derive(Debug, Clone)]
pub struct RpcServer(macula_driver::RpcServer);

impl RpcServer {
    /// A server with the default settings, on the runtime that this is called in.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn new(endpoint: &Endpoint) -> Self {
        Self::with_config(endpoint, RpcServerConfig::default())
    }

    /// A server with settings of one's own.
    ///
    /// # Panics
    /// As [`new`](Self::new).
    pub fn with_config(endpoint: &Endpoint, config: RpcServerConfig) -> Self {
        let server = macula_driver::RpcServer::spawn::<Tokio>(endpoint, config);
        Self(server.expect("called in a tokio runtime"))
    }
}

impl Deref for RpcServer {
    type Target = macula_driver::RpcServer;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}
