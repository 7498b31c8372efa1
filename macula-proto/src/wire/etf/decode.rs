use bytes::Bytes;

use super::{Atom, BigInt, Export, Fun, Pid, Port, Reference, Term, VERSION, encode::has_key_twice, tag};
use crate::wire::{DecodeError, DecodeErrorKind, DecodeLimits};

/// Binaries of up to this many bytes are copied out of the input; longer ones share its buffer. So a short one never keeps a
/// large receive buffer alive, and a large body is never copied.
const COPY_UP_TO: usize = 512;

/// Decodes a term with the version byte in front, which must take up all of `bytes`.
///
/// # Errors
/// [`DecodeError`] with the offset of the fault.
pub fn decode(bytes: &Bytes, limits: &DecodeLimits) -> Result<Term, DecodeError> {
    let mut reader = TermReader::new(bytes, limits, &[]);
    let term = reader.versioned_term()?;
    reader.finish()?;
    Ok(term)
}

/// Decodes the term at the start of `bytes`, with the version byte in front, and tells how many bytes it takes up.
///
/// # Errors
/// [`DecodeError`] with the offset of the fault.
pub fn decode_prefix(bytes: &Bytes, limits: &DecodeLimits) -> Result<(Term, usize), DecodeError> {
    let mut reader = TermReader::new(bytes, limits, &[]);
    let term = reader.versioned_term()?;
    Ok((term, reader.position()))
}

/// Reads terms one behind the other.
#[derive(Debug)]
pub struct TermReader<'a> {
    bytes: &'a Bytes,
    at: usize,
    /// What references into a distribution header stand for.
    atoms: &'a [Atom],
    limits: DecodeLimits,
    items: usize,
}

impl<'a> TermReader<'a> {
    /// A reader at the start of `bytes`. `atoms` is what references to the atom cache stand for, in the order of the distribution
    /// header; empty where there is no such header. The limits hold for all terms together.
    pub fn new(bytes: &'a Bytes, limits: &DecodeLimits, atoms: &'a [Atom]) -> Self {
        Self {
            bytes,
            at: 0,
            atoms,
            limits: *limits,
            items: 0,
        }
    }

    /// Reads a term without a version byte.
    ///
    /// # Errors
    /// [`DecodeError`]; nothing can be read behind it.
    pub fn term(&mut self) -> Result<Term, DecodeError> {
        self.nested(0)
    }

    /// Reads a term with the version byte in front.
    ///
    /// # Errors
    /// [`DecodeError`]; nothing can be read behind it.
    pub fn versioned_term(&mut self) -> Result<Term, DecodeError> {
        let start = self.at;
        match self.u8()? {
            VERSION => self.nested(0),
            _ => Err(DecodeError::new(DecodeErrorKind::Invalid, start)),
        }
    }

    /// Offset of the next byte.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Whether everything was read.
    pub fn is_empty(&self) -> bool {
        self.remaining() == 0
    }

    /// Refuses bytes that were not read.
    ///
    /// # Errors
    /// [`DecodeErrorKind::Trailing`].
    pub fn finish(&self) -> Result<(), DecodeError> {
        if self.is_empty() {
            Ok(())
        } else {
            Err(self.error(DecodeErrorKind::Trailing))
        }
    }

