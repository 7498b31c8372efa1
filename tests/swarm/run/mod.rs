//! One seed: a world drawn from it, what its hosts do, what goes wrong, and whether everything is as it must be.
//!
//! The plan of a world (its hosts, links, faults and what is asked of it) is drawn before anything runs. While it runs, models
//! keep account of what goes in and what comes out: [`streams`] of bytes through tunnels and plain connections, some of them sent
//! early, [`calls`] between two and through routers, [`frames`] between peers, [`messages`] between nodes of Erlang distribution
//! and [`dist_streams`] beside them, and relays that [`drain`]. When the faults are over everything has to come
//! to an end in time; then everything is closed, and nothing may be left.

#![allow(unreachable_pub, dead_code, reason = "shared by a test, a program and a bench")]

mod boot;
mod calls;
mod dist_streams;
mod drain;
mod end;
mod errors;
mod frames;
mod messages;
mod plan;
mod streams;

use std::{collections::BTreeMap, time::Duration};

use macula_proto::{
    Event, Rng,
    endpoint::{ClientEvent, ClientId, RpcEvent},
    quic::{self, ConnectionHandle, DialConfig},
    sim::{Detail, Fault, Happening, HostId, World},
    tunnel::client::supervisor,
};

use calls::Calls;
use dist_streams::DistStreams;
use drain::Drains;
pub use errors::install as count_errors;
use frames::Frames;
use messages::Messages;
use plan::Action;
pub use plan::Plan;
use streams::Streams;

/// How a seed is run.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Simulated seconds until everything is closed, at least.
    pub seconds: u64,
    /// How much of the trace is kept.
    pub detail: Detail,
}

/// What became of a seed.
#[derive(Debug)]
pub struct Outcome {
    pub seed: u64,
    pub simulated: Duration,
    pub digest: u128,
    pub records: u64,
    /// What went wrong first.
    pub failure: Option<String>,
    pub done: Done,
}

/// What was done in a world.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    pub faults: u64,
    pub streams: u64,
    pub bytes: u64,
    pub calls: u64,
    pub frames: u64,
    pub messages: u64,
    /// Streams beside the messages.
    pub dist_streams: u64,
    /// Calls through routers.
    pub routed: u64,
    /// Connections on which something was sent early and taken, and those where it was not.
    pub early: [u64; 2],
    /// Relays that have drained.
    pub drained: u64,
    pub datagrams: u64,
}

/// One start of a host: what belongs to an earlier one is gone.
pub type Start = (HostId, u64);

/// A world that is run.
pub struct Run {
    pub world: World,
    pub plan: Plan,
    hosts: Vec<HostState>,
    streams: Streams,
    calls: Calls,
    frames: Frames,
    messages: Messages,
    dist_streams: DistStreams,
    drains: Drains,
    /// Connections in the hands of the program: whether they have ended.
    conns: BTreeMap<(Start, ConnectionHandle), bool>,
    /// For choices while it runs; the models are the same with others.
    rng: Rng,
    faults: u64,
    closing: bool,
    failure: Option<String>,
}

/// What the program knows of a host.
#[derive(Debug, Default)]
struct HostState {
    start: u64,
    client: Option<ClientId>,
    /// Whether its node is connected to a relay.
    up: bool,
    /// How it dials plain connections.
    plain: Option<DialConfig>,
}

/// Runs a seed. The second is the world after it, for its trace.
pub fn run(seed: u64, options: Options) -> (Outcome, World) {
    let plan = Plan::draw(seed, options.seconds);
    let mut run = Run::new(plan, options);
    errors::take();
    run.go(options);
    if let Some(error) = errors::take() {
        run.fail(format!("an error was logged: {error}"));
    }
    run.outcome()
}

impl Run {
    fn new(plan: Plan, options: Options) -> Self {
        let mut world = World::new(plan.seed);
        world.trace_mut().set_detail(options.detail);
        let rng = world.rng("choices");
        let mut run = Self {
            streams: Streams::default(),
            calls: Calls::default(),
            frames: Frames::default(),
            messages: Messages::default(),
            dist_streams: DistStreams::default(),
            drains: Drains::default(),
            hosts: Vec::new(),
            conns: BTreeMap::new(),
            rng,
            faults: 0,
            closing: false,
            failure: None,
            world,
            plan,
        };
        run.build();
        run
    }

