//! Two endpoints on loopback, on smol.

use std::time::Duration;

use macula_smol::{
    CloseReason, Code, DialConfig, Endpoint, ListenConfig, Options, ReadError, entropy,
    tls::{ClientTls, Credentials, Pin, SelfSigned, ServerTls, Trust},
};
use smol::{
    Timer,
    future::{self, FutureExt},
    io::{AsyncReadExt, AsyncWriteExt},
};

async fn soon<T>(what: impl Future<Output = T>) -> T {
    let never = async {
        Timer::after(Duration::from_secs(60)).await;
        panic!("nothing here takes a minute")
    };
    what.or(never).await
}

fn bind() -> Endpoint {
    Endpoint::bind("127.0.0.1:0".parse().expect("an address"), Options::default()).expect("bind")
}

fn server() -> (Endpoint, Pin) {
    let endpoint = bind();
    let seed = entropy().expect("entropy");
    let credentials = Credentials::self_signed(&seed, &SelfSigned::default()).expect("a certificate");
    let pin = credentials.pin();
    let tls = ServerTls::new(credentials).alpn(["test"]).build(endpoint.clock());
    endpoint
        .listen(ListenConfig::new(tls.expect("server TLS")))
        .expect("listen");
    (endpoint, pin)
}

fn dial_config(endpoint: &Endpoint, pin: Pin) -> DialConfig {
    let tls = ClientTls::new(Trust::Pins(vec![pin]))
        .alpn(["test"])
        .build(endpoint.clock());
    DialConfig::new(tls.expect("client TLS"))
}

#[test]
fn megabytes_are_echoed_and_the_end_is_told() {
    smol::block_on(soon(async {
        let (server, pin) = server();
        let address = server.local_addr();
        let (told, was_reset) = smol::channel::bounded(1);
        let serving = smol::spawn(async move {
            let connection = server.accept().await.expect("accepted");
            let (mut send, recv) = connection.accept_bi().await.expect("a stream").split();
            smol::io::copy(recv, &mut send).await.expect("copied");
            send.close().await.expect("finished");
            let mut broken = connection.accept_uni().await.expect("a stream");
            let error = broken.read_to_end(100).await.expect_err("reset");
            told.send(()).await.expect("somebody waits");
            (error, connection.closed().await)
        });
        let client = bind();
        let config = dial_config(&client, pin);
        let connection = client.connect(&config, address, "localhost").await.expect("connected");
        let (mut send, mut recv) = connection.open_bi().await.expect("opened").split();
        let data: Vec<u8> = (0..8u32 << 20)
            .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        let writing = async {
            AsyncWriteExt::write_all(&mut send, &data).await.expect("written");
            send.close().await.expect("finished");
        };
        let mut answer = Vec::new();
        let reading = async { AsyncReadExt::read_to_end(&mut recv, &mut answer).await.expect("read") };
        future::zip(writing, reading).await;
        assert!(answer == data);

        let mut broken = connection.open_uni().await.expect("opened");
        broken.write_all(b"x").await.expect("written");
        broken.reset(Code::TIMEOUT).expect("reset");
        // The reset has to arrive before the end of the connection.
        was_reset.recv().await.expect("told");
        connection.close(Code::INTERNAL, "done");
        let (error, reason) = serving.await;
        assert_eq!(error, ReadError::Reset(Code::TIMEOUT));
        assert!(
            matches!(
                reason,
                CloseReason::Peer {
                    code: Code::INTERNAL,
                    ..
                }
            ),
            "{reason}"
        );
        client.wait_idle().await;
    }));
}

#[test]
fn a_dial_to_nobody_times_out() {
    smol::block_on(soon(async {
        let nobody = std::net::UdpSocket::bind("127.0.0.1:0").expect("bind");
        let client = bind();
        let (_server, pin) = server();
        let config = dial_config(&client, pin);
        let address = nobody.local_addr().expect("an address");
        let timeout = Duration::from_millis(200);
        let dialled = client.connect_timeout(&config, address, "localhost", timeout).await;
        let error = dialled.expect_err("nobody is there");
        assert_eq!(error.reason(), Some(&CloseReason::HandshakeTimeout));
    }));
}

#[test]
fn an_idle_endpoint_sleeps() {
    smol::block_on(soon(async {
        let (server, pin) = server();
        let client = bind();
        let config = dial_config(&client, pin);
        let (dialled, accepted) = future::zip(
            client.connect(&config, server.local_addr(), "localhost"),
            server.accept(),
        )
        .await;
        let runs = || (server.driver_stats().runs, client.driver_stats().runs);
        let mut before = runs();
        let mut quiet = 0;
        while quiet < 10 {
            Timer::after(Duration::from_millis(100)).await;
            quiet = if before == runs() { quiet + 1 } else { 0 };
            before = runs();
        }
        drop((dialled, accepted));
    }));
}
