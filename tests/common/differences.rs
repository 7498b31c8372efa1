//! The table of vectors on which this implementation and the deployed one differ, and the check that it is true.
//!
//! `docs/vectors.md` has one section per vector file, named after it, with rows of *name, theirs, ours, reason*.

use std::collections::BTreeMap;
use std::path::Path;

/// Compares verdicts with the section of one vector file, and fails at the end on whatever is not as the table says.
#[derive(Debug)]
pub(crate) struct Differences {
    file: &'static str,
    expected: BTreeMap<String, (String, String)>,
    faults: Vec<String>,
}

impl Differences {
    /// The rows of the section for `file`.
    pub(crate) fn of(file: &'static str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/vectors.md");
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut faults = Vec::new();
        let mut expected = BTreeMap::new();
        for line in section(&text, file).filter(|line| line.starts_with('|')).skip(2) {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let [name, theirs, ours, reason] = cells[..] else {
                faults.push(format!("not a row of four cells: {line}"));
                continue;
            };
            if reason.is_empty() {
                faults.push(format!("{name}: no reason given"));
            }
            let row = (theirs.to_owned(), ours.to_owned());
            if expected.insert(name.trim_matches('`').to_owned(), row).is_some() {
                faults.push(format!("{name}: listed twice"));
            }
        }
        Self { file, expected, faults }
    }

    /// Takes note of both verdicts on the vector `name`, in the words that the table uses.
    pub(crate) fn verdicts(&mut self, name: &str, theirs: &str, ours: &str) {
        let expected = self.expected.remove(name);
        match (expected, theirs == ours) {
            (None, true) => {}
            (None, false) => self
                .faults
                .push(format!("not listed: | `{name}` | {theirs} | {ours} | |")),
            (Some(_), true) => self.faults.push(format!("{name}: listed, but both say {ours}")),
            (Some((theirs_listed, ours_listed)), false) => {
                if (theirs_listed.as_str(), ours_listed.as_str()) != (theirs, ours) {
                    self.faults
                        .push(format!("listed otherwise: | `{name}` | {theirs} | {ours} | |"));
                }
            }
        }
    }

    /// Fails if anything differed from the table, or the table lists what was not seen.
    pub(crate) fn finish(mut self) {
        let stale = self
            .expected
            .keys()
            .map(|name| format!("{name}: listed, but no such vector was compared"));
        self.faults.extend(stale);
        assert!(
            self.faults.is_empty(),
            "docs/vectors.md, section {}:\n{}",
            self.file,
            self.faults.join("\n")
        );
    }
}

fn section<'a>(text: &'a str, file: &str) -> impl Iterator<Item = &'a str> {
    let heading = format!("## {file}");
    let lines = text.lines().skip_while(move |line| line.trim() != heading).skip(1);
    lines.take_while(|line| !line.starts_with("## "))
}
