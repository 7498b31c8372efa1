use std::{fmt, hint::black_box};

use md5::{Digest as _, Md5};
use zeroize::Zeroizing;

/// The secret that all nodes of a cluster share. It is never printed, and wiped from memory when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Cookie(Zeroizing<Vec<u8>>);

impl Cookie {
    /// A cookie of these bytes: the text of an atom.
    pub fn new(cookie: impl AsRef<[u8]>) -> Self {
        Self(Zeroizing::new(cookie.as_ref().to_vec()))
    }
}

impl From<&str> for Cookie {
    fn from(cookie: &str) -> Self {
        Self::new(cookie)
    }
}

impl fmt::Debug for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cookie(..)")
    }
}

/// The proof that a node knows the cookie: MD5 of the cookie and, behind it, the decimal digits of a number that the other side
/// has drawn. Whoever sees both can try cookies, so a cookie has to be long and random where others can listen.
///
/// Comparing two takes the same time wherever they differ.
#[derive(Clone, Copy)]
pub struct Digest([u8; 16]);

impl Digest {
    /// The proof for the number `challenge`.
    pub fn of(cookie: &Cookie, challenge: u32) -> Self {
        let mut md5 = Md5::new();
        md5.update(&*cookie.0);
        md5.update(challenge.to_string());
        Self(md5.finalize().into())
    }

    /// From the bytes of the wire.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes of the wire.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl PartialEq for Digest {
    fn eq(&self, other: &Self) -> bool {
        let difference = self
            .0
            .iter()
            .zip(&other.0)
            .fold(0, |all, (a, b)| black_box(all | (a ^ b)));
        black_box(difference) == 0
    }
}

impl Eq for Digest {}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest(")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(")")
    }
}
