//! `macula rpc` from outside: servers and callers in processes of their own.

#![cfg(unix)]

mod command;
mod common;
mod rpc_cast;

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use command::{Macula, SOON, text};
use common::noise;
use macula_tokio::{
    Endpoint, ListenConfig, Options, alpn, entropy,
    rpc::{Chunk, Kind, Mode, RpcConfig, RpcServer, ServerCall, Value},
    tls::{Credentials, SelfSigned, ServerTls},
};
use rpc_cast::{Server, all_built_in, call, exit, files, shown, spawn};
use serde_json::json;

// ----- carriers ----------------------------------------------------------------------------------------------------

#[test]
fn every_carrier_in_every_encoding() {
    let (directory, large) = files();
    let server = Server::start(&["--root", shown(directory.path()), "--quiet"]);
    for options in [
        "--carrier auto",
        "--carrier shared",
        "--carrier shared --encoding cbor",
        "--carrier per-call --encoding msgpack",
        "--carrier per-call --encoding cbor",
        "--carrier signed",
    ] {
        let options: Vec<&str> = options.split_whitespace().collect();
        let call = |words: &[&str], input: &[u8]| server.call(&[words, &options].concat(), input);
        all_built_in(call, &large, options.contains(&"signed"));
    }
    let connected = |options: &[&str]| {
        let words = [&["count", "1", "--json"], options].concat();
        let first = server.call(&words, b"").good();
        let line = first.split(|byte| *byte == b'\n').next().expect("a line").to_vec();
        let event: serde_json::Value = serde_json::from_slice(&line).expect("JSON");
        assert_eq!(event["event"], "connected");
        event
    };
    assert_eq!(connected(&[])["carrier"], "per-call");
    assert_eq!(connected(&["--carrier", "shared"])["carrier"], "shared");
    let signed = connected(&["--carrier", "signed", "--expect", &server.node_id]);
    assert_eq!(
        (&signed["carrier"], &signed["peer"]),
        (&json!("signed"), &json!(server.node_id))
    );
    server.stop();
}

#[test]
fn through_a_tunnel_of_a_relay() {
    let (directory, large) = files();
    let relay = Macula::start("relay --self-signed --listen 127.0.0.1:0 --no-admin");
    let pin = text(&relay.wait("certificate"), "pin").to_owned();
    let at = text(&relay.wait("listening"), "addr").to_owned();
    let root = shown(directory.path());
    let serve = [
        "rpc", "serve", "--relay", &at, "--pin", &pin, "--name", "alice", "--root", root,
    ];
    let server = Macula::start_words(&serve);
    assert_eq!(text(&server.wait("identified"), "name"), "alice");
    let through = ["--relay", &*at, "--pin", &pin, "--target"];
    for encoding in ["auto", "cbor"] {
        let options = [&through[..], &["alice", "--encoding", encoding]].concat();
        all_built_in(|words, input| call(&[words, &options].concat(), input), &large, false);
    }
    let told = server.wait("connected");
    assert_eq!(told["carrier"], "tunnel");
    assert_eq!(server.wait("disconnected")["link"], told["link"]);
    call(&[&through[..], &["bob", "echo"]].concat(), b"").bad(1, "no tunnel to bob: ");
    for process in [server, relay] {
        process.signal("TERM");
        assert_eq!(process.end(), Some(0));
    }
}

