//! Figures for Prometheus: of a relay, and how any others are served.

use std::{convert::Infallible, future::Future, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::CONTENT_TYPE,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use macula_proto::{
    quic::ConnectionStats,
    rpc::router::{RouterStats, RouterStatus},
    tunnel::relay::RelayStats,
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, text::encode},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::{Registry, Unit},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinHandle,
};

use super::{
    backend::{RelayHandle, RelaySnapshot},
    events::{Event, Events},
    outcome::Failure,
    report, router_report,
    values::HostPort,
};

/// Scrapers served at once; more wait.
const SCRAPERS: usize = 16;
/// Time for one request.
const PATIENCE: Duration = Duration::from_secs(10);

/// Something that can be told in figures.
pub(crate) trait Figures: Send + Sync + 'static {
    /// All of them as they are now, in the text format of Prometheus.
    fn text(&self) -> impl Future<Output = String> + Send;
}

/// Those of a relay.
pub(crate) struct OfRelay<R>(pub(crate) Arc<R>);

impl<R: RelayHandle> Figures for OfRelay<R> {
    async fn text(&self) -> String {
        text("macula_relay", Snapshot(self.0.snapshot().await))
    }
}

/// Listens for scrapers, tells where, and serves them until the task is aborted.
pub(crate) async fn open(at: &HostPort, figures: impl Figures, events: &Events) -> Result<JoinHandle<()>, Failure> {
    let failed = |error| Failure::failed("metrics", format_args!("cannot listen on {at}: {error}"));
    let addresses = at.resolve().await.map_err(failed)?;
    let listener = TcpListener::bind(&addresses[..]).await.map_err(failed)?;
    let addr = listener.local_addr().map_err(failed)?;
    let url = format!("http://{addr}/metrics");
    events.tell(&Event::Metrics { url });
    Ok(tokio::spawn(serve(listener, Arc::new(figures))))
}

