//! Procedures served by functions.

use std::{
    any::Any,
    collections::BTreeMap,
    future::Future,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use macula_proto::{
    endpoint::UnknownLink,
    rpc::{Fault, Kind, Outcome},
    wire::Value,
};

use super::{CallControl, IntoValue, RpcClient, ServerCall};
use crate::{Endpoint, Runtime};

/// How calls are served.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RpcServerConfig {
    /// Handlers that run at once. Default 16,384; 0 counts as 1.
    pub max_running: usize,
    /// What happens to a call above that. Default: it waits.
    pub overload: Overload,
}

impl Default for RpcServerConfig {
    fn default() -> Self {
        Self {
            max_running: 16_384,
            overload: Overload::Wait,
        }
    }
}

/// What happens to a call for which no handler may run now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overload {
    /// It waits, links having their turns; the number of those is bounded by
    /// [`RpcLimits::calls`](macula_proto::rpc::RpcLimits::calls).
    #[default]
    Wait,
    /// It is ended with the code `limit`.
    Refuse,
}

type Running = Pin<Box<dyn Future<Output = Result<Value, Fault>> + Send>>;
type Handler = Arc<dyn Fn(ServerCall) -> Running + Send + Sync>;

/// Serves procedures of an endpoint with functions: each call has its own task.
///
/// It takes all calls of the endpoint, so there is one of these for each, and no one else who
/// [accepts](Endpoint::accept_call). Clones are handles of the same server; when the last is dropped its procedures are
/// advertised no more, and its handlers are dropped, which their callers see as `owner_down`. [`shutdown`](Self::shutdown) lets
/// them finish.
#[derive(Debug, Clone)]
pub struct RpcServer {
    inner: Arc<Inner>,
}

struct Inner {
    endpoint: Endpoint,
    handlers: Handlers,
    progress: Arc<Progress>,
    /// The task, and with it those of the handlers.
    _task: Box<dyn Any + Send + Sync>,
}

