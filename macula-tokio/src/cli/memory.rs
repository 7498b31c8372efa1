//! A backend without a network, for tests: nodes of one hub reach each other through pipes.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use macula_proto::{
    quic::{EndpointStats, tls::Credentials},
    tunnel::{
        Name,
        client::session::RequestError,
        relay::{AccessRules, Refusal, RelayStats, RelayStatus, Report},
    },
    wire::control::TunnelId,
};
use tokio::sync::{
    Mutex as AsyncMutex,
    mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};

use super::backend::{
    Backend, NodeEvent, NodeHandle, NodeOptions, RelayHandle, RelayOptions, RelaySnapshot, TunnelHandle,
};
use crate::tcp::pipe::{self, PipeRecv, PipeSend};

#[derive(Debug, Clone, Default)]
pub(crate) struct Memory(Arc<Mutex<Hub>>);

#[derive(Debug, Default)]
struct Hub {
    nodes: BTreeMap<Name, UnboundedSender<MemoryTunnel>>,
    tunnels: u8,
}

impl Backend for Memory {
    type Relay = MemoryRelay;
    type Node = MemoryNode;

    async fn relay(&self, options: RelayOptions) -> io::Result<MemoryRelay> {
        let (report, reports) = unbounded_channel();
        Ok(MemoryRelay {
            listen: options.listen,
            report,
            reports: AsyncMutex::new(reports),
            seen: Mutex::default(),
        })
    }

    async fn node(&self, options: NodeOptions) -> io::Result<MemoryNode> {
        let (arrive, incoming) = unbounded_channel();
        let (tell, events) = unbounded_channel();
        let relay = options.relays.first().map(ToString::to_string).unwrap_or_default();
        let identified = NodeEvent::Identified {
            relay,
            name: options.name.clone(),
        };
        let _ = tell.send(identified);
        let mut hub = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        hub.nodes.insert(options.name.clone(), arrive);
        drop(hub);
        Ok(MemoryNode {
            name: options.name,
            hub: self.clone(),
            incoming: AsyncMutex::new(incoming),
            events: AsyncMutex::new(events),
            _tell: tell,
        })
    }
}

/// What a relay was told to do.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) access: Option<AccessRules>,
    pub(crate) credentials: Option<Credentials>,
    pub(crate) closed: bool,
    pub(crate) draining: bool,
}

#[derive(Debug)]
pub(crate) struct MemoryRelay {
    listen: SocketAddr,
    pub(crate) report: UnboundedSender<Report>,
    reports: AsyncMutex<UnboundedReceiver<Report>>,
    pub(crate) seen: Mutex<Seen>,
}

impl RelayHandle for MemoryRelay {
    fn local_addr(&self) -> SocketAddr {
        self.listen
    }

    async fn next_report(&self) -> Option<Report> {
        self.reports.lock().await.recv().await
    }

    async fn snapshot(&self) -> RelaySnapshot {
        RelaySnapshot {
            status: RelayStatus {
                draining: self.seen.lock().unwrap().draining,
                names: Vec::new(),
                connections: Vec::new(),
                tunnels: Vec::new(),
            },
            stats: RelayStats::default(),
            router: None,
            endpoint: EndpointStats::default(),
            connections: BTreeMap::new(),
            tunnels: BTreeMap::new(),
        }
    }

    fn set_access(&self, access: AccessRules) {
        self.seen.lock().unwrap().access = Some(access);
    }

    fn set_credentials(&self, credentials: Credentials) {
        self.seen.lock().unwrap().credentials = Some(credentials);
    }

    fn drain(&self) {
        self.seen.lock().unwrap().draining = true;
        let _ = self.report.send(Report::Draining);
    }

    async fn close(&self) {
        self.seen.lock().unwrap().closed = true;
    }
}

#[derive(Debug)]
pub(crate) struct MemoryNode {
    name: Name,
    hub: Memory,
    incoming: AsyncMutex<UnboundedReceiver<MemoryTunnel>>,
    events: AsyncMutex<UnboundedReceiver<NodeEvent>>,
    _tell: UnboundedSender<NodeEvent>,
}

impl NodeHandle for MemoryNode {
    type Tunnel = MemoryTunnel;

    async fn next_event(&self) -> Option<NodeEvent> {
        self.events.lock().await.recv().await
    }

    async fn open(&self, target: &Name) -> Result<MemoryTunnel, RequestError> {
        let unknown = || RequestError::Refused(Refusal::TargetNotConnected.into());
        let mut hub = self.hub.0.lock().unwrap_or_else(PoisonError::into_inner);
        hub.tunnels += 1;
        let id = TunnelId::from_random([hub.tunnels; 16]);
        let [near, far] = pipe::tunnel(1 << 16);
        let to = hub.nodes.get(target).ok_or_else(unknown)?;
        let far = MemoryTunnel {
            id,
            peer: self.name.clone(),
            halves: far,
        };
        to.send(far).map_err(|_| unknown())?;
        Ok(MemoryTunnel {
            id,
            peer: target.clone(),
            halves: near,
        })
    }

    async fn incoming(&self) -> Option<MemoryTunnel> {
        self.incoming.lock().await.recv().await
    }

    async fn close(&self) {
        let mut hub = self.hub.0.lock().unwrap_or_else(PoisonError::into_inner);
        hub.nodes.remove(&self.name);
    }
}

#[derive(Debug)]
pub(crate) struct MemoryTunnel {
    id: TunnelId,
    peer: Name,
    halves: (PipeRecv, PipeSend),
}

impl TunnelHandle for MemoryTunnel {
    type Recv = PipeRecv;
    type Send = PipeSend;

    fn id(&self) -> TunnelId {
        self.id
    }

    fn peer(&self) -> Name {
        self.peer.clone()
    }

    fn relay(&self) -> String {
        "memory:4434".to_owned()
    }

    fn split(self) -> (PipeRecv, PipeSend) {
        self.halves
    }
}
