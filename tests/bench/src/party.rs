//! Parties of a benchmark in processes of their own, so that none shares threads, memory or a runtime with another: the benchmark
//! runs itself again and tells each what to do, one line of JSON after the other.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, Command, Stdio, exit},
    sync::mpsc,
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::{Result, cpu};

/// What the first argument of a party is.
const FLAG: &str = "--party";
/// Far longer than anything here takes.
const LONG: Duration = Duration::from_secs(90);

/// A process that plays a part; it ends with this.
#[derive(Debug)]
pub struct Party {
    words: String,
    child: Child,
    input: ChildStdin,
    answers: mpsc::Receiver<Value>,
}

impl Party {
    /// Runs this program again, with words that say which part it plays.
    ///
    /// # Errors
    /// Those of starting a process.
    pub fn start(words: &[&str]) -> Result<Self> {
        let mut child = Command::new(env::current_exe()?)
            .arg(FLAG)
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("a process without pipes".into());
        };
        let (sender, answers) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(|line| line.ok()) {
                let answer = serde_json::from_str(&line).unwrap_or_else(|_| json!({ "error": line }));
                if sender.send(answer).is_err() {
                    return;
                }
            }
        });
        Ok(Self {
            words: words.join(", "),
            child,
            input,
            answers,
        })
    }

    /// Tells it what to do, and waits until that is done.
    ///
    /// # Errors
    /// When it could not do it, or has ended, or takes longer than anything should.
    pub fn ask(&mut self, command: &Value) -> Result<Value> {
        writeln!(self.input, "{command}")?;
        self.input.flush()?;
        let answer = self
            .answers
            .recv_timeout(LONG)
            .map_err(|error| format!("{}: {error}", self.words))?;
        match answer.get("error") {
            Some(error) => Err(format!("{}: {error}", self.words).into()),
            None => Ok(answer),
        }
    }

    /// Processor time that it took so far.
    pub fn cpu(&self) -> Duration {
        cpu::of_process(self.child.id())
    }
}

impl Drop for Party {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The words that this process was started with, if it is a party.
pub fn words() -> Option<Vec<String>> {
    let mut arguments = env::args().skip(1);
    (arguments.next()? == FLAG).then(|| arguments.collect())
}

/// What a party is told to do, one after the other.
pub type Commands = UnboundedReceiver<Value>;

/// What this party is told to do. The process ends when whoever started it ends.
pub fn commands() -> Commands {
    let (sender, receiver) = unbounded_channel();
    thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(|line| line.ok()) {
            if let Ok(command) = serde_json::from_str(&line) {
                let _ = sender.send(command);
            }
        }
        exit(0);
    });
    receiver
}

/// What a party answers to a command: one line for each.
pub fn answer(answer: &Result<Value>) {
    match answer {
        Ok(value) => println!("{value}"),
        Err(error) => println!("{}", json!({ "error": error.to_string() })),
    }
}
