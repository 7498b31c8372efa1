//! What holds of calls, whatever carries them.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_core::Stream;
use futures_lite::future::{yield_now, zip};
use futures_sink::Sink;
use serde::{Deserialize, Serialize};

use super::{
    carriers::{Carrier, Rig},
    soon,
};
use crate::{
    adapter::{sleep, spawn},
    macula::rpc::{
        Call, CallError, Chunk, EndReason, Fault, Kind, Mode, OpenError, PingError, Request, RpcClient, RpcServer,
        SendError, ServerCall, Value,
    },
};

/// Flood: chunks of this size, and how many of them.
const FLOOD_CHUNK: usize = 4096;
const FLOOD: u64 = 8192;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Range {
    n: u64,
    label: Option<String>,
}

/// What handlers saw.
struct Provider {
    seen: async_channel::Receiver<(&'static str, String)>,
    flooded: Arc<AtomicU64>,
}

pub(crate) async fn run(rig: Rig) {
    let provider = advertise(&rig.provider.server);
    let client = &rig.caller.client;
    soon("echo", echo(client)).await;
    soon("streams and sinks", stream_and_sink(client)).await;
    soon("count and sum", count_and_sum(client, rig.carrier)).await;
    soon("unary", unary(client, rig.carrier)).await;
    soon("not found", not_found(client)).await;
    soon("modes", modes(client)).await;
    soon("abort", aborts(client, &provider)).await;
    soon("cancel", cancel(client, &provider)).await;
    soon("failures", failures(client)).await;
    soon("deadlines", deadlines(client)).await;
    soon("replies", replies(client, rig.carrier)).await;
    soon("sizes", sizes(client)).await;
    soon("large", large(client)).await;
    soon("back-pressure", back_pressure(client, &provider)).await;
    soon("many", many(client)).await;
    soon("ping", ping(client, rig.carrier)).await;
    if rig.carrier != Carrier::Local {
        soon("loss", loss(rig, provider)).await;
    }
}

fn advertise(server: &RpcServer) -> Provider {
    let (tell, seen) = async_channel::unbounded();
    let flooded = Arc::new(AtomicU64::new(0));
    server.advertise("echo", Mode::Bidi, async |mut call: ServerCall| {
        while let Some(chunk) = call.recv().await? {
            call.send(chunk).await?;
        }
        Ok(call.args().clone())
    });
    server.advertise("count", Mode::ServerStream, async |call: ServerCall| {
        let range: Range = call.args_as()?;
        for number in 1..=range.n {
            call.send_term(&number).await?;
        }
        Ok(())
    });
    server.advertise("sum", Mode::ClientStream, async |mut call: ServerCall| {
        let mut sum = 0;
        while let Some(number) = call.recv_as::<i64>().await? {
            sum += number;
        }
        Ok(Value::from(sum))
    });
    server.advertise("add", Kind::Unary, async |call: ServerCall| {
        let (a, b): (i64, i64) = call.args_as()?;
        match a.checked_add(b) {
            Some(sum) => Ok(Value::from(sum)),
            None => Err(Fault::new("overflow", "too large")),
        }
    });
    for kind in [Kind::Unary, Mode::Bidi.into()] {
        let name = if kind == Kind::Unary { "unary" } else { "stream" };
        server.advertise(
            format!("{name}/panic"),
            kind,
            async |_: ServerCall| -> Result<(), Fault> { panic!("on purpose") },
        );
        server.advertise(format!("{name}/fail"), kind, async |_: ServerCall| {
            Err::<(), _>(Fault::new("teapot", "short and stout"))
        });
        server.advertise(format!("{name}/hang"), kind, async |call: ServerCall| {
            call.ended().await;
            Ok(())
        });
    }
    server.advertise("watch", Mode::Bidi, move |mut call: ServerCall| {
        let tell = tell.clone();
        async move {
            call.send(Chunk::Raw("here".into())).await?;
            let what = match call.recv().await {
                Ok(chunk) => format!("{chunk:?}"),
                Err(error) => error.code().to_owned(),
            };
            call.ended().await;
            let _ = tell.try_send(("watch", what));
            Ok(())
        }
    });
    server.advertise("settle", Mode::Bidi, async |call: ServerCall| {
        let early: bool = call.args_as()?;
        if early {
            assert!(call.set_reply("first")?);
        } else {
            assert!(call.set_error(Fault::from_code("sorry")));
        }
        assert!(!call.set_reply("second")?, "the first counts");
        call.send(Chunk::Raw("after".into())).await?;
        Ok(Value::text("third"))
    });
    let counter = Arc::clone(&flooded);
    server.advertise("flood", Mode::ServerStream, move |call: ServerCall| {
        let counter = Arc::clone(&counter);
        async move {
            for number in 0..FLOOD {
                let mut bytes = vec![0; FLOOD_CHUNK];
                bytes[..8].copy_from_slice(&number.to_be_bytes());
                call.send(Chunk::Raw(bytes.into())).await?;
                counter.store(number + 1, Ordering::Relaxed);
            }
            Ok(())
        }
    });
    Provider { seen, flooded }
}

async fn drain(call: &mut Call) -> Result<Vec<Chunk>, CallError> {
    let mut chunks = Vec::new();
    while let Some(chunk) = call.recv().await? {
        chunks.push(chunk);
    }
    Ok(chunks)
}

async fn echo(client: &RpcClient) {
    let mut call = client.open("echo", Mode::Bidi, &[1, 2, 3]).await.unwrap();
    let sent: Vec<Chunk> = (0..300u64)
        .map(|number| match number % 3 {
            0 => Chunk::Raw(vec![number as u8; number as usize].into()),
            1 => Chunk::Term(Value::Uint(number)),
            _ => Chunk::Term(Value::Map(vec![(Value::text("number"), Value::Uint(number))])),
        })
        .collect();
    // One at a time, and then all at once.
    for chunk in &sent[..20] {
        call.send(chunk.clone()).await.unwrap();
        assert_eq!(call.recv().await.unwrap().as_ref(), Some(chunk));
    }
    let (sender, mut receiver) = call.split();
    let rest = sent[20..].to_vec();
    let expected = rest.clone();
    let sending = spawn(async move {
        for chunk in rest {
            sender.send(chunk).await.unwrap();
        }
        sender.finish();
        sender
    });
    for chunk in &expected {
        assert_eq!(receiver.recv().await.unwrap().as_ref(), Some(chunk));
    }
    assert_eq!(receiver.recv().await, Ok(None));
    assert_eq!(receiver.recv().await, Ok(None), "again");
    let sender = sending.await;
    let reply = Value::Array(vec![Value::Uint(1), Value::Uint(2), Value::Uint(3)]);
    assert_eq!(receiver.control().reply().await, Ok(reply));
    sender.control().ended().await;
    assert!(sender.control().info().unwrap().finished);
    assert_eq!(sender.send(Chunk::Raw("late".into())).await, Err(CallError::SendClosed));
}

async fn stream_and_sink(client: &RpcClient) {
    let mut call = client.open("echo", Mode::Bidi, ()).await.unwrap();
    for number in 0..10u64 {
        poll_fn(|cx| Pin::new(&mut call).poll_ready(cx)).await.unwrap();
        Pin::new(&mut call)
            .start_send(Chunk::Term(Value::Uint(number)))
            .unwrap();
    }
    poll_fn(|cx| Pin::new(&mut call).poll_flush(cx)).await.unwrap();
    poll_fn(|cx| Pin::new(&mut call).poll_close(cx)).await.unwrap();
    for number in 0..10u64 {
        let next = poll_fn(|cx| Pin::new(&mut call).poll_next(cx)).await;
        assert_eq!(next, Some(Ok(Chunk::Term(Value::Uint(number)))));
    }
    assert_eq!(poll_fn(|cx| Pin::new(&mut call).poll_next(cx)).await, None);
    // An abort is one item, and the last.
    let mut call = client.open("stream/fail", Mode::Bidi, ()).await.unwrap();
    let last = poll_fn(|cx| Pin::new(&mut call).poll_next(cx)).await.unwrap();
    assert_eq!(last.unwrap_err().code(), "teapot");
    assert_eq!(poll_fn(|cx| Pin::new(&mut call).poll_next(cx)).await, None);
}

async fn count_and_sum(client: &RpcClient, carrier: Carrier) {
    let range = Range {
        n: 1000,
        label: Some("all of them".into()),
    };
    let mut call = client.open("count", Mode::ServerStream, &range).await.unwrap();
    for number in 1..=1000 {
        assert_eq!(call.recv_as::<u64>().await, Ok(Some(number)));
    }
    assert_eq!(call.recv_as::<u64>().await, Ok(None));
    assert_eq!(call.reply().await, Ok(Value::Null));

    let call = client.open("sum", Mode::ClientStream, ()).await.unwrap();
    // Signed frames have no negative numbers.
    let first = if carrier == Carrier::Peering { 0 } else { -100 };
    for number in first..=200i64 {
        call.send_term(&number).await.unwrap();
    }
    call.finish();
    let sum = Value::from((first..=200).sum::<i64>());
    assert_eq!(call.reply().await.as_ref(), Ok(&sum));
    assert_eq!(call.reply().await, Ok(sum), "again");
}

async fn unary(client: &RpcClient, carrier: Carrier) {
    assert_eq!(client.call("add", &(40, 2)).await, Ok(Value::Uint(42)));
    let negative = client.call_as::<i64>("add", &(-40, -2)).await;
    match carrier {
        Carrier::Peering => assert_eq!(negative.unwrap_err().code(), "bad_value"),
        _ => assert_eq!(negative, Ok(-42)),
    }
    let overflow = client.call("add", &(i64::MAX, 1)).await;
    assert_eq!(overflow, Err(CallError::Failed(Fault::new("overflow", "too large"))));
    let bad = client.call("add", &"text").await.unwrap_err();
    assert_eq!(bad.code(), "bad_value");
    let wrong = client.call_as::<String>("add", &(1, 2)).await.unwrap_err();
    assert!(matches!(wrong, CallError::Value(_)));
    let short = Duration::from_millis(50);
    assert_eq!(
        client.call_timeout("unary/hang", (), short).await.unwrap_err().code(),
        "timeout"
    );
    let mut call = client.open_with(Request::new("add", Kind::Unary)).await.unwrap();
    assert_eq!(call.recv().await, Ok(None), "there are no chunks");
    assert!(call.send(Chunk::Raw("x".into())).await.is_err());
}

async fn not_found(client: &RpcClient) {
    match client.open("nobody", Mode::Bidi, ()).await {
        // Within a process it is known at once.
        Err(error) => assert_eq!(error, CallError::Open(OpenError::NotFound)),
        Ok(mut call) => {
            assert_eq!(call.recv().await.unwrap_err().code(), "not_found");
            assert_eq!(call.reply().await.unwrap_err().code(), "not_found");
            call.ended().await;
        }
    }
    assert_eq!(client.call("nobody", ()).await.unwrap_err().code(), "not_found");
}

async fn modes(client: &RpcClient) {
    let range = Range { n: 3, label: None };
    let mut call = client.open("count", Mode::ServerStream, &range).await.unwrap();
    assert_eq!(call.send(Chunk::Raw("x".into())).await, Err(CallError::WrongMode));
    let (error, chunk) = call.try_send(Chunk::Raw("x".into())).unwrap_err();
    assert_eq!((error, chunk), (SendError::WrongMode, Chunk::Raw("x".into())));
    assert_eq!(drain(&mut call).await.unwrap().len(), 3);
}

async fn aborts(client: &RpcClient, provider: &Provider) {
    let mut call = client.open("watch", Mode::Bidi, ()).await.unwrap();
    assert_eq!(call.recv().await, Ok(Some(Chunk::Raw("here".into()))));
    call.abort(Fault::new("changed_my_mind", "never mind"));
    assert_eq!(provider.seen.recv().await.unwrap(), ("watch", "changed_my_mind".into()));
    assert_eq!(call.recv().await.unwrap_err().code(), "changed_my_mind");
    assert_eq!(call.reply().await.unwrap_err().code(), "changed_my_mind");
    call.ended().await;

    let mut call = client.open("stream/fail", Mode::Bidi, ()).await.unwrap();
    let fault = Fault::new("teapot", "short and stout");
    assert_eq!(call.recv().await, Err(CallError::Aborted(fault.clone())));
    assert_eq!(call.reply().await, Err(CallError::Aborted(fault)));
    call.ended().await;
}

async fn cancel(client: &RpcClient, provider: &Provider) {
    let mut call = client.open("watch", Mode::Bidi, ()).await.unwrap();
    assert_eq!(call.recv().await, Ok(Some(Chunk::Raw("here".into()))));
    let (sender, receiver) = call.split();
    drop(receiver);
    assert!(provider.seen.try_recv().is_err(), "one half is left");
    drop(sender);
    assert_eq!(provider.seen.recv().await.unwrap(), ("watch", "cancelled".into()));
    // In good order it is no error.
    let mut call = client.open("watch", Mode::Bidi, ()).await.unwrap();
    assert_eq!(call.recv().await, Ok(Some(Chunk::Raw("here".into()))));
    call.close();
    assert_eq!(provider.seen.recv().await.unwrap(), ("watch", "None".into()));
}

async fn failures(client: &RpcClient) {
    let mut call = client.open("stream/panic", Mode::Bidi, ()).await.unwrap();
    assert_eq!(call.recv().await.unwrap_err().code(), "handler_error");
    let error = client.call("unary/panic", ()).await.unwrap_err();
    assert_eq!(error.code(), "handler_error");
    assert!(matches!(error, CallError::Failed(_)));
    let error = client.call("unary/fail", ()).await.unwrap_err();
    assert_eq!(error, CallError::Failed(Fault::new("teapot", "short and stout")));
    // Nothing else suffered.
    assert_eq!(client.call("add", &(1, 2)).await, Ok(Value::Uint(3)));
}

async fn deadlines(client: &RpcClient) {
    let mut request = Request::new("stream/hang", Mode::Bidi.into());
    request.deadline = Some(Duration::from_millis(100));
    let mut call = client.open_with(request).await.unwrap();
    let error = call.recv().await.unwrap_err();
    assert!(matches!(error, CallError::Aborted(_)));
    assert_eq!(error.code(), "timeout");
    assert_eq!(call.reply().await.unwrap_err().code(), "timeout");

    let mut request = Request::new("echo", Mode::Bidi.into());
    request.idle = Some(Duration::from_millis(100));
    let mut call = client.open_with(request).await.unwrap();
    call.send(Chunk::Raw("x".into())).await.unwrap();
    assert!(call.recv().await.unwrap().is_some());
    assert_eq!(call.recv().await.unwrap_err().code(), "timeout");
}

async fn replies(client: &RpcClient, carrier: Carrier) {
    let mut call = client.open("settle", Mode::Bidi, &true).await.unwrap();
    assert_eq!(call.reply().await, Ok(Value::text("first")));
    assert_eq!(drain(&mut call).await, Ok(vec![Chunk::Raw("after".into())]));
    let mut call = client.open("settle", Mode::Bidi, &false).await.unwrap();
    if carrier == Carrier::Peering {
        // Signed frames have no reply that is an error: it ends the call.
        let error = call.reply().await.unwrap_err();
        assert!(
            matches!(&error, CallError::Aborted(fault) if fault.code == "sorry"),
            "{error:?}"
        );
        return;
    }
    assert_eq!(drain(&mut call).await, Ok(vec![Chunk::Raw("after".into())]));
    assert_eq!(call.reply().await, Err(CallError::Failed(Fault::from_code("sorry"))));
}

/// Small chunks, which are gathered, between such as are not: all come back as they were, in order, and none is left behind.
async fn sizes(client: &RpcClient) {
    const COUNT: usize = 2_500;
    let call = client.open("echo", Mode::Bidi, ()).await.unwrap();
    let (sender, mut receiver) = call.split();
    let chunk = |at: usize| match at % 1_000 {
        0 => Chunk::Raw(vec![at as u8; 70_000].into()),
        17 => Chunk::Term(Value::from(at as u64)),
        500..510 => Chunk::Raw(vec![at as u8; 510 + at % 5].into()),
        _ => Chunk::Raw(at.to_be_bytes().to_vec().into()),
    };
    let sending = spawn(async move {
        for at in 0..COUNT {
            sender.send(chunk(at)).await.unwrap();
        }
        sender.finish();
        sender
    });
    for at in 0..COUNT {
        assert_eq!(receiver.recv().await.unwrap(), Some(chunk(at)), "{at}");
    }
    assert_eq!(receiver.recv().await.unwrap(), None);
    // Whoever has finished is told so.
    let sender = sending.await;
    assert_eq!(sender.send(chunk(1)).await, Err(CallError::SendClosed));
    receiver.control().reply().await.unwrap();
}

async fn large(client: &RpcClient) {
    let mut call = client.open("echo", Mode::Bidi, ()).await.unwrap();
    for byte in 1..=3u8 {
        let chunk = Chunk::Raw(vec![byte; 1 << 20].into());
        call.send(chunk.clone()).await.unwrap();
        assert!(call.recv().await.unwrap() == Some(chunk));
    }
    call.finish();
    assert_eq!(call.recv().await, Ok(None));
}

/// A receiver that stops stops the sender, and gets everything all the same.
async fn back_pressure(client: &RpcClient, provider: &Provider) {
    let mut call = client.open("flood", Mode::ServerStream, ()).await.unwrap();
    assert!(call.recv().await.unwrap().is_some());
    let mut before = 0;
    let held = loop {
        sleep(Duration::from_millis(200)).await;
        match provider.flooded.load(Ordering::Relaxed) {
            now if now == before => break now,
            now => before = now,
        }
    };
    assert!(held < FLOOD / 2, "{held} chunks were sent with nobody receiving");
    for number in 1..FLOOD {
        let Some(Chunk::Raw(bytes)) = call.recv().await.unwrap() else {
            panic!("chunk {number} is missing")
        };
        assert_eq!((bytes.len(), &bytes[..8]), (FLOOD_CHUNK, &number.to_be_bytes()[..]));
    }
    assert_eq!(call.recv().await, Ok(None));
    assert_eq!(call.reply().await, Ok(Value::Null));
}

async fn many(client: &RpcClient) {
    let mut calls = Vec::new();
    for number in 0..200i64 {
        let client = client.clone();
        calls.push(spawn(async move {
            match number % 3 {
                0 => assert_eq!(client.call_as::<i64>("add", &(number, 1)).await, Ok(number + 1)),
                1 => {
                    let range = Range {
                        n: number as u64,
                        label: None,
                    };
                    let mut call = client.open("count", Mode::ServerStream, &range).await.unwrap();
                    assert_eq!(drain(&mut call).await.unwrap().len() as i64, number);
                }
                _ => {
                    let call = client.open("sum", Mode::ClientStream, ()).await.unwrap();
                    for _ in 0..10 {
                        call.send_term(&number).await.unwrap();
                    }
                    call.finish();
                    assert_eq!(call.reply().await, Ok(Value::from(10 * number)));
                }
            }
        }));
    }
    for call in calls {
        call.await;
    }
}

async fn ping(client: &RpcClient, carrier: Carrier) {
    match carrier {
        Carrier::Local | Carrier::Peering => assert_eq!(client.ping().await, Err(PingError::Unsupported)),
        _ => {
            let rtt = client.ping().await.unwrap();
            assert!(rtt > Duration::ZERO && rtt < Duration::from_secs(10));
            let (one, two) = zip(client.ping(), client.ping()).await;
            assert!(one.is_ok() && two.is_ok());
        }
    }
}

/// The end of the link is the end of its calls, on both sides.
async fn loss(rig: Rig, provider: Provider) {
    let client = rig.caller.client.clone();
    let mut call = client.open("watch", Mode::Bidi, ()).await.unwrap();
    assert_eq!(call.recv().await, Ok(Some(Chunk::Raw("here".into()))));
    let waiting = {
        let client = client.clone();
        spawn(async move { client.call("unary/hang", ()).await })
    };
    while client.info().unwrap().calls < 2 {
        yield_now().await;
    }
    rig.provider.client.close();
    assert_eq!(rig.provider.client.closed().await, EndReason::Closed);
    if rig.carrier == Carrier::Peering {
        // The connection goes on; the caller's end is its own affair.
        assert_eq!(provider.seen.recv().await.unwrap().1, "disconnected");
        client.close();
    }
    assert_eq!(call.recv().await.unwrap_err().code(), "disconnected");
    assert_eq!(call.reply().await.unwrap_err().code(), "disconnected");
    assert_eq!(waiting.await.unwrap_err().code(), "disconnected");
    let reason = client.closed().await;
    if rig.carrier != Carrier::Peering {
        assert!(matches!(reason, EndReason::Disconnected(_)), "{reason:?}");
        assert_eq!(provider.seen.recv().await.unwrap().1, "disconnected");
    }
    assert_eq!(
        client.open("echo", Mode::Bidi, ()).await.unwrap_err(),
        CallError::Open(OpenError::NotUp)
    );
    assert!(matches!(client.ping().await, Err(PingError::Ended(_))));
    assert!(client.register("echo").is_err());
}
