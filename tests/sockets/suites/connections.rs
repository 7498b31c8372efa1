//! Connections and endpoints on loopback.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::common::{bind, bind_at, credentials, dial_config, listen_config, noise, pair, server, server_with, soon};
use crate::{
    adapter::{
        io::{AsyncReadExt, AsyncWriteExt},
        run, sleep, spawn, timeout,
    },
    macula::{
        Accept, CloseListener, CloseReason, Code, ConnectError, ConnectionLost, DialConfig, Endpoint, Limits, Options,
        SocketOptions, TransportConfig,
        tls::{ClientTls, Trust},
    },
};

#[test]
fn a_dial_to_nobody_times_out_as_configured() {
    run(async {
        // Bound, and silent.
        let nobody = UdpSocket::bind("127.0.0.1:0").expect("bind");
        let client = bind();
        let config = dial_config(&client, credentials().pin());
        let started = Instant::now();
        let dial = client.connect_timeout(
            &config,
            nobody.local_addr().expect("an address"),
            "localhost",
            Duration::from_millis(300),
        );
        let error = soon(dial).await.expect_err("nobody is there");
        assert_eq!(error.reason(), Some(&CloseReason::HandshakeTimeout));
        assert!(started.elapsed() >= Duration::from_millis(300));
        assert_eq!(io::Error::from(error).kind(), io::ErrorKind::TimedOut);
    });
}

#[test]
fn a_dial_with_another_protocol_is_refused_with_the_alert_for_it() {
    run(async {
        let (server, pin) = server();
        let client = bind();
        let tls = ClientTls::new(Trust::Pins(vec![pin]))
            .alpn(["other"])
            .build(client.clock());
        let config = DialConfig::new(tls.expect("client TLS"));
        let error = soon(client.connect(&config, server.local_addr(), "localhost")).await;
        let error = error.expect_err("no common protocol");
        assert_eq!(error.reason().and_then(CloseReason::tls_alert), Some(120), "{error}");
    });
}

#[test]
fn a_server_with_another_certificate_is_not_talked_to() {
    run(async {
        let (server, _) = server();
        let client = bind();
        let config = dial_config(&client, credentials().pin());
        let error = soon(client.connect(&config, server.local_addr(), "localhost")).await;
        let error = error.expect_err("not the pinned certificate");
        assert!(matches!(error.reason(), Some(CloseReason::Transport { .. })), "{error}");
    });
}

#[test]
fn both_ends_know_the_same_facts() {
    run(async {
        let pair = pair().await;
        for connection in [&pair.dialled, &pair.accepted] {
            assert_eq!(connection.alpn().as_deref(), Some(&b"test"[..]));
        }
        assert_eq!(pair.dialled.remote_address(), Some(pair.server.local_addr()));
        assert_eq!(pair.accepted.remote_address(), Some(pair.client.local_addr()));
        let (mut near, mut far) = ([0; 32], [0; 32]);
        assert!(pair.dialled.export_keying_material(&mut near, b"label", b"context"));
        assert!(pair.accepted.export_keying_material(&mut far, b"label", b"context"));
        assert_eq!(near, far);
        assert_ne!(near, [0; 32]);
        pair.dialled.ping();
        assert_eq!(pair.client.stats().dialled, 1);
        assert_eq!(pair.server.stats().accepted, 1);
        assert!(pair.dialled.stats().datagrams_sent > 0);
    });
}

#[test]
fn the_last_handle_closes_the_connection() {
    run(async {
        let pair = pair().await;
        let stream = soon(pair.dialled.open_bi()).await.expect("opened");
        let other = pair.dialled.clone();
        drop(pair.dialled);
        drop(other);
        assert_eq!(pair.accepted.close_reason(), None, "the stream keeps it");
        drop(stream);
        let closed = CloseReason::Peer {
            code: Code::CLOSED,
            reason: Bytes::new(),
        };
        assert_eq!(soon(pair.accepted.closed()).await, closed);
        assert_eq!(
            soon(pair.accepted.open_bi()).await.err(),
            Some(ConnectionLost(closed.clone()))
        );
        assert_eq!(
            soon(pair.accepted.accept_uni()).await.err(),
            Some(ConnectionLost(closed))
        );
    });
}

