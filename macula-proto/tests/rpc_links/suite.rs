//! What a call does, whatever carries it.

use std::time::Duration;

use bytes::Bytes;
use macula_proto::{
    Code,
    rpc::{
        Chunk, Fault, Kind, Mode, Outcome, RecvError, ReplyError,
        session::{EndReason, OpenError, Request},
    },
    wire::Value,
};

use crate::{
    carriers::{Carrier, Ends},
    world::pattern,
};

fn raw(bytes: &[u8]) -> Chunk {
    Chunk::Raw(Bytes::copy_from_slice(bytes))
}

#[test]
fn a_bidirectional_call_echoes_and_replies() {
    for carrier in Carrier::ALL {
        let mut ends = Ends::new(carrier);
        let (c, s) = (ends.client, ends.server);
        let (client, server) = ends.call("echo", Mode::Bidi);
        for text in [b"one".as_slice(), b"two", b"three"] {
            ends.send(c, client, raw(text));
            let heard = ends.raw(s, server);
            ends.send(s, server, raw(&heard));
            assert_eq!(ends.raw(c, client), text, "{carrier:?}");
        }
        ends.finish(c, client);
        assert_eq!(ends.recv(s, server), Err(RecvError::Eof), "{carrier:?}");
        assert!(ends.set_reply(s, server, Outcome::Ok(Value::from(3u64))));
        assert!(
            !ends.set_reply(s, server, Outcome::Ok(Value::from(4u64))),
            "the first counts"
        );
        assert_eq!(ends.reply(c, client), Ok(Outcome::Ok(Value::from(3u64))), "{carrier:?}");
        ends.finish(s, server);
        assert_eq!(ends.recv(c, client), Err(RecvError::Eof), "{carrier:?}");
        ends.finished(c, client);
        ends.finished(s, server);
        ends.forget(c, client);
        ends.forget(s, server);
        ends.nothing_left();
    }
}

#[test]
fn a_server_stream_goes_one_way() {
    for carrier in Carrier::ALL {
        let mut ends = Ends::new(carrier);
        let (c, s) = (ends.client, ends.server);
        let args = Value::Map(vec![(Value::text("n"), Value::from(100u64))]);
        let client = ends.open("count", Kind::Stream(Mode::ServerStream), args.clone());
        let incoming = ends.incoming().incoming;
        assert_eq!(
            (&incoming.args, incoming.kind),
            (&args, Kind::Stream(Mode::ServerStream))
        );
        let now = ends.world.now;
        let refused = ends.world.hosts[c].endpoint.call_send(now, client, raw(b"no"));
        assert_eq!(refused.unwrap_err().0.name(), "wrong_mode", "{carrier:?}");
        for number in 1..=100u64 {
            ends.send(s, incoming.call, Chunk::Term(Value::from(number)));
        }
        ends.close(s, incoming.call);
        for number in 1..=100u64 {
            assert_eq!(
                ends.recv(c, client),
                Ok(Chunk::Term(Value::from(number))),
                "{carrier:?}"
            );
        }
        assert_eq!(ends.recv(c, client), Err(RecvError::Eof));
        assert_eq!(ends.reply(c, client), Err(ReplyError::PeerClosed), "{carrier:?}");
        ends.finished(c, client);
    }
}

#[test]
fn a_client_stream_ends_with_a_reply() {
    for carrier in Carrier::ALL {
        let mut ends = Ends::new(carrier);
        let (c, s) = (ends.client, ends.server);
        let (client, server) = ends.call("sum", Mode::ClientStream);
        let mut expected = 0;
        for number in 1..=50u64 {
            expected += number;
            ends.send(c, client, Chunk::Term(Value::from(number)));
        }
        ends.finish(c, client);
        let mut sum = 0;
        while let Ok(Chunk::Term(value)) = ends.recv(s, server) {
            sum += value.as_u64().unwrap();
        }
        let now = ends.world.now;
        let refused = ends.world.hosts[s].endpoint.call_send(now, server, raw(b"no"));
        assert_eq!(refused.unwrap_err().0.name(), "wrong_mode");
        ends.set_reply(s, server, Outcome::Ok(Value::from(sum)));
        ends.close(s, server);
        assert_eq!(
            ends.reply(c, client),
            Ok(Outcome::Ok(Value::from(expected))),
            "{carrier:?}"
        );
    }
}

