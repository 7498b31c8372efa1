use bytes::Bytes;
use std::fmt;

/// Why a tunnel request failed.
///
/// Deployed relays use the first two, or the text of some Erlang term; the others are this implementation's.
#[derive(Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// No node of that name is connected.
    TargetNotConnected,
    /// The asking node has not identified itself.
    NotIdentified,
    /// One of the two nodes grants no further stream, and none came free in time.
    StreamLimit,
    /// The target was lost while the tunnel was being opened.
    TargetGone,
    /// The relay, or the target's share of it, is at a limit.
    Busy,
    /// The relay's rules forbid it.
    NotAllowed,
    /// The relay is going away and takes nothing new.
    Draining,
    /// The relay could not make sense of the request.
    BadRequest,
    /// Anything else, as it was sent. Make one with [`Reason::new`], so that known reasons never end up here.
    Other(Bytes),
}

impl Reason {
    /// The reason with these bytes.
    pub fn new(reason: Bytes) -> Self {
        Self::known(&reason).unwrap_or(Self::Other(reason))
    }

    /// The reason with a copy of these bytes.
    pub(super) fn copied(reason: &[u8]) -> Self {
        Self::known(reason).unwrap_or_else(|| Self::Other(Bytes::copy_from_slice(reason)))
    }

    fn known(reason: &[u8]) -> Option<Self> {
        Some(match reason {
            b"target_not_connected" => Self::TargetNotConnected,
            b"not_identified" => Self::NotIdentified,
            b"stream_limit" => Self::StreamLimit,
            b"target_gone" => Self::TargetGone,
            b"busy" => Self::Busy,
            b"not_allowed" => Self::NotAllowed,
            b"draining" => Self::Draining,
            b"bad_request" => Self::BadRequest,
            _ => return None,
        })
    }

    /// The bytes that go over the wire.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::TargetNotConnected => b"target_not_connected",
            Self::NotIdentified => b"not_identified",
            Self::StreamLimit => b"stream_limit",
            Self::TargetGone => b"target_gone",
            Self::Busy => b"busy",
            Self::NotAllowed => b"not_allowed",
            Self::Draining => b"draining",
            Self::BadRequest => b"bad_request",
            Self::Other(reason) => reason,
        }
    }
}

impl From<&str> for Reason {
    fn from(reason: &str) -> Self {
        Self::new(Bytes::copy_from_slice(reason.as_bytes()))
    }
}

/// The bytes themselves where they are printable ASCII; other bytes as `\x..`.
impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.as_bytes().escape_ascii())
    }
}

impl fmt::Debug for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reason({self})")
    }
}
