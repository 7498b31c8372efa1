//! Key logs and qlog traces.

#![cfg(all(feature = "self-signed", feature = "qlog"))]

mod common;

use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use common::{CLIENT, SERVER, World, secs};
use macula_proto::{
    Code,
    quic::{Dir, Qlog, tls::KeyLog},
};

#[derive(Debug, Default)]
struct Lines(Mutex<Vec<String>>);

impl KeyLog for Lines {
    fn line(&self, line: &str) {
        self.0.lock().unwrap().push(line.to_owned());
    }
}

#[test]
fn both_sides_log_the_same_secrets_on_request() {
    let mut world = World::pair();
    let logs = [Arc::new(Lines::default()), Arc::new(Lines::default())];
    let clock = world.server().clock().clone();
    let tls = world
        .server_tls(SERVER)
        .key_log(logs[SERVER].clone())
        .build(&clock)
        .unwrap();
    world.listen(SERVER, |config| config.tls = tls);
    let mut config = world.dial_config(SERVER);
    let clock = world.client().clock().clone();
    config.tls = world
        .client_tls(SERVER)
        .key_log(logs[CLIENT].clone())
        .build(&clock)
        .unwrap();
    world.establish(&config);
    let [mut client, mut server] = logs.map(|log| log.0.lock().unwrap().clone());
    client.sort();
    server.sort();
    assert_eq!(client, server);
    for label in [
        "CLIENT_HANDSHAKE_TRAFFIC_SECRET ",
        "SERVER_HANDSHAKE_TRAFFIC_SECRET ",
        "CLIENT_TRAFFIC_SECRET_0 ",
        "SERVER_TRAFFIC_SECRET_0 ",
    ] {
        assert_eq!(
            client.iter().filter(|line| line.starts_with(label)).count(),
            1,
            "{label}"
        );
    }
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_qlog_trace_is_a_sequence_of_json_records() {
    let mut world = World::pair();
    let out = Shared::default();
    let mut config = world.dial_config(SERVER);
    let start = world.start;
    config.transport.qlog = Qlog::new(Box::new(out.clone()), "a dial", start);
    assert!(config.transport.qlog.is_some());
    let (c, _) = world.establish(&config);
    let mut conn = world.client().connection(c).unwrap();
    let stream = conn.open(Dir::Bi).unwrap();
    conn.stream(stream).unwrap().write(&[0; 10_000]).unwrap();
    world.run_for(secs(1));
    let now = world.now;
    world.client().close_all(now, Code::CLOSED, &Bytes::new());
    world.run_to_rest();
    let bytes = out.0.lock().unwrap().clone();
    let records: Vec<serde_json::Value> = bytes
        .split(|byte| *byte == 0x1e)
        .filter(|record| !record.is_empty())
        .map(|record| serde_json::from_slice(record).unwrap())
        .collect();
    assert_eq!(records[0]["title"], "a dial");
    assert!(records.len() > 20, "{}", records.len());
    let sent = records
        .iter()
        .filter(|record| record["name"] == "transport:packet_sent")
        .count();
    assert!(sent > 5, "{sent}");
}
