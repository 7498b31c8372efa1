//! `macula inspect`: the golden vectors through it and back, bad input of every kind, and input without an end.

use std::{
    fmt::Write as _,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::Path,
    process::{Command, Output, Stdio},
    thread,
};

use serde_json::Value as Json;

fn command(line: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_macula"));
    command.args(line).env_remove("RUST_LOG");
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn run(line: &[&str], input: &[u8]) -> Output {
    let mut child = command(line).spawn().expect("the command starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    thread::scope(|scope| {
        // It may end without reading everything.
        scope.spawn(move || drop(stdin.write_all(input)));
        child.wait_with_output().expect("an end")
    })
}

fn inspect(format: &str, more: &[&str], input: &[u8]) -> (Vec<Json>, Output) {
    let output = run(&[&["inspect", "--as", format], more].concat(), input);
    let text = std::str::from_utf8(&output.stdout).expect("text");
    let parse = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    (text.lines().map(parse).collect(), output)
}

fn encode(format: &str, lines: &[u8]) -> Output {
    run(&["inspect", "--as", format, "--encode"], lines)
}

fn unhex(digits: &str) -> Vec<u8> {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16).expect("hex");
    digits.as_bytes().chunks(2).map(byte).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}

fn vectors(file: &str) -> Vec<Json> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/vectors")
        .join(file);
    let text = fs::read_to_string(path).expect("the vectors");
    serde_json::from_str(&text).expect("JSON")
}

fn text<'a>(json: &'a Json, key: &str) -> &'a str {
    json[key].as_str().unwrap_or_else(|| panic!("no {key} in {json}"))
}

fn bytes(vector: &Json) -> Vec<u8> {
    unhex(text(vector, "hex"))
}

/// All vectors behind each other in one input: a line for each, with its value, and the same bytes again from the lines.
fn there_and_back(format: &str, more: &[&str], vectors: &[Json]) -> Vec<Json> {
    let input: Vec<u8> = vectors.iter().flat_map(bytes).collect();
    let (lines, output) = inspect(format, more, &input);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(lines.len(), vectors.len());
    let mut offset = 0;
    for (line, vector) in lines.iter().zip(vectors) {
        let length = bytes(vector).len();
        assert_eq!(
            (&line["offset"], &line["length"]),
            (&offset.into(), &length.into()),
            "{}",
            vector["name"]
        );
        assert_eq!(line["value"], vector["value"], "{}", vector["name"]);
        offset += length;
    }
    let back = encode(format, &output.stdout);
    assert_eq!(String::from_utf8_lossy(&back.stderr), "");
    assert_eq!(back.status.code(), Some(0));
    assert!(back.stdout == input, "other bytes came back");
    lines
}

#[test]
fn peering_frames_there_and_back() {
    let (frames, lone): (Vec<Json>, Vec<Json>) = vectors("peering_frames.json")
        .into_iter()
        .partition(|vector| text(vector, "hex").starts_with("00"));
    assert_eq!((frames.len(), lone.len()), (145, 6));
    // SWIM updates and records on their own are no frames, but values.
    there_and_back("det-cbor", &[], &lone);

    let mut keys: Vec<&str> = frames.iter().map(|vector| text(vector, "public_key")).collect();
    keys.sort_unstable();
    keys.dedup();
    for key in keys {
        let signed: Vec<Json> = frames
            .iter()
            .filter(|vector| vector["public_key"] == key)
            .cloned()
            .collect();
        for line in there_and_back("peering", &["--key", key], &signed) {
            // Also the one that deployed verifiers refuse because they read the text `undefined` as null.
            assert_eq!(line["verify"], "ok", "{line}");
        }
        for line in there_and_back("peering", &[], &signed) {
            let greets = line["type"] == "connect" || line["type"] == "hello";
            assert_eq!(line["verify"], if greets { "ok" } else { "unknown" });
        }
    }
}

#[test]
fn control_messages_there_and_back() {
    let all = vectors("relay_control.json");
    let (single, buffers): (Vec<Json>, Vec<Json>) = all.into_iter().partition(|vector| !vector["value"].is_null());
    assert_eq!((single.len(), buffers.len()), (39, 52));
    for (line, vector) in there_and_back("control", &[], &single).iter().zip(&single) {
        assert_eq!(line["type"], vector["message"]["type"], "{}", vector["name"]);
        let encoding = text(vector, "name").split('_').next().expect("a word");
        assert_eq!(line["encoding"], encoding, "{}", vector["name"]);
    }
    assert_eq!(rewritten("control", &buffers), REWRITTEN_CONTROL);
}

