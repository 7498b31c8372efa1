//! Errors in TOML files, in one line that says where.

use std::{fmt, ops::Range, path::Path};

/// What is wrong in a file, with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileError(String);

impl FileError {
    /// A file that cannot be read.
    pub(crate) fn unreadable(path: &Path, error: &std::io::Error) -> Self {
        Self(format!("{}: {error}", path.display()))
    }

    /// A text that is not TOML, or not with these keys and values.
    pub(crate) fn toml(path: &Path, text: &str, error: &toml::de::Error) -> Self {
        Self::at(path, text, error.span(), error.message())
    }

    fn at(path: &Path, text: &str, span: Option<Range<usize>>, message: &str) -> Self {
        let message = message.trim_end().replace('\n', "; ");
        let path = path.display();
        let Some(before) = span.and_then(|span| text.get(..span.start)) else {
            return Self(format!("{path}: {message}"));
        };
        let line = before.matches('\n').count();
        let content = text.lines().nth(line).unwrap_or_default().trim();
        Self(format!("{path}: line {}: {message}, in `{content}`", line + 1))
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for FileError {}
