//! The processes of a node: what is sent to them is shown, and sent back.

use super::{
    args::Greeting,
    events::{DistEvent, shown},
    teller::Teller,
};
use crate::{
    cli::outcome::Failure,
    dist::{Call, CommandError, Events as NodeEvents, Mailbox, Node, NodeEvent, Pid, Signal, Target, Term, atom},
};

/// A process under a name.
pub(super) struct Process {
    pub(super) node: Node,
    pub(super) name: String,
    pub(super) echo: bool,
    pub(super) teller: Teller,
    mailbox: Mailbox,
}

impl Process {
    pub(super) fn start(node: &Node, name: &str, echo: bool, teller: &Teller) -> Result<Self, Failure> {
        Ok(Self {
            node: node.clone(),
            name: name.to_owned(),
            echo,
            teller: teller.clone(),
            mailbox: open(node, name)?,
        })
    }

    /// Takes what comes, as long as there is a node. Whoever comes up is greeted.
    pub(super) async fn run(mut self, mut greetings: Option<(NodeEvents, Vec<Greeting>)>) {
        loop {
            let greeting = async {
                match &mut greetings {
                    Some((events, greetings)) => (events.next().await, &*greetings),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                signal = self.mailbox.recv() => match signal {
                    Some(signal) => self.take(signal).await,
                    // It was killed from outside, which is no reason not to take what comes next.
                    None => match open(&self.node, &self.name) {
                        Ok(mailbox) => self.mailbox = mailbox,
                        Err(_) => return,
                    },
                },
                (event, greetings) = greeting => match event {
                    Some(NodeEvent::Up(peer)) => self.greet(&peer, greetings).await,
                    Some(_) => {}
                    None => return,
                },
            }
        }
    }

    async fn take(&self, signal: Signal) {
        match signal {
            Signal::Message { from, term } => match Call::from_term(term) {
                Ok(call) => self.answer(call).await,
                Err(term) => self.message(from, term).await,
            },
            Signal::Exit { from, reason, linked } => {
                let event = DistEvent::Exit {
                    from: from.to_string(),
                    to: self.name.clone(),
                    reason: shown(&reason),
                    linked,
                };
                self.teller.tell_when_room(&event).await;
            }
            // Nothing is monitored.
            Signal::Down { .. } => {}
        }
    }

    async fn message(&self, from: Option<Pid>, term: Term) {
        let event = DistEvent::Message {
            from: from.as_ref().map(ToString::to_string),
            to: self.name.clone(),
            term: shown(&term),
        };
        self.teller.tell_when_room(&event).await;
        if let (true, Some(from)) = (self.echo, from) {
            self.send(from.into(), term).await;
        }
    }

    async fn answer(&self, call: Call) {
        let event = DistEvent::Call {
            from: call.from.to_string(),
            to: self.name.clone(),
            term: shown(&call.request),
        };
        self.teller.tell_when_room(&event).await;
        if self.echo {
            let request = call.request.clone();
            self.send(call.reply_to(), call.reply(request)).await;
        }
    }

    async fn greet(&self, peer: &str, greetings: &[Greeting]) {
        for greeting in greetings {
            let (Ok(name), Ok(node)) = (atom(&greeting.process), atom(peer)) else {
                continue;
            };
            let text = Term::Binary(greeting.text.clone().into());
            self.send(Target::Name { name, node }, text).await;
        }
    }

    async fn send(&self, to: Target, term: Term) {
        match self.mailbox.send(to, term).await {
            // Who is gone needs no answer.
            Ok(()) | Err(CommandError::NotConnected(_) | CommandError::Ended) => {}
            Err(error) => self.teller.failure(&Failure::failed("send", error)),
        }
    }
}

fn open(node: &Node, name: &str) -> Result<Mailbox, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::failed("process", format_args!("{name}: {error}"));
    let mailbox = node.mailbox().map_err(|error| failed(&error))?;
    mailbox.register(name).map_err(|error| failed(&error))?;
    Ok(mailbox)
}
