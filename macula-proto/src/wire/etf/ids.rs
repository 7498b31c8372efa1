//! Atoms, and the identifiers of what lives on a node.

use std::{borrow::Borrow, fmt, ops::Deref, sync::Arc};

use thiserror::Error;

use super::Term;

/// An atom: a name of up to 255 characters. A clone shares the text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Atom(Arc<str>);

/// An atom has at most 255 characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("longer than the 255 characters of an atom")]
pub struct AtomTooLong;

impl Atom {
    /// Most characters of an atom.
    pub const MAX_CHARS: usize = 255;
    /// Most bytes of an atom: four for each character.
    pub const MAX_BYTES: usize = 4 * Self::MAX_CHARS;

    /// The atom with this text.
    ///
    /// # Errors
    /// [`AtomTooLong`] above 255 characters.
    pub fn new(text: impl AsRef<str>) -> Result<Self, AtomTooLong> {
        let text = text.as_ref();
        if text.len() > Self::MAX_CHARS && text.chars().count() > Self::MAX_CHARS {
            return Err(AtomTooLong);
        }
        Ok(Self(text.into()))
    }

    /// The atom of a text known when the program is built, cut off at 255 characters.
    pub(crate) fn known(text: &'static str) -> Self {
        debug_assert!(text.len() <= Self::MAX_CHARS);
        Self(text.into())
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Deref for Atom {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Atom {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Atom {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl PartialEq<str> for Atom {
    fn eq(&self, other: &str) -> bool {
        &*self.0 == other
    }
}

impl PartialEq<&str> for Atom {
    fn eq(&self, other: &&str) -> bool {
        &*self.0 == *other
    }
}

impl TryFrom<&str> for Atom {
    type Error = AtomTooLong;

    fn try_from(text: &str) -> Result<Self, AtomTooLong> {
        Self::new(text)
    }
}

impl std::str::FromStr for Atom {
    type Err = AtomTooLong;

    fn from_str(text: &str) -> Result<Self, AtomTooLong> {
        Self::new(text)
    }
}

impl fmt::Debug for Atom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A process.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pid {
    /// The node it runs on.
    pub node: Atom,
    /// Its number on the node.
    pub id: u32,
    /// The rest of its number.
    pub serial: u32,
    /// Which run of the node it belongs to: a node draws another number each time it starts. 0 from nodes that do not tell.
    pub creation: u32,
}

/// A port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    /// The node it is open on.
    pub node: Atom,
    /// Its number on the node.
    pub id: u64,
    /// Which run of the node it belongs to.
    pub creation: u32,
}

/// A reference: unique in its node's run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// The node that made it.
    pub node: Atom,
    /// Which run of the node it belongs to.
    pub creation: u32,
    length: u8,
    words: [u32; Self::MAX_WORDS],
}

/// A reference has one to five words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not the one to five words of a reference")]
pub struct TooManyWords;

impl Reference {
    /// Most words of a reference: three as a rule, five in the alias of a process.
    pub const MAX_WORDS: usize = 5;

    /// A reference of these words, in the order of the wire.
    ///
    /// # Errors
    /// [`TooManyWords`] unless there are one to five of them.
    pub fn new(node: Atom, creation: u32, words: &[u32]) -> Result<Self, TooManyWords> {
        let mut own = [0; Self::MAX_WORDS];
        let place = own.get_mut(..words.len()).ok_or(TooManyWords)?;
        place.copy_from_slice(words);
        match u8::try_from(words.len()) {
            Ok(length @ 1..) => Ok(Self {
                node,
                creation,
                length,
                words: own,
            }),
            _ => Err(TooManyWords),
        }
    }

    /// Its words in the order of the wire.
    pub fn words(&self) -> &[u32] {
        self.words.get(..usize::from(self.length)).unwrap_or(&self.words)
    }
}

/// `fun module:function/arity`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Export {
    /// The module.
    pub module: Atom,
    /// The function.
    pub function: Atom,
    /// Its number of arguments.
    pub arity: u8,
}

/// A function with the values it closed over. It can be passed on, and means something only to Erlang nodes that have its module.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fun {
    /// The module it was made in.
    pub module: Atom,
    /// Its number of arguments.
    pub arity: u8,
    /// MD5 of the module's code.
    pub uniq: [u8; 16],
    /// Which function of the module it is.
    pub index: u32,
    /// An older form of `index`.
    pub old_index: i64,
    /// An older form of `uniq`.
    pub old_uniq: i64,
    /// The process that made it.
    pub pid: Pid,
    /// The values it closed over.
    pub free: Vec<Term>,
}
