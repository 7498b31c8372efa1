//! Erlang nodes on tokio: a Rust program as a member of a cluster.
//!
//! A [`Node`] has a name and a cookie, listens for other nodes and connects to them, over the TCP connections that Erlang nodes
//! make by themselves, over any stream of bytes, or over QUIC. Its processes are [mailboxes](Mailbox).
//!
//! ```
//! use macula_tokio::dist::{Node, NodeConfig, Signal, atom};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let alice = Node::start(NodeConfig::new("alice@127.0.0.1", "secret"))?;
//! let mut greeter = alice.mailbox()?;
//! greeter.register("greeter")?;
//! let address = alice.listen("127.0.0.1:0".parse()?).await?;
//!
//! let bob = Node::start(NodeConfig::new("bob@127.0.0.1", "secret"))?;
//! bob.connect("alice@127.0.0.1", address).await?;
//! bob.send((atom("greeter")?, atom("alice@127.0.0.1")?), atom("hello")?).await?;
//!
//! let Some(Signal::Message { term, .. }) = greeter.recv().await else { panic!() };
//! assert!(term.is_atom("hello"));
//! assert!(bob.ping("alice@127.0.0.1").await);
//! # Ok(())
//! # }
//! ```
//!
//! The node says in the handshake that it is hidden, as C nodes do, so that Erlang's `global` leaves it alone: it is listed by
//! `nodes(hidden)`.
//!
//! Over QUIC there are streams of bytes beside the messages ([`DistStream`]), and the sessions of earlier connections are resumed; see
//! [`Node::bind_quic`]. [`Endpoint`](crate::Endpoint) has the connections themselves, for programs that bring their own protocol:
//! [`serve_dist`](macula_driver::Endpoint::serve_dist), [`connect_dist`](macula_driver::Endpoint::connect_dist) and
//! [`accept_dist`](macula_driver::Endpoint::accept_dist).

pub mod discovery;
pub mod epmd;
pub(crate) mod node;

pub use macula_driver::dist::{
    ControllerConfig, ControllerStats, DialError, DistAcceptor, DistConfig, DistConnection, DistEnd, DistId, DistInfo,
    DistRecvStream, DistSendStream, DistStat, DistStream, Failure, HandshakeConfig, LinkState, Owner, Priority,
    SendError, Side, StreamError, UserStream,
    node::{
        Admission, Atom, ByteReader, ByteWriter, Call, CallError, CommandError, ConnectError, DownReason, Events,
        Mailbox, NodeConfig, NodeEvent, NodeLimits, NodeStats, Pid, QuicConfig, QuicLink, Reference, RegisterError,
        Signal, Target, Term, atom,
    },
};
pub use node::Node;