#[test]
fn dropping_the_endpoint_keeps_its_connections() {
    run(async {
        let pair = pair().await;
        drop((pair.client, pair.server));
        let mut near = soon(pair.dialled.open_bi()).await.expect("opened");
        near.write_all(b"still").await.expect("written");
        let mut far = soon(pair.accepted.accept_bi()).await.expect("accepted");
        soon(far.read_exact(&mut [0; 5])).await.expect("read");
    });
}

#[test]
fn closing_the_endpoint_tells_every_peer() {
    run(async {
        let pair = pair().await;
        pair.server.close(Code::SHUTDOWN, "going home");
        let reason = CloseReason::Peer {
            code: Code::SHUTDOWN,
            reason: Bytes::from_static(b"going home"),
        };
        assert_eq!(soon(pair.dialled.closed()).await, reason);
        assert!(matches!(soon(pair.accepted.closed()).await, CloseReason::Local { .. }));
        soon(pair.server.wait_idle()).await;
        soon(pair.client.wait_idle()).await;
        assert!(soon(pair.server.accept()).await.is_none());
        let config = dial_config(&pair.server, credentials().pin());
        let dialled = soon(pair.server.connect(&config, pair.client.local_addr(), "x")).await;
        assert_eq!(dialled.err(), Some(ConnectError::EndpointClosed));
    });
}

#[test]
fn a_closed_listener_closes_or_keeps_what_it_accepted() {
    run(async {
        for (connections, kept) in [
            (CloseListener::KeepConnections, true),
            (CloseListener::CloseConnections, false),
        ] {
            let pair = pair().await;
            pair.server.close_listener(connections);
            assert!(soon(pair.server.accept()).await.is_none());
            if kept {
                let mut near = soon(pair.dialled.open_uni()).await.expect("opened");
                near.finish().expect("finished");
                soon(near.delivered()).await.expect("delivered");
            } else {
                let reason = soon(pair.dialled.closed()).await;
                assert_eq!(reason.code(), Some(Code::SHUTDOWN), "{reason}");
            }
        }
    });
}

#[test]
fn incoming_connections_are_decided_on_demand() {
    run(async {
        let server = bind();
        let credentials = credentials();
        let pin = credentials.pin();
        let mut config = listen_config(&server, credentials);
        config.accept = Accept::OnDemand;
        server.listen(config).expect("listen");
        let client = bind();
        let config = dial_config(&client, pin);
        let address = server.local_addr();
        let dial = || {
            let (client, config) = (client.clone(), config.clone());
            spawn(async move { client.connect(&config, address, "localhost").await })
        };

        let dialling = dial();
        soon(server.incoming()).await.expect("somebody").refuse();
        let error = soon(dialling).await.expect_err("refused");
        assert_eq!(io::Error::from(error).kind(), io::ErrorKind::ConnectionRefused);

        let dialling = dial();
        let incoming = soon(server.incoming()).await.expect("somebody");
        assert_eq!(incoming.remote_address(), client.local_addr());
        assert!(!incoming.is_validated());
        incoming.retry().expect("asked again");
        let incoming = soon(server.incoming()).await.expect("the same one");
        assert!(incoming.is_validated());
        let accepted = soon(incoming.accept().expect("still there")).await.expect("connected");
        let dialled = soon(dialling).await.expect("connected");
        assert_eq!(accepted.remote_address(), Some(client.local_addr()));
        drop(dialled);
        soon(accepted.closed()).await;
    });
}

