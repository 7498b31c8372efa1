//! quinn's endpoints, with the same certificate, cipher, datagram size, windows and socket buffers as ours.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use macula_tokio::{SocketOptions, tls::Credentials};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::{
    client::Resumption,
    pki_types::{PrivateKeyDer, pem::PemObject},
    server::NoServerSessionStorage,
};
use socket2::{Domain, Socket, Type};

use crate::Result;

/// How an endpoint is set up.
#[derive(Debug, Clone)]
pub struct Setup {
    protocol: Vec<u8>,
    resuming: bool,
    streams: Option<u32>,
    idle_timeout: Duration,
    keep_alive: Option<Duration>,
    largest: Option<u16>,
}

/// A socket on loopback with the buffers of ours.
///
/// # Errors
/// Those of the operating system.
pub fn socket() -> Result<UdpSocket> {
    let options = SocketOptions::default();
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    socket.set_recv_buffer_size(options.recv_buffer)?;
    socket.set_send_buffer_size(options.send_buffer)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    Ok(socket.into())
}

fn bind(server: Option<quinn::ServerConfig>) -> Result<quinn::Endpoint> {
    let config = quinn::EndpointConfig::default();
    let runtime = Arc::new(quinn::TokioRuntime);
    Ok(quinn::Endpoint::new(config, server, socket()?, runtime)?)
}

impl Setup {
    /// With this protocol in TLS, sessions that are resumed, and as many streams as quinn allows by default.
    pub fn new(protocol: &[u8]) -> Self {
        Self {
            protocol: protocol.to_vec(),
            resuming: true,
            streams: None,
            idle_timeout: Duration::from_secs(120),
            keep_alive: Some(Duration::from_secs(20)),
            largest: None,
        }
    }

    /// With a whole handshake for every connection.
    #[must_use]
    pub fn never_resuming(mut self) -> Self {
        self.resuming = false;
        self
    }

    /// With so many bidirectional streams that the other end may have open.
    #[must_use]
    pub fn streams(mut self, streams: u32) -> Self {
        self.streams = Some(streams);
        self
    }

    /// With datagrams of up to so many bytes, which it finds out, instead of 1452.
    #[must_use]
    pub fn largest(mut self, bytes: u16) -> Self {
        self.largest = Some(bytes);
        self
    }

    /// With connections that are lost after so much silence, and not kept alive.
    #[must_use]
    pub fn silent_for(mut self, time: Duration) -> Self {
        self.idle_timeout = time;
        self.keep_alive = None;
        self
    }

    fn transport(&self) -> Result<Arc<quinn::TransportConfig>> {
        // The defaults are a ceiling of 1452 bytes and the windows that ours have as well.
        let mut transport = quinn::TransportConfig::default();
        transport
            .max_idle_timeout(Some(self.idle_timeout.try_into()?))
            .keep_alive_interval(self.keep_alive);
        if let Some(bytes) = self.largest {
            let mut discovery = quinn::MtuDiscoveryConfig::default();
            discovery.upper_bound(bytes);
            transport.mtu_discovery_config(Some(discovery));
        }
        if let Some(streams) = self.streams {
            transport.max_concurrent_bidi_streams(streams.into());
        }
        Ok(Arc::new(transport))
    }

    /// A listening endpoint.
    ///
    /// # Errors
    /// Those of rustls and of the socket.
    pub fn listen(&self, credentials: &Credentials) -> Result<quinn::Endpoint> {
        bind(Some(self.server(credentials)?))
    }

    /// What an endpoint listens with.
    ///
    /// # Errors
    /// Those of rustls.
    pub fn server(&self, credentials: &Credentials) -> Result<quinn::ServerConfig> {
        let mut config = quinn::ServerConfig::with_crypto(self.server_tls(credentials)?);
        config.transport_config(self.transport()?);
        Ok(config)
    }

    /// The TLS of a listening endpoint.
    ///
    /// # Errors
    /// Those of rustls.
    pub fn server_tls(&self, credentials: &Credentials) -> Result<Arc<QuicServerConfig>> {
        let key = PrivateKeyDer::from_pem_slice(credentials.key_to_pem().as_bytes())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_single_cert(credentials.chain().to_vec(), key)?;
        tls.alpn_protocols = vec![self.protocol.clone()];
        if !self.resuming {
            tls.session_storage = Arc::new(NoServerSessionStorage {});
            tls.send_tls13_tickets = 0;
        }
        Ok(Arc::new(QuicServerConfig::try_from(tls)?))
    }

    /// An endpoint that dials, and with what.
    ///
    /// # Errors
    /// Those of rustls and of the socket.
    pub fn dialler(&self, credentials: &Credentials) -> Result<(quinn::Endpoint, quinn::ClientConfig)> {
        Ok((bind(None)?, self.client(credentials)?))
    }

    /// What an endpoint dials with.
    ///
    /// # Errors
    /// Those of rustls.
    pub fn client(&self, credentials: &Credentials) -> Result<quinn::ClientConfig> {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in credentials.chain() {
            roots.add(certificate.clone())?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![self.protocol.clone()];
        if !self.resuming {
            tls.resumption = Resumption::disabled();
        }
        let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
        config.transport_config(self.transport()?);
        Ok(config)
    }
}