#[test]
fn a_unary_call_is_answered_once() {
    for carrier in Carrier::ALL {
        let mut ends = Ends::new(carrier);
        let (c, s) = (ends.client, ends.server);
        let client = ends.open("add", Kind::Unary, Value::Array(vec![1u64.into(), 2u64.into()]));
        let incoming = ends.incoming().incoming;
        assert_eq!(
            (incoming.kind, incoming.procedure.as_ref()),
            (Kind::Unary, b"add".as_slice())
        );
        assert!(ends.set_reply(s, incoming.call, Outcome::Ok(3u64.into())));
        assert!(!ends.set_reply(s, incoming.call, Outcome::Ok(4u64.into())));
        assert_eq!(ends.reply(c, client), Ok(Outcome::Ok(3u64.into())), "{carrier:?}");
        ends.finished(c, client);
        ends.finished(s, incoming.call);

        let client = ends.open("add", Kind::Unary, Value::Null);
        let server = ends.incoming().incoming.call;
        ends.set_reply(
            s,
            server,
            Outcome::Err(Fault::new("bad_args", "two numbers are wanted")),
        );
        let Ok(Outcome::Err(fault)) = ends.reply(c, client) else {
            panic!("an error");
        };
        assert_eq!(fault, Fault::new("bad_args", "two numbers are wanted"), "{carrier:?}");
    }
}

#[test]
fn what_nobody_offers_is_not_found() {
    for carrier in Carrier::remote() {
        let mut ends = Ends::new(carrier);
        let c = ends.client;
        let client = ends.open("nothing", Kind::Stream(Mode::Bidi), Value::Null);
        let Err(RecvError::Fault(fault)) = ends.recv(c, client) else {
            panic!("a fault");
        };
        assert_eq!(
            fault,
            Fault::new("not_found", "procedure not advertised"),
            "{carrier:?}"
        );
        let Err(ReplyError::Fault(fault)) = ends.reply(c, client) else {
            panic!("a fault");
        };
        assert_eq!(fault.code, "not_found");
        ends.finished(c, client);
        let client = ends.open("nothing", Kind::Unary, Value::Null);
        let Ok(Outcome::Err(fault)) = ends.reply(c, client) else {
            panic!("a fault");
        };
        assert_eq!(fault.code, "not_found", "{carrier:?}");
    }
    let mut ends = Ends::new(Carrier::Local);
    let now = ends.world.now;
    let request = Request::new("nothing", Kind::Unary);
    let opened = ends.world.hosts[0].endpoint.open_call(now, ends.link, request);
    assert_eq!(opened, Err(OpenError::NotFound));
}

#[test]
fn either_side_can_abort_and_the_other_learns_why() {
    for carrier in Carrier::ALL {
        for by_client in [true, false] {
            let mut ends = Ends::new(carrier);
            let (client, server) = ends.call("echo", Mode::Bidi);
            let sides = [(ends.client, client), (ends.server, server)];
            let [one, other] = if by_client { sides } else { [sides[1], sides[0]] };
            let fault = Fault::new("no_more", "there is no more of it");
            let now = ends.world.now;
            ends.world.hosts[one.0].endpoint.call_abort(now, one.1, fault.clone());
            assert_eq!(
                ends.recv(other.0, other.1),
                Err(RecvError::Fault(fault.clone())),
                "{carrier:?}"
            );
            assert_eq!(ends.recv(one.0, one.1), Err(RecvError::Fault(fault)), "{carrier:?}");
            ends.finished(one.0, one.1);
            ends.finished(other.0, other.1);
            ends.forget(one.0, one.1);
            ends.forget(other.0, other.1);
            ends.nothing_left();
        }
    }
}

