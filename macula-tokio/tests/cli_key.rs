//! `macula key`: what is stored, what is shown, and what is not.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use macula_tokio::{
    key_file::{self, Existing},
    proto::identity::{Identity, puzzle},
};
use serde_json::Value as Json;

fn macula(line: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_macula"));
    command.args(line).env_remove("RUST_LOG");
    command.output().expect("the command starts")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("text")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        Self { directory }
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("node.key")
    }

    fn names(&self) -> Vec<String> {
        let names = fs::read_dir(self.directory.path()).expect("a directory");
        names
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("text"))
            .collect()
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

fn key(line: &[&str], path: &Path) -> Output {
    macula(&[&["key"], line, &[text(path)]].concat())
}

#[cfg(unix)]
fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    fs::metadata(path).expect("a file").permissions().mode() & 0o7777
}

#[cfg(unix)]
fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
}

/// The answer to one command, which must not have the secret in it in any form.
fn told(output: &Output, path: &Path) -> Json {
    let identity = key_file::load(path).expect("a key");
    let all = format!("{}{}", stdout(output), stderr(output));
    for secret in [
        hex(&*identity.seed()),
        hex(&*identity.seed()).to_uppercase(),
        format!("{:?}", *identity.seed()),
    ] {
        assert!(!all.contains(&secret), "{all}");
    }
    let event: Json = serde_json::from_str(&stdout(output)).expect("one JSON object");
    assert_eq!(event["event"], "key");
    assert_eq!(event["path"], text(path));
    assert_eq!(event["node_id"], identity.node_id().to_string());
    assert_eq!(event["evidence"], hex(&identity.puzzle_evidence()));
    assert_eq!(event["difficulty"], puzzle::difficulty(&identity.node_id()));
    event
}

#[test]
fn a_new_key_is_stored_whole_and_private() {
    let place = Place::new();
    let path = place.file();
    let made = key(&["new", "--json"], &path);
    assert_eq!(made.status.code(), Some(0), "{}", stderr(&made));
    assert_eq!(stderr(&made), "");
    let event = told(&made, &path);
    assert_eq!((&event["private"], &event["attempts"]), (&true.into(), &Json::Null));
    assert_eq!(place.names(), ["node.key"]);
    assert_eq!(fs::metadata(&path).expect("a file").len(), 78);
    #[cfg(unix)]
    assert_eq!(mode(&path), 0o600);

    assert_eq!(told(&key(&["show", "--json"], &path), &path), event);
    let shown = stdout(&key(&["show"], &path));
    for part in ["node_id", "evidence"] {
        assert!(shown.contains(event[part].as_str().expect("text")), "{shown}");
    }
    assert!(!shown.contains(&hex(&*key_file::load(&path).expect("a key").seed())));
}

#[test]
fn nothing_is_overwritten_unless_told_to() {
    let place = Place::new();
    let path = place.file();
    fs::write(&path, b"precious").expect("a file");
    for line in [&["new"][..], &["new", "--puzzle", "1"], &["grind", "--puzzle", "64"]] {
        let refused = key(line, &path);
        assert_eq!(refused.status.code(), Some(1), "{line:?}");
        assert!(stderr(&refused).contains("--force replaces it"), "{}", stderr(&refused));
        assert_eq!(stdout(&refused), "");
        assert_eq!(fs::read(&path).expect("a file"), b"precious");
    }
    #[cfg(unix)]
    set_mode(&path, 0o644);
    assert_eq!(key(&["new", "--force"], &path).status.code(), Some(0));
    #[cfg(unix)]
    assert_eq!(mode(&path), 0o600);
    let first = key_file::load(&path).expect("a key");
    assert_eq!(key(&["new"], &path).status.code(), Some(1));
    assert_eq!(key_file::load(&path).expect("a key"), first);
    assert_eq!(
        key(&["grind", "--force", "--puzzle", "3"], &path).status.code(),
        Some(0)
    );
    assert_ne!(key_file::load(&path).expect("a key"), first);
    assert_eq!(place.names(), ["node.key"]);
}

#[cfg(unix)]
#[test]
fn a_name_that_leads_nowhere_is_a_name() {
    let place = Place::new();
    let path = place.file();
    let elsewhere = place.directory.path().join("elsewhere");
    std::os::unix::fs::symlink(&elsewhere, &path).expect("a link");
    assert_eq!(key(&["new"], &path).status.code(), Some(1));
    let identity = Identity::from_seed(&[7; 32]);
    let kept = key_file::store(&path, &identity, Existing::Keep);
    assert_eq!(
        kept.map_err(|error| error.kind()),
        Err(std::io::ErrorKind::AlreadyExists)
    );
    // What is replaced is the link, not what it leads to.
    key_file::store(&path, &identity, Existing::Replace).expect("it is stored");
    assert!(!elsewhere.exists());
    assert_eq!(place.names(), ["node.key"]);
}

#[test]
fn of_many_that_store_at_once_one_wins() {
    let place = Place::new();
    let path = place.file();
    let identities: Vec<Identity> = (0..16).map(|seed| Identity::from_seed(&[seed; 32])).collect();
    let stored: Vec<&Identity> = std::thread::scope(|scope| {
        let store = |identity| key_file::store(&path, identity, Existing::Keep);
        let threads: Vec<_> = identities
            .iter()
            .map(|identity| (identity, scope.spawn(move || store(identity))))
            .collect();
        let ended = threads
            .into_iter()
            .map(|(identity, thread)| (identity, thread.join().expect("no panic")));
        ended
            .filter_map(|(identity, stored)| stored.ok().map(|()| identity))
            .collect()
    });
    assert_eq!(stored, [&key_file::load(&path).expect("a key")]);
    assert_eq!(place.names(), ["node.key"]);
}

