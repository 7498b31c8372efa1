use std::collections::BTreeMap;

use bytes::Bytes;
use thiserror::Error;

use crate::wire::etf::Atom;

/// Caps of messages that come in fragments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct FragmentLimits {
    /// Messages that may be incomplete at once. A process has one at a time. Default 1,024.
    pub messages: usize,
    /// Bytes of all incomplete messages together. Default 128 MiB.
    pub bytes: usize,
}

impl Default for FragmentLimits {
    fn default() -> Self {
        Self {
            messages: 1024,
            bytes: 128 << 20,
        }
    }
}

/// Why a fragment is not taken. Its message is lost, and with it the connection: something was sent that does not arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FragmentError {
    /// Its number is not the one that had to come.
    #[error("fragment {number} of message {sequence:#x} is not the next one")]
    OutOfOrder {
        /// Which message.
        sequence: u64,
        /// The number of the fragment.
        number: u64,
    },
    /// A message whose bytes exceed what one message may have.
    #[error("a message of more than {limit} bytes in fragments")]
    TooLarge {
        /// Bytes that a message may have.
        limit: usize,
    },
    /// Too many messages are incomplete.
    #[error("more than {limit} messages in fragments at once")]
    TooMany {
        /// Messages that may be incomplete.
        limit: usize,
    },
    /// All incomplete messages together hold too much.
    #[error("more than {limit} bytes of messages in fragments")]
    TooMuch {
        /// Bytes that they may hold.
        limit: usize,
    },
}

/// Puts messages together that come in fragments.
#[derive(Debug)]
pub(super) struct Fragments {
    limits: FragmentLimits,
    max_message: usize,
    open: BTreeMap<u64, Open>,
    bytes: usize,
}

#[derive(Debug)]
struct Open {
    atoms: Vec<Atom>,
    body: Vec<u8>,
    /// Number of the fragment that has to come.
    next: u64,
}

impl Fragments {
    pub(super) fn new(limits: FragmentLimits, max_message: u32) -> Self {
        let max_message = usize::try_from(max_message).unwrap_or(usize::MAX);
        Self {
            limits,
            max_message,
            open: BTreeMap::new(),
            bytes: 0,
        }
    }

    /// Bytes held.
    pub(super) fn buffered(&self) -> usize {
        self.bytes
    }

    /// Takes a first fragment that is not the last one as well.
    pub(super) fn first(
        &mut self,
        sequence: u64,
        number: u64,
        atoms: Vec<Atom>,
        body: &[u8],
    ) -> Result<(), FragmentError> {
        let next = number.checked_sub(1).filter(|next| *next > 0);
        let next = next.filter(|_| !self.open.contains_key(&sequence));
        let next = next.ok_or(FragmentError::OutOfOrder { sequence, number })?;
        if self.open.len() >= self.limits.messages {
            return Err(FragmentError::TooMany {
                limit: self.limits.messages,
            });
        }
        self.check(0, body)?;
        self.bytes += body.len();
        self.open.insert(
            sequence,
            Open {
                atoms,
                body: body.to_vec(),
                next,
            },
        );
        Ok(())
    }

    /// Takes a later fragment, and gives the message back with the last one.
    pub(super) fn next(
        &mut self,
        sequence: u64,
        number: u64,
        body: &[u8],
    ) -> Result<Option<(Vec<Atom>, Bytes)>, FragmentError> {
        let out_of_order = FragmentError::OutOfOrder { sequence, number };
        let held = match self.open.get(&sequence) {
            Some(open) if open.next == number => open.body.len(),
            _ => return Err(out_of_order),
        };
        self.check(held, body)?;
        let open = self.open.get_mut(&sequence).ok_or(out_of_order)?;
        open.body.extend_from_slice(body);
        self.bytes += body.len();
        if number > 1 {
            open.next = number - 1;
            return Ok(None);
        }
        Ok(self.open.remove(&sequence).map(|open| {
            self.bytes = self.bytes.saturating_sub(open.body.len());
            (open.atoms, open.body.into())
        }))
    }

    fn check(&self, held: usize, more: &[u8]) -> Result<(), FragmentError> {
        if held + more.len() > self.max_message {
            return Err(FragmentError::TooLarge {
                limit: self.max_message,
            });
        }
        if self.bytes + more.len() > self.limits.bytes {
            return Err(FragmentError::TooMuch {
                limit: self.limits.bytes,
            });
        }
        Ok(())
    }
}
