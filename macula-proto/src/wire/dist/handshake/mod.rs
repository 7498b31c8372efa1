//! The messages of the distribution handshake, version 6.
//!
//! | dialler | | acceptor |
//! |---|---|---|
//! | [`Name`]: who it is | `->` | |
//! | | `<-` | [`Status`]: whether it may go on |
//! | [`Status::True`] or [`Status::False`], only as the answer to [`Status::Alive`] | `->` | |
//! | | `<-` | [`Challenge`]: who the other one is, and a number |
//! | [`Complement`], only behind a name of the old form | `->` | |
//! | [`Reply`]: proof for that number, and another number | `->` | |
//! | | `<-` | [`Ack`]: proof for the other number |
//!
//! A proof is the [`Digest`] of the cookie and the number. The old forms of name and challenge come from nodes that take the
//! other one for an old node.
//!
//! Over TCP each message has a 16-bit length in front. Over QUIC it has none, and the end of a message follows from its
//! contents; [`Parser`] finds it however the bytes are joined or split, but for the old form of the name.
//!
//! A dialler without a name sets [`Flags::NAME_ME`] and sends its host in place of its name; [`Status::Named`] is then the acceptor's
//! answer in place of [`Status::Ok`].

mod digest;
mod parser;

use bytes::{BufMut, BytesMut};
use thiserror::Error;

pub use digest::{Cookie, Digest};
pub use parser::{Carrier, Parser};

use super::Flags;
use crate::wire::etf::Atom;

/// The version of the handshake.
pub const VERSION: u16 = 6;
/// The version that stands in the old forms.
const OLD_VERSION: u16 = 5;

/// Longest handshake message, in bytes.
pub const MAX_MESSAGE: usize = 2048;

/// Which side sent a message: names and challenges of both begin with the same byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sender {
    /// The side that opened the connection.
    Dialler,
    /// The other side.
    Acceptor,
}

/// A handshake message.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Message {
    /// `N` from the dialler.
    Name(Name),
    /// `n` from the dialler.
    OldName(OldName),
    /// `s` from either side.
    Status(Status),
    /// `N` from the acceptor.
    Challenge(Challenge),
    /// `n` from the acceptor.
    OldChallenge(OldChallenge),
    /// `c` from the dialler.
    Complement(Complement),
    /// `r` from the dialler.
    Reply(Reply),
    /// `a` from the acceptor.
    Ack(Ack),
}

/// Who the dialler is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// What it can do.
    pub flags: Flags,
    /// Which run of the node this is.
    pub creation: u32,
    /// Its name, or its host alone with [`Flags::NAME_ME`].
    pub name: Atom,
}

/// Who the dialler is, in the form before OTP 23.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OldName {
    /// The lower 32 of its flags.
    pub flags: Flags,
    /// Its name.
    pub name: Atom,
}

/// Whether the dialler may go on, and for [`Status::Alive`] the dialler's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// It may.
    Ok,
    /// It may, and the acceptor gives up the connection that it was about to open itself.
    OkSimultaneous,
    /// It may not: the acceptor's own connection to it is on its way.
    Nok,
    /// It may not, for some other reason.
    NotAllowed,
    /// The acceptor has a connection to a node of that name. Is it dead?
    Alive,
    /// It may, under this name, as it has none of its own.
    Named {
        /// The name.
        name: Atom,
        /// Which run of the node this is.
        creation: u32,
    },
    /// From the dialler: the connection that the acceptor has is dead.
    True,
    /// From the dialler: leave it as it is.
    False,
}

/// Who the acceptor is, and what the dialler has to prove itself with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// What it can do.
    pub flags: Flags,
    /// The number.
    pub challenge: u32,
    /// Which run of the node this is.
    pub creation: u32,
    /// Its name.
    pub name: Atom,
}

/// As [`Challenge`], in the form before OTP 23.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OldChallenge {
    /// The lower 32 of its flags.
    pub flags: Flags,
    /// The number.
    pub challenge: u32,
    /// Its name.
    pub name: Atom,
}

/// What an old name left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Complement {
    /// The upper 32 of the dialler's flags, as bits 32 to 63.
    pub flags: Flags,
    /// Which run of the node this is.
    pub creation: u32,
}