    fn nested(&mut self, depth: usize) -> Result<Term, DecodeError> {
        let start = self.at;
        let fault = |kind| DecodeError::new(kind, start);
        if depth > self.limits.depth {
            return Err(fault(DecodeErrorKind::TooDeep {
                limit: self.limits.depth,
            }));
        }
        if self.items >= self.limits.items {
            return Err(fault(DecodeErrorKind::TooManyItems {
                limit: self.limits.items,
            }));
        }
        self.items += 1;
        match self.u8()? {
            tag::SMALL_INTEGER => Ok(Term::Int(self.u8()?.into())),
            tag::INTEGER => Ok(Term::Int(i32::from_be_bytes(self.array()?).into())),
            tag::NEW_FLOAT => {
                let value = f64::from_be_bytes(self.array()?);
                finite(value).ok_or(fault(DecodeErrorKind::NotFinite))
            }
            tag::FLOAT => {
                let text: [u8; 31] = self.array()?;
                old_float(&text).ok_or(fault(DecodeErrorKind::Invalid))
            }
            head @ (tag::ATOM | tag::SMALL_ATOM | tag::ATOM_UTF8 | tag::SMALL_ATOM_UTF8 | tag::ATOM_CACHE_REF) => {
                self.atom_behind(head, start).map(Term::Atom)
            }
            tag::SMALL_TUPLE => {
                let length = self.u8()?.into();
                self.elements(length, depth).map(Term::Tuple)
            }
            tag::LARGE_TUPLE => {
                let length = self.length()?;
                self.elements(length, depth).map(Term::Tuple)
            }
            tag::NIL => Ok(Term::NIL),
            tag::STRING => {
                let length = self.u16()?;
                self.bytes(length.into()).map(Term::String)
            }
            tag::LIST => self.list(depth, start),
            tag::BINARY => {
                let length = self.length()?;
                self.bytes(length).map(Term::Binary)
            }
            tag::BIT_BINARY => self.bit_string(start),
            tag::SMALL_BIG => {
                let length = self.u8()?.into();
                self.big(length, start)
            }
            tag::LARGE_BIG => {
                let length = self.length()?;
                self.big(length, start)
            }
            tag::MAP => self.map(depth, start),
            head @ (tag::PID | tag::NEW_PID) => self.pid_behind(head).map(Term::Pid),
            head @ (tag::PORT | tag::NEW_PORT | tag::V4_PORT) => self.port(head),
            head @ (tag::REFERENCE | tag::NEW_REFERENCE | tag::NEWER_REFERENCE) => self.reference(head, start),
            tag::NEW_FUN => self.fun(depth, start),
            tag::EXPORT => self.export(depth, start),
            tag::COMPRESSED | tag::FUN | tag::LOCAL => Err(fault(DecodeErrorKind::Unsupported)),
            _ => Err(fault(DecodeErrorKind::Invalid)),
        }
    }

    /// `length` terms. Memory is taken as they come: a length costs nothing before its elements are there.
    fn elements(&mut self, length: usize, depth: usize) -> Result<Vec<Term>, DecodeError> {
        self.has(length)?;
        let mut elements = Vec::with_capacity(length.min(64));
        for _ in 0..length {
            elements.push(self.nested(depth + 1)?);
        }
        Ok(elements)
    }

    fn list(&mut self, depth: usize, start: usize) -> Result<Term, DecodeError> {
        let length = self.length()?;
        let mut elements = self.elements(length, depth)?;
        if self.peek() == Some(tag::NIL) {
            self.at += 1;
            return Ok(Term::List(elements));
        }
        if elements.is_empty() && !self.is_empty() {
            return Err(DecodeError::new(DecodeErrorKind::Invalid, start));
        }
        // A tail that is a list continues this one.
        match self.nested(depth + 1)? {
            Term::List(rest) => {
                elements.extend(rest);
                Ok(Term::List(elements))
            }
            Term::String(rest) => {
                self.items = self.items.saturating_add(rest.len());
                elements.extend(rest.iter().map(|byte| Term::Int((*byte).into())));
                Ok(Term::List(elements))
            }
            Term::ImproperList(rest, tail) => {
                elements.extend(rest);
                Ok(Term::ImproperList(elements, tail))
            }
            tail => Ok(Term::ImproperList(elements, tail.into())),
        }
    }

