//! Serving: limits, ends, turns, and how often the driver runs.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_channel::Sender;

use super::{
    carriers::{Carrier, Rig, bind, config, connection, dial, listen},
    soon,
};
use crate::{
    adapter::{run, sleep, spawn, timeout},
    macula::{
        Code,
        rpc::{
            CallError, Chunk, EndReason, Fault, Kind, Mode, Overload, Request, RpcClient, RpcConnectError, RpcServer,
            RpcServerConfig, ServerCall, Value,
        },
    },
};

fn echo(server: &RpcServer) {
    server.advertise("echo", Mode::Bidi, async |mut call: ServerCall| {
        while let Some(chunk) = call.recv().await? {
            call.send(chunk).await?;
        }
        Ok(())
    });
}

/// A unary procedure of which each call waits for a signal, and counts how many were in it.
fn gate(server: &RpcServer) -> (Sender<()>, Arc<AtomicUsize>) {
    let (open, wait) = async_channel::unbounded();
    let inside = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&inside);
    server.advertise("gate", Kind::Unary, move |_: ServerCall| {
        let (wait, count) = (wait.clone(), Arc::clone(&count));
        async move {
            count.fetch_add(1, Ordering::SeqCst);
            wait.recv().await.expect("the test goes on");
            Ok(())
        }
    });
    (open, inside)
}

