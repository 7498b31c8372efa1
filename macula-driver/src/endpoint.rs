//! The endpoint handle.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use macula_proto::{
    Code, Limits, WallClock,
    quic::{CloseListener, ConfigError, DialConfig, EndpointConfig, EndpointStats, ListenConfig},
};

use crate::{
    connection::{ConnRef, Connecting, Connection},
    driver::{Driver, Seat, Socket},
    error::ConnectError,
    extension::{Context, Extension, RawStream},
    incoming::Incoming,
    shared::{DriverStats, Phase, Shared, State},
    socket::{SocketOptions, bind},
    stream::Stream,
    udp::Udp,
    waiters::Wait,
};

/// Longest time for which a driver may keep its thread without anything to do.
const MAX_SPIN: Duration = Duration::from_millis(1);

/// How an endpoint is made.
#[non_exhaustive]
pub struct Options {
    /// The socket.
    pub socket: SocketOptions,
    /// QUIC settings of the endpoint as a whole.
    pub endpoint: EndpointConfig,
    /// Every cap.
    pub limits: Limits,
    /// Buffers of 64 KiB that one receive call fills, 1 to 32. Default 16; 4 for a [`relay`](Self::relay).
    pub receive_batch: usize,
    /// Whether what is received is passed on as soon as the next connection takes it, as at a relay, instead of waiting for a program to
    /// read it. Work then begins when some 100 datagrams are there rather than 500, and they need not be copied: they stay where they were
    /// received, in at most 64 buffers of 64 KiB. Default false.
    pub passes_on: bool,
    /// Time for which the driver goes on looking for datagrams before its thread may sleep, 0 to 1 ms. Default 0.
    ///
    /// Waking a thread takes longer than everything else in a small round trip. With 50 us, whoever answers within that time is
    /// heard at once, at the price of a processor that is busy for as long behind everything that was received or sent, and of
    /// other tasks of the same thread, which wait meanwhile. An endpoint to which nothing happens does not spin.
    pub spin: Duration,
    /// Machines beside plain connections.
    pub extensions: Vec<Box<dyn Extension>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            socket: SocketOptions::default(),
            endpoint: EndpointConfig::default(),
            limits: Limits::default(),
            receive_batch: 16,
            passes_on: false,
            spin: Duration::ZERO,
            extensions: Vec::new(),
        }
    }
}

impl Options {
    /// For an endpoint that is a relay: as the default, but with `receive_batch` 4, since many connections share its socket and short
    /// batches keep their turns short, and with `passes_on`.
    pub fn relay() -> Self {
        Self {
            receive_batch: 4,
            passes_on: true,
            ..Self::default()
        }
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("socket", &self.socket)
            .field("endpoint", &self.endpoint)
            .field("limits", &self.limits)
            .field("receive_batch", &self.receive_batch)
            .field("passes_on", &self.passes_on)
            .field("spin", &self.spin)
            .field("extensions", &self.extensions.len())
            .finish()
    }
}

/// Binds a socket and makes an endpoint of it. `wrap` puts the socket on a runtime; the driver has to be spawned there.
///
/// # Errors
/// Those of the operating system, and [`io::ErrorKind::InvalidInput`] for a setting that is out of range.
pub fn start<S: Socket>(
    addr: SocketAddr,
    options: Options,
    wrap: impl FnOnce(UdpSocket) -> io::Result<S>,
) -> io::Result<(Endpoint, Driver<S>)> {
    let socket = bind(addr, &options.socket)?;
    start_with(socket, options, wrap)
}

/// As [`start`], on a socket that is bound already. It is made non-blocking; buffer sizes stay as they are.
///
/// # Errors
/// As [`start`].
pub fn start_with<S: Socket>(
    socket: UdpSocket,
    options: Options,
    wrap: impl FnOnce(UdpSocket) -> io::Result<S>,
) -> io::Result<(Endpoint, Driver<S>)> {
    start_seated(socket, options, wrap, None)
}

