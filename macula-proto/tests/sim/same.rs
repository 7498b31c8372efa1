//! The same seed gives the same trace.

use macula_proto::sim::{Chance, Detail, Fault, Link, Trace};

use crate::kit::{Pair, ms, secs};

fn bad() -> Link {
    Link {
        jitter: ms(10),
        loss: Chance::percent(2.0),
        reorder: Chance::percent(2.0),
        duplicate: Chance::percent(1.0),
        corrupt: Chance::percent(1.0),
        ..Link::with_delay(ms(20))
    }
}

fn run(seed: u64, detail: Detail) -> Pair {
    let mut pair = Pair::connected(seed, bad());
    pair.world.trace_mut().set_detail(detail);
    pair.transfer(100_000);
    let stall = Fault::Stall {
        host: pair.server,
        time: ms(300),
    };
    pair.world.apply(stall);
    pair.transfer(50_000);
    pair
}

fn difference(a: &Trace, b: &Trace) -> Option<String> {
    a.difference(b).map(|difference| difference.to_string())
}

#[test]
fn runs_with_one_seed_are_equal_to_the_byte() {
    for seed in 0..4 {
        let (first, second) = (run(seed, Detail::All), run(seed, Detail::All));
        assert_eq!(difference(first.world.trace(), second.world.trace()), None);
        assert_eq!(first.world.trace().to_string(), second.world.trace().to_string());
        assert!(first.world.trace().len() > 200);
        assert_eq!(first.world.stats(), second.world.stats());
    }
}

#[test]
fn how_much_is_kept_does_not_matter() {
    let all = run(3, Detail::All);
    for detail in [Detail::Digest, Detail::Last(5)] {
        let less = run(3, detail);
        // Events are summed up in words that are kept or not.
        assert_eq!(less.world.trace().len(), all.world.trace().len());
        assert_eq!(less.world.trace().digest(), all.world.trace().digest());
    }
    assert_eq!(run(3, Detail::Last(5)).world.trace().records().count(), 5);
}

#[test]
fn other_seeds_differ_and_the_difference_is_shown() {
    let (first, second) = (run(1, Detail::All), run(2, Detail::All));
    let shown = difference(first.world.trace(), second.world.trace()).unwrap();
    assert!(shown.starts_with("the traces part at record 0, 0ns"), "{shown}");
}

#[test]
fn where_two_runs_part_is_found() {
    let diverging = |extra: bool, detail| {
        let mut pair = Pair::connected(1, Link::default());
        pair.world.trace_mut().set_detail(detail);
        pair.transfer(900_000);
        if extra {
            let conn = pair.conns[0].unwrap();
            let ping = |endpoint: &mut macula_proto::Endpoint, _| endpoint.quic().connection(conn).unwrap().ping();
            pair.world.with(pair.client, ping).unwrap();
        }
        pair.transfer(900_000);
        pair
    };
    let (a, b) = (diverging(false, Detail::All), diverging(true, Detail::All));
    let difference = a.world.trace().difference(b.world.trace()).unwrap();
    assert!(difference.number > 1000);
    let text = difference.to_string();
    assert!(text.lines().count() > 10, "{text}");
    assert!(text.contains("\n- ") && text.contains("\n+ "), "{text}");
    // Without records the time is still found, if not to the record.
    let (a, b) = (diverging(false, Detail::Digest), diverging(true, Detail::Digest));
    let rough = a.world.trace().difference(b.world.trace()).unwrap();
    assert!(
        rough.number <= difference.number && rough.number + 1024 > difference.number,
        "{rough} {difference}"
    );
}

#[test]
fn one_link_does_not_disturb_another() {
    let run = |jitter_back| {
        let mut pair = Pair::new(5, bad(), Default::default());
        let back = Link {
            jitter: jitter_back,
            ..Link::with_delay(ms(20))
        };
        pair.world.set_link(pair.server, pair.client, back);
        pair.dial();
        pair.world.trace_mut().set_detail(Detail::All);
        pair.run_for(ms(30));
        pair.world.trace().to_string()
    };
    // The first flight to the server is the same, whatever the way back is like.
    assert_eq!(run(ms(0)), run(ms(7)));
}

#[test]
fn draws_for_a_purpose_are_the_same_in_every_run() {
    let world = macula_proto::sim::World::new(1);
    let first: [u8; 16] = world.rng("load").bytes();
    assert_eq!(first, macula_proto::sim::World::new(1).rng("load").bytes());
    assert_ne!(first, world.rng("faults").bytes());
    assert_ne!(first, macula_proto::sim::World::new(2).rng("load").bytes());
    assert_eq!(
        world.credentials("a").pin(),
        macula_proto::sim::World::new(1).credentials("a").pin()
    );
}

#[test]
fn a_trace_is_written_as_qlog() {
    let pair = run(1, Detail::All);
    let mut out = Vec::new();
    pair.world.write_qlog(&mut out).unwrap();
    let records: Vec<serde_json::Value> = out
        .split(|byte| *byte == 0x1e)
        .filter(|record| !record.is_empty())
        .map(|record| serde_json::from_slice(record).unwrap())
        .collect();
    assert_eq!(records[0]["qlog_format"], "JSON-SEQ");
    assert_eq!(records[0]["title"], "seed 1");
    assert_eq!(records.len() as u64, pair.world.trace().records().count() as u64 + 1);
    let named = |name: &str| records.iter().filter(|record| record["name"] == name).count();
    assert!(named("transport:datagrams_sent") > 50);
    assert!(named("transport:datagrams_received") > 50);
    assert!(named("transport:datagram_dropped") > 1);
    assert_eq!(named("simulation:fault"), 1);
    assert!(named("simulation:event") > 5);
    let times: Vec<f64> = records[1..]
        .iter()
        .map(|record| record["time"].as_f64().unwrap())
        .collect();
    assert!(times.is_sorted());
    assert_eq!(
        records[1]["group_id"].as_str().map(|group| group.starts_with('h')),
        Some(true)
    );
    assert!(secs(1).as_millis() as f64 > 0.0);
}
