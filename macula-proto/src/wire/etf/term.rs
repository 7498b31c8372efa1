use bytes::Bytes;

use super::{Atom, BigInt, Export, Fun, Pid, Port, Reference};

/// An Erlang term.
///
/// Equality is that of Erlang's `=:=`, so a [`Term::String`] equals the list of its bytes, with two exceptions: maps are equal
/// only with their entries in the same order, and floats only with the same bits. The order is total and otherwise without
/// meaning: it is not Erlang's.
#[derive(Debug, Clone)]
pub enum Term {
    /// An integer of up to 63 bits and a sign.
    Int(i64),
    /// Any other integer.
    Big(BigInt),
    /// A float, always finite: Erlang has no others.
    Float(f64),
    /// An atom.
    Atom(Atom),
    /// A tuple.
    Tuple(Vec<Term>),
    /// A proper list; without elements it is `[]`.
    List(Vec<Term>),
    /// Elements, at least one, and what is behind the last `|`, which is no list.
    ImproperList(Vec<Term>, Box<Term>),
    /// A list of integers from 0 to 255: what Erlang calls a string where all of them are characters.
    String(Bytes),
    /// A binary.
    Binary(Bytes),
    /// A bit string. Only the upper bits of the last byte, 1 to 7 of them, belong to it; the others are zero.
    Bits(Bytes, u8),
    /// The entries of a map in the order of the wire.
    Map(Vec<(Term, Term)>),
    /// A process.
    Pid(Pid),
    /// A port.
    Port(Box<Port>),
    /// A reference.
    Reference(Box<Reference>),
    /// A function with the values it closed over.
    Fun(Box<Fun>),
    /// A function of a module.
    Export(Box<Export>),
}

impl Term {
    /// The empty list.
    pub const NIL: Self = Self::List(Vec::new());

    /// A binary with a copy of `bytes`.
    pub fn binary(bytes: impl AsRef<[u8]>) -> Self {
        Self::Binary(Bytes::copy_from_slice(bytes.as_ref()))
    }

    /// An integer's value.
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Self::Int(value) => Some(*value),
            _ => None,
        }
    }

    /// The value of an integer that fits 64 bits without a sign.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Int(value) => u64::try_from(*value).ok(),
            Self::Big(value) => u64::try_from(value.to_i128()?).ok(),
            _ => None,
        }
    }

    /// An atom.
    pub fn as_atom(&self) -> Option<&Atom> {
        match self {
            Self::Atom(atom) => Some(atom),
            _ => None,
        }
    }

    /// Whether it is the atom `text`.
    pub fn is_atom(&self, text: &str) -> bool {
        self.as_atom().is_some_and(|atom| atom.as_str() == text)
    }

    /// The elements of a tuple.
    pub fn as_tuple(&self) -> Option<&[Term]> {
        match self {
            Self::Tuple(elements) => Some(elements),
            _ => None,
        }
    }

    /// The elements of a proper list, [`Term::String`] not included.
    pub fn as_list(&self) -> Option<&[Term]> {
        match self {
            Self::List(elements) => Some(elements),
            _ => None,
        }
    }

    /// The contents of a binary.
    pub fn as_binary(&self) -> Option<&Bytes> {
        match self {
            Self::Binary(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// A process.
    pub fn as_pid(&self) -> Option<&Pid> {
        match self {
            Self::Pid(pid) => Some(pid),
            _ => None,
        }
    }

    /// A reference.
    pub fn as_reference(&self) -> Option<&Reference> {
        match self {
            Self::Reference(reference) => Some(reference),
            _ => None,
        }
    }

    /// What a map holds under `key`.
    pub fn get(&self, key: &Term) -> Option<&Term> {
        match self {
            Self::Map(entries) => entries.iter().find(|(entry, _)| entry == key).map(|(_, value)| value),
            _ => None,
        }
    }
}

impl From<i64> for Term {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<u32> for Term {
    fn from(value: u32) -> Self {
        Self::Int(value.into())
    }
}

impl From<u64> for Term {
    fn from(value: u64) -> Self {
        Self::from(i128::from(value))
    }
}

impl From<i128> for Term {
    fn from(value: i128) -> Self {
        let magnitude = Bytes::copy_from_slice(&value.unsigned_abs().to_le_bytes());
        BigInt::new(value < 0, magnitude).map_or_else(Self::Int, Self::Big)
    }
}

impl From<f64> for Term {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

impl From<bool> for Term {
    fn from(value: bool) -> Self {
        Self::Atom(Atom::known(if value { "true" } else { "false" }))
    }
}

impl From<Atom> for Term {
    fn from(atom: Atom) -> Self {
        Self::Atom(atom)
    }
}

impl From<Pid> for Term {
    fn from(pid: Pid) -> Self {
        Self::Pid(pid)
    }
}

impl From<Port> for Term {
    fn from(port: Port) -> Self {
        Self::Port(port.into())
    }
}

impl From<Reference> for Term {
    fn from(reference: Reference) -> Self {
        Self::Reference(reference.into())
    }
}

impl From<Vec<Term>> for Term {
    fn from(elements: Vec<Term>) -> Self {
        Self::List(elements)
    }
}

impl<const N: usize> From<[Term; N]> for Term {
    /// A tuple.
    fn from(elements: [Term; N]) -> Self {
        Self::Tuple(elements.into())
    }
}
