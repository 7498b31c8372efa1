//! Traces of connections in the qlog format.

use std::{fmt, io::Write, time::Instant};

use quinn_proto::{QlogConfig, QlogStream};

/// A place to write the trace of one connection to (qlog 0.3, JSON text sequences).
#[derive(Clone)]
pub struct Qlog(QlogStream);

impl Qlog {
    /// Writes the trace to `writer`; times count from `start`.
    ///
    /// # Errors
    /// `None` when the head of the trace cannot be written.
    pub fn new(writer: Box<dyn Write + Send + Sync>, title: &str, start: Instant) -> Option<Self> {
        let mut config = QlogConfig::default();
        config.writer(writer).title(Some(title.to_owned())).start_time(start);
        config.into_stream().map(Self)
    }

    pub(super) fn stream(&self) -> QlogStream {
        self.0.clone()
    }
}

impl fmt::Debug for Qlog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Qlog(..)")
    }
}
