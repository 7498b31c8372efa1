//! What the suites need of smol.

use std::{
    future::Future,
    io::Result as IoResult,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures_lite::future::or;
use smol::Timer;

/// Runs a test.
pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    smol::block_on(test)
}

/// A task that goes on when this is dropped. Waiting for it passes its panic on.
#[derive(Debug)]
pub(crate) struct Task<T>(Option<smol::Task<T>>);

pub(crate) fn spawn<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> Task<T> {
    Task(Some(smol::spawn(future)))
}

impl<T> Task<T> {
    fn task(&mut self) -> &mut smol::Task<T> {
        self.0.as_mut().expect("it is there until the end")
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.0.as_ref().is_some_and(smol::Task::is_finished)
    }
}

impl<T> Future for Task<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        Pin::new(self.task()).poll(cx)
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        if let Some(task) = self.0.take() {
            task.detach();
        }
    }
}

pub(crate) async fn sleep(duration: Duration) {
    Timer::after(duration).await;
}

/// It took too long.
#[derive(Debug)]
pub(crate) struct Late;

pub(crate) async fn timeout<T>(limit: Duration, future: impl Future<Output = T>) -> Result<T, Late> {
    let late = async {
        Timer::after(limit).await;
        Err(Late)
    };
    or(async { Ok(future.await) }, late).await
}

pub(crate) mod io {
    pub(crate) use smol::io::{AsyncReadExt, AsyncWriteExt, copy};

    use super::IoResult;

    /// Ends the writing direction.
    pub(crate) async fn shutdown(writer: &mut (impl AsyncWriteExt + Unpin)) -> IoResult<()> {
        writer.close().await
    }
}

pub(crate) mod net {
    use std::net::SocketAddr;

    use futures_lite::future::zip;
    pub(crate) use smol::net::TcpStream;

    use super::IoResult;

    /// Two ends of a TCP connection on loopback.
    pub(crate) async fn tcp_pair() -> IoResult<(TcpStream, TcpStream)> {
        let listener = smol::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let (near, far) = zip(TcpStream::connect(listener.local_addr()?), listener.accept()).await;
        Ok((near?, far?.0))
    }

    pub(crate) fn split(tcp: TcpStream) -> (TcpStream, TcpStream) {
        (tcp.clone(), tcp)
    }
}
