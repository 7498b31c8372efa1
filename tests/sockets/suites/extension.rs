//! Machines inside an endpoint, seen through an extension: a tunnel between two nodes through a relay.

use std::{collections::VecDeque, task::Poll};

use super::common::{bind, bind_at, credentials, noise, soon};
use crate::{
    adapter::{
        io::{AsyncReadExt, AsyncWriteExt, shutdown},
        run, spawn,
    },
    macula::{
        Code, Context, DialConfig, Endpoint, Extension, ListenConfig, RawStream, Stream, TransportConfig, alpn,
        proto::{
            Event,
            endpoint::{ClientEvent, ClientId, RelayAddress, RelayClientConfig},
            tunnel::{
                Name,
                client::{session::SessionConfig, supervisor},
                relay::RelayConfig,
            },
        },
        tls::{ClientTls, Pin, ServerTls, Trust},
    },
};

const CHANGED: u64 = 1;

/// Keeps the tunnels of a node until somebody takes them.
#[derive(Default)]
struct Tunnels {
    up: bool,
    client: Option<ClientId>,
    ready: VecDeque<RawStream>,
}

impl Extension for Tunnels {
    fn on_event(&mut self, cx: &mut Context<'_>, event: Event) -> Option<Event> {
        let Event::Client { client, event } = event else {
            return Some(event);
        };
        match event {
            ClientEvent::Resolve { attempt, address } => {
                let to = format!("{}:{}", address.host, address.port)
                    .parse()
                    .expect("an address");
                let now = cx.now();
                cx.endpoint().resolved(now, client, attempt, &[to]).expect("a node");
            }
            ClientEvent::Relay(supervisor::Report::Up { .. }) => self.up = true,
            ClientEvent::Opened { conn, stream, .. } | ClientEvent::Incoming { conn, stream, .. } => {
                let raw = cx.adopt(conn, stream);
                self.ready.push_back(raw);
            }
            _ => {}
        }
        cx.wake(CHANGED);
        None
    }

    fn on_closed(&mut self, cx: &mut Context<'_>) {
        let now = cx.now();
        if let Some(client) = self.client.take() {
            cx.endpoint().stop_client(now, client).expect("a node");
        }
    }
}

fn relay() -> (Endpoint, Pin) {
    let endpoint = bind();
    let credentials = credentials();
    let pin = credentials.pin();
    let tls = ServerTls::new(credentials)
        .alpn([alpn::MACULA_DIST])
        .build(endpoint.clock());
    let mut config = ListenConfig::new(tls.expect("server TLS"));
    config.transport = TransportConfig::relay();
    endpoint.listen(config).expect("listen");
    endpoint.with(|cx| cx.endpoint().serve_relay(RelayConfig::default()));
    (endpoint, pin)
}

async fn node(name: &str, relay: &Endpoint, pin: Pin) -> (Endpoint, ClientId) {
    let endpoint = bind_at("127.0.0.1:0");
    endpoint.add_extension(Tunnels::default());
    let tls = ClientTls::new(Trust::Pins(vec![pin]))
        .alpn([alpn::MACULA_DIST])
        .build(endpoint.clock());
    let mut dial = DialConfig::new(tls.expect("client TLS"));
    dial.transport = TransportConfig::relay();
    let config = RelayClientConfig {
        relays: vec![RelayAddress {
            host: "127.0.0.1".into(),
            port: relay.local_addr().port(),
        }],
        dial,
        session: SessionConfig::new(Name::from(name)),
        supervisor: supervisor::SupervisorConfig::default(),
    };
    let client = endpoint.with_extension(|tunnels: &mut Tunnels, cx| {
        let now = cx.now();
        let client = cx.endpoint().relay_client(now, config).expect("a node");
        tunnels.client = Some(client);
        client
    });
    let client = client.expect("the extension is there");
    let up = endpoint.wait(
        CHANGED,
        |tunnels: &mut Tunnels, _| if tunnels.up { Poll::Ready(()) } else { Poll::Pending },
    );
    soon(up).await.expect("the extension is there");
    (endpoint, client)
}

async fn next_tunnel(endpoint: &Endpoint) -> Stream {
    let ready = endpoint.wait(CHANGED, |tunnels: &mut Tunnels, _| match tunnels.ready.pop_front() {
        Some(raw) => Poll::Ready(raw),
        None => Poll::Pending,
    });
    let raw = soon(ready).await.expect("the extension is there");
    endpoint.stream(raw)
}

#[test]
fn tunnels_through_a_relay_are_streams_like_any_other() {
    run(async {
        let (relay, pin) = relay();
        let (near, near_client) = node("near", &relay, pin).await;
        let (far, _) = node("far", &relay, pin).await;
        for round in 0..2 {
            near.with(|cx| {
                let now = cx.now();
                let target = Name::from("far");
                cx.endpoint().open_tunnel(now, near_client, target).expect("a node");
            });
            let (mut near_send, mut near_recv) = next_tunnel(&near).await.split();
            let mut far_end = next_tunnel(&far).await;
            let data = noise(4 << 20, round);
            let there = data.clone();
            let writer = spawn(async move {
                near_send.write_all(&there).await.expect("written");
                shutdown(&mut near_send).await.expect("finished");
            });
            let mut arrived = Vec::new();
            soon(AsyncReadExt::read_to_end(&mut far_end, &mut arrived))
                .await
                .expect("read");
            assert!(arrived == data, "intact");
            soon(writer).await;
            soon(far_end.write_all(b"got it"))
                .await
                .expect("the other half still goes");
            far_end.reset(Code::INTERNAL).expect("reset");
            drop(far_end);
            let mut rest = Vec::new();
            let error = soon(AsyncReadExt::read_to_end(&mut near_recv, &mut rest))
                .await
                .expect_err("reset");
            assert!(error.to_string().contains("internal"), "{error}");
        }
        let status = relay.with(|cx| cx.endpoint().relay_stats());
        assert!(status.is_some(), "the relay still runs");
        assert_eq!(
            far.with_extension(|tunnels: &mut Tunnels, _| tunnels.ready.len()),
            Some(0)
        );

        // The node's connection is its machine's: the end of a tunnel has not ended it.
        assert!(near.with(|cx| cx.endpoint().client_connection(near_client).expect("a node").is_some()));

        // The node does not come back after the endpoint was closed.
        near.close(Code::CLOSED, "");
        soon(near.wait_idle()).await;
        assert_eq!(near.stats().open, 0);
        relay.close(Code::SHUTDOWN, "");
        soon(relay.wait_idle()).await;
    });
}

#[test]
fn an_extension_that_does_not_exist_is_not_waited_for() {
    run(async {
        let endpoint = bind();
        let nothing = endpoint.wait(CHANGED, |_: &mut Tunnels, _| Poll::<()>::Pending);
        assert_eq!(soon(nothing).await, None);
        assert_eq!(endpoint.with_extension(|tunnels: &mut Tunnels, _| tunnels.up), None);
    });
}
