//! The two directions of a call.

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    task::{Context as TaskContext, Poll, ready},
};

use futures_core::Stream;
use futures_sink::Sink;
use macula_proto::{
    endpoint::RpcId,
    rpc::{Chunk, RecvError, SendError, session::Room},
    wire::{Value, from_value},
};
use serde::de::DeserializeOwned;

use super::{
    Call, CallControl, CallError, IntoValue,
    error::end_of_data,
    key::{self, Call as Key},
    settle,
};
use crate::{
    shared::{Phase, State},
    waiters::Wait,
};

/// What a receiver fetches at once.
const FETCH: Room = Room {
    chunks: 256,
    bytes: 64 << 10,
};

// ----- sending -----------------------------------------------------------------------------------------------------

/// The sending side of a call. Dropping it alone neither finishes nor ends anything.
#[derive(Debug)]
pub struct CallSender {
    pub(super) control: CallControl,
    /// A chunk on its way through the sink.
    pending: Option<Chunk>,
    place: Option<u64>,
}

impl CallSender {
    pub(super) fn new(control: CallControl) -> Self {
        Self {
            control,
            pending: None,
            place: None,
        }
    }

    /// See [`Call::send`].
    ///
    /// # Errors
    /// As [`Call::send`].
    pub async fn send(&self, chunk: Chunk) -> Result<(), CallError> {
        let chunk = match self.control.inner.outgoing.push(chunk) {
            Ok(()) => return Ok(()),
            Err(chunk) => chunk,
        };
        let call = self.control.inner.call;
        let mut chunk = Some(chunk);
        let look = |state: &mut State| try_chunk(state, &self.control, &mut chunk);
        let shared = self.control.client().endpoint().shared();
        shared.until(Wait::Custom(key::call(call, Key::Send)), look).await
    }

    /// See [`Call::send_term`].
    ///
    /// # Errors
    /// As [`Call::send_term`].
    pub async fn send_term(&self, value: impl IntoValue) -> Result<(), CallError> {
        let value = value.into_value()?;
        self.send(Chunk::Term(value)).await
    }

    /// See [`Call::try_send`].
    ///
    /// # Errors
    /// As [`Call::try_send`].
    pub fn try_send(&self, chunk: Chunk) -> Result<(), (SendError, Chunk)> {
        let chunk = match self.control.inner.outgoing.push(chunk) {
            Ok(()) => return Ok(()),
            Err(chunk) => chunk,
        };
        let shared = self.control.client().endpoint().shared();
        shared.locked(|state| send_now(state, &self.control, chunk))
    }

    /// See [`Call::finish`].
    pub fn finish(&self) {
        let call = self.control.inner.call;
        self.control.with(|cx| {
            let now = cx.now();
            cx.endpoint().call_finish(now, call);
        });
    }

    /// The call as a whole.
    pub fn control(&self) -> &CallControl {
        &self.control
    }

    /// Hands the sink's chunk over.
    fn poll_pending(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), CallError>> {
        if self.pending.is_none() {
            return Poll::Ready(Ok(()));
        }
        let wait = Wait::Custom(key::call(self.control.inner.call, Key::Send));
        let (control, pending) = (&self.control, &mut self.pending);
        let shared = control.client().endpoint().shared();
        shared.poll_until(wait, &mut self.place, cx, |state| try_chunk(state, control, pending))
    }
}

/// Sends the chunk, if there is room.
fn try_chunk(state: &mut State, control: &CallControl, chunk: &mut Option<Chunk>) -> Poll<Result<(), CallError>> {
    let Some(taken) = chunk.take() else {
        return Poll::Ready(Ok(()));
    };
    match send_now(state, control, taken) {
        Ok(()) => Poll::Ready(Ok(())),
        Err((SendError::WouldBlock | SendError::NoPeer, back)) if state.phase != Phase::Dead => {
            *chunk = Some(back);
            Poll::Pending
        }
        Err((error, _)) => Poll::Ready(Err(error.into())),
    }
}

/// Sends a chunk behind all that wait. Those that follow may wait for the driver, which this one wakes.
fn send_now(state: &mut State, control: &CallControl, chunk: Chunk) -> Result<(), (SendError, Chunk)> {
    let now = state.tick();
    let inner = &*control.inner;
    inner.outgoing.hand_over(state, false);
    let sent = state.endpoint.call_send(now, inner.call, chunk);
    let link = inner.client.inner.link;
    if sent.is_ok() && link != RpcId::LOCAL && state.phase != Phase::Dead {
        inner.outgoing.open(state);
    }
    settle(state, link);
    sent
}

/// Chunks to be sent. One chunk at most is kept here; flushing means that the call has taken it. Closing finishes the direction.
impl Sink<Chunk> for CallSender {
    type Error = CallError;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Result<(), CallError>> {
        self.get_mut().poll_pending(cx)
    }

