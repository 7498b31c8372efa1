//! Two endpoints on loopback.

#[path = "../../../macula-tokio/tests/common/mod.rs"]
mod random;

use std::{future::Future, net::SocketAddr, time::Duration};

use futures_lite::future::zip;
pub(crate) use random::noise;

use crate::{
    adapter::timeout,
    macula::{
        Connection, DialConfig, Endpoint, ListenConfig, Options, TransportConfig, entropy,
        tls::{ClientTls, Credentials, Pin, SelfSigned, ServerTls, Trust},
    },
};

/// Far more than anything here takes; only a hang reaches it.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(60), future)
        .await
        .expect("nothing here takes a minute")
}

pub(crate) fn bind() -> Endpoint {
    bind_at("127.0.0.1:0")
}

pub(crate) fn bind_at(addr: &str) -> Endpoint {
    Endpoint::bind(addr.parse().expect("an address"), Options::default()).expect("bind")
}

/// What the server of a test shows.
pub(crate) fn credentials() -> Credentials {
    Credentials::self_signed(&entropy().expect("entropy"), &SelfSigned::default()).expect("a certificate")
}

pub(crate) fn listen_config(endpoint: &Endpoint, credentials: Credentials) -> ListenConfig {
    let tls = ServerTls::new(credentials).alpn(["test"]).build(endpoint.clock());
    ListenConfig::new(tls.expect("server TLS"))
}

pub(crate) fn dial_config(endpoint: &Endpoint, pin: Pin) -> DialConfig {
    let tls = ClientTls::new(Trust::Pins(vec![pin]))
        .alpn(["test"])
        .build(endpoint.clock());
    DialConfig::new(tls.expect("client TLS"))
}

/// A listening endpoint and the pin of its certificate.
pub(crate) fn server_with(transport: TransportConfig) -> (Endpoint, Pin) {
    let endpoint = bind();
    let credentials = credentials();
    let pin = credentials.pin();
    let mut config = listen_config(&endpoint, credentials);
    config.transport = transport;
    endpoint.listen(config).expect("listen");
    (endpoint, pin)
}

pub(crate) fn server() -> (Endpoint, Pin) {
    server_with(TransportConfig::default())
}

pub(crate) struct Pair {
    pub(crate) server: Endpoint,
    pub(crate) client: Endpoint,
    /// The server's end of the connection.
    pub(crate) accepted: Connection,
    /// The client's end of the connection.
    pub(crate) dialled: Connection,
}

pub(crate) async fn pair() -> Pair {
    pair_with(TransportConfig::default(), TransportConfig::default()).await
}

pub(crate) async fn pair_with(server_transport: TransportConfig, client_transport: TransportConfig) -> Pair {
    let (server, pin) = server_with(server_transport);
    let client = bind();
    let mut config = dial_config(&client, pin);
    config.transport = client_transport;
    let remote: SocketAddr = server.local_addr();
    let (dialled, accepted) = soon(zip(client.connect(&config, remote, "localhost"), server.accept())).await;
    Pair {
        dialled: dialled.expect("connected"),
        accepted: accepted.expect("accepted"),
        server,
        client,
    }
}
