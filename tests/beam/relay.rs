//! The path through the `macula` command: one relay, and for each node one `macula expose` on its side and one
//! `macula forward` on the other's.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path as FilePath, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::journal::{Deadline, Journal, Log, Process};
use crate::path::Route;

/// For each event awaited while the path is set up.
pub(crate) const SETUP: Duration = Duration::from_secs(10);

/// Where the `macula` executable is: `MACULA_BIN`, else where cargo puts it next to this test.
pub(crate) fn binary() -> Result<PathBuf, String> {
    if let Some(path) = env::var_os("MACULA_BIN").map(PathBuf::from) {
        return if path.is_file() {
            Ok(path)
        } else {
            Err(format!("MACULA_BIN={} is no file", path.display()))
        };
    }
    let test = env::current_exe().map_err(|error| error.to_string())?;
    // target/PROFILE/deps/beam-HASH: the command of the same profile first.
    let profile = test
        .parent()
        .and_then(FilePath::parent)
        .ok_or("this test has no target directory")?;
    let target = profile.parent().ok_or("this test has no target directory")?;
    [profile.to_owned(), target.join("debug"), target.join("release")]
        .into_iter()
        .map(|dir| dir.join(format!("macula{}", env::consts::EXE_SUFFIX)))
        .find(|path| path.is_file())
        .ok_or_else(|| {
            format!(
                "no macula command under {}: run `cargo build -p macula-tokio --bin macula`",
                target.display()
            )
        })
}

/// The relay and its four clients.
#[derive(Debug)]
pub(crate) struct RelayPath {
    binary: PathBuf,
    routes: Vec<Route>,
    journal: Journal,
    cert: PathBuf,
    key: PathBuf,
    /// SHA-256 of the certificate, lower-case hex.
    pin: String,
    /// `127.0.0.1:0` until the first start; a restarted relay is given the port of the first.
    addr: String,
    relay: Option<Process>,
    relays_started: usize,
    clients: Vec<Process>,
    forwards: Vec<Arc<Log>>,
}

impl RelayPath {
    /// Prepares the relay's certificate, which is in files so that a restarted relay keeps its pin.
    pub(crate) fn new(
        binary: PathBuf,
        routes: Vec<Route>,
        dir: &FilePath,
        journal: &Journal,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()])?;
        let (cert_file, key_file) = (dir.join("relay.cert.pem"), dir.join("relay.key.pem"));
        fs::write(&cert_file, cert.pem())?;
        fs::write(&key_file, signing_key.serialize_pem())?;
        let pin = Sha256::digest(cert.der()).iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        Ok(Self {
            binary,
            routes,
            journal: journal.clone(),
            cert: cert_file,
            key: key_file,
            pin,
            addr: "127.0.0.1:0".to_owned(),
            relay: None,
            relays_started: 0,
            clients: Vec::new(),
            forwards: Vec::new(),
        })
    }

    /// Starts the relay and the clients, in an order in which every name is known before it is asked for.
    pub(crate) fn open(&mut self) -> Result<(), String> {
        self.start_relay()?;
        for route in self.routes.clone() {
            let to = route.to.to_string();
            let log = self.start_client("expose", route.node, &["--to", &to])?;
            event(&log, "identified", SETUP)?;
        }
        for route in self.routes.clone() {
            let listen = route.listen.to_string();
            let name = format!("{}-fwd", route.dialler);
            let log = self.start_client("forward", &name, &["--target", route.node, "--listen", &listen])?;
            let listening = event(&log, "listening", SETUP)?;
            if text(&listening, "addr")? != listen {
                return Err(format!("a forward told to listen on {listen} says {listening}"));
            }
            event(&log, "identified", SETUP)?;
            self.forwards.push(log);
        }
        Ok(())
    }

    /// Starts the relay, or a new one at the address and with the certificate of the one before.
    pub(crate) fn start_relay(&mut self) -> Result<(), String> {
        self.relays_started += 1;
        let log = self.journal.open(&format!("relay {}", self.relays_started));
        let mut command = self.command("relay");
        command
            .args(["--listen", &self.addr])
            .arg("--cert")
            .arg(&self.cert)
            .arg("--key")
            .arg(&self.key);
        self.relay = Some(Process::start(command, Arc::clone(&log), false)?);
        let addr = text(&event(&log, "listening", SETUP)?, "addr")?;
        if self.relays_started > 1 && addr != self.addr {
            return Err(format!("a relay told to listen on {} says {addr}", self.addr));
        }
        self.addr = addr;
        Ok(())
    }

    pub(crate) fn kill_relay(&mut self) -> Result<(), String> {
        let mut relay = self.relay.take().ok_or("no relay is running")?;
        relay
            .kill()
            .map(drop)
            .map_err(|error| format!("cannot kill the relay: {error}"))
    }

    pub(crate) fn signal_relay(&self, signal: &str) -> Result<(), String> {
        self.relay.as_ref().ok_or("no relay is running")?.signal(signal)
    }

    /// How many tunnels the forwards have opened.
    pub(crate) fn dials(&self) -> usize {
        let opened = |line: &str| parse(line).ok().filter(|event| event["event"] == "tunnel_open");
        self.forwards.iter().map(|log| log.all(0, opened).len()).sum()
    }

    /// Starts a command that uses this relay.
    pub(crate) fn start_client(
        &mut self,
        subcommand: &str,
        name: &str,
        arguments: &[&str],
    ) -> Result<Arc<Log>, String> {
        let log = self.journal.open(&format!("{subcommand} {name}"));
        let mut command = self.command(subcommand);
        command
            .args(["--relay", &self.addr, "--pin", &self.pin, "--name", name])
            .args(arguments);
        self.clients.push(Process::start(command, Arc::clone(&log), false)?);
        Ok(log)
    }

    /// Kills the client that was started so many clients after the first one.
    pub(crate) fn kill_client(&mut self, index: usize) -> Result<(), String> {
        let client = self.clients.get_mut(index).ok_or("no such client")?;
        client
            .kill()
            .map(drop)
            .map_err(|error| format!("cannot kill a client: {error}"))
    }

    fn command(&self, subcommand: &str) -> Command {
        let mut command = Command::new(&self.binary);
        command.args([subcommand, "--json"]);
        if env::var_os("RUST_LOG").is_none() {
            command.env("RUST_LOG", "info");
        }
        command
    }
}

/// Waits for an event. With `--json` every line of standard output has to be an object that names its event.
pub(crate) fn event(log: &Log, name: &str, within: Duration) -> Result<Value, String> {
    event_after(log, 0, name, within)
}

/// As [`event`], for events after a position.
pub(crate) fn event_after(log: &Log, from: usize, name: &str, within: Duration) -> Result<Value, String> {
    let pick = |line: &str| match parse(line) {
        Ok(event) if event["event"] == name => Some(Ok(event)),
        Ok(_) => None,
        Err(error) => Some(Err(error)),
    };
    log.wait(from, Deadline::within(within), pick)
        .map_err(|error| format!("no event \"{name}\" from {}: {error}", log.name()))?
}

pub(crate) fn parse(line: &str) -> Result<Value, String> {
    let value: Value =
        serde_json::from_str(line).map_err(|error| format!("not JSON on standard output: {line:?}: {error}"))?;
    if value["event"].is_string() {
        Ok(value)
    } else {
        Err(format!("no event in {line:?}"))
    }
}

pub(crate) fn text(event: &Value, field: &str) -> Result<String, String> {
    event[field]
        .as_str()
        .map(str::to_owned)
        .ok_or_else(|| format!("no text \"{field}\" in {event}"))
}
