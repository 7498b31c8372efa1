//! What a page of the documentation contains.

use std::{fs, path::Path};

/// A line of a session.
#[derive(Debug)]
pub(crate) enum Step {
    /// A command that is typed into the shell of a host.
    Start { host: String, command: String },
    /// A line that is typed into the command.
    Type(String),
    /// A line that the command prints.
    Expect(String),
}

/// The text of a page, by its path in the repository.
pub(crate) fn read(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The sessions of a page, in order.
pub(crate) fn sessions(page: &str) -> Vec<Step> {
    let lines = blocks(page, "console").flat_map(|block| {
        let joined = block.replace("\\\n", "");
        joined.lines().map(step).collect::<Vec<_>>()
    });
    lines.collect()
}

fn step(line: &str) -> Step {
    if let Some((host, command)) = line.split_once("$ ")
        && host.chars().all(char::is_alphanumeric)
    {
        let (host, command) = (host.to_owned(), command.to_owned());
        return Step::Start { host, command };
    }
    match line.split_once("> ") {
        Some((prompt, typed)) if prompt.ends_with(|c: char| c.is_ascii_digit()) => Step::Type(typed.to_owned()),
        _ => Step::Expect(line.to_owned()),
    }
}

/// The files that a page shows: name and content.
pub(crate) fn files(page: &str) -> Vec<(&str, String)> {
    let named = blocks(page, "toml").filter_map(|block| {
        let name = block.lines().next()?.strip_prefix("# ")?;
        name.ends_with(".toml").then(|| (name, block.to_owned()))
    });
    named.collect()
}

/// The contents of all blocks in a language.
fn blocks<'a>(page: &'a str, language: &str) -> impl Iterator<Item = &'a str> {
    let fence = format!("\n```{language}\n");
    let behind: Vec<&str> = page.split(fence.as_str()).skip(1).collect();
    behind.into_iter().map(|rest| {
        let end = rest.find("\n```").expect("a block has an end");
        &rest[..=end]
    })
}
