//! Endpoints on smol.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    ops::Deref,
};

use macula_driver::Options;

use crate::{driver::SmolSocket, runtime::Smol};

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

    /// Binds `count` sockets to one port and makes an endpoint of each, for a
    /// [relay that uses as many processors](crate::RelayServer::serve_shards). Each is driven by a thread of its own, which ends as the
    /// task of [`bind`](Self::bind) does. `options` is asked for the settings of each.
    ///
    /// # Errors
    /// Those of the operating system; [`io::ErrorKind::InvalidInput`] for a setting that is out of range, `count` too: it is 1 to
    /// [`Shard::MAX`](macula_proto::quic::Shard::MAX).
    pub fn bind_shards(addr: SocketAddr, count: u8, options: impl FnMut() -> Options) -> io::Result<Vec<Self>> {
        let all = macula_driver::start_shards(addr, count, options, SmolSocket::new)?;
        let each = all.into_iter().enumerate().map(|(index, (endpoint, driver))| {
            let thread = std::thread::Builder::new().name(format!("macula-{index}"));
            // Whoever waits for something is told why the driver ends.
            thread.spawn(move || drop(smol::block_on(driver)))?;
            Ok(Self(endpoint))
        });
        each.collect()
    }
}

impl Deref for Endpoint {
    type Target = macula_driver::Endpoint;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}
