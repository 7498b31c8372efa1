//! What `macula peer connect` sends.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
    thread,
};

use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::super::outcome::Failure;

/// Lines that were read and wait to be sent.
const AHEAD: usize = 64;
/// Longest line, in bytes.
const LONGEST: u64 = 1 << 20;

/// Payloads, one after the other.
#[derive(Debug)]
pub(super) enum Source {
    /// So many test payloads, of which the first were taken.
    Test { taken: u64, count: u64 },
    /// Lines of a file, at most so many more.
    Lines(Receiver<io::Result<Vec<u8>>>, u64),
}

impl Source {
    pub(super) fn new(file: Option<&Path>, count: Option<u64>) -> Result<Self, Failure> {
        let Some(path) = file else {
            let count = count.unwrap_or(1);
            return Ok(Self::Test { taken: 0, count });
        };
        let (tell, lines) = channel(AHEAD);
        // Not a task: reading a terminal would keep the runtime from ending.
        if path == Path::new("-") {
            thread::spawn(move || read(io::stdin().lock(), &tell));
        } else {
            let file = File::open(path).map_err(|error| failed(Some(path), &error))?;
            thread::spawn(move || read(BufReader::new(file), &tell));
        }
        Ok(Self::Lines(lines, count.unwrap_or(u64::MAX)))
    }

    /// How many there will be, if that is known.
    pub(super) fn expected(&self) -> Option<u64> {
        match self {
            Self::Test { count, .. } => Some(*count),
            Self::Lines(..) => None,
        }
    }

    /// The next payload. Cancellation-safe.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        match self {
            Self::Test { taken, count } if *taken < *count => {
                let payload = format!("test frame {taken}");
                *taken += 1;
                Ok(Some(payload.into_bytes()))
            }
            Self::Test { .. } | Self::Lines(_, 0) => Ok(None),
            Self::Lines(lines, left) => {
                let line = lines.recv().await.transpose();
                *left -= 1;
                line.map_err(|error| failed(None, &error))
            }
        }
    }
}

fn failed(path: Option<&Path>, error: &io::Error) -> Failure {
    match path {
        Some(path) => Failure::failed("input", format_args!("{}: {error}", path.display())),
        None => Failure::failed("input", format_args!("what was to be sent: {error}")),
    }
}

fn read(mut input: impl BufRead, tell: &Sender<io::Result<Vec<u8>>>) {
    while let Some(line) = next_line(&mut input).transpose() {
        let over = line.is_err();
        if tell.blocking_send(line).is_err() || over {
            return;
        }
    }
}

/// A line without its end; `None` behind the last.
fn next_line(input: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    // Room for the end of a line as long as possible.
    if input.by_ref().take(LONGEST + 2).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if line.pop_if(|byte| *byte == b'\n').is_some() {
        line.pop_if(|byte| *byte == b'\r');
    }
    if line.len() as u64 > LONGEST {
        let message = format!("a line is longer than {LONGEST} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    Ok(Some(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(mut input: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        std::iter::from_fn(|| next_line(&mut input).transpose()).collect()
    }

    #[test]
    fn lines_lose_their_ends_and_have_a_limit() {
        let read = lines(b"one\n\ntwo\r\n\xff\rthree").unwrap();
        assert_eq!(read, [&b"one"[..], b"", b"two", b"\xff\rthree"]);
        assert_eq!(lines(b"").unwrap(), Vec::<Vec<u8>>::new());
        let longest = usize::try_from(LONGEST).unwrap();
        for (length, end, good) in [
            (longest, "\r\n", true),
            (longest, "", true),
            (longest + 1, "\n", false),
            (longest + 9, "", false),
        ] {
            let mut input = vec![b'x'; length];
            input.extend(end.as_bytes());
            assert_eq!(lines(&input).is_ok(), good, "{length} {end:?}");
        }
    }

    #[tokio::test]
    async fn test_payloads_are_counted() {
        let mut source = Source::new(None, Some(2)).unwrap();
        assert_eq!(source.expected(), Some(2));
        assert_eq!(source.next().await.unwrap().unwrap(), b"test frame 0");
        assert_eq!(source.next().await.unwrap().unwrap(), b"test frame 1");
        assert_eq!(source.next().await, Ok(None));
    }

    #[tokio::test]
    async fn a_file_is_read_up_to_the_count() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lines");
        std::fs::write(&path, "a\nb\nc").unwrap();
        for (count, expected) in [(None, 3), (Some(2), 2), (Some(9), 3), (Some(0), 0)] {
            let mut source = Source::new(Some(&path), count).unwrap();
            let mut found = 0;
            while source.next().await.unwrap().is_some() {
                found += 1;
            }
            assert_eq!(found, expected, "{count:?}");
        }
        let missing = Source::new(Some(&directory.path().join("none")), None);
        assert_eq!(missing.unwrap_err().kind(), "input");
    }
}
