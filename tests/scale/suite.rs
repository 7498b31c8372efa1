//! Many tunnels at once over one relay, in a process of its own so that its memory can be measured.

use std::{sync::Arc, time::Duration};

use async_lock::{Barrier, Semaphore};

use crate::{
    adapter::{
        io::{AsyncReadExt, AsyncWriteExt, shutdown},
        run, spawn, timeout,
    },
    macula::{Limits, RelayClient, TransportConfig, Tunnel, alpn, proto::Rng, tls::ClientTls, tls::Pin, tls::Trust},
    relay::Relay,
};

const TUNNELS: usize = 1000;
/// Of those: tunnels whose receiver never reads.
const STALLED: usize = 20;
const MAX_BYTES: u64 = 200 << 10;
/// What a relay may use for a tunnel besides its payload: its streams, table entries, names.
const TUNNEL_OVERHEAD: u64 = 16 << 10;
/// What may stay with the allocator, or belong to nobody in particular.
const SLACK: u64 = 32 << 20;
const IN_ALL: Duration = Duration::from_secs(60);

/// The largest amount of payload that a relay with the default settings holds, as its documentation states it.
fn bound(tunnels: usize, connections: u64) -> u64 {
    let (limits, transport) = (Limits::default(), TransportConfig::relay());
    let direction = limits.splice_block as u64 + transport.stream_window;
    tunnels as u64 * 2 * direction + connections * transport.send_window
}

fn node(relay: &Relay, name: &str) -> RelayClient {
    let pin: Pin = relay.pin.parse().unwrap();
    let tls = ClientTls::new(Trust::Pins(vec![pin])).alpn([alpn::MACULA_DIST]);
    RelayClient::connect([relay.addr.parse().unwrap()], name, &tls).unwrap()
}

async fn identified(nodes: &[&RelayClient]) {
    for node in nodes {
        assert!(node.identified().await);
    }
}

/// Bytes of a tunnel and a direction, different for each.
fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut rng = Rng::from_seed(seed);
    let mut out = Vec::with_capacity(length + 32);
    while out.len() < length {
        out.extend_from_slice(&rng.bytes::<32>());
    }
    out.truncate(length);
    out
}

fn size(seed: u64) -> usize {
    let random = u64::from_be_bytes(Rng::from_seed(seed ^ 0x5ca1_ab1e).bytes());
    // The smallest and the largest are certain to be among them.
    match seed {
        0 => 0,
        1 => MAX_BYTES as usize,
        _ => (random % (MAX_BYTES + 1)) as usize,
    }
}

/// Sends back everything that arrives, then the end; or, if the first byte says so, never reads on.
async fn serve(mut tunnel: Tunnel, hold: Arc<Semaphore>) {
    let mut first = [0];
    tunnel.read_exact(&mut first).await.unwrap();
    if first == [STALL] {
        drop(hold.acquire().await);
        return;
    }
    let (mut send, mut recv) = tunnel.split();
    let mut block = vec![0; 16 << 10];
    loop {
        match recv.read(&mut block).await.unwrap() {
            0 => break,
            read => send.write_all(&block[..read]).await.unwrap(),
        }
    }
    shutdown(&mut send).await.unwrap();
    send.delivered().await.unwrap();
}

const ECHO: u8 = 0;
const STALL: u8 = 1;

/// Sends random bytes and the end while it reads them back.
async fn exchange(tunnel: Tunnel, seed: u64) -> usize {
    let data = Arc::new(bytes(seed, size(seed)));
    let (mut send, mut recv) = tunnel.split();
    let sent = Arc::clone(&data);
    let writer = spawn(async move {
        send.write_all(&[ECHO]).await.unwrap();
        for piece in sent.chunks(7000) {
            send.write_all(piece).await.unwrap();
        }
        shutdown(&mut send).await.unwrap();
        send
    });
    let mut echoed = Vec::with_capacity(data.len());
    AsyncReadExt::read_to_end(&mut recv, &mut echoed).await.unwrap();
    assert!(
        echoed == *data,
        "tunnel {seed}: {} of {} bytes",
        echoed.len(),
        data.len()
    );
    let _send = writer.await;
    data.len()
}

/// Writes until nothing is taken any more; says how much was.
async fn fill(tunnel: &mut Tunnel) -> usize {
    tunnel.write_all(&[STALL]).await.unwrap();
    let block = vec![0x5a; 64 << 10];
    let mut taken = 1;
    while let Ok(written) = timeout(Duration::from_millis(1000), tunnel.write(&block)).await {
        taken += written.unwrap();
    }
    taken
}

fn accept(node: &RelayClient, hold: &Arc<Semaphore>) {
    let (node, hold) = (node.clone(), Arc::clone(hold));
    spawn(async move {
        while let Some(tunnel) = node.incoming().await {
            spawn(serve(tunnel, Arc::clone(&hold)));
        }
    });
}

#[test]
fn a_thousand_tunnels_at_once_stay_intact_within_the_memory_bound() {
    run(async {
        timeout(IN_ALL, thousand_tunnels()).await.expect("in time");
    });
}