#[test]
fn a_call_that_is_forgotten_ends_at_the_peer() {
    for carrier in Carrier::ALL {
        for (by_client, code) in [(true, "cancelled"), (false, "owner_down")] {
            let mut ends = Ends::new(carrier);
            let (client, server) = ends.call("echo", Mode::Bidi);
            let sides = [(ends.client, client), (ends.server, server)];
            let [one, other] = if by_client { sides } else { [sides[1], sides[0]] };
            ends.forget(one.0, one.1);
            let Err(RecvError::Fault(fault)) = ends.recv(other.0, other.1) else {
                panic!("a fault, over {carrier:?}");
            };
            assert_eq!(fault.code, code, "{carrier:?}");
            ends.finished(other.0, other.1);
            ends.forget(other.0, other.1);
            ends.nothing_left();
        }
    }
}

#[test]
fn large_chunks_arrive_whole_and_in_order() {
    for carrier in Carrier::ALL {
        let mut ends = Ends::new(carrier);
        let (c, s) = (ends.client, ends.server);
        let (client, server) = ends.call("echo", Mode::Bidi);
        for size in [0, 1, 4095, 4096, 65_536, 1 << 20, 7] {
            let data = pattern(size, size as u64);
            ends.send(c, client, raw(&data));
            assert!(ends.raw(s, server) == data, "{size} bytes over {carrier:?}");
        }
    }
}

#[test]
fn a_reader_that_stops_holds_the_sender_back_and_loses_nothing() {
    for carrier in Carrier::ALL {
        let mut ends = Ends::with(carrier, |config| config.limits.stall = Duration::from_secs(3600));
        let (c, s) = (ends.client, ends.server);
        let (client, server) = ends.call("echo", Mode::Bidi);
        let chunk = pattern(16 << 10, 1);
        let mut sent = 0u32;
        // Until nothing is taken for a second.
        loop {
            let now = ends.world.now;
            let mut data = chunk.clone();
            data[..4].copy_from_slice(&sent.to_be_bytes());
            match ends.world.hosts[c].endpoint.call_send(now, client, raw(&data)) {
                Ok(()) => sent += 1,
                Err((error, _)) => {
                    assert!(
                        matches!(error.name(), "would_block" | "no_peer"),
                        "{carrier:?}: {error}"
                    );
                    let before = now;
                    ends.world.run_for(Duration::from_secs(1));
                    let data = raw(&data);
                    if ends.world.hosts[c]
                        .endpoint
                        .call_send(ends.world.now, client, data)
                        .is_err()
                    {
                        assert!(before < ends.world.now);
                        break;
                    }
                    sent += 1;
                }
            }
            assert!(sent < 10_000, "somebody buffers without a limit: {carrier:?}");
        }
        for number in 0..sent {
            let data = ends.raw(s, server);
            assert_eq!(data[..4], number.to_be_bytes(), "{carrier:?}");
            assert!(data[4..] == chunk[4..]);
        }
        ends.send(c, client, raw(b"on we go"));
        assert_eq!(ends.raw(s, server), b"on we go");
    }
}

#[test]
fn time_limits_end_a_call_on_both_sides() {
    for carrier in Carrier::ALL {
        for idle in [false, true] {
            let mut ends = Ends::new(carrier);
            let (c, s) = (ends.client, ends.server);
            let mut request = Request::new("echo", Kind::Stream(Mode::Bidi));
            let limit = Some(Duration::from_secs(2));
            if idle {
                request.idle = limit;
            } else {
                request.deadline = limit;
            }
            let client = ends.request(request);
            let server = ends.incoming().incoming.call;
            ends.world.run_for(Duration::from_secs(1));
            ends.send(c, client, raw(b"still here"));
            assert_eq!(ends.raw(s, server), b"still here");
            for side in [(c, client), (s, server)] {
                let Err(RecvError::Fault(fault)) = ends.recv(side.0, side.1) else {
                    panic!("a fault over {carrier:?}");
                };
                assert_eq!(fault.code, "timeout", "{carrier:?}, idle: {idle}");
            }
        }
        let mut ends = Ends::new(carrier);
        let request = Request {
            deadline: Some(Duration::from_secs(1)),
            ..Request::new("add", Kind::Unary)
        };
        let client = ends.request(request);
        let server = ends.incoming().incoming.call;
        assert_eq!(ends.reply(ends.client, client), Err(ReplyError::Timeout), "{carrier:?}");
        ends.finished(ends.server, server);
    }
}