async fn until(what: &str, mut check: impl FnMut() -> bool) {
    let looking = async {
        while !check() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    soon(what, looking).await;
}

fn small(max_running: usize, overload: Overload) -> (RpcClient, RpcServer) {
    let endpoint = bind();
    let mut config = RpcServerConfig::default();
    config.max_running = max_running;
    config.overload = overload;
    let server = RpcServer::with_config(&endpoint, config);
    (endpoint.local_rpc(), server)
}

#[test]
fn calls_above_the_limit_wait_their_turn() {
    run(async {
        let (client, server) = small(2, Overload::Wait);
        let (open, inside) = gate(&server);
        let (told, done_calls) = async_channel::unbounded();
        for _ in 0..5 {
            let (client, told) = (client.clone(), told.clone());
            spawn(async move { told.send(client.call("gate", ()).await).await });
        }
        until("two handlers", || inside.load(Ordering::SeqCst) == 2).await;
        sleep(Duration::from_millis(50)).await;
        assert_eq!(inside.load(Ordering::SeqCst), 2);
        for done in 1..=5 {
            open.try_send(()).unwrap();
            assert_eq!(soon("a reply", done_calls.recv()).await.unwrap(), Ok(Value::Null));
            until("the next", || inside.load(Ordering::SeqCst) == (done + 2).min(5)).await;
        }
    });
}

#[test]
fn calls_above_the_limit_are_refused_if_that_is_wanted() {
    run(async {
        let (client, server) = small(1, Overload::Refuse);
        let (open, inside) = gate(&server);
        echo(&server);
        let first = {
            let client = client.clone();
            spawn(async move { client.call("gate", ()).await })
        };
        until("a handler", || inside.load(Ordering::SeqCst) == 1).await;
        let refused = soon("a refusal", client.call("gate", ())).await.unwrap_err();
        assert!(matches!(&refused, CallError::Failed(fault) if fault.code == "limit"));
        let mut call = client.open("echo", Mode::Bidi, ()).await.unwrap();
        let refused = soon("a refusal", call.recv()).await.unwrap_err();
        assert!(matches!(&refused, CallError::Aborted(fault) if fault.code == "limit"));
        open.try_send(()).unwrap();
        assert_eq!(soon("a reply", first).await, Ok(Value::Null));
    });
}

#[test]
fn a_server_that_shuts_down_lets_its_handlers_finish() {
    run(async {
        let (client, server) = small(1, Overload::Wait);
        let (open, inside) = gate(&server);
        let call = || {
            let client = client.clone();
            spawn(async move { client.call("gate", ()).await })
        };
        let first = call();
        until("a handler", || inside.load(Ordering::SeqCst) == 1).await;
        let second = call();
        sleep(Duration::from_millis(50)).await;
        let stopping = {
            let server = server.clone();
            spawn(async move { server.shutdown().await })
        };
        let waiting = soon("the one that waits", second).await.unwrap_err();
        assert_eq!(waiting.code(), "owner_down");
        assert_eq!(client.call("gate", ()).await.unwrap_err().code(), "not_found");
        assert!(!stopping.is_finished());
        open.try_send(()).unwrap();
        assert_eq!(soon("a reply", first).await, Ok(Value::Null));
        soon("shutting down", stopping).await;
    });
}

#[test]
fn a_server_that_is_dropped_takes_its_handlers_along() {
    run(async {
        let (near, far) = connection(config(1), config(2)).await;
        echo(&far.server);
        let mut call = near.client.open("echo", Mode::Bidi, ()).await.unwrap();
        call.send(Chunk::Raw("x".into())).await.unwrap();
        assert!(soon("an echo", call.recv()).await.unwrap().is_some());
        drop(far.server);
        assert_eq!(soon("the end", call.recv()).await.unwrap_err().code(), "owner_down");
        let mut call = near.client.open("echo", Mode::Bidi, ()).await.unwrap();
        assert_eq!(soon("the end", call.recv()).await.unwrap_err().code(), "not_found");
    });
}

#[test]
fn procedures_are_taken_back() {
    run(async {
        let (near, far) = connection(config(1), config(2)).await;
        echo(&far.server);
        assert_eq!(far.server.procedures(), ["echo"]);
        let mut under_way = near.client.open("echo", Mode::Bidi, ()).await.unwrap();
        under_way.send(Chunk::Raw("x".into())).await.unwrap();
        assert!(soon("an echo", under_way.recv()).await.unwrap().is_some());
        assert!(far.server.unadvertise("echo"));
        assert!(!far.server.unadvertise("echo"));
        let mut call = near.client.open("echo", Mode::Bidi, ()).await.unwrap();
        assert_eq!(soon("the end", call.recv()).await.unwrap_err().code(), "not_found");
        under_way.send(Chunk::Raw("y".into())).await.unwrap();
        assert!(soon("an echo", under_way.recv()).await.unwrap().is_some());
    });
}

/// One link with many calls that wait does not keep another's one call waiting.
#[test]
fn links_have_their_turns() {
    run(async {
        let (acceptor, pin) = listen();
        acceptor.serve_rpc(config(9));
        acceptor.advertise("work", Kind::Unary);
        let mut clients = Vec::new();
        for number in 0..2 {
            let endpoint = bind();
            let dial = dial(&endpoint, pin);
            let client = endpoint.connect_rpc(&dial, acceptor.local_addr(), "localhost", config(number));
            clients.push(soon("connecting", client).await.unwrap());
        }
        let mut calls = Vec::new();
        for _ in 0..100 {
            calls.push(clients[0].open_with(Request::new("work", Kind::Unary)).await.unwrap());
        }
        clients[0].ping().await.unwrap();
        calls.push(clients[1].open_with(Request::new("work", Kind::Unary)).await.unwrap());
        clients[1].ping().await.unwrap();
        // A pong is behind the calls, so that all of them are there.
        let mut links = Vec::new();
        for _ in 0..101 {
            let call = soon("a call", acceptor.accept_call()).await.unwrap();
            links.push(call.client().id());
            call.set_reply(()).unwrap();
        }
        let second = links.iter().position(|link| link != &links[0]);
        assert!(second.is_some_and(|second| second <= 2), "{second:?}");
        for call in &calls {
            assert_eq!(soon("a reply", call.reply()).await, Ok(Value::Null));
        }
    });
}

#[test]
fn the_link_ends_with_its_last_handle() {
    run(async {
        let (near, far) = connection(config(1), config(2)).await;
        echo(&far.server);
        let mut call = near.client.open("echo", Mode::Bidi, ()).await.unwrap();
        drop(near.client);
        call.send(Chunk::Raw("x".into())).await.unwrap();
        assert!(
            soon("an echo", call.recv()).await.unwrap().is_some(),
            "the call keeps the link"
        );
        assert!(far.client.info().is_some());
        drop(call);
        let reason = soon("the end", far.client.closed()).await;
        assert!(matches!(reason, EndReason::Disconnected(_)), "{reason:?}");
        until("nothing is left of it", || far.client.info().is_none()).await;
    });
}

#[test]
fn the_end_of_an_endpoint_ends_everything() {
    run(async {
        let (near, far) = connection(config(1), config(2)).await;
        echo(&far.server);
        let mut call = near.client.open("echo", Mode::Bidi, ()).await.unwrap();
        call.send(Chunk::Raw("x".into())).await.unwrap();
        assert!(soon("an echo", call.recv()).await.unwrap().is_some());
        let endpoint = far.client.endpoint().clone();
        endpoint.close(Code::SHUTDOWN, "");
        assert!(soon("no call", endpoint.accept_call()).await.is_none());
        assert_eq!(soon("the end", call.recv()).await.unwrap_err().code(), "disconnected");
        let reason = soon("the end", near.client.closed()).await;
        assert_eq!(reason, EndReason::PeerClosed(Code::SHUTDOWN));
    });
}

#[test]
fn dials_that_fail_say_why() {
    run(async {
        let (acceptor, pin) = listen();
        let endpoint = bind();
        let address = acceptor.local_addr();
        let mut config = config(1);
        config.handshake_timeout = Duration::from_millis(300);
        // Nobody serves calls there.
        let dial_config = dial(&endpoint, pin);
        let failed = endpoint.connect_rpc(&dial_config, address, "localhost", config.clone());
        let error = soon("a failure", failed).await.unwrap_err();
        assert_eq!(error, RpcConnectError::Ended(EndReason::HandshakeTimeout));
        let failed = endpoint.connect_rpc(&dial_config, address, "localhost", config);
        let given_up = timeout(Duration::from_millis(50), failed).await;
        assert!(given_up.is_err());
        endpoint.close(Code::CLOSED, "");
        soon("nothing is left", endpoint.wait_idle()).await;
    });
}

/// Chunks that are sent one after the other share the runs of the driver.
#[test]
fn many_small_chunks_wake_the_driver_seldom() {
    run(async {
        const CHUNKS: u64 = 50_000;
        let (near, far) = connection(config(1), config(2)).await;
        far.server
            .advertise("swallow", Mode::ClientStream, async |mut call: ServerCall| {
                let mut count = 0u64;
                while call.recv().await?.is_some() {
                    count += 1;
                }
                Ok(Value::from(count))
            });
        let call = near.client.open("swallow", Mode::ClientStream, ()).await.unwrap();
        let runs = |end: &RpcClient| end.endpoint().driver_stats().runs;
        let before = (runs(&near.client), runs(&far.client));
        let started = std::time::Instant::now();
        for _ in 0..CHUNKS {
            call.send(Chunk::Raw(vec![7; 64].into())).await.unwrap();
        }
        call.finish();
        assert_eq!(soon("the count", call.reply()).await, Ok(Value::Uint(CHUNKS)));
        let took = started.elapsed();
        let after = (runs(&near.client), runs(&far.client));
        let (sender, receiver) = (after.0 - before.0, after.1 - before.1);
        println!("{CHUNKS} chunks in {took:?}: the sender's driver ran {sender} times, the receiver's {receiver}");
        assert!(
            sender < CHUNKS / 4 && receiver < CHUNKS / 4,
            "{sender} and {receiver} runs"
        );
    });
}

#[test]
fn a_fault_of_a_handler_keeps_its_words() {
    run(async {
        let fault = Fault::new("teapot", "short and stout");
        assert_eq!(Fault::from(CallError::Aborted(fault.clone())), fault);
        assert_eq!(Fault::from(CallError::SendClosed).code, "send_closed");
    });
}

/// What carries a link may go without a word.
#[test]
fn a_peering_connection_that_is_gone_takes_its_calls_along() {
    run(async {
        let rig = Rig::new(Carrier::Peering).await;
        echo(&rig.provider.server);
        let client = rig.caller.client;
        let mut call = client.open("echo", Mode::Bidi, ()).await.unwrap();
        call.send(Chunk::Raw("x".into())).await.unwrap();
        assert!(soon("an echo", call.recv()).await.unwrap().is_some());
        rig.provider.client.peer().unwrap().abort(Code::SHUTDOWN);
        assert_eq!(soon("the end", call.recv()).await.unwrap_err().code(), "disconnected");
        for client in [&client, &rig.provider.client] {
            assert!(matches!(soon("the end", client.closed()).await, EndReason::Lost(_)));
        }
    });
}

/// A time limit within the process has nobody else to wake the endpoint.
#[test]
fn a_local_call_keeps_its_deadline() {
    run(async {
        let endpoint = bind();
        endpoint.advertise("hang", Mode::Bidi);
        let client = endpoint.local_rpc();
        // The driver sleeps for good.
        sleep(Duration::from_millis(20)).await;
        let mut request = Request::new("hang", Mode::Bidi.into());
        request.deadline = Some(Duration::from_millis(50));
        let mut call = client.try_open(request).unwrap();
        let served = soon("a call", endpoint.accept_call()).await.unwrap();
        assert_eq!(soon("the deadline", call.recv()).await.unwrap_err().code(), "timeout");
        soon("the end", served.ended()).await;
    });
}
