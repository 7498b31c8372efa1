//! The distribution header: which atoms a message names, and which fragment of a message it is.
//!
//! Each direction of a connection has a cache of 2,048 atoms. A header lists up to 255 of them, by their place in the cache and,
//! when the sender changes a place, with the text of the atom that goes there. The terms behind the header name atoms by their
//! number in that list.

use bytes::Bytes;
use thiserror::Error;

use crate::wire::{
    DecodeError, DecodeErrorKind,
    etf::{self, Atom},
};

/// Tag of an ordinary header.
const NORMAL: u8 = 68;
/// Tag of the header of the first of several fragments.
pub(super) const FIRST_FRAGMENT: u8 = 69;
/// Tag of the header of the fragments behind it.
pub(super) const FRAGMENT: u8 = 70;
/// A message without header.
const PASS_THROUGH: u8 = 112;

/// The atoms that a peer has put into its cache.
#[derive(Debug, Default)]
pub struct AtomCache {
    /// Grown to the highest place used.
    atoms: Vec<Option<Atom>>,
}

/// Which form a message has, and where its terms are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Header {
    /// A complete message. Its terms, without version bytes, begin at `body`.
    Normal {
        /// What numbers of atoms in the terms stand for.
        atoms: Vec<Atom>,
        /// Offset of the terms.
        body: usize,
    },
    /// The first of several fragments of a message.
    FirstFragment {
        /// Which message, for one sending process.
        sequence: u64,
        /// Number of this fragment. The numbers go down, and the last fragment has number 1.
        fragment: u64,
        /// What numbers of atoms in the terms stand for.
        atoms: Vec<Atom>,
        /// Offset of the first bytes of the terms.
        body: usize,
    },
    /// A later fragment of a message.
    Fragment {
        /// Which message.
        sequence: u64,
        /// Number of this fragment.
        fragment: u64,
        /// Offset of the next bytes of the terms.
        body: usize,
    },
    /// A complete message without header. Its terms have version bytes and begin at `body`.
    PassThrough {
        /// Offset of the terms.
        body: usize,
    },
}

/// Why a header cannot be read. The connection is lost: what follows may name atoms that were in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// The bytes are no header.
    #[error("bad distribution header: {0}")]
    Bytes(#[from] DecodeError),
    /// It names a place of the cache in which there is no atom.
    #[error("atom cache entry {0} is empty")]
    Empty(usize),
}

impl AtomCache {
    /// Places of a cache.
    pub const SIZE: usize = 2048;

    /// A cache as it is at the start of a connection.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads the header of a message, and takes over the atoms that are new in it.
    ///
    /// # Errors
    /// [`HeaderError`]; the cache may have taken over some of the atoms.
    pub fn read_header(&mut self, message: &Bytes) -> Result<Header, HeaderError> {
        let mut input = Input { bytes: message, at: 0 };
        match input.u8()? {
            PASS_THROUGH => return Ok(Header::PassThrough { body: input.at }),
            etf::VERSION => {}
            _ => return Err(input.invalid(0).into()),
        }
        match input.u8()? {
            NORMAL => {
                let atoms = self.read_atoms(&mut input)?;
                Ok(Header::Normal { atoms, body: input.at })
            }
            FIRST_FRAGMENT => {
                let (sequence, fragment) = (input.u64()?, input.u64()?);
                let atoms = self.read_atoms(&mut input)?;
                Ok(Header::FirstFragment {
                    sequence,
                    fragment,
                    atoms,
                    body: input.at,
                })
            }
            FRAGMENT => {
                let (sequence, fragment) = (input.u64()?, input.u64()?);
                Ok(Header::Fragment {
                    sequence,
                    fragment,
                    body: input.at,
                })
            }
            _ => Err(input.invalid(1).into()),
        }
    }

    fn read_atoms(&mut self, input: &mut Input<'_>) -> Result<Vec<Atom>, HeaderError> {
        let count: usize = input.u8()?.into();
        if count == 0 {
            return Ok(Vec::new());
        }
        // Four bits for each atom, and four more for all of them together; the lower half of a byte comes first.
        let flags = input.take(count / 2 + 1)?;
        let nibble = |at: usize| flags.get(at / 2).map_or(0, |pair| pair >> (4 * (at % 2)) & 0xF);
        let long = nibble(count) & 1 != 0;
        let mut atoms = Vec::with_capacity(count);
        for at in 0..count {
            let flags = nibble(at);
            let place = usize::from(flags & 7) << 8 | usize::from(input.u8()?);
            if flags & 8 != 0 {
                let atom = input.atom(long)?;
                self.put(place, atom.clone());
                atoms.push(atom);
            } else {
                let atom = self.atoms.get(place).cloned().flatten();
                atoms.push(atom.ok_or(HeaderError::Empty(place))?);
            }
        }
        Ok(atoms)
    }

    fn put(&mut self, place: usize, atom: Atom) {
        if place >= self.atoms.len() {
            self.atoms.resize(place + 1, None);
        }
        if let Some(slot) = self.atoms.get_mut(place) {
            *slot = Some(atom);
        }
    }
}

struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Input<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let end = self.at.saturating_add(length);
        let truncated = DecodeError::new(DecodeErrorKind::Truncated, self.at);
        let taken = self.bytes.get(self.at..end).ok_or(truncated)?;
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let truncated = DecodeError::new(DecodeErrorKind::Truncated, self.at);
        self.take(N)?.try_into().map_err(|_| truncated)
    }

    fn u8(&mut self) -> Result<u8, DecodeError> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_be_bytes)
    }

    fn atom(&mut self, long: bool) -> Result<Atom, DecodeError> {
        let start = self.at;
        let length: usize = if long {
            u16::from_be_bytes(self.array()?).into()
        } else {
            self.u8()?.into()
        };
        let text = self.take(length)?;
        let text = std::str::from_utf8(text).map_err(|_| DecodeError::new(DecodeErrorKind::NotUtf8, start))?;
        Atom::new(text).map_err(|_| self.invalid(start))
    }

    fn invalid(&self, at: usize) -> DecodeError {
        DecodeError::new(DecodeErrorKind::Invalid, at)
    }
}
