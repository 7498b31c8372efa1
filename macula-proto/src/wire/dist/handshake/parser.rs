use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{HandshakeDecodeError, MAX_MESSAGE, Message, NAMED, Sender, statuses};
use crate::wire::{dist::TICK, etf::Atom};

/// What carries the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Carrier {
    /// A QUIC stream: messages without lengths. Deployed nodes take what they read at once for one message, so each has to
    /// leave in a packet of its own.
    Quic,
    /// A TCP connection: a 16-bit length in front of each message.
    Tcp,
}

impl Carrier {
    /// A message as this carrier takes it.
    pub fn frame(self, message: &Message) -> Bytes {
        let mut out = BytesMut::with_capacity(64);
        if self == Self::Tcp {
            out.put_u16(0);
        }
        message.encode(&mut out);
        let length = out.len().saturating_sub(2) as u16;
        if let (Self::Tcp, Some(place)) = (self, out.get_mut(..2)) {
            place.copy_from_slice(&length.to_be_bytes());
        }
        out.freeze()
    }
}

/// Finds the handshake messages of one side in a stream of bytes, and passes over the ticks between them.
///
/// On QUIC the status `sok` comes out only with the byte behind it, as `sok_simultaneous` begins with it. Nothing waits for that:
/// the next message of the same side follows in any case.
///
/// A name of the old form, which does not say how long it is, is taken on QUIC to end with the bytes at hand or with the tick behind
/// it: deployed nodes send each message in a packet of its own, and nothing behind that one before it is answered. This is the only
/// message whose end depends on how the bytes were cut. Cut in the middle it is another name, and its rest, which no message begins
/// with, ends the connection.
#[derive(Debug)]
pub struct Parser {
    from: Sender,
    carrier: Carrier,
    /// At most a message and its length.
    held: BytesMut,
    ticks: u64,
    failed: bool,
}

/// What stands at the start of the bytes at hand.
enum Scan {
    /// More bytes are needed.
    Incomplete,
    /// So many bytes that are no message.
    Tick(usize),
    /// Bytes in front of a message, and bytes of the message.
    Message(usize, usize),
}

impl Parser {
    /// At the start of the stream of the side `from`.
    pub fn new(from: Sender, carrier: Carrier) -> Self {
        Self {
            from,
            carrier,
            held: BytesMut::new(),
            ticks: 0,
            failed: false,
        }
    }

    /// Takes bytes from the front of `input` and returns the next message. `None`: `input` is used up, and the message
    /// is not complete yet.
    ///
    /// # Errors
    /// [`HandshakeDecodeError`]. From then on all input is dropped and the answer is `None`.
    pub fn next(&mut self, input: &mut Bytes) -> Option<Result<Message, HandshakeDecodeError>> {
        while !self.failed {
            let room = (MAX_MESSAGE + 2).saturating_sub(self.held.len());
            self.held.extend_from_slice(&input.split_to(room.min(input.len())));
            let result = match self.scan() {
                Ok(Scan::Incomplete) if self.held.len() < MAX_MESSAGE + 2 => return None,
                Ok(Scan::Incomplete) => Err(HandshakeDecodeError::TooLong(self.held.len())),
                Ok(Scan::Tick(length)) => {
                    self.held.advance(length.min(self.held.len()));
                    self.ticks += 1;
                    continue;
                }
                Ok(Scan::Message(prefix, length)) => {
                    self.held.advance(prefix.min(self.held.len()));
                    let message = self.held.split_to(length.min(self.held.len()));
                    Message::decode(self.from, &message)
                }
                Err(error) => Err(error),
            };
            self.failed = result.is_err();
            return Some(result);
        }
        self.held.clear();
        input.clear();
        None
    }

    /// Ends the parsing: what is behind the last message, together with `input`, which is behind that.
    pub fn take_rest(&mut self, input: Bytes) -> Bytes {
        if self.held.is_empty() {
            return input;
        }
        let mut rest = std::mem::take(&mut self.held);
        rest.extend_from_slice(&input);
        rest.freeze()
    }

