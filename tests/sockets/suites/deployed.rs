//! The deployed generations, over sockets: their clients against our relay, and a relay like theirs against our node.

use std::time::{Duration, Instant};

use futures_lite::future::zip;

use super::common::soon as within;
use crate::{
    adapter::{
        io::{AsyncReadExt, AsyncWriteExt},
        run, sleep, spawn,
    },
    macula::{
        Code, Connection, DialConfig, Endpoint, ListenConfig, Options, RecvStream, RelayClient, RelayServer,
        SendStream, TransportConfig, alpn, entropy,
        proto::tunnel::relay::RelayConfig,
        tls::{ClientTls, Credentials, SelfSigned, ServerTls, Trust},
    },
};

const VECTORS: &str = include_str!("../../vectors/relay_control.json");

/// The bytes of a vector.
fn vector(name: &str) -> Vec<u8> {
    let vectors: Vec<serde_json::Value> = serde_json::from_str(VECTORS).unwrap();
    let vector = vectors.iter().find(|vector| vector["name"] == name).expect(name);
    let hex = vector["hex"].as_str().unwrap();
    let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(byte).collect()
}

/// The same with another tunnel id: the last 32 bytes of both encodings, as its key is the last in order but for `tun_ok`'s
/// and `tun_notify`'s, which are the same in that.
fn with_id(mut bytes: Vec<u8>, id: &[u8]) -> Vec<u8> {
    let at = bytes.len() - 32;
    bytes[at..].copy_from_slice(id);
    bytes
}

/// A client that writes and reads bytes as they are.
struct Client {
    connection: Connection,
    send: SendStream,
    recv: RecvStream,
    generation: &'static str,
}

impl Client {
    async fn connect(relay: &RelayServer, generation: &'static str) -> Self {
        let endpoint = Endpoint::bind("127.0.0.1:0".parse().unwrap(), Options::default()).unwrap();
        let tls = ClientTls::new(Trust::Insecure).alpn([alpn::MACULA_DIST]);
        let dial = DialConfig::new(tls.build(endpoint.clock()).unwrap());
        let address = relay.endpoint().local_addr();
        let connection = within(endpoint.connect(&dial, address, "localhost")).await.unwrap();
        let (send, recv) = connection.open_bi().await.unwrap().split();
        Self {
            connection,
            send,
            recv,
            generation,
        }
    }

    async fn say(&mut self, message: &str) {
        let bytes = vector(&format!("{}_{message}", self.generation));
        self.send.write_all(&bytes).await.unwrap();
    }

    /// Identifies as bob@host2, for which there is no vector: the one of alice@host1 with another name.
    async fn identify_as_bob(&mut self) {
        let mut bytes = vector(&format!("{}_identify", self.generation));
        let at = bytes.windows(11).position(|part| part == b"alice@host1").unwrap();
        bytes.splice(at..at + 11, *b"bob@host2");
        bytes[at - 1] -= 2;
        bytes[3] -= 2;
        self.send.write_all(&bytes).await.unwrap();
    }

    async fn hear(&mut self, message: &str) -> Vec<u8> {
        let expected = vector(&format!("{}_{message}", self.generation));
        let mut bytes = vec![0; expected.len()];
        within(AsyncReadExt::read_exact(&mut self.recv, &mut bytes))
            .await
            .unwrap();
        bytes
    }

    async fn hears(&mut self, message: &str) {
        let expected = vector(&format!("{}_{message}", self.generation));
        assert_eq!(self.hear(message).await, expected, "{}: {message}", self.generation);
    }
}

async fn client_of(generation: &'static str, other: &'static str) {
    let credentials = Credentials::self_signed(&entropy().unwrap(), &SelfSigned::default()).unwrap();
    let tls = ServerTls::new(credentials).alpn([alpn::MACULA_DIST]);
    let relay = RelayServer::bind("127.0.0.1:0".parse().unwrap(), &tls, RelayConfig::default()).unwrap();
    let mut alice = Client::connect(&relay, generation).await;
    alice.say("tunnel_request").await;
    alice.hears("tunnel_error_not_identified").await;
    alice.say("identify").await;
    alice.hears("identified").await;
    alice.say("tunnel_request").await;
    alice.hears("tunnel_error_not_connected").await;

    let mut bob = Client::connect(&relay, other).await;
    bob.identify_as_bob().await;
    bob.hears("identified").await;
    alice.say("tunnel_request").await;
    let mut near = within(alice.connection.accept_bi()).await.unwrap();
    let mut far = within(bob.connection.accept_bi()).await.unwrap();
    let (mut id, mut same) = ([0; 32], [0; 32]);
    within(AsyncReadExt::read_exact(&mut near, &mut id)).await.unwrap();
    within(AsyncReadExt::read_exact(&mut far, &mut same)).await.unwrap();
    assert_eq!(id, same);
    assert!(
        id.iter()
            .all(|byte| byte.is_ascii_digit() || (b'A'..=b'F').contains(byte))
    );
    let expected = with_id(vector(&format!("{generation}_tunnel_ok")), &id);
    assert_eq!(alice.hear("tunnel_ok").await, expected);
    let expected = with_id(vector(&format!("{other}_tunnel_notify")), &id);
    assert_eq!(bob.hear("tunnel_notify").await, expected);

    near.write_all(b"to bob").await.unwrap();
    far.write_all(b"to alice").await.unwrap();
    let (mut at_bob, mut at_alice) = ([0; 6], [0; 8]);
    within(AsyncReadExt::read_exact(&mut far, &mut at_bob)).await.unwrap();
    within(AsyncReadExt::read_exact(&mut near, &mut at_alice))
        .await
        .unwrap();
    assert_eq!((&at_bob, &at_alice), (b"to bob", b"to alice"));
    // Closed by its id, as deployed nodes do.
    let close = with_id(vector(&format!("{generation}_tunnel_close")), &id);
    alice.send.write_all(&close).await.unwrap();
    assert!(within(AsyncReadExt::read(&mut far, &mut [0; 8])).await.is_err());
}

