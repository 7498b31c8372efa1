//! The port mapper of Erlang nodes, over a connection that an adapter makes.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{ByteReader, ByteWriter};

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

/// Enters a node, by its name in front of the `@`, and the port it listens on. The entry stands as long as the connection.
///
/// # Errors
/// Those of the connection; [`io::ErrorKind::AlreadyExists`] when the port mapper refuses, as it does for a name that is taken.
pub async fn register(
    (reader, writer): (&mut impl ByteReader, &mut impl ByteWriter),
    name: &str,
    port: u16,
) -> io::Result<()> {
    let mut body = BytesMut::new();
    body.put_u8(ALIVE2_REQUEST);
    body.put_u16(port);
    body.put_slice(&[HIDDEN, TCP]);
    body.put_u16(HIGHEST);
    body.put_u16(LOWEST);
    put_name(&mut body, name)?;
    body.put_u16(0);
    ask(writer, &body).await?;
    let mut answer = Answer::of(reader);
    let creation = match answer.byte().await? {
        ALIVE2_ANSWER => 2,
        ALIVE2_LONG_ANSWER => 4,
        _ => return Err(io::ErrorKind::InvalidData.into()),
    };
    if answer.byte().await? != 0 {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "the port mapper refuses the name",
        ));
    }
    // A node draws its creation by itself and tells it in handshakes.
    for _ in 0..creation {
        answer.byte().await?;
    }
    Ok(())
}

/// The port of a node, by its name in front of the `@`; `None` when the port mapper does not know it.
///
/// # Errors
/// Those of the connection.
pub async fn lookup(
    (reader, writer): (&mut impl ByteReader, &mut impl ByteWriter),
    name: &str,
) -> io::Result<Option<u16>> {
    let mut body = BytesMut::new();
    body.put_u8(PORT2_REQUEST);
    body.put_slice(name.as_bytes());
    ask(writer, &body).await?;
    let mut answer = Answer::of(reader);
    match (answer.byte().await?, answer.byte().await?) {
        (PORT2_ANSWER, 0) => Ok(Some(u16::from_be_bytes([answer.byte().await?, answer.byte().await?]))),
        (PORT2_ANSWER, _) => Ok(None),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn put_name(out: &mut BytesMut, name: &str) -> io::Result<()> {
    out.put_u16(u16::try_from(name.len()).map_err(|_| io::ErrorKind::InvalidInput)?);
    out.put_slice(name.as_bytes());
    Ok(())
}

async fn ask(writer: &mut impl ByteWriter, body: &[u8]) -> io::Result<()> {
    let mut request = BytesMut::new();
    request.put_u16(u16::try_from(body.len()).map_err(|_| io::ErrorKind::InvalidInput)?);
    request.put_slice(body);
    writer.write(&mut Bytes::from(request)).await
}

/// What comes back, byte by byte.
struct Answer<'a, R> {
    reader: &'a mut R,
    buffer: BytesMut,
}

impl<'a, R: ByteReader> Answer<'a, R> {
    fn of(reader: &'a mut R) -> Self {
        Self {
            reader,
            buffer: BytesMut::new(),
        }
    }

    async fn byte(&mut self) -> io::Result<u8> {
        if self.buffer.is_empty() {
            self.buffer.reserve(64);
            if self.reader.read(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.buffer.get_u8())
    }
}
