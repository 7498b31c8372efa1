//! `macula forward`: TCP connections become tunnels.

use std::{future::poll_fn, io, sync::Arc, task::Poll, time::Duration};

use macula_proto::tunnel::{Name, client::session::RequestError};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};

use super::{
    args::ForwardArgs,
    backend::{Backend, NodeEvent, NodeHandle},
    events::{Event, Events},
    node::{self, Carrier, Pool},
    outcome::{Failure, Outcome},
    signals::Signals,
    values::HostPort,
};
use crate::tcp::{SpliceOptions, reset_tcp};

/// How long a new TCP connection waits for a node that is not identified yet.
const IDENTIFY_GRACE: Duration = Duration::from_secs(5);
/// How long to take a breath when no connection can be accepted, for want of file descriptors for instance.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

pub(crate) async fn run<B: Backend>(backend: &B, args: ForwardArgs, events: &Events, signals: &mut Signals) -> Outcome {
    let options = node::options(&args.node, &[])?;
    let listeners = listen(&args.listen, events).await?;
    let node = backend.node(options).await;
    let node = Arc::new(node.map_err(|error| Failure::failed("node", error))?);
    let splice = SpliceOptions {
        idle: args.node.idle,
        ..SpliceOptions::default()
    };
    let mut pool = Pool::new(events.clone(), splice, args.node.max_tunnels);
    let end = async {
        tokio::select! {
            () = signals.stop() => {}
            () = events.closed() => {}
        }
    };
    let outcome = tokio::select! {
        failure = serve(&node, args.target, &listeners, &mut pool, events) => Err(failure),
        () = end => Ok(()),
    };
    drop(listeners);
    tokio::select! {
        () = pool.drain(args.node.drain_timeout, signals.stop()) => {}
        () = tell_all(&*node, events) => {}
    }
    node.close().await;
    outcome
}

/// Listens on every address that the name stands for.
pub(crate) async fn listen(at: &HostPort, events: &Events) -> Result<Vec<TcpListener>, Failure> {
    let failed = |error: io::Error| Failure::failed("listen", format_args!("cannot listen on {at}: {error}"));
    let mut listeners = Vec::new();
    for mut addr in at.resolve().await.map_err(failed)? {
        // A free port is to be the same one for every address.
        if let (0, Some(first)) = (addr.port(), listeners.first()) {
            let first: &TcpListener = first;
            addr.set_port(first.local_addr().map_err(failed)?.port());
        }
        match TcpListener::bind(addr).await {
            Ok(listener) => listeners.push(listener),
            // A name such as localhost may stand for an address of a family that this machine does not have.
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable && !listeners.is_empty() => {}
            Err(error) => return Err(failed(error)),
        }
    }
    for listener in &listeners {
        let addr = listener.local_addr().map_err(failed)?.to_string();
        events.tell(&Event::Listening { addr });
    }
    Ok(listeners)
}

/// Takes TCP connections for as long as there is a node; what it returns says that there is none any more.
pub(crate) async fn serve<N: NodeHandle>(
    node: &Arc<N>,
    target: Name,
    listeners: &[TcpListener],
    pool: &mut Pool,
    events: &Events,
) -> Failure {
    let (identified, is_identified) = watch::channel(false);
    loop {
        tokio::select! {
            event = node.next_event() => {
                let Some(event) = event else {
                    return Failure::failed("node", "the node has stopped");
                };
                match event {
                    NodeEvent::Identified { .. } => drop(identified.send_replace(true)),
                    NodeEvent::Down { .. } => drop(identified.send_replace(false)),
                    NodeEvent::Dialling { .. } | NodeEvent::Waiting { .. } => {}
                }
                events.tell(&event.into());
            }
            accepted = accept(listeners) => match accepted {
                Ok(tcp) if pool.is_full() => {
                    events.error("limit", "too many tunnels: a TCP connection was refused");
                    reset_tcp(tcp);
                }
                Ok(tcp) => {
                    let opener = Opener {
                        node: node.clone(),
                        target: target.clone(),
                        is_identified: is_identified.clone(),
                    };
                    pool.spawn(|carrier| async move { opener.open_and_carry(tcp, &carrier).await });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a TCP connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            () = pool.reap() => {}
        }
    }
}

async fn accept(listeners: &[TcpListener]) -> io::Result<TcpStream> {
    poll_fn(|cx| {
        for listener in listeners {
            if let Poll::Ready(accepted) = listener.poll_accept(cx) {
                return Poll::Ready(accepted.map(|(tcp, _)| tcp));
            }
        }
        Poll::Pending
    })
    .await
}

/// What a TCP connection needs to become a tunnel.
#[derive(Debug)]
pub(crate) struct Opener<N> {
    pub(crate) node: Arc<N>,
    pub(crate) target: Name,
    pub(crate) is_identified: watch::Receiver<bool>,
}

impl<N: NodeHandle> Opener<N> {
    pub(crate) async fn open_and_carry(mut self, tcp: TcpStream, carrier: &Carrier) {
        let opened = tokio::select! {
            opened = self.open() => opened,
            () = carrier.cut() => Err(RequestError::Cancelled),
        };
        match opened {
            Ok(tunnel) => {
                let open = carrier.opened(tunnel);
                carrier.carry(open, tcp).await;
            }
            Err(error) => {
                carrier
                    .events
                    .error("open", format_args!("no tunnel to {}: {error}", self.target));
                reset_tcp(tcp);
            }
        }
    }

    /// Opens a tunnel, and waits a little for a relay that is just being dialled.
    async fn open(&mut self) -> Result<N::Tunnel, RequestError> {
        let opened = self.node.open(&self.target).await;
        if !matches!(opened, Err(RequestError::NotIdentified)) {
            return opened;
        }
        let identified = async { self.is_identified.wait_for(|identified| *identified).await.is_ok() };
        match tokio::time::timeout(IDENTIFY_GRACE, identified).await {
            Ok(true) => self.node.open(&self.target).await,
            _ => opened,
        }
    }
}

async fn tell_all<N: NodeHandle>(node: &N, events: &Events) {
    while let Some(event) = node.next_event().await {
        events.tell(&event.into());
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests;
