//! Simulation: whole networks of endpoints in one process, in virtual time, and always the same for the same seed.
//!
//! A [`World`] has hosts, each with an [`Endpoint`](crate::Endpoint) that runs anything an endpoint can: a relay, nodes behind
//! it, peering, calls, Erlang distribution, plain connections. Between them are [`Link`]s with delay, jitter, limited bandwidth,
//! loss, reordering, duplication, corruption and a largest datagram; in front of them [`Nat`]s that forget and rebind. Hosts
//! stall, crash and come back, directions are cut and healed ([`Fault`]). Nothing sleeps: an hour of an idle world takes
//! milliseconds.
//!
//! For a test of a protocol of your own that means: no sockets, no ports, no flaky timing, thousands of runs with other seeds, and
//! when one of them fails, the same run again as often as needed.
//!
//! # A world
//!
//! ```
//! use std::time::Duration;
//!
//! use macula_proto::{
//!     Event,
//!     quic::{self, DialConfig, Dir, ListenConfig, ReadError, tls::{ClientTls, ServerTls, Trust}},
//!     sim::{Chance, Happening, HostConfig, Link, World},
//! };
//!
//! fn run(seed: u64) -> Result<(u128, Vec<u8>), Box<dyn std::error::Error>> {
//!     let mut world = World::new(seed);
//!     let (client, server) = (world.add(HostConfig::default())?, world.add(HostConfig::default())?);
//!     let lossy = Link { loss: Chance::percent(5.0), ..Link::with_delay(Duration::from_millis(30)) };
//!     world.set_link_between(client, server, lossy);
//!
//!     // Certificates are drawn from the seed too. TLS is built with the clock of the endpoint it is for.
//!     let credentials = world.credentials("server");
//!     let trust = Trust::Pins(vec![credentials.pin()]);
//!     world.with(server, |endpoint, _| -> Result<_, Box<dyn std::error::Error>> {
//!         let tls = ServerTls::new(credentials).alpn([b"hello"]).build(endpoint.quic().clock())?;
//!         Ok(endpoint.quic().listen(ListenConfig::new(tls))?)
//!     })??;
//!     let to = world.address(server);
//!     let conn = world.with(client, |endpoint, now| -> Result<_, Box<dyn std::error::Error>> {
//!         let tls = ClientTls::new(trust).alpn([b"hello"]).build(endpoint.quic().clock())?;
//!         Ok(endpoint.quic().connect(now, &DialConfig::new(tls), to, "server")?)
//!     })??;
//!
//!     let mut received = Vec::new();
//!     while let Some(happening) = world.next(Duration::from_secs(10)) {
//!         let Happening::Event { host, event: Event::Quic(event) } = happening else { continue };
//!         match event {
//!             quic::Event::Connected { .. } if host == client => {
//!                 world.with(client, |endpoint, _| -> Result<_, Box<dyn std::error::Error>> {
//!                     let mut conn = endpoint.quic().connection(conn)?;
//!                     let stream = conn.open(Dir::Uni)?;
//!                     conn.stream(stream)?.enqueue(vec![7; 100_000].into())?;
//!                     Ok(conn.stream(stream)?.finish()?)
//!                 })??;
//!             }
//!             quic::Event::StreamOpened { conn, stream } | quic::Event::Readable { conn, stream } => {
//!                 world.with(host, |endpoint, _| -> Result<_, Box<dyn std::error::Error>> {
//!                     let mut conn = endpoint.quic().connection(conn)?;
//!                     let mut stream = conn.stream(stream)?;
//!                     loop {
//!                         match stream.read_chunk(usize::MAX) {
//!                             Ok(Some(bytes)) => received.extend_from_slice(&bytes),
//!                             Ok(None) | Err(ReadError::Blocked) => return Ok(()),
//!                             Err(error) => return Err(error.into()),
//!                         }
//!                     }
//!                 })??;
//!             }
//!             _ => {}
//!         }
//!     }
//!     Ok((world.trace().digest(), received))
//! }
//!
//! let (trace, received) = run(1).unwrap();
//! assert_eq!(received, vec![7; 100_000]);
//! assert_eq!(trace, run(1).unwrap().0, "the same seed: the same bytes at the same moments");
//! assert_ne!(trace, run(2).unwrap().0);
//! ```
//!
//! # What makes two runs the same
//!
//! Endpoints read no clock and draw nothing from the operating system; simulated ones have even their TLS sessions' randomness from
//! the seed. Every purpose has draws of its own: loss on one link does not change when there is jitter on it, or another host. What
//! the program around does has to be the same as well: use [`World::rng`] for its choices, and iterate over no hash map.
//!
//! [`Trace::digest`] tells two runs apart, [`Trace::difference`] shows where they part, [`World::write_qlog`] writes what was kept for
//! other tools. All this holds for one build of a program; another version of this crate may send other datagrams.
//!
//! # What it costs
//!
//! Cryptography is real (only key exchanges are not), so that a datagram costs a few microseconds; hosts that have nothing to do cost
//! nothing.

mod chance;
mod clock;
mod digest;
mod fault;
mod host;
mod link;
mod nat;
mod qlog;
mod queue;
mod trace;
mod world;

pub use chance::Chance;
pub use fault::{DropReason, Fault};
pub use host::{DEFAULT_PORT, HostConfig, HostId, Port};
pub use link::{DEFAULT_QUEUE, Link};
pub use nat::{Nat, NatFilter};
pub use trace::{Detail, Difference, Record, Trace, What};
pub use world::{Happening, HostDown, Violation, World, WorldStats};
