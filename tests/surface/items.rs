//! The public items of a crate, read from its source as rustfmt lays it out.

use std::{collections::BTreeMap, fs, path::Path};

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Items {
    /// The declaration of each item, by its path. What is re-exported is declared by where it comes from.
    pub(crate) found: BTreeMap<String, String>,
}

impl Items {
    /// Reads a module, and the public ones in it.
    pub(crate) fn module(&mut self, file: &Path, path: &str) {
        let source = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let mut lines = source.lines().filter(|line| !line.trim_start().starts_with("//"));
        // The type whose methods follow.
        let mut owner: Option<String> = None;
        while let Some(line) = lines.next() {
            if line == "}" {
                owner = None;
            } else if let Some(of) = line.strip_prefix("impl") {
                // Methods of traits have no `pub`, and belong to the trait.
                owner = Some(name(of.rsplit("> ").next().unwrap_or(of)));
            } else if line.trim_start().starts_with("pub ") {
                let mut declared = line.trim().to_owned();
                let ends: &[char] = match declared.trim_start_matches("pub ").split(' ').next() {
                    Some("use") => &[';'],
                    Some("fn" | "async" | "const") => &['{', ';'],
                    _ => &['{', ';', '}', ','],
                };
                while !declared.ends_with(ends) {
                    let Some(next) = lines.next() else { break };
                    declared.push_str(next.trim());
                }
                self.item(file, path, owner.as_deref(), &declared);
                if line.starts_with("pub trait") {
                    owner = Some(name(line.trim_start_matches("pub trait")));
                }
            } else if let Some(of) = &owner
                && self.found.contains_key(&join(path, of))
                && line.starts_with("    fn ")
            {
                self.found.insert(
                    join(path, &format!("{of}::{}", name(line.trim_start_matches("    fn ")))),
                    line.trim().to_owned(),
                );
            }
        }
    }

    fn item(&mut self, file: &Path, path: &str, owner: Option<&str>, declared: &str) {
        let declared = declared.trim_end_matches([' ', '{', ';', ',']);
        let words = declared.trim_start_matches("pub ");
        if let Some(tree) = words.strip_prefix("use ") {
            return self.reexported(file, path, "", tree);
        }
        let rest = [
            "async fn ",
            "const fn ",
            "fn ",
            "struct ",
            "enum ",
            "trait ",
            "mod ",
            "type ",
            "const ",
        ]
        .iter()
        .find_map(|kind| words.strip_prefix(kind));
        // A field is part of its type.
        let Some(rest) = rest else { return };
        let name = match owner {
            Some(owner) => format!("{owner}::{}", name(rest)),
            None => name(rest),
        };
        if words.starts_with("mod ") {
            let folder = file.parent().expect("a folder");
            let flat = folder.join(format!("{name}.rs"));
            let inner = if flat.exists() {
                flat
            } else {
                folder.join(&name).join("mod.rs")
            };
            self.module(&inner, &join(path, &name));
        }
        self.found.insert(join(path, &name), declared.to_owned());
    }

    /// One branch of a `use`.
    fn reexported(&mut self, file: &Path, path: &str, from: &str, tree: &str) {
        let tree = tree.trim();
        if let Some((outer, inner)) = tree.split_once('{') {
            let from = format!("{from}{outer}");
            let (mut depth, mut start) = (0, 0);
            let inner = inner.strip_suffix('}').expect("braces match");
            for (at, character) in inner.char_indices().chain([(inner.len(), ',')]) {
                match character {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    ',' if depth == 0 => {
                        if !inner[start..at].trim().is_empty() {
                            self.reexported(file, path, &from, &inner[start..at]);
                        }
                        start = at + 1;
                    }
                    _ => {}
                }
            }
            return;
        }
        let (source, name) = match tree.split_once(" as ") {
            Some((source, name)) => (source, name),
            None => (tree, tree.rsplit("::").next().unwrap_or(tree)),
        };
        let name = join(path, name);
        let source = format!("{from}{source}");
        let module = source.split("::").next().unwrap_or_default();
        let private = file.with_file_name(format!("{module}.rs"));
        if !private.exists() {
            self.found.insert(name, format!("pub use {source}"));
            return;
        }
        // A module of this crate that is not public itself.
        let mut items = Self::default();
        items.module(&private, path);
        let methods = format!("{name}::");
        let wanted = items
            .found
            .into_iter()
            .filter(|(found, _)| *found == name || found.starts_with(&methods));
        self.found.extend(wanted);
    }
}

fn join(path: &str, name: &str) -> String {
    match path {
        "" => name.to_owned(),
        path => format!("{path}::{name}"),
    }
}

/// The name that a declaration begins with.
fn name(declared: &str) -> String {
    let declared = declared.trim_start();
    let end = declared
        .find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(declared.len());
    declared[..end].to_owned()
}
