//! What is kept for the handles of links and calls, under the lock.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    task::Poll,
    time::Duration,
};

use macula_proto::{
    Code, Event,
    endpoint::{IncomingCall, RpcEvent, RpcId},
    rpc::session::{CallId, EndReason, PeerHello},
};

use super::key::{self, Call as OfCall, Link as OfLink};
use crate::{Context, Endpoint, Extension};

/// Accepted links that wait to be fetched by a program that cares for them; older ones are served all the same.
const MAX_ACCEPTED: usize = 1024;

/// All links and calls of an endpoint that have a handle, or wait for one.
#[derive(Debug, Default)]
pub(super) struct Links {
    links: BTreeMap<RpcId, Slot>,
    accepted: VecDeque<RpcId>,
    calls: HashMap<CallId, CallSlot>,
    incoming: Turns,
    pub(super) closed: bool,
}

/// What is kept for a link.
#[derive(Debug, Default)]
struct Slot {
    hello: Option<Box<PeerHello>>,
    end: Option<EndReason>,
    /// Handles. One that was accepted stays without any.
    handles: usize,
    /// It ends with its handles.
    owned: bool,
    /// Pongs that came, and what the last one took.
    pongs: u64,
    rtt: Duration,
}

#[derive(Debug, Default)]
struct CallSlot {
    finished: bool,
}

/// Calls that came in, link by link: each link has its turn, so that one with many calls does not keep the others waiting.
#[derive(Debug, Default)]
struct Turns {
    calls: BTreeMap<RpcId, VecDeque<IncomingCall>>,
    turn: VecDeque<RpcId>,
}

impl Turns {
    fn push(&mut self, call: IncomingCall) {
        let waiting = self.calls.entry(call.link).or_default();
        if waiting.is_empty() {
            self.turn.push_back(call.link);
        }
        waiting.push_back(call);
    }

    fn pop(&mut self) -> Option<IncomingCall> {
        let link = self.turn.pop_front()?;
        let waiting = self.calls.get_mut(&link)?;
        let call = waiting.pop_front();
        if waiting.is_empty() {
            self.calls.remove(&link);
        } else {
            self.turn.push_back(link);
        }
        call
    }
}

impl Links {
    pub(super) fn install(endpoint: &Endpoint) {
        if endpoint.with_extension(|_: &mut Self, _| ()).is_none() {
            endpoint.add_extension(Self::default());
        }
    }

    // ----- links ---------------------------------------------------------------------------------------------------

    /// Begins to keep a link for a handle; for one of this side's making, which is to end with its handles.
    pub(super) fn keep_own(&mut self, link: RpcId) {
        self.keep(link);
        if let Some(slot) = self.links.get_mut(&link) {
            slot.owned = true;
        }
    }

    fn keep(&mut self, link: RpcId) {
        self.links.entry(link).or_default().handles += 1;
    }

    /// A handle of a link is gone.
    pub(super) fn let_go(&mut self, cx: &mut Context<'_>, link: RpcId) {
        let Some(slot) = self.links.get_mut(&link) else { return };
        slot.handles = slot.handles.saturating_sub(1);
        if slot.handles == 0 && (slot.owned || slot.end.is_some()) {
            self.links.remove(&link);
            let now = cx.now();
            cx.endpoint().close_rpc(now, link, Code::CLOSED);
        }
    }

    /// Whether a link has come up.
    pub(super) fn up(&self, link: RpcId) -> Poll<Result<Box<PeerHello>, EndReason>> {
        let Some(slot) = self.links.get(&link) else {
            return Poll::Ready(Err(EndReason::Closed));
        };
        match (&slot.hello, &slot.end) {
            (Some(hello), _) => Poll::Ready(Ok(hello.clone())),
            (None, Some(end)) => Poll::Ready(Err(end.clone())),
            (None, None) => Poll::Pending,
        }
    }

    /// How a link ended.
    pub(super) fn end(&self, link: RpcId) -> Option<EndReason> {
        match self.links.get(&link) {
            Some(slot) => slot.end.clone(),
            None => Some(EndReason::Closed),
        }
    }

    /// What the peer of a link said about itself.
    pub(super) fn hello(&self, link: RpcId) -> Option<Box<PeerHello>> {
        self.links.get(&link)?.hello.clone()
    }

    /// Pongs that came, and the last round trip.
    pub(super) fn pongs(&self, link: RpcId) -> (u64, Duration) {
        self.links
            .get(&link)
            .map_or((0, Duration::ZERO), |slot| (slot.pongs, slot.rtt))
    }

