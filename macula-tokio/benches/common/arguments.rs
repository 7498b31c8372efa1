/// `[--json] [--rounds N] [--only WORDS] [--with WORDS]`. Without `--bench` (as `cargo test --benches` runs it) or with `--test` there is one
/// tiny round, which only shows that everything works.
pub(crate) struct Arguments {
    pub(crate) quick: bool,
    pub(crate) json: bool,
    pub(crate) rounds: usize,
    only: Vec<String>,
    with: Vec<String>,
}

impl Arguments {
    /// Whatever is not known is meant for another harness.
    pub(crate) fn read() -> Self {
        let mut read = Self {
            quick: true,
            json: false,
            rounds: 7,
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

    /// Whether a contender takes part.
    #[allow(dead_code, reason = "each benchmark uses its share")]
    pub(crate) fn takes(&self, name: &str) -> bool {
        self.with.is_empty() || self.with.iter().any(|words| name.contains(words.as_str()))
    }

    /// Whether a case is measured.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|words| name.contains(words.as_str()))
    }
}
