//! Calls: every chunk once and in order, an answer that fits, and one end.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use macula_proto::{
    Code,
    endpoint::{PeerId, RpcId},
    quic::{ConnectionHandle, StreamId, alpn},
    rpc::{
        Chunk, Fault, Kind, Mode, Outcome, RecvError, ReplyError, SendError,
        session::{CallId, EndReason, Incoming, Request},
    },
    sim::HostId,
    tunnel::client::session::RequestId,
    wire::Value,
};

use super::{Run, Start, boot, plan::Call};

pub(super) const PROCEDURES: [(&str, Kind); 4] = [
    ("echo", Kind::Stream(Mode::Bidi)),
    ("count", Kind::Stream(Mode::ServerStream)),
    ("sum", Kind::Stream(Mode::ClientStream)),
    ("key", Kind::Unary),
];

#[derive(Debug, Default)]
pub(super) struct Calls {
    links: BTreeMap<(Start, RpcId), Link>,
    requests: BTreeSet<(Start, RequestId)>,
    calls: BTreeMap<(Start, CallId), Party>,
    next_key: u64,
    complete: u64,
    routed: u64,
    /// The first call that did not succeed, and was not given up.
    failed: Option<String>,
}

#[derive(Debug)]
struct Link {
    to: Option<HostId>,
    /// The relay whose router passes its calls on.
    router: Option<HostId>,
    up: bool,
    /// When the ping left that has no answer yet.
    pinged: Option<Duration>,
}

impl Link {
    fn new(to: Option<HostId>) -> Self {
        Self {
            to,
            router: None,
            up: false,
            pinged: None,
        }
    }
}

/// One side of a call.
#[derive(Debug)]
struct Party {
    link: RpcId,
    routed: bool,
    key: u64,
    mode: Option<Mode>,
    caller: bool,
    /// Chunks of each direction that sends any, and their size.
    chunks: u64,
    size: usize,
    sent: u64,
    finished: bool,
    received: u64,
    end: Option<Result<(), String>>,
    /// A chunk to be sent back before the next is fetched.
    echo: Option<Chunk>,
    reply: Option<Result<Outcome, ReplyError>>,
    abort: bool,
    given_up: bool,
    /// When its link went down before its end was told.
    outlived: Option<Duration>,
}

fn arg(args: &Value, name: &str) -> u64 {
    args.get(name).and_then(Value::as_u64).unwrap_or(u64::MAX)
}

fn chunk(key: u64, seq: u64, size: usize) -> Chunk {
    let mut bytes = key.to_be_bytes().to_vec();
    bytes.extend(seq.to_be_bytes());
    bytes.resize(16 + size, (key ^ seq) as u8);
    Chunk::Raw(Bytes::from(bytes))
}

impl Party {
    fn sends(&self) -> bool {
        match self.mode {
            None => false,
            Some(Mode::Bidi) => self.caller,
            Some(Mode::ClientStream) => self.caller,
            Some(Mode::ServerStream) => !self.caller,
        }
    }

    fn receives(&self) -> bool {
        match self.mode {
            None => false,
            Some(Mode::Bidi) => true,
            Some(Mode::ClientStream) => !self.caller,
            Some(Mode::ServerStream) => self.caller,
        }
    }

    fn answer(&self) -> Outcome {
        Outcome::Ok(Value::from(match self.mode {
            None => self.key,
            Some(_) => self.chunks,
        }))
    }

    fn is_complete(&self) -> bool {
        let received = !self.receives() || (self.end == Some(Ok(())) && self.received == self.chunks);
        received && (!self.caller || self.reply == Some(Ok(self.answer())))
    }
}

impl Calls {
    pub(super) fn count(&self) -> u64 {
        self.complete
    }

    pub(super) fn routed(&self) -> u64 {
        self.routed
    }

    pub(super) fn is_content(&self) -> bool {
        self.calls.is_empty() && self.requests.is_empty()
    }