    fn outcome(self) -> (Outcome, World) {
        let outcome = Outcome {
            seed: self.plan.seed,
            simulated: self.world.elapsed(),
            digest: self.world.trace().digest(),
            records: self.world.trace().len(),
            failure: self.failure,
            done: Done {
                faults: self.faults,
                streams: self.streams.count(),
                bytes: self.streams.bytes() + self.dist_streams.bytes(),
                calls: self.calls.count(),
                frames: self.frames.count(),
                messages: self.messages.count(),
                dist_streams: self.dist_streams.count(),
                routed: self.calls.routed(),
                early: self.streams.early(),
                drained: self.drains.count(),
                datagrams: self.world.stats().sent,
            },
        };
        (outcome, self.world)
    }

    /// Notes what went wrong; the first counts.
    pub fn fail(&mut self, what: String) {
        let at = self.world.elapsed();
        self.failure.get_or_insert_with(|| format!("after {at:?}: {what}"));
    }

    pub fn start_of(&self, host: HostId) -> Start {
        (host, self.hosts[host.get() as usize].start)
    }

    fn go(&mut self, options: Options) {
        let end = Duration::from_secs(options.seconds);
        self.run_until(end, |_| false);
        // What was begun has as long as the slowest time-outs need.
        let last = end + self.plan.patience;
        self.run_until(last, Self::is_content);
        if self.failure.is_none() && !self.is_content() {
            let open = self.open();
            self.fail(format!("no end: {}", open.join("; ")));
        }
        self.check_complete();
        self.close_everything();
    }

    /// Nothing that was begun is without its end.
    fn is_content(&self) -> bool {
        self.streams.is_content()
            && self.calls.is_content()
            && self.frames.is_content()
            && self.messages.is_content()
            && self.dist_streams.is_content()
    }

    /// What was begun and has no end.
    fn open(&self) -> Vec<String> {
        [
            self.streams.open(),
            self.calls.open(),
            self.frames.open(),
            self.messages.open(),
            self.dist_streams.open(),
        ]
        .concat()
    }

    fn run_until(&mut self, until: Duration, done: impl Fn(&Self) -> bool) {
        while self.failure.is_none() && !done(self) {
            let Some(happening) = self.world.next(until) else {
                break;
            };
            self.on(happening);
        }
        if let Some(violation) = self.world.violations().first() {
            self.fail(violation.to_string());
        }
    }

    fn on(&mut self, happening: Happening) {
        match happening {
            Happening::Event { host, event } => self.on_event(host, event),
            Happening::Fault(fault) => self.on_fault(fault),
            Happening::Wake(token) => self.on_wake(token),
            _ => {}
        }
    }

    fn on_fault(&mut self, fault: Fault) {
        self.faults += 1;
        match fault {
            Fault::Crash(host) => self.gone(host),
            Fault::Restart(host) => {
                self.gone(host);
                self.hosts[host.get() as usize].start += 1;
                self.boot(host);
            }
            _ => {}
        }
    }

    /// Everything at a host is gone without a word.
    fn gone(&mut self, host: HostId) {
        let start = self.start_of(host);
        self.streams.gone(start);
        self.calls.gone(start);
        self.frames.gone(start);
        self.messages.gone(start);
        self.dist_streams.gone(start);
        self.drains.gone(start);
        self.conns.retain(|(at, _), _| *at != start);
        let host = &mut self.hosts[host.get() as usize];
        (host.up, host.plain) = (false, None);
    }

    fn on_wake(&mut self, token: u64) {
        let Some(action) = usize::try_from(token)
            .ok()
            .and_then(|index| self.plan.actions.get(index))
        else {
            return self.look_around();
        };
        if self.closing {
            return;
        }
        match action.clone() {
            Action::Tunnel(transfer) => self.open_tunnel(transfer),
            Action::Plain(transfer) => self.open_plain(transfer),
            Action::Resume(number) => self.resume(number),
            Action::DialPeer { from, to } => self.dial_peer(from, to),
            Action::Frames { from, count, size } => self.send_frames(from, count, size),
            Action::LeavePeer { from } => self.leave_peer(from),
            Action::DialRpc { from, to } => self.dial_rpc(from, to),
            Action::Call(call) => self.open_calls(&call),
            Action::DialDist { from, to } => self.dial_dist(from, to),
            Action::Messages { from, count, size } => self.send_messages(from, count, size),
            Action::LeaveDist { from } => self.leave_dist(from),
            Action::DistStream(stream) => self.open_dist_stream(stream),
            Action::DialRouter { from, relay } => self.dial_router(from, relay),
            Action::Drain(relay) => self.drain(relay),
        }
    }