/// As [`start_with`], perhaps as one of several on a port.
pub(crate) fn start_seated<S: Socket>(
    socket: UdpSocket,
    options: Options,
    wrap: impl FnOnce(UdpSocket) -> io::Result<S>,
    seat: Option<Seat>,
) -> io::Result<(Endpoint, Driver<S>)> {
    socket.set_nonblocking(true)?;
    let local = socket.local_addr()?;
    let udp = Udp::new(&socket, options.receive_batch, options.passes_on)?;
    let mut config = options.endpoint;
    config.unfragmented &= !udp.may_fragment();
    let mut entropy = [0; 32];
    getrandom::fill(&mut entropy).map_err(io::Error::other)?;
    let accept_limit = options.limits.pending_incoming;
    let mut core = macula_proto::Endpoint::new(&config, options.limits, entropy)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let clock = core.quic().clock().clone();
    let state = State::new(core, accept_limit, options.extensions);
    clock.set(state.now.unix_ms);
    let shared = Arc::new(Shared::new(state, local, udp.family(), clock));
    let driver = Driver::new(
        Arc::clone(&shared),
        wrap(socket)?,
        udp,
        options.spin.min(MAX_SPIN),
        seat,
    );
    Ok((Endpoint::new(shared), driver))
}

/// Everything that shares one UDP socket: accepts and dials connections.
///
/// Clones are handles of the same endpoint. When the last is dropped, the endpoint stops listening and closes what was not
/// accepted; accepted and dialled connections live on until their own handles are gone.
pub struct Endpoint {
    shared: Arc<Shared>,
}

