//! `macula rpc call`.

use std::{
    future::pending,
    io::{self, IsTerminal as _},
    time::Duration,
};

use bytes::Bytes;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use macula_driver::{Call, CallControl, CallError};
use macula_proto::{
    rpc::{Chunk, Fault, Kind, Mode, session::Request},
    wire::Value,
};
use tokio::time::{sleep, timeout};

use super::{
    FAREWELL,
    args::{CallArgs, ChunkArg},
    connect::{self, Link},
    events::RpcEvent,
    input::Input,
    json::{from_json, to_json},
    services::BUILT_IN,
};
use crate::cli::{
    events::Events,
    outcome::{Failure, Outcome},
    output::Output,
    signals::Signals,
    values::{self, HostPort},
};

pub(super) async fn run(args: CallArgs, events: &Events, signals: &mut Signals) -> Outcome {
    let wanted = Wanted::of(&args)?;
    connect::check(&args)?;
    let output = Output::stdout();
    let link = tokio::select! {
        link = Link::connect(&args, wanted.direct.as_ref()) => link?,
        () = signals.stop() => return Err(Failure::failed("cancelled", "interrupted while connecting")),
    };
    let mut session = Session {
        bar: progress_bar(&wanted, events),
        json: events.is_json(),
        wanted,
        output,
    };
    let outcome = session.run(&args, &link, signals).await;
    session.bar.finish_and_clear();
    if session.json {
        let ended = timeout(Duration::ZERO, link.client.closed()).await;
        let reason = ended.map_or_else(|_| "closed".to_owned(), |end| end.to_string());
        let event = RpcEvent::Disconnected {
            reason,
            peer: Some(link.peer.clone()),
            link: None,
        };
        event.tell(events);
    }
    link.close().await;
    outcome
}

/// What is called, and how.
#[derive(Debug)]
struct Wanted {
    /// Whom to dial, if neither a relay nor a router is to be used.
    direct: Option<HostPort>,
    procedure: String,
    args: Value,
    kind: Kind,
    chunk: ChunkArg,
}

impl Wanted {
    fn of(args: &CallArgs) -> Result<Self, Failure> {
        let usage = |message: String| Failure::Usage(message);
        let dials = args.relay.is_empty() && args.router.is_none();
        let mut words = args.what.iter();
        let direct = match words.next() {
            Some(at) if dials => Some(values::peer_address(at).map_err(usage)?),
            _ => {
                words = args.what.iter();
                None
            }
        };
        let procedure = words.next();
        let procedure = procedure.ok_or_else(|| usage("which procedure to call is missing".to_owned()))?;
        let json = words.next().map_or("null", String::as_str);
        if words.next().is_some() {
            return Err(usage(
                "whom to call is said by --relay or --router; two addresses are too many".to_owned(),
            ));
        }
        let parsed = from_json(json).map_err(|error| usage(format!("arguments {json:?} are no JSON: {error}")))?;
        let known = built_in(procedure);
        Ok(Self {
            direct,
            args: parsed,
            kind: match (args.mode, known) {
                (Some(mode), _) => mode.into(),
                (None, Some((_, mode))) => mode.into(),
                (None, None) => Mode::Bidi.into(),
            },
            chunk: match (args.chunk, known) {
                (Some(chunk), _) => chunk,
                (None, Some(("sum", _))) => ChunkArg::Lines,
                (None, _) => ChunkArg::DEFAULT,
            },
            procedure: procedure.clone(),
        })
    }

    /// Whether this side sends chunks.
    fn sends(&self) -> bool {
        matches!(self.kind, Kind::Stream(Mode::ClientStream | Mode::Bidi))
    }

    /// Whether this side gets chunks.
    fn receives(&self) -> bool {
        matches!(self.kind, Kind::Stream(Mode::ServerStream | Mode::Bidi))
    }

    /// What went wrong with it.
    fn failed(&self, error: &CallError) -> Failure {
        let message = format!("{}: {error}", self.procedure);
        match error.code() {
            "timeout" => Failure::Timeout(message),
            code => Failure::failed(code.to_owned(), message),
        }
    }
}

/// The built-in procedure that a name stands for, with or without a prefix.
fn built_in(procedure: &str) -> Option<(&'static str, Mode)> {
    let last = procedure.rsplit('/').next().unwrap_or(procedure);
    let name = match last.rsplit_once("_v") {
        Some((name, version)) if last != procedure && version.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => procedure,
    };
    BUILT_IN.into_iter().find(|(built_in, _)| *built_in == name)
}

/// A call, from its beginning to its end.
struct Session {
    wanted: Wanted,
    json: bool,
    output: Output,
    bar: ProgressBar,
}

