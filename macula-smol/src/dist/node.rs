//! Nodes on smol.

use std::{io, net::SocketAddr, ops::Deref, time::Duration};

use bytes::{Buf, Bytes, BytesMut};
use macula_driver::{
    Runtime as _,
    dist::node::{self, Admission, ByteReader, ByteWriter, ConnectError, NodeConfig, QuicConfig},
};
use smol::{
    Timer,
    future::FutureExt,
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf},
    net::TcpListener,
};

use crate::{Endpoint, Options, runtime::Smol};

/// How long a listener rests after it could not accept, for lack of file descriptors perhaps.
const REST: Duration = Duration::from_millis(100);

/// A node on smol. Clones are the same node, which ends with the last of them and of its mailboxes. It does what
/// [`macula_driver::dist::node::Node`] does, which it dereferences to.
#[derive(Debug, Clone)]
pub struct Node(node::Node);

impl Node {
    /// Starts a node, without connections and listeners. Its tasks run on smol's global executor.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] for a name that is not `name@host`; those of the operating system's randomness.
    pub fn start(config: NodeConfig) -> io::Result<Self> {
        node::Node::start_on(Smol, config).map(Self)
    }

    /// Listens for nodes on a TCP address, until the node ends; returns the address with its real port. Erlang nodes find it
    /// through a port mapper ([`epmd`](super::epmd)), or take the port for granted (`-erl_epmd_port`).
    ///
    /// # Errors
    /// Those of the operating system.
    pub async fn listen(&self, address: SocketAddr) -> io::Result<SocketAddr> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        smol::spawn(accept(self.admission(), listener)).detach();
        Ok(address)
    }

    /// Connects to the node of that name at a TCP address, and waits until it is done. At once there if the nodes are connected; if both
    /// dial at once, one connection stays. Dropping the future leaves the dial to go on.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect(&self, name: &str, address: SocketAddr) -> Result<(), ConnectError> {
        self.connect_with(name, async move { Smol.connect_tcp(address).await })
            .await
    }

    /// As [`connect`](Self::connect), over a stream of bytes that leads to the other node: TLS, or a tunnel.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect_over<S>(&self, name: &str, stream: S) -> Result<(), ConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.connect_with(name, async move { Ok(halves(stream)) }).await
    }

    /// Lets a node in that calls over a stream of bytes. The connection is then the node's affair.
    pub fn accept_over<S>(&self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.admission().admit(halves(stream));
    }

    /// Binds a UDP socket for QUIC: over it nodes are dialled with [`connect_quic`](node::Node::connect_quic), and let in if there are
    /// credentials. Returns the address with its real port. A node has one such socket, which ends with it.
    ///
    /// # Errors
    /// Those of the operating system; [`io::ErrorKind::AlreadyExists`] if there is one already; [`io::ErrorKind::InvalidInput`] for
    /// settings that are of no use.
    pub fn bind_quic(&self, address: SocketAddr, config: QuicConfig) -> io::Result<SocketAddr> {
        let endpoint = Endpoint::bind(address, Options::default())?;
        let address = endpoint.local_addr();
        self.serve_quic((*endpoint).clone(), config)?;
        Ok(address)
    }
}

impl Deref for Node {
    type Target = node::Node;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

async fn accept(admission: Admission, listener: TcpListener) {
    loop {
        let accepting = async { Some(listener.accept().await) };
        let ended = async {
            admission.closed().await;
            None
        };
        match ended.or(accepting).await {
            Some(Ok((stream, _))) => {
                let _ = stream.set_nodelay(true);
                admission.admit(halves(stream));
            }
            Some(Err(_)) => _ = Timer::after(REST).await,
            None => return,
        }
    }
}

/// Bytes read at once.
const READ: usize = 32 << 10;

#[derive(Debug)]
pub(crate) struct Reader<S> {
    half: ReadHalf<S>,
    buffer: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Writer<S>(WriteHalf<S>);

pub(crate) fn halves<S: AsyncRead + AsyncWrite + Unpin>(stream: S) -> (Reader<S>, Writer<S>) {
    let (half, writer) = smol::io::split(stream);
    let buffer = vec![0; READ];
    (Reader { half, buffer }, Writer(writer))
}

impl<S: AsyncRead + Unpin + Send + 'static> ByteReader for Reader<S> {
    async fn read(&mut self, into: &mut BytesMut) -> io::Result<usize> {
        let read = self.half.read(&mut self.buffer).await?;
        into.extend_from_slice(self.buffer.get(..read).unwrap_or_default());
        Ok(read)
    }
}

impl<S: AsyncWrite + Unpin + Send + 'static> ByteWriter for Writer<S> {
    async fn write(&mut self, bytes: &mut Bytes) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = self.0.write(bytes).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            bytes.advance(written);
        }
        self.0.flush().await
    }
}
