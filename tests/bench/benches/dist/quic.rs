//! Two nodes of ours, over QUIC.

use std::{
    collections::VecDeque,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use macula_bench::{
    Result,
    our_setup::{self, Setup},
};
use macula_driver::dist::{DistConfig, DistConnection, HandshakeConfig};
use macula_tokio::{
    DatagramSize, Endpoint, Options, TransportConfig, alpn,
    proto::{
        dist::pool::Ordering,
        wire::{dist::DEFAULT_MAX_MESSAGE, etf::Atom},
    },
    tls::{ClientTls, Trust},
};
use tokio::runtime::Runtime;

use crate::{Link, end};

/// Messages handed over at once.
const BATCH: usize = 256;

pub(crate) struct Quic {
    near: (Runtime, DistConnection),
    far: (Runtime, DistConnection),
    /// Messages that are on their way at once when they are long.
    at_once: usize,
}

fn transport() -> TransportConfig {
    let mut transport = TransportConfig::dist();
    transport.datagram_size = DatagramSize::UpTo(1452);
    transport
}

fn config(name: &str, trust: Trust, ordering: Ordering) -> Result<DistConfig> {
    let handshake = HandshakeConfig::new(Atom::new(name)?, 7, "cookie".into());
    let mut config = DistConfig::new(handshake, ClientTls::new(trust));
    config.transport = transport();
    // Ticks are sent when the benchmark wants one.
    config.controller.net_tick = None;
    // The longest messages there may be on every stream at once.
    config.controller.pool.backlog = 4 * DEFAULT_MAX_MESSAGE as usize;
    if ordering != Ordering::Single {
        config.controller.pool = config.controller.pool.between_own(ordering);
        config.controller.lane.pause = Duration::ZERO;
    }
    Ok(config)
}

impl Quic {
    /// As between nodes of this implementation.
    pub(crate) fn spread() -> Result<Self> {
        Self::start(Ordering::RoundRobin, 4)
    }

    /// As towards any other node.
    pub(crate) fn single() -> Result<Self> {
        Self::start(Ordering::Single, 1)
    }

    fn start(ordering: Ordering, at_once: usize) -> Result<Self> {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let credentials = our_setup::credentials()?;
        let trust = Trust::Roots(credentials.chain().to_vec());
        let (near, far) = (end("near")?, end("far")?);

        let setup = Setup::new(alpn::ERLANG_DIST).transport(transport());
        let listener = far.block_on(async { setup.listen(&credentials, Options::default()) })?;
        listener.serve_dist(config("b@localhost", trust.clone(), ordering)?, 1);
        let accepted = listener.clone();
        let accepted = far.spawn(async move { accepted.accept_dist().await });

        let dialler = near.block_on(async { Endpoint::bind(any, Options::default()) })?;
        dialler.serve_dist(config("a@localhost", trust, ordering)?, 1);
        let (node, remote) = (Atom::new("b@localhost")?, listener.local_addr());
        let a = near.block_on(dialler.connect_dist(node, remote, "localhost"))?;
        let b = far.block_on(accepted)?.ok_or("the endpoint is closed")?;
        Ok(Self {
            near: (near, a),
            far: (far, b),
            at_once,
        })
    }

    fn ticks_seen(&self) -> (u64, Option<Instant>) {
        let lane = self.far.1.stat().unwrap_or_default().controller.lane;
        (lane.ticks_received, lane.last_tick_received)
    }
}

impl Link for Quic {
    fn transfer(&mut self, length: usize, count: usize) -> Result<Duration> {
        let b = self.far.1.clone();
        let taken = self.far.0.spawn(async move {
            let (mut left, mut batch) = (count, Vec::with_capacity(BATCH));
            while left > 0 {
                b.recv_many(&mut batch, BATCH).await?;
                left = left.saturating_sub(batch.len());
                batch.clear();
            }
            Ok::<_, macula_driver::dist::DistEnd>(Instant::now())
        });
        let a = self.near.1.clone();
        let message = Bytes::from(vec![7; length]);
        let started = Instant::now();
        let sent = self.near.0.spawn(async move {
            let mut left = count;
            let mut batch = VecDeque::with_capacity(BATCH);
            while left > 0 {
                let some = left.min(BATCH);
                batch.extend(std::iter::repeat_n(message.clone(), some));
                a.send_all(&mut batch).await?;
                left -= some;
            }
            Ok::<_, macula_driver::dist::SendError>(())
        });
        self.near.0.block_on(sent)??;
        let ended = self.far.0.block_on(taken)??;
        Ok(ended.saturating_duration_since(started))
    }

    fn ticks(&mut self, length: usize, count: usize) -> Result<Vec<Duration>> {
        let stop = Arc::new(AtomicBool::new(false));
        let b = self.far.1.clone();
        let taking = self.far.0.spawn(async move {
            // The last message is a short one.
            while b.recv().await.is_ok_and(|message| message.len() > 1) {}
        });
        let (a, done, at_once) = (self.near.1.clone(), stop.clone(), self.at_once);
        let message = Bytes::from(vec![7; length]);
        let sending = self.near.0.spawn(async move {
            while !done.load(Relaxed) {
                // As soon as one is gone, the next one follows.
                let pending = a.info().map_or(0, |_| a.stat().map_or(0, |stat| stat.pending));
                if pending > (at_once - 1) * length || a.send(message.clone()).await.is_err() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        });
        let mut took = Vec::with_capacity(count);
        for _ in 0..count {
            std::thread::sleep(crate::BETWEEN);
            let (before, _) = self.ticks_seen();
            let sent = Instant::now();
            self.near.1.tick();
            loop {
                let (seen, at) = self.ticks_seen();
                if seen > before {
                    took.push(at.map_or(Duration::ZERO, |at| at.saturating_duration_since(sent)));
                    break;
                }
                if sent.elapsed() > Duration::from_secs(30) {
                    return Err("a tick is lost".into());
                }
                std::thread::sleep(Duration::from_micros(200));
            }
        }
        stop.store(true, Relaxed);
        self.near.0.block_on(sending)?;
        // On whatever stream it goes, those on the others are taken as well.
        let (a, b) = (self.near.1.clone(), self.far.1.clone());
        self.near.0.block_on(a.send(Bytes::from_static(b"x")))?;
        self.far.0.block_on(taking)?;
        let rest = async {
            loop {
                // What is not taken holds up what is still to come.
                while b.try_recv().is_some() {}
                if a.stat().is_none_or(|stat| stat.pending == 0) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        self.near.0.block_on(async {
            rest.await;
            // What was written last is on its way.
            tokio::time::sleep(Duration::from_millis(200)).await;
            while b.try_recv().is_some() {}
        });
        Ok(took)
    }
}
