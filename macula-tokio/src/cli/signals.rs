//! Signals of the operating system.

use std::io;

use tokio::sync::mpsc;

/// What the user wants of a running command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// SIGINT (Ctrl-C) or SIGTERM.
    Stop,
    /// SIGHUP.
    Reload,
}

/// Signals in the order in which they came.
#[derive(Debug)]
pub(crate) struct Signals(mpsc::Receiver<Signal>);

impl Signals {
    /// Those of this process, which do not end it any more from now on.
    pub(crate) fn of_process() -> io::Result<Self> {
        let (tell, signals) = mpsc::channel(4);
        imp::listen(tell)?;
        Ok(Self(signals))
    }

    /// Those that are sent through the returned channel.
    #[cfg(test)]
    pub(crate) fn by_hand() -> (mpsc::Sender<Signal>, Self) {
        let (tell, signals) = mpsc::channel(4);
        (tell, Self(signals))
    }

    pub(crate) async fn next(&mut self) -> Signal {
        match self.0.recv().await {
            Some(signal) => signal,
            None => std::future::pending().await,
        }
    }

    /// The next signal of those that a command without anything to reload knows: all mean the end.
    pub(crate) async fn stop(&mut self) {
        self.next().await;
    }
}

#[cfg(unix)]
mod imp {
    use tokio::signal::unix::{SignalKind, signal};

    use super::{Signal, io, mpsc};

    pub(super) fn listen(tell: mpsc::Sender<Signal>) -> io::Result<()> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hangup = signal(SignalKind::hangup())?;
        tokio::spawn(async move {
            loop {
                let signal = tokio::select! {
                    _ = interrupt.recv() => Signal::Stop,
                    _ = terminate.recv() => Signal::Stop,
                    _ = hangup.recv() => Signal::Reload,
                };
                if tell.send(signal).await.is_err() {
                    return;
                }
            }
        });
        Ok(())
    }
}

#[cfg(not(unix))]
mod imp {
    use super::{Signal, io, mpsc};

    #[expect(clippy::unnecessary_wraps, reason = "the same signature everywhere")]
    pub(super) fn listen(tell: mpsc::Sender<Signal>) -> io::Result<()> {
        tokio::spawn(
            async move { while tokio::signal::ctrl_c().await.is_ok() && tell.send(Signal::Stop).await.is_ok() {} },
        );
        Ok(())
    }
}
