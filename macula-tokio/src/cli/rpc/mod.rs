//! `macula rpc`: procedures that are served and called.

pub(crate) mod args;
mod builtin;
mod call;
mod connect;
mod events;
mod exec;
mod input;
mod json;

mod serve;
mod services;

use std::time::Duration;

use self::args::RpcCommand;
use super::{events::Events, outcome::Outcome, signals::Signals};

/// Calls on one link at once, and streams that a peer may open for them.
const MAX_CALLS: usize = 16_384;
/// How long the end of a connection is announced to peers that do not answer.
const FAREWELL: Duration = Duration::from_secs(1);

pub(crate) async fn run(command: RpcCommand, events: &Events, signals: &mut Signals) -> Outcome {
    match command {
        RpcCommand::Serve(args) => serve::run(*args, events, signals).await,
        RpcCommand::Call(args) => call::run(*args, events, signals).await,
    }
}
