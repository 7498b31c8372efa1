//! `macula dist`: nodes of Erlang distribution.

pub(crate) mod args;
mod cookie;
mod dial;
mod events;
mod figures;
mod node;
mod processes;
mod streams;
mod teller;

use self::args::DistCommand;
use super::{events::Events, outcome::Outcome, signals::Signals};

pub(crate) async fn run(command: DistCommand, events: &Events, signals: &mut Signals) -> Outcome {
    match command {
        DistCommand::Node(args) => node::run(*args, events, signals).await,
    }
}
