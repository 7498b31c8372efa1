//! The fuzz targets on their corpus, and on damaged copies of it: a fuzzer's first minutes, the same in every run.

#[path = "../common/mod.rs"]
mod common;
mod seeds;

use std::{
    fs, panic,
    path::{Path, PathBuf},
};

use macula_fuzz::{TARGETS, Target};
use macula_proto::Rng;

/// Damaged copies made of all files of a target together, at least one of each: codecs are quick, a world takes milliseconds.
fn copies(name: &str) -> usize {
    match name {
        "control" | "cbor" | "msgpack" | "rpc" | "dist" => 320_000,
        "etf" => 840_000,
        "world" => 1_000,
        "frame" | "identity" | "peering" => 25_000,
        _ => 60_000,
    }
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(name)
}

/// The files of a target's corpus, in order of their names.
fn corpus(name: &str) -> Vec<(String, Vec<u8>)> {
    let folder = folder(name);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = entries
        .map(|entry| {
            let entry = entry.expect("an entry");
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, fs::read(entry.path()).expect("a file"))
        })
        .collect();
    files.sort();
    assert!(files.len() >= 10, "{name} has too small a corpus");
    files
}

/// Runs a target, and says on what it failed.
fn run(target: Target, name: &str, data: &[u8]) {
    let outcome = panic::catch_unwind(|| target(data));
    assert!(outcome.is_ok(), "{name} fails on {}", data.escape_ascii());
}

fn replay(name: &str) {
    let (_, target) = *TARGETS.iter().find(|(target, _)| *target == name).expect("a target");
    let files = corpus(name);
    let mut rng = Rng::from_seed(0x6d61_6375_6c61);
    for (file, data) in &files {
        run(target, &format!("{name}/{file}"), data);
        for _ in 0..copies(name).div_ceil(files.len()) {
            let (_, other) = &files[rng.below(files.len() as u64) as usize];
            run(target, name, &damaged(data, other, &mut rng));
        }
    }
}

/// A copy with one to four changes, each of a kind that parsers stumble over.
fn damaged(data: &[u8], other: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut copy = data.to_vec();
    for _ in 0..=rng.below(4) {
        let at = rng.below(copy.len() as u64 + 1) as usize;
        let [byte] = rng.bytes();
        match rng.below(6) {
            0 => copy.truncate(at),
            1 => copy.insert(at, byte),
            2 => drop(copy.splice(at.min(copy.len()).., other.iter().copied())),
            3 if at < copy.len() => drop(copy.remove(at)),
            4 if at < copy.len() => copy[at] ^= 1 << (byte & 7),
            _ if at < copy.len() => copy[at] = byte,
            _ => {}
        }
    }
    copy
}

macro_rules! targets {
    ($($name:ident)+) => {
        $(
            #[test]
            fn $name() {
                replay(stringify!($name));
            }
        )+

        const REPLAYED: &[&str] = &[$(stringify!($name)),+];
    };
}

targets! {
    control cbor msgpack relay_session rpc etf dist
    frame identity peering gate
    session supervisor tunnels
    rpc_stream rpc_session rpc_router
    dist_connect dist_link dist_node
    world
}

#[test]
fn every_target_is_replayed() {
    let names: Vec<_> = TARGETS.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, REPLAYED);
    for name in names {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../fuzz/fuzz_targets/{name}.rs"));
        assert!(program.exists(), "{name} has no program");
    }
}

/// What is kept in the repository stays small.
#[test]
fn the_corpus_is_small() {
    let sizes = REPLAYED
        .iter()
        .flat_map(|name| corpus(name))
        .map(|(_, data)| data.len());
    assert!(sizes.sum::<usize>() < 2_000_000);
}
