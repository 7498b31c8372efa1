//! `macula status` and `macula drain`: talking to a relay on this machine.

use std::{
    io::IsTerminal as _,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Serialize;

use super::{
    admin::{self, AdminClient, AdminError, Answer},
    args::{DrainArgs, StatusArgs},
    events::{Event, Events},
    outcome::{Failure, Outcome},
    report::StatusReport,
    signals::Signals,
};

/// How long a relay may take to say how it is.
const PATIENCE: Duration = Duration::from_secs(5);
/// Clears a terminal and puts the cursor into its corner.
const CLEAR: &str = "\x1b[H\x1b[2J";

pub(crate) async fn status(args: StatusArgs, events: &Events, signals: &mut Signals) -> Outcome {
    let path = args.admin.admin.unwrap_or_else(admin::find);
    let clear = args.watch && !events.is_json() && std::io::stdout().is_terminal();
    loop {
        let report = fetch(&path).await?;
        let text = show(&report, events.is_json());
        events.print(if clear { format!("{CLEAR}{text}") } else { text });
        if !args.watch {
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep(args.interval) => {}
            () = signals.stop() => return Ok(()),
            () = events.closed() => return Ok(()),
        }
        if !clear && !events.is_json() {
            events.print("\n".to_owned());
        }
    }
}

async fn fetch(path: &Path) -> Result<StatusReport, Failure> {
    let asking = async { AdminClient::connect(path).await?.status().await };
    match tokio::time::timeout(PATIENCE, asking).await {
        Ok(report) => report.map_err(failed),
        Err(_) => Err(Failure::Timeout(format!("no answer within {} s", PATIENCE.as_secs()))),
    }
}

#[derive(Serialize)]
struct StatusEvent<'a> {
    event: &'static str,
    #[serde(flatten)]
    report: &'a StatusReport,
}

fn show(report: &StatusReport, json: bool) -> String {
    let event = StatusEvent {
        event: "status",
        report,
    };
    match json {
        true => serde_json::to_string(&event).unwrap_or_default() + "\n",
        false => report.to_string(),
    }
}

pub(crate) async fn drain(args: DrainArgs, events: &Events, signals: &mut Signals) -> Outcome {
    let path = args.admin.admin.unwrap_or_else(admin::find);
    let limit = async {
        match args.timeout {
            Some(timeout) => tokio::time::sleep(timeout).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        outcome = drained(path, events) => outcome,
        () = limit => Err(Failure::Timeout("the relay has not drained yet, and goes on with it".to_owned())),
        () = signals.stop() => Err(Failure::failed("interrupted", "the relay goes on draining")),
    }
}

async fn drained(path: PathBuf, events: &Events) -> Outcome {
    let mut client = AdminClient::connect(&path).await.map_err(failed)?;
    client.drain().await.map_err(failed)?;
    loop {
        match client.answer().await.map_err(failed)? {
            Answer::Draining(remaining) => events.tell(&Event::Draining {
                tunnels: remaining.tunnels,
            }),
            Answer::Drained(true) => {
                events.tell(&Event::Drained);
                return Ok(());
            }
            Answer::Drained(false) => {
                return Err(Failure::failed("drain", "the relay was stopped before it was empty"));
            }
            Answer::Status(_) | Answer::Error(_) => return Err(Failure::failed("admin", "an answer to nothing asked")),
        }
    }
}

fn failed(error: AdminError) -> Failure {
    Failure::failed("admin", error)
}

#[cfg(test)]
mod tests {
    use super::{super::report::tests::report, *};

    #[test]
    fn a_status_is_an_event_or_a_table() {
        let line = show(&report(), true);
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["event"], "status");
        assert_eq!(value["names"][0]["name"], "alice@host1");
        assert_eq!(value["connections"][0]["rtt_ms"], 12.345);
        assert_eq!(value["tunnels"][0]["bytes_in"], 5000);
        assert_eq!(line.matches('\n').count(), 1);
        assert!(show(&report(), false).starts_with("relay "));
    }
}
