//! Commands as procedures.

use std::{
    io,
    process::{ExitStatus, Stdio},
    sync::Arc,
};

use bytes::BytesMut;
use macula_driver::{CallReceiver, CallSender, ServerCall};
use macula_proto::{
    rpc::{Chunk, Fault},
    wire::Value,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::Semaphore,
};

use super::{json::to_json, services::Failed};

/// Bytes of a chunk of what a command prints, at most.
const CHUNK: usize = 64 << 10;

/// A command, which runs in a shell of its own for each call.
#[derive(Debug)]
pub(super) struct Exec {
    command: String,
    /// How many more may run, of all such procedures.
    room: Arc<Semaphore>,
}

impl Exec {
    pub(super) fn new(command: String, room: Arc<Semaphore>) -> Self {
        Self { command, room }
    }

    /// Runs it until it ends or the call does. What it comes to is the reply, so that all it printed goes before.
    pub(super) async fn serve(self: Arc<Self>, call: ServerCall) -> Result<Value, Failed> {
        let room = self.room.clone().try_acquire_owned();
        let _room = room.map_err(|_| Fault::new("limit", "too many commands run"))?;
        let mut running = Running::start(&self.command)
            .map_err(|error| Fault::new("exec", format!("the command cannot be started: {error}")))?;
        let control = call.control().clone();
        let (sender, receiver) = call.into_call().split();
        let status = tokio::select! {
            status = running.serve(&sender, receiver) => status?,
            // It is killed as it is dropped.
            () = control.ended() => return Err(Fault::cancelled().into()),
        };
        outcome(status).map_err(Failed::Reply)
    }
}

/// A command that runs. It is killed, with what it started, when this is dropped before its end.
#[derive(Debug)]
struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
}

impl Running {
    fn start(command: &str) -> io::Result<Self> {
        let mut shell = shell(command);
        shell.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = shell.spawn()?;
        Ok(Self {
            stdin: child.stdin.take(),
            stdout: child.stdout.take(),
            child,
        })
    }

    async fn serve(&mut self, sender: &CallSender, receiver: CallReceiver) -> Result<ExitStatus, Fault> {
        let feed = feed(self.stdin.take(), receiver);
        let (stdout, child) = (self.stdout.take(), &mut self.child);
        let run = async {
            print(stdout, sender).await?;
            let status = child.wait().await;
            status.map_err(|error| Fault::new("exec", error.to_string()))
        };
        tokio::select! {
            status = run => status,
            // The call was given up.
            Err(fault) = feed => Err(fault),
        }
    }
}

/// What a command ended with, as the reply.
fn outcome(status: ExitStatus) -> Result<Value, Fault> {
    match status.code() {
        Some(0) => Ok(Value::Uint(0)),
        Some(code) => Err(Fault::new("exit", format!("the command failed with exit code {code}"))),
        None => Err(Fault::new("exit", format!("the command failed: {status}"))),
    }
}

/// What the caller sends is what the command reads, as long as it does.
async fn feed(mut stdin: Option<ChildStdin>, mut receiver: CallReceiver) -> Result<(), Fault> {
    while let Some(chunk) = receiver.recv().await? {
        let Some(pipe) = &mut stdin else { continue };
        let written = match &chunk {
            Chunk::Raw(bytes) | Chunk::Term(Value::Bytes(bytes) | Value::Text(bytes)) => pipe.write_all(bytes).await,
            Chunk::Term(value) => pipe.write_all(format!("{}\n", to_json(value)).as_bytes()).await,
        };
        if written.is_err() {
            // It wants no more: the rest is passed over, so that nothing is held up.
            stdin = None;
        }
    }
    Ok(())
}

/// What the command prints goes to the caller.
async fn print(stdout: Option<ChildStdout>, sender: &CallSender) -> Result<(), Fault> {
    let Some(mut stdout) = stdout else { return Ok(()) };
    loop {
        let mut chunk = BytesMut::with_capacity(CHUNK);
        let read = stdout.read_buf(&mut chunk).await;
        if read.map_err(|error| Fault::new("exec", error.to_string()))? == 0 {
            return Ok(());
        }
        // A small piece is not to keep a large buffer.
        let chunk = match chunk.len() < CHUNK / 4 {
            true => bytes::Bytes::copy_from_slice(&chunk),
            false => chunk.freeze(),
        };
        sender.send(Chunk::Raw(chunk)).await?;
    }
}

#[cfg(unix)]
fn shell(command: &str) -> Command {
    let mut shell = Command::new("sh");
    // A group of its own, so that all of it can be killed, and Ctrl-C for this process is not for it.
    shell.arg("-c").arg(command).process_group(0);
    shell
}

#[cfg(not(unix))]
fn shell(command: &str) -> Command {
    let mut shell = Command::new("cmd");
    shell.arg("/C").arg(command);
    shell
}

#[cfg(unix)]
impl Drop for Running {
    fn drop(&mut self) {
        use rustix::process::{Pid, Signal, kill_process_group};
        // There is no number once it was waited for, when another process may have it.
        let group = self.child.id().and_then(|id| i32::try_from(id).ok());
        if let Some(group) = group.and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}
