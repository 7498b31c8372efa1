//! Nodes and a relay over sockets.

use std::{io, time::Duration};

use bytes::{Bytes, BytesMut};
use macula_proto::{
    Code,
    tunnel::relay::RelayConfig,
    wire::{
        Encoding,
        rpc::{Connect, Decoder, Message},
    },
};

use super::common::soon as within;
use crate::{
    adapter::{
        io::{AsyncReadExt, AsyncWriteExt, shutdown},
        run, sleep, spawn,
    },
    macula::{
        DialConfig, Endpoint, NodeEvent, Options, RelayClient, RelayServer, alpn, entropy,
        tls::{ClientTls, Credentials, SelfSigned, ServerTls, Trust},
    },
};

struct Rig {
    relay: RelayServer,
    credentials: Credentials,
}

impl Rig {
    fn new() -> Self {
        let credentials = Credentials::self_signed(&entropy().unwrap(), &SelfSigned::default()).unwrap();
        let relay = serve("127.0.0.1:0", &credentials);
        Self { relay, credentials }
    }

    fn node(&self, name: &str) -> RelayClient {
        let tls = ClientTls::new(Trust::Pins(vec![self.credentials.pin()])).alpn([alpn::MACULA_DIST]);
        let address = self.relay.endpoint().local_addr().to_string().parse().unwrap();
        RelayClient::connect([address], name, &tls).unwrap()
    }
}

fn serve(addr: &str, credentials: &Credentials) -> RelayServer {
    try_serve(addr, credentials).unwrap()
}

fn try_serve(addr: &str, credentials: &Credentials) -> io::Result<RelayServer> {
    let tls = ServerTls::new(credentials.clone()).alpn([alpn::MACULA_DIST, alpn::MACULA]);
    RelayServer::bind(addr.parse().unwrap(), &tls, RelayConfig::default())
}

#[test]
fn tunnels_carry_bytes_and_half_closes() {
    run(async {
        let rig = Rig::new();
        let (alice, bob) = (rig.node("alice"), rig.node("bob"));
        assert!(within(alice.identified()).await);
        assert!(within(bob.identified()).await);
        let mut near = within(alice.open("bob")).await.unwrap();
        let mut far = within(bob.incoming()).await.unwrap();
        assert_eq!(far.peer(), alice.name());
        assert_eq!(far.id(), near.id());
        let data: Vec<u8> = (0..5_000_000u32).map(|i| (i % 251) as u8).collect();
        let expected = data.clone();
        let server = spawn(async move {
            let mut received = Vec::new();
            far.read_to_end(&mut received).await.unwrap();
            far.write_all(&received).await.unwrap();
            shutdown(&mut far).await.unwrap();
            // Dropping what is finished abandons nothing.
            received
        });
        near.write_all(&data).await.unwrap();
        shutdown(&mut near).await.unwrap();
        let mut echoed = Vec::new();
        within(near.read_to_end(&mut echoed)).await.unwrap();
        assert!(echoed == expected);
        assert!(within(server).await == expected);
    });
}

