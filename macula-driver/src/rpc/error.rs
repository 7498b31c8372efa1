//! Why a call, or a link, came to nothing.

use macula_proto::{
    rpc::{
        Fault, RecvError, ReplyError, SendError,
        session::{EndReason, OpenError},
    },
    wire::ValueError,
};

use crate::ConnectError;

/// Why there is no link.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RpcConnectError {
    /// The dial could not start.
    #[error(transparent)]
    Dial(#[from] ConnectError),
    /// The dial or the greeting failed.
    #[error(transparent)]
    Ended(#[from] EndReason),
}

/// Why there is no pong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PingError {
    /// Links on peering connections, and the local one, have no pings.
    #[error("this kind of link has no pings")]
    Unsupported,
    /// The link is over.
    #[error(transparent)]
    Ended(#[from] EndReason),
}

/// What went wrong with a call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// It was not made.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The serving side's last word is that it failed. A streaming call that is settled like this is not over by that: chunks may
    /// still come.
    #[error("{0}")]
    Failed(Fault),
    /// It was given up: by either side, at its deadline (code `timeout`), or because the link was lost (code `disconnected`).
    #[error("{0}")]
    Aborted(Fault),
    /// There was no reply in time, on a unary call.
    #[error("no reply in time")]
    Timeout,
    /// It was closed by either side before there was a reply.
    #[error("the call was closed without a reply")]
    NoReply,
    /// This side sends no more: it said so, or the call is over.
    #[error("the sending side is closed")]
    SendClosed,
    /// This side sends no chunks in a call of this mode, or of this kind.
    #[error("this side sends no chunks in a call of this mode")]
    WrongMode,
    /// The side across, in the same process, is gone.
    #[error("the peer is gone")]
    PeerDown,
    /// A value is not what it was to be converted to, or from.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// The endpoint's driver has stopped.
    #[error("the endpoint has stopped")]
    Stopped,
}

impl CallError {
    /// One word for it: the code of a fault, as the peer or the protocol have it, or a word of that kind.
    pub fn code(&self) -> &str {
        match self {
            Self::Open(OpenError::NotFound) => "not_found",
            Self::Open(OpenError::NotUp) => "disconnected",
            Self::Open(OpenError::Busy) => "limit",
            Self::Open(_) => "bad_request",
            Self::Failed(fault) | Self::Aborted(fault) => fault.code_str().unwrap_or("error"),
            Self::Timeout => "timeout",
            Self::NoReply => "closed",
            Self::SendClosed => "send_closed",
            Self::WrongMode => "wrong_mode",
            Self::PeerDown => "peer_down",
            Self::Value(_) => "bad_value",
            Self::Stopped => "stopped",
        }
    }

    /// What went wrong in the words of the protocol, if it was told in those.
    pub fn fault(&self) -> Option<&Fault> {
        match self {
            Self::Failed(fault) | Self::Aborted(fault) => Some(fault),
            _ => None,
        }
    }
}

/// For handlers, which give up in turn: the same fault, or one that says what happened.
impl From<CallError> for Fault {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Failed(fault) | CallError::Aborted(fault) => fault,
            error => Self::new(error.code(), error.to_string()),
        }
    }
}

impl From<SendError> for CallError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::WrongMode => Self::WrongMode,
            _ => Self::SendClosed,
        }
    }
}

impl From<ReplyError> for CallError {
    fn from(error: ReplyError) -> Self {
        match error {
            ReplyError::Fault(fault) => Self::Aborted(fault),
            ReplyError::Timeout | ReplyError::WouldBlock => Self::Timeout,
            ReplyError::PeerDown => Self::PeerDown,
            _ => Self::NoReply,
        }
    }
}

/// What the end of receiving means: `None` for that of the data.
pub(super) fn end_of_data(error: RecvError) -> Option<CallError> {
    match error {
        RecvError::Eof => None,
        RecvError::Fault(fault) => Some(CallError::Aborted(fault)),
        RecvError::PeerDown => Some(CallError::PeerDown),
        _ => Some(CallError::Timeout),
    }
}