/// The dialler's proof, and what the acceptor has to prove itself with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The number.
    pub challenge: u32,
    /// The proof for the acceptor's number.
    pub digest: Digest,
}

/// The acceptor's proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack {
    /// The proof for the dialler's number.
    pub digest: Digest,
}

/// Why bytes are no handshake message. The connection is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HandshakeDecodeError {
    /// No message of this side begins with this byte.
    #[error("no handshake message begins with {0:#04x}")]
    Tag(u8),
    /// No such status.
    #[error("an unknown status")]
    Status,
    /// Its length is not that of its kind.
    #[error("a handshake message of the wrong length")]
    Length,
    /// A name that is no atom: empty, not UTF-8, or too long.
    #[error("a bad node name")]
    Name,
    /// A challenge of the old form where there is no length in front, so that its end cannot be known.
    #[error("a handshake message of the old form without a length")]
    OldForm,
    /// Zeros that are no tick.
    #[error("zero bytes that are not a tick")]
    Tick,
    /// Longer than any message.
    #[error("a handshake message of {0} bytes")]
    TooLong(usize),
}

const OK: &[u8] = b"ok";
const FROM_ACCEPTOR: [(&[u8], Status); 5] = [
    (OK, Status::Ok),
    (b"ok_simultaneous", Status::OkSimultaneous),
    (b"nok", Status::Nok),
    (b"not_allowed", Status::NotAllowed),
    (b"alive", Status::Alive),
];
const FROM_DIALLER: [(&[u8], Status); 2] = [(b"true", Status::True), (b"false", Status::False)];
const NAMED: &[u8] = b"named:";

/// The texts of the statuses that a side sends, but for the one with a name in it.
fn statuses(from: Sender) -> &'static [(&'static [u8], Status)] {
    match from {
        Sender::Acceptor => &FROM_ACCEPTOR,
        Sender::Dialler => &FROM_DIALLER,
    }
}

impl Message {
    /// Reads a complete message. What stands behind the name of a name, challenge or status is passed over, as a later version may
    /// put something there.
    ///
    /// # Errors
    /// [`HandshakeDecodeError`].
    pub fn decode(from: Sender, message: &[u8]) -> Result<Self, HandshakeDecodeError> {
        let (tag, rest) = message.split_first().ok_or(HandshakeDecodeError::Length)?;
        let mut input = Input(rest);
        let decoded = match (from, tag) {
            (Sender::Dialler, b'N') => {
                return Ok(Self::Name(Name {
                    flags: input.flags()?,
                    creation: input.u32()?,
                    name: input.name()?,
                }));
            }
            (Sender::Acceptor, b'N') => {
                return Ok(Self::Challenge(Challenge {
                    flags: input.flags()?,
                    challenge: input.u32()?,
                    creation: input.u32()?,
                    name: input.name()?,
                }));
            }
            (Sender::Dialler, b'n') => {
                input.u16()?;
                Self::OldName(OldName {
                    flags: input.half_flags()?,
                    name: input.rest_name()?,
                })
            }
            (Sender::Acceptor, b'n') => {
                input.u16()?;
                let (flags, challenge) = (input.half_flags()?, input.u32()?);
                Self::OldChallenge(OldChallenge {
                    flags,
                    challenge,
                    name: input.rest_name()?,
                })
            }
            (Sender::Acceptor, b's') if rest.starts_with(NAMED) => {
                input.take(NAMED.len())?;
                let (name, creation) = (input.name()?, input.u32()?);
                return Ok(Self::Status(Status::Named { name, creation }));
            }
            (_, b's') => {
                let known = statuses(from).iter().find(|(text, _)| *text == rest);
                let (_, status) = known.ok_or(HandshakeDecodeError::Status)?;
                return Ok(Self::Status(status.clone()));
            }
            (Sender::Dialler, b'c') => {
                let flags = Flags::from_bits(u64::from(input.u32()?) << 32);
                Self::Complement(Complement {
                    flags,
                    creation: input.u32()?,
                })
            }
            (Sender::Dialler, b'r') => Self::Reply(Reply {
                challenge: input.u32()?,
                digest: input.digest()?,
            }),
            (Sender::Acceptor, b'a') => Self::Ack(Ack {
                digest: input.digest()?,
            }),
            (_, tag) => return Err(HandshakeDecodeError::Tag(*tag)),
        };
        if input.0.is_empty() {
            Ok(decoded)
        } else {
            Err(HandshakeDecodeError::Length)
        }
    }

