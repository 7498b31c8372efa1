//! The tests that `tests/LESSONS.md` names and that stand nowhere else; and a check of the table itself.

mod failures;
mod liveness;

use std::{collections::BTreeSet, fs, path::Path};

/// The names in backquotes of one line.
fn names(line: &str) -> Vec<&str> {
    line.split('`').skip(1).step_by(2).collect()
}

/// Whether there is a function of this name behind an attribute that makes it a test, or in a macro that does.
fn has_test(source: &str, name: &str) -> bool {
    let function = format!("fn {name}(");
    let alone = format!("    {name}");
    let mut marked = false;
    for line in source.lines() {
        let line = line.trim_end();
        if line.trim_start().starts_with("#[") {
            marked |= line.contains("test");
        } else if line.contains("fn ") {
            if line.contains(&function) && marked {
                return true;
            }
            marked = false;
        } else if line.strip_suffix(',').unwrap_or(line) == alone {
            // A list of names that a macro makes tests of.
            return true;
        }
    }
    false
}

#[test]
fn every_lesson_has_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let table = fs::read_to_string(root.join("tests/LESSONS.md")).expect("the table");
    let rows = table
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| lesson"));
    let mut numbers = Vec::new();
    for row in rows {
        let cells: Vec<_> = row.split(" | ").collect();
        assert_eq!(cells.len(), 3, "{row}");
        let number = cells[0].trim_start_matches("| ");
        numbers.push(number.parse::<u32>().unwrap_or_else(|_| panic!("no number: {row}")));
        let tests = names(cells[2]);
        assert!(!tests.is_empty(), "lesson {number} has no test");
        assert_eq!(
            tests.iter().collect::<BTreeSet<_>>().len(),
            tests.len(),
            "lesson {number} names one twice"
        );
        for test in tests {
            let (file, name) = test.split_once("::").unwrap_or_else(|| panic!("{test} is no test"));
            let source = fs::read_to_string(root.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
            assert!(has_test(&source, name), "lesson {number}: there is no {name} in {file}");
        }
    }
    assert_eq!(numbers, (1..=28).collect::<Vec<_>>(), "a row for each lesson, in order");
}

#[test]
fn a_test_that_does_not_exist_is_found_out() {
    let source = "#[test]\nfn there_is() {}\nfn no_test() {}\n#[tokio::test]\nasync fn too() {}\n";
    assert!(has_test(source, "there_is") && has_test(source, "too"));
    assert!(!has_test(source, "no_test") && !has_test(source, "there") && !has_test(source, "to"));
}
