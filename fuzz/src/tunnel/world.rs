//! A relay and its nodes, with the bytes between them delivered in whatever order the input says.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use arbitrary::{Arbitrary, Unstructured};
use macula_proto::{
    Now, Rng,
    tunnel::{
        ConnKey, Name, StreamKey,
        client::session::{self, RequestId, Session, SessionConfig, TunnelEnd},
        relay::{self, Relay, RelayConfig, SpliceEnd, Takeover, TunnelBytes, TunnelKey},
    },
    wire::control::TunnelId,
};

use crate::script::{ms, operations, pick, start};

/// Nodes at once, and in all.
const NODES: usize = 6;
const NAMES: u8 = 4;

#[derive(Debug, Arbitrary)]
enum Op {
    Join {
        name: u8,
        grants: u8,
    },
    Request {
        node: u8,
        target: u8,
    },
    Cancel {
        node: u8,
        request: u8,
    },
    /// So many bytes of control messages.
    Up {
        node: u8,
        most: u8,
    },
    Down {
        node: u8,
        most: u8,
    },
    /// The next thing on the how-manieth stream that has something.
    Stream {
        node: u8,
        stream: u8,
    },
    Abandon {
        node: u8,
        stream: u8,
    },
    Finish {
        tunnel: u8,
    },
    /// The connection breaks, and the relay notices at once or never by itself.
    Break {
        node: u8,
        noticed: bool,
    },
    Sleep(u8),
    Grant {
        node: u8,
        more: u8,
    },
    Leave {
        node: u8,
    },
    Drain,
}

#[derive(Debug, Clone, Copy)]
enum OnStream {
    Arrive,
    Prefix(TunnelId),
    Lost,
}

struct Node {
    conn: ConnKey,
    session: Session,
    up: VecDeque<u8>,
    down: VecDeque<u8>,
    streams: BTreeMap<StreamKey, VecDeque<OnStream>>,
    open: BTreeSet<StreamKey>,
    grants: usize,
    wants_streams: bool,
    alive: bool,
    at_relay: bool,
    asked: Vec<RequestId>,
    outcomes: BTreeSet<RequestId>,
    active: Vec<(StreamKey, TunnelId)>,
}

#[derive(Debug, Clone, Copy)]
struct Splice {
    id: TunnelId,
    ends: [(ConnKey, StreamKey); 2],
}

