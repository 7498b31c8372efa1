#![allow(
    unreachable_pub,
    dead_code,
    reason = "shared with the benchmarks of other crates, and each uses its part"
)]

/// `[--json] [--rounds N] [--only WORDS] [--with WORDS]`. Without `--bench` (as `cargo test --benches` runs it) or with `--test`
/// there is one tiny round, which only shows that everything works.
#[derive(Debug, Clone)]
pub struct Arguments {
    /// Everything once, and as little of it as there can be.
    pub quick: bool,
    /// A line of JSON for each row instead of tables.
    pub json: bool,
    /// How often everything is measured.
    pub rounds: usize,
    only: Vec<String>,
    with: Vec<String>,
}

impl Arguments {
    /// Those of this process; so many rounds unless they say otherwise. Whatever is not known is meant for another harness.
    pub fn read(rounds: usize) -> Self {
        let mut read = Self {
            quick: true,
            json: false,
            rounds,
            only: Vec::new(),
            with: Vec::new(),
        };
        let mut test = false;
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--bench" => read.quick = false,
                "--test" => test = true,
                "--json" => read.json = true,
                "--rounds" => read.rounds = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(read.rounds),
                "--only" => read.only.extend(arguments.next()),
                "--with" => read.with.extend(arguments.next()),
                _ => {}
            }
        }
        read.quick |= test;
        read.rounds = if read.quick { 1 } else { read.rounds.max(1) };
        read
    }

    /// Whether a contender takes part: `--with` names all that do, by words of theirs.
    pub fn takes(&self, name: &str) -> bool {
        self.with.is_empty() || self.with.iter().any(|words| name.contains(words.as_str()))
    }

    /// Whether a case is measured: `--only` names all that are, by words of theirs.
    pub fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|words| name.contains(words.as_str()))
    }
}
