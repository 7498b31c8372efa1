//! The port mapper of Erlang nodes, which knows the ports of the nodes on its machine.

use std::{io, net::SocketAddr};

use bytes::{BufMut, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// The port that a port mapper listens on.
pub const PORT: u16 = 4369;

const ALIVE2_REQUEST: u8 = 120;
const ALIVE2_ANSWER: u8 = 121;
/// The answer with a creation of 32 bits.
const ALIVE2_LONG_ANSWER: u8 = 118;
const PORT2_REQUEST: u8 = 122;
const PORT2_ANSWER: u8 = 119;

/// A node that is not listed among the others.
const HIDDEN: u8 = 72;
/// IPv4 and IPv6 over TCP.
const TCP: u8 = 0;
/// Versions of the handshake.
const HIGHEST: u16 = 6;
const LOWEST: u16 = 5;

/// A node's entry in a port mapper, which stands as long as this value lives.
#[derive(Debug)]
pub struct Registration {
    _connection: TcpStream,
}

/// Enters a node, by its name in front of the `@`, and the port it listens on.
///
/// # Errors
/// Those of the connection; [`io::ErrorKind::AlreadyExists`] when the port mapper refuses, as it does for a name that is taken.
pub async fn register(epmd: SocketAddr, name: &str, port: u16) -> io::Result<Registration> {
    let mut body = BytesMut::new();
    body.put_u8(ALIVE2_REQUEST);
    body.put_u16(port);
    body.put_slice(&[HIDDEN, TCP]);
    body.put_u16(HIGHEST);
    body.put_u16(LOWEST);
    put_name(&mut body, name)?;
    body.put_u16(0);
    let mut connection = ask(epmd, &body).await?;
    let creation = match connection.read_u8().await? {
        ALIVE2_ANSWER => 2,
        ALIVE2_LONG_ANSWER => 4,
        _ => return Err(io::ErrorKind::InvalidData.into()),
    };
    if connection.read_u8().await? != 0 {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "the port mapper refuses the name",
        ));
    }
    // A node draws its creation by itself and tells it in handshakes.
    connection.read_exact(&mut [0; 4][..creation]).await?;
    Ok(Registration {
        _connection: connection,
    })
}

/// The port of a node, by its name in front of the `@`; `None` when the port mapper does not know it.
///
/// # Errors
/// Those of the connection.
pub async fn lookup(epmd: SocketAddr, name: &str) -> io::Result<Option<u16>> {
    let mut body = BytesMut::new();
    body.put_u8(PORT2_REQUEST);
    body.put_slice(name.as_bytes());
    let mut connection = ask(epmd, &body).await?;
    match (connection.read_u8().await?, connection.read_u8().await?) {
        (PORT2_ANSWER, 0) => connection.read_u16().await.map(Some),
        (PORT2_ANSWER, _) => Ok(None),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn put_name(out: &mut BytesMut, name: &str) -> io::Result<()> {
    out.put_u16(u16::try_from(name.len()).map_err(|_| io::ErrorKind::InvalidInput)?);
    out.put_slice(name.as_bytes());
    Ok(())
}

async fn ask(epmd: SocketAddr, body: &[u8]) -> io::Result<TcpStream> {
    let mut connection = TcpStream::connect(epmd).await?;
    let mut request = BytesMut::new();
    request.put_u16(u16::try_from(body.len()).map_err(|_| io::ErrorKind::InvalidInput)?);
    request.put_slice(body);
    connection.write_all(&request).await?;
    Ok(connection)
}
