//! What both sides of a call tell each other, whatever carries it.

use std::fmt;

use bytes::Bytes;

use crate::wire::Value;

/// The id of a call: 16 bytes, chosen by its client.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub [u8; 16]);

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamId({self})")
    }
}

/// Who sends chunks in a call. Ends, errors and replies are not bound by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// The server alone.
    ServerStream,
    /// The client alone.
    ClientStream,
    /// Both.
    Bidi,
}

/// What its sender ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EndRole {
    /// It sends no more chunks.
    Send,
    /// The whole call.
    Both,
}

/// One message of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chunk {
    /// Bytes.
    Raw(Bytes),
    /// A term.
    Term(Value),
}

/// How a call went, by the server's word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It went well.
    Ok(Value),
    /// It did not.
    Err(Fault),
}

/// What went wrong. Neither field need be UTF-8: deployed peers do not check it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// One word for programs.
    pub code: Bytes,
    /// More about it for people.
    pub message: Option<Bytes>,
}

impl Fault {
    /// A fault with copies of these texts.
    pub fn new(code: impl AsRef<str>, message: impl AsRef<str>) -> Self {
        Self {
            code: Bytes::copy_from_slice(code.as_ref().as_bytes()),
            message: Some(Bytes::copy_from_slice(message.as_ref().as_bytes())),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code.escape_ascii())?;
        self.message
            .as_ref()
            .map_or(Ok(()), |message| write!(f, ": {}", message.escape_ascii()))
    }
}
