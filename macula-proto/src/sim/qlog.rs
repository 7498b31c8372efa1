//! Traces as qlog (JSON text sequences of draft-ietf-quic-qlog-main-schema, version 0.3).

use std::io::{self, Write};

use super::{
    HostId,
    trace::{Record, Trace, What},
};

/// What every record of a JSON text sequence begins with (RFC 7464).
const SEPARATOR: &[u8] = b"\x1e";

/// Writes the records that are kept.
pub(super) fn write(
    out: &mut dyn Write,
    title: &str,
    trace: &Trace,
    name: &dyn Fn(HostId) -> String,
) -> io::Result<()> {
    out.write_all(SEPARATOR)?;
    writeln!(
        out,
        r#"{{"qlog_version":"0.3","qlog_format":"JSON-SEQ","title":{},"trace":{{"vantage_point":{{"name":"world","type":"network"}},"common_fields":{{"time_format":"relative","reference_time":0}}}}}}"#,
        quoted(title),
    )?;
    for record in trace.records() {
        let (event, data) = describe(record);
        let (millis, rest) = (record.at.as_millis(), record.at.subsec_nanos() % 1_000_000);
        let group = quoted(&name(record.host));
        out.write_all(SEPARATOR)?;
        writeln!(
            out,
            r#"{{"time":{millis}.{rest:06},"name":"{event}","group_id":{group},"data":{data}}}"#
        )?;
    }
    Ok(())
}

/// The name of an event and its data.
fn describe(record: &Record) -> (&'static str, String) {
    match &record.what {
        What::Sent { id, to, length, .. } => (
            "transport:datagrams_sent",
            format!(r#"{{"count":1,"raw":[{{"length":{length}}}],"datagram_ids":[{id}],"destination":"{to}"}}"#),
        ),
        What::Received { id, from, length } => (
            "transport:datagrams_received",
            format!(r#"{{"count":1,"raw":[{{"length":{length}}}],"datagram_ids":[{id}],"source":"{from}"}}"#),
        ),
        What::Dropped { id, length, reason } => (
            "transport:datagram_dropped",
            format!(r#"{{"raw":{{"length":{length}}},"datagram_id":{id},"details":"{reason}"}}"#),
        ),
        What::Timeout => ("simulation:timeout", "{}".to_owned()),
        What::Mapped { address } => ("simulation:nat_mapped", format!(r#"{{"address":"{address}"}}"#)),
        What::Event(event) => ("simulation:event", format!(r#"{{"message":{}}}"#, quoted(event))),
        What::Fault(fault) => ("simulation:fault", format!(r#"{{"message":{}}}"#, quoted(fault))),
    }
}

/// A string as JSON has it.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c < ' ' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
