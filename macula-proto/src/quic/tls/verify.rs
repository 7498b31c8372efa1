//! Judging a peer's certificate by pin, or not at all, but never without its signature.

use std::{fmt, sync::Arc};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, PeerIncompatible, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature},
    server::{
        ParsedCertificate,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::Pin;

/// Largest certificate chain, in bytes of DER, taken from a peer that is not judged by certificate authorities: 16 KiB.
///
/// Such a chain is never verified beyond its leaf, yet it is kept with the session, so it must not be of any size.
pub const MAX_PEER_CHAIN: usize = 16 << 10;

/// Why a peer's certificate was refused before any certificate authority was asked.
///
/// The application reads it in the connection's close reason; the peer sees the TLS alert `certificate_unknown` (46),
/// which QUIC carries as close code `0x12e`.
#[derive(thiserror::Error)]
enum Refused {
    #[error("certificate with pin {0} is not among the accepted ones")]
    UnknownPin(Pin),
    #[error("unreadable certificate (X.509 version 3 is needed): {0}")]
    Unreadable(String),
    #[error("certificate chain of {0} bytes is above the limit of {MAX_PEER_CHAIN}")]
    ChainTooLarge(usize),
}

/// The same as for display: the close reason is made of the debug form of what a verifier returns.
impl fmt::Debug for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        Self::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(refused))))
    }
}

/// Accepts the leaf certificates with certain pins, or any; the handshake signature is verified in both cases.
///
/// Names, dates and issuers are not looked at: a pin stands for exactly one certificate, and a caller who accepts any
/// certificate gains nothing from the date in it.
#[derive(Debug)]
pub(super) struct LeafVerifier {
    accepted: Accepted,
    /// Whether a client must show a certificate. Servers always do.
    mandatory: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

#[derive(Debug)]
enum Accepted {
    Any,
    Pins(Vec<Pin>),
}

impl LeafVerifier {
    /// Accepts every certificate that can be read.
    pub(super) fn any(provider: &CryptoProvider) -> Self {
        Self {
            accepted: Accepted::Any,
            mandatory: false,
            algorithms: provider.signature_verification_algorithms,
        }
    }

    /// Accepts the certificates with one of these pins and insists on seeing one.
    pub(super) fn pins(pins: Vec<Pin>, provider: &CryptoProvider) -> Self {
        Self {
            accepted: Accepted::Pins(pins),
            mandatory: true,
            algorithms: provider.signature_verification_algorithms,
        }
    }

    fn judge(&self, leaf: &CertificateDer<'_>, rest: &[CertificateDer<'_>]) -> Result<(), Refused> {
        let size = rest.iter().fold(leaf.len(), |sum, one| sum.saturating_add(one.len()));
        if size > MAX_PEER_CHAIN {
            return Err(Refused::ChainTooLarge(size));
        }
        if let Accepted::Pins(pins) = &self.accepted {
            let pin = Pin::of(leaf);
            if !pins.contains(&pin) {
                return Err(Refused::UnknownPin(pin));
            }
        }
        match ParsedCertificate::try_from(leaf) {
            Ok(_) => Ok(()),
            Err(Error::InvalidCertificate(reason)) => Err(Refused::Unreadable(reason.to_string())),
            Err(error) => Err(Refused::Unreadable(error.to_string())),
        }
    }

    fn signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }
}

/// QUIC has no TLS 1.2, so a signature of that version never comes; if one did, it would be refused.
fn no_tls12() -> Error {
    Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered)
}

impl ServerCertVerifier for LeafVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.judge(leaf, rest)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for LeafVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.judge(leaf, rest)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
