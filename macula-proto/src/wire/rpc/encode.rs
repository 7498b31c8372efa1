//! From messages to bytes, in either encoding and without a value tree in between.

use super::data;
use super::message::{RAW, TERM};
use super::{
    Call, Chunk, Connect, EncodeError, Fault, HEADER, Kind, MAX_PAYLOAD, Message, Outcome, Publish, Reply, StreamData,
    StreamId, StreamOpen, VERSION,
};
use crate::wire::{self, Encoding, Value, cbor, msgpack};
use bytes::{BufMut, Bytes, BytesMut};

impl Message {
    /// Appends the message with its header.
    ///
    /// Keys, enumerations and strings are written as deployed peers write them: in CBOR the keys of `connect`, `ping` and the
    /// messages of streams are text, those of all others byte strings; in MessagePack every string is `bin`.
    /// Values are written as they are: for deployed MessagePack peers, which understand no `str`, they must not contain
    /// [`Value::Text`] (see [`Message::text_to_bytes`]).
    ///
    /// # Errors
    /// Values that no receiver could take, and payloads of more than [`MAX_PAYLOAD`] bytes. `out` is then as it was before.
    pub fn encode(&self, encoding: Encoding, out: &mut BytesMut) -> Result<(), EncodeError> {
        self.encode_within(encoding, MAX_PAYLOAD, out)
    }

    /// Like [`Message::encode`], with another limit for the length of the payload, in bytes.
    ///
    /// # Errors
    /// As for [`Message::encode`].
    pub fn encode_within(&self, encoding: Encoding, max_payload: u32, out: &mut BytesMut) -> Result<(), EncodeError> {
        if let Self::StreamData(StreamData {
            stream,
            seq,
            chunk: Chunk::Raw(body),
        }) = self
        {
            data::put_head(*stream, *seq, body.len(), encoding, max_payload, out)?;
            out.put_slice(body);
            return Ok(());
        }
        self.encode_generally(encoding, max_payload, out)
    }

    /// The same, whatever message it is.
    pub(super) fn encode_generally(
        &self,
        encoding: Encoding,
        max_payload: u32,
        out: &mut BytesMut,
    ) -> Result<(), EncodeError> {
        let start = out.len();
        put_header(self.kind(), 0, out);
        let mut writer = Writer {
            encoding,
            atoms: has_text_keys(self.kind()),
            limit: max_payload,
            left: max_payload as usize,
            error: None,
            out,
        };
        self.fields(&mut writer);
        let error = writer.error;
        let length = out.len().saturating_sub(start + HEADER);
        let limit = max_payload;
        let error = error.or((length > limit as usize).then_some(EncodeError::TooLarge { length, limit }));
        if let Some(error) = error {
            out.truncate(start);
            return Err(error);
        }
        if let Some(field) = out.get_mut(start + HEADER - 4..start + HEADER) {
            field.copy_from_slice(&(length as u32).to_be_bytes());
        }
        Ok(())
    }

    fn fields(&self, to: &mut Writer<'_>) {
        match self {
            Self::Connect(connect) => put_connect(connect, to),
            Self::Disconnect { reason, message } => {
                to.map([message.is_some(), reason.is_some()]);
                to.optional("message", message.as_ref());
                if let Some(reason) = reason {
                    to.key("reason");
                    to.word(reason);
                }
            }
            Self::Ping { timestamp } => {
                to.map([true]);
                to.uint("timestamp", *timestamp);
            }
            Self::Pong { timestamp, server_time } => {
                to.map([true, server_time.is_some()]);
                to.uint("timestamp", *timestamp);
                to.optional_uint("server_time", *server_time);
            }
            Self::Publish(publish) => put_publish(publish, to),
            Self::Subscribe { topics, qos } => {
                to.map([qos.is_some(), true]);
                to.optional_uint("qos", *qos);
                to.strings("topics", topics);
            }
            Self::Unsubscribe { topics } => {
                to.map([true]);
                to.strings("topics", topics);
            }
            Self::Call(call) => put_call(call, to),
            Self::Reply(reply) => put_reply(reply, to),
            Self::Cast { procedure, args } => {
                to.map([true, true]);
                to.value("args", args);
                to.bytes("procedure", procedure);
            }
            Self::RegisterProcedure { procedure } => {
                to.map([true]);
                to.bytes("procedure", procedure);
            }
            Self::StreamOpen(open) => put_stream_open(open, to),
            Self::StreamData(data) => put_stream_data(data, to),
            Self::StreamEnd { stream, role } => {
                to.map([true, true]);
                to.bytes("stream_id", stream.as_bytes());
                to.key("role");
                to.word(role.as_str().as_bytes());
            }
            Self::StreamError { stream, fault } => {
                to.map([true, fault.message.is_some(), true]);
                to.bytes("code", &fault.code);
                to.optional("message", fault.message.as_ref());
                to.bytes("stream_id", stream.as_bytes());
            }
            Self::StreamReply { stream, outcome } => {
                to.map([true, true]);
                put_outcome(outcome, to);
                to.bytes("stream_id", stream.as_bytes());
            }
        }
    }
}

