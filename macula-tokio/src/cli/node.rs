//! What `expose` and `forward` share: a node, and the tunnels it carries.

use std::{collections::BTreeSet, future::Future, time::Duration};

use macula_proto::{Code, tunnel::Name};
use tokio::{net::TcpStream, sync::watch, task::JoinSet};

use super::{
    args::NodeArgs,
    backend::{NodeEvent, NodeOptions, TunnelHandle},
    events::{Event, Events},
    outcome::Failure,
    tls,
};
use crate::tcp::{RecvHalf as _, SendHalf as _, SpliceOptions, splice_tcp};

/// What the arguments say about a node.
pub(crate) fn options(args: &NodeArgs, allow_from: &[Name]) -> Result<NodeOptions, Failure> {
    let (trust, credentials) = tls::trust(&args.trust)?;
    Ok(NodeOptions {
        relays: args.relay.clone(),
        name: args.name.clone(),
        trust,
        credentials,
        encoding: args.encoding.into(),
        allow_from: (!allow_from.is_empty()).then(|| BTreeSet::from_iter(allow_from.iter().cloned())),
    })
}

impl From<NodeEvent> for Event {
    fn from(event: NodeEvent) -> Self {
        match event {
            NodeEvent::Identified { relay, name } => Self::Identified {
                name: name.to_string(),
                relay: Some(relay),
            },
            NodeEvent::Down { relay, reason } => Self::Disconnected {
                reason,
                relay: Some(relay),
                names: Vec::new(),
            },
            NodeEvent::Waiting {
                relay,
                duration,
                starved,
            } => Self::Waiting {
                relay,
                // Milliseconds are enough for anybody to read.
                seconds: (duration.as_secs_f64() * 1000.0).round() / 1000.0,
                starved,
            },
        }
    }
}

/// A bounded number of tunnels, each in its own task.
#[derive(Debug)]
pub(crate) struct Pool {
    tasks: JoinSet<()>,
    max: usize,
    cut: watch::Sender<bool>,
    carrier: Carrier,
}

impl Pool {
    pub(crate) fn new(events: Events, splice: SpliceOptions, max: usize) -> Self {
        let (cut, is_cut) = watch::channel(false);
        Self {
            tasks: JoinSet::new(),
            max,
            cut,
            carrier: Carrier { events, splice, is_cut },
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.tasks.len() >= self.max
    }

    pub(crate) fn spawn<F>(&mut self, task: impl FnOnce(Carrier) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tasks.spawn(task(self.carrier.clone()));
    }

    /// Clears away one task that has ended, when there is one. Nothing is lost when this is dropped.
    pub(crate) async fn reap(&mut self) {
        match self.tasks.join_next().await {
            Some(Err(error)) => tracing::error!(%error, "a tunnel's task failed"),
            Some(Ok(())) => {}
            None => std::future::pending().await,
        }
    }

    /// Waits until all tunnels have ended; those that have not after `time`, or when `hurry` is ready, are cut.
    pub(crate) async fn drain(&mut self, time: Duration, hurry: impl Future<Output = ()>) {
        if self.tasks.is_empty() {
            return;
        }
        self.carrier.events.tell(&Event::Draining {
            tunnels: self.tasks.len(),
        });
        let all = async { while self.tasks.join_next().await.is_some() {} };
        tokio::select! {
            biased;
            () = all => {}
            () = tokio::time::sleep(time) => {}
            () = hurry => {}
        }
        self.cut.send_replace(true);
        while self.tasks.join_next().await.is_some() {}
        self.carrier.events.tell(&Event::Drained);
    }
}

/// What a task needs to carry one tunnel.
#[derive(Debug, Clone)]
pub(crate) struct Carrier {
    pub(crate) events: Events,
    splice: SpliceOptions,
    is_cut: watch::Receiver<bool>,
}

impl Carrier {
    /// Tells of a new tunnel.
    pub(crate) fn opened<T: TunnelHandle>(&self, tunnel: T) -> OpenTunnel<T> {
        let open = OpenTunnel {
            id: tunnel.id().to_string(),
            peer: tunnel.peer().to_string(),
            tunnel,
        };
        self.events.tell(&Event::TunnelOpen {
            id: open.id.clone(),
            peer: open.peer.clone(),
            relay: open.tunnel.relay(),
        });
        open
    }

    /// Copies until it is over.
    pub(crate) async fn carry<T: TunnelHandle>(&self, open: OpenTunnel<T>, tcp: TcpStream) {
        // Only a matter of speed.
        let _ = tcp.set_nodelay(true);
        let (recv, send) = open.tunnel.split();
        let cut = async {
            self.cut().await;
            Code::SHUTDOWN
        };
        let spliced = splice_tcp(tcp, recv, send, &self.splice, cut).await;
        self.events.tell(&Event::TunnelClosed {
            id: open.id,
            peer: open.peer,
            reason: spliced.end.to_string(),
            bytes_in: spliced.from_tunnel,
            bytes_out: spliced.to_tunnel,
        });
    }

    /// Ready when no tunnel shall go on.
    pub(crate) async fn cut(&self) {
        // An error means that the pool is gone, and then this task is too.
        let _ = self.is_cut.clone().wait_for(|cut| *cut).await;
    }
}

/// A tunnel that was told of, and will be told to be closed.
#[derive(Debug)]
pub(crate) struct OpenTunnel<T> {
    id: String,
    peer: String,
    tunnel: T,
}

impl<T: TunnelHandle> OpenTunnel<T> {
    /// Ends it before anything moved.
    pub(crate) fn refuse(self, code: Code, events: &Events) {
        let (mut recv, mut send) = self.tunnel.split();
        send.reset(code);
        recv.stop(code);
        events.tell(&Event::TunnelClosed {
            id: self.id,
            peer: self.peer,
            reason: code.to_string(),
            bytes_in: 0,
            bytes_out: 0,
        });
    }
}
