//! The `macula` command.

mod access;
mod admin;
mod args;
mod backend;
mod beam;
mod bench;
mod demo;
mod dist;
mod events;
mod expose;
mod forward;
mod inspect;
mod key;
#[cfg(test)]
mod memory;
mod metrics;
mod network;
mod node;
mod outcome;
mod output;
#[cfg(test)]
mod pages;
mod peer;
mod relay;
mod report;
mod router_report;
mod rpc;
mod scalar;
mod settings;
mod signals;
mod status;
mod tls;
mod toml_error;
mod values;

use std::{io::IsTerminal as _, process::ExitCode};

use clap::{CommandFactory as _, Parser as _, error::ErrorKind};
use tracing_subscriber::EnvFilter;

use args::{Cli, Command};
use backend::Backend;
use events::Events;
use outcome::{Failure, Outcome};
use settings::RelaySettings;
use signals::Signals;

/// Runs the command that the arguments of this process name, to its end.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Help and version are among them; exit code 2 for real errors.
        Err(error) => error.exit(),
    };
    start_log(cli.verbose);
    if let Command::Completions(args) = &cli.command {
        return completions(args.shell);
    }
    let events = Events::stdout(cli.json);
    if let Command::Inspect(args) = cli.command {
        // A filter: no runtime, and signals end it as they end any other.
        return end(inspect::run(&args, cli.json), &events);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => {
            let outcome = runtime.block_on(run(&network::Network, cli.command, &events));
            // Whatever still looks up a name is not waited for.
            runtime.shutdown_background();
            outcome
        }
        Err(error) => Err(Failure::failed("runtime", error)),
    };
    end(outcome, &events)
}

async fn run<B: Backend>(backend: &B, command: Command, events: &Events) -> Outcome {
    let mut signals = Signals::of_process().map_err(|error| Failure::failed("signals", error))?;
    let signals = &mut signals;
    match command {
        Command::Relay(args) => {
            let settings = RelaySettings::new(*args).map_err(|error| Failure::Usage(error.to_string()))?;
            relay::run(backend, settings, events, signals).await
        }
        Command::Expose(args) => expose::run(backend, *args, events, signals).await,
        Command::Forward(args) => forward::run(backend, *args, events, signals).await,
        Command::Beam(args) => beam::run(backend, *args, events, signals).await,
        Command::Status(args) => status::status(args, events, signals).await,
        Command::Drain(args) => status::drain(args, events, signals).await,
        Command::Demo(args) => demo::run(backend, args, events, signals).await,
        Command::Bench(args) => bench::run(*args, events, signals).await,
        Command::Peer(args) => peer::run(args.command, events, signals).await,
        Command::Rpc(args) => rpc::run(args.command, events, signals).await,
        Command::Dist(args) => dist::run(args.command, events, signals).await,
        Command::Key(args) => key::run(args.command, events, signals).await,
        Command::Inspect(_) | Command::Completions(_) => Ok(()),
    }
}

fn end(outcome: Outcome, events: &Events) -> ExitCode {
    let Err(failure) = outcome else {
        events.flush();
        return ExitCode::SUCCESS;
    };
    if events.is_json() {
        events.error(failure.kind().to_owned(), &failure);
    }
    events.flush();
    match &failure {
        Failure::Usage(message) => {
            // In the same words and colours as what the argument parser finds.
            let error = Cli::command().error(ErrorKind::ValueValidation, message);
            let _ = error.print();
        }
        Failure::Failed { .. } | Failure::Timeout(_) => eprintln!("macula: {failure}"),
    }
    failure.exit_code()
}

fn completions(shell: clap_complete::Shell) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "macula", &mut script);
    match std::io::Write::write_all(&mut std::io::stdout(), &script) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}

fn start_log(verbose: u8) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| {
        EnvFilter::new(match verbose {
            0 => "warn",
            1 => "info",
            2 => "debug",
            _ => "trace",
        })
    });
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}
