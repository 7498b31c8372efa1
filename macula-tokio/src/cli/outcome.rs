//! How the command ends.

use std::{borrow::Cow, fmt, process::ExitCode};

/// Why a command did not do what it was asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The arguments, or a file of settings, cannot be meant: exit code 2.
    Usage(String),
    /// It was tried and did not work: exit code 1.
    Failed { kind: Cow<'static, str>, message: String },
    /// It took too long: exit code 3.
    Timeout(String),
}

pub(crate) type Outcome = Result<(), Failure>;

impl Failure {
    pub(crate) fn failed(kind: impl Into<Cow<'static, str>>, error: impl fmt::Display) -> Self {
        Self::Failed {
            kind: kind.into(),
            message: error.to_string(),
        }
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Failed { .. } => 1,
            Self::Usage(_) => 2,
            Self::Timeout(_) => 3,
        })
    }

    /// What the event `error` calls it.
    pub(crate) fn kind(&self) -> &str {
        match self {
            Self::Usage(_) => "usage",
            Self::Failed { kind, .. } => kind,
            Self::Timeout(_) => "timeout",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(message) | Self::Failed { message, .. } | Self::Timeout(message) => f.write_str(message),
        }
    }
}
