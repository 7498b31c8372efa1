//! TLS of a listener.

use std::{fmt, sync::Arc};

use quinn_proto::crypto::rustls::QuicServerConfig;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::CryptoProvider,
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
};
use rustls_pki_types::CertificateDer;

use super::{
    KeyLog, Pin, Reloadable, TlsError, checked_alpn, client::root_store, key_log::Lines, provider_for,
    sessions::Sessions, verify::LeafVerifier,
};
use crate::WallClock;

/// What a listener asks of its clients' certificates.
///
/// A client that shows a certificate always proves that it holds the private key. In TLS 1.3 a client's handshake is
/// complete before the server has judged its certificate, so a refused client sees its connection established first and
/// closed with a TLS alert a moment later.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ClientAuth {
    /// Not asked for. What deployed listeners do.
    #[default]
    None,
    /// Asked for and optional. Any certificate is taken, self-signed ones included; its pin tells the application who
    /// the client is ([`HandshakeInfo::peer_pin`](super::HandshakeInfo::peer_pin)).
    Request,
    /// Required: a certificate with one of these pins.
    RequirePins(Vec<Pin>),
    /// Required: a certificate that is valid now and signed, directly or through intermediates, by one of these roots.
    /// It is judged anew on every connection: sessions are not resumed.
    RequireRoots(Vec<CertificateDer<'static>>),
}

/// How a listener does TLS: its credentials, its protocols and what it asks of clients.
///
/// Early data is off, as are secret logs; up to 256 sessions can be resumed.
#[derive(Debug, Clone)]
pub struct ServerTls {
    credentials: Reloadable,
    alpn: Vec<Vec<u8>>,
    client_auth: ClientAuth,
    sessions: usize,
    early_data: bool,
    key_log: Option<Arc<dyn KeyLog>>,
}

impl ServerTls {
    /// A listener that shows `credentials`: [`Credentials`](super::Credentials), or a [`Reloadable`] to exchange them
    /// later.
    pub fn new(credentials: impl Into<Reloadable>) -> Self {
        Self {
            credentials: credentials.into(),
            alpn: Vec::new(),
            client_auth: ClientAuth::None,
            sessions: 256,
            early_data: false,
            key_log: None,
        }
    }

    /// The application protocols served, the preferred one first. At least one is needed; see
    /// [`alpn`](crate::quic::alpn).
    #[must_use]
    pub fn alpn<P: Into<Vec<u8>>>(mut self, protocols: impl IntoIterator<Item = P>) -> Self {
        self.alpn = protocols.into_iter().map(Into::into).collect();
        self
    }

    /// What clients must show. Default [`ClientAuth::None`].
    #[must_use]
    pub fn client_auth(mut self, client_auth: ClientAuth) -> Self {
        self.client_auth = client_auth;
        self
    }

    /// How many sessions are remembered for resumption, the oldest making room for the newest; 0 makes every handshake
    /// a full one. Default 256. A handshake takes up to two of them, and each keeps its client's certificate chain.
    ///
    /// A resumed session shows no certificates: its client passes for who it was when the first of a row of sessions
    /// began, even if its certificate has expired since. With [`ClientAuth::RequireRoots`], where that date counts,
    /// nothing is remembered whatever is set here.
    #[must_use]
    pub fn resumable_sessions(mut self, sessions: usize) -> Self {
        self.sessions = sessions;
        self
    }

    /// Whether resuming clients may send data with their first packet (0-RTT). Default no.
    ///
    /// Such data is not bound to a fresh handshake, so an attacker may deliver a copy of it again. Only protocols in which
    /// doing a thing twice is harmless should allow it.
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

    /// The credentials shown, for replacing them while the listener runs.
    pub fn credentials(&self) -> &Reloadable {
        &self.credentials
    }

    /// The configuration for an endpoint whose time is `clock`.
    ///
    /// # Errors
    /// [`TlsError::NoAlpn`], [`TlsError::BadAlpn`], [`TlsError::NoPins`], [`TlsError::NoRoots`],
    /// [`TlsError::BadCertificate`] (a root) or [`TlsError::EarlyDataWithoutResumption`].
    pub fn build(&self, clock: &WallClock) -> Result<ServerCrypto, TlsError> {
        let sessions = match self.client_auth {
            ClientAuth::RequireRoots(_) => 0,
            _ => self.sessions,
        };
        if self.early_data && sessions == 0 {
            return Err(TlsError::EarlyDataWithoutResumption);
        }
        let provider = provider_for(clock);
        let builder = ServerConfig::builder_with_details(provider.clone(), Arc::new(clock.clone()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| TlsError::Config(error.to_string()))?;
        let builder = match client_verifier(&self.client_auth, &provider)? {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::new(self.credentials.clone()));
        config.alpn_protocols = checked_alpn(&self.alpn)?;
        if sessions == 0 {
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        } else {
            config.session_storage = Arc::new(Sessions::new(self.credentials.clone(), sessions));
        }
        // QUIC knows no amount in between (RFC 9001, section 4.6.1).
        config.max_early_data_size = if self.early_data { u32::MAX } else { 0 };
        if let Some(log) = &self.key_log {
            config.key_log = Arc::new(Lines(log.clone()));
        }
        let config = QuicServerConfig::try_from(config).map_err(|error| TlsError::Config(error.to_string()))?;
        Ok(ServerCrypto(Arc::new(config)))
    }
}

fn client_verifier(
    auth: &ClientAuth,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
    Ok(match auth {
        ClientAuth::None => None,
        ClientAuth::Request => Some(Arc::new(LeafVerifier::any(provider))),
        ClientAuth::RequirePins(pins) if pins.is_empty() => return Err(TlsError::NoPins),
        ClientAuth::RequirePins(pins) => Some(Arc::new(LeafVerifier::pins(pins.clone(), provider))),
        ClientAuth::RequireRoots(roots) => {
            let roots: Arc<RootCertStore> = Arc::new(root_store(roots)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
                .build()
                .map_err(|error| TlsError::Config(error.to_string()))?;
            Some(verifier)
        }
    })
}

/// A finished [`ServerTls`], for an endpoint to listen with. Cheap to clone.
#[derive(Clone)]
pub struct ServerCrypto(Arc<QuicServerConfig>);

impl ServerCrypto {
    /// As quinn-proto takes it.
    pub(crate) fn quinn(&self) -> Arc<dyn quinn_proto::crypto::ServerConfig> {
        self.0.clone()
    }

    #[cfg(all(test, feature = "self-signed"))]
    pub(super) fn from_config(config: QuicServerConfig) -> Self {
        Self(Arc::new(config))
    }
}

impl fmt::Debug for ServerCrypto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerCrypto(..)")
    }
}