#[test]
fn through_a_router() {
    let (directory, large) = files();
    let start = |at: &str, certificate: &str| {
        let relay = Macula::start(&format!("relay {certificate} --listen {at} --no-admin"));
        let at = text(&relay.wait("listening"), "addr").to_owned();
        (relay, at)
    };
    let credentials = Credentials::self_signed(&entropy().unwrap(), &SelfSigned::default()).unwrap();
    let pin = credentials.pin().to_string();
    let pem = directory.path().join("relay.pem");
    fs::write(&pem, credentials.to_pem()).expect("a file");
    let certificate = format!("--cert {0} --key {0}", pem.display());
    let (relay, at) = start("127.0.0.1:0", &certificate);
    let prefix = ["--prefix", "acme/demo/alice/tools", "--exec", "upper=tr a-z A-Z"];
    let serve = [
        "rpc",
        "serve",
        "--router",
        &at,
        "--pin",
        &pin,
        "--root",
        shown(directory.path()),
    ];
    let server = Macula::start_words(&[&serve[..], &prefix].concat());
    let registered = server.wait("registered");
    assert_eq!(
        (text(&registered, "router"), &registered["procedures"]),
        (&*at, &json!(10))
    );
    let through = ["--router", &*at, "--pin", &pin];
    let upper = [&through[..], &["acme/demo/alice/tools/upper_v1"]].concat();
    // What was registered arrives before what is called later, but on another connection.
    let end = Instant::now() + SOON;
    while call(&upper, b"x").code != Some(0) {
        assert!(Instant::now() < end, "nothing is registered");
    }
    all_built_in(|words, input| call(&[words, &through].concat(), input), &large, false);
    // The provider writes MessagePack, so the router translates.
    let in_cbor =
        |words: &[&str], input: &[u8]| call(&[words, &through, &["--encoding", "cbor"]].concat(), input).good();
    assert!(in_cbor(&["cat", "\"large\""], b"") == large);
    assert_eq!(in_cbor(&["count", "{\"n\":2}"], b""), b"1\n2\n");
    assert_eq!(in_cbor(&["sum", "--chunk", "json"], b"-1\n3"), b"2\n");
    // A text is a byte string there, as it is for all deployed peers that write MessagePack.
    assert_eq!(in_cbor(&["echo", "--chunk", "json"], b"[\"AB\",1]"), b"[\"4142\",1]\n");
    assert_eq!(call(&upper, b"hello").good(), b"HELLO");

    // A router that was started again knows nothing, until it is told again.
    relay.signal("KILL");
    drop(relay);
    let (relay, _) = start(&at, &certificate);
    server.wait("disconnected");
    server.wait("registered");
    while call(&upper, b"x").code != Some(0) {
        assert!(Instant::now() < end + SOON, "nothing is registered again");
    }
    // A provider that goes takes its procedures along.
    server.signal("TERM");
    assert_eq!(server.end(), Some(0));
    call(&upper, b"x").bad(1, "not_found");
    relay.signal("TERM");
    assert_eq!(relay.end(), Some(0));
}

// ----- events and ends ---------------------------------------------------------------------------------------------

#[test]
fn events_come_in_order() {
    let server = Server::start(&["--prefix", "acme/demo/alice/tools"]);
    let mut sum = server.calling(&["acme/demo/alice/tools/sum_v1"]);
    sum.type_in("40\n2\n");
    let peer = json!(server.at);
    assert_eq!(
        sum.next(),
        json!({"event": "connected", "peer": peer, "carrier": "per-call"})
    );
    assert_eq!(sum.next(), json!({"event": "reply", "result": 42}));
    let over = json!({"event": "disconnected", "reason": "closed", "peer": peer});
    assert_eq!(sum.next(), over);
    assert_eq!(sum.end(), Some(0));
    let link = server.process.wait("connected");
    let called = server.process.wait("call");
    assert_eq!(
        (&called["procedure"], &called["outcome"], &called["link"]),
        (&json!("acme/demo/alice/tools/sum_v1"), &json!("ok"), &link["link"])
    );

    let mut echo = server.calling(&["acme/demo/alice/tools/echo_v1", "--chunk", "lines"]);
    echo.type_in("a\nb");
    echo.wait("connected");
    assert_eq!(
        echo.next(),
        json!({"event": "chunk", "encoding": "raw", "body": "610a"})
    );
    assert_eq!(echo.next(), json!({"event": "chunk", "encoding": "raw", "body": "62"}));
    assert_eq!(echo.next(), json!({"event": "reply", "result": 2}));
    assert_eq!(echo.next(), over);
    assert_eq!(echo.end(), Some(0));

    let count = server.calling(&["count", "2"]);
    count.wait("connected");
    assert_eq!(
        count.next(),
        json!({"event": "chunk", "encoding": "msgpack", "body": 1})
    );
    count.wait("disconnected");
    assert_eq!(count.end(), Some(0));

    let nothing = server.calling(&["nothing"]);
    nothing.wait("connected");
    assert_eq!(nothing.next(), over);
    let error = nothing.next();
    assert_eq!(
        (&error["event"], &error["kind"]),
        (&json!("error"), &json!("not_found"))
    );
    assert!(text(&error, "message").starts_with("nothing: not_found: "), "{error}");
    assert_eq!(nothing.end(), Some(1));
    server.stop();
}

