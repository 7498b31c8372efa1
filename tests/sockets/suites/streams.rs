//! Streams between two endpoints on loopback.

use std::{io, time::Duration};

use bytes::Bytes;
use futures_lite::future::{or, yield_now, zip};

use super::common::{noise, pair, pair_with, soon};
use crate::{
    adapter::{
        io::{AsyncReadExt, AsyncWriteExt, copy, shutdown},
        run, sleep, spawn, timeout,
    },
    macula::{Active, CloseReason, Code, Connection, ReadError, Stream, StreamEvent, TransportConfig, WriteError},
};

/// Answers every stream with what comes in on it.
fn echo(connection: Connection) {
    spawn(async move {
        while let Ok(stream) = connection.accept_bi().await {
            spawn(async move {
                let (mut send, mut recv) = stream.split();
                copy(&mut recv, &mut send).await?;
                shutdown(&mut send).await
            });
        }
    });
}

async fn exchange(stream: Stream, data: Vec<u8>) -> Vec<u8> {
    let (mut send, mut recv) = stream.split();
    let writer = async move {
        send.write_all(&data).await.expect("written");
        send.finish().expect("finished");
        send.delivered().await.expect("delivered");
    };
    let reader = async move {
        let mut all = Vec::new();
        AsyncReadExt::read_to_end(&mut recv, &mut all).await.expect("read");
        all
    };
    zip(writer, reader).await.1
}

#[test]
fn a_bidirectional_stream_is_echoed() {
    run(async {
        let pair = pair().await;
        echo(pair.accepted.clone());
        let stream = soon(pair.dialled.open_bi()).await.expect("opened");
        let data = noise(100_000, 1);
        assert_eq!(soon(exchange(stream, data.clone())).await, data);
    });
}

#[test]
fn unidirectional_streams_go_both_ways() {
    run(async {
        let pair = pair().await;
        for (from, to) in [(&pair.dialled, &pair.accepted), (&pair.accepted, &pair.dialled)] {
            let mut send = soon(from.open_uni()).await.expect("opened");
            soon(send.write_all(b"one way")).await.expect("written");
            send.finish().expect("finished");
            let mut recv = soon(to.accept_uni()).await.expect("accepted");
            let all = soon(recv.read_to_end(100)).await.expect("read");
            assert_eq!(all.as_deref(), Some(&b"one way"[..]));
            soon(send.delivered()).await.expect("delivered");
        }
    });
}

#[test]
fn bulk_arrives_intact_in_both_directions_at_once() {
    run(async {
        const SIZE: usize = 64 << 20;
        let pair = pair().await;
        let up = noise(SIZE, 2);
        let down = noise(SIZE, 3);
        let stream = soon(pair.dialled.open_bi()).await.expect("opened");
        let there = spawn(exchange(stream, up.clone()));
        let stream = soon(pair.accepted.accept_bi()).await.expect("accepted");
        let here = spawn(exchange(stream, down.clone()));
        assert!(soon(there).await == down, "downwards");
        assert!(soon(here).await == up, "upwards");
    });
}

#[test]
fn one_half_ends_while_the_other_goes_on() {
    run(async {
        let pair = pair().await;
        let mut near = soon(pair.dialled.open_bi()).await.expect("opened");
        near.write_all(b"question").await.expect("written");
        shutdown(&mut near).await.expect("finished");
        let mut far = soon(pair.accepted.accept_bi()).await.expect("accepted");
        let mut question = Vec::new();
        soon(AsyncReadExt::read_to_end(&mut far, &mut question))
            .await
            .expect("read to the end");
        assert_eq!(question, b"question");
        for _ in 0..3 {
            far.write_all(b"answer").await.expect("the other half still goes");
        }
        shutdown(&mut far).await.expect("finished");
        let mut answer = String::new();
        soon(near.read_to_string(&mut answer)).await.expect("read");
        assert_eq!(answer, "answeransweranswer");
        soon(near.delivered()).await.expect("delivered");
    });
}

#[test]
fn reset_and_stop_arrive_with_their_codes() {
    run(async {
        let pair = pair().await;
        let reset = Code::new(4711).expect("a code");
        let stop = Code::new(815).expect("a code");

        let mut near = soon(pair.dialled.open_bi()).await.expect("opened");
        near.write_all(b"x").await.expect("written");
        let mut far = soon(pair.accepted.accept_bi()).await.expect("accepted");
        far.read_exact(&mut [0]).await.expect("a byte");
        near.reset(reset).expect("reset");
        assert_eq!(soon(far.read_chunk()).await, Err(ReadError::Reset(reset)));
        let error = soon(far.read(&mut [0; 8])).await.expect_err("it stays reset");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<ReadError>());
        assert_eq!(inner, Some(&ReadError::Reset(reset)));

        near.stop(stop).expect("stopped");
        let code = soon(far.send().stopped()).await.expect("the stop arrives");
        assert_eq!(code, Some(stop));
        let error = far.write_all(b"more").await.expect_err("nobody wants it");
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<WriteError>());
        assert_eq!(inner, Some(&WriteError::Stopped(stop)));
    });
}

