//! What makes a program a node: its processes, and what they and those of other nodes do to each other.
//!
//! A process here is a pid with a mailbox, from which its owner takes [signals](Signal). Processes are linked and monitored in
//! both directions, registered under names, and reached through aliases, as on an Erlang node. They all trap exits: the end
//! of a linked process is a [`Signal::Exit`] like any other, and only `exit(Pid, kill)` ends one from outside
//! ([`Action::Ended`]). Whoever asks for a process that is not there is told `noproc`; when a connection is lost, links and
//! monitors across it end with `noconnection`.
//!
//! A process called `net_kernel` is there from the beginning and answers `net_adm:ping`. Nothing can be spawned from
//! elsewhere (`notsup`), and group leaders are ignored. What is addressed to nobody is dropped and [counted](NodeStats).
//!
//! Connections are the owner's affair: it tells the node when one is [up](Event::Up), hands in messages as they come out of the
//! framing, and pulls those to be sent. No clock is needed. Mailboxes and what waits to be sent are bounded in bytes: the owner
//! reads a connection no further while [`Node::can_receive`] says no, which is how a process that takes nothing
//! makes those who send to it wait.

mod call;
mod commands;
mod inbound;
mod links;
mod machine;
mod monitors;
mod outgoing;
mod process;
mod types;

pub use call::Call;
pub use machine::Node;
pub use types::{Action, CommandError, Event, NodeConfig, NodeLimits, NodeStats, RegisterError, Signal, Target};

#[cfg(test)]
mod props;
#[cfg(test)]
mod tests;
