//! Procedures served by functions.

use std::{
    collections::BTreeMap,
    future::Future,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use macula_driver::{CallControl, Endpoint, IntoValue, RpcClient, ServerCall};
use macula_proto::{
    endpoint::UnknownLink,
    rpc::{Fault, Kind, Outcome},
};
use tokio::{
    sync::{mpsc, watch},
    task::{AbortHandle, JoinSet},
};

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

type Running = Pin<Box<dyn Future<Output = Result<macula_proto::wire::Value, Fault>> + Send>>;
type Handler = Arc<dyn Fn(ServerCall) -> Running + Send + Sync>;

/// Serves procedures of an endpoint with functions: each call has its own task.
///
/// It takes all calls of the endpoint, so there is one of these for each, and no one else who
/// [accepts](macula_driver::Endpoint::accept_call). Clones are handles of the same server; when the last is dropped its procedures are
/// advertised no more, and its handlers are dropped, which their callers see as `owner_down`. [`shutdown`](Self::shutdown) lets
/// them finish.
#[derive(Debug, Clone)]
pub struct RpcServer {
    inner: Arc<Inner>,
}

struct Inner {
    endpoint: Endpoint,
    handlers: Handlers,
    stop: mpsc::Sender<()>,
    done: watch::Receiver<()>,
    task: AbortHandle,
}

type Handlers = Arc<Mutex<BTreeMap<Bytes, Handler>>>;

fn locked(handlers: &Handlers) -> MutexGuard<'_, BTreeMap<Bytes, Handler>> {
    handlers.lock().unwrap_or_else(PoisonError::into_inner)
}

impl RpcServer {
    /// A server with the default settings, on the runtime that this is called in.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn new(endpoint: &Endpoint) -> Self {
        Self::with_config(endpoint, RpcServerConfig::default())
    }

    /// A server with settings of one's own.
    ///
    /// # Panics
    /// As [`new`](Self::new).
    pub fn with_config(endpoint: &Endpoint, config: RpcServerConfig) -> Self {
        let handlers = Handlers::default();
        let (stop, stopped) = mpsc::channel(1);
        let (finished, done) = watch::channel(());
        let serving = serve(endpoint.clone(), Arc::clone(&handlers), config, stopped, finished);
        let task = tokio::spawn(serving).abort_handle();
        let inner = Inner {
            endpoint: endpoint.clone(),
            handlers,
            stop,
            done,
            task,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Offers a procedure on all links, in place of what was offered under this name. `handler` is called for each call of it; the
    /// future runs in a task of its own.
    ///
    /// - `Ok(value)` settles the reply, unless the handler did, and ends the call in good order, behind what was sent.
    /// - `Err(fault)` ends the call with that fault, and no other call.
    /// - A panic ends it with the code `handler_error`.
    ///
    /// A caller that goes does not stop the handler: receiving and sending then fail, and [`ended`](macula_driver::Call::ended) returns.
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
        let _ = self.inner.stop.try_send(());
        let mut done = self.inner.done.clone();
        // Nothing is ever sent: the server is done when the other half is dropped.
        while done.changed().await.is_ok() {}
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
        self.task.abort();
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RpcServer").finish_non_exhaustive()
    }
}

// ----- the task ----------------------------------------------------------------------------------------------------

async fn serve(
    endpoint: Endpoint,
    handlers: Handlers,
    config: RpcServerConfig,
    mut stopped: mpsc::Receiver<()>,
    finished: watch::Sender<()>,
) {
    let mut running = JoinSet::new();
    let max = config.max_running.max(1);
    loop {
        let full = running.len() >= max;
        tokio::select! {
            biased;
            Some(_) = running.join_next(), if !running.is_empty() => {}
            _ = stopped.recv() => break,
            call = endpoint.accept_call(), if !full || config.overload == Overload::Refuse => {
                let Some(call) = call else { break };
                if full {
                    let fault = Fault::new("limit", "too many calls are being served");
                    give_up(&call, fault);
                } else {
                    start(&mut running, &handlers, call);
                }
            }
        }
    }
    turn_away(&endpoint).await;
    while running.join_next().await.is_some() {}
    drop(finished);
}

/// Drops the calls that wait for a handler.
async fn turn_away(endpoint: &Endpoint) {
    loop {
        tokio::select! {
            biased;
            call = endpoint.accept_call() => match call {
                Some(call) => drop(call),
                None => return,
            },
            () = std::future::ready(()) => return,
        }
    }
}

fn start(running: &mut JoinSet<()>, handlers: &Handlers, call: ServerCall) {
    let handler = locked(handlers).get(call.procedure()).cloned();
    match handler {
        Some(handler) => {
            running.spawn(run(handler, call));
        }
        // It was taken back meanwhile.
        None => give_up(&call, Fault::new("not_found", "procedure not advertised")),
    }
}

async fn run(handler: Handler, call: ServerCall) {
    let (kind, control) = (call.kind(), call.control().clone());
    let guard = Guard {
        control: &control,
        kind,
    };
    let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| handler(call)));
    let outcome = match outcome {
        Ok(running) => running.await,
        Err(_) => Err(panicked()),
    };
    guard.settle(outcome);
}

/// Ends the call, also when its handler panics.
struct Guard<'a> {
    control: &'a CallControl,
    kind: Kind,
}

impl Guard<'_> {
    fn settle(self, outcome: Result<macula_proto::wire::Value, Fault>) {
        match outcome {
            Ok(value) => {
                self.control.set_reply(Outcome::Ok(value));
                self.control.close();
            }
            Err(fault) => end(self.control, self.kind, fault),
        }
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            end(self.control, self.kind, panicked());
        }
    }
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