impl Endpoint {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        shared.locked(|state| state.handles += 1);
        Self { shared }
    }

    /// The address that the socket is bound to, with its real port.
    pub fn local_addr(&self) -> SocketAddr {
        self.shared.local
    }

    /// The wall clock of the endpoint, for [`ClientTls::build`](macula_proto::quic::tls::ClientTls::build) and
    /// [`ServerTls::build`](macula_proto::quic::tls::ServerTls::build).
    pub fn clock(&self) -> &WallClock {
        &self.shared.clock
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Whether the socket can send to this address.
    pub(crate) fn reaches(&self, remote: SocketAddr) -> bool {
        self.shared.family.reaches(remote)
    }

    /// Counters of the endpoint.
    pub fn stats(&self) -> EndpointStats {
        self.shared.locked(|state| state.endpoint.quic().stats())
    }

    /// Counters of the driver.
    pub fn driver_stats(&self) -> DriverStats {
        self.shared.locked(|state| state.stats)
    }

    // ----- listening -----------------------------------------------------------------------------------------------

    /// Starts to listen, or changes the settings for connections accepted from now on.
    ///
    /// # Errors
    /// [`ConfigError`] names the setting that is out of range.
    pub fn listen(&self, config: ListenConfig) -> Result<(), ConfigError> {
        self.shared.locked(|state| state.endpoint.quic().listen(config))
    }

    /// The next connection whose handshake is complete. `None` when the endpoint does not listen (any more) and all were
    /// accepted. Cancellation-safe.
    ///
    /// At most [`Limits::pending_incoming`] connections wait for this; more are closed with [`Code::LIMIT`].
    pub async fn accept(&self) -> Option<Connection> {
        let next = |state: &mut State| match state.accepted.pop_front() {
            Some(conn) => Poll::Ready(Some(conn)),
            None if state.phase != Phase::Open || !state.endpoint.quic().is_listening() => Poll::Ready(None),
            None => Poll::Pending,
        };
        let conn = self.shared.until(Wait::Accepted, next).await?;
        Some(Connection::new(ConnRef::new(&self.shared, conn, true)))
    }

    /// The next connection to decide about, when the listener accepts
    /// [on demand](macula_proto::quic::Accept::OnDemand). `None` when the endpoint does not listen (any more).
    /// Cancellation-safe.
    pub async fn incoming(&self) -> Option<Incoming> {
        let next = |state: &mut State| match state.incoming.pop_front() {
            Some(incoming) => Poll::Ready(Some(incoming)),
            None if state.phase != Phase::Open || !state.endpoint.quic().is_listening() => Poll::Ready(None),
            None => Poll::Pending,
        };
        let (handle, remote, validated) = self.shared.until(Wait::Incoming, next).await?;
        Some(Incoming::new(Arc::clone(&self.shared), handle, remote, validated))
    }

    /// Stops listening. Who waits for a decision is refused; connections accepted before are closed with
    /// [`Code::SHUTDOWN`], or live on.
    pub fn close_listener(&self, connections: CloseListener) {
        self.shared.locked(|state| {
            let now = state.tick();
            state.endpoint.quic().close_listener(now, connections);
            state.incoming.clear();
            state.signal(Wait::Accepted);
            state.signal(Wait::Incoming);
            state.kick();
        });
    }

    // ----- dialling ------------------------------------------------------------------------------------------------

    /// Dials and completes the handshake. Dropping the future gives the dial up.
    ///
    /// `server_name` is what the certificate must be valid for: a DNS name, or the text of an IP address.
    ///
    /// # Errors
    /// [`ConnectError`], after [`DialConfig::handshake_timeout`] at the latest.
    pub async fn connect(
        &self,
        config: &DialConfig,
        remote: SocketAddr,
        server_name: &str,
    ) -> Result<Connection, ConnectError> {
        let connecting = self.dial(config, remote, server_name)?;
        Ok(connecting.await?)
    }

    /// As [`connect`](Self::connect) with another time-out than the configured one.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn connect_timeout(
        &self,
        config: &DialConfig,
        remote: SocketAddr,
        server_name: &str,
        timeout: Duration,
    ) -> Result<Connection, ConnectError> {
        let mut config = config.clone();
        config.handshake_timeout = timeout;
        self.connect(&config, remote, server_name).await
    }

    /// Starts to dial. The answer is a future of the connection; see [`Connecting::early_data`] for using the connection
    /// before its handshake is complete.
    ///
    /// # Errors
    /// [`ConnectError`] when the dial cannot even start.
    pub fn dial(&self, config: &DialConfig, remote: SocketAddr, server_name: &str) -> Result<Connecting, ConnectError> {
        let remote = crate::socket::canonical(remote);
        if !self.shared.family.reaches(remote) {
            let local = self.shared.local;
            return Err(ConnectError::Unreachable { local, remote });
        }
        let conn = self.shared.locked(|state| {
            if state.phase != Phase::Open {
                return Err(ConnectError::EndpointClosed);
            }
            let now = state.tick();
            let conn = state.endpoint.quic().connect(now, config, remote, server_name)?;
            state.adopt_connection(conn);
            state.kick();
            Ok(conn)
        })?;
        Ok(Connecting::new(ConnRef::new(&self.shared, conn, true)))
    }

    // ----- the end -------------------------------------------------------------------------------------------------

    /// Closes all connections and stops listening. Nothing can be accepted or dialled afterwards.
    pub fn close(&self, code: Code, reason: impl Into<Bytes>) {
        let reason = reason.into();
        self.shared.locked(|state| {
            let now = state.tick();
            state.endpoint.quic().close_all(now, code, &reason);
            state.shut();
            // What machines began in between.
            state.endpoint.quic().close_all(now, code, &reason);
            state.kick();
        });
    }

    /// Waits until every connection is over and its peer needs no more answers: after [`close`](Self::close), when this
    /// returns all peers have been told as far as the network let them. Takes about three round-trip times.
    /// Cancellation-safe.
    pub async fn wait_idle(&self) {
        let idle = |state: &mut State| {
            if state.endpoint.quic().is_idle() || state.phase == Phase::Dead {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        };
        self.shared.until(Wait::Idle, idle).await;
    }

    // ----- machines ------------------------------------------------------------------------------------------------

    /// Runs `operation` on the endpoint under its lock; the driver then takes care of the consequences. For machines inside
    /// the endpoint; nothing in it may block or use a handle.
    pub fn with<T>(&self, operation: impl FnOnce(&mut Context<'_>) -> T) -> T {
        self.shared.locked(|state| {
            state.tick();
            let result = operation(&mut Context { state });
            state.kick();
            result
        })
    }

    /// As [`with`](Self::with), with the extension of type `E`; `None` if the endpoint was made without one.
    pub fn with_extension<E: Extension, T>(&self, operation: impl FnOnce(&mut E, &mut Context<'_>) -> T) -> Option<T> {
        self.shared.locked(|state| {
            state.tick();
            let result = state.on_extension(operation);
            state.kick();
            result
        })
    }

    /// Adds an extension behind those that exist. Events that came before it are not repeated.
    pub fn add_extension<E: Extension>(&self, extension: E) {
        self.shared.locked(|state| state.extensions.push(Box::new(extension)));
    }

    /// Waits until `check` on the extension of type `E` is ready; looks again whenever `key` is
    /// [woken](Context::wake). `None` if the endpoint was made without such an extension, or its driver has stopped and
    /// `check` is still pending. Cancellation-safe as long as `check` is.
    pub async fn wait<E: Extension, T>(
        &self,
        key: u64,
        mut check: impl FnMut(&mut E, &mut Context<'_>) -> Poll<T>,
    ) -> Option<T> {
        let look = |state: &mut State| {
            state.tick();
            let outcome = state.on_extension(&mut check);
            state.kick_if_due();
            match outcome {
                Some(Poll::Ready(value)) => Poll::Ready(Some(value)),
                Some(Poll::Pending) if state.phase != Phase::Dead => Poll::Pending,
                _ => Poll::Ready(None),
            }
        };
        self.shared.until(Wait::Custom(key), look).await
    }

    /// Makes a handle of a stream that a machine handed out. The connection stays the machine's: dropping the handle ends
    /// the stream only.
    pub fn stream(&self, raw: RawStream) -> Stream {
        Stream::adopted(&self.shared, raw)
    }
}

impl State {
    pub(crate) fn on_extension<E: Extension, T>(
        &mut self,
        operation: impl FnOnce(&mut E, &mut Context<'_>) -> T,
    ) -> Option<T> {
        let mut extensions = std::mem::take(&mut self.extensions);
        let found = extensions.iter_mut().find_map(|extension| {
            let any: &mut dyn std::any::Any = &mut **extension;
            any.downcast_mut::<E>()
        });
        let result = found.map(|extension| operation(extension, &mut Context { state: self }));
        self.extensions = extensions;
        result
    }

    /// Lets go of connections that nobody will accept.
    pub(crate) fn drop_unaccepted(&mut self) {
        while let Some(conn) = self.accepted.pop_front() {
            self.let_go(conn, true);
        }
    }
}

impl Clone for Endpoint {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.shared))
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.shared.locked(|state| {
            state.handles = state.handles.saturating_sub(1);
            if state.handles > 0 {
                return;
            }
            let now = state.tick();
            state.shut();
            // Handshakes still going on, and what machines run: nobody is left to use them.
            let orphans: Vec<_> = state.endpoint.quic().connections().collect();
            for conn in orphans.into_iter().filter(|conn| !state.conns.contains_key(conn)) {
                if let Ok(mut conn) = state.endpoint.quic().connection(conn) {
                    conn.close(now, Code::CLOSED, Bytes::new());
                }
            }
            state.kick();
        });
    }
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint")
            .field("local", &self.shared.local)
            .finish_non_exhaustive()
    }
}
