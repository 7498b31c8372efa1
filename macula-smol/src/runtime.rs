//! What smol lends to the shared glue.

use std::{
    future::Future,
    io,
    net::{SocketAddr, UdpSocket},
    time::Instant,
};

use async_io::Timer;
use macula_driver::Runtime;
use smol::Task;

use crate::driver::SmolSocket;

/// smol's global executor, and async-io's reactor.
#[derive(Debug)]
pub(crate) enum Smol {}

impl Runtime for Smol {
    type Socket = SmolSocket;
    type Task = Task<()>;

    fn register(socket: UdpSocket) -> io::Result<SmolSocket> {
        SmolSocket::new(socket)
    }

    fn spawn(future: impl Future<Output = ()> + Send + 'static) -> io::Result<Task<()>> {
        Ok(smol::spawn(future))
    }

    fn detach(task: Task<()>) {
        task.detach();
    }

    async fn sleep_until(moment: Instant) {
        Timer::at(moment).await;
    }

    async fn look_up(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        smol::net::resolve((host, port)).await
    }
}
