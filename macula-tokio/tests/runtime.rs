//! What becomes of an endpoint without its runtime.

use std::{io, time::Duration};

use macula_tokio::{
    CloseReason, Code, DialConfig, Endpoint, ListenConfig, Options, entropy,
    tls::{ClientTls, Credentials, Pin, SelfSigned, ServerTls, Trust},
};
use tokio::runtime::Runtime;

/// Far more than anything here takes; only a hang reaches it.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future)
        .await
        .expect("nothing here takes a minute")
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime")
}

fn bind() -> io::Result<Endpoint> {
    Endpoint::bind("127.0.0.1:0".parse().expect("an address"), Options::default())
}

fn server() -> (Endpoint, Pin) {
    let endpoint = bind().expect("bind");
    let seed = entropy().expect("entropy");
    let credentials = Credentials::self_signed(&seed, &SelfSigned::default()).expect("a certificate");
    let pin = credentials.pin();
    let tls = ServerTls::new(credentials).alpn(["test"]).build(endpoint.clock());
    endpoint
        .listen(ListenConfig::new(tls.expect("server TLS")))
        .expect("listen");
    (endpoint, pin)
}

#[test]
fn without_a_runtime_there_is_no_endpoint() {
    let error = bind().expect_err("nobody would drive it");
    assert_eq!(error.kind(), io::ErrorKind::NotConnected);
}

#[test]
fn everything_ends_with_the_runtime() {
    let (one, two) = (runtime(), runtime());
    let (server, pin) = one.block_on(async { server() });
    two.block_on(async {
        let client = bind().expect("bind");
        let tls = ClientTls::new(Trust::Pins(vec![pin]))
            .alpn(["test"])
            .build(client.clock());
        let config = DialConfig::new(tls.expect("client TLS"));
        let dialled = soon(client.connect(&config, server.local_addr(), "localhost"))
            .await
            .expect("connected");
        let accepted = soon(server.accept()).await.expect("accepted");
        let waiting = tokio::spawn(async move { accepted.accept_bi().await.err() });
        tokio::task::yield_now().await;
        one.shutdown_background();
        let lost = soon(waiting).await.expect("joined").expect("no stream comes");
        assert!(
            matches!(
                lost.0,
                CloseReason::Local {
                    code: Code::SHUTDOWN,
                    ..
                }
            ),
            "{lost}"
        );
        assert!(soon(server.accept()).await.is_none());
        drop(dialled);
    });
}
