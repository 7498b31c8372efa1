//! The procedures that are always there, and `cat`.

use std::{
    fs::{self, File, Metadata},
    io,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use bytes::BytesMut;
use macula_driver::ServerCall;
use macula_proto::{
    rpc::{Chunk, Fault},
    wire::Value,
};
use tokio::{
    io::AsyncReadExt as _,
    task::{JoinError, spawn_blocking},
};

/// Bytes of a chunk of a file.
const CHUNK: usize = 64 << 10;

/// Sends every chunk back. The reply is their number.
pub(super) async fn echo(mut call: ServerCall) -> Result<Value, Fault> {
    let mut chunks: u64 = 0;
    while let Some(chunk) = call.recv().await? {
        call.send(chunk).await?;
        chunks += 1;
    }
    Ok(chunks.into())
}

/// Sends the numbers from 1 on.
pub(super) async fn count(call: ServerCall) -> Result<Value, Fault> {
    let n = argument(&call, "n").and_then(Value::as_u64);
    let n = n.ok_or_else(|| bad_args("count takes {\"n\": N}"))?;
    for number in 1..=n {
        call.send(Chunk::Term(number.into())).await?;
    }
    Ok(n.into())
}

/// Adds up what comes.
pub(super) async fn sum(mut call: ServerCall) -> Result<Value, Fault> {
    let mut sum = Sum::Int(0);
    while let Some(chunk) = call.recv().await? {
        sum = sum.add(&chunk)?;
    }
    sum.value()
}

/// Exact as long as there are integers alone.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Sum {
    Int(i128),
    Float(f64),
}

impl Sum {
    fn add(self, chunk: &Chunk) -> Result<Self, Fault> {
        let next = Self::of(chunk).ok_or_else(|| Fault::new("bad_number", "a chunk is not a number"))?;
        Ok(match (self, next) {
            (Self::Int(a), Self::Int(b)) => Self::Int(a.checked_add(b).ok_or_else(too_large)?),
            (a, b) => Self::Float(a.float() + b.float()),
        })
    }

    fn of(chunk: &Chunk) -> Option<Self> {
        match chunk {
            Chunk::Raw(text) | Chunk::Term(Value::Text(text) | Value::Bytes(text)) => {
                let text = std::str::from_utf8(text).ok()?.trim();
                match text.parse::<i64>() {
                    Ok(number) => Some(Self::Int(number.into())),
                    Err(_) => text
                        .parse()
                        .ok()
                        .filter(|number: &f64| number.is_finite())
                        .map(Self::Float),
                }
            }
            Chunk::Term(Value::Uint(number)) => Some(Self::Int((*number).into())),
            Chunk::Term(Value::Int(number)) => Some(Self::Int((*number).into())),
            Chunk::Term(Value::Float(number)) => Some(Self::Float(*number)),
            Chunk::Term(_) => None,
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "floats are as exact as they are")]
    fn float(self) -> f64 {
        match self {
            Self::Int(number) => number as f64,
            Self::Float(number) => number,
        }
    }

    fn value(self) -> Result<Value, Fault> {
        match self {
            Self::Int(number) => match (u64::try_from(number), i64::try_from(number)) {
                (Ok(number), _) => Ok(number.into()),
                (_, Ok(number)) => Ok(number.into()),
                _ => Err(too_large()),
            },
            Self::Float(number) if number.is_finite() => Ok(Value::Float(number)),
            Self::Float(_) => Err(too_large()),
        }
    }
}

fn too_large() -> Fault {
    Fault::new("bad_number", "the sum is too large")
}

/// The arguments as a caller meant them: deployed ones wrap most of them into a byte string.
fn arguments(call: &ServerCall) -> &Value {
    call.term().unwrap_or_else(|| call.args())
}

/// One of them by its name, or the only one there is.
fn argument<'a>(call: &'a ServerCall, name: &str) -> Option<&'a Value> {
    match arguments(call) {
        map @ Value::Map(_) => map.get(name),
        Value::Array(elements) => match &elements[..] {
            [only] => Some(only),
            _ => None,
        },
        only => Some(only),
    }
}

fn bad_args(why: &str) -> Fault {
    Fault::new("bad_args", why)
}

// ----- files -------------------------------------------------------------------------------------------------------

/// The directory that `cat` shows.
#[derive(Debug)]
pub(super) struct Root(PathBuf);

impl Root {
    pub(super) fn new(path: &Path) -> io::Result<Self> {
        let path = path.canonicalize()?;
        match path.is_dir() {
            true => Ok(Self(path)),
            false => Err(io::Error::new(io::ErrorKind::NotADirectory, "not a directory")),
        }
    }

    /// Opens a file below the directory, whatever the way to it: links that lead elsewhere are refused, as is all that is not a file.
    fn open(&self, path: &str) -> Result<File, Fault> {
        let outside = || Fault::new("not_allowed", "the path leads out of the directory");
        let plain = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
        if !Path::new(path).components().all(plain) {
            return Err(outside());
        }
        let real = self.0.join(path).canonicalize().map_err(|error| unreadable(&error))?;
        if !real.starts_with(&self.0) {
            return Err(outside());
        }
        // Looked at before it is opened: opening a pipe would wait for its writer.
        let found = fs::symlink_metadata(&real).map_err(|error| unreadable(&error))?;
        if !found.is_file() {
            return Err(Fault::new(
                "not_a_file",
                "there is no file of this name, but something else",
            ));
        }
        let file = File::open(&real).map_err(|error| unreadable(&error))?;
        let opened = file.metadata().map_err(|error| unreadable(&error))?;
        match is_same(&found, &opened) {
            true => Ok(file),
            // Something took its place meanwhile.
            false => Err(outside()),
        }
    }
}

