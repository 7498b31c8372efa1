//! Asking name servers, on any runtime: over UDP, and over TCP where an answer does not fit into a datagram.
//!
//! What comes from the network is taken for an answer only if it comes from the server that was asked, to the port that asked (each
//! query has a socket of its own), with the number of the query, which nobody can foretell, and its question.

mod config;
mod message;

use std::{
    future::{Future, poll_fn},
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    pin::pin,
    task::{Poll, ready},
    time::Instant,
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use domain::base::{
    Message,
    iana::{Opcode, Rcode},
};

pub(crate) use self::{
    config::Config,
    message::{Question, addresses},
};
use crate::{
    Runtime, Socket, SocketOptions, bind,
    dist::node::{ByteReader, ByteWriter},
    entropy,
    runtime::{First, first},
};

/// Longest datagram that is read. Servers are asked for answers of at most [`message::LONGEST`] bytes.
const DATAGRAM: usize = 4096;

/// Datagrams that are no answer, after which a server is given up: somebody guesses the number of the query.
const STRAY: usize = 50;

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// None came in time.
    TimedOut,
    /// The server refused, or could not.
    Refused(Rcode),
    /// What came cannot be read.
    Unreadable,
    /// The server cannot be reached.
    Io(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Config {
    /// What the first server says that has an answer; `None` if there is no such name. `read` understands an answer, if it can.
    ///
    /// A server that says nothing for its part of the time is asked again when the others have been asked; one that refuses, or whose
    /// answer cannot be read, is not.
    ///
    /// # Errors
    /// The last server's [`Failure`] other than silence, if there was one.
    pub(crate) async fn ask<R: Runtime, T>(
        &self,
        runtime: &R,
        question: &Question,
        deadline: Instant,
        read: impl Fn(&Message<Vec<u8>>) -> Option<T>,
    ) -> Result<Option<T>, Failure> {
        let mut servers = self.servers.clone();
        let mut failure = Failure::TimedOut;
        for rounds in (1..=self.attempts).rev() {
            let mut silent = Vec::new();
            for (asked, server) in servers.iter().enumerate() {
                let in_round = u32::try_from(servers.len() - asked).unwrap_or(u32::MAX);
                let again = u32::try_from(silent.len()).unwrap_or(u32::MAX);
                let queries = in_round.saturating_add((rounds - 1).saturating_mul(in_round.saturating_add(again)));
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(failure);
                }
                let until = Instant::now() + (left / queries).min(self.timeout);
                match self.exchange(runtime, *server, question, until).await {
                    Ok(answer) => match answer.header().rcode() {
                        Rcode::NOERROR => match read(&answer) {
                            Some(found) => return Ok(Some(found)),
                            None => failure = Failure::Unreadable,
                        },
                        Rcode::NXDOMAIN => return Ok(None),
                        code => failure = Failure::Refused(code),
                    },
                    Err(Failure::TimedOut) => silent.push(*server),
                    Err(other) => failure = other,
                }
            }
            servers = silent;
        }
        Err(failure)
    }

    /// What one server answers.
    async fn exchange<R: Runtime>(
        &self,
        runtime: &R,
        server: SocketAddr,
        question: &Question,
        until: Instant,
    ) -> Result<Message<Vec<u8>>, Failure> {
        let mut answer = self.query(runtime, server, question, true, until).await?;
        // As servers do that know nothing of extensions.
        if matches!(answer.header().rcode(), Rcode::FORMERR | Rcode::NOTIMP) {
            answer = self.query(runtime, server, question, false, until).await?;
        }
        Ok(answer)
    }

    async fn query<R: Runtime>(
        &self,
        runtime: &R,
        server: SocketAddr,
        question: &Question,
        extended: bool,
        until: Instant,
    ) -> Result<Message<Vec<u8>>, Failure> {
        let [high, low, ..] = entropy()?;
        let query = message::query(u16::from_be_bytes([high, low]), question, extended);
        let query = query.ok_or(Failure::Unreadable)?;
        if !self.over_tcp {
            let answer = over_udp(runtime, server, &query, until).await?;
            if !answer.header().tc() {
                return Ok(answer);
            }
        }
        match first(over_tcp(runtime, server, &query), runtime.sleep_until(until)).await {
            First::One(answer) => answer,
            First::Other(()) => Err(Failure::TimedOut),
        }
    }
}

/// The answer in what came, if it is one to this query.
fn answer_to(query: &Message<Vec<u8>>, came: &[u8]) -> Option<Message<Vec<u8>>> {
    let answer = Message::from_octets(came.to_vec()).ok()?;
    let header = answer.header();
    // Servers that cannot read a query may leave the question out.
    let unread = header.rcode() == Rcode::FORMERR && answer.header_counts().qdcount() == 0;
    let to_it = header.qr() && header.id() == query.header().id() && header.opcode() == Opcode::QUERY;
    (to_it && (unread || answer.is_answer(query))).then_some(answer)
}

async fn over_udp<R: Runtime>(
    runtime: &R,
    server: SocketAddr,
    query: &Message<Vec<u8>>,
    until: Instant,
) -> Result<Message<Vec<u8>>, Failure> {
    let socket = dialled(server)?;
    // The same socket: one handle is the runtime's, and says when to read from the other.
    let mut ready = runtime.register(socket.try_clone()?)?;
    socket.send(query.as_slice())?;
    let mut buffer = vec![0; DATAGRAM];
    let mut stray = 0;
    poll_fn(|cx| {
        loop {
            if ready.poll_deadline(cx, Some(until)).is_ready() {
                // Not every runtime wakes for an error alone, such as that nobody listens there.
                let error = socket.take_error()?;
                return Poll::Ready(Err(error.map_or(Failure::TimedOut, Failure::from)));
            }
            ready!(ready.poll_readable(cx))?;
            match ready.try_recv(|_| socket.recv(&mut buffer)) {
                Ok(length) => {
                    let came = buffer.get(..length).unwrap_or_default();
                    if let Some(answer) = answer_to(query, came) {
                        return Poll::Ready(Ok(answer));
                    }
                    stray += 1;
                    if stray >= STRAY {
                        return Poll::Ready(Err(Failure::Unreadable));
                    }
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    })
    .await
}

/// A socket that hears one server only. Its port is for the system to choose.
fn dialled(server: SocketAddr) -> io::Result<UdpSocket> {
    let any = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let mut options = SocketOptions::default();
    (options.recv_buffer, options.send_buffer) = (64 << 10, 64 << 10);
    let socket = bind(any, &options)?;
    socket.connect(server)?;
    Ok(socket)
}

async fn over_tcp<R: Runtime>(
    runtime: &R,
    server: SocketAddr,
    query: &Message<Vec<u8>>,
) -> Result<Message<Vec<u8>>, Failure> {
    let (mut reader, mut writer) = runtime.connect_tcp(server).await?;
    let length = u16::try_from(query.as_slice().len()).map_err(|_| Failure::Unreadable)?;
    let mut framed = BytesMut::new();
    framed.put_u16(length);
    framed.put_slice(query.as_slice());
    writer.write(&mut framed.freeze()).await?;
    let came = framed_message(&mut reader).await?;
    let answer = answer_to(query, &came).ok_or(Failure::Unreadable)?;
    match answer.header().tc() {
        // There is no longer message than that.
        true => Err(Failure::Unreadable),
        false => Ok(answer),
    }
}

async fn framed_message(reader: &mut impl ByteReader) -> io::Result<Bytes> {
    let mut buffer = BytesMut::new();
    let mut wanted = None;
    loop {
        if wanted.is_none() && buffer.len() >= 2 {
            wanted = Some(usize::from(buffer.get_u16()));
        }
        if let Some(wanted) = wanted
            && buffer.len() >= wanted
        {
            return Ok(buffer.split_to(wanted).freeze());
        }
        buffer.reserve(DATAGRAM);
        if reader.read(&mut buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Runs both to their ends.
pub(crate) async fn both<A, B>(one: impl Future<Output = A>, other: impl Future<Output = B>) -> (A, B) {
    let (mut one, mut other) = (pin!(one), pin!(other));
    let (mut first, mut second) = (None, None);
    poll_fn(|cx| {
        if first.is_none()
            && let Poll::Ready(value) = one.as_mut().poll(cx)
        {
            first = Some(value);
        }
        if second.is_none()
            && let Poll::Ready(value) = other.as_mut().poll(cx)
        {
            second = Some(value);
        }
        match (first.take(), second.take()) {
            (Some(one), Some(other)) => Poll::Ready((one, other)),
            waiting => {
                (first, second) = waiting;
                Poll::Pending
            }
        }
    })
    .await
}
