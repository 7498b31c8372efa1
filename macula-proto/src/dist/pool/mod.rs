//! The data pool of a distribution connection over QUIC: the streams that carry messages.
//!
//! Each side sends over four streams of its own and receives over the four of the other side. A message is a length and its bytes,
//! on one stream; each stream is put together on its own. Messages of one stream stay in order; how they are spread over the
//! streams is the [`Ordering`]. Deployed nodes join all streams of the other side into one sequence of bytes, so towards
//! them everything has to go over one.
//!
//! A producer hands messages in with [`DataPool::send`], at most 16 of them for each [`Event::Wakeup`], and none while the pool is
//! congested: more waits in the transport, or in the pool, than the thresholds allow. What was taken is never dropped. What the
//! peer sends before the node is up is kept, within a limit, and delivered first.

mod machine;
mod outgoing;
mod types;

pub use machine::DataPool;
pub use types::{Action, Event, Fault, Ordering, PoolConfig, PoolStats, SendError};

#[cfg(test)]
mod tests;
