//! Servers and callers of `macula rpc`, and what every carrier has to do.

use std::{
    fs,
    io::{Read as _, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::{
    command::{Macula, SOON, text},
    common::noise,
};

/// `macula rpc serve` on a port.
pub(crate) struct Server {
    pub(crate) process: Macula,
    pub(crate) at: String,
    pub(crate) pin: String,
    pub(crate) node_id: String,
}

impl Server {
    pub(crate) fn start(words: &[&str]) -> Self {
        let line = ["rpc", "serve", "--self-signed", "--listen", "127.0.0.1:0"];
        let process = Macula::start_words(&[&line, words].concat());
        Self {
            node_id: text(&process.wait("identity"), "node_id").to_owned(),
            pin: text(&process.wait("certificate"), "pin").to_owned(),
            at: text(&process.wait("listening"), "addr").to_owned(),
            process,
        }
    }

    /// `macula rpc call` of it, to its end.
    pub(crate) fn call(&self, words: &[&str], input: &[u8]) -> Done {
        call(&[&[&*self.at, "--pin", &self.pin], words].concat(), input)
    }

    /// One that goes on, with `--json`.
    pub(crate) fn calling(&self, words: &[&str]) -> Macula {
        Macula::start_words(&[&["rpc", "call", &self.at, "--pin", &self.pin], words].concat())
    }

    pub(crate) fn stop(self) {
        self.process.signal("TERM");
        assert_eq!(self.process.end(), Some(0));
    }
}

/// What a command came to.
pub(crate) struct Done {
    pub(crate) code: Option<i32>,
    pub(crate) out: Vec<u8>,
    pub(crate) err: String,
}

impl Done {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.out).expect("text")
    }

    /// It succeeded and said nothing besides.
    pub(crate) fn good(self) -> Vec<u8> {
        assert_eq!((self.code, &*self.err), (Some(0), ""));
        self.out
    }

    /// It failed, with these words.
    pub(crate) fn bad(&self, code: i32, part: &str) {
        assert_eq!(self.code, Some(code), "{}", self.err);
        assert!(self.err.contains(part), "{part:?} in {:?}", self.err);
    }
}

pub(crate) fn spawn(words: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_macula"))
        .args(["rpc", "call"])
        .args(words)
        .env_remove("RUST_LOG")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts")
}

pub(crate) fn call(words: &[&str], input: &[u8]) -> Done {
    let mut child = spawn(words);
    let (mut stdin, mut stdout) = (child.stdin.take().expect("in"), child.stdout.take().expect("out"));
    let mut stderr = child.stderr.take().expect("err");
    let input = input.to_vec();
    // It need not read all of it.
    thread::spawn(move || drop(stdin.write_all(&input)));
    let out = thread::spawn(move || {
        let mut out = Vec::new();
        stdout.read_to_end(&mut out).expect("output");
        out
    });
    let err = thread::spawn(move || {
        let mut err = String::new();
        stderr.read_to_string(&mut err).expect("text");
        err
    });
    let code = exit(&mut child);
    Done {
        code,
        out: out.join().expect("output"),
        err: err.join().expect("output"),
    }
}

pub(crate) fn exit(child: &mut Child) -> Option<i32> {
    let end = Instant::now() + 2 * SOON;
    while Instant::now() < end {
        if let Some(status) = child.try_wait().expect("a status") {
            return status.code();
        }
        thread::sleep(Duration::from_millis(5));
    }
    let _ = child.kill();
    panic!("the command does not end");
}

/// A directory with a large file and a small one.
pub(crate) fn files() -> (tempfile::TempDir, Vec<u8>) {
    let directory = tempfile::tempdir().expect("a directory");
    let large = noise((16 << 20) + 12_345, 7);
    fs::write(directory.path().join("large"), &large).expect("a file");
    fs::write(directory.path().join("small"), "hello\n").expect("a file");
    fs::write(directory.path().join("empty"), "").expect("a file");
    (directory, large)
}

pub(crate) fn shown(path: &Path) -> &str {
    path.to_str().expect("text")
}

/// All that is built in, called with these options.
pub(crate) fn all_built_in(call: impl Fn(&[&str], &[u8]) -> Done, large: &[u8], signed: bool) {
    let bytes = noise(300_000, 3);
    assert!(call(&["echo"], &bytes).good() == bytes);
    assert_eq!(call(&["echo"], b"").good(), b"");
    let mut terms = b"1\n\"two\"\n{\"three\":[null,[]]}\n".to_vec();
    if !signed {
        terms.extend(b"[-1,2.5,true]\n");
    }
    assert_eq!(call(&["echo", "--chunk", "json"], &terms).good(), terms);
    assert_eq!(call(&["count", "{\"n\":3}"], b"").good(), b"1\n2\n3\n");
    assert_eq!(call(&["count", "0"], b"").good(), b"");
    let many = call(&["count", "{\"n\":5000}"], b"").good();
    assert_eq!(many.iter().filter(|byte| **byte == b'\n').count(), 5000);
    assert!(many.ends_with(b"\n4999\n5000\n"));
    assert_eq!(call(&["sum"], b"1\n2\n39\n").good(), b"42\n");
    assert_eq!(call(&["sum"], b"").good(), b"0\n");
    assert_eq!(call(&["sum", "--chunk", "json"], b"40\n\"2\"").good(), b"42\n");
    if !signed {
        assert_eq!(call(&["sum", "--chunk", "json"], b"-1\n0.5").good(), b"-0.5\n");
    }
    call(&["sum"], b"1\ntwo\n").bad(1, "sum: bad_number: a chunk is not a number");
    call(&["count", "\"x\""], b"").bad(1, "bad_args: count takes");
    assert!(call(&["cat", "{\"path\":\"large\"}"], b"").good() == large);
    assert_eq!(call(&["cat", "\"small\""], b"").good(), b"hello\n");
    assert_eq!(call(&["cat", "{\"path\":\"empty\"}"], b"").good(), b"");
    call(&["cat", "{\"path\":\"../large\"}"], b"").bad(1, "cat: not_allowed: ");
    call(&["cat", "{\"path\":\"none\"}"], b"").bad(1, "cat: not_found: no such file");
    call(&["nothing"], b"").bad(1, "nothing: not_found: ");
}
