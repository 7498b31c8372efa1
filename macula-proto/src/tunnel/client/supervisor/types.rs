//! What the supervisor is told, and what it asks for.

use std::{fmt, time::Duration};

use crate::Code;

/// A relay: its place in the caller's list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelayIndex(pub usize);

/// One try to reach a relay, and the connection that came of it. Never used for a second try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt(pub u64);

/// Something that happened. Events of an attempt that is over are counted and otherwise ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Begin.
    Start,
    /// No connection came of an attempt, or its name could not be resolved.
    DialFailed {
        /// The attempt.
        attempt: Attempt,
    },
    /// The handshake of an attempt is complete.
    Connected {
        /// The attempt.
        attempt: Attempt,
    },
    /// The relay knows this node by its name.
    Identified {
        /// The attempt.
        attempt: Attempt,
    },
    /// The connection is gone, whoever closed it.
    Lost {
        /// The attempt.
        attempt: Attempt,
        /// The code it was closed with; `None` if it was not closed by an application.
        code: Option<Code>,
    },
    /// The time of [`poll_timeout`](super::Supervisor::poll_timeout) has come.
    Timeout,
    /// End.
    Stop,
}

/// Something to be done, in the order given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Resolve and dial a relay; answer with [`Event::Connected`] or [`Event::DialFailed`].
    Dial {
        /// The relay.
        relay: RelayIndex,
        /// To be named in all events about it.
        attempt: Attempt,
    },
    /// Give up an attempt: stop dialling, or close the connection if there is one.
    AbandonDial {
        /// The relay.
        relay: RelayIndex,
        /// The attempt.
        attempt: Attempt,
    },
    /// Tell the user.
    Report(Report),
}

/// Something the user may want to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Report {
    /// Nothing is dialled for a while.
    Waiting {
        /// The relay that is next, as things stand.
        relay: RelayIndex,
        /// For how long.
        duration: Duration,
        /// Whether the reason is that this process was starved.
        starved: bool,
    },
    /// A relay is being dialled.
    Dialling {
        /// The relay.
        relay: RelayIndex,
    },
    /// This node is reachable through a relay.
    Up {
        /// The relay.
        relay: RelayIndex,
    },
    /// An attempt, or the connection that came of it, is over.
    Down {
        /// The relay.
        relay: RelayIndex,
        /// Why.
        why: DownReason,
        /// Failures in a row of this relay, this one included.
        failures: u32,
    },
    /// The supervisor has stopped.
    Stopped,
}

/// Why an attempt is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DownReason {
    /// It could not be dialled.
    DialFailed,
    /// Dialling took too long.
    DialTimeout,
    /// The handshake was complete, but identifying took too long.
    IdentifyTimeout,
    /// The connection is gone; the code it was closed with, if any.
    Lost(Option<Code>),
}

impl fmt::Display for DownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DialFailed => "cannot be reached",
            Self::DialTimeout => "did not answer in time",
            Self::IdentifyTimeout => "did not take the name in time",
            Self::Lost(_) => "is lost",
        })
    }
}
