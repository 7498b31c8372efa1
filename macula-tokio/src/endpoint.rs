//! Endpoints on tokio.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    ops::Deref,
};

use macula_driver::Options;
use tokio::runtime::Handle;

use crate::driver::TokioSocket;

/// Everything that shares one UDP socket: accepts and dials connections, on tokio.
///
/// It does what [`macula_driver::Endpoint`] does, which it dereferences to. One task per endpoint, spawned on the runtime
/// that [`bind`](Self::bind) is called in, drives the socket; it ends when all handles are gone and the last connection is
/// over. When the runtime ends before, so do all connections.
#[derive(Debug, Clone)]
pub struct Endpoint(macula_driver::Endpoint);

impl Endpoint {
    /// Binds a socket and spawns its driver.
    ///
    /// An IPv4 address takes IPv4 only, a certain IPv6 address IPv6 only, and `[::]` both. Port 0 lets the system choose.
    ///
    /// # Errors
    /// Those of the operating system; [`io::ErrorKind::InvalidInput`] for a setting that is out of range;
    /// [`io::ErrorKind::NotConnected`] outside of a tokio runtime.
    pub fn bind(addr: SocketAddr, options: Options) -> io::Result<Self> {
        let runtime = runtime()?;
        let (endpoint, driver) = macula_driver::start(addr, options, TokioSocket::new)?;
        runtime.spawn(driver);
        Ok(Self(endpoint))
    }

    /// Binds a socket for dialling to any port: on IPv6 and IPv4 where the system has both, else on IPv4.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    pub fn bind_any(options: Options) -> io::Result<Self> {
        let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
        match macula_driver::bind(any, &options.socket) {
            Ok(socket) => Self::with_socket(socket, options),
            Err(_) => Self::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)), options),
        }
    }

    /// As [`bind`](Self::bind), with a socket that is bound already.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    pub fn with_socket(socket: UdpSocket, options: Options) -> io::Result<Self> {
        let runtime = runtime()?;
        let (endpoint, driver) = macula_driver::start_with(socket, options, TokioSocket::new)?;
        runtime.spawn(driver);
        Ok(Self(endpoint))
    }
}

fn runtime() -> io::Result<Handle> {
    Handle::try_current().map_err(|error| io::Error::new(io::ErrorKind::NotConnected, error))
}

impl Deref for Endpoint {
    type Target = macula_driver::Endpoint;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}
