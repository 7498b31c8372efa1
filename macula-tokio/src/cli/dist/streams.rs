//! Streams of bytes beside the messages.

use std::{
    io::{self, Read as _},
    thread,
};

use bytes::Bytes;
use tokio::{
    sync::mpsc::{Receiver, channel},
    task::JoinSet,
};

use super::{args::StreamTo, events::DistEvent, teller::Teller};
use crate::{
    cli::{
        inspect::hex,
        outcome::{Failure, Outcome},
        output::Output,
    },
    dist::{DistAcceptor, DistRecvStream, DistSendStream, DistStream, Node, Priority, StreamError},
};

/// Bytes of standard input read at once.
const PIECE: usize = 64 << 10;

/// Pieces that were read and wait to be sent.
const AHEAD: usize = 16;

/// A stream, and what went over it.
struct Told {
    teller: Teller,
    peer: String,
    stream: u64,
}

impl Told {
    fn new(stream: &DistStream, teller: &Teller) -> Self {
        let told = Self {
            teller: teller.clone(),
            peer: stream.node().as_str().to_owned(),
            stream: stream.id().get(),
        };
        let event = DistEvent::StreamOpen {
            peer: told.peer.clone(),
            stream: told.stream,
            own: stream.is_own(),
        };
        told.teller.tell(&event);
        told
    }

    async fn data(&self, data: &[u8]) {
        // Not for nothing.
        if self.teller.quiet || self.teller.silent {
            return;
        }
        let event = DistEvent::StreamData {
            peer: self.peer.clone(),
            stream: self.stream,
            data: hex(data),
        };
        self.teller.tell_when_room(&event).await;
    }

    fn closed(self, reason: impl ToString, bytes_in: u64, bytes_out: u64) {
        let event = DistEvent::StreamClosed {
            peer: self.peer,
            stream: self.stream,
            reason: reason.to_string(),
            bytes_in,
            bytes_out,
        };
        self.teller.tell(&event);
    }
}

// ----- those of others ---------------------------------------------------------------------------------------------

/// Takes the streams that other nodes open, as long as there is a node.
pub(super) async fn take(acceptor: DistAcceptor, echo: bool, teller: Teller) {
    let mut streams = JoinSet::new();
    loop {
        tokio::select! {
            stream = acceptor.accept() => {
                let Some(stream) = stream else { break };
                let told = Told::new(&stream, &teller);
                streams.spawn(serve(stream, echo, told));
            }
            Some(_) = streams.join_next(), if !streams.is_empty() => {}
        }
    }
}

/// One stream to its end, which follows that of the other side.
async fn serve(mut stream: DistStream, echo: bool, told: Told) {
    let (mut bytes_in, mut bytes_out) = (0, 0);
    let work = async {
        while let Some(mut bytes) = stream.read_chunk().await? {
            let length = bytes.len() as u64;
            bytes_in += length;
            told.data(&bytes).await;
            if echo {
                stream.write_chunk(&mut bytes).await?;
                bytes_out += length;
            }
        }
        stream.finish()
    };
    let reason = match work.await {
        Ok(()) => "finished".to_owned(),
        Err(error) => error.to_string(),
    };
    told.closed(reason, bytes_in, bytes_out);
}

// ----- our own -----------------------------------------------------------------------------------------------------

/// Standard input goes over a stream, and what comes back to standard output, until both are done.
pub(super) async fn pipe(node: Node, to: StreamTo, priority: Priority, teller: Teller) -> Outcome {
    let peer = up(&node, &to).await?;
    let failed = |error: StreamError| Failure::failed("stream", format_args!("stream to {peer}: {error}"));
    let stream = node.open_stream(&peer, priority).await.map_err(failed)?;
    let told = Told::new(&stream, &teller);
    let (mut send, mut recv) = stream.split();
    let mut output = teller.silent.then(Output::stdout);
    let writing = output.as_ref().map(Output::writing);
    let (mut bytes_in, mut bytes_out) = (0, 0);
    let both = async {
        let there = async { there(&mut send, &mut bytes_out).await?.map_err(failed) };
        let back = async {
            back(&mut recv, &mut bytes_in, output.as_ref(), &told)
                .await
                .map_err(failed)
        };
        tokio::try_join!(there, back).map(drop)
    };
    let unread = async {
        match writing {
            Some(writing) => writing.broken().await,
            None => std::future::pending().await,
        }
    };
    let outcome = tokio::select! {
        outcome = both => outcome.map(|()| true),
        broken = unread => broken.map(|()| false),
    };
    let reason = match &outcome {
        Ok(true) => "finished".to_owned(),
        Ok(false) => "nobody reads what comes".to_owned(),
        Err(failure) => failure.to_string(),
    };
    told.closed(reason, bytes_in, bytes_out);
    if let (Ok(true), Some(output)) = (&outcome, &mut output) {
        let writing = output.writing();
        tokio::select! {
            () = output.finish() => {}
            broken = writing.broken() => return broken,
        }
    }
    outcome.map(drop)
}

async fn there(send: &mut DistSendStream, bytes_out: &mut u64) -> Result<Result<(), StreamError>, Failure> {
    let mut input = stdin();
    while let Some(bytes) = input.recv().await {
        let mut bytes: Bytes =
            bytes.map_err(|error| Failure::failed("input", format_args!("standard input: {error}")))?;
        let length = bytes.len() as u64;
        if let Err(error) = send.write_chunk(&mut bytes).await {
            return Ok(Err(error));
        }
        *bytes_out += length;
    }
    Ok(send.finish())
}

async fn back(
    recv: &mut DistRecvStream,
    bytes_in: &mut u64,
    output: Option<&Output>,
    told: &Told,
) -> Result<(), StreamError> {
    while let Some(bytes) = recv.read_chunk().await? {
        *bytes_in += bytes.len() as u64;
        match output {
            Some(output) => output.write(bytes).await,
            None => told.data(&bytes).await,
        }
    }
    Ok(())
}

/// Waits for a connection with the node.
async fn up(node: &Node, to: &StreamTo) -> Result<String, Failure> {
    let mut events = node.events();
    loop {
        let nodes = node.nodes();
        let found = match to {
            StreamTo::Any => nodes.first(),
            StreamTo::Node(name) => nodes.iter().find(|node| node.as_str() == name),
        };
        if let Some(found) = found {
            return Ok(found.as_str().to_owned());
        }
        if events.next().await.is_none() {
            return Err(Failure::failed("node", "the node has stopped"));
        }
    }
}

fn stdin() -> Receiver<io::Result<Bytes>> {
    let (tell, pieces) = channel(AHEAD);
    // Not a task: reading a terminal would keep the runtime from ending.
    thread::spawn(move || {
        let mut input = io::stdin().lock();
        let mut buffer = vec![0; PIECE];
        loop {
            let piece = match input.read(&mut buffer) {
                Ok(0) => return,
                Ok(length) => Ok(Bytes::copy_from_slice(&buffer[..length])),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
            let over = piece.is_err();
            if tell.blocking_send(piece).is_err() || over {
                return;
            }
        }
    });
    pieces
}
