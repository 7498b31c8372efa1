//! How fast one stream is here: client and server in one process, over loopback.
//!
//! `SMOL_THREADS=2 cargo run --release -p macula-smol --example bulk -- [MiB]`

use std::{error::Error, net::SocketAddr, time::Instant};

use macula_smol::{
    Code, DialConfig, Endpoint, ListenConfig, Options, entropy,
    proto::quic::DatagramSize,
    tls::{ClientTls, Credentials, Pin, SelfSigned, ServerTls, Trust},
};
use smol::io::{AsyncReadExt, AsyncWriteExt};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Result<()> {
    let mebibytes: usize = std::env::args().nth(1).map_or(Ok(1024), |text| text.parse())?;
    for (name, size) in [
        ("1452", DatagramSize::UpTo(1452)),
        ("9000", DatagramSize::UpTo(9000)),
        ("discover", DatagramSize::Discover),
    ] {
        smol::block_on(async {
            let (server, pin) = listen(size)?;
            let address = server.local_addr();
            let server = smol::spawn(serve(server));
            smol::spawn(run(name, size, address, pin, mebibytes)).await?;
            server.await
        })?;
    }
    Ok(())
}

fn listen(size: DatagramSize) -> Result<(Endpoint, Pin)> {
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
    stream.close().await?;
    let (mut send, recv) = connection.accept_bi().await?.split();
    smol::io::copy(recv, &mut send).await?;
    send.close().await?;
    connection.closed().await;
    Ok(())
}

async fn run(name: &str, size: DatagramSize, address: SocketAddr, pin: Pin, mebibytes: usize) -> Result<()> {
    let client = Endpoint::bind("127.0.0.1:0".parse()?, Options::default())?;
    let tls = ClientTls::new(Trust::Pins(vec![pin]))
        .alpn(["bulk"])
        .build(client.clock())?;
    let mut config = DialConfig::new(tls);
    config.transport.datagram_size = size;
    let connection = client.connect(&config, address, "localhost").await?;
    let mut stream = connection.open_bi().await?;
    let block = vec![0x5a; 64 << 10];
    let started = Instant::now();
    for _ in 0..mebibytes * 16 {
        stream.write_all(&block).await?;
    }
    stream.close().await?;
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
    stream.close().await?;
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
