//! Ten thousand calls at once on one connection, one of them never read.

use std::sync::Arc;

use async_lock::Barrier;
use bytes::Bytes;
use macula_proto::wire::Value;

use super::{
    carriers::{config, connection},
    heavy::resident,
    soon,
};
use crate::{
    adapter::{run, spawn},
    macula::rpc::{Chunk, Mode, ServerCall},
    suites::process,
};

const CALLS: u64 = 10_000;
/// What all of it may take at both ends together: the unread call's inbox and windows of QUIC, and for each call, at each end, its
/// stream, its machine, its handle and its task.
const BOUND: usize = (32 << 20) + 2 * CALLS as usize * (8 << 10);

async fn many(per_call: bool) {
    let before = resident();
    let mut near = config(1);
    near.stream_per_call = per_call;
    let (caller, provider) = connection(near, config(2)).await;
    let server = &provider.server;
    server.advertise("echo", Mode::Bidi, async |mut call: ServerCall| {
        while let Some(chunk) = call.recv().await? {
            call.send(chunk).await?;
        }
        Ok(Value::Null)
    });
    server.advertise("count", Mode::ServerStream, async |call: ServerCall| {
        for number in 0..call.args_as::<u64>()? {
            call.send_term(&number).await?;
        }
        Ok(Value::Null)
    });
    server.advertise("sum", Mode::ClientStream, async |mut call: ServerCall| {
        let mut sum = 0;
        while let Some(number) = call.recv_as::<u64>().await? {
            sum += number;
        }
        Ok(Value::from(sum))
    });
    // On a stream of its own it may have more to say than fits; where all share one, what does not fit would stop the others.
    server.advertise("unread", Mode::ServerStream, async |call: ServerCall| {
        for number in 0..call.args_as::<u8>()? {
            call.send(Chunk::Raw(Bytes::from(vec![number; 16 << 10]))).await?;
        }
        Ok(Value::Null)
    });
    let client = caller.client.clone();
    let chunks: u8 = if per_call { 250 } else { 12 };
    let mut unread = client.open("unread", Mode::ServerStream, &chunks).await.unwrap();
    let mut calls = Vec::new();
    // All are open before the first goes on.
    let gate = Arc::new(Barrier::new(CALLS as usize));
    for number in 0..CALLS {
        let (client, gate) = (client.clone(), gate.clone());
        calls.push(spawn(async move {
            let (name, mode) = [
                ("echo", Mode::Bidi),
                ("count", Mode::ServerStream),
                ("sum", Mode::ClientStream),
            ][(number % 3) as usize];
            let mut call = client.open(name, mode, &5u64).await.unwrap();
            gate.wait().await;
            match mode {
                Mode::Bidi => {
                    for _ in 0..3 {
                        call.send_term(&number).await.unwrap();
                        assert_eq!(call.recv_as::<u64>().await.unwrap(), Some(number));
                    }
                    call.finish();
                    call.reply().await.unwrap();
                }
                Mode::ServerStream => {
                    for expected in 0..5 {
                        assert_eq!(call.recv_as::<u64>().await.unwrap(), Some(expected));
                    }
                    assert_eq!(call.recv().await.unwrap(), None);
                }
                Mode::ClientStream => {
                    for part in 0..3 {
                        call.send_term(&(number + part)).await.unwrap();
                    }
                    call.finish();
                    assert_eq!(call.reply().await.unwrap(), Value::from(3 * number + 3));
                }
            }
            resident()
        }));
    }
    let mut most = 0;
    for call in calls {
        most = most.max(call.await);
    }
    let grown = most.saturating_sub(before);
    assert!(
        grown <= BOUND,
        "{grown} bytes more are in use than before, and {BOUND} would do"
    );
    for number in 0..chunks {
        let got = unread.recv().await.unwrap();
        assert_eq!(
            got,
            Some(Chunk::Raw(Bytes::from(vec![number; 16 << 10]))),
            "correct when read later"
        );
    }
    assert_eq!(unread.recv().await.unwrap(), None);
    println!("stream per call: {per_call}; {} MiB more in use at most", grown >> 20);
}

#[test]
fn ten_thousand_calls_and_one_that_is_never_read() {
    process::alone("suites::rpc::many::with_no_other_test");
}

/// One after the other, and in a process of their own, since they look at the memory of the process.
#[test]
#[ignore = "a part of the test before"]
fn with_no_other_test() {
    if !process::is_part() {
        return;
    }
    run(async {
        for per_call in [true, false] {
            soon("all the calls", many(per_call)).await;
        }
    });
}
