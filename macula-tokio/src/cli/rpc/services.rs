//! What `macula rpc serve` offers.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use macula_driver::{CallControl, CallError, ServerCall};
use macula_proto::{
    rpc::{Fault, Mode, Outcome},
    wire::Value,
};
use tokio::{sync::Semaphore, time::timeout};

use super::{
    args::ServeArgs,
    builtin::{self, Root},
    events::{FaultJson, RpcEvent},
    exec::Exec,
};
use crate::{
    Endpoint,
    cli::{events::Events, outcome::Failure},
    rpc::RpcServer,
};

/// The procedures that every server has, and `cat`, with their modes.
pub(super) const BUILT_IN: [(&str, Mode); 4] = [
    ("cat", Mode::ServerStream),
    ("count", Mode::ServerStream),
    ("echo", Mode::Bidi),
    ("sum", Mode::ClientStream),
];

/// How a call failed.
#[derive(Debug)]
pub(super) enum Failed {
    /// It was given up.
    Abort(Fault),
    /// It came to its end, which is no good one.
    Reply(Fault),
}

impl From<Fault> for Failed {
    fn from(fault: Fault) -> Self {
        Self::Abort(fault)
    }
}

/// What is offered, before there is an endpoint to offer it on.
#[derive(Debug)]
pub(super) struct Services {
    prefix: Option<String>,
    root: Option<Arc<Root>>,
    commands: Vec<(String, Arc<Exec>)>,
    quiet: bool,
}

impl Services {
    pub(super) fn new(args: &ServeArgs) -> Result<Self, Failure> {
        let root = match &args.root {
            Some(path) => {
                let failed = |error| Failure::failed("root", format_args!("{}: {error}", path.display()));
                Some(Arc::new(Root::new(path).map_err(failed)?))
            }
            None => None,
        };
        let room = Arc::new(Semaphore::new(args.max_commands.min(Semaphore::MAX_PERMITS)));
        let mut commands: Vec<(String, Arc<Exec>)> = Vec::new();
        for exec in &args.exec {
            let is = |name: &str| name == exec.name;
            if BUILT_IN.iter().any(|(name, _)| is(name)) || commands.iter().any(|(name, _)| is(name)) {
                return Err(Failure::Usage(format!(
                    "--exec: there is a procedure {} already",
                    exec.name
                )));
            }
            commands.push((
                exec.name.clone(),
                Arc::new(Exec::new(exec.command.clone(), room.clone())),
            ));
        }
        Ok(Self {
            prefix: args.prefix.clone(),
            root,
            commands,
            quiet: args.quiet,
        })
    }

    /// Offers everything, and says so.
    pub(super) fn offer(&self, endpoint: &Endpoint, events: &Events) -> RpcServer {
        let offer = Offer {
            services: self,
            server: RpcServer::new(endpoint),
            events: (!self.quiet).then(|| events.clone()),
        };
        for (name, mode) in BUILT_IN {
            match (name, &self.root) {
                ("echo", _) => offer.add(name, mode, builtin::echo),
                ("count", _) => offer.add(name, mode, builtin::count),
                ("sum", _) => offer.add(name, mode, builtin::sum),
                (_, Some(root)) => {
                    let root = root.clone();
                    offer.add(name, mode, move |call| builtin::cat(root.clone(), call));
                }
                (_, None) => {}
            }
        }
        for (name, exec) in &self.commands {
            let exec = exec.clone();
            offer.add(name, Mode::Bidi, move |call| exec.clone().serve(call));
        }
        let procedures = offer.server.procedures();
        let procedures = procedures.iter().map(|name| String::from_utf8_lossy(name).into_owned());
        let event = RpcEvent::Serving {
            procedures: procedures.collect(),
        };
        event.tell(events);
        offer.server
    }
}

struct Offer<'a> {
    services: &'a Services,
    server: RpcServer,
    events: Option<Events>,
}

impl Offer<'_> {
    /// Under its own name, and with the prefix.
    fn add<H, F, E>(&self, name: &str, mode: Mode, handler: H)
    where
        H: Fn(ServerCall) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Value, E>> + Send + 'static,
        E: Into<Failed> + 'static,
    {
        let long = (self.services.prefix.as_ref()).map(|prefix| format!("{prefix}/{name}_v1"));
        let handler = Arc::new(handler);
        for name in [Some(name.to_owned()), long].into_iter().flatten() {
            let (handler, events) = (handler.clone(), self.events.clone());
            self.server.advertise(name, mode, move |call| {
                let (handler, events) = (handler.clone(), events.clone());
                async move {
                    let told = Told::new(&call);
                    let control = call.control().clone();
                    let outcome = match handler(call).await.map_err(Into::into) {
                        Ok(value) => {
                            control.set_reply(Outcome::Ok(value));
                            Ok(())
                        }
                        Err(Failed::Reply(fault)) => {
                            control.set_reply(Outcome::Err(fault.clone()));
                            Err(fault)
                        }
                        Err(Failed::Abort(fault)) => {
                            let fault = why(&control, fault).await;
                            control.abort(fault.clone());
                            Err(fault)
                        }
                    };
                    control.close();
                    // All has left now: whoever stops the server need not wait for more.
                    control.ended().await;
                    told.tell(events.as_ref(), outcome.err());
                    Ok(Value::Null)
                }
            });
        }
    }
}

/// Why a call is over that takes no more chunks, which is all that its handler may have seen of that.
async fn why(control: &CallControl, fault: Fault) -> Fault {
    if fault.code != "send_closed" {
        return fault;
    }
    match timeout(Duration::ZERO, control.reply()).await {
        Ok(Err(CallError::Aborted(why))) => why,
        _ => fault,
    }
}

/// A call that will be told of when it is over.
struct Told {
    procedure: String,
    link: u64,
    begun: Instant,
}

impl Told {
    fn new(call: &ServerCall) -> Self {
        Self {
            procedure: String::from_utf8_lossy(call.procedure()).into_owned(),
            link: call.client().id().get(),
            begun: Instant::now(),
        }
    }

    fn tell(self, events: Option<&Events>, fault: Option<Fault>) {
        let Some(events) = events else { return };
        let fault = fault.as_ref().map(FaultJson::from);
        let (outcome, message) = match fault {
            Some(fault) => (fault.code, fault.message),
            None => ("ok".to_owned(), None),
        };
        let event = RpcEvent::Call {
            procedure: self.procedure,
            outcome,
            // Microseconds are enough for anybody to read.
            seconds: (self.begun.elapsed().as_secs_f64() * 1e6).round() / 1e6,
            message,
            link: self.link,
        };
        event.tell(events);
    }
}
