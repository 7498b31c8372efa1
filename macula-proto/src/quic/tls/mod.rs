//! Who one is and whom one believes: certificates, keys, pins and the TLS 1.3 side of QUIC.
//!
//! A listener shows [`Credentials`] through a [`ServerTls`], a dialler judges them by the [`Trust`] of its
//! [`ClientTls`]. There is no default trust: a caller names platform roots, roots of its own, pins, or spells out
//! [`Trust::Insecure`]. In every one of these the peer proves that it holds the private key of the certificate it
//! shows: the signature over the handshake is always verified.
//!
//! ```
//! use macula_proto::quic::{alpn, tls::{ClientTls, Credentials, SelfSigned, ServerTls, Trust}};
//! # #[cfg(feature = "self-signed")]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use macula_proto::WallClock;
//!
//! let clock = WallClock::new(1_750_000_000_000);
//! let seed = [7; 32]; // from the operating system, in real use
//! let credentials = Credentials::self_signed(&seed, &SelfSigned::default())?;
//! let pin = credentials.pin();
//! let server = ServerTls::new(credentials).alpn([alpn::MACULA_DIST]).build(&clock)?;
//! let client = ClientTls::new(Trust::Pins(vec![pin])).alpn([alpn::MACULA_DIST]).build(&clock)?;
//! # let _ = (server, client);
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "self-signed"))]
//! # fn main() {}
//! ```

mod client;
mod clock;
mod credentials;
mod error;
mod handshake;
mod key_log;
mod name;
mod pem;
mod pin;
#[cfg(feature = "self-signed")]
mod self_signed;
mod server;
mod sessions;
#[cfg(all(test, feature = "self-signed"))]
mod tests;
mod verify;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

pub use client::{ClientCrypto, ClientTls, Trust};
pub use credentials::{Credentials, Reloadable};
pub use error::TlsError;
pub use handshake::HandshakeInfo;
pub(crate) use handshake::peer_chain;
pub use key_log::KeyLog;
pub use name::server_name;
pub use pem::certificates_from_pem;
pub use pin::{ParsePinError, Pin};
pub use rustls_pki_types::CertificateDer;
#[cfg(feature = "self-signed")]
pub use self_signed::SelfSigned;
pub use server::{ClientAuth, ServerCrypto, ServerTls};
pub use verify::MAX_PEER_CHAIN;

/// The cryptography behind every configuration made here, so that none of them depends on a process-wide choice.
fn provider() -> Arc<CryptoProvider> {
    #[cfg(feature = "aws-lc-rs")]
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    #[cfg(not(feature = "aws-lc-rs"))]
    let provider = rustls::crypto::ring::default_provider();
    Arc::new(provider)
}

/// The same for what is built with this clock: in a simulation, randomness is that of the endpoint.
#[cfg_attr(not(feature = "sim"), expect(unused_variables, reason = "only simulations differ"))]
fn provider_for(clock: &crate::WallClock) -> Arc<CryptoProvider> {
    #[cfg(feature = "sim")]
    if clock.is_simulated() {
        let provider = Arc::unwrap_or_clone(provider());
        return Arc::new(super::simulated::provider(provider));
    }
    provider()
}

/// Protocol names as TLS can carry them: at least one, each of 1 to 255 bytes.
///
/// Every protocol of the mesh is chosen by its name, and QUIC asks for one, so a configuration without is a mistake.
fn checked_alpn(protocols: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, TlsError> {
    if protocols.is_empty() {
        return Err(TlsError::NoAlpn);
    }
    match protocols.iter().find(|name| name.is_empty() || name.len() > 255) {
        Some(name) => Err(TlsError::BadAlpn { length: name.len() }),
        None => Ok(protocols.to_vec()),
    }
}
