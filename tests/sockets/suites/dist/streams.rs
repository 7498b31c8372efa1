//! Streams of programs beside the messages.

use futures_lite::future::{yield_now, zip};

use super::{name, pair, soon};
use crate::{
    adapter::{
        io::{AsyncReadExt, AsyncWriteExt, copy, shutdown},
        run, spawn,
    },
    macula::{
        Code,
        dist::{DistAcceptor, DistStream, Node, Priority, Side, StreamError},
    },
};

fn pattern(length: usize, seed: usize) -> Vec<u8> {
    (0..length)
        .map(|index| (index * 7 + seed * 13 + index / 251) as u8)
        .collect()
}

async fn open(node: &Node, to: &str) -> DistStream {
    node.open_stream(&name(to), Priority::default()).await.unwrap()
}

async fn accept(acceptor: &DistAcceptor) -> DistStream {
    soon("a stream", acceptor.accept()).await.expect("an open acceptor")
}

/// Sends back what comes.
async fn echo(acceptor: DistAcceptor) -> usize {
    let mut echoes = Vec::new();
    while let Some(stream) = acceptor.accept().await {
        echoes.push(spawn(async move {
            let (mut send, mut recv) = stream.split();
            copy(&mut recv, &mut send).await.unwrap();
            shutdown(&mut send).await.unwrap();
        }));
    }
    let count = echoes.len();
    for echo in echoes {
        echo.await;
    }
    count
}

#[test]
fn a_hundred_streams_with_mixed_priorities_carry_what_was_sent() {
    run(async {
        let (a, b) = pair().await;
        let pool: Vec<_> = (0..3).map(|_| spawn(echo(b.accept_streams().unwrap()))).collect();
        let mut streams = Vec::new();
        for index in 0..100_usize {
            let a = a.clone();
            streams.push(spawn(async move {
                let priority = Priority::clamped(16 + 2 * index as i64);
                let stream = a.open_stream(&name("b"), priority).await.unwrap();
                assert_eq!((stream.priority(), stream.is_own()), (Some(priority), true));
                assert_eq!(
                    (stream.opener(), stream.node().as_str()),
                    (Side::Client, name("b").as_str())
                );
                let data = pattern(20_000 + 999 * index, index);
                let (mut send, mut recv) = stream.split();
                let sent = data.clone();
                let sending = spawn(async move {
                    send.write_all(&sent).await.unwrap();
                    shutdown(&mut send).await.unwrap();
                    send
                });
                let mut back = Vec::new();
                AsyncReadExt::read_to_end(&mut recv, &mut back).await.unwrap();
                assert!(back == data, "stream {index}");
                sending.await;
            }));
        }
        let messages = async {
            for _ in 0..20 {
                assert!(b.ping(&name("a")).await);
            }
        };
        let all = async {
            for stream in streams {
                stream.await;
            }
        };
        soon("a hundred streams and messages beside them", zip(all, messages)).await;
        assert_eq!(a.quic_link(&name("b")).unwrap().streams, [], "all are over");
        soon("the end of a node", b.shutdown()).await;
        let mut taken = Vec::new();
        for acceptor in pool {
            taken.push(soon("the end of an acceptor", acceptor).await);
        }
        taken.sort_unstable();
        assert_eq!(taken, [33, 33, 34], "each in turn");
    });
}

#[test]
fn streams_that_nobody_takes_are_refused() {
    run(async {
        let (a, b) = pair().await;
        let mut stream = open(&a, "b").await;
        stream.write_all(b"anybody?").await.unwrap();
        let refused = soon("a refusal", stream.read_chunk()).await;
        assert_eq!(refused, Err(StreamError::Reset(Code::REFUSED)));
        let none = a.open_stream(&name("c"), Priority::default()).await;
        assert_eq!(none.unwrap_err(), StreamError::NotConnected);

        // Those that the peer gives up before they are taken are passed over.
        let acceptor = b.accept_streams().unwrap();
        for _ in 0..3 {
            let mut given_up = open(&a, "b").await;
            given_up.write_all(b"never mind").await.unwrap();
            given_up.reset(Code::CANCELLED).unwrap();
        }
        let mut meant = open(&a, "b").await;
        meant.write_all(b"this one").await.unwrap();
        let taken = async {
            loop {
                let mut taken = accept(&acceptor).await;
                match taken.read_chunk().await {
                    Ok(bytes) => return (taken, bytes),
                    // It was taken a moment too early.
                    Err(error) => assert_eq!(error, StreamError::Reset(Code::CANCELLED)),
                }
            }
        };
        let (taken, bytes) = soon("the stream that is meant", taken).await;
        assert_eq!((taken.id(), bytes.unwrap()), (meant.id(), "this one".into()));
        drop((meant, taken));

        // Those that wait for somebody who goes away are reset.
        let mut waiting = open(&a, "b").await;
        waiting.write_all(b"soon?").await.unwrap();
        let there = async {
            while b.quic_link(&name("a")).unwrap().streams.is_empty() {
                yield_now().await;
            }
        };
        soon("the stream", there).await;
        let listed = b.quic_link(&name("a")).unwrap().streams[0];
        assert_eq!(
            (listed.owner, listed.recv_fin, listed.send_fin),
            (acceptor.owner(), false, false)
        );
        drop(acceptor);
        let reset = soon("a reset", waiting.read_chunk()).await;
        assert_eq!(reset, Err(StreamError::Reset(Code::CANCELLED)));
    });
}

