//! Endpoints, relays, nodes and tasks on either runtime. The handles are the same on both.

#[path = "../../macula-tokio/tests/common/mod.rs"]
mod random;

use std::{future::Future, net::SocketAddr, pin::Pin};

use macula_driver::{Endpoint, Options, RelayClient, RelayServer, RpcServer, tcp::Spliced};
use macula_proto::{
    quic::{
        DialConfig, ListenConfig, alpn,
        tls::{ClientTls, Credentials, Pin as CertificatePin, SelfSigned, ServerTls, Trust},
    },
    tunnel::relay::RelayConfig,
};
pub(crate) use random::noise;

/// A runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum On {
    Tokio,
    Smol,
}

pub(crate) type Running<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl On {
    /// Runs a future there.
    pub(crate) fn spawn<T: Send + 'static>(self, future: impl Future<Output = T> + Send + 'static) -> Running<T> {
        match self {
            Self::Tokio => {
                let task = tokio::spawn(future);
                Box::pin(async { task.await.expect("it does not panic") })
            }
            Self::Smol => Box::pin(smol::spawn(future)),
        }
    }

    pub(crate) fn relay(self, credentials: Credentials) -> RelayServer {
        let tls = ServerTls::new(credentials).alpn([alpn::MACULA_DIST]);
        let relay = RelayConfig::default();
        match self {
            Self::Tokio => (*macula_tokio::RelayServer::bind(loopback(), &tls, relay).expect("a relay")).clone(),
            Self::Smol => (*macula_smol::RelayServer::bind(loopback(), &tls, relay).expect("a relay")).clone(),
        }
    }

    pub(crate) fn node(self, relay: SocketAddr, name: &'static str, pin: CertificatePin) -> RelayClient {
        let tls = ClientTls::new(Trust::Pins(vec![pin])).alpn([alpn::MACULA_DIST]);
        let relays = [relay.to_string().parse().expect("an address")];
        match self {
            Self::Tokio => (*macula_tokio::RelayClient::connect(relays, name, &tls).expect("a node")).clone(),
            Self::Smol => (*macula_smol::RelayClient::connect(relays, name, &tls).expect("a node")).clone(),
        }
    }

    pub(crate) fn server(self, endpoint: &Endpoint) -> RpcServer {
        match self {
            Self::Tokio => (*macula_tokio::rpc::RpcServer::new(endpoint)).clone(),
            Self::Smol => (*macula_smol::rpc::RpcServer::new(endpoint)).clone(),
        }
    }

    /// Carries one tunnel to a TCP service.
    pub(crate) fn expose(self, node: RelayClient, to: SocketAddr) -> Running<Spliced> {
        self.spawn(async move {
            let (send, recv) = node.incoming().await.expect("a tunnel").split();
            let (options, never) = (Default::default(), std::future::pending());
            match self {
                Self::Tokio => {
                    let tcp = tokio::net::TcpStream::connect(to).await.expect("a service");
                    macula_tokio::tcp::splice_tcp(tcp, recv, send, &options, never).await
                }
                Self::Smol => {
                    let tcp = smol::net::TcpStream::connect(to).await.expect("a service");
                    macula_smol::tcp::splice_tcp(tcp, recv, send, &options, never).await
                }
            }
        })
    }

    /// Carries one TCP connection, to the address that is given, through a tunnel.
    pub(crate) async fn forward(self, node: RelayClient, target: &'static str) -> (SocketAddr, Running<Spliced>) {
        let options = Default::default();
        let never = std::future::pending();
        match self {
            Self::Tokio => {
                let listener = tokio::net::TcpListener::bind(loopback()).await.expect("a port");
                let at = listener.local_addr().expect("an address");
                let running = self.spawn(async move {
                    let (tcp, _) = listener.accept().await.expect("a client");
                    let (send, recv) = node.open(target).await.expect("a tunnel").split();
                    macula_tokio::tcp::splice_tcp(tcp, recv, send, &options, never).await
                });
                (at, running)
            }
            Self::Smol => {
                let listener = smol::net::TcpListener::bind(loopback()).await.expect("a port");
                let at = listener.local_addr().expect("an address");
                let running = self.spawn(async move {
                    let (tcp, _) = listener.accept().await.expect("a client");
                    let (send, recv) = node.open(target).await.expect("a tunnel").split();
                    macula_smol::tcp::splice_tcp(tcp, recv, send, &options, never).await
                });
                (at, running)
            }
        }
    }
}

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

pub(crate) fn bind(on: On) -> Endpoint {
    match on {
        On::Tokio => (*macula_tokio::Endpoint::bind(loopback(), Options::default()).expect("bind")).clone(),
        On::Smol => (*macula_smol::Endpoint::bind(loopback(), Options::default()).expect("bind")).clone(),
    }
}

pub(crate) fn credentials() -> Credentials {
    let seed = macula_driver::entropy().expect("entropy");
    Credentials::self_signed(&seed, &SelfSigned::default()).expect("a certificate")
}

/// A listening endpoint and the pin of its certificate.
pub(crate) fn listen(on: On, protocol: &[u8]) -> (Endpoint, CertificatePin) {
    let (endpoint, credentials) = (bind(on), credentials());
    let pin = credentials.pin();
    let tls = ServerTls::new(credentials).alpn([protocol]).build(endpoint.clock());
    endpoint
        .listen(ListenConfig::new(tls.expect("server TLS")))
        .expect("listen");
    (endpoint, pin)
}

pub(crate) fn dial(endpoint: &Endpoint, pin: CertificatePin, protocol: &[u8]) -> DialConfig {
    let tls = ClientTls::new(Trust::Pins(vec![pin])).alpn([protocol]);
    DialConfig::new(tls.build(endpoint.clock()).expect("client TLS"))
}