#[test]
fn connections_that_nobody_accepts_are_bounded() {
    run(async {
        let mut options = Options::default();
        options.limits = {
            let mut limits = Limits::default();
            limits.pending_incoming = 2;
            limits
        };
        let server = Endpoint::bind("127.0.0.1:0".parse().expect("an address"), options).expect("bind");
        let credentials = credentials();
        let pin = credentials.pin();
        server.listen(listen_config(&server, credentials)).expect("listen");
        let client = bind();
        let config = dial_config(&client, pin);
        let dial = || soon(client.connect(&config, server.local_addr(), "localhost"));
        let _fit = [dial().await.expect("connected"), dial().await.expect("connected")];
        // The end may be there before the dial is over.
        let reason = match dial().await {
            Ok(dialled) => soon(dialled.closed()).await,
            Err(error) => error.reason().expect("a connection that ended").clone(),
        };
        assert_eq!(reason.code(), Some(Code::LIMIT), "{reason}");
        assert_eq!(server.driver_stats().refused_unaccepted, 1);
        for _ in 0..2 {
            soon(server.accept()).await.expect("those that fit");
        }
    });
}

#[test]
fn a_dial_given_up_leaves_nothing_behind() {
    run(async {
        let nobody = UdpSocket::bind("127.0.0.1:0").expect("bind");
        let client = bind();
        let config = dial_config(&client, credentials().pin());
        let dial = client.connect(&config, nobody.local_addr().expect("an address"), "localhost");
        timeout(Duration::from_millis(50), dial)
            .await
            .expect_err("nobody is there");
        soon(client.wait_idle()).await;
    });
}

#[test]
fn sockets_take_the_families_they_are_bound_for() {
    run(async {
        let Ok(dual) = Endpoint::bind("[::]:0".parse().expect("an address"), Options::default()) else {
            println!("no IPv6 here: not tested");
            return;
        };
        let credentials = credentials();
        let pin = credentials.pin();
        dual.listen(listen_config(&dual, credentials)).expect("listen");
        let port = dual.local_addr().port();
        let over = |address: &str| -> SocketAddr { format!("{address}:{port}").parse().expect("an address") };

        let v4 = bind_at("127.0.0.1:0");
        let config = dial_config(&v4, pin);
        let dialled = soon(v4.connect(&config, over("127.0.0.1"), "localhost"))
            .await
            .expect("IPv4");
        let accepted = soon(dual.accept()).await.expect("accepted");
        assert_eq!(
            accepted.remote_address(),
            Some(v4.local_addr()),
            "not in its mapped form"
        );
        assert_eq!(accepted.local_ip(), Some(over("127.0.0.1").ip()));
        drop((dialled, accepted));
        let unreachable = soon(v4.connect(&config, over("[::1]"), "localhost")).await;
        assert!(matches!(unreachable, Err(ConnectError::Unreachable { .. })));

        if let Ok(v6) = Endpoint::bind("[::1]:0".parse().expect("an address"), Options::default()) {
            let config = dial_config(&v6, pin);
            let dialled = soon(v6.connect(&config, over("[::1]"), "localhost"))
                .await
                .expect("IPv6");
            let accepted = soon(dual.accept()).await.expect("accepted");
            assert_eq!(accepted.remote_address(), Some(v6.local_addr()));
            drop(dialled);
            let unreachable = soon(v6.connect(&config, over("127.0.0.1"), "localhost")).await;
            assert!(matches!(unreachable, Err(ConnectError::Unreachable { .. })));
        }

        // A dual-stack socket dials IPv4, too.
        let (v4_server, pin) = server();
        let config = dial_config(&dual, pin);
        let dialled = soon(dual.connect(&config, v4_server.local_addr(), "localhost"))
            .await
            .expect("IPv4");
        assert_eq!(dialled.remote_address(), Some(v4_server.local_addr()));
    });
}

#[test]
fn a_port_is_shared_only_if_that_is_wanted() {
    run(async {
        let first = bind();
        let mut alone = Options::default();
        alone.socket = {
            let mut socket = SocketOptions::default();
            socket.reuse_port = false;
            socket
        };
        let taken = Endpoint::bind(first.local_addr(), alone).expect_err("taken");
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
    });
}