    /// Appends the message, without a length in front.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Name(name) => {
                out.put_u8(b'N');
                out.put_u64(name.flags.bits());
                out.put_u32(name.creation);
                put_name(&name.name, out);
            }
            Self::Challenge(challenge) => {
                out.put_u8(b'N');
                out.put_u64(challenge.flags.bits());
                out.put_u32(challenge.challenge);
                out.put_u32(challenge.creation);
                put_name(&challenge.name, out);
            }
            Self::OldName(name) => {
                out.put_u8(b'n');
                out.put_u16(OLD_VERSION);
                out.put_u32(name.flags.bits() as u32);
                out.put_slice(name.name.as_bytes());
            }
            Self::OldChallenge(challenge) => {
                out.put_u8(b'n');
                out.put_u16(OLD_VERSION);
                out.put_u32(challenge.flags.bits() as u32);
                out.put_u32(challenge.challenge);
                out.put_slice(challenge.name.as_bytes());
            }
            Self::Status(status) => {
                out.put_u8(b's');
                match status {
                    Status::Named { name, creation } => {
                        out.put_slice(NAMED);
                        put_name(name, out);
                        out.put_u32(*creation);
                    }
                    status => out.put_slice(status.text()),
                }
            }
            Self::Complement(complement) => {
                out.put_u8(b'c');
                out.put_u32((complement.flags.bits() >> 32) as u32);
                out.put_u32(complement.creation);
            }
            Self::Reply(reply) => {
                out.put_u8(b'r');
                out.put_u32(reply.challenge);
                out.put_slice(reply.digest.as_bytes());
            }
            Self::Ack(ack) => {
                out.put_u8(b'a');
                out.put_slice(ack.digest.as_bytes());
            }
        }
    }

    /// What it is, in a word.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Name(_) => "name",
            Self::OldName(_) => "old_name",
            Self::Status(_) => "status",
            Self::Challenge(_) => "challenge",
            Self::OldChallenge(_) => "old_challenge",
            Self::Complement(_) => "complement",
            Self::Reply(_) => "reply",
            Self::Ack(_) => "ack",
        }
    }
}

impl Status {
    fn text(&self) -> &'static [u8] {
        match self {
            Self::Ok => OK,
            Self::OkSimultaneous => b"ok_simultaneous",
            Self::Nok => b"nok",
            Self::NotAllowed => b"not_allowed",
            Self::Alive => b"alive",
            Self::Named { .. } => NAMED,
            Self::True => b"true",
            Self::False => b"false",
        }
    }
}

fn put_name(name: &Atom, out: &mut BytesMut) {
    // An atom has at most 1,020 bytes.
    out.put_u16(name.len() as u16);
    out.put_slice(name.as_bytes());
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], HandshakeDecodeError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(HandshakeDecodeError::Length)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], HandshakeDecodeError> {
        self.take(N)?.try_into().map_err(|_| HandshakeDecodeError::Length)
    }

    fn u16(&mut self) -> Result<u16, HandshakeDecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, HandshakeDecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    fn flags(&mut self) -> Result<Flags, HandshakeDecodeError> {
        self.array().map(u64::from_be_bytes).map(Flags::from_bits)
    }

    fn half_flags(&mut self) -> Result<Flags, HandshakeDecodeError> {
        self.u32().map(u64::from).map(Flags::from_bits)
    }

    fn digest(&mut self) -> Result<Digest, HandshakeDecodeError> {
        self.array().map(Digest::from_bytes)
    }

    fn name(&mut self) -> Result<Atom, HandshakeDecodeError> {
        let length = self.u16()?.into();
        name(self.take(length)?)
    }

    fn rest_name(&mut self) -> Result<Atom, HandshakeDecodeError> {
        name(std::mem::take(&mut self.0))
    }
}

fn name(bytes: &[u8]) -> Result<Atom, HandshakeDecodeError> {
    let text = std::str::from_utf8(bytes).ok().filter(|text| !text.is_empty());
    text.and_then(|text| Atom::new(text).ok())
        .ok_or(HandshakeDecodeError::Name)
}

#[cfg(test)]
mod tests;