#[test]
fn clients_of_both_generations_hear_their_bytes() {
    run(async {
        for (generation, other) in [
            ("cbor", "cbor"),
            ("msgpack", "msgpack"),
            ("cbor", "msgpack"),
            ("msgpack", "cbor"),
        ] {
            client_of(generation, other).await;
        }
    });
}

/// The payload of the next control message.
async fn frame(recv: &mut RecvStream) -> Vec<u8> {
    let mut length = [0; 4];
    within(AsyncReadExt::read_exact(recv, &mut length)).await.unwrap();
    let mut payload = vec![0; u32::from_be_bytes(length) as usize];
    within(AsyncReadExt::read_exact(recv, &mut payload)).await.unwrap();
    payload
}

/// A relay of the 3.x generation: it reads CBOR only, keeps no order between streams and messages, and never ends a stream.
async fn node_at_deployed_relay(streams_first: bool) {
    let relay = Endpoint::bind("127.0.0.1:0".parse().unwrap(), Options::default()).unwrap();
    let credentials = Credentials::self_signed(&entropy().unwrap(), &SelfSigned::default()).unwrap();
    let tls = ServerTls::new(credentials)
        .alpn([alpn::MACULA_DIST])
        .build(relay.clock())
        .unwrap();
    let mut listen = ListenConfig::new(tls);
    listen.transport = TransportConfig::relay();
    relay.listen(listen).unwrap();
    let tls = ClientTls::new(Trust::Insecure).alpn([alpn::MACULA_DIST]);
    let address = relay.local_addr().to_string().parse().unwrap();
    let node = RelayClient::connect([address], "alice@host1", &tls).unwrap();

    let connection = within(relay.accept()).await.unwrap();
    let (mut send, mut recv) = within(connection.accept_bi()).await.unwrap().split();
    let begin = Instant::now();
    assert_eq!(frame(&mut recv).await, vector("msgpack_identify")[4..]);
    assert_eq!(frame(&mut recv).await, vector("cbor_identify")[4..]);
    let took = begin.elapsed();
    assert!(
        took > Duration::from_millis(800) && took < Duration::from_secs(5),
        "{took:?}"
    );
    send.write_all(&vector("cbor_identified")).await.unwrap();
    assert!(within(node.identified()).await);

    // From then on it speaks CBOR. The other node is the same one: one tunnel out, one in.
    let asking = node.clone();
    let opened = spawn(async move { asking.open("bob@host2").await });
    assert_eq!(frame(&mut recv).await, vector("cbor_tunnel_request")[4..]);
    let (out, back) = ([b'1'; 32], [b'2'; 32]);
    let messages = [
        with_id(vector("cbor_tunnel_ok"), &out),
        with_id(vector("cbor_tunnel_notify"), &back),
    ];
    if !streams_first {
        send.write_all(&messages.concat()).await.unwrap();
    }
    let mut streams = Vec::new();
    for id in [out, back] {
        let mut stream = connection.open_bi().await.unwrap();
        // Bytes of the tunnel come together with the prefix.
        stream.write_all(&[&id[..], b"hello"].concat()).await.unwrap();
        streams.push(stream);
    }
    if streams_first {
        // They are there, and nobody knows what they are for.
        within(async {
            while node
                .status()
                .and_then(|(_, session)| session)
                .is_none_or(|session| session.unidentified_streams < 2)
            {
                sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
        send.write_all(&messages.concat()).await.unwrap();
    }
    let mut tunnels = [within(opened).await.unwrap(), within(node.incoming()).await.unwrap()];
    assert_eq!(tunnels[1].peer().as_bytes(), b"alice@host1");
    for (tunnel, stream) in tunnels.iter_mut().zip(&mut streams) {
        let mut bytes = [0; 5];
        within(tunnel.read_exact(&mut bytes)).await.unwrap();
        assert_eq!(&bytes, b"hello");
        tunnel.write_all(b"answer").await.unwrap();
        let mut bytes = [0; 6];
        within(AsyncReadExt::read_exact(stream, &mut bytes)).await.unwrap();
        assert_eq!(&bytes, b"answer");
    }
    // Given up here: this relay is told by message, as it looks at nothing else.
    let [first, _second] = tunnels;
    first.abort(Code::CLOSED);
    assert_eq!(frame(&mut recv).await, with_id(vector("cbor_tunnel_close"), &out)[4..]);
}

#[test]
fn a_node_works_with_a_deployed_relay_whatever_comes_first() {
    run(async {
        zip(node_at_deployed_relay(true), node_at_deployed_relay(false)).await;
    });
}