    pub(super) fn open(&self) -> Vec<String> {
        let calls = self.calls.iter().map(|call| format!("{call:?}"));
        calls
            .chain(self.requests.iter().map(|request| format!("{request:?}")))
            .collect()
    }

    pub(super) fn incomplete(&self) -> Option<String> {
        self.failed.clone()
    }

    pub(super) fn links(&self) -> Vec<(Start, RpcId)> {
        self.links.keys().copied().collect()
    }

    pub(super) fn gone(&mut self, start: Start) {
        self.links.retain(|(at, _), _| *at != start);
        self.requests.retain(|(at, _)| *at != start);
        self.calls.retain(|(at, _), _| *at != start);
    }
}

impl Run {
    // ----- links ---------------------------------------------------------------------------------------------------

    pub(super) fn dial_rpc(&mut self, from: HostId, to: HostId) {
        let start = self.start_of(from);
        let there = |(at, link): (&(Start, RpcId), &Link)| at.0 == start && link.to == Some(to);
        if self.calls.links.iter().any(there) {
            return;
        }
        let (remote, config) = (self.world.address(to), self.rpc_config(from));
        let dial = self.dial_config(from, alpn::MACULA);
        let dialled = self.world.with(from, |endpoint, now| {
            endpoint.connect_rpc(now, &dial?, remote, "host", config).ok()
        });
        if let Ok(Some(link)) = dialled {
            self.calls.links.insert((start, link), Link::new(Some(to)));
        }
    }

    /// A link to the router of a relay, which passes calls on to whoever is there.
    pub(super) fn dial_router(&mut self, from: HostId, relay: HostId) {
        let start = self.start_of(from);
        let there = |(at, link): (&(Start, RpcId), &Link)| at.0 == start && link.router == Some(relay);
        if self.calls.links.iter().any(there) {
            return;
        }
        let (remote, config) = (self.world.address(relay), self.rpc_config(from));
        let dial = self.dial_config(from, alpn::MACULA);
        let dialled = self.world.with(from, |endpoint, now| {
            endpoint.connect_rpc(now, &dial?, remote, "host", config).ok()
        });
        if let Ok(Some(id)) = dialled {
            let mut link = Link::new(None);
            link.router = Some(relay);
            self.calls.links.insert((start, id), link);
        }
    }

    pub(super) fn open_call_tunnel(&mut self, from: HostId, to: HostId) {
        let start = self.start_of(from);
        let Some(client) = self.hosts[from.get() as usize].client else {
            return;
        };
        let asked = self
            .world
            .with(from, |endpoint, now| endpoint.open_tunnel(now, client, boot::name(to)));
        if let Ok(Ok(request)) = asked {
            self.calls.requests.insert((start, request));
        }
    }

    pub(super) fn call_tunnel_opened(
        &mut self,
        start: Start,
        request: RequestId,
        conn: ConnectionHandle,
        stream: StreamId,
    ) -> bool {
        let ours = self.calls.requests.remove(&(start, request));
        if ours {
            self.link_over_tunnel(start, conn, stream, true);
        }
        ours
    }

    pub(super) fn call_tunnel_failed(&mut self, start: Start, request: RequestId) -> bool {
        self.calls.requests.remove(&(start, request))
    }

    pub(super) fn call_tunnel_arrived(&mut self, start: Start, conn: ConnectionHandle, stream: StreamId) {
        self.link_over_tunnel(start, conn, stream, false);
    }

    fn link_over_tunnel(&mut self, start: Start, conn: ConnectionHandle, stream: StreamId, dialler: bool) {
        let config = self.rpc_config(start.0);
        let link = self.world.with(start.0, |endpoint, now| {
            endpoint.rpc_over_tunnel(now, conn, stream, dialler, config)
        });
        if let Ok(link) = link {
            self.calls.links.insert((start, link), Link::new(None));
        }
    }

    pub(super) fn link_over_peer(&mut self, start: Start, peer: PeerId) {
        let config = self.rpc_config(start.0);
        let link = self
            .world
            .with(start.0, |endpoint, now| endpoint.rpc_over_peer(now, peer, config));
        if let Ok(link) = link {
            self.calls.links.insert((start, link), Link::new(None));
        }
    }

