//! gRPC by tonic, over TCP with TLS: messages are bytes, so that no other format is measured with it.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use bytes::{Buf, BufMut, Bytes};
use futures_lite::{StreamExt, future::Boxed, stream};
use http::uri::PathAndQuery;
use macula_bench::Result;
use macula_tokio::tls::Credentials;
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    server::{ClientStreamingService, NamedService, UnaryService},
    transport::{Certificate, Channel, ClientTlsConfig, Identity, Server, ServerTlsConfig, server::TcpIncoming},
};
use tower_service::Service;

use crate::{Client, runtime};

/// Bytes as they are.
#[derive(Clone, Copy, Default)]
struct Plain;

impl Codec for Plain {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> std::result::Result<(), Status> {
        out.put(item);
        Ok(())
    }
}

impl Decoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> std::result::Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// Counts what comes.
struct Sink;

impl ClientStreamingService<Bytes> for Sink {
    type Response = Bytes;
    type Future = Boxed<std::result::Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        Box::pin(async move {
            let mut chunks = request.into_inner();
            let mut bytes = 0;
            while let Some(chunk) = chunks.message().await? {
                bytes += chunk.len() as u64;
            }
            Ok(Response::new(Bytes::copy_from_slice(&bytes.to_be_bytes())))
        })
    }
}

struct Echo;

impl UnaryService<Bytes> for Echo {
    type Response = Bytes;
    type Future = std::future::Ready<std::result::Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        std::future::ready(Ok(Response::new(request.into_inner())))
    }
}

#[derive(Clone)]
struct Bench;

impl NamedService for Bench {
    const NAME: &'static str = "bench";
}

impl Service<http::Request<Body>> for Bench {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Boxed<std::result::Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::result::Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(Plain);
            Ok(match request.uri().path() {
                "/bench/sink" => grpc.client_streaming(Sink, request).await,
                _ => grpc.unary(Echo, request).await,
            })
        })
    }
}

struct Calls {
    channel: Channel,
    /// Chunks come from an iterator that always has the next, so that many are packed into one piece.
    at_once: bool,
}

/// Chunks are handed over one by one, as a program does that has them one by one.
pub(crate) async fn one_by_one(credentials: Credentials) -> Result<Box<dyn Client>> {
    start(credentials, false).await
}

pub(crate) async fn at_once(credentials: Credentials) -> Result<Box<dyn Client>> {
    start(credentials, true).await
}

async fn start(credentials: Credentials, at_once: bool) -> Result<Box<dyn Client>> {
    let (tell, told) = std::sync::mpsc::channel();
    let certificate = credentials.chain_to_pem();
    let identity = Identity::from_pem(&certificate, credentials.key_to_pem().as_bytes());
    std::thread::spawn(move || -> Result<()> {
        runtime()?.block_on(async move {
            let incoming = TcpIncoming::bind("127.0.0.1:0".parse()?)?.with_nodelay(Some(true));
            tell.send(incoming.local_addr()?)?;
            Server::builder()
                .tls_config(ServerTlsConfig::new().identity(identity))?
                .add_service(Bench)
                .serve_with_incoming(incoming)
                .await?;
            Ok(())
        })
    });
    let server = told.recv()?;
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(certificate))
        .domain_name("localhost");
    let channel = Channel::from_shared(format!("https://{server}"))?
        .tls_config(tls)?
        .tcp_nodelay(true)
        .connect()
        .await?;
    Ok(Box::new(Calls { channel, at_once }))
}

impl Client for Calls {
    fn chunks(&self, chunk: Bytes, count: usize) -> Boxed<Result<u64>> {
        let mut grpc = Grpc::new(self.channel.clone());
        let at_once = self.at_once;
        Box::pin(async move {
            grpc.ready().await?;
            let (sender, receiver) = tokio::sync::mpsc::channel(1024);
            let source: stream::Boxed<Bytes> = if at_once {
                Box::pin(stream::repeat(chunk.clone()).take(count))
            } else {
                Box::pin(stream::unfold(receiver, |mut receiver| async move {
                    receiver.recv().await.map(|chunk| (chunk, receiver))
                }))
            };
            let path = PathAndQuery::from_static("/bench/sink");
            let answer = grpc.client_streaming(Request::new(source), path, Plain);
            let feeding = async {
                for _ in 0..if at_once { 0 } else { count } {
                    if sender.send(chunk.clone()).await.is_err() {
                        break;
                    }
                }
                drop(sender);
            };
            let (answer, ()) = futures_lite::future::zip(answer, feeding).await;
            let answer: Response<Bytes> = answer?;
            Ok(u64::from_be_bytes(answer.into_inner().as_ref().try_into()?))
        })
    }

    fn unary(&self, question: Bytes) -> Boxed<Result<usize>> {
        let mut grpc = Grpc::new(self.channel.clone());
        Box::pin(async move {
            grpc.ready().await?;
            let path = PathAndQuery::from_static("/bench/echo");
            let answer: Response<Bytes> = grpc.unary(Request::new(question), path, Plain).await?;
            Ok(answer.into_inner().len())
        })
    }
}
