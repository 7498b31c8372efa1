//! A relay in a process of its own.

use std::{
    env,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::Value;

use crate::memory::Memory;

/// A `macula relay` on a free port of loopback. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Relay {
    process: Child,
    pub(crate) addr: String,
    /// SHA-256 of its certificate, in hex.
    pub(crate) pin: String,
}

impl Relay {
    pub(crate) fn start() -> Self {
        let mut process = Command::new(binary())
            .args([
                "relay",
                "--json",
                "--listen",
                "127.0.0.1:0",
                "--self-signed",
                "--no-admin",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the macula command starts");
        let mut lines = BufReader::new(process.stdout.take().expect("it is piped")).lines();
        let (mut pin, mut addr) = (None, None);
        while pin.is_none() || addr.is_none() {
            let line = lines.next().expect("the relay runs").expect("its output is text");
            let event: Value = serde_json::from_str(&line).expect("every line is JSON");
            match event["event"].as_str() {
                Some("certificate") => pin = event["pin"].as_str().map(str::to_owned),
                Some("listening") => addr = event["addr"].as_str().map(str::to_owned),
                _ => {}
            }
        }
        // Read on, or the relay stops when the pipe is full.
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            process,
            addr: addr.expect("it listens"),
            pin: pin.expect("it has a certificate"),
        }
    }

    pub(crate) fn memory(&self) -> Memory {
        Memory::of(self.process.id())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Where the `macula` executable is: `MACULA_BIN`, else where cargo puts it next to this test.
fn binary() -> PathBuf {
    if let Some(path) = env::var_os("MACULA_BIN") {
        return path.into();
    }
    let test = env::current_exe().expect("this test is a file");
    // target/PROFILE/deps/scale-HASH
    let profile = test
        .parent()
        .and_then(Path::parent)
        .expect("it is in a target directory");
    let path = profile.join(format!("macula{}", env::consts::EXE_SUFFIX));
    assert!(
        path.is_file(),
        "no {}: run `cargo build -p macula-tokio --bin macula`",
        path.display()
    );
    path
}
