//! A fast sum over what happens. It is no defence against anybody: it tells runs of one program apart.

use std::{
    fmt::{self, Write},
    net::{IpAddr, SocketAddr},
};

const MULTIPLIERS: [u64; 2] = [0x9E37_79B9_7F4A_7C15, 0xD6E8_FEB8_6659_FD93];

/// Two sums of 64 bits each.
#[derive(Debug, Clone, Copy)]
pub(super) struct Digest([u64; 2]);

impl Default for Digest {
    fn default() -> Self {
        Self([0x243F_6A88_85A3_08D3, 0x1319_8A2E_0370_7344])
    }
}

impl Digest {
    pub(super) fn value(&self) -> [u64; 2] {
        self.0
    }

    pub(super) fn words<const N: usize>(&mut self, words: [u64; N]) {
        for word in words {
            self.word(word);
        }
    }

    fn word(&mut self, word: u64) {
        for (sum, multiplier) in self.0.iter_mut().zip(MULTIPLIERS) {
            *sum = (*sum ^ word).wrapping_mul(multiplier).rotate_left(29);
        }
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.word(bytes.len() as u64);
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.word(u64::from_le_bytes(*word));
        }
        let last = rest.iter().fold(0, |last, byte| last << 8 | u64::from(*byte));
        self.word(last);
    }

    pub(super) fn address(&mut self, address: SocketAddr) {
        let ip = match address.ip() {
            IpAddr::V4(ip) => u128::from(ip.to_bits()),
            IpAddr::V6(ip) => ip.to_bits(),
        };
        let [high, low] = [ip >> 64, ip].map(|half| u64::try_from(half & u128::from(u64::MAX)).unwrap_or_default());
        self.words([high, low, u64::from(address.port())]);
    }

    /// Takes text without making a string of it.
    pub(super) fn written(&mut self, text: fmt::Arguments<'_>) {
        let mut pieces = Pieces {
            digest: self,
            word: 0,
            length: 0,
        };
        // A digest takes whatever is written.
        let _ = pieces.write_fmt(text);
        let end = [pieces.word, pieces.length];
        self.words(end);
    }
}

/// A sum over bytes in one number.
pub(super) fn sum(bytes: &[u8]) -> u64 {
    let mut digest = Digest::default();
    digest.bytes(bytes);
    let [a, b] = digest.value();
    a ^ b
}

/// Text on its way into a digest; where it is cut into pieces does not matter.
struct Pieces<'a> {
    digest: &'a mut Digest,
    word: u64,
    length: u64,
}

impl Write for Pieces<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.word = self.word << 8 | u64::from(byte);
            self.length += 1;
            if self.length.is_multiple_of(8) {
                self.digest.word(self.word);
                self.word = 0;
            }
        }
        Ok(())
    }
}
