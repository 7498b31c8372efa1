//! The socket and the timer of an endpoint on tokio.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use macula_driver::{Socket, UdpSockRef};
use tokio::time::{Sleep, sleep_until};

#[cfg(not(unix))]
use both::Registered;
#[cfg(unix)]
use one_way::Registered;

/// A UDP socket registered with tokio, and one timer.
#[derive(Debug)]
pub(crate) struct TokioSocket {
    socket: Registered,
    timer: Option<Pin<Box<Sleep>>>,
}

impl TokioSocket {
    pub(crate) fn new(socket: std::net::UdpSocket) -> io::Result<Self> {
        Ok(Self {
            socket: Registered::new(socket)?,
            timer: None,
        })
    }
}

impl Socket for TokioSocket {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_readable(cx)
    }

    fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_writable(cx)
    }

    fn try_recv<T>(&mut self, call: impl FnMut(UdpSockRef<'_>) -> io::Result<T>) -> io::Result<T> {
        self.socket.try_recv(call)
    }

    fn try_send<T>(&mut self, call: impl FnMut(UdpSockRef<'_>) -> io::Result<T>) -> io::Result<T> {
        self.socket.try_send(call)
    }

    fn as_udp(&self) -> UdpSockRef<'_> {
        self.socket.as_udp()
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

/// Watched for datagrams all the time, and for room to send only while there is none: every datagram that leaves makes room,
/// and would wake the thread for nothing.
#[cfg(unix)]
mod one_way {
    use std::{
        io,
        net::UdpSocket,
        task::{Context, Poll, ready},
    };

    use macula_driver::UdpSockRef;
    use tokio::io::{Interest, unix::AsyncFd};

    #[derive(Debug)]
    pub(super) struct Registered {
        socket: AsyncFd<UdpSocket>,
        /// The last send would have blocked.
        blocked: bool,
        /// A second name of the socket, while the first waits for room to send.
        room: Option<AsyncFd<UdpSocket>>,
    }

    #[allow(
        deprecated,
        reason = "what replaces it is unsafe because of types that give away one descriptor after the other; a socket of the \
                  standard library owns the one that it always gives"
    )]
    fn watch(socket: UdpSocket, interest: Interest) -> io::Result<AsyncFd<UdpSocket>> {
        AsyncFd::with_interest(socket, interest)
    }

    impl Registered {
        pub(super) fn new(socket: UdpSocket) -> io::Result<Self> {
            Ok(Self {
                socket: watch(socket, Interest::READABLE)?,
                blocked: false,
                room: None,
            })
        }

        pub(super) fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.socket.poll_read_ready(cx).map_ok(|mut guard| guard.retain_ready())
        }

        pub(super) fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            if !self.blocked {
                return Poll::Ready(Ok(()));
            }
            let room = match &mut self.room {
                Some(room) => room,
                empty => empty.insert(watch(self.socket.get_ref().try_clone()?, Interest::WRITABLE)?),
            };
            ready!(room.poll_write_ready(cx)).map(|mut guard| guard.retain_ready())?;
            self.blocked = false;
            self.room = None;
            Poll::Ready(Ok(()))
        }

        pub(super) fn try_recv<T>(&mut self, mut call: impl FnMut(UdpSockRef<'_>) -> io::Result<T>) -> io::Result<T> {
            self.socket.try_io(Interest::READABLE, |socket| call(socket.into()))
        }

        pub(super) fn try_send<T>(&mut self, mut call: impl FnMut(UdpSockRef<'_>) -> io::Result<T>) -> io::Result<T> {
            let result = call(self.as_udp());
            self.blocked = matches!(&result, Err(error) if error.kind() == io::ErrorKind::WouldBlock);
            result
        }

        pub(super) fn as_udp(&self) -> UdpSockRef<'_> {
            self.socket.get_ref().into()
        }
    }

    #[cfg(test)]
    mod tests {
        use std::{future::poll_fn, time::Duration};

        use tokio::time::timeout;

        use super::*;

        fn would_block(_: UdpSockRef<'_>) -> io::Result<()> {
            Err(io::ErrorKind::WouldBlock.into())
        }

        #[tokio::test]
        async fn a_blocked_send_waits_until_there_is_room() {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_nonblocking(true).unwrap();
            let mut registered = Registered::new(socket).unwrap();
            let mut writable = async || {
                timeout(Duration::from_secs(10), poll_fn(|cx| registered.poll_writable(cx)))
                    .await
                    .expect("told of room")
                    .unwrap();
                let watched = registered.room.is_some();
                let blocked = registered.try_send(would_block).unwrap_err();
                assert_eq!(blocked.kind(), io::ErrorKind::WouldBlock);
                watched
            };
            // There is room at first; then twice the system says so by an event.
            for _ in 0..3 {
                assert!(!writable().await, "not watched for room when there is some");
            }
        }

        #[tokio::test]
        async fn without_room_nobody_is_woken() {
            let (here, there) = std::os::unix::net::UnixDatagram::pair().unwrap();
            here.set_nonblocking(true).unwrap();
            let mut sent = 0;
            while here.send(&[0; 1000]).is_ok() {
                sent += 1;
            }
            assert!(sent > 0);
            // It is a socket with datagrams, and it can be full, which UDP on a loopback address never is.
            let mut registered = Registered::new(std::os::fd::OwnedFd::from(here).into()).unwrap();
            let full = registered.try_send(|_| Err::<(), _>(io::ErrorKind::WouldBlock.into()));
            assert!(full.is_err());
            let mut waiting = poll_fn(|cx| registered.poll_writable(cx));
            timeout(Duration::from_millis(50), &mut waiting)
                .await
                .expect_err("no room yet");
            for _ in 0..sent {
                there.recv(&mut [0; 1000]).unwrap();
            }
            timeout(Duration::from_secs(10), waiting)
                .await
                .expect("told of room")
                .unwrap();
        }
    }
}

/// Watched for both all the time.
#[cfg(not(unix))]
mod both {
    use std::{
        io,
        task::{Context, Poll},
    };

    use macula_driver::UdpSockRef;
    use tokio::{io::Interest, net::UdpSocket};

    #[derive(Debug)]
    pub(super) struct Registered(UdpSocket);

    impl Registered {
        pub(super) fn new(socket: std::net::UdpSocket) -> io::Result<Self> {
            UdpSocket::from_std(socket).map(Self)
        }

        pub(super) fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.0.poll_recv_ready(cx)
        }

        pub(super) fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.0.poll_send_ready(cx)
        }

        pub(super) fn try_recv<T>(&mut self, mut call: impl FnMut(UdpSockRef<'_>) -> io::Result<T>) -> io::Result<T> {
            self.0.try_io(Interest::READABLE, || call((&self.0).into()))
        }

        pub(super) fn try_send<T>(&mut self, mut call: impl FnMut(UdpSockRef<'_>) -> io::Result<T>) -> io::Result<T> {
            self.0.try_io(Interest::WRITABLE, || call((&self.0).into()))
        }

        pub(super) fn as_udp(&self) -> UdpSockRef<'_> {
            (&self.0).into()
        }
    }
}