#[test]
fn a_puzzle_is_solved() {
    let place = Place::new();
    let path = place.file();
    for line in [
        &["new", "--json", "--puzzle", "10"][..],
        &["grind", "--json", "--force", "--puzzle", "10"],
    ] {
        let made = key(line, &path);
        assert_eq!(made.status.code(), Some(0), "{}", stderr(&made));
        let event = told(&made, &path);
        assert!(event["difficulty"].as_u64() >= Some(10), "{event}");
        assert!(event["attempts"].as_u64() >= Some(1), "{event}");
        fs::remove_file(&path).expect("it is there");
    }
    assert_eq!(key(&["grind"], &path).status.code(), Some(0));
    assert!(puzzle::solves(
        &key_file::load(&path).expect("a key").node_id(),
        puzzle::DEFAULT_DIFFICULTY
    ));
}

#[cfg(unix)]
#[test]
fn a_search_can_be_interrupted() {
    use std::{
        io::{BufRead as _, BufReader, Read as _},
        process::Stdio,
    };
    let place = Place::new();
    let mut child = Command::new(env!("CARGO_BIN_EXE_macula"))
        .args(["key", "grind", "--json", "--puzzle", "64", text(&place.file())])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut line = String::new();
    lines.read_line(&mut line).expect("a line");
    let progress: Json = serde_json::from_str(&line).expect("JSON");
    assert_eq!(progress["event"], "progress");
    assert!(
        progress["attempts"].as_u64() > Some(0) && progress["per_second"].as_u64() > Some(0),
        "{progress}"
    );
    assert_eq!(progress["expected"], u64::MAX);
    let pid = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-INT", &pid])
            .status()
            .expect("kill")
            .success()
    );
    let status = child.wait().expect("an end");
    assert_eq!(status.code(), Some(1));
    let mut rest = String::new();
    lines.read_to_string(&mut rest).expect("text");
    let last: Json = serde_json::from_str(rest.lines().last().expect("a line")).expect("JSON");
    assert_eq!(
        (&last["event"], &last["kind"]),
        (&"error".into(), &"interrupted".into())
    );
    assert_eq!(place.names(), [""; 0]);
}

#[test]
fn a_damaged_file_is_refused() {
    let place = Place::new();
    let path = place.file();
    assert_eq!(key(&["new"], &path).status.code(), Some(0));
    let good = fs::read(&path).expect("a file");
    let changed = |change: fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        bytes
    };
    let table = [
        (changed(Vec::clear), "a key file has 78 bytes, this one has 0"),
        (changed(|bytes| bytes.truncate(77)), "this one has 77"),
        (changed(|bytes| bytes.push(0)), "this one has 79"),
        (changed(|bytes| bytes.resize(1 << 20, 0)), "a key file has 78 bytes"),
        (changed(|bytes| bytes[0] ^= 1), "not a key file of version 2"),
        (changed(|bytes| bytes[14] ^= 1), "does not belong to the secret seed"),
        (changed(|bytes| bytes[77] ^= 1), "does not belong to the secret seed"),
    ];
    for (bytes, part) in table {
        fs::write(&path, &bytes).expect("it is written");
        let refused = key(&["show"], &path);
        assert_eq!(refused.status.code(), Some(1), "{part}");
        assert!(
            stderr(&refused).contains(part) && stderr(&refused).contains("node.key: "),
            "{}",
            stderr(&refused)
        );
        assert_eq!(stdout(&refused), "");
        assert!(!stderr(&refused).contains(&hex(&good[46..])));
        let error = key_file::load(&path).expect_err("refused");
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
    }
    let missing = key(&["show"], Path::new("/nonexistent/node.key"));
    assert_eq!(missing.status.code(), Some(1));
    assert!(stderr(&missing).contains("/nonexistent/node.key: "));
}

#[cfg(unix)]
#[test]
fn a_file_that_others_can_read_is_taken_with_a_warning() {
    let place = Place::new();
    let path = place.file();
    assert_eq!(key(&["new"], &path).status.code(), Some(0));
    for (bits, private) in [
        (0o600, true),
        (0o400, true),
        (0o640, false),
        (0o604, false),
        (0o620, false),
    ] {
        set_mode(&path, bits);
        let shown = key(&["show", "--json"], &path);
        assert_eq!(shown.status.code(), Some(0), "{bits:o}");
        assert_eq!(told(&shown, &path)["private"], private, "{bits:o}");
        assert_eq!(
            stderr(&shown).contains("mode should be 0600"),
            !private,
            "{}",
            stderr(&shown)
        );
    }
}

#[test]
fn a_place_where_nothing_can_be_stored() {
    let place = Place::new();
    for path in [place.directory.path().join("no/such/node.key"), PathBuf::from("/")] {
        let refused = key(&["new", "--force"], &path);
        assert_eq!(refused.status.code(), Some(1), "{}", path.display());
        assert!(stderr(&refused).starts_with("macula: "), "{}", stderr(&refused));
    }
    let directory = place.directory.path().join("directory");
    fs::create_dir(&directory).expect("a directory");
    assert_eq!(key(&["new", "--force"], &directory).status.code(), Some(1));
    assert_eq!(place.names(), ["directory"]);
    for bits in ["65", "-1", "many"] {
        let refused = macula(&["key", "new", "f", "--puzzle", bits]);
        assert_eq!(refused.status.code(), Some(2), "{bits}");
    }
}
