//! The command line from outside: what is refused, what help teaches, what comes out where.

use std::{
    fs,
    net::TcpListener,
    process::{Command, Output, Stdio},
};

fn macula(line: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_macula"))
        .args(line)
        .env_remove("RUST_LOG")
        .env_remove("XDG_RUNTIME_DIR")
        .output()
        .expect("the command starts")
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("text")
}

#[test]
fn usage_errors_exit_with_2_and_say_what() {
    let pin = "ab".repeat(32);
    let node = "--relay r --name n";
    let table = [
        ("", "Usage: macula"),
        ("dance", "unrecognized subcommand 'dance'"),
        ("relay", "--cert and --key, or --self-signed"),
        ("relay --cert c.pem", "--key <PEM>"),
        ("relay --key k.pem", "--cert <PEM>"),
        ("relay --self-signed --cert c --key k", "cannot be used with"),
        ("relay --self-signed --listen host:x", "\"x\" is not a port"),
        ("relay --self-signed --listen http://h:1", "unknown scheme \"http\""),
        (
            "relay --self-signed --takeover maybe",
            "[possible values: replace, refuse]",
        ),
        ("relay --self-signed --max-tunnels-per-node 0", "must be at least 1"),
        ("relay --self-signed --sockets 0", "from 1 to 64"),
        ("relay --self-signed --sockets 2", "more than one need --no-router"),
        ("relay --self-signed --spin 1ms", "from 0 to 1000"),
        ("relay --self-signed --max-rate-per-node fast", "is not a size"),
        ("relay --self-signed --max-handshakes -1", "unexpected argument"),
        ("relay --self-signed --drain-timeout soon", "is not a time"),
        ("relay --self-signed --metrics 9100", "no port in \"9100\""),
        ("relay --self-signed --admin a --no-admin", "cannot be used with"),
        ("relay --config /nonexistent/relay.toml", "/nonexistent/relay.toml: "),
        (
            "relay --self-signed --access /nonexistent/access.toml --listen 127.0.0.1:0",
            "/nonexistent/access.toml: ",
        ),
        ("expose --name n --to h:1", "--relay <HOST[:PORT]>"),
        ("expose --relay r --to h:1", "--name <NAME>"),
        ("expose NODE", "--to <HOST:PORT>"),
        ("expose NODE --to host", "no port in \"host\""),
        ("expose NODE --to h:1 --pin abc", "a pin has 64 hex digits, not 3"),
        ("expose NODE --to h:1 --pin PIN --insecure", "cannot be used with"),
        ("expose NODE --to h:1 --ca f --pin PIN", "cannot be used with"),
        ("expose NODE --to h:1 --ca f --insecure", "cannot be used with"),
        ("expose NODE --to h:1 --client-cert f", "--client-key <PEM>"),
        ("expose NODE --to h:1 --idle 0", "must be more than 0"),
        ("expose NODE --to h:1 --max-tunnels 0", "must be at least 1"),
        (
            "expose NODE --to h:1 --encoding json",
            "[possible values: auto, msgpack, cbor]",
        ),
        ("forward NODE --listen h:1", "--target <NAME>"),
        ("forward NODE --target t", "--listen <HOST:PORT>"),
        ("forward NODE --target t --listen [::1", "no closing bracket"),
        ("beam", "--name <NODE>"),
        ("beam --relay r --name a@127.1.0.1", "--peer <NODE[=NAME]>"),
        ("beam --name a@127.1.0.1 --peer b@127.1.0.2", "--relay <HOST[:PORT]>"),
        ("beam --relay r --name a --peer b@127.1.0.2", "no host in \"a\""),
        (
            "beam --relay r --name a@127.1.0.1 --peer b@192.0.2.1",
            "\"192.0.2.1\" is not a loopback address",
        ),
        (
            "beam --relay r --name a@127.0.0.1 --peer b@127.1.0.2",
            "127.0.0.1 is where nodes look for their EPMD",
        ),
        (
            "beam --relay r --name a@127.1.0.1 --peer b@127.1.0.1",
            "two nodes at 127.1.0.1",
        ),
        (
            "beam --relay r --name a@127.1.0.1 --peer b@127.1.0.2 --epmd-port 0",
            "0 is not in 1..",
        ),
        (
            "beam --relay r --name a@127.1.0.1 --peer b@127.1.0.2 --pin PIN --insecure",
            "cannot be used with",
        ),
        ("status --interval never", "is not a time"),
        ("drain --timeout never", "is not a time"),
        ("demo --tunnels 100000", "200 tunnels at most"),
        ("demo --size big", "is not a size"),
        ("bench --only bulk", "[possible values: direct-bulk, direct-trips,"),
        ("bench --seconds 0", "must be more than 0"),
        ("bench --datagrams 1000", "1000 is not in 1200..=65000"),
        ("bench --insecure", "are about the relay of --relay"),
        ("bench --name n", "--relay <HOST[:PORT]>"),
        ("bench --relay r --only peering", "nothing that goes through --relay"),
        ("bench --relay r --pin PIN --insecure", "cannot be used with"),
        ("peer", "Usage: macula peer"),
        ("peer listen", "--cert and --key, or --self-signed"),
        ("peer listen --cert c.pem", "--key <PEM>"),
        ("peer listen --self-signed --listen http://h", "unknown scheme \"http\""),
        (
            "peer listen --self-signed --duplicates some",
            "[possible values: replace, keep, both]",
        ),
        ("peer listen --self-signed --allow abc", "64 hexadecimal digits"),
        ("peer listen --self-signed --max-peers 0", "must be at least 1"),
        ("peer connect", "<HOST[:PORT]>"),
        ("peer connect host:x", "\"x\" is not a port"),
        ("peer connect h --pin PIN --insecure", "cannot be used with"),
        ("peer connect h --expect xyz", "64 hexadecimal digits"),
        ("peer connect h --count -1", "unexpected argument"),
        (
            "peer connect h --binding maybe",
            "[possible values: off, optional, require]",
        ),
        ("peer connect h --idle 0", "must be more than 0"),
        ("dist", "Usage: macula dist"),
        ("dist node", "--name <NAME@HOST>"),
        ("dist node --name a", "\"a\" is not the name of a node; write NAME@HOST"),
        ("dist node --name a@h --cookie c", "--listen lets others in"),
        ("dist node --name a@h --cookie c --cookie-file f", "cannot be used with"),
        ("dist node --name a@h --listen h --cookie-file", "a value is required"),
        ("dist node --name a@h --connect b@h", "write NAME@HOST=HOST:PORT"),
        (
            "dist node --name a@h --connect b=h:1",
            "\"b\" is not the name of a node",
        ),
        ("dist node --name a@h --connect b@h=h", "no port in \"h\""),
        (
            "dist node --name a@h --cookie c --connect a@h=h:1",
            "a@h is this node itself",
        ),
        ("dist node --name a@h --connect-srv a@b@c", "is not a domain"),
        (
            "dist node --name a@h --cookie c --insecure --connect-srv a..b",
            "\"a..b\" is not the domain of nodes",
        ),
        (
            "dist node --name a@h --listen h --dns h",
            "--connect-srv <[NAME@]DOMAIN>",
        ),
        (
            "dist node --name a@h --listen h --carrier udp",
            "[possible values: quic, tcp]",
        ),
        ("dist node --name a@h --listen h --cert c.pem", "--key <PEM>"),
        (
            "dist node --name a@h --listen h --pin PIN --insecure",
            "cannot be used with",
        ),
        (
            "dist node --name a@h --listen h --ca f --pin PIN",
            "cannot be used with",
        ),
        (
            "dist node --name a@h --listen h --carrier tcp --pin PIN",
            "over TCP nothing is encrypted",
        ),
        (
            "dist node --name a@h --listen h --carrier tcp --stream",
            "streams need QUIC",
        ),
        (
            "dist node --name a@h --listen h --epmd",
            "--epmd needs --carrier tcp and --listen",
        ),
        (
            "dist node --name a@h --listen h --stream b",
            "\"b\" is not the name of a node",
        ),
        (
            "dist node --name a@h --listen h --stream --priority 15",
            "15 is not in 16..=255",
        ),
        ("dist node --name a@h --listen h --priority 16", "--stream"),
        ("dist node --name a@h --listen h --send hello", "write PROCESS=TEXT"),
        (
            "dist node --name a@h --listen h --register undefined",
            "no process can be called",
        ),
        (
            "dist node --name a@h --listen h --net-ticktime 0",
            "must be more than 0",
        ),
        ("completions tcsh", "[possible values: "),
    ];
    for (line, part) in table {
        let line = line.replace("NODE", node).replace("PIN", &pin);
        let output = macula(&words(&line));
        assert_eq!(output.status.code(), Some(2), "{line}: {}", stderr(&output));
        assert!(
            stderr(&output).contains(part),
            "{line}: {part:?} in {}",
            stderr(&output)
        );
        assert_eq!(stdout(&output), "", "{line}");
    }
    let empty_name = macula(&["expose", "--relay", "r", "--name", "", "--to", "h:1"]);
    assert_eq!(empty_name.status.code(), Some(2));
}

