//! Many calls on one link, and what they may cost.

use std::time::Duration;

use bytes::Bytes;
use macula_proto::{
    Event, Limits,
    endpoint::{RpcEvent, RpcInfo},
    rpc::{Chunk, Kind, Mode, Outcome, RecvError, session::CallId},
    wire::Value,
};

use crate::{
    carriers::{Carrier, Ends, config, dial, listen, up},
    world::{World, pattern},
};

fn raw(bytes: &[u8]) -> Chunk {
    Chunk::Raw(Bytes::copy_from_slice(bytes))
}

fn info(ends: &Ends, host: usize) -> RpcInfo {
    ends.world.hosts[host].endpoint.rpc_info(ends.link).unwrap()
}

#[test]
fn a_call_that_is_never_read_does_not_disturb_others() {
    for carrier in [Carrier::PerCall, Carrier::SharedMsgpack, Carrier::Local] {
        let mut ends = Ends::new(carrier);
        let (c, s) = (ends.client, ends.server);
        let (unread, filler) = ends.call("count", Mode::ServerStream);
        let data = pattern(10_000, 3);
        // What fits into the inbox of one call. On a stream of its own it may be more.
        let count: u32 = if carrier == Carrier::SharedMsgpack { 20 } else { 200 };
        let mut written = 0;
        while written < count {
            let now = ends.world.now;
            if ends.world.hosts[s].endpoint.call_send(now, filler, raw(&data)).is_err() {
                ends.world.run_for(Duration::from_millis(100));
                if ends.world.hosts[s]
                    .endpoint
                    .call_send(ends.world.now, filler, raw(&data))
                    .is_err()
                {
                    break;
                }
            }
            written += 1;
        }
        for round in 0..50u64 {
            let (client, server) = ends.call("echo", Mode::Bidi);
            ends.send(c, client, Chunk::Term(round.into()));
            assert_eq!(ends.recv(s, server), Ok(Chunk::Term(round.into())));
            ends.set_reply(s, server, Outcome::Ok(Value::Null));
            ends.close(s, server);
            assert_eq!(ends.reply(c, client), Ok(Outcome::Ok(Value::Null)));
            ends.forget(c, client);
            ends.forget(s, server);
        }
        if carrier != Carrier::Local {
            assert!(info(&ends, c).waiting <= 512 << 10, "{:?}", info(&ends, c));
        }
        for _ in 0..written {
            assert!(ends.raw(c, unread) == data, "correct when read later: {carrier:?}");
        }
        ends.close(s, filler);
        assert_eq!(ends.recv(c, unread), Err(RecvError::Eof));
    }
}

#[test]
fn a_call_that_holds_up_others_for_too_long_is_aborted() {
    let mut ends = Ends::with(Carrier::SharedMsgpack, |config| {
        config.limits.stall = Duration::from_secs(3)
    });
    let (c, s) = (ends.client, ends.server);
    let (unread, filler) = ends.call("count", Mode::ServerStream);
    let (client, server) = ends.call("echo", Mode::Bidi);
    let data = pattern(64 << 10, 3);
    for _ in 0..100 {
        let now = ends.world.now;
        if ends.world.hosts[s].endpoint.call_send(now, filler, raw(&data)).is_err() {
            ends.world.run_for(Duration::from_millis(10));
        }
    }
    let before = ends.world.now.mono;
    ends.send(s, server, raw(b"behind it"));
    assert_eq!(
        ends.raw(c, client),
        b"behind it",
        "held up for a while, and not for ever"
    );
    let waited = ends.world.now.mono - before;
    assert!(waited <= Duration::from_secs(4), "{waited:?}");
    assert_eq!(info(&ends, c).stats.stalled, 1);
    while let Ok(chunk) = ends.recv(c, unread) {
        assert!(chunk == raw(&data), "what had come before can be read");
    }
    let Err(RecvError::Fault(fault)) = ends.recv(s, filler) else {
        panic!("the sender learns of it");
    };
    assert_eq!(fault.code, "limit");
}

