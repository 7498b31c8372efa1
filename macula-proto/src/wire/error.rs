use thiserror::Error;

/// Why bytes are no value, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{kind} at byte {at}")]
pub struct DecodeError {
    /// What was wrong.
    pub kind: DecodeErrorKind,
    /// Offset in the decoded bytes at which the item with the fault begins, or at which more bytes were expected.
    pub at: usize,
}

impl DecodeError {
    pub(crate) fn new(kind: DecodeErrorKind, at: usize) -> Self {
        Self { kind, at }
    }
}

/// The ways in which bytes can fail to be a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DecodeErrorKind {
    /// The bytes end inside an item, or a length announces more than there are.
    #[error("the bytes end inside an item")]
    Truncated,
    /// Bytes follow the value.
    #[error("bytes follow the value")]
    Trailing,
    /// A head or marker that the encoding does not define, or defines for no place like this one.
    #[error("a byte that begins no item here")]
    Invalid,
    /// A well-formed item of a type that this decoder does not take.
    #[error("an item of a type that is not supported")]
    Unsupported,
    /// Text that is not UTF-8.
    #[error("text that is not UTF-8")]
    NotUtf8,
    /// An integer outside -2^63 .. 2^64 - 1.
    #[error("an integer beyond 64 bits")]
    IntegerRange,
    /// A float that is infinite or not a number. Erlang has no such floats, so no deployed peer can take one.
    #[error("a float that is not finite")]
    NotFinite,
    /// A map with the same key twice.
    #[error("a map with a key twice")]
    DuplicateKey,
    /// Deterministic CBOR only: a head longer than it has to be, or an indefinite length.
    #[error("not the shortest form")]
    NotShortest,
    /// Deterministic CBOR only: map keys that are not in ascending order of their encoded bytes.
    #[error("map keys out of order")]
    Unsorted,
    /// More nesting than allowed.
    #[error("nested deeper than the limit of {limit}")]
    TooDeep {
        /// Nesting allowed.
        limit: usize,
    },
    /// More items than allowed.
    #[error("more items than the limit of {limit}")]
    TooManyItems {
        /// Items allowed.
        limit: usize,
    },
}

/// Why a value cannot be written. Nothing of it has been written then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// A float that is infinite or not a number: Erlang has no such floats, and its decoders crash on them.
    #[error("a float that is not finite")]
    NotFinite,
    /// Deterministic CBOR has no negative integers.
    #[error("a negative integer in deterministic CBOR")]
    Negative,
    /// A map with the same key twice.
    #[error("a map with a key twice")]
    DuplicateKey,
    /// A string, array or map too long for a 32-bit length, which is all that MessagePack has.
    #[error("longer than a 32-bit length can say")]
    TooLong,
    /// Text that is not UTF-8, which receivers refuse.
    #[error("text that is not UTF-8")]
    NotUtf8,
    /// Nested deeper than receivers take.
    #[error("nested deeper than the limit of {limit}")]
    TooDeep {
        /// Nesting allowed.
        limit: usize,
    },
}
