//! `macula bench` from outside: its rows, for people and for programs, and its ways to end. Speeds are not looked at.

mod command;

use std::process::{Command, Output};

use command::{Macula, text};
use serde_json::Value;

const ROWS: [(&str, &str); 8] = [
    ("direct-bulk", "bytes"),
    ("direct-trips", "trips"),
    ("relay-bulk", "bytes"),
    ("relay-trips", "trips"),
    ("rpc-chunks", "chunks"),
    ("rpc-blocks", "chunks"),
    ("rpc-calls", "calls"),
    ("peering", "handshakes"),
];

fn bench(line: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_macula"))
        .arg("bench")
        .args(line.split_whitespace())
        .env_remove("RUST_LOG")
        .output()
        .expect("the command starts")
}

fn number(event: &Value, field: &str) -> f64 {
    let number = event[field].as_f64();
    number.unwrap_or_else(|| panic!("no number {field} in {event}"))
}

/// What every row has, whatever it measures.
fn check(event: &Value, row: &str, unit: &str) {
    assert_eq!((text(event, "event"), text(event, "row")), ("row", row));
    assert_eq!(text(event, "unit"), unit, "{row}");
    let (count, seconds) = (number(event, "count"), number(event, "seconds"));
    assert!(count >= 1.0 && seconds >= 0.05, "{event}");
    let rate = number(event, "per_second");
    assert!((rate * seconds / count - 1.0).abs() < 0.01, "{event}");
    if cfg!(unix) {
        assert!(number(event, "cpu_seconds") > 0.0, "{event}");
    }
    if unit == "trips" {
        let times = ["p50_us", "p99_us", "max_us"].map(|field| number(event, field));
        assert!(times[0] > 0.0 && times.is_sorted(), "{event}");
    } else {
        assert_eq!(event.get("p50_us"), None, "{event}");
    }
}

#[test]
fn every_row_is_measured_in_turn() {
    let bench = Macula::start("bench --seconds 0.05");
    let setting = bench.next();
    assert_eq!(text(&setting, "event"), "setting");
    assert_eq!((&setting["datagrams"], &setting["relay"]), (&1452.into(), &Value::Null));
    for (row, unit) in ROWS {
        check(&bench.next(), row, unit);
    }
    assert_eq!(bench.end(), Some(0));
}

#[test]
fn rows_for_people_are_those_asked_for() {
    let output = bench("--seconds 0.05 --only rpc-calls,direct-bulk --only direct-trips --datagrams 9000");
    assert_eq!(output.status.code(), Some(0));
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    let mut lines = stdout.lines();
    let head = lines.next().expect("a head");
    assert!(
        head.starts_with("macula ") && head.ends_with("datagrams up to 9000 bytes"),
        "{head}"
    );
    assert_eq!(lines.next(), Some(""));
    let rows: Vec<_> = lines.map(|line| line.split_whitespace().next()).collect();
    assert_eq!(rows, [Some("direct-bulk"), Some("direct-trips"), Some("rpc-calls")]);
    assert!(
        stdout.contains(" MB/s ") && stdout.contains("p99 ") && stdout.contains(" calls/s "),
        "{stdout}"
    );
    assert_eq!(stderr.contains("debug build"), cfg!(debug_assertions), "{stderr}");
}

#[test]
fn tunnels_go_through_the_relay_that_is_given() {
    let relay = Macula::start("relay --self-signed --listen 127.0.0.1:0 --no-admin");
    let pin = text(&relay.wait("certificate"), "pin").to_owned();
    let at = text(&relay.wait("listening"), "addr").to_owned();
    let bench = Macula::start(&format!(
        "bench --seconds 0.05 --only relay-trips,relay-bulk --relay quic://{at} --pin {pin} --name probe"
    ));
    assert_eq!(text(&bench.next(), "relay"), at);
    check(&bench.next(), "relay-bulk", "bytes");
    check(&bench.next(), "relay-trips", "trips");
    assert_eq!(bench.end(), Some(0));
    let mut names = [relay.wait("identified"), relay.wait("identified")].map(|event| text(&event, "name").to_owned());
    names.sort();
    assert_eq!(names, ["probe-1", "probe-2"]);
    let opened = relay.wait("tunnel_open");
    assert_eq!(
        (text(&opened, "source"), text(&opened, "target")),
        ("probe-1", "probe-2")
    );
    relay.signal("TERM");
    assert_eq!(relay.end(), Some(0));
}

#[test]
fn it_gives_up_and_can_be_interrupted() {
    let output = bench("--seconds 30 --only direct-bulk --timeout 0.2 --json");
    assert_eq!(output.status.code(), Some(3));
    let stdout = String::from_utf8_lossy(&output.stdout);
    let last: Value = serde_json::from_str(stdout.lines().last().expect("a line")).expect("JSON");
    assert_eq!((text(&last, "event"), text(&last, "kind")), ("error", "timeout"));
    // Nobody is there: a socket that is bound and never read.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let at = silent.local_addr().expect("an address");
    let output = bench(&format!("--only relay-trips --relay {at} --insecure --timeout 0.5"));
    assert_eq!(output.status.code(), Some(3));
    let bench = Macula::start("bench --seconds 30 --only direct-bulk");
    bench.wait("setting");
    bench.signal("INT");
    assert_eq!(text(&bench.wait("error"), "kind"), "interrupted");
    assert_eq!(bench.end(), Some(1));
}
