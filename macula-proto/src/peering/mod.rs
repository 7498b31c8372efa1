//! Peering connections: who is at the other end, and signed frames both ways.
//!
//! A peering connection is one bidirectional stream of one QUIC connection (ALPN `macula`), opened by the dialler, that carries
//! [frames](crate::wire::frame). The dialler says who it is in CONNECT, the acceptor answers with HELLO, both signed under the
//! node id inside them; then frames go both ways, until one side says GOODBYE.
//!
//! ```text
//! dialler                                    acceptor
//!   Fresh ── Dialling                          Fresh
//!     │ Start: OpenStream                        │ Start
//!   Opening                                    AwaitConnect ── CONNECT: Authorize
//!     │ StreamOpened: CONNECT                    │
//!   AwaitHello                                 Deciding ── Admit: HELLO, Connected
//!     │ HELLO: Connected                         │        └ Refuse: HELLO that does not accept
//!     └──────────────┬───────────────────────────┘
//!                    Up ── frames
//!    Close: GOODBYE  │    GOODBYE of the peer
//!        ┌───────────┴───────────┐
//!     Drain                    Leave (this side finishes its stream)
//!        └───────────┬───────────┘
//!                    ▼  the peer closes, or 5 s are over
//!                  Ended: one `Ended` action, whatever happened
//! ```
//!
//! - [`Peering`] is one end of one connection.
//! - [`Gate`] is an acceptor's door: how many connections may be in their handshake and how many connected, who may come in, and
//!   what happens when an identity comes twice.
//! - [`binding`] ties CONNECT and HELLO to the TLS session.
//!
//! Both machines take one event at a time and append what is to be done to the caller's list; they know no socket, no QUIC type
//! and not each other. What a connection sends is pulled as bytes when there is credit for it ([`Peering::poll_output`]).
//!
//! **Deployed peers** (version 4.3) lose complete frames that arrive in the same read behind CONNECT or HELLO. So the dialler
//! sends nothing after CONNECT before HELLO is in, and an acceptor's first frame after HELLO waits until HELLO has left in a packet
//! of its own, unless the peer sent a binding, which those do not. On this side nothing that arrives early is lost.

pub mod binding;
mod gate;
mod handshake;
mod machine;
mod outbox;
mod reason;
mod receive;
mod types;

pub use gate::{Duplicates, Gate, GateAction, GateConfig, GateEvent, GateStats, PeerConn};
pub use machine::Peering;
pub use reason::{BindingFault, EndReason, HandshakeError, SendFailure};
pub use types::{
    Action, BindingMode, Connected, Deliver, Event, Outgoing, PeeringConfig, PeeringStats, RealmRule, Received,
    Refusal, Role, SendError, TransportError, Verdict,
};