    pub(super) fn link_up(&mut self, start: Start, link: RpcId) {
        // Accepted ones are heard of for the first time.
        let entry = self.calls.links.entry((start, link)).or_insert(Link::new(None));
        let routed = entry.router.is_some();
        if std::mem::replace(&mut entry.up, true) {
            return self.fail(format!("{}: {link:?} came up twice", start.0));
        }
        for (procedure, _) in PROCEDURES.iter().filter(|_| routed) {
            let registered = self.world.with(start.0, |endpoint, now| {
                endpoint.register_procedure(now, link, procedure.as_bytes())
            });
            if !matches!(registered, Ok(Ok(()))) {
                self.fail(format!("{}: {procedure} is not registered: {registered:?}", start.0));
            }
        }
    }

    pub(super) fn link_down(&mut self, start: Start, link: RpcId, reason: &EndReason) {
        if self.calls.links.remove(&(start, link)).is_none() {
            return self.fail(format!("{}: {link:?} is down and was not there", start.0));
        }
        if let EndReason::Protocol(what) = reason {
            return self.fail(format!("{}: a link broke the protocol: {what}", start.0));
        }
        // Chunks that had arrived before can still be fetched, and a call ends behind them. They were fetched when it became
        // readable, so that its end has been asked for and is on its way: it has to come before any time passes.
        let now = self.world.elapsed();
        let mut stuck = Vec::new();
        let calls = self.calls.calls.iter_mut();
        for ((_, call), party) in calls.filter(|((at, _), party)| (*at, party.link) == (start, link)) {
            party.outlived = Some(now);
            if party.end.is_none() {
                stuck.push(format!("{call:?} {party:?}"));
            }
        }
        if !stuck.is_empty() {
            self.fail(format!(
                "{}: {link:?} is down ({reason}) and its calls have no end: {stuck:?}",
                start.0
            ));
        }
    }

    /// Pings every link that was dialled, and looks for answers that are overdue.
    pub(super) fn ping_links(&mut self) {
        let now = self.world.elapsed();
        let mut late = None;
        for ((start, id), link) in &mut self.calls.links {
            let Some(to) = link.to.filter(|_| link.up) else {
                continue;
            };
            let bound = self.plan.latency_bound(&[start.0, to]);
            match link.pinged {
                Some(at) if now - at > bound => {
                    late = Some(format!("{}: {id:?} without a pong for {:?}", start.0, now - at))
                }
                Some(_) => {}
                None => {
                    let pinged = self.world.with(start.0, |endpoint, now| endpoint.rpc_ping(now, *id));
                    link.pinged = matches!(pinged, Ok(Ok(()))).then_some(now);
                }
            }
        }
        if let Some(late) = late.filter(|_| self.plan.gentle) {
            self.fail(late);
        }
    }

    pub(super) fn pong(&mut self, start: Start, link: RpcId) {
        if let Some(link) = self.calls.links.get_mut(&(start, link)) {
            link.pinged = None;
        }
    }

    // ----- calls ---------------------------------------------------------------------------------------------------

    pub(super) fn open_calls(&mut self, what: &Call) {
        let start = self.start_of(what.from);
        let links = self.calls.links.iter();
        let links = links.filter(|((at, _), link)| *at == start && link.up);
        let links: Vec<_> = links.map(|((_, link), _)| *link).take(Call::LINKS).collect();
        for link in links {
            for _ in 0..what.count {
                self.open_call(start, link, what);
            }
        }
    }