async fn serve(listener: TcpListener, figures: Arc<impl Figures>) {
    let places = Arc::new(Semaphore::new(SCRAPERS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((tcp, _)) => {
                let figures = figures.clone();
                tokio::spawn(async move {
                    let _ = tokio::time::timeout(PATIENCE, answer(tcp, &*figures)).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection for figures");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn answer(tcp: TcpStream, figures: &impl Figures) {
    let service =
        service_fn(|request: Request<Incoming>| async move { Ok::<_, Infallible>(respond(&request, figures).await) });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(16 << 10)
        .keep_alive(false)
        .serve_connection(TokioIo::new(tcp), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a request for figures failed");
    }
}

async fn respond(request: &Request<Incoming>, figures: &impl Figures) -> Response<Full<Bytes>> {
    let (status, kind, body) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            (StatusCode::OK, kind, figures.text().await)
        }
        (_, "/metrics") => (StatusCode::METHOD_NOT_ALLOWED, "text/plain", "use GET\n".to_owned()),
        _ => (
            StatusCode::NOT_FOUND,
            "text/plain",
            "figures are at /metrics\n".to_owned(),
        ),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}

/// Everything that is collected, in the text format of Prometheus.
pub(crate) fn text(prefix: &str, figures: impl Collector) -> String {
    let mut registry = Registry::with_prefix(prefix);
    registry.register_collector(Box::new(figures));
    let mut out = String::new();
    // Writing into a string does not fail.
    let _ = encode(&mut out, &registry);
    out
}

#[derive(Debug)]
struct Snapshot(RelaySnapshot);

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let RelaySnapshot {
            status,
            stats,
            router,
            endpoint,
            connections,
            ..
        } = &self.0;
        let out = &mut encoder;
        gauge(
            out,
            "draining",
            "Whether the relay takes nothing new",
            u64::from(status.draining),
        )?;
        gauge(out, "names", "Names held", count(status.names.len()))?;
        gauge(out, "clients", "Connected clients", count(status.connections.len()))?;
        gauge(out, "tunnels", "Open tunnels", count(status.tunnels.len()))?;
        for (name, help, value) in report::counters(stats) {
            counter(out, name, help, value)?;
        }
        refusals(out, stats)?;
        if let Some((status, stats)) = router {
            routing(out, status, stats)?;
        }
        for (name, help, value) in [
            (
                "datagrams_received",
                "UDP datagrams received",
                endpoint.datagrams_received,
            ),
            ("datagrams_sent", "UDP datagrams sent", endpoint.datagrams_sent),
            (
                "bytes_received",
                "Bytes of UDP payload received",
                endpoint.bytes_received,
            ),
            ("bytes_sent", "Bytes of UDP payload sent", endpoint.bytes_sent),
            (
                "handshakes_failed",
                "Connections that failed in their handshake",
                endpoint.handshakes_failed,
            ),
            (
                "refused_handshaking",
                "Connections refused: too many handshakes",
                endpoint.refused_handshaking,
            ),
            (
                "refused_connections",
                "Connections refused: too many established",
                endpoint.refused_connections,
            ),
            ("retries", "Retry packets sent to validate addresses", endpoint.retries),
        ] {
            counter(out, name, help, value)?;
        }
        gauge(
            out,
            "handshaking",
            "Connections in their handshake",
            endpoint.handshaking,
        )?;
        paths(out, connections.values())
    }
}

/// Sums over the connections that are there now: gauges, because a connection that goes takes its part along.
fn paths<'a>(
    out: &mut DescriptorEncoder<'_>,
    connections: impl Iterator<Item = &'a ConnectionStats>,
) -> Result<(), std::fmt::Error> {
    let (mut sent, mut lost, mut holes, mut slowest) = (0, 0, 0, Duration::ZERO);
    for stats in connections {
        sent += stats.packets_sent;
        lost += stats.packets_lost;
        holes += stats.black_holes;
        slowest = slowest.max(stats.rtt);
    }
    gauge(
        out,
        "path_packets_sent",
        "Packets sent on connections that are there now",
        sent,
    )?;
    gauge(out, "path_packets_lost", "Of those: packets lost", lost)?;
    gauge(
        out,
        "path_black_holes",
        "Times that large datagrams stopped getting through on them",
        holes,
    )?;
    let rtt = ConstGauge::new(slowest.as_secs_f64());
    let help = "Largest smoothed round-trip time of all clients";
    let unit = Unit::Seconds;
    rtt.encode(out.encode_descriptor("path_rtt_max", help, Some(&unit), rtt.metric_type())?)
}

fn refusals(out: &mut DescriptorEncoder<'_>, stats: &RelayStats) -> Result<(), std::fmt::Error> {
    let help = "Tunnel requests refused, by reason";
    let mut all = out.encode_descriptor("requests_refused", help, None, MetricType::Counter)?;
    for (reason, value) in report::refused(stats) {
        ConstCounter::new(value).encode(all.encode_family(&[("reason", reason)])?)?;
    }
    Ok(())
}

fn routing(out: &mut DescriptorEncoder<'_>, status: &RouterStatus, stats: &RouterStats) -> Result<(), std::fmt::Error> {
    for (name, help, value) in [
        ("router_nodes", "Nodes connected to the router", status.nodes.len()),
        ("router_procedures", "Registered procedures", status.procedures.len()),
        ("router_streams", "Streaming calls under way", status.streams),
        ("router_calls", "Unary calls that wait for their reply", status.calls),
    ] {
        gauge(out, name, help, count(value))?;
    }
    for (name, help, value) in router_report::counters(stats) {
        counter(out, &format!("router_{name}"), help, value)?;
    }
    let help = "Messages received by the router, by type";
    let mut all = out.encode_descriptor("router_messages", help, None, MetricType::Counter)?;
    for (kind, value) in router_report::messages(stats) {
        ConstCounter::new(value).encode(all.encode_family(&[("type", kind)])?)?;
    }
    let help = "What the router refused, by reason";
    let mut all = out.encode_descriptor("router_refused", help, None, MetricType::Counter)?;
    for (reason, value) in router_report::refused(stats) {
        ConstCounter::new(value).encode(all.encode_family(&[("reason", reason)])?)?;
    }
    Ok(())
}

pub(crate) fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

pub(crate) fn gauge(
    out: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: u64,
) -> Result<(), std::fmt::Error> {
    let metric = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
    metric.encode(out.encode_descriptor(name, help, None, metric.metric_type())?)
}

pub(crate) fn counter(
    out: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: u64,
) -> Result<(), std::fmt::Error> {
    let metric = ConstCounter::new(value);
    metric.encode(out.encode_descriptor(name, help, None, metric.metric_type())?)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::{super::memory, *};
    use crate::cli::backend::{Backend as _, RelayOptions};

    #[test]
    fn figures_are_named_and_real() {
        let text = text("macula_relay", Snapshot(report::tests::snapshot()));
        for line in [
            "# HELP macula_relay_tunnels Open tunnels",
            "# TYPE macula_relay_tunnels gauge",
            "macula_relay_tunnels 1",
            "macula_relay_clients 3",
            "macula_relay_names 2",
            "macula_relay_draining 0",
            "macula_relay_connections_total 3",
            "macula_relay_malformed_total 2",
            "# TYPE macula_relay_requests_refused counter",
            "macula_relay_requests_refused_total{reason=\"target_not_connected\"} 4",
            "macula_relay_requests_refused_total{reason=\"busy\"} 0",
            "macula_relay_datagrams_received_total 77",
            "macula_relay_path_packets_sent 1000",
            "macula_relay_path_packets_lost 5",
            "macula_relay_path_rtt_max_seconds 0.012345",
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "{line:?} in:\n{text}");
        }
    }

    #[test]
    fn figures_of_the_router_are_there_if_it_is() {
        let mut snapshot = report::tests::snapshot();
        snapshot.router = Some(router_report::tests::figures());
        let text = text("macula_relay", Snapshot(snapshot));
        for line in [
            "macula_relay_router_procedures 2",
            "macula_relay_router_streams 3",
            "macula_relay_router_stalled_total 1",
            "macula_relay_router_messages_total{type=\"connect\"} 7",
            "macula_relay_router_refused_total{reason=\"not_found\"} 2",
        ] {
            assert!(text.lines().any(|found| found == line), "{line:?} in:\n{text}");
        }
    }

    #[tokio::test]
    async fn figures_are_served_and_nothing_else() {
        let options = RelayOptions {
            listen: std::net::SocketAddr::from(([127, 0, 0, 1], 0)),
            credentials: crate::cli::tls::self_signed().unwrap(),
            client_auth: macula_proto::quic::tls::ClientAuth::None,
            relay: macula_proto::tunnel::relay::RelayConfig::default(),
            router: None,
            sockets: 1,
            spin: std::time::Duration::ZERO,
        };
        let relay = Arc::new(memory::Memory::default().relay(options).await.unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let serving = tokio::spawn(serve(listener, Arc::new(OfRelay(relay))));
        for (request, first, part) in [
            ("GET /metrics", "HTTP/1.1 200 OK", "macula_relay_tunnels 0\n"),
            ("GET /", "HTTP/1.1 404 Not Found", "figures are at /metrics"),
            ("POST /metrics", "HTTP/1.1 405 Method Not Allowed", "use GET"),
            ("junk", "HTTP/1.1 400 Bad Request", ""),
        ] {
            let mut tcp = TcpStream::connect(addr).await.unwrap();
            tcp.write_all(format!("{request} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes())
                .await
                .unwrap();
            let mut answer = String::new();
            tcp.read_to_string(&mut answer).await.unwrap();
            assert!(
                answer.starts_with(first) && answer.contains(part),
                "{request}: {answer}"
            );
        }
        serving.abort();
    }
}
