//! Runs worlds drawn from seeds, as many as wanted, and tells of those that fail.

#[path = "../swarm/crowd.rs"]
mod crowd;
#[path = "../swarm/run/mod.rs"]
mod run;

use std::{
    collections::BTreeSet,
    fs::{File, OpenOptions},
    io::{BufRead, BufReader, BufWriter, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use macula_proto::sim::Detail;
use run::{Options, Outcome, Plan};

/// Runs worlds drawn from seeds: relays, nodes behind NATs, tunnels, peers, calls and Erlang distribution on bad networks,
/// with hosts that stall, crash and come back. Every world is checked against models of what has to come out.
///
/// Each seed is one world and always the same. A seed that fails is printed with the command that runs it again.
#[derive(Debug, Parser)]
#[command(after_help = "\
Examples:
  swarm --seeds 200                         two hundred worlds
  swarm --for 3m                            as many as fit into three minutes
  swarm --seeds 10000 --resume results.txt  ten thousand, over several runs of this command
  swarm --seed 17                           one world again, and what is in it
  swarm --seed 17 --trace                   with every datagram and every event
  swarm --seed 17 --qlog 17.sqlog           the same for a qlog viewer
  swarm --seed 17 --twice                   twice, and where the two runs part

Exit status: 0 when all passed, 1 when one failed, 2 for bad arguments.")]
struct Args {
    /// How many worlds, beginning with --first.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The seed of the first world.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// One world only, with this seed.
    #[arg(long, conflicts_with_all = ["seeds", "first", "duration", "resume"])]
    seed: Option<u64>,
    /// Simulated seconds of each world until everything is closed; closing and waiting come on top.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(20..=86_400))]
    seconds: u64,
    /// Stop after this time by the wall clock (30s, 3m, 2h), whatever is left.
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    duration: Option<Duration>,
    /// Worlds at the same time. Default: one for each processor.
    #[arg(long)]
    jobs: Option<usize>,
    /// Leave out the seeds that passed according to this file, and add those that pass now. It counts for one value of --seconds.
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
    /// Stop at the first failure.
    #[arg(long)]
    fail_fast: bool,
    /// With --seed: print the trace.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// With --seed: write the trace as qlog (JSON text sequences).
    #[arg(long, requires = "seed", value_name = "FILE")]
    qlog: Option<PathBuf>,
    /// With --seed: run it twice and compare.
    #[arg(long, requires = "seed")]
    twice: bool,
    /// No worlds: measure how fast 2, 100 and 1,000 endpoints are simulated.
    #[arg(long)]
    bench: bool,
    /// One JSON object a line: one for every failure, and one at the end.
    #[arg(long)]
    json: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let number: u64 = number
        .parse()
        .map_err(|_| "a number and s, m or h, as in 90s".to_owned())?;
    match unit {
        "s" | "" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number * 60)),
        "h" => Ok(Duration::from_secs(number * 3600)),
        _ => Err("the unit is s, m or h".to_owned()),
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    if args.bench {
        crowd::table(args.json);
        return ExitCode::SUCCESS;
    }
    run::count_errors();
    let result = match args.seed {
        Some(seed) => one(&args, seed),
        None => many(&args),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("swarm: {error}");
            ExitCode::from(2)
        }
    }
}

fn again(outcome: &Outcome, args: &Args) -> String {
    let seconds = args.seconds;
    let seed = outcome.seed;
    format!("cargo run --release -p macula-tests --features swarm --bin swarm -- --seed {seed} --seconds {seconds}")
}

/// One world, in detail.
fn one(args: &Args, seed: u64) -> std::io::Result<bool> {
    let keep = args.trace || args.qlog.is_some() || args.twice;
    let detail = if keep { Detail::All } else { Detail::Last(40) };
    let options = Options {
        seconds: args.seconds,
        detail,
    };
    if !args.json {
        println!("{:#?}", Plan::draw(seed, args.seconds));
    }
    let begin = Instant::now();
    let (outcome, world) = run::run(seed, options);
    let wall = begin.elapsed();
    let mut out = BufWriter::new(std::io::stdout().lock());
    if args.trace || (outcome.failure.is_some() && !args.json) {
        write!(out, "{}", world.trace())?;
    }
    if let Some(path) = &args.qlog {
        let mut file = BufWriter::new(File::create(path)?);
        world.write_qlog(&mut file)?;
        file.flush()?;
    }
    let mut good = outcome.failure.is_none();
    if args.twice {
        let (_, second) = run::run(seed, options);
        if let Some(difference) = world.trace().difference(second.trace()) {
            good = false;
            writeln!(out, "not the same twice: {difference}")?;
        }
    }
    tell(&mut out, args, &outcome, wall)?;
    out.flush()?;
    Ok(good)
}

fn tell(out: &mut dyn Write, args: &Args, outcome: &Outcome, wall: Duration) -> std::io::Result<()> {
    let (seed, done) = (outcome.seed, &outcome.done);
    if args.json {
        let object = serde_json::json!({
            "event": if outcome.failure.is_some() { "failed" } else { "passed" },
            "seed": seed,
            "failure": outcome.failure,
            "again": outcome.failure.as_ref().map(|_| again(outcome, args)),
            "digest": format!("{:032x}", outcome.digest),
            "simulated_seconds": outcome.simulated.as_secs_f64(),
            "wall_seconds": wall.as_secs_f64(),
            "faults": done.faults, "streams": done.streams, "bytes": done.bytes, "calls": done.calls,
            "frames": done.frames, "messages": done.messages, "dist_streams": done.dist_streams, "routed": done.routed,
            "early": done.early, "drained": done.drained, "datagrams": done.datagrams,
        });
        return writeln!(out, "{object}");
    }
    match &outcome.failure {
        Some(failure) => writeln!(out, "seed {seed} failed {failure}\n  again: {}", again(outcome, args)),
        None => writeln!(
            out,
            "seed {seed} passed: {:.0} simulated seconds in {:.2} s, {done:?}, digest {:032x}",
            outcome.simulated.as_secs_f64(),
            wall.as_secs_f64(),
            outcome.digest,
        ),
    }
}

