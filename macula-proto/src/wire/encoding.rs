use super::{DecodeError, DecodeLimits, EncodeError, Value, cbor, msgpack};
use bytes::{Bytes, BytesMut};

/// The two encodings of maps that deployed peers use: MessagePack (relay 1.4 and RPC 1.5 generation, and the documented
/// one of the relay protocol) and CBOR (3.x generation). Neither generation understands the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Encoding {
    /// MessagePack, byte strings as `bin`.
    MessagePack,
    /// Ordinary CBOR.
    Cbor,
}

impl Encoding {
    /// The encoding of a payload that is a map, told by its first byte.
    ///
    /// MessagePack maps begin with 0x80..=0x8F, 0xDE or 0xDF; CBOR maps with 0xA0..=0xBB or 0xBF, or with a tag,
    /// 0xC0..=0xDB. `None` for any other byte: such a payload is a map in neither.
    pub const fn detect(first: u8) -> Option<Self> {
        match first {
            0x80..=0x8F | 0xDE | 0xDF => Some(Self::MessagePack),
            0xA0..=0xBB | 0xBF | 0xC0..=0xDB => Some(Self::Cbor),
            _ => None,
        }
    }

    /// Decodes one value that takes up all of `bytes`; see [`cbor::decode`] and [`msgpack::decode`].
    ///
    /// # Errors
    /// Whatever is not one well-formed value within `limits`.
    pub fn decode(self, bytes: &Bytes, limits: &DecodeLimits) -> Result<Value, DecodeError> {
        match self {
            Self::MessagePack => msgpack::decode(bytes, limits),
            Self::Cbor => cbor::decode(bytes, limits),
        }
    }

    /// Appends `value`; see [`cbor::encode`] and [`msgpack::encode`].
    ///
    /// # Errors
    /// A value that no receiver could take; `out` is then as it was before.
    pub fn encode(self, value: &Value, out: &mut BytesMut) -> Result<(), EncodeError> {
        match self {
            Self::MessagePack => msgpack::encode(value, out),
            Self::Cbor => cbor::encode(value, out),
        }
    }
}
