use std::fmt;

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $number:literal, $name:literal;)+) => {
        /// The type of a message: the second byte of its header.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        #[non_exhaustive]
        pub enum Kind {
            $($(#[$doc])* $kind = $number,)+
        }

        impl Kind {
            /// All types, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$kind,)+];

            /// The type of this number. `None`: a message of it is passed over.
            pub const fn from_u8(number: u8) -> Option<Self> {
                match number {
                    $($number => Some(Self::$kind),)+
                    _ => None,
                }
            }

            /// The number on the wire.
            pub const fn as_u8(self) -> u8 {
                self as u8
            }

            /// The name, as deployed peers have it; for logs and counters.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)+
                }
            }
        }
    };
}

kinds! {
    /// Who is at the other end.
    Connect = 0x01, "connect";
    /// The sender is leaving.
    Disconnect = 0x02, "disconnect";
    /// Is the other end there?
    Ping = 0x03, "ping";
    /// It is.
    Pong = 0x04, "pong";
    /// An event for the subscribers of a topic.
    Publish = 0x10, "publish";
    /// Events of these topics are wanted.
    Subscribe = 0x11, "subscribe";
    /// They are no longer.
    Unsubscribe = 0x12, "unsubscribe";
    /// A call with one reply.
    Call = 0x20, "call";
    /// The reply.
    Reply = 0x21, "reply";
    /// A call without one.
    Cast = 0x22, "cast";
    /// The sender serves a procedure.
    RegisterProcedure = 0x26, "register_procedure";
    /// A streaming call begins.
    StreamOpen = 0x27, "stream_open";
    /// A chunk of one.
    StreamData = 0x28, "stream_data";
    /// Its sender sends no more.
    StreamEnd = 0x29, "stream_end";
    /// It failed.
    StreamError = 0x2A, "stream_error";
    /// What it came to.
    StreamReply = 0x2B, "stream_reply";
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
