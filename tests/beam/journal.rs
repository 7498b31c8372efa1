//! Child processes and what they print: every line is kept with its time, so that a failed wait can show what the
//! children were doing, and children are killed by their own process id whenever their owner goes, panics included.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// All waits of this test program together end by this time after its start.
const BUDGET: Duration = Duration::from_secs(150);

/// Lines of each child shown when a wait fails.
const TAIL: usize = 30;

/// When this test program started, near enough: the first call of any test.
fn program_start() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now)
}

/// A time by which something must have happened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    at: Instant,
    allowed: Duration,
}

impl Deadline {
    /// `allowed` from now, or the end of the whole program's time budget if that is sooner.
    pub(crate) fn within(allowed: Duration) -> Self {
        let at = (Instant::now() + allowed).min(program_start() + BUDGET);
        Self { at, allowed }
    }

    pub(crate) fn left(self) -> Option<Duration> {
        self.at
            .checked_duration_since(Instant::now())
            .filter(|left| !left.is_zero())
    }

    fn explain(self) -> String {
        if program_start().elapsed() >= BUDGET {
            format!("the time budget of all tests together ({BUDGET:?}) is spent")
        } else {
            format!("not within {:?}", self.allowed)
        }
    }
}

/// Where a line came from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Source {
    Stdout,
    Stderr,
    /// The harness itself: commands given, exits noticed.
    Harness,
}

#[derive(Clone, Debug)]
struct Line {
    time: Duration,
    source: Source,
    text: String,
}

#[derive(Debug, Default)]
struct Lines {
    lines: Vec<Line>,
    /// Standard output has ended: nothing awaited from this child can come any more.
    ended: bool,
}

/// The lines of one child. Positions in it only grow, so a position taken before an action separates what was there
/// before from what the action caused.
#[derive(Debug)]
pub(crate) struct Log {
    name: String,
    lines: Mutex<Lines>,
    changed: Condvar,
}

impl Log {
    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, source: Source, text: String) {
        self.lock().lines.push(Line {
            time: program_start().elapsed(),
            source,
            text,
        });
        self.changed.notify_all();
    }

    fn end(&self) {
        self.lock().ended = true;
        self.changed.notify_all();
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The position after the last line so far.
    pub(crate) fn position(&self) -> usize {
        self.lock().lines.len()
    }

    /// Every result of `pick` over the standard output lines from `from` on.
    pub(crate) fn all<T>(&self, from: usize, mut pick: impl FnMut(&str) -> Option<T>) -> Vec<T> {
        let lines = self.lock();
        let stdout = lines
            .lines
            .iter()
            .skip(from)
            .filter(|line| line.source == Source::Stdout);
        stdout.filter_map(|line| pick(&line.text)).collect()
    }

    /// Waits for the first standard output line from `from` on that `pick` takes. The error says why there was none.
    pub(crate) fn wait<T>(
        &self,
        from: usize,
        deadline: Deadline,
        mut pick: impl FnMut(&str) -> Option<T>,
    ) -> Result<T, String> {
        let mut next = from;
        let mut lines = self.lock();
        loop {
            while let Some(line) = lines.lines.get(next) {
                next += 1;
                if line.source == Source::Stdout
                    && let Some(found) = pick(&line.text)
                {
                    return Ok(found);
                }
            }
            if lines.ended {
                return Err(format!("{} ended its output (it has probably exited)", self.name));
            }
            let Some(left) = deadline.left() else {
                return Err(deadline.explain());
            };
            lines = self
                .changed
                .wait_timeout(lines, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn write_tail(&self, out: &mut String) {
        let lines = self.lock();
        let skipped = lines.lines.len().saturating_sub(TAIL);
        let _ = writeln!(out, "--- {}: last lines ({skipped} earlier ones left out)", self.name);
        for line in lines.lines.iter().skip(skipped) {
            let mark = match line.source {
                Source::Stdout => "|",
                Source::Stderr => "!",
                Source::Harness => "<",
            };
            let _ = writeln!(out, "{:9.3} {mark} {}", line.time.as_secs_f64(), line.text);
        }
    }
}

/// The logs of all children of one test.
#[derive(Clone, Debug, Default)]
pub(crate) struct Journal {
    logs: Arc<Mutex<Vec<Arc<Log>>>>,
}

impl Journal {
    pub(crate) fn open(&self, name: &str) -> Arc<Log> {
        program_start();
        let log = Arc::new(Log {
            name: name.to_owned(),
            lines: Mutex::default(),
            changed: Condvar::new(),
        });
        self.logs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Arc::clone(&log));
        log
    }

    /// Fails the test with a message and the last lines of every child.
    pub(crate) fn fail(&self, message: &str) -> ! {
        let mut text = format!("{message}\n");
        for log in self.logs.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            log.write_tail(&mut text);
        }
        panic!("{text}");
    }

    /// The value, or a failed test that says `what` was wanted.
    pub(crate) fn expect<T, E: std::fmt::Display>(&self, result: Result<T, E>, what: &str) -> T {
        result.unwrap_or_else(|error| self.fail(&format!("{what}: {error}")))
    }
}

/// A child process with its output in a [`Log`]. Killed, by its own process id, when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    pub(crate) log: Arc<Log>,
}

impl Process {
    /// Starts `command`, writing its output to `log`, which must be new: the end of a log is the end of its child. With `commanded` its standard input stays open for
    /// [`say`](Self::say); otherwise it is empty.
    pub(crate) fn start(mut command: Command, log: Arc<Log>, commanded: bool) -> Result<Self, String> {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.stdin(if commanded { Stdio::piped() } else { Stdio::null() });
        log.push(Source::Harness, format!("{command:?}"));
        let mut child = command
            .spawn()
            .map_err(|error| format!("cannot start {command:?}: {error}"))?;
        if let Some(stdout) = child.stdout.take() {
            copy_lines(stdout, Source::Stdout, Arc::clone(&log));
        }
        if let Some(stderr) = child.stderr.take() {
            copy_lines(stderr, Source::Stderr, Arc::clone(&log));
        }
        let stdin = child.stdin.take();
        Ok(Self { child, stdin, log })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Writes one line to the child's standard input.
    pub(crate) fn say(&mut self, line: &str) -> Result<(), String> {
        self.log.push(Source::Harness, line.to_owned());
        let stdin = self.stdin.as_mut().ok_or("its standard input is not open")?;
        stdin
            .write_all(format!("{line}\n").as_bytes())
            .and_then(|()| stdin.flush())
            .map_err(|error| error.to_string())
    }

    /// SIGKILL, then waits for the end.
    pub(crate) fn kill(&mut self) -> std::io::Result<ExitStatus> {
        self.child.kill()?;
        let status = self.child.wait()?;
        self.log.push(Source::Harness, format!("killed: {status}"));
        Ok(status)
    }

    /// Sends a signal by its shell name, such as `STOP` or `CONT`.
    pub(crate) fn signal(&self, signal: &str) -> Result<(), String> {
        self.log.push(Source::Harness, format!("SIG{signal}"));
        let command = format!("kill -{signal} {}", self.child.id());
        match Command::new("sh").arg("-c").arg(&command).status() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("{command}: {status}")),
            Err(error) => Err(format!("{command}: {error}")),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already gone is fine; there is nobody to tell anything else.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn copy_lines(from: impl Read + Send + 'static, source: Source, log: Arc<Log>) {
    thread::spawn(move || {
        for line in BufReader::new(from).split(b'\n') {
            let Ok(line) = line else { break };
            log.push(source, String::from_utf8_lossy(&line).trim_end().to_owned());
        }
        if source == Source::Stdout {
            log.end();
        }
    });
}