type Handlers = Arc<Mutex<BTreeMap<Bytes, Handler>>>;

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl RpcServer {
    /// A server whose tasks are spawned on a runtime: the one that this is called in, where there are several.
    ///
    /// # Errors
    /// Those of [`Runtime::current`].
    pub fn spawn<R: Runtime>(endpoint: &Endpoint, config: RpcServerConfig) -> io::Result<Self> {
        let handlers = Handlers::default();
        let progress = Arc::<Progress>::default();
        let runtime = R::current()?;
        let serving = serve(
            runtime.clone(),
            endpoint.clone(),
            Arc::clone(&handlers),
            config,
            Finish(Arc::clone(&progress)),
        );
        let inner = Inner {
            endpoint: endpoint.clone(),
            handlers,
            progress,
            _task: Box::new(runtime.spawn(serving)),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Offers a procedure on all links, in place of what was offered under this name. `handler` is called for each call of it; the
    /// future runs in a task of its own.
    ///
    /// - `Ok(value)` settles the reply, unless the handler did, and ends the call in good order, behind what was sent.
    /// - `Err(fault)` ends the call with that fault, and no other call.
    /// - A panic ends it with the code `handler_error`.
    ///
    /// A caller that goes does not stop the handler: receiving and sending then fail, and [`ended`](super::Call::ended) returns.
    pub fn advertise<H, F, V>(&self, procedure: impl Into<Bytes>, kind: impl Into<Kind>, handler: H)
    where
        H: Fn(ServerCall) -> F + Send + Sync + 'static,
        F: Future<Output = Result<V, Fault>> + Send + 'static,
        V: IntoValue + 'static,
    {
        let procedure = procedure.into();
        let handler: Handler = Arc::new(move |call| {
            let running = handler(call);
            Box::pin(async move {
                running
                    .await?
                    .into_value()
                    .map_err(|error| handler_error(&error.to_string()))
            })
        });
        locked(&self.inner.handlers).insert(procedure.clone(), handler);
        self.inner.endpoint.advertise(procedure, kind);
    }

    /// Offers a procedure no more: it is `not_found` from now on. Calls of it that run go on. `false` if it was not offered.
    pub fn unadvertise(&self, procedure: impl AsRef<[u8]>) -> bool {
        let procedure = procedure.as_ref();
        self.inner.endpoint.unadvertise(procedure);
        locked(&self.inner.handlers).remove(procedure).is_some()
    }

    /// The procedures that are offered, in the order of their names.
    pub fn procedures(&self) -> Vec<Bytes> {
        locked(&self.inner.handlers).keys().cloned().collect()
    }

    /// Registers all procedures at the far end of a link, a router, so that it sends calls for them.
    ///
    /// # Errors
    /// [`UnknownLink`] when the link is over.
    pub fn register_at(&self, router: &RpcClient) -> Result<(), UnknownLink> {
        self.procedures()
            .iter()
            .try_for_each(|procedure| router.register(procedure))
    }

    /// Offers nothing any more, and waits for the handlers that run. Calls that wait for one are ended with `owner_down`.
    pub async fn shutdown(&self) {
        self.inner.unadvertise();
        self.inner.progress.stop();
        std::future::poll_fn(|cx| self.inner.progress.poll_done(cx)).await;
    }

    /// The endpoint that is served.
    pub fn endpoint(&self) -> &Endpoint {
        &self.inner.endpoint
    }
}

impl Inner {
    fn unadvertise(&self) {
        let offered = std::mem::take(&mut *locked(&self.handlers));
        for procedure in offered.into_keys() {
            self.endpoint.unadvertise(procedure);
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.unadvertise();
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RpcServer").finish_non_exhaustive()
    }
}

// ----- what goes on ------------------------------------------------------------------------------------------------

/// What the handles, the task and the handlers tell each other.
#[derive(Debug, Default)]
struct Progress(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// No call is taken any more.
    stopping: bool,
    /// The task is over.
    done: bool,
    /// Handlers that are over, and that the task has not heard of.
    finished: Vec<u64>,
    task: Option<Waker>,
    /// Whoever waits for `done`.
    waiting: Vec<Waker>,
}

/// Something that the task has to see to.
#[expect(clippy::large_enum_variant, reason = "one at a time, made and taken apart at once")]
enum News {
    Finished(Vec<u64>),
    Stop,
    Call(Option<ServerCall>),
}

impl Progress {
    fn stop(&self) {
        self.tell(|state| state.stopping = true);
    }

    fn tell(&self, change: impl FnOnce(&mut State)) {
        let task = {
            let mut state = locked(&self.0);
            change(&mut state);
            state.task.take()
        };
        if let Some(task) = task {
            task.wake();
        }
    }

    fn poll_finished(&self, cx: &mut Context<'_>) -> Poll<Vec<u64>> {
        let mut state = locked(&self.0);
        if state.finished.is_empty() {
            state.task = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(std::mem::take(&mut state.finished))
    }

    fn poll_news(&self, cx: &mut Context<'_>) -> Poll<News> {
        if let Poll::Ready(finished) = self.poll_finished(cx) {
            return Poll::Ready(News::Finished(finished));
        }
        match locked(&self.0).stopping {
            true => Poll::Ready(News::Stop),
            false => Poll::Pending,
        }
    }

    fn poll_done(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = locked(&self.0);
        if state.done {
            return Poll::Ready(());
        }
        if !state.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            state.waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }
}

/// Tells the handles that the task is over, also if it is dropped before its end.
struct Finish(Arc<Progress>);

impl Drop for Finish {
    fn drop(&mut self) {
        let waiting = {
            let mut state = locked(&self.0.0);
            state.done = true;
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }
}

// ----- the task ----------------------------------------------------------------------------------------------------

async fn serve<R: Runtime>(
    runtime: R,
    endpoint: Endpoint,
    handlers: Handlers,
    config: RpcServerConfig,
    finish: Finish,
) {
    let progress = &finish.0;
    let mut running = Tasks::on(runtime);
    let max = config.max_running.max(1);
    loop {
        let full = running.tasks.len() >= max;
        let accepting = !full || config.overload == Overload::Refuse;
        let news = {
            let mut call = pin!(endpoint.accept_call());
            std::future::poll_fn(|cx| match progress.poll_news(cx) {
                Poll::Pending if accepting => call.as_mut().poll(cx).map(News::Call),
                news => news,
            })
            .await
        };
        match news {
            News::Finished(finished) => running.forget(&finished),
            News::Stop | News::Call(None) => break,
            News::Call(Some(call)) if full => {
                give_up(&call, Fault::new("limit", "too many calls are being served"));
            }
            News::Call(Some(call)) => running.start(&handlers, call, progress),
        }
    }
    turn_away(&endpoint).await;
    while !running.tasks.is_empty() {
        let finished = std::future::poll_fn(|cx| progress.poll_finished(cx)).await;
        running.forget(&finished);
    }
}

/// Drops the calls that wait for a handler.
async fn turn_away(endpoint: &Endpoint) {
    loop {
        let mut call = pin!(endpoint.accept_call());
        let waiting = std::future::poll_fn(|cx| match call.as_mut().poll(cx) {
            Poll::Ready(call) => Poll::Ready(call),
            Poll::Pending => Poll::Ready(None),
        });
        if waiting.await.is_none() {
            return;
        }
    }
}

/// The handlers that run. They end with this.
struct Tasks<R: Runtime> {
    runtime: R,
    tasks: BTreeMap<u64, R::Task>,
    next: u64,
}

impl<R: Runtime> Tasks<R> {
    fn on(runtime: R) -> Self {
        Self {
            runtime,
            tasks: BTreeMap::new(),
            next: 0,
        }
    }

    fn start(&mut self, handlers: &Handlers, call: ServerCall, progress: &Arc<Progress>) {
        let handler = locked(handlers).get(call.procedure()).cloned();
        let Some(handler) = handler else {
            // It was taken back meanwhile.
            return give_up(&call, Fault::new("not_found", "procedure not advertised"));
        };
        self.next += 1;
        let over = Over {
            progress: Arc::clone(progress),
            number: self.next,
        };
        let task = self.runtime.spawn(run(handler, call, over));
        self.tasks.insert(self.next, task);
    }

    fn forget(&mut self, finished: &[u64]) {
        for number in finished {
            self.tasks.remove(number);
        }
    }
}

/// Tells the task that a handler is over, however that came about.
struct Over {
    progress: Arc<Progress>,
    number: u64,
}

impl Drop for Over {
    fn drop(&mut self) {
        self.progress.tell(|state| state.finished.push(self.number));
    }
}

async fn run(handler: Handler, call: ServerCall, over: Over) {
    let (kind, control) = (call.kind(), call.control().clone());
    let outcome = match catch_unwind(AssertUnwindSafe(|| handler(call))) {
        Ok(running) => unwound(running).await,
        Err(_) => Err(panicked()),
    };
    match outcome {
        Ok(value) => {
            control.set_reply(Outcome::Ok(value));
            control.close();
        }
        Err(fault) => end(&control, kind, fault),
    }
    drop(over);
}

/// Runs a handler to its end, or to where it panics.
async fn unwound(running: Running) -> Result<Value, Fault> {
    let mut running = Some(running);
    std::future::poll_fn(|cx| {
        let Some(future) = &mut running else {
            return Poll::Pending;
        };
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx)));
        polled.unwrap_or_else(|_| Poll::Ready(Err(panicked())))
    })
    .await
}

fn give_up(call: &ServerCall, fault: Fault) {
    end(call.control(), call.kind(), fault);
}

fn end(control: &CallControl, kind: Kind, fault: Fault) {
    match kind {
        Kind::Stream(_) => control.abort(fault),
        Kind::Unary => _ = control.set_reply(Outcome::Err(fault)),
    }
}

fn panicked() -> Fault {
    handler_error("the handler panicked")
}

fn handler_error(why: &str) -> Fault {
    Fault::new("handler_error", why)
}
