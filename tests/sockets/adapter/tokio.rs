//! What the suites need of tokio.

use std::{
    future::Future,
    io::Result as IoResult,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::task::JoinHandle;

/// Runs a test.
pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    crate::runtime().block_on(test)
}

/// A task that goes on when this is dropped. Waiting for it passes its panic on.
#[derive(Debug)]
pub(crate) struct Task<T>(JoinHandle<T>);

pub(crate) fn spawn<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> Task<T> {
    Task(tokio::spawn(future))
}

impl<T> Task<T> {
    pub(crate) fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

impl<T> Future for Task<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        Pin::new(&mut self.0)
            .poll(cx)
            .map(|done| done.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())))
    }
}

pub(crate) async fn sleep(duration: Duration) {
    tokio::time::sleep(duration).await;
}

/// It took too long.
#[derive(Debug)]
pub(crate) struct Late;

pub(crate) async fn timeout<T>(limit: Duration, future: impl Future<Output = T>) -> Result<T, Late> {
    tokio::time::timeout(limit, future).await.map_err(|_| Late)
}

pub(crate) mod io {
    pub(crate) use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};

    use super::IoResult;

    /// Ends the writing direction.
    pub(crate) async fn shutdown(writer: &mut (impl AsyncWriteExt + Unpin)) -> IoResult<()> {
        writer.shutdown().await
    }
}

pub(crate) mod net {
    use std::net::SocketAddr;

    pub(crate) use tokio::net::TcpStream;

    use super::IoResult;

    /// Two ends of a TCP connection on loopback.
    pub(crate) async fn tcp_pair() -> IoResult<(TcpStream, TcpStream)> {
        let listener = tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr()?), listener.accept());
        Ok((near?, far?.0))
    }

    pub(crate) fn split(tcp: TcpStream) -> (tokio::net::tcp::OwnedReadHalf, tokio::net::tcp::OwnedWriteHalf) {
        tcp.into_split()
    }
}
