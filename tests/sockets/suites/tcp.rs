//! TCP connections over streams.

use std::{
    future::{Future, pending},
    io,
    time::Duration,
};

use futures_lite::future::zip;

use super::common::{Pair, pair_with, soon};
use crate::{
    adapter::{
        Task,
        io::{AsyncReadExt, AsyncWriteExt, shutdown},
        net::{TcpStream, split, tcp_pair},
        run, sleep, spawn, timeout,
    },
    macula::{
        Code, RecvStream, SendStream, TransportConfig,
        tcp::{SpliceEnd, SpliceOptions, Spliced, reset_code, reset_tcp, splice_tcp},
    },
};

/// What a direction holds that nobody reads.
const ROOM: usize = 1 << 16;

/// A running splice, the application at its TCP end, and the far end of its tunnel.
struct World {
    app: TcpStream,
    recv: RecvStream,
    send: SendStream,
    splice: Task<Spliced>,
    pair: Pair,
}

async fn world(options: SpliceOptions, cut: impl Future<Output = Code> + Send + 'static) -> World {
    let (app, tcp) = soon(tcp_pair()).await.unwrap();
    let mut transport = TransportConfig::default();
    transport.stream_window = ROOM as u64;
    let pair = pair_with(transport.clone(), transport).await;
    let (mut send, recv) = soon(pair.dialled.open_bi()).await.unwrap().split();
    // A stream is there for the other end with its first byte.
    send.write_all(b"!").await.unwrap();
    let (near_send, mut near_recv) = soon(pair.accepted.accept_bi()).await.unwrap().split();
    soon(near_recv.read_exact(&mut [0])).await.unwrap();
    let splice = spawn(async move { splice_tcp(tcp, near_recv, near_send, &options, cut).await });
    World {
        app,
        recv,
        send,
        splice,
        pair,
    }
}

async fn plain() -> World {
    world(SpliceOptions::default(), pending()).await
}

async fn read_all(recv: &mut RecvStream) -> Vec<u8> {
    let mut all = Vec::new();
    soon(AsyncReadExt::read_to_end(recv, &mut all)).await.unwrap();
    all
}

/// What was said to the splice's end of the tunnel before has arrived after this.
async fn round_trip(pair: &Pair) {
    let mut send = soon(pair.dialled.open_uni()).await.unwrap();
    send.finish().unwrap();
    let mut recv = soon(pair.accepted.accept_uni()).await.unwrap();
    assert_eq!(soon(recv.read_chunk()).await, Ok(None));
}

async fn assert_reset(app: &mut TcpStream) {
    let error = soon(app.read_to_end(&mut Vec::new()))
        .await
        .expect_err("a reset, not an end");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

/// The code with which the tunnel ends instead of with another byte.
async fn code(recv: &mut RecvStream) -> Option<Code> {
    reset_code(&soon(recv.read_exact(&mut [0])).await.unwrap_err())
}

#[test]
fn half_close_from_tcp_first() {
    run(async {
        let mut w = plain().await;
        w.app.write_all(b"question").await.unwrap();
        shutdown(&mut w.app).await.unwrap();
        let question = read_all(&mut w.recv).await;
        assert_eq!(question, b"question");
        assert!(!w.splice.is_finished(), "the other direction is still open");
        w.send.write_all(b"a longer answer").await.unwrap();
        shutdown(&mut w.send).await.unwrap();
        let mut answer = Vec::new();
        w.app.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"a longer answer");
        assert_eq!(
            soon(w.splice).await,
            Spliced {
                from_tunnel: 15,
                to_tunnel: 8,
                end: SpliceEnd::Finished
            }
        );
    });
}

#[test]
fn half_close_from_the_tunnel_first() {
    run(async {
        let mut w = plain().await;
        w.send.write_all(b"question").await.unwrap();
        shutdown(&mut w.send).await.unwrap();
        let mut question = Vec::new();
        w.app.read_to_end(&mut question).await.unwrap();
        assert_eq!(question, b"question");
        w.app.write_all(b"answer").await.unwrap();
        shutdown(&mut w.app).await.unwrap();
        let answer = read_all(&mut w.recv).await;
        assert_eq!(answer, b"answer");
        let spliced = soon(w.splice).await;
        assert_eq!((spliced.from_tunnel, spliced.to_tunnel), (8, 6));
        assert_eq!(spliced.end, SpliceEnd::Finished);
    });
}

#[test]
fn a_reset_tcp_connection_resets_the_tunnel() {
    run(async {
        let mut w = plain().await;
        w.app.write_all(b"abc").await.unwrap();
        w.recv.read_exact(&mut [0; 3]).await.unwrap();
        reset_tcp(w.app);
        assert_eq!(code(&mut w.recv).await, Some(Code::TCP_RESET));
        assert_eq!(soon(w.send.stopped()).await, Ok(Some(Code::TCP_RESET)));
        let spliced = soon(w.splice).await;
        assert!(matches!(spliced.end, SpliceEnd::TcpReset(_)), "{spliced:?}");
        assert_eq!(spliced.to_tunnel, 3);
    });
}