#[test]
fn help_teaches() {
    let table: [(&str, &[&str]); 15] = [
        (
            "",
            &[
                "macula demo",
                "macula relay --self-signed",
                "Exit codes: 0 done, 1 failed, 2 usage, 3 time-out",
                "--json",
            ],
        ),
        (
            "relay",
            &[
                "--listen",
                "[::]:4434",
                "--self-signed",
                "SIGHUP",
                "--max-rate-per-node",
                "macula relay --config",
            ],
        ),
        (
            "expose",
            &["--to", "--allow-from", "--pin", "--insecure", "macula expose --relay"],
        ),
        (
            "forward",
            &["--target", "--listen", "[default: auto]", "macula forward --relay"],
        ),
        (
            "beam",
            &[
                "macula relay --self-signed",
                "macula beam --relay HOST --pin PIN --name a@127.1.0.1 --peer b@127.1.0.2",
                "erl -name a@127.1.0.1 -setcookie COOKIE",
                "--epmd-port",
                "ERL_EPMD_PORT",
                "--relay-name",
            ],
        ),
        ("status", &["--watch", "macula status --json"]),
        ("drain", &["--timeout", "exit"]),
        ("demo", &["--size", "--tunnels", "--seconds"]),
        (
            "bench",
            &[
                "direct-bulk one stream",
                "99 of 100",
                "peering connections of peers",
                "--only",
                "[default: 1452]",
                "macula bench --json",
            ],
        ),
        ("peer", &["listen", "connect", "macula key new", "NODE_ID"]),
        (
            "peer listen",
            &[
                "--echo",
                "--duplicates",
                "[default: replace]",
                "--self-signed",
                "[::]:4433",
                "GOODBYE",
                "macula peer listen --self-signed",
            ],
        ),
        (
            "peer connect",
            &[
                "--expect",
                "--send",
                "--insecure",
                "--binding",
                "Exit codes",
                "macula peer connect alice.example --pin PIN",
            ],
        ),
        ("dist", &["node", "QUIC", "TCP", "macula dist node --help"]),
        (
            "dist node",
            &[
                "--cookie-file",
                "Other users of this machine can see",
                "~/.erlang.cookie",
                "--connect-srv",
                "_erlang-dist._quic.",
                "[default: quic]",
                "--stream",
                "--echo",
                "Exit codes",
                "macula dist node --name a@left.example",
            ],
        ),
        ("completions", &["bash", "zsh"]),
    ];
    for (command, parts) in table {
        let mut line = words(command);
        line.push("--help");
        let output = macula(&line);
        assert_eq!(output.status.code(), Some(0), "{command}");
        let help = words(&stdout(&output)).join(" ");
        for part in parts {
            assert!(help.contains(part), "{command}: {part:?} in\n{}", stdout(&output));
        }
    }
}

