//! TLS of a dialler.

use std::{fmt, sync::Arc};

use quinn_proto::{TokenMemoryCache, crypto::rustls::QuicClientConfig};
use rustls::{
    ClientConfig, RootCertStore,
    client::{Resumption, WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::CryptoProvider,
    sign::SingleCertAndKey,
};
use rustls_pki_types::CertificateDer;

use super::{
    Credentials, KeyLog, Pin, TlsError, certificates_from_pem, checked_alpn, key_log::Lines, provider_for,
    verify::LeafVerifier,
};
use crate::WallClock;

/// Which servers a dialler believes to be who they say.
///
/// There is no default. Whatever is chosen, a server proves that it holds the private key of the certificate it shows.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Trust {
    /// Certificates valid now, for the name dialled, under the operating system's roots. Needs the feature
    /// `platform-roots`.
    Platform,
    /// Certificates valid now, for the name dialled, signed directly or through intermediates by one of these roots.
    Roots(Vec<CertificateDer<'static>>),
    /// Exactly the certificates with these pins, whatever names and dates they hold.
    Pins(Vec<Pin>),
    /// Every server. The traffic is encrypted, but to whom is unknown: anybody on the path can stand in for the server.
    Insecure,
}

impl Trust {
    /// [`Trust::Roots`] from the certificates of a PEM text.
    ///
    /// # Errors
    /// [`TlsError::BadPem`] if the text is not well-formed, [`TlsError::NoCertificate`] if it has none.
    pub fn roots_from_pem(pem: &[u8]) -> Result<Self, TlsError> {
        certificates_from_pem(pem).map(Self::Roots)
    }
}

/// How a dialler does TLS: whom it trusts, what it speaks and what it shows of itself.
///
/// Early data is off, as are secret logs; sessions with up to 256 servers can be resumed.
#[derive(Debug, Clone)]
pub struct ClientTls {
    trust: Trust,
    alpn: Vec<Vec<u8>>,
    credentials: Option<Credentials>,
    sessions: usize,
    early_data: bool,
    key_log: Option<Arc<dyn KeyLog>>,
}

impl ClientTls {
    /// A dialler that accepts the servers that `trust` describes.
    pub fn new(trust: Trust) -> Self {
        Self {
            trust,
            alpn: Vec::new(),
            credentials: None,
            sessions: 256,
            early_data: false,
            key_log: None,
        }
    }

    /// The application protocols spoken, the preferred one first. At least one is needed; see
    /// [`alpn`](crate::quic::alpn).
    #[must_use]
    pub fn alpn<P: Into<Vec<u8>>>(mut self, protocols: impl IntoIterator<Item = P>) -> Self {
        self.alpn = protocols.into_iter().map(Into::into).collect();
        self
    }

    /// What to show to servers that ask for a client certificate. Default nothing.
    ///
    /// To show another one later, build another configuration: sessions are resumed as who they were made.
    #[must_use]
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = Some(credentials);
        self
    }

    /// With how many servers sessions are remembered for resumption; 0 makes every handshake a full one. Default 256.
    ///
    /// A resumed session trusts the server for what it showed when the first of a row of sessions began, even if that
    /// certificate has expired since.
    #[must_use]
    pub fn resumable_servers(mut self, servers: usize) -> Self {
        self.sessions = servers;
        self
    }

    /// Whether a resumed session may carry data with its first packet (0-RTT). Default no; an attacker can deliver a
    /// copy of such data again.
    #[must_use]
    pub fn early_data(mut self, allowed: bool) -> Self {
        self.early_data = allowed;
        self
    }

    /// Hands the secrets of every session to `log`. Default nobody.
    #[must_use]
    pub fn key_log(mut self, log: Arc<dyn KeyLog>) -> Self {
        self.key_log = Some(log);
        self
    }

    /// The configuration for an endpoint whose time is `clock`. Resumable sessions belong to what is returned and its
    /// clones.
    ///
    /// Only [`Trust::Platform`] reads anything from outside: the operating system's certificate store, once, here.
    ///
    /// # Errors
    /// [`TlsError::NoAlpn`], [`TlsError::BadAlpn`], [`TlsError::NoPins`], [`TlsError::NoRoots`],
    /// [`TlsError::BadCertificate`] (a root), [`TlsError::NoPlatformRoots`], [`TlsError::PlatformRoots`] or
    /// [`TlsError::EarlyDataWithoutResumption`].
    pub fn build(&self, clock: &WallClock) -> Result<ClientCrypto, TlsError> {
        if self.early_data && self.sessions == 0 {
            return Err(TlsError::EarlyDataWithoutResumption);
        }
        let provider = provider_for(clock);
        let builder = ClientConfig::builder_with_details(provider.clone(), Arc::new(clock.clone()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| TlsError::Config(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(server_verifier(&self.trust, &provider)?);
        let mut config = match &self.credentials {
            Some(own) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own.certified()))),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = checked_alpn(&self.alpn)?;
        config.resumption = match self.sessions {
            0 => Resumption::disabled(),
            servers => Resumption::in_memory_sessions(servers),
        };
        config.enable_early_data = self.early_data;
        if let Some(log) = &self.key_log {
            config.key_log = Arc::new(Lines(log.clone()));
        }
        let config = QuicClientConfig::try_from(config).map_err(|error| TlsError::Config(error.to_string()))?;
        Ok(ClientCrypto::new(config))
    }
}

fn server_verifier(trust: &Trust, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
    Ok(match trust {
        Trust::Platform => platform_verifier(provider)?,
        Trust::Roots(roots) => {
            WebPkiServerVerifier::builder_with_provider(Arc::new(root_store(roots)?), provider.clone())
                .build()
                .map_err(|error| TlsError::Config(error.to_string()))?
        }
        Trust::Pins(pins) if pins.is_empty() => return Err(TlsError::NoPins),
        Trust::Pins(pins) => Arc::new(LeafVerifier::pins(pins.clone(), provider)),
        Trust::Insecure => Arc::new(LeafVerifier::any(provider)),
    })
}

#[cfg(feature = "platform-roots")]
fn platform_verifier(provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
    match rustls_platform_verifier::Verifier::new(provider.clone()) {
        Ok(verifier) => Ok(Arc::new(verifier)),
        Err(error) => Err(TlsError::PlatformRoots(error.to_string())),
    }
}

#[cfg(not(feature = "platform-roots"))]
fn platform_verifier(_provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
    Err(TlsError::NoPlatformRoots)
}

/// The given roots, all of which must be usable.
pub(super) fn root_store(roots: &[CertificateDer<'static>]) -> Result<RootCertStore, TlsError> {
    if roots.is_empty() {
        return Err(TlsError::NoRoots);
    }
    let mut store = RootCertStore::empty();
    for root in roots {
        store
            .add(root.clone())
            .map_err(|error| TlsError::BadCertificate(error.to_string()))?;
    }
    Ok(store)
}

/// A finished [`ClientTls`], for an endpoint to dial with. Cheap to clone; clones share sessions to resume, and tokens that
/// prove this side's address to servers it has talked to (RFC 9000 §8.1.3).
#[derive(Clone)]
pub struct ClientCrypto {
    config: Arc<QuicClientConfig>,
    tokens: Arc<TokenMemoryCache>,
}

impl ClientCrypto {
    pub(super) fn new(config: QuicClientConfig) -> Self {
        Self {
            config: Arc::new(config),
            tokens: Arc::new(TokenMemoryCache::default()),
        }
    }

    /// As quinn-proto takes it.
    pub(crate) fn quinn(&self) -> Arc<dyn quinn_proto::crypto::ClientConfig> {
        self.config.clone()
    }

    pub(crate) fn tokens(&self) -> Arc<TokenMemoryCache> {
        self.tokens.clone()
    }
}

impl fmt::Debug for ClientCrypto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientCrypto(..)")
    }
}
