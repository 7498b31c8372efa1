//! The relay's end of the admin socket.

use std::{
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::{
        fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
        net::UnixStream as BlockingStream,
    },
    path::{Path, PathBuf},
    process,
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream, unix::OwnedWriteHalf},
    sync::{mpsc, watch},
    task::JoinSet,
};

use super::{Answer, LONGEST_REQUEST, Remaining, Request};
use crate::cli::{
    backend::{RelayHandle, RelaySnapshot},
    report::StatusReport,
};

/// Connections served at once; more are closed.
const CLIENTS: usize = 32;
/// How often a drain is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How long the last answers may take to be written when the relay ends.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How far a relay is with ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Running,
    /// It ends.
    Ended {
        /// Whether every client had gone by itself.
        drained: bool,
    },
}

/// Why there is no admin socket.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BindError {
    #[error("{0}: another relay answers there")]
    InUse(PathBuf),
    #[error("{0}: there is something that is not a socket")]
    NotASocket(PathBuf),
    #[error("{0}: {1}")]
    Io(PathBuf, io::Error),
}

/// A socket at which nobody is served yet. Its file goes with it.
#[derive(Debug)]
pub(crate) struct AdminServer {
    listener: UnixListener,
    file: SocketFile,
}

impl AdminServer {
    /// Makes the socket, for this user only. One that was left behind by a relay that is gone is replaced.
    pub(crate) fn bind(path: &Path) -> Result<Self, BindError> {
        make_room(path)?;
        let failed = |error| BindError::Io(path.to_owned(), error);
        // Between its making and its mode a socket is open to everybody, so it is made where nobody else can look, and
        // moved when it is done.
        let private = path.with_extension(format!("{}.new", process::id()));
        let _ = fs::remove_dir_all(&private);
        DirBuilder::new().mode(0o700).create(&private).map_err(failed)?;
        let made = private.join("s");
        let bound = UnixListener::bind(&made).and_then(|listener| {
            fs::set_permissions(&made, Permissions::from_mode(0o600))?;
            let file = SocketFile {
                path: path.to_owned(),
                inode: inode(&made)?,
            };
            fs::rename(&made, path)?;
            Ok(Self { listener, file })
        });
        let _ = fs::remove_dir_all(&private);
        bound.map_err(failed)
    }

    /// Serves until the end of the relay, and then until the last answers are out. A request to drain goes to
    /// `drain`.
    pub(crate) async fn serve<R: RelayHandle>(
        self,
        relay: Arc<R>,
        describe: impl Fn(&RelaySnapshot) -> StatusReport + Send + Sync + 'static,
        drain: mpsc::Sender<()>,
        phase: watch::Receiver<Phase>,
    ) {
        let desk = Arc::new(Desk {
            relay,
            describe,
            drain,
            phase: phase.clone(),
        });
        let mut clients = JoinSet::new();
        let mut ended = phase;
        loop {
            tokio::select! {
                _ = end(&mut ended) => break,
                Some(_) = clients.join_next() => {}
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) if clients.len() < CLIENTS => {
                        let desk = desk.clone();
                        clients.spawn(async move { desk.serve(stream).await });
                    }
                    Ok(_) => tracing::warn!("too many connections to the admin socket"),
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection to the admin socket");
                        tokio::time::sleep(LOOK).await;
                    }
                }
            }
        }
        drop(self.file);
        let all = async { while clients.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(LAST_WORDS, all).await;
    }
}

/// Removes its file, unless another relay has put its own there meanwhile.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if inode(&self.path).is_ok_and(|inode| inode == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

/// Sees to it that the directory is there and nothing of importance is in the way.
fn make_room(path: &Path) -> Result<(), BindError> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => Err(BindError::NotASocket(path.to_owned())),
        Ok(_) => match BlockingStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(BindError::Io(path.to_owned(), error)),
            Ok(_) => Err(BindError::InUse(path.to_owned())),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
            let made = directory.map_or(Ok(()), |directory| {
                DirBuilder::new().recursive(true).mode(0o755).create(directory)
            });
            made.map_err(|error| BindError::Io(path.to_owned(), error))
        }
        Err(error) => Err(BindError::Io(path.to_owned(), error)),
    }
}

struct Desk<R, F> {
    relay: Arc<R>,
    describe: F,
    drain: mpsc::Sender<()>,
    phase: watch::Receiver<Phase>,
}

impl<R: RelayHandle, F: Fn(&RelaySnapshot) -> StatusReport> Desk<R, F> {
    /// Answers one request after the other until the client has enough.
    async fn serve(&self, stream: UnixStream) {
        let (read, mut write) = stream.into_split();
        let mut read = BufReader::new(read);
        let mut ended = self.phase.clone();
        loop {
            let mut line = Vec::new();
            let mut limited = (&mut read).take(LONGEST_REQUEST);
            tokio::select! {
                biased;
                got = limited.read_until(b'\n', &mut line) => {
                    if !got.is_ok_and(|length| length > 0) {
                        return;
                    }
                }
                _ = end(&mut ended) => return,
            }
            let answered = match serde_json::from_slice(&line) {
                Ok(Request::Status) => self.status(&mut write).await,
                Ok(Request::Drain) => self.drain(&mut write).await,
                Err(error) => {
                    let told = say(&mut write, &Answer::Error(format!("not a request: {error}"))).await;
                    // What follows an overlong line is not the beginning of another.
                    if line.ends_with(b"\n") { told } else { return }
                }
            };
            if answered.is_err() {
                return;
            }
        }
    }

    async fn status(&self, write: &mut OwnedWriteHalf) -> io::Result<()> {
        let report = (self.describe)(&self.relay.snapshot().await);
        say(write, &Answer::Status(Box::new(report))).await
    }

    async fn drain(&self, write: &mut OwnedWriteHalf) -> io::Result<()> {
        // A full channel holds such a request already, and a closed one means that the relay ends.
        let _ = self.drain.try_send(());
        let mut phase = self.phase.clone();
        let mut told = None;
        loop {
            let status = self.relay.snapshot().await.status;
            let remaining = Remaining {
                connections: status.connections.len(),
                tunnels: status.tunnels.len(),
            };
            if told != Some(remaining) {
                say(write, &Answer::Draining(remaining)).await?;
                told = Some(remaining);
            }
            if let Ok(drained) = tokio::time::timeout(LOOK, end(&mut phase)).await {
                return say(write, &Answer::Drained(drained)).await;
            }
        }
    }
}

/// Waits for the end; whether the relay was empty then.
async fn end(phase: &mut watch::Receiver<Phase>) -> bool {
    match phase.wait_for(|phase| *phase != Phase::Running).await {
        Ok(phase) => *phase == Phase::Ended { drained: true },
        Err(_) => false,
    }
}

async fn say(write: &mut OwnedWriteHalf, answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    write.write_all(&line).await
}
