//! The Erlang external term format: what `term_to_binary` writes, and what distribution messages are made of.
//!
//! A [`Term`] is decoded with [`decode`], which expects the version byte 131 in front, or term by term with a [`TermReader`],
//! as the messages behind a distribution header need it: those have no version byte, and name atoms by their place in the
//! header. [`encode`] and [`encode_bare`] write with and without the version byte.
//!
//! Every tag is read that OTP 25 and later put on a connection, and the old ones they replaced: Latin-1 atoms become UTF-8,
//! floats in decimal digits become floats. Not read are compressed terms, functions of the form that ended with OTP 23, and terms
//! in a local form, which only the node that wrote them can read.
//!
//! | Erlang | [`Term`] |
//! |---|---|
//! | integers of up to 63 bits and a sign | [`Term::Int`] |
//! | other integers | [`Term::Big`] |
//! | `[]`, proper lists | [`Term::List`], or [`Term::String`] where the bytes came as such |
//! | `[a \| b]` | [`Term::ImproperList`] |
//! | binaries; bit strings of other lengths than whole bytes | [`Term::Binary`]; [`Term::Bits`] |
//!
//! Long binaries share the buffer they were decoded from.

mod big;
mod decode;
mod display;
mod encode;
mod ids;
mod order;
mod term;

pub use big::BigInt;
pub use decode::{TermReader, decode, decode_prefix};
pub use encode::{MAX_DEPTH, encode, encode_bare};
pub use ids::{Atom, AtomTooLong, Export, Fun, Pid, Port, Reference, TooManyWords};
pub use term::Term;

/// The byte in front of a term that stands alone.
pub const VERSION: u8 = 131;

pub(crate) mod tag {
    pub(crate) const NEW_FLOAT: u8 = 70;
    pub(crate) const BIT_BINARY: u8 = 77;
    pub(crate) const COMPRESSED: u8 = 80;
    pub(crate) const ATOM_CACHE_REF: u8 = 82;
    pub(crate) const NEW_PID: u8 = 88;
    pub(crate) const NEW_PORT: u8 = 89;
    pub(crate) const NEWER_REFERENCE: u8 = 90;
    pub(crate) const SMALL_INTEGER: u8 = 97;
    pub(crate) const INTEGER: u8 = 98;
    pub(crate) const FLOAT: u8 = 99;
    pub(crate) const ATOM: u8 = 100;
    pub(crate) const REFERENCE: u8 = 101;
    pub(crate) const PORT: u8 = 102;
    pub(crate) const PID: u8 = 103;
    pub(crate) const SMALL_TUPLE: u8 = 104;
    pub(crate) const LARGE_TUPLE: u8 = 105;
    pub(crate) const NIL: u8 = 106;
    pub(crate) const STRING: u8 = 107;
    pub(crate) const LIST: u8 = 108;
    pub(crate) const BINARY: u8 = 109;
    pub(crate) const SMALL_BIG: u8 = 110;
    pub(crate) const LARGE_BIG: u8 = 111;
    pub(crate) const NEW_FUN: u8 = 112;
    pub(crate) const EXPORT: u8 = 113;
    pub(crate) const NEW_REFERENCE: u8 = 114;
    pub(crate) const SMALL_ATOM: u8 = 115;
    pub(crate) const MAP: u8 = 116;
    pub(crate) const FUN: u8 = 117;
    pub(crate) const ATOM_UTF8: u8 = 118;
    pub(crate) const SMALL_ATOM_UTF8: u8 = 119;
    pub(crate) const V4_PORT: u8 = 120;
    pub(crate) const LOCAL: u8 = 121;
}

#[cfg(test)]
pub(crate) mod tests;
