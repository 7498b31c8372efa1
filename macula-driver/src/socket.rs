//! Binding UDP sockets.

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket},
};

use socket2::{Domain, Protocol, Socket, Type};

/// Settings of a UDP socket.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SocketOptions {
    /// Bytes that the kernel keeps until they are received. The kernel may grant less. Default 4 MiB; with less than 1 MiB,
    /// packets are lost under load.
    pub recv_buffer: usize,
    /// Bytes that the kernel keeps until they are sent. The kernel may grant less. Default 4 MiB.
    pub send_buffer: usize,
    /// Whether several processes may listen on the same port (`SO_REUSEPORT`), as deployed listeners do. Only with a port
    /// that is not 0, and only where the system has it. Default true.
    pub reuse_port: bool,
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self {
            recv_buffer: 4 << 20,
            send_buffer: 4 << 20,
            reuse_port: true,
        }
    }
}

/// Binds a non-blocking UDP socket.
///
/// An IPv4 address takes IPv4 only, a certain IPv6 address IPv6 only, and `[::]` both.
///
/// # Errors
/// Those of the operating system. Buffer sizes that it does not grant are no error.
pub fn bind(addr: SocketAddr, options: &SocketOptions) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() {
        let dual_stack = addr.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        socket.set_only_v6(!dual_stack)?;
    }
    #[cfg(all(unix, not(any(target_os = "solaris", target_os = "illumos"))))]
    if options.reuse_port && addr.port() != 0 {
        socket.set_reuse_port(true)?;
    }
    if let Err(error) = socket.set_recv_buffer_size(options.recv_buffer) {
        tracing::debug!(%error, bytes = options.recv_buffer, "receive buffer size not granted");
    }
    if let Err(error) = socket.set_send_buffer_size(options.send_buffer) {
        tracing::debug!(%error, bytes = options.send_buffer, "send buffer size not granted");
    }
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    Ok(socket.into())
}

/// Which addresses a socket reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6Only,
    Dual,
}

impl Family {
    pub(crate) fn of(socket: &UdpSocket) -> io::Result<Self> {
        Ok(match socket.local_addr()? {
            SocketAddr::V4(_) => Self::V4,
            SocketAddr::V6(_) if socket2::SockRef::from(socket).only_v6()? => Self::V6Only,
            SocketAddr::V6(_) => Self::Dual,
        })
    }

    pub(crate) fn reaches(self, to: SocketAddr) -> bool {
        match self {
            Self::V4 => to.ip().to_canonical().is_ipv4(),
            Self::V6Only => !to.ip().to_canonical().is_ipv4(),
            Self::Dual => true,
        }
    }

    /// As the socket wants to have it: a dual-stack socket reaches IPv4 through mapped addresses.
    pub(crate) fn outbound(self, to: IpAddr) -> IpAddr {
        match to {
            IpAddr::V4(v4) if self == Self::Dual => IpAddr::V6(v4.to_ipv6_mapped()),
            to => to,
        }
    }
}

/// The same address without IPv4-in-IPv6 mapping.
pub(crate) fn canonical(addr: SocketAddr) -> SocketAddr {
    match addr.ip().to_canonical() {
        IpAddr::V4(v4) => SocketAddr::new(IpAddr::V4(v4), addr.port()),
        IpAddr::V6(_) => addr,
    }
}
