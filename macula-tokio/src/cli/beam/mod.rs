//! `macula beam`: what an unmodified BEAM node needs next to it to reach its peers through a relay.

pub(crate) mod args;
mod epmd;
mod events;
mod server;

use std::{future::poll_fn, io, sync::Arc, task::Poll, time::Duration};

use macula_proto::{Code, Rng, tunnel::Name};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};

use self::{
    args::{BeamArgs, BeamName, PeerName},
    epmd::Registration,
    events::BeamEvent,
    server::Epmd,
};
use super::{
    backend::{Backend, NodeEvent, NodeHandle, TunnelHandle as _},
    events::{Event, Events},
    expose::{self, Service},
    forward::{ACCEPT_PAUSE, Opener},
    node::{self, Pool},
    outcome::{Failure, Outcome},
    signals::Signals,
    values::HostPort,
};
use crate::tcp::{SpliceOptions, reset_tcp};

/// How long connecting to the local node may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) async fn run<B: Backend>(
    backend: &B,
    mut args: BeamArgs,
    events: &Events,
    signals: &mut Signals,
) -> Outcome {
    args.check().map_err(Failure::Usage)?;
    let node_args = args.node();
    let options = node::options(&node_args, &args.relay_names_of_peers())?;
    let entropy = crate::entropy().map_err(|error| Failure::failed("entropy", error))?;
    let mut rng = Rng::from_entropy(entropy);
    let mut epmd = Epmd::bind(args.name.clone(), args.epmd_port, &mut rng, events.clone()).await?;
    let doors = open_doors(&args.peer, &mut epmd, events).await?;
    let node = backend.node(options).await;
    let node = Arc::new(node.map_err(|error| Failure::failed("node", error))?);
    let mut pool = Pool::new(events.clone(), SpliceOptions::default(), node_args.max_tunnels);
    let sidecar = Sidecar {
        registered: epmd.registered(),
        local: args.name,
        node: node.clone(),
        events: events.clone(),
    };
    let end = async {
        tokio::select! {
            () = signals.stop() => {}
            () = events.closed() => {}
        }
    };
    let outcome = tokio::select! {
        failure = sidecar.serve(&doors, &mut pool) => Err(failure),
        never = epmd.serve() => match never {},
        () = end => Ok(()),
    };
    drop((doors, epmd));
    tokio::select! {
        () = pool.drain(node_args.drain_timeout, signals.stop()) => {}
        () = expose::refuse_all(&*node, events) => {}
    }
    node.close().await;
    outcome
}

/// Where the local node's connections to one peer are taken.
#[derive(Debug)]
struct Door {
    listener: TcpListener,
    to: Name,
}

/// Listens at the address of each peer, for its EPMD and, on a free port, for the peer itself; says so.
async fn open_doors(peers: &[PeerName], epmd: &mut Epmd, events: &Events) -> Result<Vec<Door>, Failure> {
    let mut doors = Vec::new();
    let mut said = Vec::new();
    for PeerName { node, relay_name } in peers {
        let (listener, addr) = epmd.add_peer(node).await?;
        said.push(BeamEvent::Listening {
            addr: addr.to_string(),
            node: node.to_string(),
        });
        let to = relay_name.clone();
        doors.push(Door { listener, to });
    }
    let addresses = epmd.addresses().map_err(|error| Failure::failed("listen", error))?;
    for addr in addresses {
        events.tell(&Event::Listening { addr: addr.to_string() });
    }
    for event in said {
        event.tell(events);
    }
    Ok(doors)
}

#[derive(Debug)]
struct Sidecar<N> {
    local: BeamName,
    registered: watch::Receiver<Option<Registration>>,
    node: Arc<N>,
    events: Events,
}

impl<N: NodeHandle> Sidecar<N> {
    /// Carries connections for as long as there is a node at the relay; what it returns says that there is none any more.
    async fn serve(&self, doors: &[Door], pool: &mut Pool) -> Failure {
        let gone = || Failure::failed("node", "the node has stopped");
        let (identified, is_identified) = watch::channel(false);
        loop {
            tokio::select! {
                event = self.node.next_event() => {
                    let Some(event) = event else { return gone() };
                    match event {
                        NodeEvent::Identified { .. } => drop(identified.send_replace(true)),
                        NodeEvent::Down { .. } => drop(identified.send_replace(false)),
                        NodeEvent::Dialling { .. } | NodeEvent::Waiting { .. } => {}
                    }
                    self.events.tell(&event.into());
                }
                tunnel = self.node.incoming() => match tunnel {
                    Some(tunnel) => self.to_local_node(tunnel, pool),
                    None => return gone(),
                },
                (door, accepted) = accept(doors) => match accepted {
                    Ok(tcp) => self.to_peer(tcp, &door.to, &is_identified, pool),
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a TCP connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                () = pool.reap() => {}
            }
        }
    }

    fn to_local_node(&self, tunnel: N::Tunnel, pool: &mut Pool) {
        let registered = self.registered.borrow().as_ref().map(|node| node.port);
        let Some(port) = registered else {
            let refused = format_args!(
                "a tunnel from {} refused: {} is not registered here",
                tunnel.peer(),
                self.local
            );
            self.events.error("not_registered", refused);
            return expose::refuse(tunnel, Code::REFUSED);
        };
        if pool.is_full() {
            let refused = format_args!("too many tunnels: one from {} refused", tunnel.peer());
            self.events.error("limit", refused);
            return expose::refuse(tunnel, Code::LIMIT);
        }
        let service = Service {
            to: HostPort::new(self.local.host.to_string(), port),
            connect_timeout: CONNECT_TIMEOUT,
        };
        pool.spawn(|carrier| async move { expose::connect_and_carry(tunnel, &service, &carrier).await });
    }

    fn to_peer(&self, tcp: TcpStream, peer: &Name, is_identified: &watch::Receiver<bool>, pool: &mut Pool) {
        if pool.is_full() {
            let refused = format_args!("too many tunnels: a connection to {peer} was refused");
            self.events.error("limit", refused);
            return reset_tcp(tcp);
        }
        let opener = Opener {
            node: self.node.clone(),
            target: peer.clone(),
            is_identified: is_identified.clone(),
        };
        pool.spawn(|carrier| async move { opener.open_and_carry(tcp, &carrier).await });
    }
}

async fn accept(doors: &[Door]) -> (&Door, io::Result<TcpStream>) {
    poll_fn(|cx| {
        for door in doors {
            if let Poll::Ready(accepted) = door.listener.poll_accept(cx) {
                return Poll::Ready((door, accepted.map(|(tcp, _)| tcp)));
            }
        }
        Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests;
