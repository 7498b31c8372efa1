//! Application close and stream error codes.
//!
//! Deployed peers always close with 0 and ignore every other code; between peers of this implementation the codes below
//! say why a connection was closed or a stream was reset. Codes of raw streams that pass through a relay are the users'
//! own and pass unchanged.

use std::fmt;

/// An application error code of QUIC: a 62-bit number that travels in CONNECTION_CLOSE, RESET_STREAM and STOP_SENDING.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Code(u64);

impl Code {
    /// Ordinary end.
    pub const CLOSED: Self = Self(0x0);
    /// The listener is going away.
    pub const SHUTDOWN: Self = Self(0x1);
    /// Nobody accepts what was asked for.
    pub const REFUSED: Self = Self(0x100);
    /// The peer sent what cannot be parsed, or sent it out of order.
    pub const PROTOCOL: Self = Self(0x101);
    /// A limit was reached.
    pub const LIMIT: Self = Self(0x102);
    /// The peer did not do in time what it had to do.
    pub const TIMEOUT: Self = Self(0x103);
    /// The peer may not do this.
    pub const NOT_ALLOWED: Self = Self(0x104);
    /// A newer connection took over the name or identity.
    pub const DISPLACED: Self = Self(0x105);
    /// This side failed.
    pub const INTERNAL: Self = Self(0x106);
    /// The other end of a tunnel lost its connection.
    pub const PEER_GONE: Self = Self(0x107);
    /// A forwarded TCP connection was reset.
    pub const TCP_RESET: Self = Self(0x108);
    /// The relay is draining: it takes nothing new.
    pub const DRAINING: Self = Self(0x109);
    /// The user of the operation gave it up.
    pub const CANCELLED: Self = Self(0x10A);

    /// Largest code that QUIC can carry: 2^62 - 1.
    pub const MAX: Self = Self((1 << 62) - 1);

    /// A code from its number; `None` above [`Code::MAX`].
    pub const fn new(code: u64) -> Option<Self> {
        if code <= Self::MAX.0 { Some(Self(code)) } else { None }
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The name of a code of this project; `None` for any other number.
    pub const fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::CLOSED => "closed",
            Self::SHUTDOWN => "shutdown",
            Self::REFUSED => "refused",
            Self::PROTOCOL => "protocol",
            Self::LIMIT => "limit",
            Self::TIMEOUT => "timeout",
            Self::NOT_ALLOWED => "not_allowed",
            Self::DISPLACED => "displaced",
            Self::INTERNAL => "internal",
            Self::PEER_GONE => "peer_gone",
            Self::TCP_RESET => "tcp_reset",
            Self::DRAINING => "draining",
            Self::CANCELLED => "cancelled",
            _ => return None,
        })
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "{:#x}", self.0),
        }
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Code({self})")
    }
}
