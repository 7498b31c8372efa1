//! The command, run in a process of its own.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdout, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

/// For everything that is waited for.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// A running command, and its events as they come.
pub(crate) struct Macula {
    child: Child,
    events: Receiver<Value>,
}

impl Macula {
    pub(crate) fn start(line: &str) -> Self {
        Self::start_words(&line.split_whitespace().collect::<Vec<_>>())
    }

    /// The same where words have spaces in them.
    pub(crate) fn start_words(words: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_macula"))
            .args(words)
            .arg("--json")
            .env_remove("RUST_LOG")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the command starts");
        let out = child.stdout.take().expect("its output");
        Self {
            child,
            events: read(out),
        }
    }

    /// The next event of that name; others are passed over.
    pub(crate) fn wait(&self, name: &str) -> Value {
        let end = Instant::now() + SOON;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let event = self
                .events
                .recv_timeout(left)
                .unwrap_or_else(|_| panic!("no event {name}"));
            if event["event"] == name {
                return event;
            }
        }
    }

    /// The next event, whatever it is.
    pub(crate) fn next(&self) -> Value {
        self.events.recv_timeout(SOON).expect("an event")
    }

    /// Writes to its standard input, and closes it.
    pub(crate) fn type_in(&mut self, text: &str) {
        let mut input = self.child.stdin.take().expect("its input");
        input.write_all(text.as_bytes()).expect("it reads");
    }

    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill")
            .args([&format!("-{name}"), &id])
            .status()
            .expect("kill");
        assert!(sent.success());
    }

    /// The exit code.
    pub(crate) fn end(mut self) -> Option<i32> {
        let end = Instant::now() + SOON;
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait().expect("a status") {
                return status.code();
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("the command does not end");
    }
}

impl Drop for Macula {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(out: ChildStdout) -> Receiver<Value> {
    let (tell, events) = channel();
    thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            let event = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"));
            if tell.send(event).is_err() {
                return;
            }
        }
    });
    events
}

/// A field that is a text.
pub(crate) fn text<'a>(event: &'a Value, field: &str) -> &'a str {
    event[field]
        .as_str()
        .unwrap_or_else(|| panic!("no text {field} in {event}"))
}