#[test]
fn dropped_halves_tell_the_peer() {
    run(async {
        let pair = pair().await;
        let mut near = soon(pair.dialled.open_bi()).await.expect("opened");
        near.write_all(b"half a mess").await.expect("written");
        let mut far = soon(pair.accepted.accept_bi()).await.expect("accepted");
        soon(far.read_exact(&mut [0; 11])).await.expect("read");
        drop(near);
        assert_eq!(soon(far.read_chunk()).await, Err(ReadError::Reset(Code::CANCELLED)));
        assert_eq!(soon(far.send().stopped()).await, Ok(Some(Code::CLOSED)));
    });
}

#[test]
fn a_finished_stream_may_be_dropped_at_once() {
    run(async {
        let pair = pair().await;
        let data = noise(500_000, 4);
        let mut near = soon(pair.dialled.open_uni()).await.expect("opened");
        soon(near.write_all(&data)).await.expect("written");
        near.finish().expect("finished");
        drop(near);
        let mut far = soon(pair.accepted.accept_uni()).await.expect("accepted");
        assert_eq!(soon(far.read_to_end(1 << 20)).await, Ok(Some(data)));
    });
}

#[test]
fn a_reader_that_has_it_all_but_the_end_does_not_stop_the_stream() {
    run(async {
        let pair = pair().await;
        let mut near = soon(pair.dialled.open_uni()).await.expect("opened");
        near.write_all(b"exactly").await.expect("written");
        near.finish().expect("finished");
        let mut far = soon(pair.accepted.accept_uni()).await.expect("accepted");
        soon(far.read_exact(&mut [0; 7])).await.expect("read");
        drop(far);
        soon(near.delivered()).await.expect("delivered, not stopped");
    });
}

#[test]
fn five_hundred_streams_at_once() {
    run(async {
        // Fewer are allowed at once, so that opening has to wait, too.
        let pair = pair().await;
        echo(pair.accepted.clone());
        let tasks: Vec<_> = (0..500)
            .map(|seed| {
                let connection = pair.dialled.clone();
                spawn(async move {
                    let stream = connection.open_bi().await.expect("opened");
                    let data = noise(1_000 + 37 * seed, seed as u64);
                    assert!(exchange(stream, data.clone()).await == data, "stream {seed}");
                })
            })
            .collect();
        for task in tasks {
            soon(task).await;
        }
    });
}

#[test]
fn a_writer_waits_for_its_reader_with_bounded_memory() {
    run(async {
        let window = 100_000;
        let mut transport = TransportConfig::default();
        transport.stream_window = window;
        let pair = pair_with(transport, TransportConfig::default()).await;
        let data = noise(2_000_000, 5);
        let mut near = soon(pair.dialled.open_uni()).await.expect("opened");
        let mut taken = 0;
        // Until the writer waits: nobody reads.
        while let Ok(written) = timeout(Duration::from_millis(300), near.write(&data[taken..])).await {
            taken += written.expect("written");
            assert!(taken as u64 <= window, "no more is taken than the reader allows");
        }
        assert_eq!(taken as u64, window);
        let mut far = soon(pair.accepted.accept_uni()).await.expect("accepted");
        let rest = data[taken..].to_vec();
        let writer = spawn(async move {
            near.write_all(&rest).await.expect("goes on");
            near.finish().expect("finished");
            near
        });
        assert!(soon(far.read_to_end(data.len())).await.expect("read") == Some(data));
        soon(writer).await;
    });
}

