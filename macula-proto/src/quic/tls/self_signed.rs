//! Self-signed certificates.

use std::net::IpAddr;

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ED25519, SanType};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use super::{Credentials, TlsError};

/// PKCS#8 version 1 around an Ed25519 private key (RFC 8410): what comes before the 32 bytes of the seed.
const PKCS8_ED25519: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// What a self-signed certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelfSigned {
    /// The subject's common name. Default `macula-node`, as deployed nodes have it.
    pub common_name: String,
    /// DNS names and IP addresses for the subject alternative name. Default none, and then the certificate has no such
    /// extension: it can be accepted by its pin, but not by a check of the name that was dialled.
    pub names: Vec<String>,
}

impl Default for SelfSigned {
    fn default() -> Self {
        Self {
            common_name: "macula-node".to_owned(),
            names: Vec::new(),
        }
    }
}

impl Credentials {
    /// A self-signed certificate for the Ed25519 key whose secret seed is `seed`.
    ///
    /// The same seed and content give the same certificate to the byte, hence the same pin, so a node keeps its pin by
    /// keeping its seed. Whoever has the seed has the key: it must be 32 bytes from the operating system's generator.
    /// The certificate is valid from 1975 to 4096; it may also serve as its own root, for the names it holds.
    ///
    /// # Errors
    /// [`TlsError::BadName`] for a name that cannot stand in a certificate.
    pub fn self_signed(seed: &[u8; 32], content: &SelfSigned) -> Result<Self, TlsError> {
        let pkcs8 = Zeroizing::new([PKCS8_ED25519.as_slice(), seed.as_slice()].concat());
        let key = PrivatePkcs8KeyDer::from(pkcs8.as_slice());
        let signer = KeyPair::from_pkcs8_der_and_sign_algo(&key, &PKCS_ED25519)
            .map_err(|error| TlsError::BadKey(error.to_string()))?;
        let certificate = params(content)?
            .self_signed(&signer)
            .map_err(|error| TlsError::Config(error.to_string()))?;
        let key = PrivateKeyDer::Pkcs8(key.clone_key());
        Self::new(vec![certificate.into()], Zeroizing::new(key))
    }
}

fn params(content: &SelfSigned) -> Result<CertificateParams, TlsError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, content.common_name.as_str());
    params.subject_alt_names = content
        .names
        .iter()
        .map(|name| subject_name(name))
        .collect::<Result<_, _>>()?;
    Ok(params)
}

fn subject_name(name: &str) -> Result<SanType, TlsError> {
    let dialled = super::server_name(name)?;
    if let Ok(address) = dialled.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    match dialled.try_into() {
        Ok(dns) => Ok(SanType::DnsName(dns)),
        Err(_) => Err(TlsError::BadName(name.to_owned())),
    }
}