#[test]
fn version_and_completions() {
    let output = macula(&["--version"]);
    assert_eq!(stdout(&output), format!("macula {}\n", env!("CARGO_PKG_VERSION")));
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = macula(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0));
        assert!(stdout(&output).contains("self-signed"), "{shell}");
    }
}

#[test]
fn a_port_of_epmd_that_is_taken_is_a_failure() {
    let other = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = other.local_addr().expect("an address");
    let line = format!(
        "beam --relay r --insecure --name a@127.1.0.1 --peer b@127.1.0.2 --json --epmd-port {}",
        addr.port()
    );
    let output = macula(&words(&line));
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let event: serde_json::Value = serde_json::from_str(&stdout(&output)).expect("one JSON object");
    assert_eq!((&event["event"], &event["kind"]), (&"error".into(), &"listen".into()));
    let message = event["message"].as_str().expect("a text");
    assert!(message.starts_with(&format!("cannot listen on {addr}: ")), "{message}");
}

#[test]
fn failures_exit_with_1_and_are_events() {
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("relay.sock");
    let socket = socket.to_str().expect("a text");
    for command in ["status", "drain"] {
        let output = macula(&[command, "--admin", socket]);
        assert_eq!(output.status.code(), Some(1), "{command}");
        assert!(stderr(&output).starts_with(&format!("macula: no relay answers at {socket}: ")));
        assert_eq!(stdout(&output), "");
        let output = macula(&[command, "--admin", socket, "--json"]);
        assert_eq!(output.status.code(), Some(1), "{command}");
        let event: serde_json::Value = serde_json::from_str(&stdout(&output)).expect("one JSON object");
        assert_eq!((&event["event"], &event["kind"]), (&"error".into(), &"admin".into()));
        assert!(
            event["message"]
                .as_str()
                .is_some_and(|message| message.contains(socket))
        );
    }
    let missing = ["relay", "--cert", "/nonexistent/c.pem", "--key", "/nonexistent/k.pem"];
    let output = macula(&missing);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("/nonexistent/c.pem: "), "{}", stderr(&output));
}

#[test]
fn a_broken_configuration_names_its_line() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("relay.toml");
    fs::write(&path, "self-signed = true\ntakeover = 'maybe'\n").expect("a file");
    let output = macula(&["relay", "--json", "--config", path.to_str().expect("a text")]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("line 2: takeover: "), "{}", stderr(&output));
    let event: serde_json::Value = serde_json::from_str(&stdout(&output)).expect("one JSON object");
    assert_eq!(event["kind"], "usage");
}

#[test]
fn a_closed_standard_output_ends_quietly() {
    for line in [&["completions", "bash"][..], &["--help"]] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_macula"))
            .args(line)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the command starts");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("an end");
        assert_eq!(stderr(&output), "", "{line:?}");
    }
}
