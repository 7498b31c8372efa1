//! quinn ends that say to a relay just what two nodes with one tunnel after the other have to say.

use std::net::SocketAddr;

use bytes::BytesMut;
use macula_bench::Result;
use macula_tokio::{
    alpn,
    proto::wire::{
        Encoding,
        control::{Message, TunnelId},
    },
    tls::Credentials,
};
use tokio::io::AsyncReadExt;

use crate::{quinn_ends, work::Stream};

/// Who the tunnels go to.
pub(crate) const RECEIVER: &str = "receiver";

/// A quinn connection to a relay.
pub(crate) struct Node {
    direct: quinn_ends::Direct,
    send: quinn::SendStream,
    recv: quinn::RecvStream,
}

impl Node {
    pub(crate) async fn connect(relay: SocketAddr, name: &str, credentials: &Credentials) -> Result<Self> {
        let direct = quinn_ends::connect(relay, credentials, alpn::MACULA_DIST).await?;
        let (send, recv) = direct.connection.open_bi().await?;
        let mut node = Self { direct, send, recv };
        let name = name.into();
        node.say(Message::Identify { name }).await?;
        match node.hear().await? {
            Message::Identified => Ok(node),
            other => Err(format!("instead of a welcome: {}", other.kind()).into()),
        }
    }

    async fn say(&mut self, message: Message) -> Result<()> {
        let mut out = BytesMut::new();
        message.encode(Encoding::MessagePack, &mut out);
        Ok(self.send.write_all(&out).await?)
    }

    async fn hear(&mut self) -> Result<Message> {
        let length = self.recv.read_u32().await?;
        let mut payload = vec![0; usize::try_from(length)?];
        self.recv.read_exact(&mut payload).await?;
        Ok(Message::decode(&payload)?.1)
    }

    /// The stream of a tunnel; there is only one at a time.
    async fn tunnel(&mut self, id: TunnelId) -> Result<Stream> {
        let (send, mut recv) = self.direct.connection.accept_bi().await?;
        let mut prefix = [0; 32];
        recv.read_exact(&mut prefix).await?;
        if prefix == *id.as_bytes() {
            Ok(Box::new(tokio::io::join(recv, send)))
        } else {
            Err("the stream of another tunnel".into())
        }
    }

    pub(crate) async fn open(&mut self) -> Result<Stream> {
        let target = RECEIVER.into();
        self.say(Message::TunnelRequest { target }).await?;
        match self.hear().await? {
            Message::TunnelOk { tunnel } => self.tunnel(tunnel).await,
            other => Err(format!("instead of a tunnel: {}", other.kind()).into()),
        }
    }

    pub(crate) async fn accept(&mut self) -> Result<Stream> {
        match self.hear().await? {
            Message::TunnelNotify { tunnel, .. } => self.tunnel(tunnel).await,
            other => Err(format!("instead of a tunnel: {}", other.kind()).into()),
        }
    }
}