    /// The next link that a peer made.
    pub(super) fn next_accepted(&mut self) -> Poll<Option<(RpcId, Box<PeerHello>)>> {
        while let Some(link) = self.accepted.pop_front() {
            if let Some(slot) = self.links.get_mut(&link)
                && let Some(hello) = slot.hello.clone()
            {
                slot.handles += 1;
                return Poll::Ready(Some((link, hello)));
            }
        }
        if self.closed { Poll::Ready(None) } else { Poll::Pending }
    }

    // ----- calls ---------------------------------------------------------------------------------------------------

    /// Begins to keep a call.
    pub(super) fn keep_call(&mut self, call: CallId) {
        self.calls.insert(call, CallSlot::default());
    }

    /// The handles of a call are gone.
    pub(super) fn forget_call(&mut self, cx: &mut Context<'_>, link: RpcId, call: CallId) {
        self.calls.remove(&call);
        let now = cx.now();
        cx.endpoint().forget_call(now, call);
        cx.wake(key::link(link, OfLink::Room));
    }

    /// Whether nothing more goes in either direction of a call.
    pub(super) fn is_finished(&self, call: CallId) -> bool {
        self.calls.get(&call).is_none_or(|slot| slot.finished)
    }

    /// The next call that a peer made. A handle of its link comes with it, unless that is the local one.
    pub(super) fn next_call(&mut self, cx: &mut Context<'_>) -> Poll<Option<IncomingCall>> {
        self.fetch(cx);
        match self.incoming.pop() {
            Some(call) => {
                if call.link != RpcId::LOCAL {
                    self.keep(call.link);
                }
                Poll::Ready(Some(call))
            }
            None if self.closed => Poll::Ready(None),
            None => Poll::Pending,
        }
    }

    fn fetch(&mut self, cx: &mut Context<'_>) {
        while let Some(call) = cx.endpoint().next_incoming_call() {
            self.keep_call(call.incoming.call);
            self.incoming.push(call);
        }
    }

    // ----- events --------------------------------------------------------------------------------------------------

    fn came_up(&mut self, cx: &mut Context<'_>, link: RpcId, hello: Box<PeerHello>) {
        let slot = self.links.entry(link).or_default();
        slot.hello = Some(hello);
        cx.wake(key::link(link, OfLink::State));
        if slot.handles == 0 {
            self.accepted.push_back(link);
            if self.accepted.len() > MAX_ACCEPTED {
                self.accepted.pop_front();
            }
            cx.wake(key::ACCEPT);
        }
    }

    fn went_down(&mut self, cx: &mut Context<'_>, link: RpcId, reason: EndReason) {
        if let Some(slot) = self.links.get_mut(&link) {
            slot.end = Some(reason);
            if slot.handles == 0 {
                self.links.remove(&link);
            }
        }
        for what in [OfLink::State, OfLink::Room] {
            cx.wake(key::link(link, what));
        }
    }
}

impl Extension for Links {
    fn on_event(&mut self, cx: &mut Context<'_>, event: Event) -> Option<Event> {
        let Event::Rpc(event) = event else {
            return Some(event);
        };
        match event {
            RpcEvent::Up { link, hello } => self.came_up(cx, link, hello),
            RpcEvent::Down { link, reason } => self.went_down(cx, link, reason),
            RpcEvent::Incoming => {
                self.fetch(cx);
                cx.wake(key::INCOMING);
            }
            RpcEvent::Readable(call) => cx.wake(key::call(call, OfCall::Recv)),
            RpcEvent::SendReady(call) => cx.wake(key::call(call, OfCall::Send)),
            RpcEvent::Replied(call) => cx.wake(key::call(call, OfCall::Reply)),
            RpcEvent::Finished(call) => {
                if let Some(slot) = self.calls.get_mut(&call) {
                    slot.finished = true;
                }
                for what in [OfCall::Recv, OfCall::Send, OfCall::Reply, OfCall::Ended] {
                    cx.wake(key::call(call, what));
                }
            }
            RpcEvent::Pong { link, rtt } => {
                if let Some(slot) = self.links.get_mut(&link) {
                    slot.pongs += 1;
                    slot.rtt = rtt;
                }
                cx.wake(key::link(link, OfLink::State));
            }
            _ => {}
        }
        None
    }

    fn on_closed(&mut self, cx: &mut Context<'_>) {
        self.closed = true;
        let now = cx.now();
        // Nobody will take what waits.
        self.fetch(cx);
        while let Some(call) = self.incoming.pop() {
            self.calls.remove(&call.incoming.call);
            cx.endpoint().forget_call(now, call.incoming.call);
        }
        cx.wake(key::ACCEPT);
        cx.wake(key::INCOMING);
    }
}
