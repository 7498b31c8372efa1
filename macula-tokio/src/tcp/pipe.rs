//! A tunnel in memory, for tests: two pipes that know FIN, reset and stop.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
};

use macula_proto::Code;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{RecvHalf, SendHalf, StreamReset};

/// Both ends of a tunnel, each as (receiving half, sending half). `room` bytes fit into each direction.
pub(crate) fn tunnel(room: usize) -> [(PipeRecv, PipeSend); 2] {
    let (one, two) = (Shared::new(room), Shared::new(room));
    [
        (PipeRecv(one.clone()), PipeSend(two.clone())),
        (PipeRecv(two), PipeSend(one)),
    ]
}

#[derive(Debug, Clone)]
struct Shared(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    bytes: VecDeque<u8>,
    room: usize,
    finished: bool,
    drained: bool,
    reset: Option<Code>,
    stopped: Option<Code>,
    wakers: Vec<Waker>,
}

impl Shared {
    fn new(room: usize) -> Self {
        Self(Arc::new(Mutex::new(State {
            room,
            ..State::default()
        })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let out = change(&mut state);
        state.wakers.drain(..).for_each(Waker::wake);
        out
    }
}

#[derive(Debug)]
pub(crate) struct PipeRecv(Shared);

#[derive(Debug)]
pub(crate) struct PipeSend(Shared);

impl AsyncRead for PipeRecv {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.lock();
        if let Some(code) = state.reset {
            return Poll::Ready(Err(StreamReset(code).into()));
        }
        if state.bytes.is_empty() && !state.finished {
            state.wakers.push(cx.waker().clone());
            return Poll::Pending;
        }
        state.drained = state.bytes.is_empty();
        let length = state.bytes.len().min(out.remaining());
        let bytes: Vec<u8> = state.bytes.drain(..length).collect();
        out.put_slice(&bytes);
        state.wakers.drain(..).for_each(Waker::wake);
        Poll::Ready(Ok(()))
    }
}

impl RecvHalf for PipeRecv {
    fn stop(&mut self, code: Code) {
        self.0.change(|state| state.stopped = state.stopped.or(Some(code)));
    }
}

impl Drop for PipeRecv {
    fn drop(&mut self) {
        if !self.0.lock().drained {
            self.stop(Code::CANCELLED);
        }
    }
}

impl AsyncWrite for PipeSend {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.0.lock();
        if let Some(code) = state.stopped {
            return Poll::Ready(Err(StreamReset(code).into()));
        }
        let length = bytes.len().min(state.room - state.bytes.len());
        if length == 0 {
            state.wakers.push(cx.waker().clone());
            return Poll::Pending;
        }
        state.bytes.extend(&bytes[..length]);
        state.wakers.drain(..).for_each(Waker::wake);
        Poll::Ready(Ok(length))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        self.0.change(|state| state.finished = true);
        Poll::Ready(Ok(()))
    }
}

impl SendHalf for PipeSend {
    fn reset(&mut self, code: Code) {
        self.0.change(|state| state.reset = state.reset.or(Some(code)));
    }
}

impl Drop for PipeSend {
    fn drop(&mut self) {
        if !self.0.lock().finished {
            self.reset(Code::CANCELLED);
        }
    }
}
