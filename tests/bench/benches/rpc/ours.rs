//! Our calls, on three carriers.

use std::sync::Arc;

use bytes::Bytes;
use futures_lite::future::Boxed;
use macula_bench::{Result, our_setup::Setup};
use macula_tokio::{
    Endpoint, Options, PeerListenConfig, alpn,
    proto::{identity::Identity, peering::PeeringConfig},
    rpc::{Chunk, Kind, Mode, RpcClient, RpcConfig, RpcServer, ServerCall, Value},
    tls::Credentials,
};

use crate::{Client, runtime};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Carrier {
    PerCall,
    Shared,
    Signed,
}

struct Ours {
    client: RpcClient,
}

pub(crate) async fn per_call(credentials: Credentials) -> Result<Box<dyn Client>> {
    start(credentials, Carrier::PerCall).await
}

pub(crate) async fn shared(credentials: Credentials) -> Result<Box<dyn Client>> {
    start(credentials, Carrier::Shared).await
}

pub(crate) async fn signed(credentials: Credentials) -> Result<Box<dyn Client>> {
    start(credentials, Carrier::Signed).await
}

fn config(node: u8, carrier: Carrier) -> RpcConfig {
    let mut config = RpcConfig::new([node; 32]);
    config.stream_per_call = carrier == Carrier::PerCall;
    config
}

fn identity(node: u8) -> PeeringConfig {
    PeeringConfig::new(Arc::new(Identity::from_seed(&[node; 32])))
}

async fn start(credentials: Credentials, carrier: Carrier) -> Result<Box<dyn Client>> {
    let (tell, told) = std::sync::mpsc::channel();
    let serving = credentials.clone();
    std::thread::spawn(move || -> Result<()> {
        runtime()?.block_on(async move {
            let endpoint = serve(serving, carrier)?;
            tell.send(endpoint.local_addr())?;
            if carrier == Carrier::Signed
                && let Some(peer) = endpoint.accept_peer().await
            {
                let link = peer.rpc(config(1, carrier)).await?;
                link.closed().await;
            }
            std::future::pending().await
        })
    });
    let server = told.recv()?;
    let (endpoint, dial) = Setup::new(alpn::MACULA).dialler(&credentials, Options::default())?;
    let client = if carrier == Carrier::Signed {
        let peer = endpoint.connect_peer(&dial, server, "localhost", identity(2)).await?;
        peer.rpc(config(2, carrier)).await?
    } else {
        endpoint
            .connect_rpc(&dial, server, "localhost", config(2, carrier))
            .await?
    };
    Ok(Box::new(Ours { client }))
}

fn serve(credentials: Credentials, carrier: Carrier) -> Result<Endpoint> {
    let endpoint = Setup::new(alpn::MACULA).listen(&credentials, Options::default())?;
    if carrier == Carrier::Signed {
        endpoint.serve_peers(PeerListenConfig::new(identity(1)), 16);
    } else {
        endpoint.serve_rpc(config(1, carrier));
    }
    let server = RpcServer::new(&endpoint);
    server.advertise("sink", Mode::ClientStream, async |mut call: ServerCall| {
        let mut bytes = 0;
        while let Some(chunk) = call.recv().await? {
            if let Chunk::Raw(raw) = chunk {
                bytes += raw.len() as u64;
            }
        }
        Ok(Value::from(bytes))
    });
    server.advertise("echo", Kind::Unary, async |call: ServerCall| Ok(call.args().clone()));
    // It serves as long as the process runs.
    std::mem::forget(server);
    Ok(endpoint)
}

impl Client for Ours {
    fn chunks(&self, chunk: Bytes, count: usize) -> Boxed<Result<u64>> {
        let client = self.client.clone();
        Box::pin(async move {
            let call = client.open("sink", Mode::ClientStream, Value::Null).await?;
            for _ in 0..count {
                call.send(Chunk::Raw(chunk.clone())).await?;
            }
            call.finish();
            Ok(call.reply().await?.as_u64().unwrap_or_default())
        })
    }

    fn unary(&self, question: Bytes) -> Boxed<Result<usize>> {
        let client = self.client.clone();
        Box::pin(async move {
            let answer = client.call("echo", Value::bytes(question)).await?;
            Ok(answer.as_bytes().map_or(0, |bytes| bytes.len()))
        })
    }
}
