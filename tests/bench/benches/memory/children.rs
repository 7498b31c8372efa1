//! The processes that are weighed: this program again.

use std::{
    future::Future,
    io::{BufRead, BufReader, Lines, Write},
    pin::Pin,
    process::{ChildStdin, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use macula_bench::Result;
use macula_tokio::tls::Credentials;
use tokio::sync::mpsc;

use crate::{HEAP, party};

const ROLE: &str = "--role";
const PEER: &str = "MACULA_BENCH_PEER";
const CHAIN: &str = "MACULA_BENCH_CHAIN";
const KEY: &str = "MACULA_BENCH_KEY";

/// How long memory has to stay as it is, and how long that is waited for at the most.
const REST: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) type Opening<'a> = Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

/// What a process is.
pub(crate) trait Party {
    /// Where it listens; 0 if it does not.
    fn port(&self) -> u16 {
        0
    }

    /// Opens so many more.
    fn open(&mut self, count: usize) -> Opening<'_> {
        Box::pin(async move { Err(format!("asked to open {count}").into()) })
    }
}

/// Memory in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weight {
    pub(crate) resident: f64,
    pub(crate) heap: f64,
}

// ----- this side ---------------------------------------------------------------------------------------------------

/// A process that was started, and ends when this is dropped.
pub(crate) struct Child {
    process: std::process::Child,
    commands: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    pub(crate) port: u16,
}

impl Child {
    pub(crate) fn start(role: &str, peer: u16, credentials: &Credentials) -> Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .args([ROLE, role])
            .env(PEER, peer.to_string())
            .env(CHAIN, credentials.chain_to_pem())
            .env(KEY, credentials.key_to_pem())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let commands = process.stdin.take().ok_or("no standard input")?;
        let answers = process.stdout.take().ok_or("no standard output")?;
        let mut child = Self {
            process,
            commands,
            answers: BufReader::new(answers).lines(),
            port: 0,
        };
        child.port = child.answer(role)?.parse()?;
        Ok(child)
    }

    pub(crate) fn open(&mut self, count: usize) -> Result<()> {
        self.ask(&format!("open {count}")).map(drop)
    }

    pub(crate) fn weigh(&mut self) -> Result<Weight> {
        let answer = self.ask("weigh")?;
        let (resident, heap) = answer.split_once(' ').ok_or("not a weight")?;
        Ok(Weight {
            resident: resident.parse()?,
            heap: heap.parse()?,
        })
    }

    fn ask(&mut self, command: &str) -> Result<String> {
        writeln!(self.commands, "{command}")?;
        self.commands.flush()?;
        self.answer(command)
    }

    fn answer(&mut self, to: &str) -> Result<String> {
        let line = self.answers.next();
        Ok(line.ok_or_else(|| format!("no answer to {to:?}"))??)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

// ----- the other side ----------------------------------------------------------------------------------------------

/// What this process shall be, if it is one of those.
pub(crate) fn role() -> Option<String> {
    let mut arguments = std::env::args().skip(1);
    arguments.find(|argument| argument == ROLE)?;
    arguments.next()
}

/// Is that, until nobody asks any more.
pub(crate) fn play(role: &str) -> Result<()> {
    let (tell, mut commands) = mpsc::channel(1);
    thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(std::result::Result::ok) {
            if tell.blocking_send(line).is_err() {
                return;
            }
        }
    });
    let variable = |name: &str| std::env::var(name);
    let credentials = Credentials::from_pem_pair(variable(CHAIN)?.as_bytes(), variable(KEY)?.as_bytes())?;
    let peer = variable(PEER)?.parse()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut party = party(role, peer, credentials).await?;
        println!("{}", party.port());
        while let Some(command) = commands.recv().await {
            match command.split_once(' ') {
                Some(("open", count)) => {
                    party.open(count.parse()?).await?;
                    println!("opened");
                }
                _ => {
                    let Weight { resident, heap } = weight_at_rest().await?;
                    println!("{resident} {heap}");
                }
            }
        }
        Ok(())
    })
}

async fn weight_at_rest() -> Result<Weight> {
    let begun = Instant::now();
    let mut weight = weight()?;
    let mut since = begun;
    while since.elapsed() < REST && begun.elapsed() < PATIENCE {
        tokio::time::sleep(REST / 10).await;
        let now = self::weight()?;
        if now.resident != weight.resident || now.heap != weight.heap {
            since = Instant::now();
        }
        weight = now;
    }
    Ok(weight)
}

fn weight() -> Result<Weight> {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup")?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Rss:"));
    let kibibytes: u64 = line
        .and_then(|line| line.split_whitespace().next())
        .ok_or("no Rss")?
        .parse()?;
    drop(rollup);
    let heap = HEAP.stats();
    Ok(Weight {
        resident: (kibibytes * 1024) as f64,
        heap: (heap.bytes_allocated - heap.bytes_deallocated) as f64,
    })
}