enum Later {
    Relay(relay::Event<'static>),
    Node(usize, session::Event<'static>),
}

struct World {
    now: Now,
    relay: Relay,
    nodes: Vec<Node>,
    splices: BTreeMap<TunnelKey, Splice>,
    history: BTreeMap<TunnelId, Splice>,
    later: VecDeque<Later>,
    streams: u64,
    requests: u64,
    draining: bool,
}

/// Nodes come, ask for tunnels to each other, break and leave, and every delivery is late in its own way. A tunnel that both
/// were handed is the two ends of one splice; each request has one outcome; and when all are gone nothing is left at the relay
/// nor at any node.
pub fn tunnels(data: &[u8]) {
    let mut data = Unstructured::new(data);
    let Ok(refuse) = data.arbitrary::<bool>() else { return };
    let mut config = RelayConfig::default();
    config.limits.tunnels_per_connection = 4;
    config.limits.pending_requests = 3;
    if refuse {
        config.takeover = Takeover::Refuse;
    }
    let mut world = World {
        now: start(),
        relay: Relay::new(config, Rng::from_seed(7)),
        nodes: Vec::new(),
        splices: BTreeMap::new(),
        history: BTreeMap::new(),
        later: VecDeque::new(),
        streams: 0,
        requests: 0,
        draining: false,
    };
    for op in operations::<Op>(data, 500) {
        world.apply(op);
        world.settle_events();
    }
    world.finish();
}

impl World {
    fn at(&self, node: u8) -> Option<usize> {
        let alive: Vec<_> = (0..self.nodes.len()).filter(|&at| self.nodes[at].alive).collect();
        pick(&alive, node).copied()
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Join { name, grants } => self.join(name, grants),
            Op::Request { node, target } => {
                let Some(at) = self.at(node) else { return };
                let request = RequestId(self.requests);
                self.requests += 1;
                self.nodes[at].asked.push(request);
                let target = Name::new(&[b'a' + target % NAMES]);
                self.node(at, session::Event::Request { request, target });
            }
            Op::Cancel { node, request } => {
                let Some(at) = self.at(node) else { return };
                if let Some(&request) = pick(&self.nodes[at].asked, request) {
                    self.node(at, session::Event::Cancel { request });
                }
            }
            Op::Up { node, most } => {
                let Some(at) = self.at(node).filter(|&at| self.nodes[at].at_relay) else {
                    return;
                };
                let node = &mut self.nodes[at];
                let bytes: Vec<_> = node.up.drain(..node.up.len().min(usize::from(most) + 1)).collect();
                let conn = node.conn;
                self.relay(relay::Event::ControlBytes { conn, bytes: &bytes });
            }
            Op::Down { node, most } => {
                let Some(at) = self.at(node) else { return };
                let node = &mut self.nodes[at];
                let bytes: Vec<_> = node.down.drain(..node.down.len().min(usize::from(most) + 1)).collect();
                self.node(at, session::Event::ControlBytes(&bytes));
            }
            Op::Stream { node, stream } => {
                let Some(at) = self.at(node) else { return };
                let streams: Vec<_> = self.nodes[at].streams.keys().copied().collect();
                if let Some(&stream) = pick(&streams, stream) {
                    self.deliver(at, stream);
                }
            }
            Op::Abandon { node, stream } => {
                let Some(at) = self.at(node) else { return };
                let active = &self.nodes[at].active;
                let Some(&(stream, _)) = pick(active, stream) else {
                    return;
                };
                self.nodes[at].active.retain(|(active, _)| *active != stream);
                self.node(
                    at,
                    session::Event::TunnelDone {
                        stream,
                        end: TunnelEnd::Abandoned,
                    },
                );
            }
            Op::Finish { tunnel } => {
                let tunnels: Vec<_> = self.splices.keys().copied().collect();
                if let Some(&tunnel) = pick(&tunnels, tunnel) {
                    self.finish_tunnel(tunnel);
                }
            }
            Op::Break { node, noticed } => {
                let Some(at) = self.at(node) else { return };
                self.break_connection(at);
                if noticed {
                    self.relay_notices(at);
                }
            }
            Op::Sleep(steps) => self.wait(self.now.after(ms(u64::from(steps) * 200))),
            Op::Grant { node, more } => {
                let Some(at) = self.at(node) else { return };
                self.nodes[at].grants += usize::from(more % 8);
                self.tell_room(at);
            }
            Op::Leave { node } => {
                let Some(at) = self.at(node) else { return };
                self.node(at, session::Event::Close);
            }
            Op::Drain => {
                self.draining = true;
                self.relay(relay::Event::Drain);
            }
        }
    }

    fn join(&mut self, name: u8, grants: u8) {
        if self.nodes.iter().filter(|node| node.alive).count() >= NODES || self.nodes.len() >= 40 {
            return;
        }
        let at = self.nodes.len();
        let conn = ConnKey(at as u64);
        let config = SessionConfig::new(Name::new(&[b'a' + name % NAMES]));
        self.nodes.push(Node {
            conn,
            session: Session::new(config).expect("a good name"),
            up: VecDeque::new(),
            down: VecDeque::new(),
            streams: BTreeMap::new(),
            open: BTreeSet::new(),
            grants: usize::from(grants % 8),
            wants_streams: false,
            alive: true,
            at_relay: true,
            asked: Vec::new(),
            outcomes: BTreeSet::new(),
            active: Vec::new(),
        });
        let remote = ([127, 0, 0, 1], 1000).into();
        self.relay(relay::Event::Connected {
            conn,
            pin: None,
            remote,
        });
        self.node(at, session::Event::Connected);
    }

    fn deliver(&mut self, at: usize, stream: StreamKey) {
        let Some(channel) = self.nodes[at].streams.get_mut(&stream) else {
            return;
        };
        let item = channel.pop_front();
        if channel.is_empty() {
            self.nodes[at].streams.remove(&stream);
        }
        match item {
            Some(OnStream::Arrive) => self.node(at, session::Event::StreamArrived { stream }),
            Some(OnStream::Prefix(id)) => self.node(at, session::Event::Prefix { stream, id }),
            Some(OnStream::Lost) => self.node(at, session::Event::StreamLost { stream }),
            None => {}
        }
    }

    fn finish_tunnel(&mut self, tunnel: TunnelKey) {
        let splice = self.splices[&tunnel];
        let has = |(conn, stream): (ConnKey, StreamKey)| {
            self.nodes[conn.0 as usize]
                .active
                .iter()
                .any(|(active, _)| *active == stream)
        };
        if !splice.ends.into_iter().all(has) {
            return;
        }
        self.splices.remove(&tunnel);
        for (conn, stream) in splice.ends {
            let at = conn.0 as usize;
            self.nodes[at].active.retain(|(active, _)| *active != stream);
            self.node(
                at,
                session::Event::TunnelDone {
                    stream,
                    end: TunnelEnd::Finished,
                },
            );
        }
        let (end, bytes) = (SpliceEnd::Finished, TunnelBytes::default());
        self.relay(relay::Event::TunnelEnded { tunnel, end, bytes });
        splice.ends.into_iter().for_each(|end| self.stream_over(end));
    }

    fn break_connection(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        if !std::mem::take(&mut node.alive) {
            return;
        }
        (node.up, node.down) = Default::default();
        node.streams.clear();
        node.open.clear();
        node.active.clear();
        self.node(at, session::Event::ConnectionLost);
        let node = &self.nodes[at];
        assert!(node.session.is_empty(), "a session keeps something after its end");
        assert_eq!(node.asked.len(), node.outcomes.len(), "requests without an outcome");
    }

    fn relay_notices(&mut self, at: usize) {
        if std::mem::take(&mut self.nodes[at].at_relay) {
            let conn = self.nodes[at].conn;
            self.relay(relay::Event::ConnectionLost { conn });
        }
    }

    fn wait(&mut self, until: Now) {
        self.now = until;
        let due = |at: Option<std::time::Instant>| at.is_some_and(|at| at <= until.mono);
        if due(self.relay.poll_timeout()) {
            self.relay(relay::Event::Timeout);
            assert!(!due(self.relay.poll_timeout()), "a deadline that is over");
        }
        for at in 0..self.nodes.len() {
            if due(self.nodes[at].session.poll_timeout()) {
                self.node(at, session::Event::Timeout);
                assert!(!due(self.nodes[at].session.poll_timeout()), "a deadline that is over");
            }
        }
    }

    fn settle_events(&mut self) {
        while let Some(later) = self.later.pop_front() {
            match later {
                Later::Relay(event) => self.relay(event),
                Later::Node(at, event) => self.node(at, event),
            }
        }
    }

    fn relay(&mut self, event: relay::Event<'_>) {
        let mut actions = Vec::new();
        self.relay.handle(self.now, event, &mut actions);
        for action in actions {
            self.relay_action(action);
        }
    }

    fn relay_action(&mut self, action: relay::Action) {
        use relay::Action;
        match action {
            Action::SendControl { conn, bytes } => {
                let node = self.at_relay(conn);
                node.down.extend(bytes);
            }
            Action::OpenStream { conn, ticket } => {
                let stream = StreamKey(self.streams);
                self.streams += 1;
                let node = self.at_relay(conn);
                let event = if node.open.len() < node.grants {
                    node.open.insert(stream);
                    relay::Event::StreamOpened { ticket, stream }
                } else {
                    node.wants_streams = true;
                    relay::Event::StreamUnavailable { ticket }
                };
                self.later.push_back(Later::Relay(event));
            }
            Action::Splice {
                tunnel,
                id,
                requester,
                target,
                ..
            } => {
                let splice = Splice {
                    id,
                    ends: [requester, target],
                };
                assert!(self.splices.insert(tunnel, splice).is_none(), "a key is used twice");
                assert!(self.history.insert(id, splice).is_none(), "an id is used twice");
                for (conn, stream) in splice.ends {
                    let node = self.at_relay(conn);
                    if node.alive {
                        node.streams
                            .insert(stream, [OnStream::Arrive, OnStream::Prefix(id)].into());
                    }
                }
            }
            Action::DropStream { conn, stream, .. } => self.stream_over((conn, stream)),
            Action::EndTunnel { tunnel, .. } => {
                let splice = self.splices.remove(&tunnel).expect("a tunnel ends once");
                splice.ends.into_iter().for_each(|end| self.reset(end));
            }
            Action::CloseConnection { conn, .. } => {
                let at = conn.0 as usize;
                assert!(
                    std::mem::take(&mut self.nodes[at].at_relay),
                    "a connection is closed once"
                );
                self.later
                    .push_back(Later::Relay(relay::Event::ConnectionLost { conn }));
                self.later.push_back(Later::Node(at, session::Event::ConnectionLost));
            }
            Action::Report(_) => {}
        }
    }

    fn at_relay(&mut self, conn: ConnKey) -> &mut Node {
        let node = &mut self.nodes[conn.0 as usize];
        assert!(node.at_relay, "to a connection that is gone");
        node
    }

    fn reset(&mut self, (conn, stream): (ConnKey, StreamKey)) {
        let at = conn.0 as usize;
        let node = &mut self.nodes[at];
        if let Some(channel) = node.streams.get_mut(&stream) {
            for item in channel.iter_mut().filter(|item| matches!(item, OnStream::Prefix(_))) {
                *item = OnStream::Lost;
            }
        }
        if node.active.iter().any(|(active, _)| *active == stream) {
            node.active.retain(|(active, _)| *active != stream);
            let end = TunnelEnd::Finished;
            self.later
                .push_back(Later::Node(at, session::Event::TunnelDone { stream, end }));
        }
        self.stream_over((conn, stream));
    }

    fn stream_over(&mut self, (conn, stream): (ConnKey, StreamKey)) {
        let at = conn.0 as usize;
        if self.nodes[at].open.remove(&stream) {
            self.tell_room(at);
        }
    }

    fn tell_room(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        if node.at_relay && node.open.len() < node.grants && std::mem::take(&mut node.wants_streams) {
            let conn = node.conn;
            self.later
                .push_back(Later::Relay(relay::Event::StreamsAvailable { conn }));
        }
    }

    fn node(&mut self, at: usize, event: session::Event<'_>) {
        if matches!(event, session::Event::ConnectionLost) && self.nodes[at].alive {
            return self.break_connection(at);
        }
        let mut actions = Vec::new();
        self.nodes[at].session.handle(self.now, event, &mut actions);
        for action in actions {
            self.node_action(at, action);
        }
    }

    fn node_action(&mut self, at: usize, action: session::Action) {
        use session::Action;
        let node = &mut self.nodes[at];
        match action {
            Action::SendControl(bytes) => node.up.extend(bytes),
            Action::Identified => {}
            Action::RejectStream { stream, .. } => {
                node.streams.remove(&stream);
                // The relay's splice ends with the stream.
                let end = (self.nodes[at].conn, stream);
                let found = self.splices.iter().find(|(_, splice)| splice.ends.contains(&end));
                let Some((&tunnel, &splice)) = found else { return };
                self.splices.remove(&tunnel);
                splice.ends.into_iter().for_each(|end| self.reset(end));
                let end = SpliceEnd::Finished;
                let bytes = TunnelBytes::default();
                self.later
                    .push_back(Later::Relay(relay::Event::TunnelEnded { tunnel, end, bytes }));
            }
            Action::Opened {
                request,
                tunnel,
                stream,
            } => {
                assert!(node.outcomes.insert(request), "a second outcome");
                node.active.push((stream, tunnel));
                let end = (node.conn, stream);
                let ends = self.history[&tunnel].ends;
                assert!(ends.contains(&end), "a tunnel with a stream of another one");
            }
            Action::RequestFailed { request, .. } => assert!(node.outcomes.insert(request), "a second outcome"),
            Action::Incoming { tunnel, stream, .. } => {
                node.active.push((stream, tunnel));
                let end = (node.conn, stream);
                let splice = self.history[&tunnel];
                assert_eq!(splice.id, tunnel);
                assert!(splice.ends.contains(&end), "a tunnel with a stream of another one");
            }
            Action::Close { .. } => self.later.push_back(Later::Node(at, session::Event::ConnectionLost)),
        }
    }

    /// Everybody goes.
    fn finish(&mut self) {
        self.settle_events();
        for at in 0..self.nodes.len() {
            self.break_connection(at);
            self.settle_events();
            self.relay_notices(at);
            self.settle_events();
        }
        assert!(
            self.relay.is_empty(),
            "the relay keeps something of nodes that are gone"
        );
        assert!(self.splices.is_empty(), "tunnels of nodes that are gone");
        assert!(
            self.draining || self.relay.poll_timeout().is_none(),
            "a deadline for nobody"
        );
    }
}
