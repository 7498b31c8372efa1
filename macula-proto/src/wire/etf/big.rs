//! Integers beyond 64 bits.

use std::{cmp::Ordering, fmt};

use bytes::Bytes;

/// Longest magnitude, in bytes, that is printed in decimal: the work grows with its square.
const MAX_DECIMAL: usize = 1024;

/// An integer outside -2^63 .. 2^63 - 1, as bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BigInt {
    negative: bool,
    /// Little endian, the last byte not zero.
    magnitude: Bytes,
}

impl BigInt {
    /// `Err` with its value when it fits 64 bits with a sign.
    pub(super) fn new(negative: bool, mut magnitude: Bytes) -> Result<Self, i64> {
        let length = magnitude.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        magnitude.truncate(length);
        match small(negative, &magnitude) {
            Some(value) => Err(value),
            None => Ok(Self { negative, magnitude }),
        }
    }

    /// Whether it is below zero.
    pub fn is_negative(&self) -> bool {
        self.negative
    }

    /// Its absolute value, little endian, without zeros at the end.
    pub fn magnitude(&self) -> &Bytes {
        &self.magnitude
    }

    /// Its value if it fits 128 bits with a sign.
    pub fn to_i128(&self) -> Option<i128> {
        let mut bytes = [0; 16];
        bytes.get_mut(..self.magnitude.len())?.copy_from_slice(&self.magnitude);
        let magnitude = u128::from_le_bytes(bytes);
        if self.negative {
            0_i128.checked_sub_unsigned(magnitude)
        } else {
            i128::try_from(magnitude).ok()
        }
    }
}

fn small(negative: bool, magnitude: &[u8]) -> Option<i64> {
    let mut bytes = [0; 8];
    bytes.get_mut(..magnitude.len())?.copy_from_slice(magnitude);
    let magnitude = u64::from_le_bytes(bytes);
    if negative {
        0_i64.checked_sub_unsigned(magnitude)
    } else {
        i64::try_from(magnitude).ok()
    }
}

impl PartialOrd for BigInt {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for BigInt {
    fn cmp(&self, other: &Self) -> Ordering {
        let size = |this: &Self, that: &Self| {
            let by_length = this.magnitude.len().cmp(&that.magnitude.len());
            by_length.then_with(|| this.magnitude.iter().rev().cmp(that.magnitude.iter().rev()))
        };
        match (self.negative, other.negative) {
            (false, false) => size(self, other),
            (true, true) => size(other, self),
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
        }
    }
}

impl fmt::Display for BigInt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.negative { "-" } else { "" };
        if self.magnitude.len() > MAX_DECIMAL {
            write!(f, "{sign}16#")?;
            return self.magnitude.iter().rev().try_for_each(|byte| write!(f, "{byte:02X}"));
        }
        // Nine digits at a time, from the lowest.
        let mut words: Vec<u32> = self.magnitude.chunks(4).map(word).collect();
        let mut groups = Vec::new();
        while words.last().is_some_and(|word| *word != 0) {
            let mut rest = 0_u64;
            for word in words.iter_mut().rev() {
                let dividend = rest << 32 | u64::from(*word);
                *word = (dividend / 1_000_000_000) as u32;
                rest = dividend % 1_000_000_000;
            }
            groups.push(rest);
            while words.last() == Some(&0) {
                words.pop();
            }
        }
        let mut groups = groups.into_iter().rev();
        write!(f, "{sign}{}", groups.next().unwrap_or(0))?;
        groups.try_for_each(|group| write!(f, "{group:09}"))
    }
}

fn word(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte))
}