/// Appends everything of a raw [`Message::StreamData`] but its body: the header and the map up to the length of `body`, its
/// last entry. The `body_len` bytes of the body are to follow, from a buffer of their own, so that they need not be copied.
///
/// What is appended has less than 90 bytes.
///
/// # Errors
/// Payloads of more than [`MAX_PAYLOAD`] bytes. `out` is then as it was before.
pub fn encode_data_head(
    stream: StreamId,
    seq: u64,
    body_len: usize,
    encoding: Encoding,
    out: &mut BytesMut,
) -> Result<(), EncodeError> {
    encode_data_head_within(stream, seq, body_len, encoding, MAX_PAYLOAD, out)
}

/// Like [`encode_data_head`], with another limit for the length of the payload, in bytes.
///
/// # Errors
/// As for [`encode_data_head`].
pub fn encode_data_head_within(
    stream: StreamId,
    seq: u64,
    body_len: usize,
    encoding: Encoding,
    max_payload: u32,
    out: &mut BytesMut,
) -> Result<(), EncodeError> {
    data::put_head(stream, seq, body_len, encoding, max_payload, out)
}

pub(super) fn put_header(kind: Kind, length: u32, out: &mut BytesMut) {
    const FLAGS: u8 = 0;
    const RESERVED: u8 = 0;
    out.put_slice(&[VERSION, kind.as_u8(), FLAGS, RESERVED]);
    out.put_u32(length);
}

/// Whether deployed peers build the map with atoms for keys, which are text in CBOR, or with binaries.
fn has_text_keys(kind: Kind) -> bool {
    match kind {
        Kind::Connect | Kind::Disconnect | Kind::Ping | Kind::Pong => true,
        Kind::StreamOpen | Kind::StreamData | Kind::StreamEnd | Kind::StreamError | Kind::StreamReply => true,
        Kind::Publish | Kind::Subscribe | Kind::Unsubscribe => false,
        Kind::Call | Kind::Reply | Kind::Cast | Kind::RegisterProcedure => false,
    }
}

fn put_connect(connect: &Connect, to: &mut Writer<'_>) {
    to.map([
        connect.node_type.is_some(),
        connect.version.is_some(),
        connect.node_name.is_some(),
        true,
        connect.realm_id.is_some(),
        !connect.capabilities.is_empty(),
        connect.endpoint.is_some(),
        connect.target_relay.is_some(),
        connect.identity.is_some(),
        connect.site.is_some(),
        connect.previous_relay.is_some(),
    ]);
    to.optional("type", connect.node_type.as_ref());
    to.optional("version", connect.version.as_ref());
    to.optional("node_name", connect.node_name.as_ref());
    to.bytes("node_id", &connect.node_id);
    to.optional("realm_id", connect.realm_id.as_ref());
    if !connect.capabilities.is_empty() {
        to.strings("capabilities", &connect.capabilities);
    }
    to.optional("endpoint", connect.endpoint.as_ref());
    to.optional("target_relay", connect.target_relay.as_ref());
    to.optional_value("identity", connect.identity.as_ref());
    to.optional_value("site", connect.site.as_ref());
    to.optional("previous_relay", connect.previous_relay.as_ref());
}

fn put_publish(publish: &Publish, to: &mut Writer<'_>) {
    to.map([
        publish.trace.is_some(),
        publish.message_id.is_some(),
        true,
        publish.qos.is_some(),
        publish.retain.is_some(),
        true,
    ]);
    to.optional_value("_trace", publish.trace.as_ref());
    to.optional("message_id", publish.message_id.as_ref());
    to.value("payload", &publish.payload);
    to.optional_uint("qos", publish.qos);
    if let Some(retain) = publish.retain {
        to.value("retain", &Value::Bool(retain));
    }
    to.bytes("topic", &publish.topic);
}

fn put_call(call: &Call, to: &mut Writer<'_>) {
    to.map([
        call.trace.is_some(),
        true,
        true,
        true,
        call.target.is_some(),
        call.timeout.is_some(),
    ]);
    to.optional_value("_trace", call.trace.as_ref());
    to.value("args", &call.args);
    to.bytes("call_id", &call.call_id);
    to.bytes("procedure", &call.procedure);
    to.optional("target", call.target.as_ref());
    to.optional_uint("timeout", call.timeout);
}

fn put_reply(reply: &Reply, to: &mut Writer<'_>) {
    to.map([reply.trace.is_some(), true, true]);
    to.optional_value("_trace", reply.trace.as_ref());
    to.bytes("call_id", &reply.call_id);
    put_outcome(&reply.outcome, to);
}

