//! Parts of tests that need a process of their own: this program again, with one of its ignored tests.

use std::{
    env,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

/// Set in such a process.
const PART: &str = "MACULA_PART_OF_A_TEST";
/// What the line begins with that such a process says.
const SAYS: &str = "part of a test says ";

fn command(test: &str, argument: &str) -> Command {
    let mut command = Command::new(env::current_exe().expect("this program"));
    command.args([test, "--exact", "--ignored", "--nocapture", "--test-threads", "1"]);
    command.env(PART, argument).stdin(Stdio::null());
    command
}

/// Whether this process was started for a part of a test, as opposed to all ignored tests.
pub(crate) fn is_part() -> bool {
    env::var_os(PART).is_some()
}

/// What this process was told when it was started for a part of a test.
pub(crate) fn argument() -> Option<String> {
    env::var(PART).ok()
}

/// Runs such a test to its end.
pub(crate) fn alone(test: &str) {
    let status = command(test, "").status().expect("it starts");
    assert!(status.success(), "{test}: {status}");
}

/// Tells the process that started this one something. One line.
pub(crate) fn say(what: &str) {
    println!("\n{SAYS}{what}");
}

/// A part of a test that goes on until it is killed.
#[derive(Debug)]
pub(crate) struct Part {
    process: Child,
    /// What it said.
    pub(crate) said: String,
}

impl Part {
    /// Starts it, and waits for what it has to say.
    pub(crate) fn start(test: &str) -> Self {
        Self::start_with(test, "")
    }

    /// As [`start`](Self::start), with something for it to know.
    pub(crate) fn start_with(test: &str, argument: &str) -> Self {
        let mut process = command(test, argument)
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let lines = BufReader::new(process.stdout.take().expect("it is piped")).lines();
        let mut said = lines
            .map_while(Result::ok)
            .filter_map(|line| line.strip_prefix(SAYS).map(str::to_owned));
        let said = said.next().expect("it says something");
        Self { process, said }
    }

    /// Ends it without a word.
    pub(crate) fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.kill();
    }
}
