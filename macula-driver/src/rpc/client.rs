//! The handle of a link.

use std::{fmt, sync::Arc, task::Poll, time::Duration};

use bytes::Bytes;
use macula_proto::{
    Code,
    endpoint::{RpcId, RpcInfo, UnknownLink},
    rpc::{
        Kind, Mode,
        session::{EndReason, OpenError, PeerHello, Request},
    },
    wire::{Value, from_value},
};
use serde::de::DeserializeOwned;

use super::{
    Call, CallError, IntoValue, PingError, RpcConnectError,
    key::{self, Link as Key},
    ready_if,
    table::Links,
};
use crate::{Context, Endpoint, Peer};

/// A link to a program that serves calls, and may make calls itself.
///
/// Clones, and the calls made on it, are handles of the same link. When the last is dropped, a link of this side's making is closed in
/// good order; one that a peer made, and the [local](Endpoint::local_rpc) one, live on.
///
/// All futures are cancellation-safe; dropping one gives up what it was to do.
#[derive(Clone)]
pub struct RpcClient {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) endpoint: Endpoint,
    pub(super) link: RpcId,
    hello: PeerHello,
    /// What it runs on.
    peer: Option<Peer>,
}

impl RpcClient {
    /// A handle of a link for which the table counts one.
    pub(super) fn new(endpoint: &Endpoint, link: RpcId, peer: Option<Peer>) -> Self {
        let inner = Inner {
            endpoint: endpoint.clone(),
            link,
            hello: PeerHello::default(),
            peer,
        };
        Self { inner: Arc::new(inner) }
    }

