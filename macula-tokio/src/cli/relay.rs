//! `macula relay`.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use macula_proto::{
    Limits,
    quic::tls::{ClientAuth, Pin},
    rpc::router::RouterConfig,
    tunnel::{
        Name,
        relay::{AccessRules, RelayConfig, Report, TunnelCloseReason},
    },
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::Instant,
};

use super::{
    access,
    admin::{self, AdminServer, Phase},
    backend::{Backend, RelayHandle, RelayOptions},
    events::{Event, Events},
    metrics,
    outcome::{Failure, Outcome},
    report::StatusReport,
    settings::{Admin, RelaySettings},
    signals::{Signal, Signals},
    tls,
    values::HostPort,
};

pub(crate) async fn run<B: Backend>(
    backend: &B,
    settings: RelaySettings,
    events: &Events,
    signals: &mut Signals,
) -> Outcome {
    let credentials = tls::identity(&settings.identity)?;
    let pin = credentials.pin();
    let options = RelayOptions {
        listen: resolve(&settings.listen).await?,
        credentials,
        // Deployed relays do not ask; only rules about names have a use for the answer.
        client_auth: match settings.access {
            Some(_) => ClientAuth::Request,
            None => ClientAuth::None,
        },
        relay: config(&settings)?,
        router: settings.router.then(RouterConfig::default),
        sockets: settings.sockets,
        spin: settings.spin,
    };
    let relay = backend
        .relay(options)
        .await
        .map_err(|error| Failure::failed("listen", format_args!("cannot listen on {}: {error}", settings.listen)))?;
    let relay = Arc::new(relay);
    events.tell(&Event::Certificate { pin: pin.to_string() });
    let addr = relay.local_addr().to_string();
    events.tell(&Event::Listening { addr });
    let offices = Offices::open(&settings, &relay, pin, events).await;
    let mut keeper = Keeper {
        relay: relay.clone(),
        settings,
        events,
        deadline: None,
        draining: false,
        tunnels_gone: false,
    };
    let outcome = match offices {
        Ok(mut offices) => {
            let outcome = keeper.keep(signals, &mut offices.drain).await;
            offices.close(matches!(outcome, Ok(End::Drained))).await;
            outcome.map(drop)
        }
        Err(failure) => Err(failure),
    };
    relay.close().await;
    outcome
}

/// The first address that a name stands for.
pub(crate) async fn resolve(listen: &HostPort) -> Result<SocketAddr, Failure> {
    let failed = |error| Failure::failed("listen", format_args!("{listen}: {error}"));
    let found = listen.resolve().await.map_err(failed)?;
    let first = found.into_iter().next();
    first.ok_or_else(|| failed(io::Error::new(io::ErrorKind::NotFound, "it has no address")))
}

fn config(settings: &RelaySettings) -> Result<RelayConfig, Failure> {
    let mut limits = Limits::default();
    limits.handshaking = settings.max_handshakes;
    let access = match &settings.access {
        Some(path) => access::load(path, settings.node_limits).map_err(|error| Failure::Usage(error.to_string()))?,
        None => AccessRules::default(),
    };
    Ok(RelayConfig {
        takeover: settings.takeover,
        access,
        node_limits: settings.node_limits,
        limits,
    })
}

/// Where a relay is asked how it is: the admin socket and the figures.
struct Offices {
    drain: mpsc::Receiver<()>,
    phase: watch::Sender<Phase>,
    admin: Option<JoinHandle<()>>,
    metrics: Option<JoinHandle<()>>,
}

impl Offices {
    async fn open<R: RelayHandle>(
        settings: &RelaySettings,
        relay: &Arc<R>,
        pin: Pin,
        events: &Events,
    ) -> Result<Self, Failure> {
        let metrics = match &settings.metrics {
            Some(at) => Some(metrics::open(at, metrics::OfRelay(relay.clone()), events).await?),
            None => None,
        };
        let (ask, drain) = mpsc::channel(1);
        let (phase, phases) = watch::channel(Phase::Running);
        let admin = open_admin(&settings.admin)?.map(|(path, server)| {
            let socket = path.display().to_string();
            events.tell(&Event::Admin { socket });
            let started = Instant::now();
            let listen = vec![relay.local_addr().to_string()];
            let describe =
                move |snapshot: &_| StatusReport::new(snapshot, started.elapsed(), listen.clone(), pin.to_string());
            tokio::spawn(server.serve(relay.clone(), describe, ask, phases))
        });
        Ok(Self {
            drain,
            phase,
            admin,
            metrics,
        })
    }

    async fn close(self, drained: bool) {
        self.phase.send_replace(Phase::Ended { drained });
        if let Some(metrics) = self.metrics {
            metrics.abort();
        }
        if let Some(admin) = self.admin {
            let _ = admin.await;
        }
    }
}

fn open_admin(settings: &Admin) -> Result<Option<(PathBuf, AdminServer)>, Failure> {
    match settings {
        Admin::Off => Ok(None),
        Admin::At(path) => match AdminServer::bind(path) {
            Ok(server) => Ok(Some((path.clone(), server))),
            Err(error) => Err(Failure::failed("admin", error)),
        },
        Admin::Default => {
            let path = admin::default_path();
            match AdminServer::bind(&path) {
                Ok(server) => Ok(Some((path, server))),
                Err(error) => {
                    tracing::info!(%error, "no admin socket");
                    Ok(None)
                }
            }
        }
    }
}

