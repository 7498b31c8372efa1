//! A TCP service that sends back what it gets, and ends when its client has ended.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

pub(super) async fn serve(listener: TcpListener) {
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((tcp, _)) => {
                    clients.spawn(echo(tcp));
                }
                Err(_) => return,
            },
            Some(_) = clients.join_next() => {}
        }
    }
}

async fn echo(mut tcp: TcpStream) {
    let _ = tcp.set_nodelay(true);
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length @ 1..) = tcp.read(&mut buffer).await {
        let got = buffer.get(..length).unwrap_or_default();
        if tcp.write_all(got).await.is_err() {
            return;
        }
    }
    let _ = tcp.shutdown().await;
}
