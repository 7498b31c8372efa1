//! The sessions in the README and in `docs/`, as a reader would type them.
//!
//! A block marked `console` is a session: `HOST$ COMMAND` starts a command, a line behind an Erlang prompt is typed into the
//! last one, and every other line has to come out of it, in this order, with other lines in between if need be and `…`
//! standing for anything. Relays, nodes and BEAM nodes stay until the page ends and then have to end well; other commands
//! have to succeed. TOML blocks that begin with the name of a file are that file.
//!
//! Whatever differs from the page, since all hosts are this machine and others use its ports too, is in [`Stage::adapt`].
//! `curl`, which not every machine has, and the web server are played by the test.

#![cfg(unix)]

mod page;
mod stage;

use std::{env, net::TcpListener, process::Command};

use page::Step;
use stage::Stage;

#[test]
fn the_readme_reaches_a_service_through_a_relay() {
    play("README.md", 4);
}

#[test]
fn the_relay_page_runs_a_relay() {
    if has("openssl", &["version"]) {
        play("docs/relay.md", 6);
    }
}

#[test]
fn the_peering_page_lets_two_nodes_meet() {
    play("docs/peering.md", 3);
}

#[test]
fn the_calls_page_serves_and_calls() {
    play("docs/rpc.md", 9);
}

#[test]
fn the_erlang_page_is_a_node() {
    play("docs/dist.md", 3);
}

#[test]
fn the_beam_page_makes_a_cluster() {
    let aliases = TcpListener::bind("127.1.2.3:0").is_ok();
    if has("erl", &["-noshell", "-eval", "halt(0)."]) && (aliases || skip("addresses in 127.0.0.0/8 cannot be used")) {
        play("docs/beam.md", 11);
    }
}

/// Plays all sessions of a page, which start so many commands.
fn play(path: &str, commands: usize) {
    let text = page::read(path);
    let mut stage = Stage::new();
    for (name, content) in page::files(&text) {
        stage.write(name, &content);
    }
    let steps = page::sessions(&text);
    let started = steps.iter().filter(|step| matches!(step, Step::Start { .. })).count();
    assert_eq!(started, commands, "commands on {path}");
    for step in steps {
        match step {
            Step::Start { host, command } => stage.start(&host, &command),
            Step::Type(line) => stage.type_in(&line),
            Step::Expect(line) => stage.expect(&line),
        }
    }
    stage.end();
}

fn has(program: &str, arguments: &[&str]) -> bool {
    let found = Command::new(program).args(arguments).output();
    found.is_ok_and(|output| output.status.success()) || skip(&format!("{program} not found"))
}

/// Says so even when the test output is captured, or fails where nothing may be missing.
fn skip(missing: &str) -> bool {
    use std::io::Write as _;
    assert!(
        env::var_os("MACULA_REQUIRE_BEAM").is_none_or(|value| value != "1"),
        "{missing}"
    );
    let _ = writeln!(std::io::stderr(), "\nSKIPPED: {missing}");
    false
}