/// The names of those that are read without a fault but come back as other bytes, because they are not in the one form that
/// honest peers write: lengths that are not stated, heads that are too long, tags.
fn rewritten(format: &str, vectors: &[Json]) -> Vec<String> {
    let mut names = Vec::new();
    for vector in vectors {
        let (lines, output) = inspect(format, &[], &bytes(vector));
        let refused = lines.iter().any(|line| !line["error"].is_null());
        assert_eq!(output.status.code(), Some(i32::from(refused)), "{}", vector["name"]);
        let refuses = |verdict: &str| verdict.starts_with("error:") && verdict != "error:invalid_header";
        if format == "rpc" && vector["verdict"].as_str().is_some_and(refuses) {
            assert!(refused, "{}: {lines:?}", vector["name"]);
        }
        let back = encode(format, &output.stdout);
        if !refused && hex(&back.stdout) != text(vector, "hex") {
            assert_eq!(back.status.code(), Some(0), "{}", vector["name"]);
            let again = inspect(format, &[], &back.stdout).0;
            let values = |lines: &[Json]| lines.iter().map(|line| line["value"].clone()).collect::<Vec<_>>();
            assert_eq!(values(&again), values(&lines), "{}", vector["name"]);
            names.push(text(vector, "name").to_owned());
        }
    }
    names
}

#[test]
fn rpc_messages_there_and_back() {
    let mut valued = vectors("rpc_frames.json");
    valued.retain(|vector| !vector["value"].is_null());
    assert_eq!(valued.len(), 68);
    for (line, vector) in there_and_back("rpc", &[], &valued).iter().zip(&valued) {
        assert_eq!(line["type"], vector["type"], "{}", vector["name"]);
        let encoding = text(vector, "name").split('_').next().expect("a word");
        assert_eq!(line["encoding"], encoding, "{}", vector["name"]);
    }
}

#[test]
fn every_other_rpc_message_is_read_or_refused() {
    let mut others = vectors("rpc_frames.json");
    others.retain(|vector| vector["value"].is_null());
    assert_eq!(others.len(), 54);
    assert_eq!(rewritten("rpc", &others), REWRITTEN_RPC);
}

const REWRITTEN_CONTROL: &[&str] = &[
    "cbor_buf_indef_map",
    "cbor_buf_tagged_map",
    "cbor_buf_indef_bytes",
    "cbor_buf_noncanon_len",
    "msgpack_buf_map16",
    "msgpack_buf_bin16",
];
const REWRITTEN_RPC: &[&str] = &[];
const REWRITTEN_CBOR: &[&str] = &[
    "dec_indef_array",
    "dec_indef_map",
    "dec_indef_bytes",
    "dec_indef_text",
    "dec_tag_stripped",
    "dec_tag_2_bignum",
    "dec_undefined_f7",
    "dec_noncanon",
];

#[test]
fn cbor_values_there_and_back() {
    let (written, read): (Vec<Json>, Vec<Json>) = vectors("cbor_nif.json")
        .into_iter()
        .partition(|vector| vector["direction"] == "encode");
    assert_eq!(written.len(), 51);
    there_and_back("cbor", &[], &written);
    assert_eq!(rewritten("cbor", &read), REWRITTEN_CBOR);
}

#[test]
fn deterministic_values_there_and_back() {
    let mut written = vectors("cbor.json");
    written.retain(|vector| vector["direction"] == "encode");
    there_and_back("det-cbor", &[], &written);
}