    fn start_send(self: Pin<&mut Self>, chunk: Chunk) -> Result<(), CallError> {
        let this = self.get_mut();
        match this.try_send(chunk) {
            Ok(()) => Ok(()),
            Err((SendError::WouldBlock | SendError::NoPeer, chunk)) => {
                this.pending = Some(chunk);
                Ok(())
            }
            Err((error, _)) => Err(error.into()),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Result<(), CallError>> {
        self.get_mut().poll_pending(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Result<(), CallError>> {
        let this = self.get_mut();
        ready!(this.poll_pending(cx))?;
        this.finish();
        Poll::Ready(Ok(()))
    }
}

impl Drop for CallSender {
    fn drop(&mut self) {
        let wait = Wait::Custom(key::call(self.control.inner.call, Key::Send));
        let shared = self.control.inner.client.inner.endpoint.shared();
        shared.stop_waiting(wait, &mut self.place);
    }
}

// ----- receiving ---------------------------------------------------------------------------------------------------

/// The receiving side of a call. Dropping it alone ends nothing; what comes then holds the sender up.
#[derive(Debug)]
pub struct CallReceiver {
    control: CallControl,
    fetched: VecDeque<Chunk>,
    /// What comes behind them.
    end: Option<Option<CallError>>,
    place: Option<u64>,
}

impl CallReceiver {
    pub(super) fn new(control: CallControl) -> Self {
        Self {
            control,
            fetched: VecDeque::new(),
            end: None,
            place: None,
        }
    }

    /// See [`Call::recv`].
    ///
    /// # Errors
    /// As [`Call::recv`].
    pub async fn recv(&mut self) -> Result<Option<Chunk>, CallError> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// See [`Call::recv_as`].
    ///
    /// # Errors
    /// As [`Call::recv_as`].
    pub async fn recv_as<T: DeserializeOwned>(&mut self) -> Result<Option<T>, CallError> {
        let Some(chunk) = self.recv().await? else {
            return Ok(None);
        };
        let value = match chunk {
            Chunk::Raw(bytes) => Value::Bytes(bytes),
            Chunk::Term(value) => value,
        };
        Ok(Some(from_value(value)?))
    }

    /// See [`Call::recv`].
    ///
    /// # Errors
    /// As [`Call::recv`].
    pub fn poll_recv(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<Option<Chunk>, CallError>> {
        if let Some(chunk) = self.fetched.pop_front() {
            return Poll::Ready(Ok(Some(chunk)));
        }
        if let Some(end) = &self.end {
            return Poll::Ready(end.clone().map_or(Ok(None), Err));
        }
        let call = self.control.inner.call;
        let link = self.control.inner.client.inner.link;
        let (fetched, end) = (&mut self.fetched, &mut self.end);
        let look = |state: &mut State| {
            let now = state.tick();
            match state.endpoint.call_recv_many(now, call, FETCH, fetched) {
                Ok(()) => {}
                Err(RecvError::WouldBlock) if state.phase == Phase::Dead => *end = Some(Some(CallError::Stopped)),
                Err(RecvError::WouldBlock) => {}
                Err(error) => *end = Some(end_of_data(error)),
            }
            settle(state, link);
            match (fetched.pop_front(), &end) {
                (Some(chunk), _) => Poll::Ready(Ok(Some(chunk))),
                (None, Some(end)) => Poll::Ready(end.clone().map_or(Ok(None), Err)),
                (None, None) => Poll::Pending,
            }
        };
        let wait = Wait::Custom(key::call(call, Key::Recv));
        let shared = self.control.inner.client.inner.endpoint.shared();
        shared.poll_until(wait, &mut self.place, cx, look)
    }

    /// The call as a whole.
    pub fn control(&self) -> &CallControl {
        &self.control
    }
}

/// The chunks that come; the last item is an error if the call was given up.
impl Stream for CallReceiver {
    type Item = Result<Chunk, CallError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let next = ready!(this.poll_recv(cx)).transpose();
        if matches!(next, Some(Err(_))) {
            // Once.
            this.end = Some(None);
        }
        Poll::Ready(next)
    }
}

impl Drop for CallReceiver {
    fn drop(&mut self) {
        let wait = Wait::Custom(key::call(self.control.inner.call, Key::Recv));
        let shared = self.control.inner.client.inner.endpoint.shared();
        shared.stop_waiting(wait, &mut self.place);
    }
}

// ----- both --------------------------------------------------------------------------------------------------------

/// The chunks that come; the last item is an error if the call was given up.
impl Stream for Call {
    type Item = Result<Chunk, CallError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.get_mut().receiver).poll_next(cx)
    }
}

/// Chunks to be sent; see [`CallSender`].
impl Sink<Chunk> for Call {
    type Error = CallError;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Result<(), CallError>> {
        Pin::new(&mut self.get_mut().sender).poll_ready(cx)
    }

    fn start_send(self: Pin<&mut Self>, chunk: Chunk) -> Result<(), CallError> {
        Pin::new(&mut self.get_mut().sender).start_send(chunk)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Result<(), CallError>> {
        Pin::new(&mut self.get_mut().sender).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Result<(), CallError>> {
        Pin::new(&mut self.get_mut().sender).poll_close(cx)
    }
}