    fn map(&mut self, depth: usize, start: usize) -> Result<Term, DecodeError> {
        let length = self.length()?;
        self.has(length.saturating_mul(2))?;
        let mut entries = Vec::with_capacity(length.min(32));
        for _ in 0..length {
            entries.push((self.nested(depth + 1)?, self.nested(depth + 1)?));
        }
        if has_key_twice(&entries) {
            return Err(DecodeError::new(DecodeErrorKind::DuplicateKey, start));
        }
        Ok(Term::Map(entries))
    }

    fn bit_string(&mut self, start: usize) -> Result<Term, DecodeError> {
        let length = self.length()?;
        let bits = self.u8()?;
        let bytes = self.bytes(length)?;
        match (bytes.last(), bits) {
            (None, 0) | (Some(_), 8) => Ok(Term::Binary(bytes)),
            (Some(last), 1..8) => {
                let kept = *last & !(0xFF >> bits);
                if kept == *last {
                    return Ok(Term::Bits(bytes, bits));
                }
                // Bits that do not belong to it must not tell two equal ones apart.
                let mut own = bytes.to_vec();
                if let Some(last) = own.last_mut() {
                    *last = kept;
                }
                Ok(Term::Bits(own.into(), bits))
            }
            _ => Err(DecodeError::new(DecodeErrorKind::Invalid, start)),
        }
    }

    fn big(&mut self, length: usize, start: usize) -> Result<Term, DecodeError> {
        let negative = match self.u8()? {
            0 => false,
            1 => true,
            _ => return Err(DecodeError::new(DecodeErrorKind::Invalid, start)),
        };
        let magnitude = self.bytes(length)?;
        Ok(BigInt::new(negative, magnitude).map_or_else(Term::Int, Term::Big))
    }

    fn atom(&mut self) -> Result<Atom, DecodeError> {
        let start = self.at;
        let head = self.u8()?;
        self.atom_behind(head, start)
    }

    fn atom_behind(&mut self, head: u8, start: usize) -> Result<Atom, DecodeError> {
        let fault = |kind| DecodeError::new(kind, start);
        let length: usize = match head {
            tag::ATOM_CACHE_REF => {
                let index: usize = self.u8()?.into();
                return self.atoms.get(index).cloned().ok_or(fault(DecodeErrorKind::Invalid));
            }
            tag::SMALL_ATOM | tag::SMALL_ATOM_UTF8 => self.u8()?.into(),
            tag::ATOM | tag::ATOM_UTF8 => self.u16()?.into(),
            _ => return Err(fault(DecodeErrorKind::Invalid)),
        };
        let text = self.take(length)?;
        let atom = if matches!(head, tag::ATOM | tag::SMALL_ATOM) {
            if length > Atom::MAX_CHARS {
                return Err(fault(DecodeErrorKind::Invalid));
            }
            Atom::new(text.iter().map(|byte| char::from(*byte)).collect::<String>())
        } else {
            Atom::new(std::str::from_utf8(text).map_err(|_| fault(DecodeErrorKind::NotUtf8))?)
        };
        atom.map_err(|_| fault(DecodeErrorKind::Invalid))
    }

    fn pid_behind(&mut self, head: u8) -> Result<Pid, DecodeError> {
        Ok(Pid {
            node: self.atom()?,
            id: self.u32()?,
            serial: self.u32()?,
            creation: self.creation(head == tag::PID)?,
        })
    }

    fn port(&mut self, head: u8) -> Result<Term, DecodeError> {
        let node = self.atom()?;
        let id = match head {
            tag::V4_PORT => u64::from_be_bytes(self.array()?),
            _ => self.u32()?.into(),
        };
        let creation = self.creation(head == tag::PORT)?;
        Ok(Port { node, id, creation }.into())
    }

