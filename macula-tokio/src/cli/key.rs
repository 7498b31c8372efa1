//! `macula key`: key files, made, shown, and searched for.

use std::{
    fmt,
    io::{self, IsTerminal as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use macula_proto::{
    Rng,
    identity::{Grinder, Identity, puzzle},
};
use serde::Serialize;
use tokio::{
    sync::mpsc::{Sender, channel},
    time::{Instant, MissedTickBehavior},
};

use super::{
    args::{KeyCommand, KeyPlaceArgs},
    events::Events,
    outcome::{Failure, Outcome},
    signals::Signals,
};
use crate::key_file::{self, Existing};

/// Key pairs that a thread tries between two looks at whether it is still wanted.
const STEP: u32 = 64;
/// Time between two changes of the progress bar.
const TICK: Duration = Duration::from_millis(100);
/// Changes of the progress bar between two `progress` events.
const TICKS_PER_EVENT: u64 = 10;

pub(crate) async fn run(command: KeyCommand, events: &Events, signals: &mut Signals) -> Outcome {
    match command {
        KeyCommand::New(args) => make(&args.place, args.puzzle, events, signals).await,
        KeyCommand::Grind(args) => make(&args.place, Some(args.puzzle), events, signals).await,
        KeyCommand::Show(args) => {
            let identity = key_file::load(&args.file).map_err(|error| failed(&args.file, error))?;
            tell(&identity, &args.file, None, events)
        }
    }
}

async fn make(place: &KeyPlaceArgs, bits: Option<u16>, events: &Events, signals: &mut Signals) -> Outcome {
    let existing = match place.force {
        true => Existing::Replace,
        false => Existing::Keep,
    };
    // Before a search that may take hours; storing looks again.
    if existing == Existing::Keep && place.file.symlink_metadata().is_ok() {
        return Err(failed(&place.file, io::ErrorKind::AlreadyExists.into()));
    }
    let (identity, attempts) = match bits {
        None => (Identity::generate(&mut rng()?), None),
        Some(bits) => {
            let (identity, attempts) = grind(bits, events, signals).await?;
            (identity, Some(attempts))
        }
    };
    key_file::store(&place.file, &identity, existing).map_err(|error| failed(&place.file, error))?;
    tell(&identity, &place.file, attempts, events)
}

fn failed(path: &Path, error: io::Error) -> Failure {
    let hint = match error.kind() {
        io::ErrorKind::AlreadyExists => "there is a file of this name already; --force replaces it".to_owned(),
        _ => error.to_string(),
    };
    Failure::failed("key", format!("{}: {hint}", path.display()))
}

fn rng() -> Result<Rng, Failure> {
    let entropy = macula_driver::entropy().map_err(|error| Failure::failed("entropy", error))?;
    Ok(Rng::from_entropy(entropy))
}

/// The public half of a key, and what its puzzle is worth.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename = "key")]
struct KeyReport {
    path: PathBuf,
    node_id: String,
    evidence: String,
    difficulty: u16,
    /// Whether only its owner can get at the file.
    private: bool,
    /// Key pairs that were tried, if there was a search.
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<u64>,
}

fn tell(identity: &Identity, path: &Path, attempts: Option<u64>, events: &Events) -> Outcome {
    let node_id = identity.node_id();
    let report = KeyReport {
        path: path.to_owned(),
        node_id: node_id.to_string(),
        evidence: super::inspect::hex(&identity.puzzle_evidence()),
        difficulty: puzzle::difficulty(&node_id),
        private: key_file::is_private(path).map_err(|error| failed(path, error))?,
        attempts,
    };
    events.print(match events.is_json() {
        // Only a path that is not UTF-8 has no JSON.
        true => serde_json::to_string(&report).map_err(|error| Failure::failed("key", error))? + "\n",
        false => report.to_string(),
    });
    Ok(())
}

impl fmt::Display for KeyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "file        {}", self.path.display())?;
        writeln!(f, "node id     {}", self.node_id)?;
        writeln!(f, "evidence    {}", self.evidence)?;
        writeln!(f, "difficulty  {} bits", self.difficulty)?;
        match self.attempts {
            Some(attempts) => writeln!(f, "attempts    {attempts}"),
            None => Ok(()),
        }
    }
}

/// How far a search is.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename = "progress")]
struct Progress {
    attempts: u64,
    expected: u64,
    per_second: u64,
}

/// Threads that search, until this is dropped.
struct Search {
    over: Arc<AtomicBool>,
    attempts: Arc<AtomicU64>,
}

impl Search {
    fn start(bits: u16, found: &Sender<Identity>) -> Result<Self, Failure> {
        let search = Self {
            over: Arc::default(),
            attempts: Arc::default(),
        };
        let threads = thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..threads {
            let mut grinder = Grinder::new(bits, rng()?);
            let (over, attempts, found) = (search.over.clone(), search.attempts.clone(), found.clone());
            thread::spawn(move || {
                let mut before = 0;
                while !over.load(Ordering::Relaxed) {
                    let identity = grinder.step(STEP);
                    attempts.fetch_add(grinder.attempts() - before, Ordering::Relaxed);
                    before = grinder.attempts();
                    if let Some(identity) = identity {
                        // Another thread may have been quicker; one key is enough.
                        let _ = found.try_send(identity);
                        return;
                    }
                }
            });
        }
        Ok(search)
    }

    fn attempts(&self) -> u64 {
        self.attempts.load(Ordering::Relaxed)
    }
}

impl Drop for Search {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// A key of at least this difficulty, and how many were tried.
async fn grind(bits: u16, events: &Events, signals: &mut Signals) -> Result<(Identity, u64), Failure> {
    let (tell, mut found) = channel(1);
    let expected = Grinder::new(bits, rng()?).expected_attempts();
    let search = Search::start(bits, &tell)?;
    let bar = progress_bar(expected, events.is_json());
    let started = Instant::now();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut count: u64 = 0;
    let outcome = loop {
        tokio::select! {
            biased;
            () = signals.stop() => break Err(Failure::failed("interrupted", "interrupted; nothing was stored")),
            () = events.closed() => break Err(Failure::failed("interrupted", "nobody reads standard output any more")),
            identity = found.recv() => match identity {
                Some(identity) => break Ok((identity, search.attempts())),
                None => break Err(Failure::failed("grind", "the search ended without a key")),
            },
            _ = ticks.tick() => {
                let attempts = search.attempts();
                bar.set_position(attempts);
                count += 1;
                if events.is_json() && count.is_multiple_of(TICKS_PER_EVENT) {
                    let seconds = started.elapsed().as_secs_f64();
                    let per_second = (attempts as f64 / seconds) as u64;
                    let progress = Progress { attempts, expected, per_second };
                    events.print(serde_json::to_string(&progress).unwrap_or_default() + "\n");
                }
            }
        }
    };
    bar.finish_and_clear();
    outcome
}

fn progress_bar(expected: u64, json: bool) -> ProgressBar {
    let hidden = json || !io::stderr().is_terminal();
    let target = match hidden {
        true => ProgressDrawTarget::hidden(),
        false => ProgressDrawTarget::stderr(),
    };
    let bar = ProgressBar::with_draw_target(Some(expected), target);
    let style =
        ProgressStyle::with_template("{bar:40} {human_pos} attempts of {human_len} expected, {rate}, {elapsed}");
    match style {
        Ok(style) => {
            let rate = |state: &ProgressState, out: &mut dyn fmt::Write| {
                let _ = write!(out, "{:.0} a second", state.per_sec());
            };
            bar.with_style(style.with_key("rate", rate))
        }
        Err(_) => bar,
    }
}