async fn thousand_tunnels() {
    let relay = Relay::start();
    let nodes = [node(&relay, "alice"), node(&relay, "bob"), node(&relay, "carol")];
    identified(&nodes.each_ref()).await;
    let hold = Arc::new(Semaphore::new(0));
    for node in &nodes {
        accept(node, &hold);
    }
    let before = relay.memory().peak;

    // In a ring, so that each node opens tunnels and has some opened to it. All wait for the last before they begin.
    let all_open = Arc::new(Barrier::new(TUNNELS));
    let opening = Arc::new(Semaphore::new(100));
    let mut exchanges = Vec::new();
    let mut fills = Vec::new();
    for seed in 0..TUNNELS {
        let from = nodes[seed % nodes.len()].clone();
        let to = nodes[(seed + 1) % nodes.len()].name().clone();
        let (all_open, opening) = (Arc::clone(&all_open), Arc::clone(&opening));
        let open = async move {
            let permit = opening.acquire().await;
            let tunnel = from.open(to).await.unwrap();
            drop(permit);
            all_open.wait().await;
            tunnel
        };
        if seed % (TUNNELS / STALLED) == 7 {
            fills.push(spawn(async move {
                let mut tunnel = open.await;
                let taken = fill(&mut tunnel).await;
                (tunnel, taken)
            }));
        } else {
            exchanges.push(spawn(async move { exchange(open.await, seed as u64).await }));
        }
    }
    let mut carried = 0;
    for exchange in exchanges {
        carried += exchange.await;
    }
    // The stalled ones have stopped meanwhile, each at its own bound: two windows and what is between them.
    let most = 2 * TransportConfig::relay().stream_window + Limits::default().splice_block as u64 + (64 << 10);
    let mut stalled = Vec::new();
    for fill in fills {
        let (tunnel, taken) = fill.await;
        assert!(
            taken as u64 <= most,
            "a stalled tunnel took {taken} bytes, {most} is the bound"
        );
        stalled.push(tunnel);
    }
    assert_eq!(stalled.len(), STALLED);
    let used = relay.memory().peak.saturating_sub(before);
    let connections = nodes.len() as u64;
    let stated = bound(TUNNELS, connections);
    // What these tunnels can hold, as most of them carry less than a window.
    let small = (TUNNELS - STALLED) as u64 * 2 * MAX_BYTES;
    let expected = small.min(stated) + bound(STALLED, connections) + TUNNELS as u64 * TUNNEL_OVERHEAD + SLACK;
    println!(
        "{carried} bytes echoed; the relay's memory grew by {used} bytes at most (bound {stated}, of this load {expected})"
    );
    assert!(used <= stated, "{used} bytes used, {stated} is the bound");
    assert!(
        used <= expected,
        "{used} bytes used, {expected} is the bound of this load"
    );
    // The stalled ones were never lost: they are still open.
    for tunnel in &mut stalled {
        assert!(timeout(Duration::from_millis(1), tunnel.read(&mut [0])).await.is_err());
    }
}

/// Memory that is held, and not only memory that might be: every tunnel is stalled until it takes no more.
#[test]
fn stalled_tunnels_hold_what_the_bound_says() {
    run(async {
        timeout(IN_ALL, stalled_tunnels()).await.expect("in time");
    });
}

async fn stalled_tunnels() {
    const COUNT: usize = 60;
    let relay = Relay::start();
    let nodes = [node(&relay, "alice"), node(&relay, "bob")];
    identified(&nodes.each_ref()).await;
    let hold = Arc::new(Semaphore::new(0));
    accept(&nodes[1], &hold);
    let before = relay.memory().current;
    let mut fills = Vec::new();
    for _ in 0..COUNT {
        let from = nodes[0].clone();
        fills.push(spawn(async move {
            let mut tunnel = from.open("bob").await.unwrap();
            let taken = fill(&mut tunnel).await;
            (tunnel, taken)
        }));
    }
    let mut stalled = Vec::new();
    for fill in fills {
        stalled.push(fill.await.0);
    }
    let used = relay.memory().current.saturating_sub(before);
    // One direction of each is in use.
    let stated = bound(COUNT, 0) / 2 + TransportConfig::relay().send_window;
    println!("{COUNT} stalled tunnels hold {used} bytes (bound {stated})");
    assert!(used <= stated + SLACK, "{used} bytes used, {stated} is the bound");
    // A tunnel beside them is not slowed down.
    let begin = std::time::Instant::now();
    let tunnel = nodes[0].open("bob").await.unwrap();
    assert_eq!(exchange(tunnel, 1).await, MAX_BYTES as usize);
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    // And what they held is free for others when they are gone: the next ones cost nothing more.
    hold.add_permits(COUNT);
    drop(stalled);
    let mut again = Vec::new();
    for seed in 100..100 + COUNT as u64 {
        let from = nodes[0].clone();
        again.push(spawn(
            async move { exchange(from.open("bob").await.unwrap(), seed).await },
        ));
    }
    for exchange in again {
        exchange.await;
    }
    let after = relay.memory().current.saturating_sub(before);
    assert!(after <= stated + SLACK, "{after} bytes used, {stated} is the bound");
}