/// What earlier runs have left in the file.
#[derive(Debug, Default)]
struct Past {
    passed: BTreeSet<u64>,
    simulated: f64,
    wall: f64,
}

impl Past {
    fn read(path: &Path, seconds: u64) -> std::io::Result<Self> {
        let mut past = Self::default();
        let Ok(file) = File::open(path) else {
            return Ok(past);
        };
        for line in BufReader::new(file).lines() {
            let line = line?;
            let mut words = line.split_whitespace();
            let mut number = || words.next().and_then(|word| word.parse::<f64>().ok());
            // Seed, seconds asked for, simulated seconds, wall seconds. A line cut short by a kill is no result.
            if let (Some(seed), Some(asked), Some(simulated), Some(wall)) = (number(), number(), number(), number())
                && asked as u64 == seconds
                && past.passed.insert(seed as u64)
            {
                past.simulated += simulated;
                past.wall += wall;
            }
        }
        Ok(past)
    }
}

fn many(args: &Args) -> std::io::Result<bool> {
    let past = match &args.resume {
        Some(path) => Past::read(path, args.seconds)?,
        None => Past::default(),
    };
    let seeds = args.first..args.first.saturating_add(args.seeds);
    let left: Vec<u64> = seeds.clone().filter(|seed| !past.passed.contains(seed)).collect();
    let jobs = args
        .jobs
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let mut file = match &args.resume {
        Some(path) => Some(OpenOptions::new().create(true).append(true).open(path)?),
        None => None,
    };
    let bar = progress(args, left.len() as u64);
    let begin = Instant::now();
    let next = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let (results, outcomes) = mpsc::channel();
    let results = Mutex::new(results);
    let (mut passed, mut failed, mut simulated, mut datagrams) = (0_u64, Vec::new(), 0.0, 0);
    let mut error = None;
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            let results = results.lock().expect("nothing panics with the lock").clone();
            let (left, next, stop) = (&left, &next, &stop);
            scope.spawn(move || {
                loop {
                    let late = args.duration.is_some_and(|most| begin.elapsed() >= most);
                    let index = usize::try_from(next.fetch_add(1, Ordering::Relaxed)).unwrap_or(usize::MAX);
                    let Some(seed) = left.get(index).filter(|_| !late && !stop.load(Ordering::Relaxed)) else {
                        return;
                    };
                    let options = Options {
                        seconds: args.seconds,
                        detail: Detail::Digest,
                    };
                    let from = Instant::now();
                    let (outcome, _) = run::run(*seed, options);
                    if results.send((outcome, from.elapsed())).is_err() {
                        return;
                    }
                }
            });
        }
        drop(results);
        for (outcome, wall) in outcomes {
            simulated += outcome.simulated.as_secs_f64();
            datagrams += outcome.done.datagrams;
            bar.inc(1);
            bar.set_message(format!(
                "{:.0} simulated s/s",
                simulated / begin.elapsed().as_secs_f64()
            ));
            if outcome.failure.is_some() {
                let told = bar.suspend(|| tell(&mut std::io::stdout().lock(), args, &outcome, wall));
                error = error.take().or(told.err());
                failed.push(outcome.seed);
                stop.store(stop.load(Ordering::Relaxed) || args.fail_fast, Ordering::Relaxed);
                continue;
            }
            passed += 1;
            if let Some(file) = &mut file {
                let (seed, simulated, wall) = (outcome.seed, outcome.simulated.as_secs_f64(), wall.as_secs_f64());
                let line = format!("{seed} {} {simulated:.1} {wall:.3}\n", args.seconds);
                error = error.take().or(file.write_all(line.as_bytes()).err());
            }
        }
    });
    bar.finish_and_clear();
    if let Some(error) = error {
        return Err(error);
    }
    let wall = begin.elapsed().as_secs_f64();
    let rate = simulated / wall.max(1e-9);
    let all = past.passed.iter().filter(|seed| seeds.contains(seed)).count() as u64 + passed;
    if args.json {
        let object = serde_json::json!({
            "event": "done", "passed": passed, "failed": failed, "simulated_seconds": simulated, "wall_seconds": wall,
            "simulated_per_wall": rate, "datagrams": datagrams, "passed_with_earlier_runs": all,
        });
        println!("{object}");
    } else {
        println!(
            "{passed} passed, {} failed: {simulated:.0} simulated seconds in {wall:.1} s, {rate:.0} a second, {datagrams} datagrams",
            failed.len()
        );
        if args.resume.is_some() {
            let (simulated, spent) = (past.simulated + simulated, past.wall + wall);
            println!(
                "with earlier runs: {all} of {} passed, {simulated:.0} simulated seconds in {spent:.0} s",
                args.seeds
            );
        }
    }
    Ok(failed.is_empty())
}

fn progress(args: &Args, count: u64) -> ProgressBar {
    if args.json {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{elapsed_precise} {bar:30} {pos}/{len} worlds, {msg}, {eta} to go");
    ProgressBar::new(count).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
