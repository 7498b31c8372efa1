//! Standard input of `macula rpc call`, as chunks.

use std::{
    io::{self, BufRead, Read},
    thread,
};

use macula_proto::rpc::Chunk;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::{args::ChunkArg, json::from_json};
use crate::cli::outcome::Failure;

/// Chunks that were read and wait to be sent.
const AHEAD: usize = 16;

#[derive(Debug)]
pub(super) struct Input(Receiver<Result<Chunk, Failure>>);

impl Input {
    pub(super) fn stdin(cut: ChunkArg) -> Self {
        let (tell, chunks) = channel(AHEAD);
        // Not a task: reading a terminal would keep the runtime from ending.
        thread::spawn(move || read(io::stdin().lock(), cut, &tell));
        Self(chunks)
    }

    /// The next chunk. Cancellation-safe.
    pub(super) async fn next(&mut self) -> Result<Option<Chunk>, Failure> {
        self.0.recv().await.transpose()
    }
}

fn read(mut input: impl BufRead, cut: ChunkArg, tell: &Sender<Result<Chunk, Failure>>) {
    while let Some(chunk) = next(&mut input, cut).transpose() {
        let over = chunk.is_err();
        if tell.blocking_send(chunk).is_err() || over {
            return;
        }
    }
}

fn next(input: &mut impl BufRead, cut: ChunkArg) -> Result<Option<Chunk>, Failure> {
    let failed = |error: io::Error| Failure::failed("input", format_args!("standard input: {error}"));
    match cut {
        ChunkArg::Size(size) => {
            let mut bytes = vec![0; size];
            let length = loop {
                match input.read(&mut bytes) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    other => break other.map_err(failed)?,
                }
            };
            bytes.truncate(length);
            Ok((length > 0).then(|| Chunk::Raw(bytes.into())))
        }
        ChunkArg::Lines => Ok(line(input).map_err(failed)?.map(|line| Chunk::Raw(line.into()))),
        ChunkArg::Json => loop {
            let Some(line) = line(input).map_err(failed)? else {
                return Ok(None);
            };
            let text = String::from_utf8_lossy(&line);
            let text = text.trim();
            if text.is_empty() {
                continue;
            }
            let value = from_json(text);
            let value =
                value.map_err(|error| Failure::failed("input", format_args!("{text:?} is no JSON: {error}")))?;
            return Ok(Some(Chunk::Term(value)));
        },
    }
}

/// A line with its end; `None` behind the last.
fn line(input: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let longest = ChunkArg::LONGEST as u64;
    input.by_ref().take(longest + 1).read_until(b'\n', &mut line)?;
    if line.len() > ChunkArg::LONGEST {
        let message = format!("a line is longer than {longest} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    Ok((!line.is_empty()).then_some(line))
}

#[cfg(test)]
mod tests {
    use macula_proto::wire::Value;

    use super::*;

    fn chunks(mut input: &[u8], cut: ChunkArg) -> Result<Vec<Chunk>, Failure> {
        std::iter::from_fn(|| next(&mut input, cut).transpose()).collect()
    }

    fn raw(text: &str) -> Chunk {
        Chunk::Raw(text.as_bytes().to_vec().into())
    }

    #[test]
    fn input_is_cut() {
        let text = b"ab\n\ncde";
        assert_eq!(
            chunks(text, ChunkArg::Lines).unwrap(),
            [raw("ab\n"), raw("\n"), raw("cde")]
        );
        assert_eq!(chunks(text, ChunkArg::Size(4)).unwrap(), [raw("ab\n\n"), raw("cde")]);
        let values = chunks(b"1\n\n [2]\n\"x\"", ChunkArg::Json).unwrap();
        let two = Value::Array(vec![Value::Uint(2)]);
        assert_eq!(values, [Value::Uint(1), two, Value::text("x")].map(Chunk::Term));
        assert_eq!(chunks(b"", ChunkArg::DEFAULT).unwrap(), []);
    }

    #[test]
    fn bad_input_is_told() {
        let long = vec![b'x'; ChunkArg::LONGEST + 1];
        for (input, cut, part) in [
            (&b"1\n{"[..], ChunkArg::Json, "\"{\" is no JSON"),
            (&long, ChunkArg::Lines, "longer than 1048576 bytes"),
        ] {
            let failure = chunks(input, cut).unwrap_err();
            assert_eq!(failure.kind(), "input");
            assert!(failure.to_string().contains(part), "{failure}");
        }
        assert_eq!(chunks(&long[1..], ChunkArg::Lines).unwrap().len(), 1);
    }
}
