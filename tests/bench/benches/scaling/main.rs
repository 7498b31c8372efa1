//! What one message costs as streams, tunnels and connections become more, and what idle connections cost a busy one.
//!
//! `cargo bench -p macula-bench --bench scaling [-- --json] [--rounds N] [--only WORDS] [--with WORDS] [--most N] [--svg FILE]`
//!
//! Each party (opener, taker, relay) has a thread with a current-thread runtime. Streams are opened until there are 10, 100, 1,000 and
//! 10,000 (`--most`), and at each of these steps the same work is done, on all of them in turn but never on more than ten at once, so that
//! nothing but their number changes:
//!
//! - *message*: 64 bytes there and 64 back;
//! - *block*: 16 KiB there and 64 bytes back.
//!
//! The streams are all on one connection (*streams*), each a tunnel through one relay between two nodes (*tunnels*), or each on a
//! connection of its own (*connections*). *Idle* is a message on one connection while the others have nothing to do. Printed is processor
//! time of the whole process for each message or byte, medians over the rounds, and how it compares with that for ten. quinn does the same
//! beside it, with the same certificate, datagrams of up to 1,452 bytes, windows and socket buffers. Keep-alive is off
//! everywhere, and idle time-outs are far.

mod ours;
mod plot;
mod quinn_ends;
mod scene;

use std::{collections::BTreeMap, time::Duration};

use macula_bench::{Arguments, Result, median, our_setup};
use macula_tokio::tls::Credentials;
use scene::{Kind, Scene, Work};
use serde_json::json;

/// How often the same is measured at each step of a round: opening takes longer than measuring.
const REPEATS: usize = 3;

/// Contenders and what they open.
const CASES: [(&str, Kind, scene::Start); 5] = [
    ("ours", Kind::Streams, ours::streams),
    ("quinn", Kind::Streams, quinn_ends::streams),
    ("ours", Kind::Tunnels, ours::tunnels),
    ("ours", Kind::Connections, ours::connections),
    ("quinn", Kind::Connections, quinn_ends::connections),
];

/// Curves: processor time, round by round, for each number of things that are open.
type Curves = BTreeMap<Curve, BTreeMap<usize, Vec<Duration>>>;

/// What a curve is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Curve {
    work: Work,
    kind: Kind,
    contender: &'static str,
}

impl Curve {
    /// As it is called in tables and in the plot.
    fn name(self) -> String {
        format!(
            "{}, {}, {}",
            self.kind.name(self.work),
            self.work.name(),
            self.contender
        )
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::read(3);
    let most = option("--most").map_or(Ok(10_000), |most| most.parse())?;
    let counts: Vec<usize> = match arguments.quick {
        true => vec![2, 4],
        false => [10, 100, 1_000, 10_000]
            .into_iter()
            .filter(|&count| count <= most)
            .collect(),
    };
    let credentials = our_setup::credentials()?;
    let mut curves = Curves::new();
    for _ in 0..arguments.rounds {
        for (contender, kind, start) in CASES {
            if arguments.takes(contender) && arguments.wants(kind.name(Work::Message)) {
                let curve = |work| Curve { work, kind, contender };
                climb(
                    kind,
                    start,
                    &credentials,
                    &counts,
                    arguments.quick,
                    |work, count, time| {
                        let curve = curves.entry(curve(work)).or_default();
                        curve.entry(count).or_default().push(time);
                    },
                )
                .map_err(|error| format!("{contender}, {}: {error}", kind.name(Work::Message)))?;
            }
        }
    }
    let curves = medians(&curves);
    match arguments.json {
        true => print_json(&curves, arguments.rounds),
        false => print_curves(&curves, arguments.rounds),
    }
    match option("--svg") {
        Some(file) => plot::write(file.as_ref(), &curves),
        None => Ok(()),
    }
}

/// What stands behind an option.
fn option(name: &str) -> Option<String> {
    let mut arguments = std::env::args().skip(1);
    arguments.find(|argument| argument == name)?;
    arguments.next()
}

/// Opens more and more, and does the same work at each step.
fn climb(
    kind: Kind,
    start: scene::Start,
    credentials: &Credentials,
    counts: &[usize],
    quick: bool,
    mut tell: impl FnMut(Work, usize, Duration),
) -> Result<()> {
    let mut scene = Scene::start(kind, start, credentials)?;
    for &count in counts {
        scene.grow(count)?;
        for &work in Work::of(scene.kind) {
            // Every stream has been used before anything is measured.
            scene.work(work, count)?;
            let times = if quick { 2 * count } else { work.times() };
            let repeats = if quick { 1 } else { REPEATS };
            for _ in 0..repeats {
                tell(work, count, scene.work(work, times)?);
            }
        }
    }
    scene.end();
    Ok(())
}

// ----- output ------------------------------------------------------------------------------------------------------

/// Nanoseconds of a message or a byte, for each number of things that are open.
pub(crate) type Medians = BTreeMap<Curve, Vec<(usize, f64)>>;

fn medians(curves: &Curves) -> Medians {
    let of = |curve: &Curve, times: &Vec<Duration>| {
        let nanoseconds: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1e9).collect();
        median(&nanoseconds) / curve.work.units()
    };
    let curves = curves.iter();
    curves
        .map(|(curve, points)| {
            let points = points.iter();
            (
                *curve,
                points.map(|(count, times)| (*count, of(curve, times))).collect(),
            )
        })
        .collect()
}

fn print_json(curves: &Medians, rounds: usize) {
    for (curve, points) in curves {
        let first = points.first().map_or(f64::NAN, |(_, cost)| *cost);
        for (count, cost) in points {
            let line = json!({
                "case": curve.kind.name(curve.work), "contender": curve.contender, "unit": curve.work.unit(),
                "count": count, "cpu_ns": cost, "to_least": cost / first, "rounds": rounds,
            });
            println!("{line}");
        }
    }
}

fn print_curves(curves: &Medians, rounds: usize) {
    println!(
        "Processor time of all parties by what is open, medians of {rounds} rounds. A bar is as long as the cost, and | is where"
    );
    println!("it is for the least of them; 1.5 times that is the limit.");
    for (curve, points) in curves {
        println!("\n{}", curve.name());
        let first = points.first().map_or(f64::NAN, |(_, cost)| *cost);
        for (count, cost) in points {
            let ratio = cost / first;
            let cost = format!("{cost:.*} ns/{}", curve.work.decimals(), curve.work.unit());
            println!("  {count:>6}  {cost:>16}  {ratio:>5.2}x  {}", bar(ratio));
        }
    }
}

/// Twenty characters are the first value of the curve, sixty are the most.
fn bar(ratio: f64) -> String {
    let length = (ratio * 20.0).round().clamp(1.0, 60.0) as usize;
    (0..length).map(|at| if at == 19 { '|' } else { '#' }).collect()
}
