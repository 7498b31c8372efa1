use std::{future::pending, io, net::Ipv4Addr, time::Duration};

use macula_proto::Code;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::timeout,
};

use super::{
    RecvHalf, SendHalf, SpliceEnd, SpliceOptions, Spliced, pipe,
    pipe::{PipeRecv, PipeSend},
    reset_code, reset_tcp, splice_tcp,
};

const SOON: Duration = Duration::from_secs(10);

/// A running splice, the application at its TCP end, and the far end of its tunnel.
struct World {
    app: TcpStream,
    recv: PipeRecv,
    send: PipeSend,
    splice: JoinHandle<Spliced>,
}

async fn world(options: SpliceOptions, cut: impl Future<Output = Code> + Send + 'static) -> World {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (app, accepted) = tokio::join!(TcpStream::connect(addr), listener.accept());
    let (tcp, _) = accepted.unwrap();
    let [(near_recv, near_send), (recv, send)] = pipe::tunnel(1 << 16);
    let splice = tokio::spawn(async move { splice_tcp(tcp, near_recv, near_send, &options, cut).await });
    World {
        app: app.unwrap(),
        recv,
        send,
        splice,
    }
}

async fn plain() -> World {
    world(SpliceOptions::default(), pending()).await
}

async fn end(splice: JoinHandle<Spliced>) -> Spliced {
    timeout(SOON, splice).await.expect("the splice ends").unwrap()
}

async fn assert_reset(app: &mut TcpStream) {
    let error = timeout(SOON, app.read_to_end(&mut Vec::new()))
        .await
        .expect("an end in time")
        .expect_err("a reset, not an end");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn half_close_from_tcp_first() {
    let mut w = plain().await;
    w.app.write_all(b"question").await.unwrap();
    w.app.shutdown().await.unwrap();
    let mut question = Vec::new();
    w.recv.read_to_end(&mut question).await.unwrap();
    assert_eq!(question, b"question");
    assert!(!w.splice.is_finished(), "the other direction is still open");
    w.send.write_all(b"a longer answer").await.unwrap();
    w.send.shutdown().await.unwrap();
    let mut answer = Vec::new();
    w.app.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"a longer answer");
    assert_eq!(
        end(w.splice).await,
        Spliced {
            from_tunnel: 15,
            to_tunnel: 8,
            end: SpliceEnd::Finished
        }
    );
}

#[tokio::test]
async fn half_close_from_the_tunnel_first() {
    let mut w = plain().await;
    w.send.write_all(b"question").await.unwrap();
    w.send.shutdown().await.unwrap();
    let mut question = Vec::new();
    w.app.read_to_end(&mut question).await.unwrap();
    assert_eq!(question, b"question");
    w.app.write_all(b"answer").await.unwrap();
    w.app.shutdown().await.unwrap();
    let mut answer = Vec::new();
    w.recv.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"answer");
    let spliced = end(w.splice).await;
    assert_eq!((spliced.from_tunnel, spliced.to_tunnel), (8, 6));
    assert_eq!(spliced.end, SpliceEnd::Finished);
}

#[tokio::test]
async fn a_reset_tcp_connection_resets_the_tunnel() {
    let mut w = plain().await;
    w.app.write_all(b"abc").await.unwrap();
    w.recv.read_exact(&mut [0; 3]).await.unwrap();
    reset_tcp(w.app);
    let error = w.recv.read_u8().await.unwrap_err();
    assert_eq!(reset_code(&error), Some(Code::TCP_RESET));
    assert_eq!(w.send.stopped(), Some(Code::TCP_RESET));
    let spliced = end(w.splice).await;
    assert!(matches!(spliced.end, SpliceEnd::TcpReset(_)), "{spliced:?}");
    assert_eq!(spliced.to_tunnel, 3);
}

#[tokio::test]
async fn a_reset_is_noticed_while_the_tunnel_takes_nothing() {
    let mut w = plain().await;
    // More than the tunnel and the copy buffer hold, so that nobody reads from the TCP connection any more.
    let flood = vec![7; 1 << 20];
    let mut sent = 0;
    while let Ok(Ok(written)) = timeout(Duration::from_millis(100), w.app.write(&flood)).await {
        sent += written;
    }
    assert!(sent > 1 << 17);
    reset_tcp(w.app);
    let spliced = end(w.splice).await;
    assert!(matches!(spliced.end, SpliceEnd::TcpReset(_)), "{spliced:?}");
    assert_eq!(spliced.to_tunnel, 1 << 16, "what the tunnel took");
}

