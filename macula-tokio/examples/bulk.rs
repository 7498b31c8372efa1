//! How fast one stream is here: client and server in one process, over loopback.
//!
//! `cargo run --release -p macula-tokio --example bulk -- [MiB] [multi|current]`

use std::{error::Error, time::Instant};

use bytes::Bytes;
use macula_tokio::{
    Code, DialConfig, Endpoint, ListenConfig, Options, entropy,
    proto::quic::DatagramSize,
    tls::{ClientTls, Credentials, SelfSigned, ServerTls, Trust},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mebibytes: usize = arguments.next().map_or(Ok(1024), |text| text.parse())?;
    let current = arguments.next().as_deref() == Some("current");
    let runtime = if current {
        tokio::runtime::Builder::new_current_thread().enable_all().build()?
    } else {
        tokio::runtime::Builder::new_multi_thread().enable_all().build()?
    };
    for (name, size) in [
        ("1452", DatagramSize::UpTo(1452)),
        ("9000", DatagramSize::UpTo(9000)),
        ("discover", DatagramSize::Discover),
    ] {
        if current {
            // The server gets a thread of its own, as it would have a process of its own.
            let other = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let (send, receive) = tokio::sync::oneshot::channel();
            let thread = std::thread::spawn(move || -> Result<()> {
                other.block_on(async move {
                    let (server, pin) = listen(size)?;
                    let _ = send.send((server.local_addr(), pin));
                    serve(server).await
                })
            });
            let (address, pin) = runtime.block_on(receive)?;
            runtime.block_on(run(name, size, address, pin, mebibytes))?;
            thread.join().map_err(|_| "the server failed")??;
        } else {
            runtime.block_on(async {
                let (server, pin) = listen(size)?;
                let address = server.local_addr();
                let server = tokio::spawn(serve(server));
                tokio::spawn(run(name, size, address, pin, mebibytes)).await??;
                server.await?
            })?;
        }
    }
    Ok(())
}

fn listen(size: DatagramSize) -> Result<(Endpoint, macula_tokio::tls::Pin)> {
    let credentials = Credentials::self_signed(&entropy()?, &SelfSigned::default())?;
    let pin = credentials.pin();
    let server = Endpoint::bind("127.0.0.1:0".parse()?, Options::default())?;
    let tls = ServerTls::new(credentials).alpn(["bulk"]).build(server.clock())?;
    let mut config = ListenConfig::new(tls);
    config.transport.datagram_size = size;
    server.listen(config)?;
    Ok((server, pin))
}

/// Takes one stream in, answers with its length; then echoes on another.
async fn serve(server: Endpoint) -> Result<()> {
    let connection = server.accept().await.ok_or("no connection")?;
    let mut stream = connection.accept_bi().await?;
    let mut received = 0u64;
    while let Some(chunk) = stream.read_chunk().await? {
        received += chunk.len() as u64;
    }
    stream.write_all(&received.to_be_bytes()).await?;
    stream.shutdown().await?;
    let (mut send, mut recv) = connection.accept_bi().await?.split();
    tokio::io::copy(&mut recv, &mut send).await?;
    send.shutdown().await?;
    connection.closed().await;
    Ok(())
}

async fn run(
    name: &str,
    size: DatagramSize,
    address: std::net::SocketAddr,
    pin: macula_tokio::tls::Pin,
    mebibytes: usize,
) -> Result<()> {
    let client = Endpoint::bind("127.0.0.1:0".parse()?, Options::default())?;
    let tls = ClientTls::new(Trust::Pins(vec![pin]))
        .alpn(["bulk"])
        .build(client.clock())?;
    let mut config = DialConfig::new(tls);
    config.transport.datagram_size = size;
    let connection = client.connect(&config, address, "localhost").await?;
    let mut stream = connection.open_bi().await?;
    let block = Bytes::from(vec![0x5a; 64 << 10]);
    let started = Instant::now();
    for _ in 0..mebibytes * 16 {
        stream.send().write_chunk(block.clone()).await?;
    }
    stream.shutdown().await?;
    let mut answer = [0; 8];
    stream.read_exact(&mut answer).await?;
    let elapsed = started.elapsed().as_secs_f64();
    assert_eq!(u64::from_be_bytes(answer), (mebibytes as u64) << 20);
    let rate = mebibytes as f64 / elapsed;
    let stats = connection.stats();

    let mut stream = connection.open_bi().await?;
    let mut trips = Vec::new();
    for _ in 0..2000 {
        let started = Instant::now();
        stream.write_all(&[7; 64]).await?;
        stream.read_exact(&mut [0; 64]).await?;
        trips.push(started.elapsed());
    }
    stream.shutdown().await?;
    stream.read_to_end(&mut Vec::new()).await?;
    connection.close(Code::CLOSED, "");
    client.wait_idle().await;
    trips.sort();
    println!(
        "datagrams {name:>8}: {rate:7.0} MiB/s = {:.2} Gb/s; 64-byte round trip {:?} (median); lost {} of {} packets, \
         datagram size {}; client driver {:?}",
        rate * 8.0 * 1.048_576 / 1000.0,
        trips[trips.len() / 2],
        stats.packets_lost,
        stats.packets_sent,
        stats.datagram_size,
        client.driver_stats(),
    );
    Ok(())
}
