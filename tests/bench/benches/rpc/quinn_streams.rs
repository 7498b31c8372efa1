//! Bare streams of quinn.

use bytes::Bytes;
use futures_lite::future::Boxed;
use macula_bench::{Result, quinn_setup::Setup};
use macula_tokio::tls::Credentials;

use crate::{Client, runtime};

const PROTOCOL: &[u8] = b"bench";
/// What a stream begins with.
const SINK: u8 = 1;
const ECHO: u8 = 2;

struct Streams {
    connection: quinn::Connection,
    _endpoint: quinn::Endpoint,
}

pub(crate) async fn start(credentials: Credentials) -> Result<Box<dyn Client>> {
    let (tell, told) = std::sync::mpsc::channel();
    let serving = credentials.clone();
    std::thread::spawn(move || -> Result<()> {
        runtime()?.block_on(async move {
            let endpoint = Setup::new(PROTOCOL).never_resuming().listen(&serving)?;
            tell.send(endpoint.local_addr()?)?;
            while let Some(incoming) = endpoint.accept().await {
                let connection = incoming.await?;
                tokio::spawn(async move {
                    while let Ok((send, recv)) = connection.accept_bi().await {
                        tokio::spawn(serve(send, recv));
                    }
                });
            }
            Ok(())
        })
    });
    let server = told.recv()?;
    let (endpoint, config) = Setup::new(PROTOCOL).never_resuming().dialler(&credentials)?;
    let connection = endpoint.connect_with(config, server, "localhost")?.await?;
    Ok(Box::new(Streams {
        connection,
        _endpoint: endpoint,
    }))
}

async fn serve(mut send: quinn::SendStream, mut recv: quinn::RecvStream) -> Result<()> {
    let mut kind = [0];
    recv.read_exact(&mut kind).await?;
    if kind == [ECHO] {
        let question = recv.read_to_end(1 << 20).await?;
        send.write_all(&question).await?;
    } else {
        let mut bytes = 0;
        while let Some(chunk) = recv.read_chunk(usize::MAX, true).await? {
            bytes += chunk.bytes.len() as u64;
        }
        send.write_all(&bytes.to_be_bytes()).await?;
    }
    send.finish()?;
    Ok(())
}

impl Client for Streams {
    fn chunks(&self, chunk: Bytes, count: usize) -> Boxed<Result<u64>> {
        let connection = self.connection.clone();
        Box::pin(async move {
            let (mut send, mut recv) = connection.open_bi().await?;
            send.write_all(&[SINK]).await?;
            for _ in 0..count {
                send.write_all(&chunk).await?;
            }
            send.finish()?;
            let mut counted = [0; 8];
            recv.read_exact(&mut counted).await?;
            Ok(u64::from_be_bytes(counted))
        })
    }

    fn unary(&self, question: Bytes) -> Boxed<Result<usize>> {
        let connection = self.connection.clone();
        Box::pin(async move {
            let (mut send, mut recv) = connection.open_bi().await?;
            send.write_all(&[ECHO]).await?;
            send.write_all(&question).await?;
            send.finish()?;
            Ok(recv.read_to_end(1 << 20).await?.len())
        })
    }
}