    fn open_call(&mut self, start: Start, link: RpcId, what: &Call) {
        let key = self.calls.next_key;
        self.calls.next_key += 1;
        let kind = what.kind.map_or(Kind::Unary, Kind::Stream);
        let procedure = PROCEDURES.iter().find(|(_, offered)| *offered == kind).unwrap().0;
        let number = |name: &str, value: u64| (Value::text(name), Value::from(value));
        let args = vec![
            number("key", key),
            number("chunks", what.chunks),
            number("size", what.size as u64),
        ];
        let request = Request {
            args: Value::Map(args),
            ..Request::new(procedure, kind)
        };
        let opened = self
            .world
            .with(start.0, |endpoint, now| endpoint.open_call(now, link, request));
        let Ok(Ok(call)) = opened else {
            return;
        };
        let routed = self
            .calls
            .links
            .get(&(start, link))
            .is_some_and(|link| link.router.is_some());
        let party = Party {
            link,
            routed,
            key,
            mode: what.kind,
            caller: true,
            chunks: what.chunks,
            size: what.size,
            sent: 0,
            finished: false,
            received: 0,
            end: None,
            echo: None,
            reply: None,
            abort: what.abort,
            given_up: false,
            outlived: None,
        };
        self.calls.calls.insert((start, call), party);
        self.call_ready(start, call);
    }

    pub(super) fn take_calls(&mut self, start: Start) {
        while let Ok(Some(incoming)) = self.world.with(start.0, |endpoint, _| endpoint.next_incoming_call()) {
            let link = incoming.link;
            let Incoming { call, args, kind, .. } = incoming.incoming;
            let mode = match kind {
                Kind::Unary => None,
                Kind::Stream(mode) => Some(mode),
            };
            let party = Party {
                link,
                routed: false,
                key: arg(&args, "key"),
                mode,
                caller: false,
                chunks: arg(&args, "chunks"),
                size: arg(&args, "size") as usize,
                sent: 0,
                finished: false,
                received: 0,
                end: None,
                echo: None,
                reply: None,
                abort: false,
                given_up: false,
                outlived: None,
            };
            if party.chunks > 1000 || party.size > 1 << 20 {
                return self.fail(format!(
                    "{}: a call with other arguments than were given: {args:?}",
                    start.0
                ));
            }
            if mode.is_none() {
                let answer = party.answer();
                let _ = self
                    .world
                    .with(start.0, |endpoint, now| endpoint.call_set_reply(now, call, answer));
            }
            if self.calls.calls.insert((start, call), party).is_some() {
                return self.fail(format!("{}: {call:?} came twice", start.0));
            }
            self.call_ready(start, call);
            self.call_readable(start, call);
        }
    }

    /// Sends what can be sent.
    pub(super) fn call_ready(&mut self, start: Start, call: CallId) {
        let Some(party) = self.calls.calls.get_mut(&(start, call)) else {
            return;
        };
        let result = self.world.with(start.0, |endpoint, now| {
            if let Some(echo) = party.echo.take() {
                match endpoint.call_send(now, call, echo) {
                    Ok(()) => party.sent += 1,
                    Err((SendError::WouldBlock | SendError::NoPeer, echo)) => {
                        party.echo = Some(echo);
                        return false;
                    }
                    Err(_) => {}
                }
            }
            if party.abort && party.sent * 2 >= party.chunks && !party.given_up {
                party.given_up = true;
                endpoint.call_abort(now, call, Fault::cancelled());
                return false;
            }
            if !party.sends() || party.finished {
                return true;
            }
            while party.sent < party.chunks {
                let next = chunk(party.key, party.sent, party.size);
                match endpoint.call_send(now, call, next) {
                    Ok(()) => party.sent += 1,
                    Err((SendError::WouldBlock | SendError::NoPeer, _)) => return false,
                    Err(_) => break,
                }
            }
            party.finished = true;
            match party.caller {
                true => endpoint.call_finish(now, call),
                false => {
                    let answer = party.answer();
                    endpoint.call_set_reply(now, call, answer);
                    endpoint.call_finish(now, call);
                }
            }
            true
        });
        if result == Ok(true) && self.calls.calls.get(&(start, call)).is_some_and(|party| !party.caller) {
            self.call_readable(start, call);
        }
    }

