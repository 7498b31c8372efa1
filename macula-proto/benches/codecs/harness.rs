//! Taking turns, and counting.

use std::{
    alloc::System,
    hint::black_box,
    time::{Duration, Instant},
};

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

use crate::arguments::Arguments;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// How long one contender's turn is: shorter than what a busy machine gives to another process in between, so that most turns
/// are not interrupted.
const TURN: Duration = Duration::from_micros(500);

/// One of those compared: does the same thing so many times.
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    run: Box<dyn FnMut(u64)>,
}

impl Contender {
    /// What `work` answers is dropped within the time that is measured.
    pub(crate) fn new<T>(name: &'static str, mut work: impl FnMut() -> T + 'static) -> Self {
        let run = Box::new(move |times| {
            for _ in 0..times {
                black_box(work());
            }
        });
        Self { name, run }
    }
}

/// One thing that is done, by everybody who can; ours comes first.
pub(crate) struct Line {
    pub(crate) operation: &'static str,
    pub(crate) what: String,
    pub(crate) contenders: Vec<Contender>,
}

impl Line {
    pub(crate) fn name(&self) -> String {
        format!("{} {}", self.operation, self.what)
    }
}

/// What came out for one contender.
pub(crate) struct Figures {
    pub(crate) name: &'static str,
    pub(crate) nanoseconds: f64,
    pub(crate) allocations: f64,
}

pub(crate) struct Measured {
    pub(crate) operation: &'static str,
    pub(crate) what: String,
    pub(crate) figures: Vec<Figures>,
}

impl Measured {
    pub(crate) fn ours(&self) -> &Figures {
        &self.figures[0]
    }

    pub(crate) fn fastest_other(&self) -> Option<&Figures> {
        let others = self.figures.iter().skip(1);
        others.min_by(|a, b| a.nanoseconds.total_cmp(&b.nanoseconds))
    }
}

pub(crate) fn measure(lines: Vec<Line>, arguments: &Arguments) -> Vec<Measured> {
    let measure = |line: Line| {
        let Line {
            operation,
            what,
            mut contenders,
        } = line;
        let figures = if arguments.quick {
            contenders.iter_mut().for_each(|contender| (contender.run)(1));
            contenders
                .iter()
                .map(|contender| Figures {
                    name: contender.name,
                    nanoseconds: 0.0,
                    allocations: 0.0,
                })
                .collect()
        } else {
            turns(&mut contenders, arguments.rounds)
        };
        Measured {
            operation,
            what,
            figures,
        }
    };
    lines.into_iter().map(measure).collect()
}

fn turns(contenders: &mut [Contender], rounds: usize) -> Vec<Figures> {
    let calls: Vec<u64> = contenders.iter_mut().map(calls_of_a_turn).collect();
    let mut times = vec![Vec::with_capacity(rounds); contenders.len()];
    for _ in 0..rounds {
        for ((contender, &calls), times) in contenders.iter_mut().zip(&calls).zip(&mut times) {
            times.push(time(contender, calls).as_secs_f64() * 1e9 / calls as f64);
        }
    }
    contenders
        .iter_mut()
        .zip(&mut times)
        .map(|(contender, times)| Figures {
            name: contender.name,
            nanoseconds: median(times),
            allocations: allocations(contender),
        })
        .collect()
}

/// Warms up, and finds out how often the work fits into a turn.
fn calls_of_a_turn(contender: &mut Contender) -> u64 {
    let mut calls = 1;
    loop {
        let took = time(contender, calls);
        if took * 4 > TURN {
            let fit = calls as f64 * TURN.as_secs_f64() / took.as_secs_f64();
            return (fit as u64).max(1);
        }
        calls *= 2;
    }
}

#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
fn time(contender: &mut Contender, calls: u64) -> Duration {
    let started = Instant::now();
    (contender.run)(calls);
    started.elapsed()
}

/// Calls of the allocator for one call of the work: allocations, and those that move or grow one.
fn allocations(contender: &mut Contender) -> f64 {
    const CALLS: u64 = 64;
    let region = Region::new(ALLOCATOR);
    (contender.run)(CALLS);
    let change = region.change();
    (change.allocations + change.reallocations) as f64 / CALLS as f64
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let (upper, lower) = (values[values.len() / 2], values[(values.len() - 1) / 2]);
    f64::midpoint(lower, upper)
}
