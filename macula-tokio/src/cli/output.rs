//! Standard output of commands whose results are bytes: bytes in order, as fast as they are taken.

use std::{
    io::{self, Write},
    sync::Arc,
    thread,
};

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc, watch};

use super::outcome::{Failure, Outcome};

/// Bytes that may wait to be written. A longer piece waits alone.
const ROOM: u32 = 1 << 20;
/// What a piece counts besides its bytes, so that empty ones are not free.
const PIECE: usize = 64;

/// What was written, or not.
#[derive(Debug, Clone, Default)]
enum State {
    #[default]
    Open,
    /// Everything was written.
    Done,
    /// Nobody reads any more.
    Closed,
    Failed(String),
}

#[derive(Debug)]
pub(crate) struct Output {
    queue: Option<mpsc::UnboundedSender<(Bytes, u32)>>,
    room: Arc<Semaphore>,
    state: watch::Receiver<State>,
}

impl Output {
    pub(crate) fn stdout() -> Self {
        Self::to(io::stdout())
    }

    fn to(out: impl Write + Send + 'static) -> Self {
        // What it holds is bounded by the room.
        let (queue, pieces) = mpsc::unbounded_channel();
        let (tell, state) = watch::channel(State::Open);
        let room = Arc::new(Semaphore::new(ROOM as usize));
        let freed = room.clone();
        // Not a task: writing to a pipe that nobody reads would keep the runtime from ending.
        thread::spawn(move || {
            let end = write_all(out, pieces, &freed);
            tell.send_replace(end);
        });
        Self {
            queue: Some(queue),
            room,
            state,
        }
    }

    /// Writes when there is room.
    pub(crate) async fn write(&self, piece: impl Into<Bytes>) {
        let piece = piece.into();
        let cost = u32::try_from(piece.len().saturating_add(PIECE)).map_or(ROOM, |cost| cost.min(ROOM));
        // Nobody closes it.
        let Ok(room) = self.room.acquire_many(cost).await else {
            return;
        };
        room.forget();
        if let Some(queue) = &self.queue {
            let _ = queue.send((piece, cost));
        }
    }

    /// For whoever wants to know whether writing goes on.
    pub(crate) fn writing(&self) -> Writing {
        Writing(self.state.clone())
    }

    /// Waits until everything is written. [`Writing`] says if it never will be.
    pub(crate) async fn finish(&mut self) {
        self.queue = None;
        let mut state = self.state.clone();
        if state.wait_for(|state| matches!(state, State::Done)).await.is_err() {
            std::future::pending().await
        }
    }
}

/// Whether what is written is read.
#[derive(Debug)]
pub(crate) struct Writing(watch::Receiver<State>);

impl Writing {
    /// Ready when no more can be written: in good order if it was just not wanted any more.
    pub(crate) async fn broken(mut self) -> Outcome {
        let over = |state: &State| matches!(state, State::Closed | State::Failed(_));
        let error = match self.0.wait_for(over).await.as_deref() {
            Ok(State::Failed(error)) => error.clone(),
            Ok(_) => return Ok(()),
            Err(_) => return std::future::pending().await,
        };
        Err(Failure::failed("output", format_args!("standard output: {error}")))
    }
}

fn write_all(mut out: impl Write, mut pieces: mpsc::UnboundedReceiver<(Bytes, u32)>, room: &Semaphore) -> State {
    while let Some((piece, cost)) = pieces.blocking_recv() {
        let mut written = out.write_all(&piece);
        if pieces.is_empty() {
            written = written.and_then(|()| out.flush());
        }
        match written {
            Ok(()) => room.add_permits(cost as usize),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return State::Closed,
            Err(error) => return State::Failed(error.to_string()),
        }
    }
    State::Done
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{SyncSender, sync_channel};

    use super::*;

    /// Takes pieces one by one, and fails when nobody does.
    struct Pipe(SyncSender<Vec<u8>>, io::ErrorKind);

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let sent = self.0.send(bytes.to_vec());
            sent.map(|()| bytes.len()).map_err(|_| self.1.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn everything_is_written_in_order() {
        let (tell, read) = sync_channel(1 << 10);
        let mut output = Output::to(Pipe(tell, io::ErrorKind::Other));
        let large = vec![7; 3 << 20];
        for piece in [b"one".to_vec(), vec![], large.clone(), b"two".to_vec()] {
            output.write(piece).await;
        }
        output.finish().await;
        let all: Vec<u8> = read.iter().flatten().collect();
        assert_eq!(all, [b"one".to_vec(), large, b"two".to_vec()].concat());
    }

    #[tokio::test]
    async fn nobody_reads() {
        for (kind, expected) in [
            (io::ErrorKind::BrokenPipe, Ok(())),
            (io::ErrorKind::StorageFull, Err("output")),
        ] {
            let (tell, read) = sync_channel(1);
            let output = Output::to(Pipe(tell, kind));
            drop(read);
            output.write("x").await;
            let broken = output.writing().broken().await;
            assert_eq!(
                broken.map_err(|failure| failure.kind().to_owned()),
                expected.map_err(str::to_owned)
            );
        }
    }
}
