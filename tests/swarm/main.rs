//! Worlds drawn from seeds: a fixed set of them for every run of the tests. `bin/swarm.rs` runs as many as wanted.

mod crowd;
mod run;

use std::{
    process::Command,
    time::{Duration, Instant},
};

use crowd::Crowd;
use macula_proto::sim::{Detail, DropReason};
use run::{Options, Outcome};

/// Enough to meet everything that is drawn, few enough for every run of the tests.
const SEEDS: u64 = 24;
const ENOUGH: Duration = Duration::from_secs(45);
/// Set in a process that only runs one seed, and prints what became of it.
const CHILD: &str = "MACULA_SWARM_SEED";

fn options(detail: Detail) -> Options {
    Options { seconds: 60, detail }
}

fn run(seed: u64) -> Outcome {
    run::count_errors();
    let (outcome, _) = run::run(seed, options(Detail::Digest));
    if let Some(failure) = &outcome.failure {
        panic!(
            "seed {seed}: {failure}\nagain: cargo run --release -p macula-tests --features swarm --bin swarm -- --seed {seed} --seconds 60"
        );
    }
    outcome
}

#[test]
fn seeds_that_found_faults_pass() {
    for seed in [22, 28, 157, 1389, 1502, 2376] {
        run(seed);
    }
}

#[test]
fn a_fixed_set_of_seeds_passes_and_each_is_the_same_twice() {
    let begin = Instant::now();
    let mut simulated = Duration::ZERO;
    let mut done = 0;
    for seed in 1..=SEEDS {
        let first = run(seed);
        simulated += first.simulated;
        done += 1;
        // A few in full on a slow machine, the rest as far as time allows.
        if seed > 6 && begin.elapsed() > ENOUGH {
            break;
        }
        if seed.is_multiple_of(3) {
            let second = run(seed);
            simulated += second.simulated;
            assert_eq!(
                (first.digest, first.records),
                (second.digest, second.records),
                "seed {seed}"
            );
        }
    }
    let wall = begin.elapsed().as_secs_f64();
    println!(
        "{done} seeds, {} simulated seconds, {:.0} a second",
        simulated.as_secs(),
        simulated.as_secs_f64() / wall
    );
}

#[test]
fn other_processes_see_the_same() {
    let child = |seed: u64| {
        let this = std::env::current_exe().unwrap();
        let args = ["child", "--exact", "--nocapture", "--ignored"];
        let output = Command::new(this)
            .args(args)
            .env(CHILD, seed.to_string())
            .output()
            .unwrap();
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        let line = text
            .lines()
            .find_map(|line| line.split_once("digest "))
            .expect("a digest");
        line.1.to_owned()
    };
    for seed in [2, 5] {
        let own = run(seed);
        let own = format!("{:032x} {}", own.digest, own.records);
        assert_eq!(child(seed), own);
        assert_eq!(child(seed), own);
    }
}

#[test]
#[ignore = "run by the test above, in a process of its own"]
fn child() {
    if let Ok(seed) = std::env::var(CHILD) {
        let outcome = run(seed.parse().unwrap());
        println!("digest {:032x} {}", outcome.digest, outcome.records);
    }
}

// ----- many ----------------------------------------------------------------------------------------------------------

/// So many endpoints through one relay with 1 % loss, each exchanging data with another.
fn crowd(count: usize, seconds: u64) {
    let begin = Instant::now();
    let mut crowd = Crowd::new(7, count);
    crowd.link();
    let linked = crowd.world.elapsed();
    crowd.talk(Duration::from_secs(seconds));
    assert_eq!(crowd.silent(), 0);
    assert_eq!(crowd.received(), count as u64 * seconds * 1024);
    let stats = crowd.stats();
    let lost = stats.dropped_for(DropReason::Lost) as f64 / stats.sent as f64;
    assert!((0.005..0.015).contains(&lost), "{lost}");
    println!(
        "{count} endpoints: linked after {linked:?}, {:.0} simulated seconds in {:.1} s, {} datagrams",
        crowd.world.elapsed().as_secs_f64(),
        begin.elapsed().as_secs_f64(),
        stats.sent
    );
}

#[test]
fn a_hundred_endpoints_talk_through_one_relay() {
    crowd(100, 5);
}

#[test]
fn a_thousand_endpoints_talk_through_one_relay() {
    crowd(1000, 10);
}
