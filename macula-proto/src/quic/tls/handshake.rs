//! What a handshake said about the peer.

use quinn_proto::crypto::{Session, rustls::HandshakeData};
use rustls_pki_types::CertificateDer;

use super::Pin;

/// What both sides agreed on and showed in a handshake.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct HandshakeInfo {
    /// The application protocol agreed on; `None` before it is known.
    pub alpn: Option<Vec<u8>>,
    /// The host name that the client asked for. Servers only; `None` when the client dialled an IP address.
    pub server_name: Option<String>,
    /// The pin of the peer's leaf certificate; `None` when it showed none. In a resumed session it is the certificate
    /// of the session's first handshake.
    pub peer_pin: Option<Pin>,
    /// Whether the server took the early data (0-RTT). Clients only, and final only once the handshake is complete.
    pub early_data_accepted: Option<bool>,
}

impl HandshakeInfo {
    /// Reads a session, at any moment; complete once the session is established.
    pub(crate) fn of(session: &dyn Session) -> Self {
        let data = session
            .handshake_data()
            .and_then(|data| data.downcast::<HandshakeData>().ok());
        let (alpn, server_name) = data.map_or((None, None), |data| (data.protocol, data.server_name));
        Self {
            alpn,
            server_name,
            peer_pin: peer_chain(session).first().map(Pin::of),
            early_data_accepted: session.early_data_accepted(),
        }
    }
}

/// The certificates that the peer showed, leaf first; empty when it showed none.
pub(crate) fn peer_chain(session: &dyn Session) -> Vec<CertificateDer<'static>> {
    session
        .peer_identity()
        .and_then(|chain| chain.downcast::<Vec<CertificateDer<'static>>>().ok())
        .map(|chain| *chain)
        .unwrap_or_default()
}
