//! What tokio lends to the shared glue.

use std::{
    future::Future,
    io,
    net::{SocketAddr, UdpSocket},
    time::Instant,
};

use macula_driver::Runtime;
use tokio::{net::TcpStream, runtime::Handle, task::AbortHandle};

use crate::{
    dist::node::{Reader, Writer, halves},
    driver::TokioSocket,
};

/// A runtime of tokio.
#[derive(Debug, Clone)]
pub(crate) struct Tokio(Handle);

/// A task that ends with this, unless it was detached.
#[derive(Debug)]
pub(crate) struct Task(Option<AbortHandle>);

impl Drop for Task {
    fn drop(&mut self) {
        if let Some(task) = self.0.take() {
            task.abort();
        }
    }
}

impl Runtime for Tokio {
    type Socket = TokioSocket;
    type Task = Task;
    type TcpReader = Reader<TcpStream>;
    type TcpWriter = Writer<TcpStream>;

    fn current() -> io::Result<Self> {
        let current = Handle::try_current().map(Self);
        current.map_err(|error| io::Error::new(io::ErrorKind::NotConnected, error))
    }

    fn register(&self, socket: UdpSocket) -> io::Result<TokioSocket> {
        let _guard = self.0.enter();
        TokioSocket::new(socket)
    }

    fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) -> Task {
        Task(Some(self.0.spawn(future).abort_handle()))
    }

    fn detach(mut task: Task) {
        task.0 = None;
    }

    fn sleep_until(&self, moment: Instant) -> impl Future<Output = ()> + Send + 'static {
        let _guard = self.0.enter();
        tokio::time::sleep_until(moment.into())
    }

    async fn look_up(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(tokio::net::lookup_host((host, port)).await?.collect())
    }

    async fn connect_tcp(&self, to: SocketAddr) -> io::Result<(Self::TcpReader, Self::TcpWriter)> {
        let stream = TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        Ok(halves(stream))
    }
}
