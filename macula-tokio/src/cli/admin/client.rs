//! The asking end of the admin socket.

use std::{
    io,
    path::{Path, PathBuf},
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
};

use super::{Answer, LONGEST_ANSWER, Request, StatusReport};

/// Why a relay did not answer as it should.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdminError {
    #[error("no relay answers at {0}: {1}")]
    Connect(PathBuf, io::Error),
    #[error("the relay went away: {0}")]
    Lost(io::Error),
    #[error("the relay says: {0}")]
    Refused(String),
    #[error("the relay gave an answer that makes no sense: {0}")]
    Nonsense(String),
}

/// A connection to a relay on this machine.
#[derive(Debug)]
pub(crate) struct AdminClient(BufReader<UnixStream>);

impl AdminClient {
    pub(crate) async fn connect(path: &Path) -> Result<Self, AdminError> {
        let stream = UnixStream::connect(path).await;
        let stream = stream.map_err(|error| AdminError::Connect(path.to_owned(), error))?;
        Ok(Self(BufReader::new(stream)))
    }

    pub(crate) async fn status(&mut self) -> Result<StatusReport, AdminError> {
        self.ask(Request::Status).await?;
        match self.answer().await? {
            Answer::Status(report) => Ok(*report),
            other => Err(nonsense(&other)),
        }
    }

    /// Starts a drain; [`answer`](Self::answer) tells how it goes on.
    pub(crate) async fn drain(&mut self) -> Result<(), AdminError> {
        self.ask(Request::Drain).await
    }

    async fn ask(&mut self, request: Request) -> Result<(), AdminError> {
        let mut line = serde_json::to_vec(&request).map_err(|error| AdminError::Lost(error.into()))?;
        line.push(b'\n');
        self.0.write_all(&line).await.map_err(AdminError::Lost)
    }

    /// The next answer that is not an error.
    pub(crate) async fn answer(&mut self) -> Result<Answer, AdminError> {
        let mut line = String::new();
        let mut limited = (&mut self.0).take(LONGEST_ANSWER);
        let length = limited.read_line(&mut line).await.map_err(AdminError::Lost)?;
        if length == 0 {
            return Err(AdminError::Lost(io::ErrorKind::UnexpectedEof.into()));
        }
        match serde_json::from_str(&line) {
            Ok(Answer::Error(message)) => Err(AdminError::Refused(message)),
            Ok(answer) => Ok(answer),
            Err(error) => Err(AdminError::Nonsense(error.to_string())),
        }
    }
}

pub(super) fn nonsense(answer: &Answer) -> AdminError {
    let kind = match answer {
        Answer::Status(_) => "status",
        Answer::Draining(_) => "draining",
        Answer::Drained(_) => "drained",
        Answer::Error(_) => "error",
    };
    AdminError::Nonsense(format!("unexpected {kind}"))
}