impl Session {
    async fn run(&mut self, args: &CallArgs, link: &Link, signals: &mut Signals) -> Outcome {
        self.tell(&RpcEvent::Connected {
            peer: link.peer.clone(),
            carrier: link.carrier,
            link: None,
        })
        .await;
        let mut request = Request::new(self.wanted.procedure.clone(), self.wanted.kind);
        request.args = self.wanted.args.clone();
        request.deadline = args.deadline;
        let opened = link.client.open_with(request).await;
        let call = opened.map_err(|error| self.wanted.failed(&error))?;
        let control = call.control().clone();
        let writing = self.output.writing();
        let late = format!("{}: no end before the deadline", self.wanted.procedure);
        let given_up = tokio::select! {
            biased;
            () = signals.stop() => Err(Failure::failed("cancelled", "interrupted")),
            outcome = self.work(call) => {
                // If it is not over, nothing that it still does is wanted.
                control.abort(Fault::cancelled());
                return outcome;
            }
            // Also where the output is what takes so long.
            () = at_deadline(args.deadline) => Err(Failure::Timeout(late)),
            outcome = writing.broken() => outcome,
        };
        control.abort(Fault::cancelled());
        // The peer shall hear of that before it hears that the link is closed, which may overtake it.
        let _ = timeout(FAREWELL, link.client.ping()).await;
        given_up
    }

    async fn work(&mut self, call: Call) -> Outcome {
        let control = call.control().clone();
        let transferred = match self.wanted.kind {
            Kind::Stream(_) => self.transfer(call).await,
            Kind::Unary => Ok(()),
        };
        let outcome = match transferred {
            Ok(()) => self.reply(&control).await,
            Err(failure) => Err(failure),
        };
        self.output.finish().await;
        outcome
    }

    /// Chunks in both directions, until no more come.
    async fn transfer(&self, call: Call) -> Outcome {
        let (sender, mut receiver) = call.split();
        let send = async {
            if self.wanted.sends() {
                let mut input = Input::stdin(self.wanted.chunk);
                while let Some(chunk) = input.next().await? {
                    self.bar.inc(length(&chunk));
                    match sender.send(chunk).await {
                        Ok(()) => {}
                        // It is over, or the peer wants no more: the other direction says which.
                        Err(CallError::SendClosed) => return Ok(()),
                        Err(error) => return Err(self.wanted.failed(&error)),
                    }
                }
                sender.finish();
            }
            Ok(())
        };
        let receive = async {
            while let Some(chunk) = receiver.recv().await.map_err(|error| self.wanted.failed(&error))? {
                self.bar.inc(length(&chunk));
                self.show(chunk).await;
            }
            // What this side sends may be waited for. What the reply is comes later.
            let _ = sender.control().reply().await;
            Ok(())
        };
        tokio::select! {
            Err(failure) = send => Err(failure),
            outcome = receive => outcome,
        }
    }

    /// The last word.
    async fn reply(&self, control: &CallControl) -> Outcome {
        let reply = control.reply().await;
        let told = match &reply {
            Ok(value) => Some(Ok(value.clone())),
            Err(CallError::Failed(fault)) => Some(Err(fault.clone())),
            Err(_) => None,
        };
        if let Some(told) = told {
            self.tell(&RpcEvent::reply(&told)).await;
        }
        match reply {
            Ok(value) if !self.json && !self.wanted.receives() => {
                self.output.write(format!("{}\n", to_json(&value))).await;
                Ok(())
            }
            Ok(_) => Ok(()),
            // Not everybody replies where chunks are the answer.
            Err(CallError::NoReply) if self.wanted.receives() => Ok(()),
            Err(error) => Err(self.wanted.failed(&error)),
        }
    }

    async fn show(&self, chunk: Chunk) {
        if self.json {
            return self.tell(&RpcEvent::chunk(&chunk)).await;
        }
        match chunk {
            Chunk::Raw(bytes) => self.output.write(bytes).await,
            Chunk::Term(value) => self.output.write(format!("{}\n", to_json(&value))).await,
        }
    }

    /// Tells of an event, where that is wanted.
    async fn tell(&self, event: &RpcEvent) {
        if self.json {
            self.output.write(Bytes::from(event.line(true))).await;
        }
    }
}

fn length(chunk: &Chunk) -> u64 {
    match chunk {
        Chunk::Raw(bytes) => bytes.len() as u64,
        Chunk::Term(_) => chunk.cost() as u64,
    }
}

async fn at_deadline(deadline: Option<Duration>) {
    match deadline {
        Some(deadline) => sleep(deadline).await,
        None => pending().await,
    }
}

/// Where there is something to see, and nothing else is written to the same terminal.
fn progress_bar(wanted: &Wanted, events: &Events) -> ProgressBar {
    let types = wanted.sends() && io::stdin().is_terminal();
    let hidden = events.is_json() || types || io::stdout().is_terminal() || !io::stderr().is_terminal();
    if hidden || wanted.kind == Kind::Unary {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    let template = "{spinner} {bytes}, {bytes_per_sec}, {elapsed}";
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_procedures_have_their_modes() {
        for (name, mode) in [
            ("echo", Some(Mode::Bidi)),
            ("count", Some(Mode::ServerStream)),
            ("acme/demo/alice/tools/sum_v1", Some(Mode::ClientStream)),
            ("a/b/c/d/cat_v12", Some(Mode::ServerStream)),
            ("upper", None),
            ("a/b/c/d/upper_v1", None),
            ("sum_v1", None),
            ("a/echo_vx", None),
        ] {
            assert_eq!(built_in(name).map(|(_, mode)| mode), mode, "{name}");
        }
    }
}
