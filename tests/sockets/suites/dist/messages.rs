//! Many messages.

use std::time::{Duration, Instant};

use super::{pair, recv};
use crate::{
    MESSAGES,
    adapter::{run, sleep, spawn},
    macula::dist::{Signal, Term},
};

/// Messages in order from one node to another.
async fn transfer(count: i64) {
    let (a, b) = pair().await;
    let mut sink = b.mailbox().unwrap();
    let source = a.mailbox().unwrap();
    let pid = sink.pid().clone();
    let begun = Instant::now();
    let sending = spawn(async move {
        for number in 0..count {
            source.send(&pid, number).await.unwrap();
        }
        source
    });
    for number in 0..count {
        let Signal::Message { term, .. } = sink.recv().await.unwrap() else {
            panic!()
        };
        assert_eq!(term, Term::Int(number));
    }
    let rate = count as f64 / begun.elapsed().as_secs_f64();
    sending.await;
    println!("{count} messages in order, {rate:.0} a second");
}

#[test]
fn many_messages_arrive_in_order() {
    run(async {
        transfer(MESSAGES).await;
    });
}

#[test]
fn large_messages_wait_for_whom_they_are_for() {
    run(async {
        let (a, b) = pair().await;
        let mut sink = b.mailbox().unwrap();
        let source = a.mailbox().unwrap();
        let pid = sink.pid().clone();
        // More than mailboxes, queues and windows take.
        let sending = spawn(async move {
            let large = Term::binary(vec![1; 1 << 20]);
            for _ in 0..64 {
                source.send(&pid, large.clone()).await.unwrap();
            }
            source
        });
        sleep(Duration::from_millis(300)).await;
        assert!(!sending.is_finished(), "64 MiB fit somewhere");
        for _ in 0..64 {
            let Signal::Message { term, .. } = recv(&mut sink).await else {
                panic!()
            };
            assert_eq!(term.as_binary().map(|bytes| bytes.len()), Some(1 << 20));
        }
        sending.await;
    });
}