#[test]
fn deadlines_and_silence_are_time_outs() {
    let server = Server::start(&["--exec", "wait=sleep 600"]);
    for carrier in ["shared", "per-call", "signed"] {
        let done = server.call(&["wait", "--deadline", "300ms", "--carrier", carrier], b"");
        assert_eq!((done.code, done.text()), (Some(3), ""), "{}", done.err);
        assert_eq!(server.process.wait("call")["procedure"], "wait");
    }
    // A reader that is too slow is within the deadline too.
    let mut child = spawn(&[
        &*server.at,
        "--pin",
        &server.pin,
        "count",
        "100000000",
        "--deadline",
        "500ms",
    ]);
    assert_eq!(exit(&mut child), Some(3));
    server.stop();
    let nobody = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let at = nobody.local_addr().expect("an address").to_string();
    for carrier in ["auto", "signed"] {
        let done = call(
            &[&*at, "--insecure", "echo", "--timeout", "300ms", "--carrier", carrier],
            b"",
        );
        done.bad(3, "no connection within 0.3 s");
    }
}

#[test]
fn a_server_that_is_killed_is_noticed() {
    let server = Server::start(&[]);
    let callers: Vec<Macula> = ["shared", "per-call", "signed"]
        .iter()
        .map(|carrier| server.calling(&["echo", "--idle", "1", "--carrier", carrier]))
        .collect();
    for caller in &callers {
        caller.wait("connected");
        server.process.wait("connected");
    }
    server.process.signal("KILL");
    for caller in callers {
        caller.wait("disconnected");
        assert_eq!(text(&caller.wait("error"), "kind"), "disconnected");
        assert_eq!(caller.end(), Some(1));
    }
}

#[test]
fn a_server_that_stops_lets_calls_end() {
    let server = Server::start(&["--drain-timeout", "30"]);
    let mut caller = server.calling(&["echo", "--chunk", "lines"]);
    caller.wait("connected");
    server.process.wait("connected");
    // The first line is there before the end is announced.
    let mut early = spawn(&[&*server.at, "--pin", &server.pin, "echo"]);
    let mut stdin = early.stdin.take().expect("its input");
    let mut stdout = BufReader::new(early.stdout.take().expect("its output"));
    stdin.write_all(b"one\n").expect("it reads");
    let mut line = String::new();
    stdout.read_line(&mut line).expect("a line");
    assert_eq!(line, "one\n");
    server.process.signal("TERM");
    stdin.write_all(b"two\n").expect("it reads");
    stdout.read_line(&mut line).expect("a line");
    assert_eq!(line, "one\ntwo\n");
    drop(stdin);
    assert_eq!(exit(&mut early), Some(0));
    caller.type_in("three\n");
    assert_eq!(caller.wait("chunk")["body"], "74687265650a");
    assert_eq!(caller.end(), Some(0));
    assert_eq!(server.process.end(), Some(0));
}