#[test]
fn msgpack_values_there_and_back() {
    let table = [
        ("c0", r#"{"null":true}"#),
        ("c3", "true"),
        ("cf0020000000000000", r#"{"uint":"9007199254740992"}"#),
        ("cf001fffffffffffff", "9007199254740991"),
        ("d3ffe0000000000000", r#"{"int":"-9007199254740992"}"#),
        ("d0df", "-33"),
        ("cb3fb999999999999a", r#"{"float":0.1}"#),
        ("cb8000000000000000", r#"{"float":-0.0}"#),
        // One unit away from what a careless reader of decimals makes of it.
        ("cb44b52d02c7e14af6", r#"{"float":1.0e23}"#),
        ("cb0000000000000001", r#"{"float":5e-324}"#),
        ("a2ff00", r#"{"text_hex":"ff00"}"#),
        ("a3c3a90a", r#"{"text":"é\n"}"#),
        ("c40200ff", r#"{"bytes":"00ff"}"#),
        (
            "82a161c0a161c2",
            r#"{"map":[[{"text":"a"},{"null":true}],[{"text":"a"},false]]}"#,
        ),
        ("9301c40090", r#"[1,{"bytes":""},[]]"#),
    ];
    let vectors: Vec<Json> = table
        .iter()
        .map(|(hex, value)| {
            let value: Json = serde_json::from_str(value).expect("JSON");
            serde_json::json!({ "name": hex, "hex": hex, "value": value })
        })
        .collect();
    there_and_back("msgpack", &[], &vectors);
}

#[test]
fn values_are_nested_as_deep_as_on_the_wire() {
    // Maps are three levels of JSON each, more than readers of JSON take by default.
    let mut deep = b"\xa1\x00".repeat(128);
    deep.push(0);
    let (lines, output) = inspect_unparsed("cbor", &deep);
    assert_eq!((lines, output.status.code()), (1, Some(0)));
    assert_eq!(encode("cbor", &output.stdout).stdout, deep);

    let mut line = String::from(r#"{"value":"#) + &"[".repeat(129) + &"]".repeat(129) + "}\n";
    let refused = encode("cbor", line.as_bytes());
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("line 1: nested deeper than 128 levels"));
    // What nobody asked for can be as deep as it likes.
    line = format!(
        r#"{{"other":{}{},"value":1}}"#,
        "[".repeat(1_000_000),
        "]".repeat(1_000_000)
    );
    assert_eq!(encode("cbor", line.as_bytes()).stdout, [1]);
    for member in ["value", "type"] {
        line = format!(r#"{{"{member}":{}"#, r#"{"map":[["#.repeat(100_000));
        assert_eq!(encode("rpc", line.as_bytes()).status.code(), Some(1), "{member}");
    }
}

fn inspect_unparsed(format: &str, input: &[u8]) -> (usize, Output) {
    let output = run(&["inspect", "--as", format], input);
    (output.stdout.split(|byte| *byte == b'\n').count() - 1, output)
}

#[test]
fn bad_input_is_told_and_reading_goes_on_where_it_can() {
    // Format, input, and per line: offset, length (0: not known), and a part of the error or of the value.
    type Row = (&'static str, &'static str, &'static [(u64, u64, &'static str)]);
    let table: &[Row] = &[
        ("peering", "", &[]),
        ("peering", "0000", &[(0, 2, "after 2 of the 4 bytes of a header")]),
        ("peering", "00000005a1", &[(0, 5, "after 5 of the 9 bytes of a frame")]),
        (
            "peering",
            "01000000a0",
            &[(0, 0x0100_0004, "16777216 bytes exceeds the limit of 16777215")],
        ),
        ("peering", "00000001a0", &[(0, 5, r#"{"map":[]}"#)]),
        (
            "peering",
            "00000000 00000001ff 0000000100 00000003a1190 1 00000001a0",
            &[
                (0, 4, "end inside an item at byte 0 of the payload"),
                (4, 5, "not supported at byte 0"),
                (9, 5, "not supported at byte 0"),
                (14, 7, "end inside an item at byte 2 of the payload"),
                (21, 5, r#"{"map":[]}"#),
            ],
        ),
        ("peering", "00000002a0a0", &[(0, 6, "bytes follow the value at byte 1")]),
        ("peering", "00000004a1416100", &[(0, 8, "not supported at byte 1")]),
        (
            "control",
            "00000001ff 000000018 0 00000009 81a174a569645f6f6b 00010001",
            &[
                (0, 5, "not a map"),
                (5, 5, "field \"t\" is missing"),
                (10, 13, r#"{"map":[[{"text":"t"},{"text":"id_ok"}]]}"#),
                (23, 65541, "65537 bytes exceeds the limit of 65536"),
            ],
        ),
        ("control", "00000000", &[(0, 4, "the payload is empty")]),
        ("control", "00000006a14174424f4f", &[(0, 10, "unknown message type")]),
        (
            "rpc",
            "02030000 00000001a0 01050000 00000001a0 01ff0000 00000000 01030000 00000001a0 01030000 01000000",
            &[
                (0, 9, "version 2 instead of 1"),
                (9, 9, "unknown type 0x05"),
                (18, 8, "unknown type 0xff"),
                (26, 9, r#"{"map":[]}"#),
                (35, 0x0100_0008, "16777216 bytes exceeds the limit"),
            ],
        ),
        (
            "cbor",
            "01 ff 01",
            &[(0, 1, "1"), (1, 0, "where the next one begins is unknown")],
        ),
        (
            "cbor",
            "01 1a0000",
            &[(0, 1, "1"), (1, 3, "the input ends inside a value")],
        ),
        ("cbor", "5b7fffffffffffffff", &[(0, 9, "the input ends inside a value")]),
        ("cbor", "a200000000", &[(0, 0, "a map with a key twice")]),
        ("msgpack", "c1", &[(0, 0, "begins no item here")]),
        ("msgpack", "d40000", &[(0, 0, "not supported")]),
        // What is not deterministic has a length all the same.
        (
            "det-cbor",
            "01 1801 f4 a200000000 01",
            &[
                (0, 1, "1"),
                (1, 2, "not the shortest form"),
                (3, 1, "at byte 0"),
                (4, 0, "where the next one begins is unknown"),
            ],
        ),
    ];
    for (format, input, expected) in table {
        let input: String = input.split_whitespace().collect();
        let (lines, output) = inspect(format, &["--hex", &input], &[]);
        assert_eq!(lines.len(), expected.len(), "{format} {input}: {lines:?}");
        let mut bad = 0;
        for (line, (offset, length, part)) in lines.iter().zip(*expected) {
            assert_eq!(line["offset"], *offset, "{format} {input}");
            assert_eq!(line["length"].as_u64().unwrap_or(0), *length, "{format} {input}");
            let found = match line["error"].as_str() {
                Some(error) => {
                    bad += 1;
                    error.to_owned()
                }
                None => line["value"].to_string(),
            };
            assert!(found.contains(part), "{format} {input}: {part:?} in {found:?}");
        }
        assert_eq!(output.status.code(), Some(i32::from(bad > 0)), "{format} {input}");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let all = lines.len();
        match bad {
            0 => assert_eq!(stderr, ""),
            bad => assert_eq!(stderr, format!("macula: {bad} of {all} frames could not be read\n")),
        }
        // The same from a pipe, and as events.
        let (events, output) = inspect(format, &["--json", "-"], &unhex(&input));
        assert_eq!(output.status.code(), Some(i32::from(bad > 0)));
        assert_eq!(events.len(), lines.len() + usize::from(bad > 0));
        for (event, line) in events.iter().zip(&lines) {
            let name = if line["error"].is_null() { "frame" } else { "error" };
            assert_eq!(event["event"], name, "{event}");
            assert_eq!(event["message"], line["error"]);
            assert_eq!((&event["offset"], &event["value"]), (&line["offset"], &line["value"]));
        }
    }
}

#[test]
fn signatures_are_judged() {
    let frames = vectors("peering_frames.json");
    let ping = frames
        .iter()
        .find(|vector| text(vector, "name").starts_with("ping"))
        .expect("a ping");
    let connect = frames
        .iter()
        .find(|vector| vector["name"] == "connect_min")
        .expect("a connect");
    let other = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    let weak = "00".repeat(32);
    let key = text(ping, "public_key");
    let flipped = |vector: &Json| {
        let signature = text(vector, "signature");
        let mut wrong = unhex(signature);
        wrong[0] ^= 1;
        text(vector, "hex").replace(signature, &hex(&wrong))
    };
    let unsigned = "00000001a0";
    let table = [
        (text(ping, "hex").to_owned(), vec!["--key", key], "ok"),
        (text(ping, "hex").to_owned(), vec!["--key", other], "bad"),
        (text(ping, "hex").to_owned(), vec!["--key", &weak], "bad"),
        (text(ping, "hex").to_owned(), vec![], "unknown"),
        (flipped(ping), vec!["--key", key], "bad"),
        (text(connect, "hex").to_owned(), vec![], "ok"),
        // It says itself who signed it.
        (text(connect, "hex").to_owned(), vec!["--key", other], "ok"),
        (flipped(connect), vec![], "bad"),
        (unsigned.to_owned(), vec!["--key", key], "unsigned"),
        (unsigned.to_owned(), vec![], "unknown"),
    ];
    for (frame, more, expected) in table {
        let (lines, _) = inspect("peering", &[&["--hex", &frame], &more[..]].concat(), &[]);
        assert_eq!(lines[0]["verify"], expected, "{more:?} {frame}");
    }
}

#[test]
fn lines_that_make_no_bytes_are_told_and_left_out() {
    let table: &[(&str, &str, &str)] = &[
        ("peering", r#"{"value":1}"#, "not a map"),
        ("peering", r#"{"value":{"map":[[{"text":"a"},-1]]}}"#, "negative"),
        ("peering", r#"{"value":{"map":[[1,1],[1,2]]}}"#, "key twice"),
        ("rpc", r#"{"value":{"map":[]}}"#, "no `type`"),
        (
            "rpc",
            r#"{"value":{"map":[]},"type":"dance"}"#,
            "no `type`, or one that is unknown",
        ),
        (
            "rpc",
            r#"{"value":{"map":[]},"type":256}"#,
            "no `type`, or one that is unknown",
        ),
        (
            "control",
            r#"{"value":{"map":[]},"encoding":"json"}"#,
            "unknown encoding \"json\"",
        ),
        (
            "cbor",
            r#"{"offset":1,"length":2,"error":"bad"}"#,
            "there is no `value`",
        ),
        ("cbor", r#"{"value":"text"}"#, "tagged form"),
        ("cbor", r#"{"value":1.5}"#, "tagged form"),
        ("cbor", r#"{"value":null}"#, "tagged form"),
        ("cbor", r#"{"value":{}}"#, "without a tag"),
        ("cbor", r#"{"value":{"null":false}}"#, "null: not true"),
        ("cbor", r#"{"value":{"bytes":"abc"}}"#, "odd number of hex digits"),
        ("cbor", r#"{"value":{"bytes":"+1"}}"#, "something else than hex digits"),
        ("cbor", r#"{"value":{"text_hex":"ff"}}"#, "not UTF-8"),
        ("cbor", r#"{"value":{"uint":"-1"}}"#, "\"-1\" is no such integer"),
        ("cbor", r#"{"value":{"int":"9223372036854775808"}}"#, "no such integer"),
        ("cbor", r#"{"value":{"float":"1"}}"#, "invalid type"),
        ("cbor", r#"{"value":{"text":"a","bytes":""}}"#, "beside it"),
        ("cbor", r#"{"value":{"date":1}}"#, "unknown tag \"date\""),
        ("cbor", r#"{"value":{"map":[[1]]}}"#, "invalid length 1"),
        ("cbor", r#"{"value":{"map":[[1,2,3]]}}"#, "trailing"),
        ("cbor", r#"{"value":1"#, "EOF"),
        ("cbor", r#"{"value":1} 2"#, "trailing"),
        ("cbor", "[1]", "an object with the member"),
        ("msgpack", "\u{1F600}", "expected value"),
    ];
    for (format, line, part) in table {
        let good = r#"{"value":{"map":[]},"type":3}"#;
        let lines = format!("{good}\n\n{line}\n{good}");
        let output = encode(format, lines.as_bytes());
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{line}");
        assert!(
            stderr.starts_with("macula: line 3: ") && stderr.contains(part),
            "{part:?} in {stderr:?}"
        );
        assert!(stderr.ends_with("macula: 1 of 3 lines could not be read\n"), "{stderr}");
        let once = encode(format, good.as_bytes()).stdout;
        assert_eq!(output.stdout, [&once[..], &once].concat(), "{line}");

        let output = run(
            &["--json", "inspect", "--as", format, "--encode", "-"],
            lines.as_bytes(),
        );
        let events: Vec<Json> = std::str::from_utf8(&output.stdout)
            .expect("text")
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        let names: Vec<&str> = events.iter().map(|event| text(event, "event")).collect();
        assert_eq!(names, ["frame", "error", "frame", "error"]);
        assert_eq!((&events[0]["hex"], &events[1]["line"]), (&hex(&once).into(), &3.into()));
    }
}

#[test]
fn bytes_can_be_written_as_hex_digits() {
    let lines = b"{\"value\":1}\n{\"value\":{\"text\":\"a\"}}\n";
    let output = run(&["inspect", "--as", "cbor", "--encode", "--hex-out"], lines);
    assert_eq!(output.stdout, b"01\n6161\n");
}

#[test]
fn usage_errors_and_unreadable_files() {
    let table = [
        ("inspect", 2, "--as <FORMAT>"),
        (
            "inspect --as json",
            2,
            "possible values: peering, rpc, control, cbor, det-cbor, msgpack",
        ),
        ("inspect --as cbor --hex 0", 2, "an odd number of hex digits"),
        ("inspect --as cbor --hex 0g", 2, "something else than hex digits"),
        ("inspect --as cbor --hex 00 file", 2, "cannot be used with"),
        ("inspect --as cbor --hex 00 --encode", 2, "cannot be used with"),
        ("inspect --as cbor --hex-out", 2, "--encode"),
        ("inspect --as peering --key 00", 2, "64 hexadecimal digits"),
        ("inspect --as cbor --hex 00 --key KEY", 2, "--key is for --as peering"),
        ("inspect --as cbor /nonexistent/file", 1, "macula: /nonexistent/file: "),
        ("inspect --as cbor /", 1, "macula: /: "),
    ];
    for (line, code, part) in table {
        let line = line.replace("KEY", &"00".repeat(32));
        let words: Vec<&str> = line.split_whitespace().collect();
        let output = run(&words, &[]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{line}: {stderr}");
        assert!(stderr.contains(part), "{line}: {part:?} in {stderr}");
    }
}

#[test]
fn a_long_input_needs_little_memory_and_comes_out_as_it_goes_in() {
    const FRAMES: usize = 96;
    const LENGTH: u32 = 1 << 20;
    // A map with one entry: a text of one letter, and a byte string behind a head of five bytes.
    let heads = [&(LENGTH + 8).to_be_bytes()[..], b"\xa1\x61a\x5a", &LENGTH.to_be_bytes()];
    let frame = [&heads.concat()[..], &[7; LENGTH as usize]].concat();

    let mut child = command(&["inspect", "--as", "peering"])
        .spawn()
        .expect("the command starts");
    let mut input = child.stdin.take().expect("a pipe");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut line = Vec::new();
    for _ in 0..FRAMES {
        let frame = &frame;
        thread::scope(|scope| {
            scope.spawn(|| input.write_all(frame).expect("it reads"));
            line.clear();
            // The line comes although the input has not ended.
            lines.read_until(b'\n', &mut line).expect("a line");
        });
        assert_eq!(line.last(), Some(&b'\n'));
        assert!(line.len() > 2 * LENGTH as usize);
    }
    #[cfg(target_os = "linux")]
    {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).expect("a status");
        let most = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .expect("a figure");
        let most: u64 = most.trim().trim_end_matches(" kB").parse().expect("a number");
        assert!(most < 48 << 10, "{most} kB for frames of 1 MiB");
    }
    drop(input);
    let mut rest = Vec::new();
    lines.read_to_end(&mut rest).expect("an end");
    assert_eq!(rest, b"");
    assert_eq!(child.wait().expect("an end").code(), Some(0));
}

#[test]
fn values_across_every_boundary_of_reading() {
    // Texts of all lengths around the size of one read, so that heads and bodies are cut everywhere.
    let mut lines = String::new();
    for length in (0..200).chain(65_400..65_600).chain([1 << 17, 1 << 20]) {
        lines += &format!("{{\"value\":{{\"bytes\":\"{}\"}}}}\n", "ab".repeat(length));
    }
    for format in ["cbor", "det-cbor", "msgpack"] {
        let encoded = encode(format, lines.as_bytes()).stdout;
        let (values, output) = inspect_unparsed(format, &encoded);
        assert_eq!((values, output.status.code()), (402, Some(0)), "{format}");
        assert!(encode(format, &output.stdout).stdout == encoded, "{format}");
    }
}

#[test]
fn a_reader_that_has_seen_enough_ends_it_quietly() {
    for line in [
        &["inspect", "--as", "cbor"][..],
        &["inspect", "--as", "cbor", "--encode"],
    ] {
        let mut child = command(line).spawn().expect("the command starts");
        let mut input = child.stdin.take().expect("a pipe");
        drop(child.stdout.take());
        let bytes = match line.len() {
            3 => vec![0; 1 << 20],
            _ => b"{\"value\":1}\n".repeat(10_000),
        };
        let _ = input.write_all(&bytes);
        drop(input);
        let output = child.wait_with_output().expect("an end");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{line:?}");
        assert_eq!(output.status.code(), Some(0), "{line:?}");
    }
}
