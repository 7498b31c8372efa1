//! What one would use instead of our relay.

use std::net::{Ipv4Addr, SocketAddr};

use macula_bench::Result;
use tokio::{
    io::copy_bidirectional_with_sizes,
    net::{TcpListener, TcpStream},
};

/// Bytes that a relay reads at once.
const BLOCK: usize = 64 << 10;

/// A relay on quinn: whoever comes first is who all streams of the others go to. Each stream is copied on.
pub(crate) async fn quinn(endpoint: quinn::Endpoint) -> Result<()> {
    let target = endpoint.accept().await.ok_or("nobody came")?.await?;
    while let Some(incoming) = endpoint.accept().await {
        let target = target.clone();
        tokio::spawn(async move {
            let connection = incoming.await?;
            while let Ok(stream) = connection.accept_bi().await {
                tokio::spawn(splice(stream, target.clone()));
            }
            Result::Ok(())
        });
    }
    Ok(())
}

async fn splice((send, recv): (quinn::SendStream, quinn::RecvStream), target: quinn::Connection) -> Result<()> {
    let (to_target, from_target) = target.open_bi().await?;
    let mut near = tokio::io::join(recv, send);
    let mut far = tokio::io::join(from_target, to_target);
    copy_bidirectional_with_sizes(&mut near, &mut far, BLOCK, BLOCK).await?;
    Ok(())
}

pub(crate) async fn listen_tcp() -> Result<TcpListener> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    Ok(socket.listen(4096)?)
}

/// A forwarder of TCP connections, as they are: not encrypted.
pub(crate) async fn tcp(listener: TcpListener, to: SocketAddr) -> Result<()> {
    loop {
        let (mut near, _) = listener.accept().await?;
        near.set_nodelay(true)?;
        tokio::spawn(async move {
            let mut far = TcpStream::connect(to).await?;
            far.set_nodelay(true)?;
            copy_bidirectional_with_sizes(&mut near, &mut far, BLOCK, BLOCK).await?;
            Result::Ok(())
        });
    }
}