#[test]
fn nobody_reads_any_more() {
    let server = Server::start(&[]);
    for options in [&[][..], &["--json"]] {
        let mut child = spawn(&[&[&*server.at, "--pin", &server.pin, "count", "1000000000"], options].concat());
        let mut stdout = BufReader::new(child.stdout.take().expect("its output"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("a line");
        drop(stdout);
        assert_eq!(exit(&mut child), Some(0));
        let mut err = String::new();
        child
            .stderr
            .take()
            .expect("err")
            .read_to_string(&mut err)
            .expect("text");
        assert_eq!(err, "");
        let called = server.process.wait("call");
        assert_eq!(
            (&called["procedure"], &called["outcome"]),
            (&json!("count"), &json!("cancelled"))
        );
    }
    server.stop();
}

#[test]
fn an_interrupted_call_is_cancelled() {
    let server = Server::start(&["--exec", "wait=sleep 600"]);
    let caller = server.calling(&["wait"]);
    caller.wait("connected");
    caller.signal("INT");
    assert_eq!(text(&caller.wait("error"), "kind"), "cancelled");
    assert_eq!(caller.end(), Some(1));
    server.stop();
}

// ----- commands ----------------------------------------------------------------------------------------------------

#[test]
fn commands_are_procedures() {
    let words = [
        "--exec",
        "upper=tr a-z A-Z",
        "--exec",
        "first=head -c 5",
        "--exec",
        "fails=cat; exit 7",
        "--exec",
        "dies=kill -9 $$",
        "--prefix",
        "a/b/c/d",
    ];
    let server = Server::start(&words);
    for carrier in ["shared", "per-call", "signed"] {
        let call = |words: &[&str], input: &[u8]| server.call(&[words, &["--carrier", carrier]].concat(), input);
        assert_eq!(call(&["upper"], b"hello, world\n").good(), b"HELLO, WORLD\n");
        let large = noise(3 << 20, 5);
        // It stops reading, and the rest of what was to be sent is passed over.
        assert_eq!(call(&["first"], &large).good(), large[..5]);
        let failed = call(&["fails"], &large);
        failed.bad(1, "fails: exit: the command failed with exit code 7");
        assert!(failed.out == large, "what was printed before is there");
        call(&["a/b/c/d/dies_v1"], b"").bad(1, "exit: the command failed: signal: 9");
    }
    server.stop();
}

/// Whether there is a process of this number, or what is left of one.
fn lives(process: &str) -> bool {
    let state = fs::read_to_string(format!("/proc/{process}/stat"));
    state.is_ok_and(|state| !state.contains(") Z "))
}

fn dies(process: &str) {
    let end = Instant::now() + SOON;
    while lives(process) {
        assert!(Instant::now() < end, "{process} goes on");
        thread::sleep(Duration::from_millis(10));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_command_does_not_outlive_its_call() {
    let command = "wait=sleep 600 & echo $$ $!; wait";
    let server = Server::start(&["--exec", command, "--max-commands", "1"]);
    let begin = |options: &[&str]| {
        let caller = server.calling(&[&["wait", "--chunk", "lines"], options].concat());
        let body = text(&caller.wait("chunk"), "body").to_owned();
        let bytes = (0..body.len()).step_by(2);
        let bytes = bytes.map(|at| u8::from_str_radix(&body[at..at + 2], 16).expect("hex"));
        let numbers = String::from_utf8(bytes.collect()).expect("text");
        let numbers: Vec<String> = numbers.split_whitespace().map(str::to_owned).collect();
        assert!(
            numbers.len() == 2 && numbers.iter().all(|number| lives(number)),
            "{numbers:?}"
        );
        (caller, numbers)
    };
    let (caller, numbers) = begin(&[]);
    server.call(&["wait"], b"").bad(1, "wait: limit: too many commands run");
    caller.signal("INT");
    numbers.iter().for_each(|number| dies(number));
    let (caller, numbers) = begin(&["--idle", "1"]);
    caller.signal("KILL");
    numbers.iter().for_each(|number| dies(number));
    let (_caller, numbers) = begin(&["--carrier", "signed"]);
    server.process.signal("TERM");
    numbers.iter().for_each(|number| dies(number));
    assert_eq!(server.process.end(), Some(0));
}

// ----- programs at the other end -----------------------------------------------------------------------------------

/// A program with procedures of its own, where calls share a stream.
async fn program() -> (RpcServer, String, String) {
    let endpoint = Endpoint::bind("127.0.0.1:0".parse().unwrap(), Options::default()).unwrap();
    let credentials = Credentials::self_signed(&entropy().unwrap(), &SelfSigned::default()).unwrap();
    let pin = credentials.pin().to_string();
    let tls = ServerTls::new(credentials).alpn([alpn::MACULA]).build(endpoint.clock());
    endpoint.listen(ListenConfig::new(tls.unwrap())).unwrap();
    let mut config = RpcConfig::new([1; 32]);
    config.stream_per_call = false;
    endpoint.serve_rpc(config);
    let server = RpcServer::new(&endpoint);
    server.advertise("add", Kind::Unary, async |call: ServerCall| {
        let (a, b): (i64, i64) = call.args_as()?;
        Ok(Value::from(a + b))
    });
    server.advertise("mixed", Mode::ServerStream, async |call: ServerCall| {
        call.send(Chunk::Raw("raw ".into())).await?;
        call.send(Chunk::Term(Value::bytes([0xab, 0xcd]))).await?;
        call.close();
        Ok(())
    });
    server.advertise("never", Kind::Unary, async |_: ServerCall| {
        std::future::pending::<()>().await;
        Ok(())
    });
    let at = endpoint.local_addr().to_string();
    (server, at, pin)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn procedures_of_a_program() {
    let (_server, at, pin) = program().await;
    let calls = tokio::task::spawn_blocking(move || {
        let call = |words: &[&str]| call(&[&[&*at, "--pin", &pin], words].concat(), b"");
        assert_eq!(call(&["add", "[40,2]", "--mode", "unary"]).good(), b"42\n");
        call(&["add", "\"x\"", "--mode", "unary"]).bad(1, "add: ");
        call(&["nothing", "--mode", "unary"]).bad(1, "not_found");
        call(&["never", "--mode", "unary", "--deadline", "300ms"]).bad(3, "never: ");
        assert_eq!(call(&["mixed", "--mode", "server-stream"]).good(), b"raw \"abcd\"\n");
        call(&["add", "--carrier", "per-call"]).bad(1, "cannot give each call a stream of its own");
        call(&["mixed", "--carrier", "signed", "--timeout", "1"]);
    });
    calls.await.unwrap();
}

// ----- usage -------------------------------------------------------------------------------------------------------

#[test]
fn usage_errors_exit_with_2_and_say_what() {
    let table: [(&str, &str); 31] = [
        ("", "Usage: macula rpc"),
        ("serve", "--cert and --key, or --self-signed"),
        ("serve --self-signed --pin PIN", "are for --relay and --router"),
        (
            "serve --self-signed --relay r --name n",
            "what is shown to a relay is --client-cert",
        ),
        (
            "serve --self-signed --router r",
            "what is shown to a relay is --client-cert",
        ),
        ("serve --relay r", "--name <NAME>"),
        ("serve --name n", "--relay <HOST[:PORT]>"),
        ("serve --relay r --name n --router r", "cannot be used with"),
        ("serve --listen h --router r", "cannot be used with"),
        ("serve --self-signed --listen http://h", "unknown scheme \"http\""),
        ("serve --self-signed --prefix a/b", "a prefix has four segments"),
        ("serve --self-signed --exec upper", "write NAME=COMMAND"),
        (
            "serve --self-signed --exec echo=cat",
            "there is a procedure echo already",
        ),
        (
            "serve --self-signed --exec a=b --exec a=c",
            "there is a procedure a already",
        ),
        ("serve --self-signed --max-commands 0", "must be at least 1"),
        ("call", "<PROC>"),
        ("call host:x echo", "\"x\" is not a port"),
        ("call host", "which procedure to call is missing"),
        ("call host count {n:5}", "are no JSON"),
        ("call host a b c", "unexpected value 'c'"),
        ("call --router r host count 1", "two addresses are too many"),
        ("call --relay r echo", "--target <NAME>"),
        ("call host echo --target t", "--relay <HOST[:PORT]>"),
        ("call host echo --mode both", "[possible values: server-stream"),
        ("call host echo --chunk words", "lines, json"),
        ("call host echo --chunk 2MiB", "a chunk has 1 byte to 1MiB"),
        ("call host echo --deadline 0", "must be more than 0"),
        (
            "call --router r echo --carrier signed",
            "peers that are dialled themselves",
        ),
        (
            "call --relay r --target t echo --carrier per-call",
            "one stream for all calls",
        ),
        ("call host echo --carrier signed --encoding cbor", "has no meaning"),
        ("call host echo --expect PIN", "are for --carrier signed"),
    ];
    let pin = "ab".repeat(32);
    for (line, part) in table {
        let line = line.replace("PIN", &pin);
        let output = Command::new(env!("CARGO_BIN_EXE_macula"))
            .arg("rpc")
            .args(line.split_whitespace())
            .stdin(Stdio::null())
            .output()
            .expect("the command starts");
        let err = String::from_utf8(output.stderr).expect("text");
        assert_eq!(
            (output.status.code(), output.stdout.len()),
            (Some(2), 0),
            "{line}: {err}"
        );
        assert!(err.contains(part), "{line}: {part:?} in {err}");
    }
    for (line, parts) in [
        ("rpc --help", &["serve", "call", "--relay and --router"][..]),
        (
            "rpc serve --help",
            &["{\"n\": N}", "--exec upper='tr a-z A-Z'", "SIGTERM"],
        ),
        ("rpc call --help", &["--target <NAME>", "seq 1 10 |", "Exit codes: "]),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_macula"));
        let output = command
            .args(line.split_whitespace())
            .output()
            .expect("the command starts");
        let help = String::from_utf8(output.stdout).expect("text");
        assert!(output.status.success());
        for part in parts {
            assert!(help.contains(part), "{line}: {part:?} in {help}");
        }
    }
    let files = tempfile::tempdir().expect("a directory");
    let root = files.path().join("none");
    let serve = format!("rpc serve --self-signed --root {}", root.display());
    let served = Macula::start(&serve);
    assert_eq!(text(&served.wait("error"), "kind"), "root");
    assert_eq!(served.end(), Some(1));
}