    pub(super) fn with_hello(mut self, hello: PeerHello) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            inner.hello = hello;
        }
        self
    }

    /// Waits for the link to come up.
    pub(super) async fn up(self) -> Result<Self, RpcConnectError> {
        let link = self.inner.link;
        let look = |links: &mut Links, _: &mut Context<'_>| links.up(link);
        let up = self.inner.endpoint.wait(key::link(link, Key::State), look).await;
        let hello = up.unwrap_or(Err(stopped()))?;
        Ok(self.with_hello(*hello))
    }

    // ----- calls ---------------------------------------------------------------------------------------------------

    /// Makes a streaming call. Waits while there are as many calls on the link as
    /// [`RpcLimits::calls`](macula_proto::rpc::RpcLimits::calls) allows. What becomes of it comes with the call: a procedure
    /// that the peer does not offer, for example, with code `not_found`.
    ///
    /// The mode is what the caller expects; that which the procedure is advertised with counts.
    ///
    /// # Errors
    /// [`CallError::Open`], and [`CallError::Value`] for arguments without a form on the wire.
    pub async fn open(&self, procedure: impl Into<Bytes>, mode: Mode, args: impl IntoValue) -> Result<Call, CallError> {
        let mut request = Request::new(procedure, Kind::Stream(mode));
        request.args = args.into_value()?;
        self.open_with(request).await
    }

    /// As [`open`](Self::open), for calls of every kind, with a deadline and an idle time-out for example.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_with(&self, request: Request) -> Result<Call, CallError> {
        let mut opened = self.try_open(request.clone());
        if opened.as_ref().is_err_and(|error| *error == OpenError::Busy) {
            let look = |links: &mut Links, cx: &mut Context<'_>| match self.start(links, cx, request.clone()) {
                Err(OpenError::Busy) => Poll::Pending,
                outcome => Poll::Ready(outcome),
            };
            let key = key::link(self.inner.link, Key::Room);
            let later = self.inner.endpoint.wait(key, look).await;
            opened = later.unwrap_or(Err(OpenError::NotUp));
        }
        opened.map_err(CallError::Open)
    }

    /// As [`open_with`](Self::open_with), at once or not at all.
    ///
    /// # Errors
    /// [`OpenError::Busy`] when there are too many calls; otherwise as [`open_with`](Self::open_with).
    pub fn try_open(&self, request: Request) -> Result<Call, OpenError> {
        let endpoint = &self.inner.endpoint;
        let started = endpoint.with_links(self.inner.link, |links, cx| self.start(links, cx, request));
        started.unwrap_or(Err(OpenError::NotUp))
    }

    /// Makes a unary call, and waits for its reply, at most for
    /// [`RpcConfig::call_timeout`](macula_proto::rpc::RpcConfig::call_timeout), 30 s by default.
    ///
    /// # Errors
    /// [`CallError`]: [`Failed`](CallError::Failed) is the peer's word, everything else the link's.
    pub async fn call(&self, procedure: impl Into<Bytes>, args: impl IntoValue) -> Result<Value, CallError> {
        self.request(procedure.into(), args.into_value()?, None).await
    }

    /// As [`call`](Self::call), waiting at most for `timeout`.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn call_timeout(
        &self,
        procedure: impl Into<Bytes>,
        args: impl IntoValue,
        timeout: Duration,
    ) -> Result<Value, CallError> {
        self.request(procedure.into(), args.into_value()?, Some(timeout)).await
    }

    /// As [`call`](Self::call), with the reply as a type of serde.
    ///
    /// # Errors
    /// As [`call`](Self::call), and [`CallError::Value`] for a reply that is something else.
    pub async fn call_as<T: DeserializeOwned>(
        &self,
        procedure: impl Into<Bytes>,
        args: impl IntoValue,
    ) -> Result<T, CallError> {
        Ok(from_value(self.call(procedure, args).await?)?)
    }

    async fn request(&self, procedure: Bytes, args: Value, deadline: Option<Duration>) -> Result<Value, CallError> {
        let mut request = Request::new(procedure, Kind::Unary);
        request.args = args;
        request.deadline = deadline;
        self.open_with(request).await?.reply().await
    }

    fn start(&self, links: &mut Links, cx: &mut Context<'_>, request: Request) -> Result<Call, OpenError> {
        let (now, link) = (cx.now(), self.inner.link);
        let call = cx.endpoint().open_call(now, link, request)?;
        if link == RpcId::LOCAL {
            // There may be a deadline that the driver does not know.
            cx.state.kick();
        }
        links.keep_call(call);
        Ok(Call::new(self.clone(), call))
    }

    // ----- the link ------------------------------------------------------------------------------------------------

    /// Registers an advertised procedure at the far end, so that a router there sends calls for it. The router answers nothing.
    ///
    /// # Errors
    /// [`UnknownLink`] when the link is over.
    pub fn register(&self, procedure: impl AsRef<[u8]>) -> Result<(), UnknownLink> {
        let link = self.inner.link;
        self.inner.endpoint.with(|cx| {
            let now = cx.now();
            cx.endpoint().register_procedure(now, link, procedure.as_ref())
        })
    }

    /// Measures the round trip of a message to the program at the far end.
    ///
    /// # Errors
    /// [`PingError`]. There is no time-out besides that of the connection.
    pub async fn ping(&self) -> Result<Duration, PingError> {
        let link = self.inner.link;
        let ask = |links: &mut Links, cx: &mut Context<'_>| {
            if let Some(end) = links.end(link) {
                return Err(PingError::Ended(end));
            }
            let now = cx.now();
            let sent = cx.endpoint().rpc_ping(now, link);
            sent.map_err(|_| PingError::Unsupported)?;
            Ok(links.pongs(link).0)
        };
        if link == RpcId::LOCAL {
            return Err(PingError::Unsupported);
        }
        let before = self.inner.endpoint.with_extension(ask);
        let before = before.unwrap_or(Err(PingError::Ended(stopped())))?;
        let look = |links: &mut Links, _: &mut Context<'_>| match links.pongs(link) {
            (pongs, rtt) if pongs > before => Poll::Ready(Ok(rtt)),
            _ => ready_if(links.end(link)).map(Err),
        };
        let pong = self.inner.endpoint.wait(key::link(link, Key::State), look).await;
        Ok(pong.unwrap_or(Err(stopped()))?)
    }

    /// Ends the link in good order: the peer is told, all calls end with `disconnected`, both sides'. A peering connection goes on without
    /// the link. Nothing happens to the local one.
    pub fn close(&self) {
        self.close_with(Code::CLOSED);
    }

    /// As [`close`](Self::close), with another code for the peer.
    pub fn close_with(&self, code: Code) {
        let link = self.inner.link;
        if link != RpcId::LOCAL {
            self.inner.endpoint.with(|cx| {
                let now = cx.now();
                cx.endpoint().close_rpc(now, link, code);
            });
        }
    }

    /// Waits for the end of the link; that of the local one never comes, as long as the endpoint has a driver.
    pub async fn closed(&self) -> EndReason {
        let link = self.inner.link;
        let look = |links: &mut Links, _: &mut Context<'_>| match link {
            RpcId::LOCAL => Poll::Pending,
            link => ready_if(links.end(link)),
        };
        let end = self.inner.endpoint.wait(key::link(link, Key::State), look).await;
        end.unwrap_or_else(stopped)
    }

    /// What the peer said about itself. Nothing of it is proved.
    pub fn hello(&self) -> &PeerHello {
        &self.inner.hello
    }

    /// The link at this moment; `None` when it is over, and for the local one.
    pub fn info(&self) -> Option<RpcInfo> {
        let link = self.inner.link;
        self.inner.endpoint.with(|cx| cx.endpoint().rpc_info(link))
    }

    /// The number of the link.
    pub fn id(&self) -> RpcId {
        self.inner.link
    }

    /// The peer of a link on a peering connection of this side's [`Peer::rpc`].
    pub fn peer(&self) -> Option<&Peer> {
        self.inner.peer.as_ref()
    }

    /// The endpoint of the link.
    pub fn endpoint(&self) -> &Endpoint {
        &self.inner.endpoint
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let link = self.link;
        if link != RpcId::LOCAL {
            self.endpoint.with_links(link, |links, cx| links.let_go(cx, link));
        }
    }
}

impl fmt::Debug for RpcClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RpcClient")
            .field("link", &self.inner.link)
            .field("hello", &self.inner.hello)
            .finish_non_exhaustive()
    }
}

/// The end of an endpoint without a driver.
fn stopped() -> EndReason {
    EndReason::Lost("the endpoint has stopped".into())
}