#[tokio::test]
async fn a_reset_tunnel_resets_the_tcp_connection() {
    for code in [Code::TCP_RESET, Code::PEER_GONE, Code::CANCELLED] {
        let mut w = plain().await;
        w.send.reset(code);
        assert_reset(&mut w.app).await;
        assert_eq!(end(w.splice).await.end, SpliceEnd::TunnelReset(code));
    }
}

#[tokio::test]
async fn a_stopped_tunnel_resets_the_tcp_connection() {
    let mut w = plain().await;
    w.recv.stop(Code::TCP_RESET);
    w.app.write_all(b"nobody wants this").await.unwrap();
    assert_reset(&mut w.app).await;
    assert_eq!(end(w.splice).await.end, SpliceEnd::TunnelReset(Code::TCP_RESET));
    assert_eq!(w.send.stopped(), Some(Code::TCP_RESET));
}

#[tokio::test]
async fn a_lost_tunnel_resets_the_tcp_connection() {
    let mut w = plain().await;
    w.send.write_all(b"abc").await.unwrap();
    w.app.read_exact(&mut [0; 3]).await.unwrap();
    w.send.lose();
    assert_reset(&mut w.app).await;
    let spliced = end(w.splice).await;
    assert!(matches!(spliced.end, SpliceEnd::TunnelLost(_)), "{spliced:?}");
    assert_eq!(spliced.from_tunnel, 3);
}

#[tokio::test]
async fn a_cut_ends_both_sides_with_its_code() {
    let (cut, wait) = tokio::sync::oneshot::channel();
    let mut w = world(SpliceOptions::default(), async { wait.await.unwrap() }).await;
    w.app.write_all(b"abc").await.unwrap();
    w.recv.read_exact(&mut [0; 3]).await.unwrap();
    cut.send(Code::SHUTDOWN).unwrap();
    assert_reset(&mut w.app).await;
    assert_eq!(reset_code(&w.recv.read_u8().await.unwrap_err()), Some(Code::SHUTDOWN));
    assert_eq!(end(w.splice).await.end, SpliceEnd::Cut(Code::SHUTDOWN));
}

#[tokio::test]
async fn an_idle_tunnel_is_cut_only_when_nothing_moves() {
    let limit = Duration::from_millis(400);
    let options = SpliceOptions {
        idle: Some(limit),
        ..SpliceOptions::default()
    };
    let mut w = world(options, pending()).await;
    // Traffic in one direction keeps both open, for longer than the limit in all.
    for _ in 0..8 {
        w.app.write_all(b"x").await.unwrap();
        w.recv.read_u8().await.unwrap();
        tokio::time::sleep(limit / 5).await;
    }
    assert!(!w.splice.is_finished());
    assert_reset(&mut w.app).await;
    assert_eq!(reset_code(&w.recv.read_u8().await.unwrap_err()), Some(Code::TIMEOUT));
    let spliced = end(w.splice).await;
    assert_eq!((spliced.end, spliced.to_tunnel), (SpliceEnd::Idle, 8));
}

#[tokio::test]
async fn bulk_both_ways_arrives_whole() {
    let mut w = plain().await;
    let bytes: Vec<u8> = (0..3_000_017_u32).flat_map(u32::to_le_bytes).collect();
    let (mut app_read, mut app_write) = w.app.split();
    let (mut from_app, mut from_tunnel) = (Vec::new(), Vec::new());
    let sent = async {
        app_write.write_all(&bytes).await.unwrap();
        app_write.shutdown().await.unwrap();
    };
    let far_sent = async {
        w.send.write_all(&bytes).await.unwrap();
        w.send.shutdown().await.unwrap();
    };
    let all = async {
        tokio::join!(
            sent,
            far_sent,
            w.recv.read_to_end(&mut from_app),
            app_read.read_to_end(&mut from_tunnel)
        )
    };
    let (_, _, far, near) = timeout(SOON, all).await.expect("both ways move at once");
    assert!(far.is_ok() && near.is_ok());
    assert!(from_app == bytes && from_tunnel == bytes);
    let spliced = end(w.splice).await;
    let length = u64::try_from(bytes.len()).unwrap();
    assert_eq!((spliced.from_tunnel, spliced.to_tunnel), (length, length));
}