#[test]
fn a_reset_is_noticed_while_the_tunnel_takes_nothing() {
    run(async {
        let mut w = plain().await;
        // More than the tunnel and the copy buffer hold, so that nobody reads from the TCP connection any more.
        let flood = vec![7; 1 << 20];
        let mut sent = 0;
        while let Ok(Ok(written)) = timeout(Duration::from_millis(100), w.app.write(&flood)).await {
            sent += written;
        }
        assert!(sent > 1 << 17);
        reset_tcp(w.app);
        let spliced = soon(w.splice).await;
        assert!(matches!(spliced.end, SpliceEnd::TcpReset(_)), "{spliced:?}");
        assert_eq!(spliced.to_tunnel, ROOM as u64, "what the tunnel took");
    });
}

#[test]
fn a_reset_tunnel_resets_the_tcp_connection() {
    run(async {
        for code in [Code::TCP_RESET, Code::PEER_GONE, Code::CANCELLED] {
            let mut w = plain().await;
            w.send.reset(code).unwrap();
            assert_reset(&mut w.app).await;
            assert_eq!(soon(w.splice).await.end, SpliceEnd::TunnelReset(code));
        }
    });
}

#[test]
fn a_stopped_tunnel_resets_the_tcp_connection() {
    run(async {
        let mut w = plain().await;
        w.recv.stop(Code::TCP_RESET).unwrap();
        round_trip(&w.pair).await;
        w.app.write_all(b"nobody wants this").await.unwrap();
        assert_reset(&mut w.app).await;
        assert_eq!(soon(w.splice).await.end, SpliceEnd::TunnelReset(Code::TCP_RESET));
        assert_eq!(soon(w.send.stopped()).await, Ok(Some(Code::TCP_RESET)));
    });
}

#[test]
fn a_lost_tunnel_resets_the_tcp_connection() {
    run(async {
        let mut w = plain().await;
        w.send.write_all(b"abc").await.unwrap();
        w.app.read_exact(&mut [0; 3]).await.unwrap();
        w.pair.dialled.close(Code::INTERNAL, "");
        assert_reset(&mut w.app).await;
        let spliced = soon(w.splice).await;
        assert!(matches!(spliced.end, SpliceEnd::TunnelLost(_)), "{spliced:?}");
        assert_eq!(spliced.from_tunnel, 3);
    });
}

#[test]
fn a_cut_ends_both_sides_with_its_code() {
    run(async {
        let (cut, wait) = async_channel::bounded(1);
        let mut w = world(SpliceOptions::default(), async move { wait.recv().await.unwrap() }).await;
        w.app.write_all(b"abc").await.unwrap();
        w.recv.read_exact(&mut [0; 3]).await.unwrap();
        cut.try_send(Code::SHUTDOWN).unwrap();
        assert_reset(&mut w.app).await;
        assert_eq!(code(&mut w.recv).await, Some(Code::SHUTDOWN));
        assert_eq!(soon(w.splice).await.end, SpliceEnd::Cut(Code::SHUTDOWN));
    });
}

#[test]
fn an_idle_tunnel_is_cut_only_when_nothing_moves() {
    run(async {
        let limit = Duration::from_millis(400);
        let options = SpliceOptions {
            idle: Some(limit),
            ..SpliceOptions::default()
        };
        let mut w = world(options, pending()).await;
        // Traffic in one direction keeps both open, for longer than the limit in all.
        for _ in 0..8 {
            w.app.write_all(b"x").await.unwrap();
            w.recv.read_exact(&mut [0]).await.unwrap();
            sleep(limit / 5).await;
        }
        assert!(!w.splice.is_finished());
        assert_reset(&mut w.app).await;
        assert_eq!(code(&mut w.recv).await, Some(Code::TIMEOUT));
        let spliced = soon(w.splice).await;
        assert_eq!((spliced.end, spliced.to_tunnel), (SpliceEnd::Idle, 8));
    });
}

#[test]
fn bulk_both_ways_arrives_whole() {
    run(async {
        let mut w = plain().await;
        let bytes: Vec<u8> = (0..3_000_017_u32).flat_map(u32::to_le_bytes).collect();
        let (mut app_read, mut app_write) = split(w.app);
        let (mut from_app, mut from_tunnel) = (Vec::new(), Vec::new());
        let sent = async {
            app_write.write_all(&bytes).await.unwrap();
            shutdown(&mut app_write).await.unwrap();
        };
        let far_sent = async {
            w.send.write_all(&bytes).await.unwrap();
            shutdown(&mut w.send).await.unwrap();
        };
        let received = zip(
            AsyncReadExt::read_to_end(&mut w.recv, &mut from_app),
            app_read.read_to_end(&mut from_tunnel),
        );
        let (_, (far, near)) = soon(zip(zip(sent, far_sent), received)).await;
        assert!(far.is_ok() && near.is_ok());
        assert!(from_app == bytes && from_tunnel == bytes);
        let spliced = soon(w.splice).await;
        let length = u64::try_from(bytes.len()).unwrap();
        assert_eq!((spliced.from_tunnel, spliced.to_tunnel), (length, length));
    });
}
