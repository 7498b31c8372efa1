//! A certificate chain with its private key.

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use rustls::{
    Error, InconsistentKeys,
    crypto::CryptoProvider,
    server::{ClientHello, ParsedCertificate, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use super::{
    Pin, TlsError,
    pem::{self, Sections},
    provider,
};

/// A certificate chain, leaf first, and the private key that belongs to the leaf.
///
/// Cheap to clone. The key is never printed, and the copy kept for [`to_pem`](Self::to_pem) is wiped from memory with
/// the last clone; the cryptography library keeps its own parsed form.
#[derive(Clone)]
pub struct Credentials(Arc<Inner>);

struct Inner {
    certified: Arc<CertifiedKey>,
    key: Zeroizing<PrivateKeyDer<'static>>,
    pin: Pin,
}

impl Credentials {
    /// From one PEM text that holds the chain and the key, in any order.
    ///
    /// The key may be PKCS#8 (`PRIVATE KEY`), SEC1 (`EC PRIVATE KEY`) or PKCS#1 (`RSA PRIVATE KEY`). Other sections,
    /// such as the curve parameters that OpenSSL writes, are skipped.
    ///
    /// # Errors
    /// One for each way in which the text is no certificate with its key; see [`TlsError`].
    pub fn from_pem(pem: &[u8]) -> Result<Self, TlsError> {
        let mut sections = Sections::default();
        sections.read(pem)?;
        Self::from_sections(sections)
    }

    /// From two PEM texts, usually of two files: the chain, and the key.
    ///
    /// What either holds beyond its part is used too, so that one file with both may be given twice or for either.
    ///
    /// # Errors
    /// As for [`from_pem`](Self::from_pem).
    pub fn from_pem_pair(chain: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        if chain == key {
            return Self::from_pem(chain);
        }
        let mut sections = Sections::default();
        sections.read(chain)?;
        let mut second = Sections::default();
        second.read(key)?;
        // The second text is where the caller says the key is, so a key in it goes before one next to the chain.
        if !second.keys.is_empty() {
            sections.keys = second.keys;
        }
        sections.encrypted |= second.encrypted;
        if sections.certificates.is_empty() {
            sections.certificates = second.certificates;
        }
        Self::from_sections(sections)
    }

    /// From a chain of DER certificates, leaf first, and a DER private key: PKCS#8, SEC1 or PKCS#1, told apart by
    /// content.
    ///
    /// # Errors
    /// [`TlsError::NoCertificate`], [`TlsError::BadCertificate`], [`TlsError::BadKey`] or [`TlsError::KeyMismatch`].
    pub fn from_der(chain: Vec<CertificateDer<'static>>, key: &[u8]) -> Result<Self, TlsError> {
        let key = PrivateKeyDer::try_from(key).map_err(|error| TlsError::BadKey(error.to_owned()))?;
        Self::new(chain, Zeroizing::new(key.clone_key()))
    }

    /// The pin of the leaf certificate.
    pub fn pin(&self) -> Pin {
        self.0.pin
    }

    /// The certificate chain, leaf first; never empty.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.0.certified.cert
    }

    /// The chain as PEM text.
    pub fn chain_to_pem(&self) -> String {
        let mut out = String::new();
        for certificate in self.chain() {
            pem::write_section(&mut out, "CERTIFICATE", certificate);
        }
        out
    }

    /// The private key as PEM text, in the encoding it was given in.
    ///
    /// The caller is responsible for where this secret goes: a file that only its owner may read.
    pub fn key_to_pem(&self) -> String {
        let label = match &*self.0.key {
            PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
            PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
            _ => "PRIVATE KEY",
        };
        let mut out = String::new();
        pem::write_section(&mut out, label, self.0.key.secret_der());
        out
    }

    /// Chain and private key as one PEM text, which [`from_pem`](Self::from_pem) reads back. A secret, like
    /// [`key_to_pem`](Self::key_to_pem).
    pub fn to_pem(&self) -> String {
        self.chain_to_pem() + &Zeroizing::new(self.key_to_pem())
    }

    fn from_sections(mut sections: Sections) -> Result<Self, TlsError> {
        let key = sections.take_key()?;
        Self::new(sections.certificates, key)
    }

    pub(super) fn new(
        chain: Vec<CertificateDer<'static>>,
        key: Zeroizing<PrivateKeyDer<'static>>,
    ) -> Result<Self, TlsError> {
        let Some(leaf) = chain.first() else {
            return Err(TlsError::NoCertificate);
        };
        let pin = Pin::of(leaf);
        check_certificate(leaf)?;
        let certified = Arc::new(certify(chain, &key, &provider())?);
        Ok(Self(Arc::new(Inner { certified, key, pin })))
    }

    pub(super) fn certified(&self) -> Arc<CertifiedKey> {
        self.0.certified.clone()
    }
}

fn check_certificate(leaf: &CertificateDer<'_>) -> Result<(), TlsError> {
    match ParsedCertificate::try_from(leaf) {
        Ok(_) => Ok(()),
        Err(Error::InvalidCertificate(reason)) => Err(TlsError::BadCertificate(reason.to_string())),
        Err(error) => Err(TlsError::BadCertificate(error.to_string())),
    }
}

fn certify(
    chain: Vec<CertificateDer<'static>>,
    key: &PrivateKeyDer<'static>,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    CertifiedKey::from_der(chain, key.clone_key(), provider).map_err(|error| match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => TlsError::KeyMismatch,
        Error::General(reason) => TlsError::BadKey(reason),
        other => TlsError::BadKey(other.to_string()),
    })
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("pin", &self.pin())
            .field("certificates", &self.chain().len())
            .finish_non_exhaustive()
    }
}

/// Credentials that can be exchanged while listeners use them.
///
/// Clones share one value. A handshake that starts after [`replace`](Self::replace) shows the new certificate, and
/// sessions made under the old one can no longer be resumed; established connections go on undisturbed.
#[derive(Clone, Debug)]
pub struct Reloadable(Arc<RwLock<Current>>);

#[derive(Debug)]
struct Current {
    credentials: Credentials,
    generation: u64,
}

impl Reloadable {
    /// Starts with `credentials`.
    pub fn new(credentials: Credentials) -> Self {
        Self(Arc::new(RwLock::new(Current {
            credentials,
            generation: 0,
        })))
    }

    /// What new handshakes show.
    pub fn current(&self) -> Credentials {
        self.read(|current| current.credentials.clone())
    }

    /// Lets new handshakes show `credentials`, and returns what they showed until now.
    pub fn replace(&self, credentials: Credentials) -> Credentials {
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        current.generation = current.generation.wrapping_add(1);
        std::mem::replace(&mut current.credentials, credentials)
    }

    /// A number that changes with every replacement.
    pub(super) fn generation(&self) -> u64 {
        self.read(|current| current.generation)
    }

    // Nothing can panic while the lock is held, so a poisoned lock still holds a whole value.
    fn read<T>(&self, look: impl FnOnce(&Current) -> T) -> T {
        look(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl From<Credentials> for Reloadable {
    fn from(credentials: Credentials) -> Self {
        Self::new(credentials)
    }
}

impl ResolvesServerCert for Reloadable {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.read(|current| current.credentials.certified()))
    }
}
