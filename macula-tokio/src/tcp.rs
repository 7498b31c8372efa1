//! TCP connections over tunnels.
//!
//! A tunnel carries one TCP connection: [`splice_tcp`] copies bytes both ways and passes every end on as what it is. The end
//! of one direction (FIN) leaves the other direction open. A TCP connection that was reset resets the tunnel with
//! [`Code::TCP_RESET`], and a tunnel that ends in any other way than by FIN resets the TCP connection, so that neither side
//! can mistake a cut for an end.

#[cfg(all(test, feature = "cli"))]
pub(crate) mod pipe;

use std::{
    future::{Future, pending, poll_fn},
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use macula_driver::{
    RecvStream, SendStream,
    tcp::{Tcp, TunnelRecv, TunnelSend},
};
use macula_proto::Code;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
};

use crate::runtime::Tokio;

pub use macula_driver::tcp::{SpliceEnd, SpliceOptions, Spliced, StreamReset, reset_code};

/// The receiving half of a tunnel.
///
/// The peer's FIN reads as the end of the stream; a reset is an error for which [`reset_code`] finds the code; every other
/// error means that the tunnel is lost.
pub trait RecvHalf: AsyncRead + Unpin + Send {
    /// Tells the peer to send nothing more, and why.
    fn stop(&mut self, code: Code);
}

/// The sending half of a tunnel.
///
/// Shutting it down is the FIN. What is written travels without a flush. Errors are as for [`RecvHalf`], a peer that stopped
/// the stream being a reset too.
pub trait SendHalf: AsyncWrite + Unpin + Send {
    /// Ends the stream abruptly, and tells the peer why.
    fn reset(&mut self, code: Code);
}

impl RecvHalf for RecvStream {
    fn stop(&mut self, code: Code) {
        // A stream that is over has nothing to stop.
        let _ = Self::stop(self, code);
    }
}

impl SendHalf for SendStream {
    fn reset(&mut self, code: Code) {
        // A stream that is over has nothing to reset.
        let _ = Self::reset(self, code);
    }
}

/// Copies between a TCP connection and a tunnel until both directions have ended, or the first fault, or `cut` is ready.
///
/// Whatever it is, it is over on both sides when this returns, and the counts are exact. Dropping the future drops all three
/// handles instead.
pub async fn splice_tcp<R: RecvHalf, W: SendHalf>(
    tcp: TcpStream,
    recv: R,
    send: W,
    options: &SpliceOptions,
    cut: impl Future<Output = Code>,
) -> Spliced {
    macula_driver::tcp::splice::<Tokio>(Connection(tcp), Half(recv), Half(send), options, cut).await
}

/// Closes a TCP connection with a reset (RST) instead of an orderly end, so that the peer sees an error.
pub fn reset_tcp(tcp: TcpStream) {
    macula_driver::tcp::reset_socket(&SockRef::from(&tcp));
    drop(tcp);
}

#[derive(Debug)]
struct Connection(TcpStream);

impl Tcp for Connection {
    async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            poll_fn(|cx| self.0.poll_read_ready(cx)).await?;
            match self.0.try_read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
        }
    }

    async fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            poll_fn(|cx| self.0.poll_write_ready(cx)).await?;
            match self.0.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
        }
    }

    async fn failed(&self) -> io::Error {
        if self.0.ready(Interest::ERROR).await.is_ok()
            && let Ok(Some(error)) = self.0.take_error()
        {
            return error;
        }
        // Whoever read or wrote meanwhile was told instead.
        pending().await
    }

    fn socket(&self) -> SockRef<'_> {
        SockRef::from(&self.0)
    }
}

#[derive(Debug)]
struct Half<T>(T);

impl<R: RecvHalf> TunnelRecv for Half<R> {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        ready!(Pin::new(&mut self.0).poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }

    fn stop(&mut self, code: Code) {
        self.0.stop(code);
    }
}

impl<W: SendHalf> TunnelSend for Half<W> {
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn reset(&mut self, code: Code) {
        self.0.reset(code);
    }
}
