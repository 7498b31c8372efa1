//! What tokio lends to the shared glue.

use std::{
    future::Future,
    io,
    net::{SocketAddr, UdpSocket},
    time::Instant,
};

use macula_driver::Runtime;
use tokio::{runtime::Handle, task::AbortHandle};

use crate::driver::TokioSocket;

/// The runtime that a function is called in.
#[derive(Debug)]
pub(crate) enum Tokio {}

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

    fn register(socket: UdpSocket) -> io::Result<TokioSocket> {
        handle()?;
        TokioSocket::new(socket)
    }

    fn spawn(future: impl Future<Output = ()> + Send + 'static) -> io::Result<Task> {
        Ok(Task(Some(handle()?.spawn(future).abort_handle())))
    }

    fn detach(mut task: Task) {
        task.0 = None;
    }

    fn sleep_until(moment: Instant) -> impl Future<Output = ()> + Send {
        tokio::time::sleep_until(moment.into())
    }

    async fn look_up(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(tokio::net::lookup_host((host, port)).await?.collect())
    }
}

fn handle() -> io::Result<Handle> {
    Handle::try_current().map_err(|error| io::Error::new(io::ErrorKind::NotConnected, error))
}
