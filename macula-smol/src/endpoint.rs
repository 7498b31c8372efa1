//! Endpoints on smol.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    ops::Deref,
};

use macula_driver::Options;

use crate::runtime::Smol;

/// Everything that shares one UDP socket: accepts and dials connections, on smol.
///
/// It does what [`macula_driver::Endpoint`] does, which it dereferences to. One task per endpoint on smol's global executor
/// drives the socket; it ends when all handles are gone and the last connection is over.
#[derive(Debug, Clone)]
pub struct Endpoint(macula_driver::Endpoint);

impl Endpoint {
    /// Binds a socket and spawns its driver.
    ///
    /// An IPv4 address takes IPv4 only, a certain IPv6 address IPv6 only, and `[::]` both. Port 0 lets the system choose.
    ///
    /// # Errors
    /// Those of the operating system; [`io::ErrorKind::InvalidInput`] for a setting that is out of range.
    pub fn bind(addr: SocketAddr, options: Options) -> io::Result<Self> {
        macula_driver::Endpoint::bind::<Smol>(addr, options).map(Self)
    }

    /// Binds a socket for dialling to any port: on IPv6 and IPv4 where the system has both, else on IPv4.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    pub fn bind_any(options: Options) -> io::Result<Self> {
        macula_driver::Endpoint::bind_any::<Smol>(options).map(Self)
    }

    /// As [`bind`](Self::bind), with a socket that is bound already.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    pub fn with_socket(socket: UdpSocket, options: Options) -> io::Result<Self> {
        macula_driver::Endpoint::with_socket::<Smol>(socket, options).map(Self)
    }
}

impl Deref for Endpoint {
    type Target = macula_driver::Endpoint;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}
