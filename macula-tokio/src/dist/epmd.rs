//! The port mapper of Erlang nodes, which knows the ports of the nodes on its machine.

use std::{io, net::SocketAddr};

use macula_driver::dist::node::epmd;
use tokio::net::TcpStream;

use super::node::{Reader, Writer, halves};

pub use macula_driver::dist::node::epmd::PORT;

/// A node's entry in a port mapper, which stands as long as this value lives.
#[derive(Debug)]
pub struct Registration {
    _connection: (Reader<TcpStream>, Writer<TcpStream>),
}

/// Enters a node, by its name in front of the `@`, and the port it listens on.
///
/// # Errors
/// Those of the connection; [`io::ErrorKind::AlreadyExists`] when the port mapper refuses, as it does for a name that is taken.
pub async fn register(epmd: SocketAddr, name: &str, port: u16) -> io::Result<Registration> {
    let (mut reader, mut writer) = halves(TcpStream::connect(epmd).await?);
    epmd::register((&mut reader, &mut writer), name, port).await?;
    Ok(Registration {
        _connection: (reader, writer),
    })
}

/// The port of a node, by its name in front of the `@`; `None` when the port mapper does not know it.
///
/// # Errors
/// Those of the connection.
pub async fn lookup(epmd: SocketAddr, name: &str) -> io::Result<Option<u16>> {
    let (mut reader, mut writer) = halves(TcpStream::connect(epmd).await?);
    epmd::lookup((&mut reader, &mut writer), name).await
}
