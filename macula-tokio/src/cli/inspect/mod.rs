//! `macula inspect`: captured bytes into lines of JSON, and such lines into bytes.

mod encode;
mod formats;
mod hex;
mod line;
mod rpc;
mod source;
mod tagged;

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Write},
    path::Path,
};

use clap::ValueEnum;

pub(crate) use hex::{HexBytes, hex};

use super::{
    args::InspectArgs,
    outcome::{Failure, Outcome},
};
use formats::Inspector;

/// Bytes read at once.
const CHUNK: usize = 64 << 10;
/// Largest payload of an RPC message, and largest value of a format without lengths, in bytes. Peering has the same limit.
const LARGEST: u32 = (16 << 20) - 1;
/// Largest payload of a control message, in bytes: many times what a relay takes, so that one can see what it refused.
const LARGEST_CONTROL: u32 = 64 << 10;

/// What bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Frames of peering connections
    Peering,
    /// RPC messages
    Rpc,
    /// Control messages of a relay
    Control,
    /// Ordinary CBOR values
    Cbor,
    /// Deterministic CBOR values, as peering frames have them
    DetCbor,
    /// MessagePack values
    Msgpack,
}

/// How many lines there were, and how many of them could not be made sense of.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    all: u64,
    bad: u64,
}

/// Why reading stopped early.
#[derive(Debug)]
enum Stop {
    Input(io::Error),
    Output(io::Error),
}

pub(crate) fn run(args: &InspectArgs, json: bool) -> Outcome {
    if args.key.is_some() && args.format != Format::Peering {
        return Err(Failure::Usage(
            "--key is for --as peering: nothing else is signed".to_owned(),
        ));
    }
    let input = open(args)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let (done, what) = match args.encode {
        true => (
            encode::run(args, json, BufReader::with_capacity(CHUNK, input), &mut out),
            "lines",
        ),
        false => (Inspector::new(args, json).run(input, &mut out), "frames"),
    };
    match done {
        Ok(Tally { bad: 0, .. }) => Ok(()),
        Ok(Tally { all, bad }) => {
            let message = format!("{bad} of {all} {what} could not be read");
            Err(Failure::failed("bad_input", message))
        }
        // Whoever read the lines has seen enough.
        Err(Stop::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(Stop::Output(error)) => Err(Failure::failed("output", format!("standard output: {error}"))),
        Err(Stop::Input(error)) => Err(Failure::failed("input", format!("{}: {error}", name(&args.file)))),
    }
}

fn open(args: &InspectArgs) -> Result<Box<dyn Read>, Failure> {
    if let Some(HexBytes(bytes)) = &args.hex {
        return Ok(Box::new(io::Cursor::new(bytes.clone())));
    }
    if args.file == Path::new("-") {
        return Ok(Box::new(io::stdin().lock()));
    }
    let opened = File::open(&args.file).map_err(|error| format!("{}: {error}", name(&args.file)));
    Ok(Box::new(opened.map_err(|error| Failure::failed("input", error))?))
}

fn name(path: &Path) -> String {
    match path == Path::new("-") {
        true => "standard input".to_owned(),
        false => path.display().to_string(),
    }
}

/// Writes one line, so that a reader at the other end of a pipe sees it at once.
fn put_line(out: &mut impl Write, line: &impl serde::Serialize) -> Result<(), Stop> {
    let written = serde_json::to_writer(&mut *out, line).map_err(io::Error::from);
    let written = written.and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush());
    written.map_err(Stop::Output)
}