#[test]
fn each_direction_ends_by_itself_and_with_its_code() {
    run(async {
        let (a, b) = pair().await;
        let acceptor = a.accept_streams().unwrap();
        let code = Code::new(4711).unwrap();
        // Opened by the one that was dialled.
        let mut near = open(&b, "a").await;
        assert_eq!(near.id().get(), 17);
        near.write_all(b"to be read").await.unwrap();
        let far = accept(&acceptor).await;
        assert!(!far.is_own() && far.opener() == Side::Server);
        let (mut far_send, mut far_recv) = far.split();
        assert_eq!(far_recv.read_chunk().await.unwrap().unwrap(), "to be read");

        // The far side wants no more, and still sends.
        far_recv.stop(code).unwrap();
        assert_eq!(far_recv.read_chunk().await, Err(StreamError::Closed));
        let stopped = async {
            loop {
                if let Err(error) = near.send().write(&[0; 1000]).await {
                    return error;
                }
                yield_now().await;
            }
        };
        assert_eq!(soon("a stop", stopped).await, StreamError::Stopped(code));
        assert_eq!(near.send().is_stopped(), Some(code));
        far_send.write_all(b"still here").await.unwrap();
        assert_eq!(soon("bytes", near.read_chunk()).await.unwrap().unwrap(), "still here");
        far_send.reset(code).unwrap();
        assert_eq!(far_send.finish(), Err(StreamError::Closed));
        assert_eq!(soon("a reset", near.read_chunk()).await, Err(StreamError::Reset(code)));
        assert_eq!(near.state(), None, "it is over");

        // Dropping says what it means.
        let (mut send, recv) = open(&b, "a").await.split();
        send.write_all(b"x").await.unwrap();
        let mut far = accept(&acceptor).await;
        drop(recv);
        let stopped = async {
            while far.send().write(&[0; 1000]).await.is_ok() {
                yield_now().await;
            }
            far.send().is_stopped()
        };
        assert_eq!(soon("a stop", stopped).await, Some(Code::CLOSED));
        assert_eq!(far.read_chunk().await.unwrap().unwrap(), "x");
        drop(send);
        assert_eq!(
            soon("a reset", far.read_chunk()).await,
            Err(StreamError::Reset(Code::CANCELLED))
        );

        // One that was finished may be dropped, and arrives.
        let mut whole = open(&b, "a").await;
        whole.write_all(b"all of it").await.unwrap();
        whole.finish().unwrap();
        let (send, mut recv) = whole.split();
        drop(send);
        let mut far = accept(&acceptor).await;
        far.write_all(b"thanks").await.unwrap();
        shutdown(&mut far).await.unwrap();
        assert_eq!(far.recv().read_to_end(100).await.unwrap().unwrap(), b"all of it");
        assert_eq!(recv.read_to_end(100).await.unwrap().unwrap(), b"thanks");
        assert_eq!(recv.read_chunk().await, Ok(None), "the end stays the end");
    });
}

#[test]
fn a_stream_is_handed_over_with_what_it_holds() {
    run(async {
        let (a, b) = pair().await;
        let acceptor = b.accept_streams().unwrap();
        let mut near = open(&a, "b").await;
        near.write_all(b"one two").await.unwrap();
        let mut first = accept(&acceptor).await;
        let mut word = [0; 3];
        first.read_exact(&mut word).await.unwrap();
        assert_eq!(&word, b"one");
        first.finish().unwrap();
        // To another member of the pool, though not its turn.
        let other = b.accept_streams().unwrap();
        first.hand_over(&other).unwrap();
        let mut second = accept(&other).await;
        assert_eq!(second.finish(), Err(StreamError::Closed), "as far as it was");
        near.write_all(b" three").await.unwrap();
        shutdown(&mut near).await.unwrap();
        let mut rest = String::new();
        soon("the rest", second.read_to_string(&mut rest)).await.unwrap();
        assert_eq!(rest, " two three");
    });
}

#[test]
fn streams_end_with_the_connection() {
    run(async {
        let (a, b) = pair().await;
        let acceptor = b.accept_streams().unwrap();
        let mut near = open(&a, "b").await;
        near.write_all(b"x").await.unwrap();
        let mut far = accept(&acceptor).await;
        assert_eq!(far.read_chunk().await.unwrap().unwrap(), "x");
        let reading = spawn(async move { (near.read_chunk().await, near) });
        let far_reading = spawn(async move { (far.read_chunk().await, far) });
        assert!(a.disconnect(&name("b")));
        let (here, mut near) = soon("the end", reading).await;
        assert_eq!(here, Err(StreamError::ConnectionLost));
        assert_eq!(near.send().write(b"x").await, Err(StreamError::ConnectionLost));
        let (there, _) = soon("the end", far_reading).await;
        assert_eq!(there, Err(StreamError::ConnectionLost));
        soon("the end of a node", b.shutdown()).await;
        assert!(soon("no more", acceptor.accept()).await.is_none());
    });
}
