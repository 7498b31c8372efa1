//! What smol lends to the shared glue.

use std::{
    future::Future,
    io,
    net::{SocketAddr, UdpSocket},
    time::Instant,
};

use async_io::Timer;
use macula_driver::Runtime;
use smol::{Task, net::TcpStream};

use crate::{
    dist::node::{Reader, Writer, halves},
    driver::SmolSocket,
};

/// smol's global executor, and async-io's reactor.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Smol;

impl Runtime for Smol {
    type Socket = SmolSocket;
    type Task = Task<()>;
    type TcpReader = Reader<TcpStream>;
    type TcpWriter = Writer<TcpStream>;

    fn current() -> io::Result<Self> {
        Ok(Self)
    }

    fn register(&self, socket: UdpSocket) -> io::Result<SmolSocket> {
        SmolSocket::new(socket)
    }

    fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) -> Task<()> {
        smol::spawn(future)
    }

    fn detach(task: Task<()>) {
        task.detach();
    }

    fn sleep_until(&self, moment: Instant) -> impl Future<Output = ()> + Send + 'static {
        let timer = Timer::at(moment);
        async move { _ = timer.await }
    }

    async fn look_up(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        smol::net::resolve((host, port)).await
    }

    async fn connect_tcp(&self, to: SocketAddr) -> io::Result<(Self::TcpReader, Self::TcpWriter)> {
        let stream = TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        Ok(halves(stream))
    }
}