#[test]
fn an_aborted_tunnel_is_reset_at_the_other_node() {
    run(async {
        let rig = Rig::new();
        let (alice, bob) = (rig.node("alice"), rig.node("bob"));
        within(alice.identified()).await;
        within(bob.identified()).await;
        let near = within(alice.open("bob")).await.unwrap();
        let mut far = within(bob.incoming()).await.unwrap();
        near.abort(Code::TCP_RESET);
        let error = within(far.read(&mut [0; 8])).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_node_that_takes_no_tunnels_refuses_them() {
    run(async {
        let rig = Rig::new();
        let alice = rig.node("alice");
        within(alice.identified()).await;
        // 256 wait to be taken; what comes then is refused at once.
        let mut waiting = Vec::new();
        for _ in 0..256 {
            waiting.push(within(alice.open("alice")).await.unwrap());
        }
        let mut refused = within(alice.open("alice")).await.unwrap();
        assert!(within(refused.read(&mut [0; 8])).await.is_err());
        drop(within(alice.incoming()).await);
        let mut more = within(alice.open("alice")).await.unwrap();
        more.write_all(b"x").await.unwrap();
    });
}

#[test]
fn a_node_comes_back_when_its_relay_does() {
    run(async {
        let rig = Rig::new();
        let address = rig.relay.endpoint().local_addr();
        let (alice, bob) = (rig.node("alice"), rig.node("bob"));
        within(alice.identified()).await;
        within(bob.identified()).await;
        let mut near = within(alice.open("bob")).await.unwrap();
        let _far = within(bob.incoming()).await.unwrap();
        rig.relay.close().await;
        let Rig { relay, credentials } = rig;
        drop(relay);
        assert!(
            within(near.read(&mut [0; 8])).await.is_err(),
            "the tunnel ends with the relay"
        );
        let lost = async {
            while let Some(event) = alice.next_event().await {
                if let NodeEvent::Down { reason, .. } = event {
                    return reason;
                }
            }
            None
        };
        assert_eq!(
            within(lost).await.and_then(|reason| reason.code()),
            Some(Code::SHUTDOWN)
        );
        assert!(alice.open("bob").await.is_err(), "not connected");
        // The port is free when the driver of the old one has gone.
        let relay = within(async {
            loop {
                match try_serve(&address.to_string(), &credentials) {
                    Ok(relay) => return relay,
                    Err(error) => assert_eq!(error.kind(), io::ErrorKind::AddrInUse),
                }
                sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        within(async {
            alice.identified().await;
            bob.identified().await;
        })
        .await;
        within(alice.open("bob")).await.unwrap();
        relay.close().await;
    });
}

#[test]
fn dropping_a_node_tells_the_relay_at_once() {
    run(async {
        let rig = Rig::new();
        let (alice, bob) = (rig.node("alice"), rig.node("bob"));
        within(alice.identified()).await;
        within(bob.identified()).await;
        drop(bob);
        within(async {
            loop {
                match alice.open("bob").await {
                    Err(error) if error.to_string().contains("target_not_connected") => return,
                    _ => sleep(Duration::from_millis(5)).await,
                }
            }
        })
        .await;
        alice.stop();
        assert!(alice.open("bob").await.is_err());
        assert!(alice.incoming().await.is_none());
        assert!(!alice.identified().await);
    });
}

#[test]
fn a_relay_routes_procedures_on_the_same_port() {
    run(async {
        let rig = Rig::new();
        let client = Endpoint::bind("127.0.0.1:0".parse().unwrap(), Options::default()).unwrap();
        let tls = ClientTls::new(Trust::Pins(vec![rig.credentials.pin()])).alpn([alpn::MACULA]);
        let config = DialConfig::new(tls.build(client.clock()).unwrap());
        let remote = rig.relay.endpoint().local_addr();
        let node = within(client.connect(&config, remote, "relay")).await.unwrap();
        let mut stream = within(node.open_bi()).await.unwrap();
        let mut out = BytesMut::new();
        let procedure = Bytes::from_static(b"org/a/b/c/echo_v1");
        for message in [
            Message::Connect(Box::new(Connect::new(Bytes::from_static(&[7; 32])))),
            Message::RegisterProcedure {
                procedure: procedure.clone(),
            },
            Message::Ping { timestamp: 1 },
        ] {
            message.encode(Encoding::Cbor, &mut out).unwrap();
        }
        stream.write_all(&out).await.unwrap();
        let mut decoder = Decoder::default();
        let pong = loop {
            let mut piece = [0; 1000];
            let length = within(stream.read(&mut piece)).await.unwrap();
            decoder.push(Bytes::copy_from_slice(&piece[..length]));
            if let Some(message) = decoder.next() {
                break message.unwrap().0;
            }
        };
        assert!(matches!(pong, Message::Pong { timestamp: 1, .. }));
        let (status, stats) = rig.relay.snapshot().router.unwrap();
        assert_eq!((status.procedures, stats.registered), (vec![(procedure, 1)], 1));
        rig.relay.drain();
        let mut rest = Vec::new();
        assert!(
            within(stream.read_to_end(&mut rest)).await.is_err(),
            "the connection is closed"
        );
        assert!(rig.relay.snapshot().router.unwrap().0.nodes.is_empty());
    });
}