#[test]
fn a_lost_carrier_ends_every_call_once() {
    for carrier in Carrier::remote() {
        let mut ends = Ends::new(carrier);
        let (c, s) = (ends.client, ends.server);
        let (client, server) = ends.call("echo", Mode::Bidi);
        let unary = ends.open("add", Kind::Unary, Value::Null);
        let asked = ends.incoming().incoming.call;
        ends.send(c, client, raw(b"last words"));
        ends.world.run_for(Duration::from_millis(100));
        ends.world.hosts[c].alive = false;
        ends.world.run_for(Duration::from_secs(600));
        let reason = if carrier == Carrier::Tunnel {
            None
        } else {
            Some(ends.down(s))
        };
        assert!(!matches!(reason, Some(EndReason::Closed)), "{carrier:?}");
        let early = ends.world.hosts[s].events.iter().any(|event| {
            matches!(event, macula_proto::Event::Rpc(macula_proto::endpoint::RpcEvent::Finished(over)) if *over == server)
        });
        assert!(!early, "its end comes behind what is to be fetched: {carrier:?}");
        assert_eq!(ends.raw(s, server), b"last words", "what had arrived is not lost");
        let Err(RecvError::Fault(fault)) = ends.recv(s, server) else {
            panic!("a fault over {carrier:?}");
        };
        assert_eq!(fault.code, "disconnected", "{carrier:?}");
        ends.finished(s, server);
        ends.finished(s, asked);
        let again = ends.world.hosts[s].events.iter().any(|event| {
            matches!(
                event,
                macula_proto::Event::Rpc(macula_proto::endpoint::RpcEvent::Finished(_))
            )
        });
        assert!(!again, "once for each");
        let _ = unary;
    }
}

#[test]
fn closing_a_link_ends_its_calls_on_both_sides() {
    for carrier in Carrier::remote() {
        let mut ends = Ends::new(carrier);
        let (c, s) = (ends.client, ends.server);
        let (client, server) = ends.call("echo", Mode::Bidi);
        let (now, link) = (ends.world.now, ends.link);
        ends.world.hosts[c].endpoint.close_rpc(now, link, Code::CLOSED);
        assert_eq!(ends.down(c), EndReason::Closed);
        ends.finished(c, client);
        if carrier != Carrier::Signed {
            // A peering connection goes on: the calls of a link that was let go end when it does.
            let reason = ends.down(s);
            assert_eq!(
                reason,
                EndReason::Disconnected(Bytes::from_static(b"normal")),
                "{carrier:?}"
            );
            ends.finished(s, server);
        }
        let request = Request::new("echo", Kind::Stream(Mode::Bidi));
        let now = ends.world.now;
        let opened = ends.world.hosts[c].endpoint.open_call(now, link, request);
        assert_eq!(opened, Err(OpenError::NotUp));
    }
}

#[test]
fn pings_are_answered_where_there_are_pings() {
    for carrier in Carrier::ALL {
        let mut ends = Ends::new(carrier);
        let (now, link, c) = (ends.world.now, ends.link, ends.client);
        let pinged = ends.world.hosts[c].endpoint.rpc_ping(now, link);
        assert_eq!(pinged.is_ok(), !matches!(carrier, Carrier::Signed | Carrier::Local));
        if pinged.is_ok() {
            let rtt = ends.world.find(c, "a pong", |event| match event {
                macula_proto::Event::Rpc(macula_proto::endpoint::RpcEvent::Pong { rtt, .. }) => Some(*rtt),
                _ => None,
            });
            assert!(
                rtt >= Duration::from_millis(10) && rtt < Duration::from_millis(500),
                "{rtt:?}"
            );
        }
    }
}
