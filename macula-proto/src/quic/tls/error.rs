//! What can be wrong with a TLS configuration.

/// A TLS configuration that cannot be used as the caller gave it.
///
/// Only local input ends here. What a *peer* does wrong ends its connection, and the connection's close reason says
/// why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// There is no `CERTIFICATE` section, or an empty chain.
    #[error("no certificate found")]
    NoCertificate,
    /// There is no private key section.
    #[error("no private key found (PRIVATE KEY, EC PRIVATE KEY or RSA PRIVATE KEY)")]
    NoPrivateKey,
    /// The private key is protected by a passphrase, which nobody can be asked for here.
    #[error("the private key is encrypted; store it without a passphrase")]
    EncryptedKey,
    /// There is more than one private key, so which one belongs to the certificate is unclear.
    #[error("more than one private key found")]
    SeveralKeys,
    /// The text is not well-formed PEM.
    #[error("bad PEM: {0}")]
    BadPem(String),
    /// A certificate is not one that TLS can use: X.509 version 3 in DER.
    #[error("bad certificate: {0}")]
    BadCertificate(String),
    /// The private key is not one that TLS can use: RSA of 2,048 to 8,192 bits, ECDSA on P-256 or P-384, or Ed25519.
    #[error("bad private key: {0}")]
    BadKey(String),
    /// The private key belongs to another certificate than the first of the chain.
    #[error("the private key does not match the certificate")]
    KeyMismatch,
    /// A name cannot stand in a certificate, or cannot be dialled.
    #[error("not a host name or an IP address: {0:?}")]
    BadName(String),
    /// No application protocol was named.
    #[error("no application protocol (ALPN) given")]
    NoAlpn,
    /// The name of an application protocol is empty or longer than TLS can carry.
    #[error("application protocol name of {length} bytes; 1 to 255 are possible")]
    BadAlpn {
        /// Its length in bytes.
        length: usize,
    },
    /// Roots were asked for and the list is empty.
    #[error("no root certificate given")]
    NoRoots,
    /// Pins were asked for and the list is empty, so that nobody could ever be accepted.
    #[error("no pin given")]
    NoPins,
    /// Platform roots were asked for in a build without the feature `platform-roots`.
    #[error("built without platform roots (feature `platform-roots`); give a CA file or a pin")]
    NoPlatformRoots,
    /// The platform's roots cannot be loaded.
    #[error("platform roots: {0}")]
    PlatformRoots(String),
    /// Early data (0-RTT) needs session resumption, which is switched off.
    #[error("early data needs session resumption")]
    EarlyDataWithoutResumption,
    /// The TLS library refused the configuration for another reason.
    #[error("TLS configuration: {0}")]
    Config(String),
}
