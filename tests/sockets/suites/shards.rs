//! A relay on several sockets of one port, each with a thread of its own.

use std::{collections::BTreeSet, io};

use macula_proto::{quic::ConfigError, tunnel::relay::RelayConfig};

use super::common::soon as within;
use crate::{
    adapter::{
        io::{copy, shutdown},
        run, spawn,
    },
    macula::{
        Code, Endpoint, ListenConfig, NodeEvent, Options, RelayClient, RelayServer, TransportConfig, alpn, entropy,
        tls::{ClientTls, Credentials, SelfSigned, ServerTls, Trust},
    },
};

const SHARDS: u8 = 4;
const NODES: usize = 16;
const BYTES: usize = 300_000;

fn bind(addr: &str, count: u8) -> io::Result<Vec<Endpoint>> {
    Endpoint::bind_shards(addr.parse().unwrap(), count, Options::default)
}

fn listen(endpoints: &[Endpoint], credentials: &Credentials) -> ListenConfig {
    let tls = ServerTls::new(credentials.clone()).alpn([alpn::MACULA_DIST]);
    let mut listen = ListenConfig::new(tls.build(endpoints[0].clock()).unwrap());
    listen.transport = TransportConfig::relay_listener();
    listen
}

/// Gives back whatever comes through tunnels.
async fn echo(node: RelayClient) {
    while let Some(tunnel) = node.incoming().await {
        let (mut send, mut recv) = tunnel.split();
        spawn(async move {
            copy(&mut recv, &mut send).await.unwrap();
            shutdown(&mut send).await.unwrap();
        });
    }
}

#[test]
fn nodes_reach_each_other_wherever_the_kernel_puts_them() {
    run(async {
        let credentials = Credentials::self_signed(&entropy().unwrap(), &SelfSigned::default()).unwrap();
        let endpoints = bind("127.0.0.1:0", SHARDS).unwrap();
        let listen = listen(&endpoints, &credentials);
        let relay = RelayServer::serve_shards(&endpoints, &RelayConfig::default(), &listen).unwrap();
        let address = relay.endpoint().local_addr();
        assert!(relay.endpoints().all(|shard| shard.local_addr() == address));
        assert_eq!(
            bind(&address.to_string(), 2).unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );

        let tls = ClientTls::new(Trust::Pins(vec![credentials.pin()])).alpn([alpn::MACULA_DIST]);
        let mut nodes = Vec::new();
        for index in 0..NODES {
            let relays = [address.to_string().parse().unwrap()];
            let node = RelayClient::connect(relays, format!("node{index}").as_str(), &tls).unwrap();
            assert!(within(node.identified()).await);
            spawn(echo(node.clone()));
            nodes.push(node);
        }
        let of_shards: BTreeSet<_> = relay
            .snapshot()
            .status
            .connections
            .iter()
            .map(|conn| conn.conn.0 >> 24 & 0xff)
            .collect();
        assert!(of_shards.len() > 1, "16 nodes are on {of_shards:?}");

        let all = nodes.iter().enumerate().map(|(index, node)| {
            let (node, target) = (node.clone(), format!("node{}", (index + 5) % NODES));
            spawn(async move {
                let data: Vec<u8> = (0..BYTES).map(|at| ((at * 7 + index) % 251) as u8).collect();
                let (mut send, mut recv) = node.open(target.as_str()).await.unwrap().split();
                let sent = data.clone();
                let sender = spawn(async move {
                    send.write_all(&sent).await.unwrap();
                    shutdown(&mut send).await.unwrap();
                });
                let echoed = recv.read_to_end(BYTES).await.unwrap().unwrap();
                sender.await;
                assert!(echoed == data, "{index}");
            })
        });
        for task in all.collect::<Vec<_>>() {
            within(task).await;
        }
        let snapshot = relay.snapshot();
        assert_eq!(snapshot.relay.tunnels_opened, NODES as u64);
        assert_eq!(snapshot.connections.len(), NODES);
        assert!(snapshot.connections.iter().all(|conn| conn.bytes_sent > BYTES as u64));
        assert_eq!(snapshot.endpoint.accepted, NODES as u64);
        assert!(snapshot.endpoint.bytes_sent > (2 * NODES * BYTES) as u64);

        within(relay.close()).await;
        for node in &nodes {
            let down = async {
                while let Some(event) = node.next_event().await {
                    if let NodeEvent::Down { reason, .. } = event {
                        return reason.and_then(|reason| reason.code());
                    }
                }
                None
            };
            assert_eq!(within(down).await, Some(Code::SHUTDOWN));
        }
    });
}

#[test]
fn what_cannot_be_a_relay_on_one_port_is_refused() {
    run(async {
        for count in [0, 65] {
            let error = bind("127.0.0.1:0", count).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            assert!(error.to_string().contains("1 to 64"), "{error}");
        }
        let credentials = Credentials::self_signed(&entropy().unwrap(), &SelfSigned::default()).unwrap();
        let mut endpoints = bind("127.0.0.1:0", 2).unwrap();
        let listen = listen(&endpoints, &credentials);
        let config = RelayConfig::default();
        endpoints.reverse();
        let refused = [&endpoints[..], &endpoints[1..], &[]];
        for endpoints in refused {
            let refused = RelayServer::serve_shards(endpoints, &config, &listen);
            assert_eq!(refused.err(), Some(ConfigError("shard")));
        }
        endpoints.reverse();
        RelayServer::serve_shards(&endpoints, &config, &listen).unwrap();
    });
}
