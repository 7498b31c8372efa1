//! The socket and the timer of an endpoint on async-io.

use std::{
    future::Future,
    io,
    net::UdpSocket,
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use async_io::{Async, Timer};
use macula_driver::{Socket, UdpSockRef};

/// A UDP socket registered with async-io, and one timer.
#[derive(Debug)]
pub(crate) struct SmolSocket {
    socket: Async<UdpSocket>,
    /// Whether the last call did not find out otherwise. async-io tells of changes only.
    readable: bool,
    writable: bool,
    timer: Timer,
    deadline: Option<Instant>,
}

impl SmolSocket {
    pub(crate) fn new(socket: UdpSocket) -> io::Result<Self> {
        Ok(Self {
            socket: Async::new_nonblocking(socket)?,
            readable: true,
            writable: true,
            timer: Timer::never(),
            deadline: None,
        })
    }
}

/// Notes in `ready` when the call would block.
fn noting<T>(result: io::Result<T>, ready: &mut bool) -> io::Result<T> {
    if let Err(error) = &result
        && error.kind() == io::ErrorKind::WouldBlock
    {
        *ready = false;
    }
    result
}

impl Socket for SmolSocket {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.readable {
            return Poll::Ready(Ok(()));
        }
        self.socket.poll_readable(cx).map_ok(|()| self.readable = true)
    }

    fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.writable {
            return Poll::Ready(Ok(()));
        }
        self.socket.poll_writable(cx).map_ok(|()| self.writable = true)
    }

    fn try_recv<T>(&mut self, mut call: impl FnMut(UdpSockRef<'_>) -> io::Result<T>) -> io::Result<T> {
        noting(call((&self.socket).into()), &mut self.readable)
    }

    fn try_send<T>(&mut self, mut call: impl FnMut(UdpSockRef<'_>) -> io::Result<T>) -> io::Result<T> {
        noting(call((&self.socket).into()), &mut self.writable)
    }

    fn as_udp(&self) -> UdpSockRef<'_> {
        (&self.socket).into()
    }

    fn poll_deadline(&mut self, cx: &mut Context<'_>, deadline: Option<Instant>) -> Poll<()> {
        if deadline != self.deadline {
            self.deadline = deadline;
            match deadline {
                Some(at) => self.timer.set_at(at),
                None => self.timer = Timer::never(),
            }
        }
        if deadline.is_none() {
            return Poll::Pending;
        }
        let fired = Pin::new(&mut self.timer).poll(cx);
        if fired.is_ready() {
            // A timer that fired is spent.
            self.deadline = None;
        }
        fired.map(|_| ())
    }
}
