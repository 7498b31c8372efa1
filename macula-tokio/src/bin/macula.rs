//! The `macula` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    macula_tokio::cli::main()
}