    /// Fetches what can be fetched.
    pub(super) fn call_readable(&mut self, start: Start, call: CallId) {
        loop {
            let Some(party) = self.calls.calls.get_mut(&(start, call)) else {
                return;
            };
            if party.echo.is_some() || party.end.is_some() || party.mode.is_none() {
                return;
            }
            let received = self.world.with(start.0, |endpoint, now| endpoint.call_recv(now, call));
            match received {
                Err(_) | Ok(Err(RecvError::WouldBlock)) => return,
                Ok(Ok(got)) => {
                    if got != chunk(party.key, party.received, party.size) || party.received >= party.chunks {
                        let what = format!("{}: another chunk than was sent: {party:?}", start.0);
                        return self.fail(what);
                    }
                    party.received += 1;
                    if party.mode == Some(Mode::Bidi) && !party.caller {
                        party.echo = Some(got);
                        self.call_ready_once(start, call);
                    }
                }
                Ok(Err(RecvError::Eof)) => {
                    party.end = Some(Ok(()));
                    if !party.caller && party.mode != Some(Mode::ServerStream) {
                        let outcome = Outcome::Ok(Value::from(party.received));
                        let _ = self.world.with(start.0, |endpoint, now| {
                            endpoint.call_set_reply(now, call, outcome);
                            endpoint.call_finish(now, call);
                        });
                    }
                }
                Ok(Err(error)) => party.end = Some(Err(error.to_string())),
            }
        }
    }

    /// Sends an echo, without fetching the next: the caller does.
    fn call_ready_once(&mut self, start: Start, call: CallId) {
        let Some(party) = self.calls.calls.get_mut(&(start, call)) else {
            return;
        };
        let Some(echo) = party.echo.take() else {
            return;
        };
        let sent = self
            .world
            .with(start.0, |endpoint, now| endpoint.call_send(now, call, echo));
        match sent {
            Ok(Ok(())) => party.sent += 1,
            Ok(Err((SendError::WouldBlock | SendError::NoPeer, echo))) => party.echo = Some(echo),
            _ => {}
        }
    }

    pub(super) fn call_replied(&mut self, start: Start, call: CallId) {
        if let Some(party) = self.calls.calls.get_mut(&(start, call)) {
            let reply = self.world.with(start.0, |endpoint, now| endpoint.call_reply(now, call));
            party.reply = party.reply.take().or(reply.ok().flatten());
        }
    }

    pub(super) fn call_finished(&mut self, start: Start, call: CallId) {
        // A call that was aborted before anybody took it has its end nevertheless.
        self.take_calls(start);
        self.call_readable(start, call);
        self.call_replied(start, call);
        let Some(party) = self.calls.calls.remove(&(start, call)) else {
            return self.fail(format!("{}: {call:?} ended and was not there", start.0));
        };
        let now = self.world.elapsed();
        if party.outlived.is_some_and(|at| at < now) {
            return self.fail(format!("{}: {call:?} ended later than its link: {party:?}", start.0));
        }
        let _ = self
            .world
            .with(start.0, |endpoint, now| endpoint.forget_call(now, call));
        if party.is_complete() {
            self.calls.complete += u64::from(party.caller);
            self.calls.routed += u64::from(party.caller && party.routed);
            return;
        }
        // A good answer must not come without the chunks before it.
        if party.caller && !party.given_up {
            if let Some(Ok(Outcome::Ok(answer))) = &party.reply
                && (Outcome::Ok(answer.clone()) != party.answer() || party.end == Some(Ok(())))
            {
                return self.fail(format!("{}: a good answer to half a call: {party:?}", start.0));
            }
            // Calls end with the peering connection that carries them, when one of its ends leaves.
            // Those through a router need somebody who serves them.
            if !self.plan.calls_over_peers && !party.routed {
                self.calls
                    .failed
                    .get_or_insert_with(|| format!("{}: a call failed: {party:?}", start.0));
            }
        }
    }

    pub(super) fn close_links(&mut self) {
        for (start, link) in self.calls.links() {
            // Its host may be down.
            let _ = self
                .world
                .with(start.0, |endpoint, now| endpoint.close_rpc(now, link, Code::CLOSED));
        }
    }
}
