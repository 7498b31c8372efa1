//! What a runtime lends to the glue that is written once for all of them.

use std::{
    fmt,
    future::Future,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    pin::{Pin, pin},
    task::Poll,
    time::Instant,
};

use crate::{
    Endpoint, Options, Socket, bind,
    dist::node::{ByteReader, ByteWriter},
    start_with,
};

/// A runtime that drives endpoints, relays, nodes and servers: a handle to it, which is cheap to clone.
pub trait Runtime: fmt::Debug + Clone + Send + Sync + 'static {
    /// A UDP socket and a timer.
    type Socket: Socket;
    /// A task that was spawned. Dropping it ends the task: its future is dropped soon, and is polled no more after that.
    type Task: Send + Sync + 'static;
    /// The halves of a TCP connection.
    type TcpReader: ByteReader;
    /// See [`TcpReader`](Self::TcpReader).
    type TcpWriter: ByteWriter;

    /// The runtime that this is called in, or the only one there is.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotConnected`] where there is none.
    fn current() -> io::Result<Self>;

    /// Registers a non-blocking socket.
    ///
    /// # Errors
    /// Those of the runtime.
    fn register(&self, socket: UdpSocket) -> io::Result<Self::Socket>;

    /// Runs a future to its end, as long as the task is kept. A runtime that is about to end drops the future.
    fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) -> Self::Task;

    /// Lets a task run on by itself.
    fn detach(task: Self::Task);

    /// Ready at this moment.
    fn sleep_until(&self, moment: Instant) -> impl Future<Output = ()> + Send + 'static;

    /// The addresses of a host, given by name or by number, with this port.
    ///
    /// # Errors
    /// Those of the resolver.
    fn look_up(&self, host: &str, port: u16) -> impl Future<Output = io::Result<Vec<SocketAddr>>> + Send;

    /// A TCP connection, made to send small messages at once.
    ///
    /// # Errors
    /// Those of the operating system.
    fn connect_tcp(
        &self,
        to: SocketAddr,
    ) -> impl Future<Output = io::Result<(Self::TcpReader, Self::TcpWriter)>> + Send;
}

/// A runtime, whichever it is.
pub(crate) trait AnyRuntime: fmt::Debug + Send + Sync {
    /// Runs a future to its end.
    fn run(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>);

    /// Ready at this moment.
    fn timer(&self, moment: Instant) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

impl<R: Runtime> AnyRuntime for R {
    fn run(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        Self::detach(self.spawn(future));
    }

    fn timer(&self, moment: Instant) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(self.sleep_until(moment))
    }
}

impl Endpoint {
    /// Binds a socket and spawns its driver, which ends when all handles are gone and the last connection is over.
    ///
    /// An IPv4 address takes IPv4 only, a certain IPv6 address IPv6 only, and `[::]` both. Port 0 lets the system choose.
    ///
    /// # Errors
    /// Those of the operating system, of [`Runtime::current`] and [`Runtime::register`]; [`io::ErrorKind::InvalidInput`] for a setting that is out of
    /// range.
    pub fn bind<R: Runtime>(addr: SocketAddr, options: Options) -> io::Result<Self> {
        let socket = bind(addr, &options.socket)?;
        Self::with_socket::<R>(socket, options)
    }

    /// Binds a socket for dialling to any port: on IPv6 and IPv4 where the system has both, else on IPv4.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    pub fn bind_any<R: Runtime>(options: Options) -> io::Result<Self> {
        let socket = match bind((Ipv6Addr::UNSPECIFIED, 0).into(), &options.socket) {
            Ok(socket) => socket,
            Err(_) => bind((Ipv4Addr::UNSPECIFIED, 0).into(), &options.socket)?,
        };
        Self::with_socket::<R>(socket, options)
    }

    /// As [`bind`](Self::bind), with a socket that is bound already.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    pub fn with_socket<R: Runtime>(socket: UdpSocket, options: Options) -> io::Result<Self> {
        let runtime = R::current()?;
        let (endpoint, driver) = start_with(socket, options, |socket| runtime.register(socket))?;
        // Whoever waits for something is told why the driver ends.
        R::detach(runtime.spawn(async { drop(driver.await) }));
        Ok(endpoint)
    }
}

/// What was ready first.
pub(crate) enum First<A, B> {
    One(A),
    Other(B),
}

/// Waits for the first of two; for `one` if both are ready. The other is dropped.
pub(crate) async fn first<A, B>(one: impl Future<Output = A>, other: impl Future<Output = B>) -> First<A, B> {
    let (mut one, mut other) = (pin!(one), pin!(other));
    std::future::poll_fn(|cx| match one.as_mut().poll(cx) {
        Poll::Ready(value) => Poll::Ready(First::One(value)),
        Poll::Pending => other.as_mut().poll(cx).map(First::Other),
    })
    .await
}