#[test]
fn an_idle_endpoint_sleeps() {
    run(async {
        let pair = pair().await;
        fall_asleep([&pair.server, &pair.client]).await;
    });
}

#[test]
fn endpoints_that_spin_answer_and_sleep_when_nothing_happens() {
    run(async {
        let spinning = || {
            let mut options = Options::default();
            options.spin = Duration::from_millis(1);
            Endpoint::bind("127.0.0.1:0".parse().expect("an address"), options).expect("bind")
        };
        let (server, client, credentials) = (spinning(), spinning(), credentials());
        let pin = credentials.pin();
        server.listen(listen_config(&server, credentials)).expect("listen");
        let config = dial_config(&client, pin);
        let dial = client.connect(&config, server.local_addr(), "localhost");
        let (dialled, accepted) = soon(futures_lite::future::zip(dial, server.accept())).await;
        let (dialled, accepted) = (dialled.expect("connected"), accepted.expect("accepted"));
        let echo = spawn(async move {
            let mut stream = accepted.accept_bi().await.expect("a stream");
            while let Ok(Some(bytes)) = stream.read_chunk().await {
                stream.send().write_all(&bytes).await.expect("room");
            }
            accepted
        });
        let mut stream = dialled.open_bi().await.expect("open");
        for number in 0..200u32 {
            stream.send().write_all(&number.to_be_bytes()).await.expect("room");
            let mut answer = [0; 4];
            soon(stream.read_exact(&mut answer)).await.expect("an answer");
            assert_eq!(u32::from_be_bytes(answer), number);
        }
        stream.finish().expect("open");
        let _accepted = soon(echo).await;
        fall_asleep([&server, &client]).await;
    });
}

/// Waits until the drivers do not run any more: what follows a handshake (acknowledgements, discovery of the datagram size) dies down.
async fn fall_asleep(endpoints: [&Endpoint; 2]) {
    let runs = || endpoints.map(|endpoint| endpoint.driver_stats().runs);
    let mut before = runs();
    let mut quiet = 0;
    for _ in 0..100 {
        sleep(Duration::from_millis(100)).await;
        let after = runs();
        quiet = if before == after { quiet + 1 } else { 0 };
        before = after;
        if quiet == 10 {
            return;
        }
    }
    panic!("drivers still run: {before:?}");
}

#[test]
fn hundreds_of_short_connections() {
    run(async {
        let (server, pin) = server_with(TransportConfig::default());
        let client = bind();
        let config = dial_config(&client, pin);
        let address = server.local_addr();
        let accepting = server.clone();
        spawn(async move {
            while let Some(connection) = accepting.accept().await {
                spawn(async move {
                    let mut stream = connection.accept_bi().await?;
                    let all = stream.recv().read_to_end(1000).await.ok().flatten().unwrap_or_default();
                    let _ = stream.send().write_all(&all).await;
                    let _ = stream.finish();
                    connection.closed().await;
                    Ok::<_, ConnectionLost>(())
                });
            }
        });
        for round in 0..6 {
            let tasks: Vec<_> = (0..50)
                .map(|n| {
                    let (client, config) = (client.clone(), config.clone());
                    spawn(async move {
                        let connection = client.connect(&config, address, "localhost").await.expect("connected");
                        let mut stream = connection.open_bi().await.expect("opened");
                        let data = noise(n, round);
                        stream.send().write_all(&data).await.expect("written");
                        stream.finish().expect("finished");
                        assert_eq!(stream.recv().read_to_end(1000).await, Ok(Some(data)));
                    })
                })
                .collect();
            for task in tasks {
                soon(task).await;
            }
        }
        soon(client.wait_idle()).await;
        soon(server.wait_idle()).await;
        assert_eq!((client.stats().open, server.stats().open), (0, 0), "all are forgotten");
    });
}
