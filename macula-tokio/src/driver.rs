//! The socket and the timer of an endpoint on tokio.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use macula_driver::{Socket, UdpSockRef};
use tokio::{
    io::Interest,
    net::UdpSocket,
    time::{Sleep, sleep_until},
};

/// A UDP socket registered with tokio, and one timer.
#[derive(Debug)]
pub(crate) struct TokioSocket {
    socket: UdpSocket,
    timer: Option<Pin<Box<Sleep>>>,
}

impl TokioSocket {
    pub(crate) fn new(socket: std::net::UdpSocket) -> io::Result<Self> {
        Ok(Self {
            socket: UdpSocket::from_std(socket)?,
            timer: None,
        })
    }
}

impl Socket for TokioSocket {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_recv_ready(cx)
    }

    fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_send_ready(cx)
    }

    fn try_recv<T>(&mut self, mut call: impl FnMut(UdpSockRef<'_>) -> io::Result<T>) -> io::Result<T> {
        let socket = &self.socket;
        socket.try_io(Interest::READABLE, || call(socket.into()))
    }

    fn try_send<T>(&mut self, mut call: impl FnMut(UdpSockRef<'_>) -> io::Result<T>) -> io::Result<T> {
        let socket = &self.socket;
        socket.try_io(Interest::WRITABLE, || call(socket.into()))
    }

    fn poll_deadline(&mut self, cx: &mut Context<'_>, deadline: Option<Instant>) -> Poll<()> {
        let Some(deadline) = deadline.map(Into::into) else {
            self.timer = None;
            return Poll::Pending;
        };
        match &mut self.timer {
            Some(timer) => {
                if timer.deadline() != deadline {
                    timer.as_mut().reset(deadline);
                }
                timer.as_mut().poll(cx)
            }
            timer => timer.insert(Box::pin(sleep_until(deadline))).as_mut().poll(cx),
        }
    }
}
