//! The handle of a call.

use std::{fmt, sync::Arc, task::Poll};

use macula_proto::{
    rpc::{Chunk, Fault, Info, Outcome, session::CallId},
    wire::Value,
};
use serde::de::DeserializeOwned;

use super::{
    CallError, CallReceiver, CallSender, IntoValue, RpcClient,
    key::{self, Call as Key},
    outgoing::Outgoing,
    settle,
    table::Links,
};
use crate::Context;

/// One side of a call: chunks in and out, and the reply.
///
/// Dropping all handles of a call ends it, if it is not over: with `cancelled` for the one who made it, with `owner_down` for the one
/// who serves it. Whoever made it and is done with it before it is over says so with [`close`](Self::close).
///
/// It is a [`Stream`](futures_core::Stream) of the chunks that come and a [`Sink`](futures_sink::Sink) of those to be sent;
/// [`split`](Self::split) lets two tasks do these.
#[derive(Debug)]
pub struct Call {
    pub(super) sender: CallSender,
    pub(super) receiver: CallReceiver,
}

impl Call {
    pub(super) fn new(client: RpcClient, call: CallId) -> Self {
        let control = CallControl {
            inner: Arc::new(Inner {
                client,
                call,
                outgoing: Outgoing::new(call),
            }),
        };
        Self {
            sender: CallSender::new(control.clone()),
            receiver: CallReceiver::new(control),
        }
    }

    /// Sends a chunk as soon as there is room for it. Dropping the future sends nothing.
    ///
    /// Small chunks that are sent closely behind each other are gathered until the driver runs next, which is at once, or up to
    /// 64 KiB.
    ///
    /// # Errors
    /// [`CallError::SendClosed`] and [`CallError::WrongMode`]. What happened to a call that is over, [`recv`](Self::recv) and
    /// [`reply`](Self::reply) tell.
    pub async fn send(&self, chunk: Chunk) -> Result<(), CallError> {
        self.sender.send(chunk).await
    }

    /// Sends a value as a chunk; see [`send`](Self::send).
    ///
    /// # Errors
    /// As [`send`](Self::send), and [`CallError::Value`].
    pub async fn send_term(&self, value: impl IntoValue) -> Result<(), CallError> {
        self.sender.send_term(value).await
    }

    /// Sends a chunk at once, or gives it back.
    ///
    /// # Errors
    /// [`SendError`](macula_proto::rpc::SendError), with the chunk.
    pub fn try_send(&self, chunk: Chunk) -> Result<(), (macula_proto::rpc::SendError, Chunk)> {
        self.sender.try_send(chunk)
    }

    /// Says that no more chunks come from this side. Idempotent.
    pub fn finish(&self) {
        self.sender.finish();
    }

    /// The next chunk; `None` behind the last. Cancellation-safe.
    ///
    /// Up to 256 chunks or 64 KiB are fetched at once and wait in the handle; beyond that a receiver that is slow slows the sender down.
    ///
    /// # Errors
    /// [`CallError::Aborted`] when the call was given up, behind the chunks that had come before.
    pub async fn recv(&mut self) -> Result<Option<Chunk>, CallError> {
        self.receiver.recv().await
    }

    /// The next chunk as a type of serde; raw chunks count as byte strings. `None` behind the last. Cancellation-safe.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), and [`CallError::Value`] for a chunk that is something else. The next one can be received.
    pub async fn recv_as<T: DeserializeOwned>(&mut self) -> Result<Option<T>, CallError> {
        self.receiver.recv_as().await
    }

    /// Waits for the reply. It does not depend on chunks having been received, but a serving side that is slowed down because they are not
    /// may never come to reply. Cancellation-safe; the answer stays.
    ///
    /// # Errors
    /// [`CallError::Failed`] is the serving side's word; [`CallError::NoReply`] when the call was closed without one.
    pub async fn reply(&self) -> Result<Value, CallError> {
        self.sender.control.reply().await
    }

    /// Ends the call with an error that the peer sees.
    pub fn abort(&self, fault: Fault) {
        self.sender.control.abort(fault);
    }

    /// Ends both directions in good order, behind what was sent. Idempotent.
    pub fn close(&self) {
        self.sender.control.close();
    }

