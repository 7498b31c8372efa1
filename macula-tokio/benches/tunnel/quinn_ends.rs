//! quinn, with the same certificate, cipher, datagram size, windows and socket buffers.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use macula_tokio::{SocketOptions, tls::Credentials};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::pki_types::{PrivateKeyDer, pem::PemObject};
use socket2::{Domain, Socket, Type};

use crate::{
    Result,
    work::{Acceptor, Duplex, Opener},
};

fn transport() -> Arc<quinn::TransportConfig> {
    // The defaults are a ceiling of 1452 bytes and the windows that ours have as well.
    let mut transport = quinn::TransportConfig::default();
    transport
        .max_idle_timeout(Some(quinn::VarInt::from_u32(120_000).into()))
        .keep_alive_interval(Some(std::time::Duration::from_secs(20)));
    Arc::new(transport)
}

fn bind(server: Option<quinn::ServerConfig>) -> Result<quinn::Endpoint> {
    let options = SocketOptions::default();
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    socket.set_recv_buffer_size(options.recv_buffer)?;
    socket.set_send_buffer_size(options.send_buffer)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    let config = quinn::EndpointConfig::default();
    let runtime = Arc::new(quinn::TokioRuntime);
    Ok(quinn::Endpoint::new(config, server, socket.into(), runtime)?)
}

/// A listening endpoint.
pub(crate) fn listen(credentials: &Credentials) -> Result<quinn::Endpoint> {
    let key = PrivateKeyDer::from_pem_slice(credentials.key_to_pem().as_bytes())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(credentials.chain().to_vec(), key)?;
    tls.alpn_protocols = vec![crate::ours::DIRECT.into()];
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    config.transport_config(transport());
    bind(Some(config))
}

pub(crate) async fn accept(endpoint: quinn::Endpoint) -> Result<Direct> {
    let connection = endpoint.accept().await.ok_or("no connection came")?.await?;
    Ok(Direct {
        connection,
        _endpoint: endpoint,
    })
}

pub(crate) async fn connect(server: SocketAddr, credentials: &Credentials, protocol: &[u8]) -> Result<Direct> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in credentials.chain() {
        roots.add(certificate.clone())?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![protocol.to_vec()];
    let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    config.transport_config(transport());
    let endpoint = bind(None)?;
    let connection = endpoint.connect_with(config, server, "localhost")?.await?;
    Ok(Direct {
        connection,
        _endpoint: endpoint,
    })
}

/// A connection, without a relay unless a script speaks to one.
pub(crate) struct Direct {
    pub(crate) connection: quinn::Connection,
    _endpoint: quinn::Endpoint,
}

impl Opener for Direct {
    async fn open(&mut self) -> Result<impl Duplex> {
        let (send, recv) = self.connection.open_bi().await?;
        Ok(tokio::io::join(recv, send))
    }
}

impl Acceptor for Direct {
    async fn accept(&mut self) -> Result<impl Duplex> {
        let (send, recv) = self.connection.accept_bi().await?;
        Ok(tokio::io::join(recv, send))
    }
}