#[test]
fn ten_thousand_calls_at_once_on_one_connection() {
    for carrier in [Carrier::PerCall, Carrier::SharedMsgpack] {
        const CALLS: usize = 10_000;
        let mut ends = Ends::new(carrier);
        let (c, s) = (ends.client, ends.server);
        let kinds = [
            ("echo", Mode::Bidi),
            ("count", Mode::ServerStream),
            ("sum", Mode::ClientStream),
        ];
        let mut calls: Vec<CallId> = Vec::new();
        for number in 0..CALLS {
            let (procedure, mode) = kinds[number % kinds.len()];
            calls.push(ends.open(procedure, Kind::Stream(mode), Value::from(number as u64)));
        }
        let mut served: Vec<(CallId, u64)> = Vec::new();
        while served.len() < CALLS {
            let incoming = ends.incoming().incoming;
            served.push((incoming.call, incoming.args.as_u64().unwrap()));
        }
        assert_eq!(info(&ends, c).calls, CALLS);
        // All are open; the first is never read before the others are done.
        for &(server, number) in &served {
            match number % 3 {
                0 | 1 => ends.send(s, server, Chunk::Term(number.into())),
                _ => {}
            }
        }
        for (number, &client) in calls.iter().enumerate() {
            if number % 3 != 1 {
                ends.send(c, client, Chunk::Term((number as u64).into()));
                ends.finish(c, client);
            }
        }
        for &(server, number) in &served {
            if number % 3 != 1 {
                assert_eq!(ends.recv(s, server), Ok(Chunk::Term(number.into())));
            }
            ends.set_reply(s, server, Outcome::Ok(number.into()));
            ends.close(s, server);
            ends.forget(s, server);
        }
        for number in (0..CALLS).rev() {
            let client = calls[number];
            if number % 3 != 2 {
                assert_eq!(
                    ends.recv(c, client),
                    Ok(Chunk::Term((number as u64).into())),
                    "{carrier:?}"
                );
            }
            assert_eq!(ends.reply(c, client), Ok(Outcome::Ok((number as u64).into())));
            ends.forget(c, client);
        }
        ends.nothing_left();
    }
}

#[test]
fn more_calls_than_allowed_are_refused_by_name() {
    for carrier in Carrier::remote() {
        let mut ends = Ends::with(carrier, |config| {
            config.limits.calls = if config.node_id == [2; 32] { 3 } else { 100 };
        });
        let c = ends.client;
        let calls: Vec<CallId> = (0..4)
            .map(|_| ends.open("echo", Kind::Stream(Mode::Bidi), Value::Null))
            .collect();
        for _ in 0..3 {
            ends.incoming();
        }
        let Err(RecvError::Fault(fault)) = ends.recv(c, calls[3]) else {
            panic!("refused");
        };
        assert_eq!(fault.code, "limit", "{carrier:?}");
        let open = ends.open("add", Kind::Unary, Value::Null);
        let Ok(Outcome::Err(fault)) = ends.reply(c, open) else {
            panic!("refused");
        };
        assert_eq!(fault.code, "limit", "{carrier:?}");
    }
}

#[test]
fn peers_and_rpc_share_a_listener() {
    use macula_proto::{endpoint::PeerListenConfig, identity::Identity, peering::PeeringConfig};
    let mut world = World::new();
    let server = listen(&mut world);
    let identity = std::sync::Arc::new(Identity::from_seed(&[2; 32]));
    let endpoint = &mut world.hosts[server].endpoint;
    endpoint.serve_peers(PeerListenConfig::new(PeeringConfig::new(identity)));
    endpoint.serve_rpc(config(2));
    endpoint.advertise("echo", Kind::Stream(Mode::Bidi));
    let client = world.add(Limits::default());
    let link = dial(&mut world, client, server, config(1));
    assert!(up(&mut world, client, link));
    let heard = world.find(server, "the link", |event| match event {
        Event::Rpc(RpcEvent::Up { hello, .. }) => hello.connect.as_ref().map(|connect| connect.node_id.clone()),
        _ => None,
    });
    assert_eq!(heard, [1; 32].as_slice());
}

#[test]
fn a_peer_that_never_answers_is_given_up() {
    let mut world = World::new();
    let server = listen(&mut world);
    let client = world.add(Limits::default());
    let before = world.now.mono;
    let link = dial(&mut world, client, server, config(1));
    let reason = world.find(client, "the end", |event| match event {
        Event::Rpc(RpcEvent::Down { link: found, reason }) if *found == link => Some(reason.clone()),
        _ => None,
    });
    assert_eq!(reason, macula_proto::rpc::session::EndReason::HandshakeTimeout);
    let waited = world.now.mono - before;
    assert!(
        waited >= Duration::from_secs(10) && waited < Duration::from_secs(11),
        "{waited:?}"
    );
}
