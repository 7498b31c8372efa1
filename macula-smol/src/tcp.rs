//! TCP connections over tunnels.
//!
//! A tunnel carries one TCP connection: [`splice_tcp`] copies bytes both ways and passes every end on as what it is. The end
//! of one direction (FIN) leaves the other direction open. A TCP connection that was reset resets the tunnel with
//! [`Code::TCP_RESET`], and a tunnel that ends in any other way than by FIN resets the TCP connection, so that neither side
//! can mistake a cut for an end.

use std::{
    future::{Future, poll_fn},
    io,
    net::TcpStream as Socket,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use async_io::{Async, Timer};
use futures_io::{AsyncRead, AsyncWrite};
use macula_driver::{
    RecvStream, SendStream,
    tcp::{Tcp, TunnelRecv, TunnelSend},
};
use macula_proto::Code;
use smol::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use socket2::SockRef;

use crate::runtime::Smol;

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
/// Closing it is the FIN. What is written travels without a flush. Errors are as for [`RecvHalf`], a peer that stopped
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
    macula_driver::tcp::splice::<Smol>(Connection::new(tcp), Half(recv), Half(send), options, cut).await
}

/// Closes a TCP connection with a reset (RST) instead of an orderly end, so that the peer sees an error.
///
/// It takes effect when the last clone of the handle is dropped.
pub fn reset_tcp(tcp: TcpStream) {
    let tcp = Connection::new(tcp);
    macula_driver::tcp::reset_socket(&tcp.socket());
    drop(tcp);
}

/// How often a TCP connection that nobody reads is asked whether it is dead: async-io does not tell of errors apart from bytes to
/// read, and those may be there without anybody who wants them now.
const LOOK: Duration = Duration::from_millis(500);

#[derive(Debug)]
struct Connection {
    socket: Arc<Async<Socket>>,
    /// Whether somebody reads, who will be told of errors.
    reading: AtomicBool,
}

impl Connection {
    fn new(tcp: TcpStream) -> Self {
        Self {
            socket: tcp.into(),
            reading: AtomicBool::new(false),
        }
    }
}

/// Notes that somebody reads.
struct Reading<'a>(&'a AtomicBool);

impl<'a> Reading<'a> {
    fn new(reading: &'a AtomicBool) -> Self {
        reading.store(true, Ordering::Relaxed);
        Self(reading)
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

impl Tcp for Connection {
    async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let _reading = Reading::new(&self.reading);
        (&*self.socket).read(buffer).await
    }

    async fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        (&*self.socket).write(bytes).await
    }

    async fn failed(&self) -> io::Error {
        let mut timer = None;
        poll_fn(|cx| {
            loop {
                // Reading goes on and stops in the task that polls this, so that nothing is missed without a timer.
                if self.reading.load(Ordering::Relaxed) {
                    timer = None;
                    return Poll::Pending;
                }
                ready!(Pin::new(timer.get_or_insert_with(|| Timer::after(LOOK))).poll(cx));
                timer = None;
                if let Ok(Some(error)) = self.socket.get_ref().take_error() {
                    return Poll::Ready(error);
                }
            }
        })
        .await
    }

    fn socket(&self) -> SockRef<'_> {
        SockRef::from(self.socket.get_ref())
    }
}

#[derive(Debug)]
struct Half<T>(T);

impl<R: RecvHalf> TunnelRecv for Half<R> {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
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
        Pin::new(&mut self.0).poll_close(cx)
    }

    fn reset(&mut self, code: Code) {
        self.0.reset(code);
    }
}