    fn on_event(&mut self, host: HostId, event: Event) {
        let start = self.start_of(host);
        match event {
            Event::Quic(event) => self.on_quic(start, event),
            Event::Client { event, .. } => self.on_client(start, event),
            Event::Peer { peer, event } => self.on_peer(start, peer, event),
            Event::Rpc(event) => self.on_rpc(start, event),
            Event::Dist { dist, event } => self.on_dist(start, dist, event),
            Event::Relay(report) => self.on_report(start, &report),
            _ => {}
        }
    }

    fn on_client(&mut self, start: Start, event: ClientEvent) {
        match event {
            ClientEvent::Opened {
                request, conn, stream, ..
            } => {
                self.tunnel_opened(start, request, conn, stream);
            }
            ClientEvent::Failed { request, error } => self.tunnel_failed(start, request, &error.to_string()),
            ClientEvent::Incoming { conn, stream, .. } => self.tunnel_arrived(start, conn, stream),
            ClientEvent::Relay(supervisor::Report::Up { .. }) => self.hosts[start.0.get() as usize].up = true,
            ClientEvent::Relay(supervisor::Report::Down { .. }) => self.hosts[start.0.get() as usize].up = false,
            ClientEvent::Disconnected { reason, .. } => self.judge_end(start, &reason),
            _ => {}
        }
    }

    fn on_quic(&mut self, start: Start, event: quic::Event) {
        if let Some(conn) = event.connection() {
            let over = self.conns.entry((start, conn)).or_insert(false);
            if *over {
                return self.fail(format!("{}: after the end of its connection: {event:?}", start.0));
            }
            *over = matches!(event, quic::Event::Closed { .. });
        }
        match event {
            quic::Event::Connected { conn, side, .. } => self.plain_connected(start, conn, side),
            quic::Event::EarlyDataRejected { conn } => self.early_data_rejected(start, conn),
            quic::Event::StreamOpened { conn, stream } => self.plain_arrived(start, conn, stream),
            quic::Event::Readable { conn, stream } => self.read(start, conn, stream),
            quic::Event::Writable { conn, stream } => self.write(start, conn, stream),
            quic::Event::Reset { conn, stream, code } => self.was_reset(start, conn, stream, code),
            quic::Event::Stopped { conn, stream, .. } => self.was_stopped(start, conn, stream),
            quic::Event::Over { conn, stream } => self.stream_over(start, conn, stream),
            quic::Event::Closed { conn, reason, .. } => {
                self.judge_end(start, &reason);
                // No connection survives another address before its handshake is complete (RFC 9000, section 9).
                let behind_nat = self.plan.nats[start.0.get() as usize].is_some();
                let why = if behind_nat {
                    streams::EXCUSED.to_owned()
                } else {
                    reason.to_string()
                };
                self.streams.connection_lost(start, conn, &why);
            }
            _ => {}
        }
    }

    /// Every second: whether what waits anywhere is within its bounds.
    fn look_around(&mut self) {
        self.check_bounds();
        if !self.closing && self.world.elapsed().as_secs().is_multiple_of(5) {
            self.ping_links();
        }
        let next = self.world.elapsed() + Duration::from_secs(1);
        self.world.wake_at(next, u64::MAX);
    }

    fn on_rpc(&mut self, start: Start, event: RpcEvent) {
        match event {
            RpcEvent::Up { link, .. } => self.link_up(start, link),
            RpcEvent::Down { link, reason } => self.link_down(start, link, &reason),
            RpcEvent::Pong { link, .. } => self.pong(start, link),
            RpcEvent::Incoming => self.take_calls(start),
            RpcEvent::Readable(call) => self.call_readable(start, call),
            RpcEvent::SendReady(call) => self.call_ready(start, call),
            RpcEvent::Replied(call) => self.call_replied(start, call),
            RpcEvent::Finished(call) => self.call_finished(start, call),
            _ => {}
        }
    }
}
