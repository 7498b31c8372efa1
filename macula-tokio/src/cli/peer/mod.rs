//! `macula peer`: peering connections, taken and made.

pub(crate) mod args;
mod connect;
mod events;
mod listen;
mod source;

use std::{path::Path, sync::Arc, time::Duration};

use macula_proto::{Rng, identity::Identity, peering::PeeringConfig, quic::TransportConfig, wire::frame::Text};

use self::{
    args::{PeerCommand, PeerNodeArgs},
    events::PeerEvent,
};
use super::{
    events::Events,
    outcome::{Failure, Outcome},
    signals::Signals,
};
use crate::key_file;

/// What GOODBYE says when there is nothing wrong.
pub(super) const LEAVING: Text = Text::from_static("operator_stop");

pub(crate) async fn run(command: PeerCommand, events: &Events, signals: &mut Signals) -> Outcome {
    match command {
        PeerCommand::Listen(args) => listen::run(*args, events, signals).await,
        PeerCommand::Connect(args) => connect::run(*args, events, signals).await,
    }
}

/// Who this node is and whom it takes; says so.
fn peering(args: &PeerNodeArgs, events: &Events) -> Result<PeeringConfig, Failure> {
    let identity = identity(args.identity.as_deref())?;
    let event = PeerEvent::Identity {
        node_id: identity.node_id().to_string(),
        fresh: args.identity.is_none(),
    };
    event.tell(events);
    let mut config = PeeringConfig::new(Arc::new(identity));
    config.binding = args.binding.into();
    config.clock_skew = args.max_skew;
    config.puzzle_difficulty = args.puzzle;
    config.limits.peering_handshake_timeout = args.timeout;
    Ok(config)
}

/// That of a key file, or a new one.
pub(super) fn identity(file: Option<&Path>) -> Result<Identity, Failure> {
    let Some(path) = file else {
        let entropy = crate::entropy().map_err(|error| Failure::failed("entropy", error))?;
        return Ok(Identity::generate(&mut Rng::from_entropy(entropy)));
    };
    key_file::load(path).map_err(|error| Failure::failed("key", format_args!("{}: {error}", path.display())))
}

/// A connection that is kept alive often enough for its idle time-out.
fn transport(idle: Duration) -> TransportConfig {
    let mut transport = TransportConfig::peering();
    transport.idle_timeout = Some(idle);
    transport.keep_alive = transport.keep_alive.map(|often| often.min(idle / 3));
    transport
}
