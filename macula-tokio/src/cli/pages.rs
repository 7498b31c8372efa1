//! That the command understands every command line, and every file, that the documentation shows.

use std::path::{Path, PathBuf};

use clap::{Parser as _, error::ErrorKind};

use super::{
    access,
    args::{Cli, Command},
    settings::RelaySettings,
};
use macula_proto::tunnel::relay::NodeLimits;

const PAGES: [(&str, &str); 8] = [
    ("README.md", include_str!("../../../README.md")),
    ("docs/beam.md", include_str!("../../../docs/beam.md")),
    ("docs/embedding.md", include_str!("../../../docs/embedding.md")),
    ("docs/peering.md", include_str!("../../../docs/peering.md")),
    ("docs/relay.md", include_str!("../../../docs/relay.md")),
    ("docs/rpc.md", include_str!("../../../docs/rpc.md")),
    ("docs/tokio.md", include_str!("../../../docs/tokio.md")),
    ("docs/dist.md", include_str!("../../../docs/dist.md")),
];

/// The words of all command lines of ours: those in blocks, with or without a prompt, and those in running text that have
/// an option.
fn command_lines(page: &str) -> Vec<String> {
    let joined = page.replace("\\\n", "");
    let mut lines = Vec::new();
    let mut inside = false;
    for line in joined.lines() {
        if line.starts_with("```") {
            inside = !inside;
        } else if inside {
            let line = line.split_once("$ ").map_or(line, |(_prompt, line)| line);
            let line = line.replace("cargo run --release --bin macula -- ", "macula ");
            let line = line.split(" #").next().unwrap_or_default();
            lines.extend(line.starts_with("macula ").then(|| line.to_owned()));
        } else {
            let quoted = line.split('`').skip(1).step_by(2);
            lines.extend(quoted.filter(|code| code.starts_with("macula ")).map(str::to_owned));
        }
    }
    lines
}

/// The arguments of a command in a shell, up to what is done with its output. Single quotes are the only ones on the pages.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for (number, part) in line.split('\'').enumerate() {
        if number % 2 == 1 {
            words.last_mut().expect("a word").push_str(part);
            continue;
        }
        let mut pieces = part.split(' ');
        words
            .last_mut()
            .expect("a word")
            .push_str(pieces.next().unwrap_or_default());
        words.extend(pieces.map(str::to_owned));
    }
    let redirected = |word: &String| matches!(&**word, "<" | ">" | "|");
    let ours = words.iter().position(redirected).unwrap_or(words.len());
    words.truncate(ours);
    words.retain(|word| !word.is_empty());
    words
}

/// Whether a line is no more than the name of a subcommand, with at most an option behind it.
fn bare(line: &str) -> bool {
    let words: Vec<&str> = line.split_whitespace().collect();
    matches!(words[..], [_, _]) || matches!(words[..], [_, _, option] if option.starts_with("--"))
}

/// Whether something is missing, rather than wrong.
fn is_incomplete(kind: ErrorKind) -> bool {
    let missing = [
        ErrorKind::MissingRequiredArgument,
        ErrorKind::InvalidValue,
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand,
    ];
    missing.contains(&kind)
}

#[test]
fn every_command_line_is_understood() {
    let mut understood = 0;
    for (page, text) in PAGES {
        for line in command_lines(text) {
            let hex = "ab".repeat(32);
            let line = line.replace("PIN", &hex).replace("NODE_ID", &hex);
            match Cli::try_parse_from(words(&line)) {
                Ok(Cli {
                    command: Command::Relay(args),
                    ..
                }) if args.config.is_none() => {
                    RelaySettings::new(*args).unwrap_or_else(|error| panic!("{page}: {line}: {error}"));
                }
                Ok(_) => {}
                // Where running text names a subcommand or an option without its value, or shows help.
                Err(error) if !error.use_stderr() || (is_incomplete(error.kind()) && bare(&line)) => continue,
                Err(error) => panic!("{page}: {line}: {error}"),
            }
            understood += 1;
        }
    }
    assert!(understood >= 15, "only {understood} command lines found");
}

#[test]
fn every_file_is_understood() {
    let (_, page) = PAGES[4];
    let file = |name: &str| {
        let from = page.find(&format!("```toml\n# {name}\n")).expect("a file") + "```toml\n".len();
        let rest = &page[from..];
        &rest[..rest.find("```").expect("its end")]
    };
    let rules = access::parse(Path::new("access.toml"), file("access.toml"), NodeLimits::default());
    assert_eq!(rules.expect("good rules").names.len(), 2);
    let directory = tempfile::tempdir().expect("a directory");
    let path: PathBuf = directory.path().join("relay.toml");
    std::fs::write(&path, file("relay.toml")).expect("a file");
    let line = ["macula", "relay", "--config", path.to_str().expect("text")];
    let Command::Relay(args) = Cli::try_parse_from(line).expect("arguments").command else {
        unreachable!("the subcommand is relay");
    };
    let settings = RelaySettings::new(*args).expect("good settings");
    assert!(settings.access.is_some() && settings.metrics.is_some());
}
