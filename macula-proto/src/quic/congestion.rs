//! Congestion control that lets a close through.
//!
//! quinn-proto sends CONNECTION_CLOSE only when a full datagram fits into the congestion window as long as anything else is
//! waiting to be sent, and a closed connection takes no acknowledgements that would make room: a peer to which bulk is under
//! way would never be told. The close itself is a single small packet, so the window is taken away when it is due.

use std::{
    any::Any,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use quinn_proto::{
    RttEstimator,
    congestion::{Controller, ControllerFactory, ControllerMetrics, CubicConfig, NewRenoConfig},
};

use super::Congestion;

/// Larger than anything in flight, and large enough to switch pacing off.
const NO_WINDOW: u64 = u64::MAX / 2;

/// Makes controllers of the given kind that can be opened.
pub(super) fn factory(kind: Congestion) -> Arc<dyn ControllerFactory + Send + Sync> {
    Arc::new(Factory(kind))
}

/// Lets the close of a connection through.
pub(super) fn open(connection: &quinn_proto::Connection) {
    // The clone shares the switch.
    let controller = connection.congestion_state().clone_box().into_any();
    if let Ok(gate) = controller.downcast::<Gate>() {
        gate.open.store(true, Ordering::Relaxed);
    }
}

struct Factory(Congestion);

impl ControllerFactory for Factory {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let inner = match self.0 {
            Congestion::Cubic => Arc::new(CubicConfig::default()).build(now, current_mtu),
            Congestion::NewReno => Arc::new(NewRenoConfig::default()).build(now, current_mtu),
        };
        Box::new(Gate {
            inner,
            open: Arc::new(AtomicBool::new(false)),
        })
    }
}

struct Gate {
    inner: Box<dyn Controller>,
    open: Arc<AtomicBool>,
}

impl Controller for Gate {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.inner.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.inner.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest_acked: Option<u64>) {
        self.inner.on_end_acks(now, in_flight, app_limited, largest_acked);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, persistent: bool, lost_bytes: u64) {
        self.inner.on_congestion_event(now, sent, persistent, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.inner.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        if self.open.load(Ordering::Relaxed) {
            NO_WINDOW
        } else {
            self.inner.window()
        }
    }

    fn metrics(&self) -> ControllerMetrics {
        self.inner.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self {
            inner: self.inner.clone_box(),
            open: self.open.clone(),
        })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