    /// Waits until nothing more goes in either direction: all was sent, nothing more comes, and the reply is there or will not come. What
    /// waits can still be received. A call that was given up ends at once.
    pub async fn ended(&self) {
        self.sender.control.ended().await;
    }

    /// The call at this moment; `None` for a unary one.
    pub fn info(&self) -> Option<Info> {
        self.sender.control.info()
    }

    /// A handle of the call as a whole.
    pub fn control(&self) -> &CallControl {
        &self.sender.control
    }

    /// The link of the call.
    pub fn client(&self) -> &RpcClient {
        self.sender.control.client()
    }

    /// Both directions, for different tasks. The call lives until both, and all [`CallControl`]s, are dropped.
    pub fn split(self) -> (CallSender, CallReceiver) {
        (self.sender, self.receiver)
    }
}

/// A handle of a call as a whole: its reply and its end. Clones are handles of the same call, which lives as long as there is one.
#[derive(Debug, Clone)]
pub struct CallControl {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) client: RpcClient,
    pub(super) call: CallId,
    pub(super) outgoing: Arc<Outgoing>,
}

impl CallControl {
    /// See [`Call::reply`].
    ///
    /// # Errors
    /// As [`Call::reply`].
    pub async fn reply(&self) -> Result<Value, CallError> {
        let call = self.inner.call;
        let look = |_: &mut Links, cx: &mut Context<'_>| {
            let now = cx.now();
            match cx.endpoint().call_reply(now, call) {
                None => Poll::Pending,
                Some(Ok(Outcome::Ok(value))) => Poll::Ready(Ok(value)),
                Some(Ok(Outcome::Err(fault))) => Poll::Ready(Err(CallError::Failed(fault))),
                Some(Err(error)) => Poll::Ready(Err(error.into())),
            }
        };
        let endpoint = &self.inner.client.inner.endpoint;
        let reply = endpoint.wait(key::call(call, Key::Reply), look).await;
        reply.unwrap_or(Err(CallError::Stopped))
    }

    /// Settles the reply, for the serving side. The first word counts: `false` if there was one, or the call is over. Chunks can be sent
    /// after it.
    pub fn set_reply(&self, outcome: Outcome) -> bool {
        let call = self.inner.call;
        self.with(|cx| {
            let now = cx.now();
            cx.endpoint().call_set_reply(now, call, outcome)
        })
    }

    /// See [`Call::abort`].
    pub fn abort(&self, fault: Fault) {
        let call = self.inner.call;
        self.with(|cx| {
            let now = cx.now();
            cx.endpoint().call_abort(now, call, fault);
        });
    }

    /// See [`Call::close`].
    pub fn close(&self) {
        let call = self.inner.call;
        self.with(|cx| {
            let now = cx.now();
            cx.endpoint().call_close(now, call);
        });
    }

    /// See [`Call::ended`].
    pub async fn ended(&self) {
        let call = self.inner.call;
        let look = |links: &mut Links, _: &mut Context<'_>| {
            if links.is_finished(call) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        };
        let endpoint = &self.inner.client.inner.endpoint;
        endpoint.wait(key::call(call, Key::Ended), look).await;
    }

    /// See [`Call::info`].
    pub fn info(&self) -> Option<Info> {
        let call = self.inner.call;
        self.with(|cx| cx.endpoint().call_info(call))
    }

    /// The number of the call in its endpoint.
    pub fn id(&self) -> CallId {
        self.inner.call
    }

    /// The link of the call.
    pub fn client(&self) -> &RpcClient {
        &self.inner.client
    }

    /// As [`Endpoint::with`](crate::Endpoint::with), but the driver is woken only if there is something for it.
    pub(super) fn with<T>(&self, operation: impl FnOnce(&mut Context<'_>) -> T) -> T {
        self.inner.client.inner.endpoint.shared().locked(|state| {
            state.tick();
            self.inner.outgoing.hand_over(state, false);
            let result = operation(&mut Context { state });
            settle(state, self.inner.client.inner.link);
            result
        })
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let (link, call) = (self.client.inner.link, self.call);
        self.client.inner.endpoint.with_links(link, |links, cx| {
            self.outgoing.hand_over(cx.state, true);
            links.forget_call(cx, link, call);
        });
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("call", &self.call)
            .field("link", &self.client.inner.link)
            .finish()
    }
}
