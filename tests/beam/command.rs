//! A real BEAM node and `macula dist node` in one cluster, over the connections that BEAM nodes make by themselves.

use std::process::Command;

use crate::{
    SOON, WORK,
    cluster::{Single, can_run},
    journal::Process,
    path::Kind,
    relay::{self, event, event_after, text},
};

/// Messages sent one behind the other.
const FLOOD: usize = 1000;

struct World {
    beam: Single,
    /// The name of the command's node.
    name: String,
}

impl World {
    fn start() -> Self {
        let beam = Single::start();
        let name = format!("rust@{}", beam.other.ip());
        Self { beam, name }
    }

    fn command(&self, cookie: &str, arguments: &[&str]) -> Process {
        let binary = self.beam.journal.expect(relay::binary(), "the command");
        let mut command = Command::new(binary);
        command
            .args(["dist", "node", "--json", "--carrier", "tcp", "--name", &self.name])
            .args(arguments)
            .env("MACULA_COOKIE", cookie);
        let log = self.beam.journal.open(&format!("macula {}", arguments.join(" ")));
        self.beam
            .journal
            .expect(Process::start(command, log, false), "it starts")
    }

    fn ask(&mut self, command: &str, arguments: &str) -> String {
        let name = self.name.clone();
        self.beam.node.ask(&format!("{command} {name} {arguments}"), WORK)
    }
}

#[test]
fn a_beam_node_pings_the_command_and_talks_to_it() {
    if !can_run(Kind::Relay) {
        return;
    }
    let mut world = World::start();
    let cookie = world.beam.cookie.clone();
    let listen = world.beam.other.to_string();
    let command = world.command(&cookie, &["--listen", &listen, "--echo"]);
    let expect = |name: &str| event(&command.log, name, SOON);
    let listening = world.beam.journal.expect(expect("listening"), "it listens");
    assert_eq!(listening["addr"], listen.as_str());

    let mark = world.beam.node.mark();
    assert_eq!(world.ask("ping", ""), "pong");
    world.beam.node.wait_event(mark, "up", SOON);
    let connected = world.beam.journal.expect(expect("connected"), "a connection");
    assert_eq!(connected["peer"], world.beam.node.name.as_str());

    assert_eq!(world.ask("echoed", "macula"), "echoed");
    let message = world.beam.journal.expect(expect("message"), "a message");
    let (from, term) = (text(&message, "from").unwrap(), text(&message, "term").unwrap());
    assert_eq!(message["to"], "macula");
    assert!(from.starts_with(&format!("<{}.", world.beam.node.name)), "{from}");
    let shown = "#{list => [1,2.5,\"text\"],<<\"bytes\">> => 1180591620717411303424}";
    assert_eq!(term, format!("{{{from},hello,{shown}}}"));
    let call = world.beam.journal.expect(expect("call"), "a call");
    assert_eq!((&call["term"], &call["to"]), (&message["term"], &message["to"]));

    let mark = command.log.position();
    world.ask("flood", &format!("macula {FLOOD}"));
    let flood = FLOOD.to_string();
    let last = |line: &str| relay::parse(line).ok().filter(|event| event["term"] == flood.as_str());
    let deadline = crate::journal::Deadline::within(WORK);
    let told = command.log.wait(mark, deadline, last);
    world.beam.journal.expect(told, "the last of many messages");
    let terms = command.log.all(mark, |line| {
        let event = relay::parse(line).ok()?;
        event["term"].as_str()?.parse::<usize>().ok()
    });
    assert!(terms.into_iter().eq(1..=FLOOD), "in order, none missing");

    let mark = world.beam.node.mark();
    world.beam.journal.expect(command.signal("TERM"), "a signal");
    world.beam.node.wait_event(mark, "down", SOON);
    let over = event(&command.log, "disconnected", SOON);
    assert_eq!(world.beam.journal.expect(over, "the end")["reason"], "closed");
}

#[test]
fn the_command_dials_a_beam_node_and_again_when_it_is_cut_off() {
    if !can_run(Kind::Relay) {
        return;
    }
    let mut world = World::start();
    let to = format!("{}={}", world.beam.node.name, world.beam.address);

    let stranger = world.command("another", &["--connect", &to]);
    let refused = event(&stranger.log, "error", SOON);
    let refused = world.beam.journal.expect(refused, "a refusal");
    assert_eq!(refused["kind"], "cookie", "{refused}");
    let message = text(&refused, "message").unwrap();
    assert!(message.contains("cookies differ"), "{message}");
    drop(stranger);

    let mark = world.beam.node.mark();
    let cookie = world.beam.cookie.clone();
    let command = world.command(&cookie, &["--connect", &to, "--echo"]);
    world.beam.node.wait_event(mark, "up", SOON);
    assert_eq!(world.ask("echoed", "macula"), "echoed");

    let (mark, told) = (world.beam.node.mark(), command.log.position());
    assert_eq!(world.ask("disconnect", ""), "true");
    world.beam.node.wait_event(mark, "down", SOON);
    let again = event_after(&command.log, told, "connected", SOON);
    world.beam.journal.expect(again, "another connection");
    assert_eq!(world.ask("echoed", "macula"), "echoed");
}