    fn reference(&mut self, head: u8, start: usize) -> Result<Term, DecodeError> {
        let invalid = DecodeError::new(DecodeErrorKind::Invalid, start);
        if head == tag::REFERENCE {
            let (node, word) = (self.atom()?, self.u32()?);
            let creation = self.creation(true)?;
            return Ok(Reference::new(node, creation, &[word]).map_err(|_| invalid)?.into());
        }
        let length: usize = self.u16()?.into();
        let node = self.atom()?;
        let creation = self.creation(head == tag::NEW_REFERENCE)?;
        let mut words = [0; Reference::MAX_WORDS];
        let words = words.get_mut(..length).ok_or(invalid)?;
        for word in words.iter_mut() {
            *word = self.u32()?;
        }
        Ok(Reference::new(node, creation, words).map_err(|_| invalid)?.into())
    }

    fn fun(&mut self, depth: usize, start: usize) -> Result<Term, DecodeError> {
        let invalid = DecodeError::new(DecodeErrorKind::Invalid, start);
        let body = self.at;
        let size = self.length()?;
        let arity = self.u8()?;
        let uniq = self.array()?;
        let index = self.u32()?;
        let free = self.length()?;
        let module = self.atom()?;
        let old_index = self.nested(depth + 1)?.as_i64().ok_or(invalid)?;
        let old_uniq = self.nested(depth + 1)?.as_i64().ok_or(invalid)?;
        let Term::Pid(pid) = self.nested(depth + 1)? else {
            return Err(invalid);
        };
        let free = self.elements(free, depth)?;
        // The size counts itself.
        if self.at - body != size {
            return Err(invalid);
        }
        Ok(Term::Fun(Box::new(Fun {
            module,
            arity,
            uniq,
            index,
            old_index,
            old_uniq,
            pid,
            free,
        })))
    }

    fn export(&mut self, depth: usize, start: usize) -> Result<Term, DecodeError> {
        let (module, function) = (self.atom()?, self.atom()?);
        let arity = self
            .nested(depth + 1)?
            .as_i64()
            .and_then(|arity| u8::try_from(arity).ok());
        let arity = arity.ok_or(DecodeError::new(DecodeErrorKind::Invalid, start))?;
        Ok(Term::Export(Box::new(Export {
            module,
            function,
            arity,
        })))
    }

    /// The old forms have a byte of which two bits count.
    fn creation(&mut self, old: bool) -> Result<u32, DecodeError> {
        if old { Ok(u32::from(self.u8()? & 3)) } else { self.u32() }
    }

    fn error(&self, kind: DecodeErrorKind) -> DecodeError {
        DecodeError::new(kind, self.at)
    }

    fn remaining(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }

    /// Every item takes a byte at least.
    fn has(&self, items: usize) -> Result<(), DecodeError> {
        if items > self.remaining() {
            Err(self.error(DecodeErrorKind::Truncated))
        } else {
            Ok(())
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let end = self.at.saturating_add(length);
        let taken = self
            .bytes
            .get(self.at..end)
            .ok_or(self.error(DecodeErrorKind::Truncated))?;
        self.at = end;
        Ok(taken)
    }

    /// A string of its own if it is short, otherwise a part of the input's buffer.
    fn bytes(&mut self, length: usize) -> Result<Bytes, DecodeError> {
        let taken = self.take(length)?;
        if length <= COPY_UP_TO {
            Ok(Bytes::copy_from_slice(taken))
        } else {
            Ok(self.bytes.slice_ref(taken))
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let error = self.error(DecodeErrorKind::Truncated);
        self.take(N)?.try_into().map_err(|_| error)
    }

    fn u8(&mut self) -> Result<u8, DecodeError> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    fn length(&mut self) -> Result<usize, DecodeError> {
        self.u32().map(|length| length as usize)
    }
}

fn finite(value: f64) -> Option<Term> {
    value.is_finite().then_some(Term::Float(value))
}

/// Digits as `printf("%.20e")` writes them, and zeros behind.
fn old_float(text: &[u8]) -> Option<Term> {
    let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
    let text = std::str::from_utf8(text.get(..end)?).ok()?;
    finite(text.parse().ok()?)
}
