//! Nodes and a relay wired in memory: each control direction and each stream is a channel of its own, and whoever runs the
//! world picks the channel that delivers next.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use macula_proto::{
    Code, Now, Rng,
    tunnel::{
        ConnKey, Name, StreamKey,
        client::session::{self, RequestError, RequestId, Session, SessionConfig, TunnelEnd},
        relay::{self, Relay, RelayConfig, Report, SpliceEnd, TunnelBytes, TunnelKey},
    },
    wire::control::TunnelId,
};

use crate::start;

/// What can be delivered next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Control bytes to the relay.
    Up(usize),
    /// Control bytes to a node.
    Down(usize),
    /// The next thing on a node's stream.
    Stream(usize, StreamKey),
    /// A node learns that its connection is gone.
    Gone(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OnStream {
    Arrive,
    Prefix(TunnelId),
    Lost,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Opened(TunnelId, StreamKey),
    Failed(RequestError),
}

/// One session of a node; a node that reconnects gets a second one.
pub(crate) struct Node {
    pub(crate) name: Name,
    pub(crate) session: Session,
    pub(crate) conn: ConnKey,
    up: VecDeque<Vec<u8>>,
    down: VecDeque<Vec<u8>>,
    streams: BTreeMap<StreamKey, VecDeque<OnStream>>,
    /// Streams that the relay opened and that are not over.
    open: BTreeSet<StreamKey>,
    /// How many streams it grants.
    pub(crate) grants: usize,
    refused_streams: bool,
    /// Its connection is there, as far as it knows.
    pub(crate) alive: bool,
    gone: bool,
    /// The relay has not been told that the connection is gone.
    known_to_relay: bool,
    /// Nothing is delivered to it.
    pub(crate) stalled: bool,
    pub(crate) asked: BTreeMap<RequestId, Name>,
    pub(crate) outcomes: BTreeMap<RequestId, Outcome>,
    pub(crate) incoming: Vec<(TunnelId, Name, StreamKey)>,
    pub(crate) active: BTreeMap<StreamKey, TunnelId>,
    pub(crate) closed: Option<Code>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Splice {
    #[expect(dead_code, reason = "for messages of failed tests")]
    pub(crate) id: TunnelId,
    pub(crate) requester: (ConnKey, StreamKey),
    pub(crate) target: (ConnKey, StreamKey),
}

pub(crate) struct World {
    pub(crate) now: Now,
    pub(crate) relay: Relay,
    pub(crate) nodes: Vec<Node>,
    pub(crate) reports: Vec<Report>,
    /// The tunnels that are spliced, and all that ever were.
    pub(crate) splices: BTreeMap<TunnelKey, Splice>,
    pub(crate) history: BTreeMap<TunnelId, Splice>,
    pub(crate) reject_codes: Vec<Code>,
    next_stream: u64,
    next_request: u64,
    /// Cuts control messages to pieces.
    scissors: Option<Rng>,
    /// What executing actions caused. It waits until all actions of the list are executed, or else they would be
    /// executed out of order.
    later: VecDeque<Later>,
    executing: bool,
}

enum Later {
    Relay(relay::Event<'static>),
    Node(usize, session::Event<'static>),
}

impl World {
    pub(crate) fn new(config: RelayConfig) -> Self {
        Self {
            now: start(),
            relay: Relay::new(config, Rng::from_seed(7)),
            nodes: Vec::new(),
            reports: Vec::new(),
            splices: BTreeMap::new(),
            history: BTreeMap::new(),
            reject_codes: Vec::new(),
            next_stream: 0,
            next_request: 0,
            scissors: None,
            later: VecDeque::new(),
            executing: false,
        }
    }

    pub(crate) fn cut_messages(&mut self, rng: Rng) {
        self.scissors = Some(rng);
    }

    /// Connects a node; the identify is on its way.
    pub(crate) fn join(&mut self, config: SessionConfig, grants: usize) -> usize {
        let index = self.nodes.len();
        let conn = ConnKey(index as u64);
        self.nodes.push(Node {
            name: config.name.clone(),
            session: Session::new(config).expect("a good name"),
            conn,
            up: VecDeque::new(),
            down: VecDeque::new(),
            streams: BTreeMap::new(),
            open: BTreeSet::new(),
            grants,
            refused_streams: false,
            alive: true,
            gone: false,
            known_to_relay: true,
            stalled: false,
            asked: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            incoming: Vec::new(),
            active: BTreeMap::new(),
            closed: None,
        });
        let remote = ([127, 0, 0, 1], 1000).into();
        self.relay(relay::Event::Connected {
            conn,
            pin: None,
            remote,
        });
        self.node(index, session::Event::Connected);
        index
    }

    /// Connects a node and delivers everything.
    pub(crate) fn join_and_settle(&mut self, name: &str) -> usize {
        let index = self.join(SessionConfig::new(Name::from(name)), 1000);
        self.settle();
        assert!(self.nodes[index].session.status().identified, "{name} is identified");
        index
    }

    pub(crate) fn request(&mut self, node: usize, target: &str) -> RequestId {
        let request = RequestId(self.next_request);
        self.next_request += 1;
        let target = Name::from(target);
        self.nodes[node].asked.insert(request, target.clone());
        self.node(node, session::Event::Request { request, target });
        request
    }

    pub(crate) fn cancel(&mut self, node: usize, request: RequestId) {
        self.node(node, session::Event::Cancel { request });
    }

    /// The local user gives up a tunnel.
    pub(crate) fn abandon(&mut self, node: usize, stream: StreamKey) {
        if self.nodes[node].active.remove(&stream).is_some() {
            let end = TunnelEnd::Abandoned;
            self.node(node, session::Event::TunnelDone { stream, end });
        }
    }

    /// Both users finish a tunnel, if both have it.
    pub(crate) fn finish(&mut self, tunnel: TunnelKey) {
        let Some(&splice) = self.splices.get(&tunnel) else {
            return;
        };
        let ends = [splice.requester, splice.target];
        let both = ends.iter().all(|(conn, stream)| {
            let node = &self.nodes[conn.0 as usize];
            node.active.contains_key(stream)
        });
        if both {
            self.splices.remove(&tunnel);
            for (conn, stream) in ends {
                let node = conn.0 as usize;
                self.nodes[node].active.remove(&stream);
                let end = TunnelEnd::Finished;
                self.node(node, session::Event::TunnelDone { stream, end });
            }
            let bytes = TunnelBytes::default();
            self.relay(relay::Event::TunnelEnded {
                tunnel,
                end: SpliceEnd::Finished,
                bytes,
            });
            for (conn, stream) in ends {
                self.stream_over(conn, stream);
            }
            self.do_later();
        }
    }

    /// A node's connection breaks; the relay does not know yet.
    pub(crate) fn break_connection(&mut self, node: usize) {
        if self.nodes[node].alive {
            self.nodes[node].gone = true;
            self.deliver(Step::Gone(node));
        }
    }

    /// The relay notices that a connection is gone.
    pub(crate) fn relay_notices(&mut self, node: usize) {
        if !self.nodes[node].alive && std::mem::take(&mut self.nodes[node].known_to_relay) {
            let conn = self.nodes[node].conn;
            self.relay(relay::Event::ConnectionLost { conn });
        }
    }

    pub(crate) fn leave(&mut self, node: usize) {
        self.node(node, session::Event::Close);
    }

    /// What can be delivered.
    pub(crate) fn options(&self) -> Vec<Step> {
        let mut options = Vec::new();
        for (index, node) in self.nodes.iter().enumerate().filter(|(_, node)| node.alive) {
            if node.gone {
                options.push(Step::Gone(index));
                continue;
            }
            if !node.up.is_empty() && node.known_to_relay {
                options.push(Step::Up(index));
            }
            if node.stalled {
                continue;
            }
            if !node.down.is_empty() {
                options.push(Step::Down(index));
            }
            options.extend(node.streams.keys().map(|&stream| Step::Stream(index, stream)));
        }
        options
    }

    pub(crate) fn deliver(&mut self, step: Step) {
        match step {
            Step::Up(index) => {
                let bytes = self.nodes[index].up.pop_front().expect("an option");
                let conn = self.nodes[index].conn;
                self.relay(relay::Event::ControlBytes { conn, bytes: &bytes });
            }
            Step::Down(index) => {
                let bytes = self.nodes[index].down.pop_front().expect("an option");
                self.node(index, session::Event::ControlBytes(&bytes));
            }
            Step::Stream(index, stream) => {
                let channel = self.nodes[index].streams.get_mut(&stream).expect("an option");
                let item = channel.pop_front().expect("no empty channels");
                if channel.is_empty() {
                    self.nodes[index].streams.remove(&stream);
                }
                let event = match item {
                    OnStream::Arrive => session::Event::StreamArrived { stream },
                    OnStream::Prefix(id) => session::Event::Prefix { stream, id },
                    OnStream::Lost => session::Event::StreamLost { stream },
                };
                self.node(index, event);
            }
            Step::Gone(index) => {
                let node = &mut self.nodes[index];
                node.alive = false;
                node.up.clear();
                node.down.clear();
                node.streams.clear();
                node.open.clear();
                node.active.clear();
                self.node(index, session::Event::ConnectionLost);
                assert!(self.nodes[index].session.is_empty(), "a session is empty after its end");
            }
        }
    }

    /// Delivers everything, the first option first.
    pub(crate) fn settle(&mut self) {
        for _ in 0..100_000 {
            match self.options().first() {
                Some(&step) => self.deliver(step),
                None => return,
            }
        }
        panic!("the world does not come to rest");
    }

    /// Moves the clock to the next deadline and fires it; false if there is none.
    pub(crate) fn next_timeout(&mut self) -> bool {
        let sessions = self.nodes.iter().filter_map(|node| node.session.poll_timeout());
        let Some(at) = sessions.chain(self.relay.poll_timeout()).min() else {
            return false;
        };
        self.advance(at.saturating_duration_since(self.now.mono));
        true
    }

    /// Moves the clock and fires what is due.
    pub(crate) fn advance(&mut self, by: std::time::Duration) {
        self.now = self.now.after(by);
        let due = |at: Option<std::time::Instant>, now: Now| at.is_some_and(|at| at <= now.mono);
        if due(self.relay.poll_timeout(), self.now) {
            self.relay(relay::Event::Timeout);
            assert!(!due(self.relay.poll_timeout(), self.now), "the next deadline is later");
        }
        for index in 0..self.nodes.len() {
            if due(self.nodes[index].session.poll_timeout(), self.now) {
                self.node(index, session::Event::Timeout);
                let next = self.nodes[index].session.poll_timeout();
                assert!(!due(next, self.now), "the next deadline is later");
            }
        }
    }

    pub(crate) fn relay(&mut self, event: relay::Event<'_>) {
        let mut actions = Vec::new();
        self.relay.handle(self.now, event, &mut actions);
        let outermost = !std::mem::replace(&mut self.executing, true);
        assert!(outermost, "events wait until the actions are executed");
        for action in actions {
            self.relay_action(action);
        }
        self.executing = false;
        self.do_later();
    }

    fn do_later(&mut self) {
        match self.later.pop_front() {
            Some(Later::Relay(event)) => self.relay(event),
            Some(Later::Node(index, event)) => self.node(index, event),
            None => {}
        }
    }

    fn relay_action(&mut self, action: relay::Action) {
        use relay::Action;
        match action {
            Action::SendControl { conn, bytes } => {
                let pieces = self.cut(&bytes);
                self.nodes[conn.0 as usize].down.extend(pieces);
            }
            Action::OpenStream { conn, ticket } => {
                let node = &mut self.nodes[conn.0 as usize];
                if node.open.len() < node.grants {
                    let stream = StreamKey(self.next_stream);
                    self.next_stream += 1;
                    node.open.insert(stream);
                    self.relay_later(relay::Event::StreamOpened { ticket, stream });
                } else {
                    node.refused_streams = true;
                    self.relay_later(relay::Event::StreamUnavailable { ticket });
                }
            }
            Action::Splice {
                tunnel,
                id,
                requester,
                target,
                ..
            } => {
                let splice = Splice { id, requester, target };
                self.splices.insert(tunnel, splice);
                assert!(self.history.insert(id, splice).is_none(), "ids are not used twice");
                for (conn, stream) in [requester, target] {
                    let node = &mut self.nodes[conn.0 as usize];
                    if node.alive {
                        node.streams
                            .insert(stream, [OnStream::Arrive, OnStream::Prefix(id)].into());
                    }
                }
            }
            // Nothing was written: the node sees at most a reset, which it need not be told.
            Action::DropStream { conn, stream, .. } => self.stream_over(conn, stream),
            Action::EndTunnel { tunnel, .. } => {
                let splice = self.splices.remove(&tunnel).expect("a tunnel ends once");
                self.reset(splice.requester);
                self.reset(splice.target);
            }
            Action::CloseConnection { conn, code, .. } => {
                let node = &mut self.nodes[conn.0 as usize];
                node.closed = Some(code);
                node.gone = true;
                assert!(std::mem::take(&mut node.known_to_relay), "a connection is closed once");
                self.relay_later(relay::Event::ConnectionLost { conn });
            }
            Action::Report(report) => self.reports.push(report),
        }
    }

    /// A stream is reset towards a node: what was not delivered may never be.
    fn reset(&mut self, (conn, stream): (ConnKey, StreamKey)) {
        let index = conn.0 as usize;
        let node = &mut self.nodes[index];
        if let Some(channel) = node.streams.get_mut(&stream) {
            for item in channel.iter_mut().filter(|item| matches!(item, OnStream::Prefix(_))) {
                *item = OnStream::Lost;
            }
        }
        if node.active.remove(&stream).is_some() {
            let end = TunnelEnd::Finished;
            self.later
                .push_back(Later::Node(index, session::Event::TunnelDone { stream, end }));
        }
        self.stream_over(conn, stream);
    }

    fn stream_over(&mut self, conn: ConnKey, stream: StreamKey) {
        let node = &mut self.nodes[conn.0 as usize];
        if node.open.remove(&stream) && node.known_to_relay && std::mem::take(&mut node.refused_streams) {
            self.relay_later(relay::Event::StreamsAvailable { conn });
        }
    }

    fn relay_later(&mut self, event: relay::Event<'static>) {
        self.later.push_back(Later::Relay(event));
    }

    pub(crate) fn node(&mut self, index: usize, event: session::Event<'_>) {
        let mut actions = Vec::new();
        self.nodes[index].session.handle(self.now, event, &mut actions);
        let outermost = !std::mem::replace(&mut self.executing, true);
        assert!(outermost, "events wait until the actions are executed");
        for action in actions {
            self.node_action(index, action);
        }
        self.executing = false;
        self.do_later();
    }

    fn node_action(&mut self, index: usize, action: session::Action) {
        use session::Action;
        match action {
            Action::SendControl(bytes) => {
                let pieces = self.cut(&bytes);
                self.nodes[index].up.extend(pieces);
            }
            Action::RejectStream { stream, code } => {
                self.reject_codes.push(code);
                self.rejected(index, stream, code);
            }
            Action::Identified => {}
            Action::Opened {
                request,
                tunnel,
                stream,
            } => {
                self.handed_out(index, tunnel, stream);
                self.outcome(index, request, Outcome::Opened(tunnel, stream));
            }
            Action::RequestFailed { request, error } => self.outcome(index, request, Outcome::Failed(error)),
            Action::Incoming { tunnel, source, stream } => {
                self.handed_out(index, tunnel, stream);
                self.nodes[index].incoming.push((tunnel, source, stream));
            }
            Action::Close { code, .. } => {
                let node = &mut self.nodes[index];
                node.closed.get_or_insert(code);
                node.gone = true;
                if std::mem::take(&mut node.known_to_relay) {
                    let conn = node.conn;
                    self.relay_later(relay::Event::ConnectionLost { conn });
                }
            }
        }
    }

    /// The user gets a stream; it may have been reset already.
    fn handed_out(&mut self, index: usize, tunnel: TunnelId, stream: StreamKey) {
        let node = &mut self.nodes[index];
        if node.open.contains(&stream) {
            node.active.insert(stream, tunnel);
        } else {
            let end = TunnelEnd::Finished;
            self.later
                .push_back(Later::Node(index, session::Event::TunnelDone { stream, end }));
        }
    }

    /// A node rejects its end of a tunnel: the relay passes that on.
    fn rejected(&mut self, index: usize, stream: StreamKey, code: Code) {
        let end = (self.nodes[index].conn, stream);
        let found = self
            .splices
            .iter()
            .find(|(_, splice)| splice.requester == end || splice.target == end);
        let Some((&tunnel, &splice)) = found else { return };
        self.splices.remove(&tunnel);
        let other = if splice.requester == end {
            splice.target
        } else {
            splice.requester
        };
        let bytes = TunnelBytes::default();
        self.relay_later(relay::Event::TunnelEnded {
            tunnel,
            end: SpliceEnd::Reset(code),
            bytes,
        });
        self.stream_over(end.0, end.1);
        self.reset(other);
    }

    /// Every request has one outcome, and a tunnel leads where it was asked to lead.
    fn outcome(&mut self, index: usize, request: RequestId, outcome: Outcome) {
        let node = &mut self.nodes[index];
        let target = node.asked.get(&request).expect("a request that was made");
        if let Outcome::Opened(tunnel, _) = &outcome {
            let opened = self.reports.iter().find_map(|report| match report {
                Report::TunnelOpened { id, source, target, .. } if id == tunnel => Some((source, target)),
                _ => None,
            });
            assert_eq!(opened, Some((&node.name, target)), "the tunnel that was asked for");
        }
        let earlier = node.outcomes.insert(request, outcome);
        assert_eq!(earlier, None, "one outcome for {request:?}");
    }

    fn cut(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        match &mut self.scissors {
            Some(rng) => {
                let (left, right) = bytes.split_at(rng.below(bytes.len() as u64) as usize);
                [left, right]
                    .into_iter()
                    .filter(|piece| !piece.is_empty())
                    .map(<[u8]>::to_vec)
                    .collect()
            }
            None => vec![bytes.to_vec()],
        }
    }
}
