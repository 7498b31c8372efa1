//! Sans-IO core of the Macula mesh transport: QUIC, and what the mesh runs on it.
//!
//! Nodes that cannot reach each other, because each sits behind a NAT, keep one QUIC connection each to a *relay*, and
//! open *tunnels* to each other by name. What goes through a tunnel is a stream of bytes: an Erlang cluster, a database, any TCP
//! service. This crate is all of that (nodes, relays, plain QUIC connections) without a socket, a thread, a timer or a
//! runtime. Programs on tokio or smol use the crates `macula-tokio` and `macula-smol`; this one is for whoever has an event
//! loop of their own, a simulator, or a fuzzer.
//!
//! # The picture
//!
//! ```text
//!              your socket and clock                       your program
//!   datagrams ──> handle_datagram ──┐                  ┌──> poll_event ──> tunnels, streams, reports
//!   the time  ──> handle_timeout  ──┤     Endpoint     │
//!   datagrams <── poll_transmit   <─┤                  ├<── relay_client, open_tunnel, serve_relay ..
//!   sleep until   poll_timeout    <─┘                  └<── quic().connection(..)?.stream(..)? read, write, finish
//! ```
//!
//! | module | what is in it | |
//! |---|---|---|
//! | [`endpoint`] | [`Endpoint`]: everything that shares one UDP socket, and which machine runs which connection | `quic` |
//! | [`quic`] | connections, streams, TLS: the transport, for use without any of the machines too | `quic` |
//! | [`tunnel`] | the machines of relays and of their clients | |
//! | [`peering`] | the machine of a peering connection: who is at the other end, proved by signatures | |
//! | [`rpc`] | the machines of streaming calls: one side of a call, all calls of a link, the router between nodes | |
//! | [`dist`] | the machines of Erlang distribution: a Rust program as a node among Erlang nodes | |
//! | [`identity`] | keys, node ids, signatures | |
//! | [`wire`] | bytes to values and back | |
//! | `sim` | worlds of endpoints in virtual time, for tests | `sim` |
//! | [`limits`] | [`Limits`]: every cap in one place | |
//! | [`codes`] | [`Code`]: the application error codes that connections are closed and streams reset with | |
//!
//! The rooms marked `quic` need that feature, which is on unless it is turned off. All others know neither sockets nor QUIC: they
//! are handed bytes, and say which to send. With `default-features = false` they are all there is, without quinn-proto,
//! rustls, ring or any other C, and build for every target with a standard library, `wasm32-unknown-unknown` included. (There the
//! codecs and keys are of use; the machines are handed [`Instant`](std::time::Instant)s, which a program on that target cannot make.
//! On `wasm32-wasip1` it can.)
//!
//! # The contract
//!
//! - **Order.** After any input (a datagram, a time-out, an operation): [`poll_event`](Endpoint::poll_event) until there is
//!   none, then [`poll_transmit`](Endpoint::poll_transmit) until there is none, then sleep until
//!   [`poll_timeout`](Endpoint::poll_timeout) or the next input. Nothing happens in between: an endpoint that is left alone
//!   does nothing, and an idle one costs nothing.
//! - **Time** is an argument, [`Now`]: the monotonic clock, which must not go back, and the wall clock, which only
//!   certificates and time stamps in frames are compared with. The answer of `poll_timeout` is an absolute instant, found in
//!   constant time, and lies behind the `now` of the last [`handle_timeout`](Endpoint::handle_timeout) as soon as everything
//!   was polled, so waiting for it cannot spin.
//! - **Randomness** of the machines comes from the bytes handed in at construction, so that the same seed and the same inputs
//!   give the same ids and the same jitter.
//! - **Peers** cannot cause an `Err` or a panic. What they do wrong becomes a close code, an event and a counter. A
//!   `Result` tells about the caller's own mistake, or that something is not possible *now*, in which case the event to
//!   wait for is named in its documentation.
//! - **Handles** are generational. One of a connection that is gone is an error, never another connection.
//! - **Bytes** are pulled. A stream that nobody reads fills its window and then stops its sender, and nobody else. Every
//!   buffer in here has a cap in [`Limits`] or in the [`TransportConfig`](quic::TransportConfig).
//!
//! # One event loop
//!
//! A node on a blocking socket of the standard library. It connects to a relay, opens a tunnel to the node named `bob`, asks
//! something and prints the answer. Nothing else is needed: reconnects, time-outs and keep-alives all happen in the calls
//! below. A longer version, which also takes tunnels from others, is `examples/blocking_node.rs`; `examples/in_memory.rs`
//! wires a relay and two nodes in memory.
//!
//! ```no_run
//! use std::{
//!     error::Error, fs::File, io::{ErrorKind, Read, Write}, net::{ToSocketAddrs, UdpSocket}, num::NonZeroUsize,
//!     time::{Duration, Instant, SystemTime, UNIX_EPOCH},
//! };
//!
//! use bytes::{Bytes, BytesMut};
//! use macula_proto::{
//!     Endpoint, Event, Limits, Now,
//!     endpoint::{ClientEvent, RelayClientConfig},
//!     quic::{self, DatagramMeta, EndpointConfig, alpn, tls::{ClientTls, Trust}},
//!     tunnel::{Name, client::supervisor::Report},
//! };
//!
//! fn now() -> Now {
//!     let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
//!     Now::new(Instant::now(), unix.as_millis() as u64)
//! }
//!
//! fn main() -> Result<(), Box<dyn Error>> {
//!     let mut entropy = [0; 32];
//!     File::open("/dev/urandom")?.read_exact(&mut entropy)?;
//!     let mut config = EndpointConfig::default();
//!     config.unfragmented = false; // This socket does not set "don't fragment".
//!     let mut endpoint = Endpoint::new(&config, Limits::default(), entropy)?;
//!
//!     // Whom to trust: here, the relay whose certificate has this SHA-256.
//!     let pin = std::env::args().nth(1).ok_or("no pin")?.parse()?;
//!     let tls = ClientTls::new(Trust::Pins(vec![pin])).alpn([alpn::MACULA_DIST]).build(endpoint.quic().clock())?;
//!     let config = RelayClientConfig::new("alice", vec!["relay.example:4434".parse()?], tls);
//!     let node = endpoint.relay_client(now(), config)?;
//!
//!     let socket = UdpSocket::bind("0.0.0.0:0")?;
//!     let one = NonZeroUsize::MIN; // A plain socket sends one datagram a call.
//!     let (mut incoming, mut outgoing) = (vec![0; 65_535], Vec::new());
//!     loop {
//!         // What happened.
//!         while let Some(event) = endpoint.poll_event(now()) {
//!             let (conn, stream) = match event {
//!                 Event::Client { event: ClientEvent::Resolve { attempt, address }, .. } => {
//!                     let found = (address.host.as_str(), address.port).to_socket_addrs();
//!                     let found: Vec<_> = found.into_iter().flatten().filter(|address| address.is_ipv4()).collect();
//!                     endpoint.resolved(now(), node, attempt, &found)?;
//!                     continue;
//!                 }
//!                 Event::Client { event: ClientEvent::Relay(Report::Up { .. }), .. } => {
//!                     endpoint.open_tunnel(now(), node, Name::from("bob"))?;
//!                     continue;
//!                 }
//!                 Event::Client { event: ClientEvent::Failed { error, .. }, .. } => return Err(error.into()),
//!                 Event::Client { event: ClientEvent::Opened { conn, stream, .. }, .. } => {
//!                     let mut tunnel = endpoint.quic().stream(conn, stream)?;
//!                     tunnel.enqueue(Bytes::from_static(b"how are you?"))?;
//!                     tunnel.finish()?;
//!                     (conn, stream)
//!                 }
//!                 Event::Quic(quic::Event::Readable { conn, stream }) => (conn, stream),
//!                 _ => continue,
//!             };
//!             // All there is: only then the next Readable comes.
//!             let mut tunnel = endpoint.quic().stream(conn, stream)?;
//!             let mut heard = Vec::new();
//!             let ended = tunnel.read_available(|bytes| heard.extend_from_slice(&bytes))?;
//!             std::io::stdout().write_all(&heard)?;
//!             if ended {
//!                 return Ok(());
//!             }
//!         }
//!         // What has to be sent. A datagram that cannot be is one that got lost.
//!         while let Some(transmit) = endpoint.poll_transmit(now(), one, &mut outgoing) {
//!             let _ = socket.send_to(&outgoing, transmit.destination);
//!         }
//!         // Sleep until something arrives or is due.
//!         let due = endpoint.poll_timeout().map(|at| at.saturating_duration_since(Instant::now()));
//!         socket.set_read_timeout(due.map(|due| due.max(Duration::from_micros(1))))?;
//!         match socket.recv_from(&mut incoming) {
//!             Ok((size, from)) => {
//!                 let data = BytesMut::from(&incoming[..size]);
//!                 endpoint.handle_datagram(now(), DatagramMeta::from(from), data);
//!             }
//!             // Nothing arrived in time, or an earlier datagram did not (ICMP), which the endpoint finds out by itself.
//!             Err(error) => match error.kind() {
//!                 ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {}
//!                 ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => {}
//!                 _ => return Err(error.into()),
//!             },
//!         }
//!         if endpoint.poll_timeout().is_some_and(|at| at <= Instant::now()) {
//!             endpoint.handle_timeout(now());
//!         }
//!     }
//! }
//! ```
//!
//! # Features
//!
//! | feature | default | what it adds |
//! |---|---|---|
//! | `quic` | yes | endpoints: the modules [`endpoint`] and [`quic`]. The features below imply it, except `serde` |
//! | `self-signed` | yes | self-signed certificates, made from a seed |
//! | `platform-roots` | no | trust in the roots of the operating system |
//! | `qlog` | no | qlog traces of connections |
//! | `serde` | no | [values](wire::Value) from and to types of serde |
//! | `sim` | no | endpoints that draw everything from a seed, for simulations |
//! | `aws-lc-rs` | no | cryptography by aws-lc-rs instead of ring |

pub mod codes;
mod deadlines;
pub mod dist;
#[cfg(feature = "quic")]
pub mod endpoint;
pub mod identity;
pub mod limits;
pub mod peering;
#[cfg(feature = "quic")]
pub mod quic;
pub mod rng;
pub mod rpc;
#[cfg(feature = "sim")]
pub mod sim;
pub mod time;
pub mod tunnel;
pub mod wall_clock;
pub mod wire;

pub use codes::Code;
#[cfg(feature = "quic")]
pub use endpoint::{Endpoint, Event};
pub use limits::Limits;
pub use rng::Rng;
pub use time::Now;
pub use wall_clock::WallClock;