#[test]
fn cancelled_reads_and_writes_lose_nothing() {
    run(async {
        let mut transport = TransportConfig::default();
        transport.stream_window = 20_000;
        let pair = pair_with(transport.clone(), transport).await;
        let data = noise(3_000_000, 6);
        let sent = data.clone();
        let mut near = soon(pair.dialled.open_uni()).await.expect("opened");
        let writer = spawn(async move {
            let mut rest = &sent[..];
            let mut cancelled = 0;
            while !rest.is_empty() {
                let writing = async { Some(near.write(rest).await.expect("written")) };
                let given_up = async {
                    yield_now().await;
                    None
                };
                match or(writing, given_up).await {
                    Some(written) => rest = &rest[written..],
                    None => cancelled += 1,
                }
            }
            near.finish().expect("finished");
            (near, cancelled)
        });
        let mut far = soon(pair.accepted.accept_uni()).await.expect("accepted");
        let reader = spawn(async move {
            let mut all = Vec::new();
            let mut cancelled = 0;
            loop {
                let mut buf = [0; 1_000];
                let reading = async { Some(far.read(&mut buf).await.expect("read")) };
                let given_up = async {
                    sleep(Duration::from_micros(1)).await;
                    None
                };
                match or(reading, given_up).await {
                    Some(0) => break (all, cancelled),
                    Some(read) => all.extend_from_slice(&buf[..read]),
                    None => cancelled += 1,
                }
            }
        });
        let (_, cancelled_writes) = soon(writer).await;
        let (all, cancelled_reads) = soon(reader).await;
        assert!(all == data, "all of it, in order");
        assert!(cancelled_writes > 0 && cancelled_reads > 0, "the test cancels both");
    });
}

#[test]
fn active_mode_gives_as_much_as_was_asked_for() {
    run(async {
        let pair = pair().await;
        let mut near = soon(pair.dialled.open_uni()).await.expect("opened");
        near.write_all(b"first").await.expect("written");
        let far = soon(pair.accepted.accept_uni()).await.expect("accepted");
        let mut far = far.active(Active::Once);
        assert_eq!(
            soon(far.next()).await,
            Some(StreamEvent::Data(Bytes::from_static(b"first")))
        );
        assert_eq!(soon(far.next()).await, Some(StreamEvent::Passive));
        assert_eq!(soon(far.next()).await, None, "passive");

        near.write_all(b"second").await.expect("written");
        let mut passive = far.into_passive();
        let chunk = soon(passive.read_chunk()).await.expect("read").expect("bytes");
        assert_eq!(chunk, "second");
        passive.unread(chunk.slice(3..));
        let mut far = passive.active(Active::Always);
        assert_eq!(
            soon(far.next()).await,
            Some(StreamEvent::Data(Bytes::from_static(b"ond"))),
            "what was given back comes first"
        );
        let task = spawn(async move {
            let mut seen = Vec::new();
            while let Some(event) = far.next().await {
                seen.push(event);
            }
            seen
        });
        near.finish().expect("finished");
        assert_eq!(soon(task).await, [StreamEvent::Finished]);

        let mut near = soon(pair.dialled.open_uni()).await.expect("opened");
        near.write_all(b"x").await.expect("written");
        let far = soon(pair.accepted.accept_uni()).await.expect("accepted");
        let mut far = far.active(Active::Times(2));
        assert!(matches!(soon(far.next()).await, Some(StreamEvent::Data(_))));
        near.reset(Code::INTERNAL).expect("reset");
        assert_eq!(soon(far.next()).await, Some(StreamEvent::Reset(Code::INTERNAL)));
        assert_eq!(soon(far.next()).await, None);
    });
}

#[test]
fn what_had_arrived_is_read_after_the_connection_is_lost() {
    run(async {
        let pair = pair().await;
        let mut near = soon(pair.dialled.open_uni()).await.expect("opened");
        near.write_all(b"last words").await.expect("written");
        let mut far = soon(pair.accepted.accept_uni()).await.expect("accepted");
        let mut first = [0; 4];
        soon(far.read_exact(&mut first)).await.expect("read");
        pair.dialled.close(Code::INTERNAL, "good bye");
        let reason = soon(pair.accepted.closed()).await;
        let expected = CloseReason::Peer {
            code: Code::INTERNAL,
            reason: Bytes::from_static(b"good bye"),
        };
        assert_eq!(reason, expected);
        assert_eq!(soon(far.read_chunk()).await, Ok(Some(Bytes::from_static(b" words"))));
        assert_eq!(soon(far.read_chunk()).await, Err(ReadError::ConnectionLost(expected)));
    });
}

#[test]
fn halves_come_together_again() {
    run(async {
        let pair = pair().await;
        let (send, recv) = soon(pair.dialled.open_bi()).await.expect("opened").split();
        let (other, _kept) = soon(pair.dialled.open_bi()).await.expect("opened").split();
        let (other, recv) = Stream::join(other, recv).expect_err("of two streams");
        drop(other);
        let mut stream = Stream::join(send, recv).expect("of one stream");
        echo(pair.accepted.clone());
        stream.write_all(b"again").await.expect("written");
        stream.finish().expect("finished");
        assert_eq!(soon(stream.recv().read_to_end(10)).await, Ok(Some(b"again".to_vec())));
    });
}