/// How a relay ends that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Drained,
    Stopped,
}

struct Keeper<'a, R> {
    relay: Arc<R>,
    settings: RelaySettings,
    events: &'a Events,
    /// When a drain has taken long enough.
    deadline: Option<Instant>,
    draining: bool,
    /// Only the router may have something left.
    tunnels_gone: bool,
}

impl<R: RelayHandle> Keeper<'_, R> {
    async fn keep(&mut self, signals: &mut Signals, drain: &mut mpsc::Receiver<()>) -> Result<End, Failure> {
        loop {
            let deadline = self.deadline;
            let too_late = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                report = self.relay.next_report() => match report {
                    Some(Report::Draining) => self.tell_draining().await,
                    Some(Report::Drained) => self.tunnels_gone = true,
                    Some(report) => tell(self.events, &report),
                    None => return Err(Failure::failed("relay", "the relay has stopped")),
                },
                signal = signals.next() => match signal {
                    Signal::Reload => self.reload(),
                    Signal::Stop if self.deadline.is_some() => return Ok(End::Stopped),
                    Signal::Stop => self.drain(Some(self.settings.drain_timeout)),
                },
                Some(()) = drain.recv() => self.drain(None),
                () = router_empty(&*self.relay), if self.tunnels_gone => {
                    self.events.tell(&Event::Drained);
                    return Ok(End::Drained);
                }
                () = too_late => return Ok(End::Stopped),
                () = self.events.closed() => return Ok(End::Stopped),
            }
        }
    }

    fn drain(&mut self, limit: Option<Duration>) {
        if let Some(limit) = limit {
            self.deadline = Some(Instant::now() + limit);
        }
        if !self.draining {
            self.draining = true;
            self.relay.drain();
        }
    }

    async fn tell_draining(&self) {
        let tunnels = self.relay.snapshot().await.status.tunnels.len();
        self.events.tell(&Event::Draining { tunnels });
    }

    /// Whatever is broken now stays as it was.
    fn reload(&self) {
        if let Some(path) = &self.settings.access {
            match access::load(path, self.settings.node_limits) {
                Ok(access) => {
                    self.relay.set_access(access);
                    self.events.tell(&Event::Reloaded { what: "access" });
                }
                Err(error) => tracing::warn!("the access rules stay as they were: {error}"),
            }
        }
        // A certificate of our own making has no file to be read again.
        if let super::settings::Identity::Files { cert, key } = &self.settings.identity {
            match tls::credentials(cert, key) {
                Ok(credentials) => {
                    let pin = credentials.pin().to_string();
                    self.relay.set_credentials(credentials);
                    self.events.tell(&Event::Reloaded { what: "certificate" });
                    self.events.tell(&Event::Certificate { pin });
                }
                Err(error) => tracing::warn!("the certificate stays as it was: {error}"),
            }
        }
    }
}

/// Waits until no node is connected to the router.
async fn router_empty(relay: &impl RelayHandle) {
    const EVERY: Duration = Duration::from_millis(50);
    while (relay.snapshot().await.router).is_some_and(|(status, _)| !status.nodes.is_empty()) {
        tokio::time::sleep(EVERY).await;
    }
}

fn tell(events: &Events, report: &Report) {
    if let Some(event) = event(report) {
        events.tell(&event);
    }
}

/// The event for a report; none for the beginning and the end of a drain, and for what later versions may report.
fn event(report: &Report) -> Option<Event> {
    Some(match report {
        Report::Identified { name, .. } => Event::Identified {
            name: name.to_string(),
            relay: None,
        },
        Report::Displaced { name, .. } => Event::Displaced { name: name.to_string() },
        Report::IdentifyRefused { name, why, .. } => Event::IdentifyRefused {
            name: name.to_string(),
            reason: (*why).to_owned(),
        },
        Report::TunnelOpened { id, source, target, .. } => Event::RelayTunnelOpen {
            id: id.to_string(),
            source: source.to_string(),
            target: target.to_string(),
        },
        Report::TunnelClosed {
            id,
            source,
            target,
            reason,
            bytes,
            ..
        } => Event::RelayTunnelClosed {
            id: id.to_string(),
            source: source.to_string(),
            target: target.to_string(),
            reason: close_reason(*reason),
            bytes_in: bytes.map(|bytes| bytes.to_target),
            bytes_out: bytes.map(|bytes| bytes.to_requester),
        },
        Report::RequestRefused {
            source, target, why, ..
        } => Event::RequestRefused {
            source: source.as_ref().map(Name::to_string),
            target: target.to_string(),
            reason: why.to_string(),
        },
        Report::Disconnected { names, closed, .. } => Event::Disconnected {
            reason: match closed {
                Some((code, "")) => code.to_string(),
                Some((code, reason)) => format!("{code}: {reason}"),
                None => "gone".to_owned(),
            },
            relay: None,
            names: names.iter().map(Name::to_string).collect(),
        },
        _ => return None,
    })
}

fn close_reason(reason: TunnelCloseReason) -> String {
    match reason {
        TunnelCloseReason::Finished => "finished".to_owned(),
        TunnelCloseReason::Reset(code) => format!("reset: {code}"),
        TunnelCloseReason::ClosedBySource => "closed by its source".to_owned(),
        TunnelCloseReason::ClosedByTarget => "closed by its target".to_owned(),
        TunnelCloseReason::PeerGone => "peer gone".to_owned(),
        _ => "over".to_owned(),
    }
}

#[cfg(test)]
mod tests;