fn put_stream_open(open: &StreamOpen, to: &mut Writer<'_>) {
    to.map([true, true, true, true]);
    to.value("args", &open.args);
    to.key("mode");
    to.word(open.mode.as_str().as_bytes());
    to.bytes("stream_id", open.stream.as_bytes());
    to.bytes("procedure", &open.procedure);
}

fn put_stream_data(data: &StreamData, to: &mut Writer<'_>) {
    match &data.chunk {
        Chunk::Raw(body) => {
            put_data_fields(data.stream, data.seq, RAW, to);
            to.bytes("body", body);
        }
        Chunk::Term(body) => {
            put_data_fields(data.stream, data.seq, TERM, to);
            to.value("body", body);
        }
    }
}

/// All fields of a chunk but its body.
fn put_data_fields(stream: StreamId, seq: u64, encoding: &str, to: &mut Writer<'_>) {
    to.map([true, true, true, true]);
    to.key("encoding");
    to.word(encoding.as_bytes());
    to.uint("seq", seq);
    to.bytes("stream_id", stream.as_bytes());
}

fn put_outcome(outcome: &Outcome, to: &mut Writer<'_>) {
    match outcome {
        Outcome::Ok(result) => to.value("result", result),
        Outcome::Err(Fault { code, message }) => {
            to.key("error");
            to.map([true, message.is_some()]);
            to.bytes("code", code);
            to.optional("message", message.as_ref());
        }
    }
}

/// Writes the entries of a message's map. After an error nothing more is written.
struct Writer<'a> {
    out: &'a mut BytesMut,
    encoding: Encoding,
    /// Whether keys and enumerations are atoms to deployed peers.
    atoms: bool,
    limit: u32,
    /// Bytes of strings that may still be written. It stops large ones before they are copied; the exact check of the length
    /// comes at the end.
    left: usize,
    error: Option<EncodeError>,
}

impl Writer<'_> {
    /// The head of a map with as many entries as fields are there.
    fn map<const N: usize>(&mut self, fields: [bool; N]) {
        let entries = fields.into_iter().filter(|there| *there).count();
        match self.encoding {
            Encoding::MessagePack => msgpack::put_map(self.out, entries as u32),
            Encoding::Cbor => cbor::put_map(self.out, entries),
        }
    }

    fn key(&mut self, key: &'static str) {
        self.word(key.as_bytes());
    }

    /// A key or enumeration. Atoms are text in CBOR.
    fn word(&mut self, word: &[u8]) {
        let text = self.atoms && self.encoding == Encoding::Cbor && std::str::from_utf8(word).is_ok();
        if text {
            cbor::put_text(self.out, word);
        } else {
            self.string(word);
        }
    }

    fn string(&mut self, string: &[u8]) {
        let Some(left) = self.left.checked_sub(string.len()) else {
            let limit = self.limit;
            let length = (limit as usize - self.left).saturating_add(string.len());
            self.error.get_or_insert(EncodeError::TooLarge { length, limit });
            return;
        };
        self.left = left;
        match self.encoding {
            Encoding::MessagePack => msgpack::put_bytes(self.out, string),
            Encoding::Cbor => cbor::put_bytes(self.out, string),
        }
    }

    fn bytes(&mut self, key: &'static str, string: &[u8]) {
        self.key(key);
        self.string(string);
    }

    fn optional(&mut self, key: &'static str, string: Option<&Bytes>) {
        if let Some(string) = string {
            self.bytes(key, string);
        }
    }

    fn strings(&mut self, key: &'static str, strings: &[Bytes]) {
        self.key(key);
        match self.encoding {
            Encoding::MessagePack => msgpack::put_array(self.out, strings.len() as u32),
            Encoding::Cbor => cbor::put_array(self.out, strings.len()),
        }
        strings.iter().for_each(|string| self.string(string));
    }

    fn uint(&mut self, key: &'static str, value: u64) {
        self.key(key);
        match self.encoding {
            Encoding::MessagePack => msgpack::put_uint(self.out, value),
            Encoding::Cbor => cbor::put_uint(self.out, value),
        }
    }

    fn optional_uint(&mut self, key: &'static str, value: Option<u64>) {
        if let Some(value) = value {
            self.uint(key, value);
        }
    }

    fn value(&mut self, key: &'static str, value: &Value) {
        if self.error.is_some() {
            return;
        }
        self.key(key);
        if let Err(error) = self.encoding.encode(value, self.out) {
            self.error = Some(wire::EncodeError::into(error));
        }
    }

    fn optional_value(&mut self, key: &'static str, value: Option<&Value>) {
        if let Some(value) = value {
            self.value(key, value);
        }
    }
}