    /// Bytes held of a message that is not complete yet.
    pub fn buffered(&self) -> usize {
        self.held.len()
    }

    /// Ticks passed over.
    pub fn ticks(&self) -> u64 {
        self.ticks
    }

    fn scan(&self) -> Result<Scan, HandshakeDecodeError> {
        match self.carrier {
            Carrier::Tcp => Ok(match self.held.first_chunk() {
                None => Scan::Incomplete,
                Some([0, 0]) => Scan::Tick(2),
                Some(length) => {
                    let length = u16::from_be_bytes(*length).into();
                    if length > MAX_MESSAGE {
                        return Err(HandshakeDecodeError::TooLong(length));
                    }
                    if self.held.len() < 2 + length {
                        Scan::Incomplete
                    } else {
                        Scan::Message(2, length)
                    }
                }
            }),
            Carrier::Quic if self.held.starts_with(&TICK) => Ok(Scan::Tick(TICK.len())),
            Carrier::Quic if TICK.starts_with(&self.held) => Ok(Scan::Incomplete),
            Carrier::Quic => Ok(match self.length()? {
                Some(length) if length <= self.held.len() => Scan::Message(0, length),
                _ => Scan::Incomplete,
            }),
        }
    }

    /// How long the message at the start is without a length in front; `None` when that is not to be seen yet.
    fn length(&self) -> Result<Option<usize>, HandshakeDecodeError> {
        let Some((tag, rest)) = self.held.split_first() else {
            return Ok(None);
        };
        match (self.from, tag) {
            (_, 0) => Err(HandshakeDecodeError::Tick),
            (Sender::Dialler, b'N') => self.with_name(1 + 8 + 4, 0),
            (Sender::Acceptor, b'N') => self.with_name(1 + 8 + 4 + 4, 0),
            (Sender::Dialler, b'n') => Ok(self.old_name()),
            (Sender::Acceptor, b'n') => Err(HandshakeDecodeError::OldForm),
            (_, b's') => self.status(rest),
            (Sender::Dialler, b'c') => Ok(Some(1 + 4 + 4)),
            (Sender::Dialler, b'r') => Ok(Some(1 + 4 + 16)),
            (Sender::Acceptor, b'a') => Ok(Some(1 + 16)),
            (_, tag) => Err(HandshakeDecodeError::Tag(*tag)),
        }
    }

    /// A message with a name whose length is at `at`, and with so many bytes behind the name.
    fn with_name(&self, at: usize, behind: usize) -> Result<Option<usize>, HandshakeDecodeError> {
        let Some(length) = self.held.get(at..).and_then(|bytes| bytes.first_chunk()) else {
            return Ok(None);
        };
        let length: usize = u16::from_be_bytes(*length).into();
        if length > Atom::MAX_BYTES {
            return Err(HandshakeDecodeError::Name);
        }
        Ok(Some(at + 2 + length + behind))
    }

    /// A name of the old form, which begins behind its version and flags: once there is a host behind it.
    fn old_name(&self) -> Option<usize> {
        const AT: usize = 1 + 2 + 4;
        let name = self.held.get(AT..)?;
        let length = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
        let host = name.iter().position(|byte| *byte == b'@')? + 1;
        (length > host).then_some(AT + length)
    }

    fn status(&self, rest: &[u8]) -> Result<Option<usize>, HandshakeDecodeError> {
        if self.from == Sender::Acceptor && rest.starts_with(NAMED) {
            return self.with_name(1 + NAMED.len(), 4);
        }
        let named = [NAMED].into_iter().filter(|_| self.from == Sender::Acceptor);
        let mut texts = statuses(self.from).iter().map(|(text, _)| *text).chain(named);
        // One text is the start of another: as long as both fit, the next byte decides.
        if texts
            .clone()
            .any(|text| text.len() > rest.len() && text.starts_with(rest))
        {
            return Ok(None);
        }
        let known = texts
            .by_ref()
            .filter(|text| rest.starts_with(text))
            .map(<[u8]>::len)
            .max();
        known.map(|length| Some(1 + length)).ok_or(HandshakeDecodeError::Status)
    }
}
