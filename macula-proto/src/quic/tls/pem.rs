//! PEM files: reading certificates and keys, and writing them.

use rustls_pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{PemObject, SectionKind},
};
use zeroize::Zeroizing;

use super::TlsError;

/// Characters of base64 on one line (RFC 7468).
const LINE: usize = 64;

/// What one or more PEM texts hold of certificates and private keys, in the order found.
#[derive(Default)]
pub(super) struct Sections {
    pub(super) certificates: Vec<CertificateDer<'static>>,
    pub(super) keys: Vec<Zeroizing<PrivateKeyDer<'static>>>,
    pub(super) encrypted: bool,
}

impl Sections {
    /// Adds what `pem` holds; sections of other kinds are skipped.
    pub(super) fn read(&mut self, pem: &[u8]) -> Result<(), TlsError> {
        self.encrypted |= names_encrypted_key(pem);
        for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
            let (kind, der) = section.map_err(|error| match self.encrypted {
                true => TlsError::EncryptedKey,
                false => TlsError::BadPem(error.to_string()),
            })?;
            let key = match kind {
                SectionKind::Certificate => {
                    self.certificates.push(CertificateDer::from(der));
                    continue;
                }
                SectionKind::PrivateKey => PrivateKeyDer::Pkcs8(der.into()),
                SectionKind::EcPrivateKey => PrivateKeyDer::Sec1(der.into()),
                SectionKind::RsaPrivateKey => PrivateKeyDer::Pkcs1(der.into()),
                _ => continue,
            };
            self.keys.push(Zeroizing::new(key));
        }
        Ok(())
    }

    /// The only private key.
    pub(super) fn take_key(&mut self) -> Result<Zeroizing<PrivateKeyDer<'static>>, TlsError> {
        match (self.keys.pop(), self.keys.is_empty()) {
            (Some(key), true) => Ok(key),
            (Some(_), false) => Err(TlsError::SeveralKeys),
            (None, _) if self.encrypted => Err(TlsError::EncryptedKey),
            (None, _) => Err(TlsError::NoPrivateKey),
        }
    }
}

/// Whether a section says that its key needs a passphrase, in the PKCS#8 way or in the older one of OpenSSL. To the
/// section reader the first is of an unknown kind and the second is bad base64; neither is what the user should be
/// told.
fn names_encrypted_key(pem: &[u8]) -> bool {
    pem.split(|byte| *byte == b'\n').any(|line| {
        line.starts_with(b"-----BEGIN ENCRYPTED PRIVATE KEY-----") || line.starts_with(b"Proc-Type: 4,ENCRYPTED")
    })
}

/// The certificates of a PEM text, in order; other sections are skipped.
///
/// # Errors
/// [`TlsError::BadPem`] if the text is not well-formed, [`TlsError::NoCertificate`] if it has none.
pub fn certificates_from_pem(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let mut sections = Sections::default();
    sections.read(pem)?;
    if sections.certificates.is_empty() {
        return Err(TlsError::NoCertificate);
    }
    Ok(sections.certificates)
}

/// One PEM section with `label` around `der`, appended to `out`.
pub(super) fn write_section(out: &mut String, label: &str, der: &[u8]) {
    // Room for all of it at once: a buffer that grew would leave parts of a private key behind in freed memory.
    let base64 = der.len().div_ceil(3) * 4;
    out.reserve(base64 + base64.div_ceil(LINE) + 2 * (label.len() + 18));
    out.push_str("-----BEGIN ");
    out.push_str(label);
    out.push_str("-----\n");
    let mut column = 0;
    for group in der.chunks(3) {
        for digit in base64_group(group) {
            out.push(digit);
        }
        column += 4;
        if column == LINE {
            out.push('\n');
            column = 0;
        }
    }
    if column != 0 {
        out.push('\n');
    }
    out.push_str("-----END ");
    out.push_str(label);
    out.push_str("-----\n");
}

/// One to three bytes as four base64 digits, padded.
fn base64_group(group: &[u8]) -> [char; 4] {
    let byte = |at: usize| group.get(at).copied().map_or(0, u32::from);
    let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
    let digit = |shift: u32, used: bool| if used { base64_digit(bits >> shift & 0x3f) } else { '=' };
    [
        digit(18, true),
        digit(12, true),
        digit(6, group.len() > 1),
        digit(0, group.len() > 2),
    ]
}

fn base64_digit(value: u32) -> char {
    let value = u8::try_from(value & 0x3f).unwrap_or(0);
    char::from(match value {
        0..26 => b'A' + value,
        26..52 => b'a' + value - 26,
        52..62 => b'0' + value - 52,
        62 => b'+',
        _ => b'/',
    })
}