#[cfg(unix)]
fn is_same(a: &Metadata, b: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

#[cfg(not(unix))]
fn is_same(_: &Metadata, b: &Metadata) -> bool {
    b.is_file()
}

fn unreadable(error: &io::Error) -> Fault {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Fault::new("not_found", "no such file"),
        io::ErrorKind::PermissionDenied => Fault::new("not_allowed", "the file may not be read"),
        _ => Fault::new("io", error.to_string()),
    }
}

fn broken(error: &JoinError) -> Fault {
    Fault::new("handler_error", error.to_string())
}

/// Sends a file. The reply is its length in bytes.
pub(super) async fn cat(root: Arc<Root>, call: ServerCall) -> Result<Value, Fault> {
    let path = match argument(&call, "path").and_then(Value::as_string) {
        Some(path) => String::from_utf8(path.to_vec()).ok(),
        None => None,
    };
    let path = path.ok_or_else(|| bad_args("cat takes {\"path\": FILE}"))?;
    let opened = spawn_blocking(move || root.open(&path)).await;
    let file = opened.map_err(|error| broken(&error))??;
    let mut file = tokio::fs::File::from_std(file);
    file.set_max_buf_size(CHUNK);
    let mut sent: u64 = 0;
    loop {
        let mut chunk = BytesMut::with_capacity(CHUNK);
        while chunk.len() < CHUNK {
            let left = (CHUNK - chunk.len()) as u64;
            let read = (&mut file).take(left).read_buf(&mut chunk).await;
            if read.map_err(|error| unreadable(&error))? == 0 {
                break;
            }
        }
        if chunk.is_empty() {
            return Ok(sent.into());
        }
        sent += chunk.len() as u64;
        call.send(Chunk::Raw(chunk.freeze())).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Chunk {
        Chunk::Raw(text.as_bytes().to_vec().into())
    }

    fn sum_of(chunks: &[Chunk]) -> Result<Value, String> {
        let sum = chunks.iter().try_fold(Sum::Int(0), |sum, chunk| sum.add(chunk));
        sum.and_then(Sum::value).map_err(|fault| fault.to_string())
    }

    #[test]
    fn sums() {
        let term = |value: Value| Chunk::Term(value);
        for (chunks, expected) in [
            (vec![], Value::Uint(0)),
            (vec![raw("1\n"), raw(" -3 ")], Value::Int(-2)),
            (
                vec![term(Value::Uint(u64::MAX)), term(Value::Int(-1))],
                Value::Uint(u64::MAX - 1),
            ),
            (vec![raw("1"), term(Value::Float(0.5))], Value::Float(1.5)),
            (
                vec![term(Value::text("2")), term(Value::bytes("2.5"))],
                Value::Float(4.5),
            ),
        ] {
            assert_eq!(sum_of(&chunks), Ok(expected));
        }
        for chunks in [
            vec![raw("one")],
            vec![raw("")],
            vec![raw("inf")],
            vec![term(Value::Null)],
            vec![term(Value::Uint(u64::MAX)), raw("1")],
            vec![term(Value::Float(f64::MAX)), term(Value::Float(f64::MAX))],
        ] {
            assert!(sum_of(&chunks).unwrap_err().starts_with("bad_number"), "{chunks:?}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn files_are_those_below_the_directory() {
        use std::os::unix::{fs::symlink, net::UnixListener};
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir_all(at("root/sub")).unwrap();
        fs::create_dir(at("root-too")).unwrap();
        for file in ["root/a", "root/sub/b", "root-too/c", "secret"] {
            fs::write(at(file), file).unwrap();
        }
        symlink("sub/b", at("root/good")).unwrap();
        symlink("../secret", at("root/bad")).unwrap();
        symlink("..", at("root/up")).unwrap();
        symlink(at("root-too"), at("root/too")).unwrap();
        symlink("loop", at("root/loop")).unwrap();
        let _socket = UnixListener::bind(at("root/socket")).unwrap();
        let root = Root::new(&at("root")).unwrap();
        let code = |path: &str| {
            root.open(path)
                .map(drop)
                .map_err(|fault| fault.code_str().unwrap().to_owned())
        };
        for path in ["a", "./a", "sub/b", "sub//b", "good"] {
            assert_eq!(code(path), Ok(()), "{path}");
        }
        let absolute = at("root/a").display().to_string();
        for (path, expected) in [
            ("../secret", "not_allowed"),
            ("sub/../a", "not_allowed"),
            (&*absolute, "not_allowed"),
            ("/etc/passwd", "not_allowed"),
            ("bad", "not_allowed"),
            ("up/secret", "not_allowed"),
            ("too/c", "not_allowed"),
            ("none", "not_found"),
            ("a/b", "not_found"),
            ("loop", "io"),
            ("sub", "not_a_file"),
            ("", "not_a_file"),
            (".", "not_a_file"),
            ("socket", "not_a_file"),
            ("a\0b", "io"),
        ] {
            assert_eq!(code(path), Err(expected.to_owned()), "{path:?}");
        }
        assert!(Root::new(&at("secret")).is_err() && Root::new(&at("none")).is_err());
    }
}
