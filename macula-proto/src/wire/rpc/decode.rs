//! From payloads to messages, in either encoding and without a value tree in between.

use super::message::TERM;
use super::{
    Call, Chunk, Connect, EndRole, Fault, Kind, Message, Mode, Outcome, Publish, Reply, RpcError, StreamData, StreamId,
    StreamOpen,
};
use crate::wire::reader::{Entries, Reader, Str, Token};
use crate::wire::value::{build_from, shared};
use crate::wire::{DecodeErrorKind, DecodeLimits, Encoding, Value, cbor::CborReader, msgpack::MsgpackReader};
use bytes::Bytes;

/// Decodes the payload of a message of type `kind`.
pub(super) fn message(kind: Kind, payload: &Bytes, limits: &DecodeLimits) -> Result<(Message, Encoding), RpcError> {
    let encoding = detect(payload)?;
    let message = match encoding {
        Encoding::MessagePack => Input::new(MsgpackReader::new(payload), payload, limits).message(kind),
        Encoding::Cbor => Input::new(CborReader::new(payload), payload, limits).message(kind),
    };
    Ok((message?, encoding))
}

/// What a router needs of a payload.
#[derive(Debug)]
pub(super) struct Ids {
    pub(super) encoding: Encoding,
    pub(super) stream: Option<StreamId>,
    pub(super) call: Option<Bytes>,
    pub(super) procedure: Option<Bytes>,
}

/// Reads over a whole payload for the fields that say whom it concerns.
pub(super) fn ids(payload: &Bytes, limits: &DecodeLimits) -> Result<Ids, RpcError> {
    let encoding = detect(payload)?;
    match encoding {
        Encoding::MessagePack => Input::new(MsgpackReader::new(payload), payload, limits).ids(encoding),
        Encoding::Cbor => Input::new(CborReader::new(payload), payload, limits).ids(encoding),
    }
}

/// The encoding of a payload.
pub(super) fn detect(payload: &Bytes) -> Result<Encoding, RpcError> {
    let first = *payload.first().ok_or(RpcError::Empty)?;
    Encoding::detect(first).ok_or(RpcError::NotAMap)
}

/// How to read the value of a field.
#[derive(Debug, Clone, Copy)]
enum Want {
    /// A number, a boolean or a string, which is kept as it lies in the payload. Anything else is read over.
    Plain,
    /// Any value.
    Term,
    /// A string as it lies in the payload, or any other value.
    Body,
    /// A map with `code` and `message`, or a string that stands for the code.
    Fault,
}

/// What was read of a field.
#[derive(Debug)]
enum Slot<'a> {
    /// Nothing, or null.
    Absent,
    Plain(Token<'a>),
    Term(Value),
    Fault(Fault),
}

#[derive(Debug)]
struct Input<'s, R> {
    reader: R,
    /// What the reader reads, so that long strings can share its buffer.
    source: &'s Bytes,
    limits: &'s DecodeLimits,
    /// Items still allowed, those that are read over included: a payload of many tiny ones is cheap to send.
    items: usize,
}

impl<'a, 's, R: Reader<'a>> Input<'s, R> {
    fn new(reader: R, source: &'s Bytes, limits: &'s DecodeLimits) -> Self {
        Self {
            reader,
            source,
            limits,
            items: limits.items,
        }
    }

    /// Reads the payload's map, which has to be all of it, and returns its `fields` in the order of their names here.
    fn fields<const N: usize>(&mut self, fields: [(&'static str, Want); N]) -> Result<[Slot<'a>; N], RpcError> {
        let Token::Map(length) = self.item()? else {
            return Err(RpcError::NotAMap);
        };
        let slots = self.entries(length, fields)?;
        self.reader.finish()?;
        Ok(slots)
    }

    /// Reads a map whose head has just been read. Unknown keys are read over.
    fn entries<const N: usize>(
        &mut self,
        length: Option<u64>,
        fields: [(&'static str, Want); N],
    ) -> Result<[Slot<'a>; N], RpcError> {
        let mut slots = [const { Slot::Absent }; N];
        let mut seen = [false; N];
        let mut entries = Entries::new(&self.reader, length, 2)?;
        while let Some(key) = entries.next_tagged(&mut self.reader)? {
            let at = match self.behind_tags(key)? {
                Token::Bytes(key) | Token::Text(key) => fields.iter().position(|(name, _)| key.is(name.as_bytes())),
                other => {
                    self.pass(other, self.limits.depth)?;
                    None
                }
            };
            let known = at.and_then(|at| Some((fields.get(at)?, slots.get_mut(at)?, seen.get_mut(at)?)));
            let Some(((name, want), slot, seen)) = known else {
                let value = self.item()?;
                self.pass(value, self.limits.depth)?;
                continue;
            };
            if std::mem::replace(seen, true) && !R::DUPLICATE_KEYS {
                return Err(RpcError::Duplicate(name));
            }
            *slot = self.slot(name, *want)?;
        }
        Ok(slots)
    }

    fn slot(&mut self, field: &'static str, want: Want) -> Result<Slot<'a>, RpcError> {
        let token = match want {
            Want::Term | Want::Body => self.reader.token()?,
            Want::Plain | Want::Fault => self.item()?,
        };
        Ok(match (want, token) {
            (Want::Body, token @ (Token::Bytes(_) | Token::Text(_))) => Slot::Plain(token),
            (Want::Term | Want::Body, token) => Slot::Term(self.term(token)?),
            (_, Token::Null) => Slot::Absent,
            (Want::Fault, Token::Map(length)) => {
                let [code, message] = self.entries(length, [("code", Want::Plain), ("message", Want::Plain)])?;
                Slot::Fault(Fault {
                    code: code.required("code")?.bytes("code")?,
                    message: message.optional("message", Slot::bytes)?,
                })
            }
            (Want::Fault, Token::Bytes(code) | Token::Text(code)) => Slot::Fault(Fault {
                code: code.to_bytes(),
                message: None,
            }),
            (Want::Fault, _) => return Err(wrong(field, "a map")),
            (_, token) => {
                self.pass(token, self.limits.depth)?;
                Slot::Plain(token)
            }
        })
    }

    /// The value that begins with `token`.
    fn term(&mut self, token: Token<'a>) -> Result<Value, RpcError> {
        let value = build_from(token, &mut self.reader, self.source, self.limits, &mut self.items);
        Ok(value?)
    }

    /// The next token behind any tags, where something has to come.
    fn item(&mut self) -> Result<Token<'a>, RpcError> {
        let token = self.reader.token()?;
        self.behind_tags(token)
    }

    fn behind_tags(&mut self, mut token: Token<'a>) -> Result<Token<'a>, RpcError> {
        loop {
            let limit = self.limits.items;
            let too_many = || self.reader.error(DecodeErrorKind::TooManyItems { limit });
            self.items = self.items.checked_sub(1).ok_or_else(too_many)?;
            match token {
                Token::Tag(_) => token = self.reader.token()?,
                Token::Break => return Err(self.reader.error(DecodeErrorKind::Invalid).into()),
                token => return Ok(token),
            }
        }
    }

    /// Reads over what belongs to `token`, which has just been read, nested at most `left` deep.
    fn pass(&mut self, token: Token<'a>, left: usize) -> Result<(), RpcError> {
        let (length, per_entry) = match token {
            Token::Array(length) => (length, 1),
            Token::Map(length) => (length, 2),
            _ => return Ok(()),
        };
        let limit = self.limits.depth;
        let too_deep = || self.reader.error(DecodeErrorKind::TooDeep { limit });
        let left = left.checked_sub(1).ok_or_else(too_deep)?;
        let mut entries = Entries::new(&self.reader, length, per_entry)?;
        while let Some(first) = entries.next_tagged(&mut self.reader)? {
            let first = self.behind_tags(first)?;
            self.pass(first, left)?;
            for _ in 1..per_entry {
                let token = self.item()?;
                self.pass(token, left)?;
            }
        }
        Ok(())
    }

    fn ids(mut self, encoding: Encoding) -> Result<Ids, RpcError> {
        use Want::Plain;
        let fields = [("stream_id", Plain), ("call_id", Plain), ("procedure", Plain)];
        let [stream, call, procedure] = self.fields(fields)?;
        Ok(Ids {
            encoding,
            stream: stream.optional("stream_id", Slot::stream)?,
            call: call.optional("call_id", Slot::bytes)?,
            procedure: procedure.optional("procedure", Slot::bytes)?,
        })
    }
}

/// One method per message.
impl<'a, R: Reader<'a>> Input<'_, R> {
    fn message(mut self, kind: Kind) -> Result<Message, RpcError> {
        Ok(match kind {
            Kind::Connect => Message::Connect(Box::new(self.connect()?)),
            Kind::Disconnect => self.disconnect()?,
            Kind::Ping => {
                let [timestamp] = self.fields([("timestamp", Want::Plain)])?;
                let timestamp = timestamp.required("timestamp")?.uint("timestamp")?;
                Message::Ping { timestamp }
            }
            Kind::Pong => self.pong()?,
            Kind::Publish => Message::Publish(self.publish()?),
            Kind::Subscribe => {
                let [topics, qos] = self.fields([("topics", Want::Term), ("qos", Want::Plain)])?;
                Message::Subscribe {
                    topics: topics.required("topics")?.strings("topics")?,
                    qos: qos.optional("qos", Slot::uint)?,
                }
            }
            Kind::Unsubscribe => {
                let [topics] = self.fields([("topics", Want::Term)])?;
                let topics = topics.required("topics")?.strings("topics")?;
                Message::Unsubscribe { topics }
            }
            Kind::Call => Message::Call(self.call()?),
            Kind::Reply => Message::Reply(self.reply()?),
            Kind::Cast => {
                let [procedure, args] = self.fields([("procedure", Want::Plain), ("args", Want::Term)])?;
                let procedure = procedure.required("procedure")?.bytes("procedure")?;
                let args = args.term().unwrap_or(Value::Null);
                Message::Cast { procedure, args }
            }
            Kind::RegisterProcedure => {
                let [procedure] = self.fields([("procedure", Want::Plain)])?;
                let procedure = procedure.required("procedure")?.bytes("procedure")?;
                Message::RegisterProcedure { procedure }
            }
            Kind::StreamOpen => Message::StreamOpen(self.stream_open()?),
            Kind::StreamData => Message::StreamData(self.stream_data()?),
            Kind::StreamEnd => {
                let [stream, role] = self.fields([("stream_id", Want::Plain), ("role", Want::Plain)])?;
                let stream = stream.required("stream_id")?.stream("stream_id")?;
                let role = role.optional("role", Slot::string)?;
                let role = role.and_then(|role| {
                    [EndRole::Send, EndRole::Both]
                        .into_iter()
                        .find(|known| role.is(known.as_str().as_bytes()))
                });
                Message::StreamEnd {
                    stream,
                    role: role.unwrap_or(EndRole::Both),
                }
            }
            Kind::StreamError => self.stream_error()?,
            Kind::StreamReply => self.stream_reply()?,
        })
    }

    fn connect(&mut self) -> Result<Connect, RpcError> {
        use Want::{Plain, Term};
        let [
            node_id,
            version,
            node_name,
            realm_id,
            capabilities,
            endpoint,
            node_type,
            target_relay,
            identity,
            site,
            previous_relay,
        ] = self.fields([
            ("node_id", Plain),
            ("version", Plain),
            ("node_name", Plain),
            ("realm_id", Plain),
            ("capabilities", Term),
            ("endpoint", Plain),
            ("type", Plain),
            ("target_relay", Plain),
            ("identity", Term),
            ("site", Term),
            ("previous_relay", Plain),
        ])?;
        Ok(Connect {
            node_id: node_id.required("node_id")?.bytes("node_id")?,
            version: version.optional("version", Slot::bytes)?,
            node_name: node_name.optional("node_name", Slot::bytes)?,
            realm_id: realm_id.optional("realm_id", Slot::bytes)?,
            capabilities: capabilities
                .optional("capabilities", Slot::strings)?
                .unwrap_or_default(),
            endpoint: endpoint.optional("endpoint", Slot::bytes)?,
            node_type: node_type.optional("type", Slot::bytes)?,
            target_relay: target_relay.optional("target_relay", Slot::bytes)?,
            identity: identity.some_term(),
            site: site.some_term(),
            previous_relay: previous_relay.optional("previous_relay", Slot::bytes)?,
        })
    }

    fn disconnect(&mut self) -> Result<Message, RpcError> {
        let [reason, message] = self.fields([("reason", Want::Plain), ("message", Want::Plain)])?;
        Ok(Message::Disconnect {
            reason: reason.optional("reason", Slot::bytes)?,
            message: message.optional("message", Slot::bytes)?,
        })
    }

    fn pong(&mut self) -> Result<Message, RpcError> {
        let [timestamp, server_time] = self.fields([("timestamp", Want::Plain), ("server_time", Want::Plain)])?;
        Ok(Message::Pong {
            timestamp: timestamp.required("timestamp")?.uint("timestamp")?,
            server_time: server_time.optional("server_time", Slot::uint)?,
        })
    }

    fn publish(&mut self) -> Result<Publish, RpcError> {
        use Want::{Plain, Term};
        let [topic, payload, qos, retain, message_id, trace] = self.fields([
            ("topic", Plain),
            ("payload", Term),
            ("qos", Plain),
            ("retain", Plain),
            ("message_id", Plain),
            ("_trace", Term),
        ])?;
        Ok(Publish {
            topic: topic.required("topic")?.bytes("topic")?,
            payload: payload.required("payload")?.term().unwrap_or(Value::Null),
            qos: qos.optional("qos", Slot::uint)?,
            retain: retain.optional("retain", Slot::boolean)?,
            message_id: message_id.optional("message_id", Slot::bytes)?,
            trace: trace.some_term(),
        })
    }

    fn call(&mut self) -> Result<Call, RpcError> {
        use Want::{Plain, Term};
        let [call_id, procedure, args, target, timeout, trace] = self.fields([
            ("call_id", Plain),
            ("procedure", Plain),
            ("args", Term),
            ("target", Plain),
            ("timeout", Plain),
            ("_trace", Term),
        ])?;
        Ok(Call {
            call_id: call_id.required("call_id")?.bytes("call_id")?,
            procedure: procedure.required("procedure")?.bytes("procedure")?,
            args: args.term().unwrap_or(Value::Null),
            target: target.optional("target", Slot::bytes)?,
            timeout: timeout.optional("timeout", Slot::uint)?,
            trace: trace.some_term(),
        })
    }

    fn reply(&mut self) -> Result<Reply, RpcError> {
        use Want::{Plain, Term};
        let fields = [
            ("call_id", Plain),
            ("result", Term),
            ("error", Want::Fault),
            ("_trace", Term),
        ];
        let [call_id, result, error, trace] = self.fields(fields)?;
        Ok(Reply {
            call_id: call_id.required("call_id")?.bytes("call_id")?,
            outcome: outcome(result, error)?,
            trace: trace.some_term(),
        })
    }

    fn stream_open(&mut self) -> Result<StreamOpen, RpcError> {
        use Want::{Plain, Term};
        let fields = [
            ("args", Term),
            ("mode", Plain),
            ("stream_id", Plain),
            ("procedure", Plain),
        ];
        let [args, mode, stream, procedure] = self.fields(fields)?;
        let mode = mode.optional("mode", Slot::string)?;
        let mode = mode.and_then(|mode| Mode::ALL.into_iter().find(|known| mode.is(known.as_str().as_bytes())));
        Ok(StreamOpen {
            stream: stream.required("stream_id")?.stream("stream_id")?,
            procedure: procedure.required("procedure")?.bytes("procedure")?,
            mode: mode.unwrap_or(Mode::Bidi),
            args: args.term().unwrap_or(Value::Null),
        })
    }

    fn stream_data(&mut self) -> Result<StreamData, RpcError> {
        use Want::Plain;
        let fields = [
            ("encoding", Plain),
            ("seq", Plain),
            ("stream_id", Plain),
            ("body", Want::Body),
        ];
        let [encoding, seq, stream, body] = self.fields(fields)?;
        let encoding = encoding.optional("encoding", Slot::string)?;
        let is_term = encoding.is_some_and(|encoding| encoding.is(TERM.as_bytes()));
        let chunk = match (body, is_term) {
            (Slot::Plain(Token::Bytes(body) | Token::Text(body)), false) => Chunk::Raw(shared(self.source, body)),
            (Slot::Plain(Token::Bytes(body)), true) => Chunk::Term(Value::Bytes(shared(self.source, body))),
            (Slot::Plain(Token::Text(body)), true) => Chunk::Term(Value::Text(shared(self.source, body))),
            (Slot::Term(body), true) => Chunk::Term(body),
            (Slot::Absent, _) => return Err(RpcError::Missing("body")),
            _ => return Err(wrong("body", STRING)),
        };
        Ok(StreamData {
            stream: stream.required("stream_id")?.stream("stream_id")?,
            seq: seq.required("seq")?.uint("seq")?,
            chunk,
        })
    }

    fn stream_error(&mut self) -> Result<Message, RpcError> {
        use Want::Plain;
        let [code, message, stream] = self.fields([("code", Plain), ("message", Plain), ("stream_id", Plain)])?;
        Ok(Message::StreamError {
            stream: stream.required("stream_id")?.stream("stream_id")?,
            fault: Fault {
                code: code.required("code")?.bytes("code")?,
                message: message.optional("message", Slot::bytes)?,
            },
        })
    }

    fn stream_reply(&mut self) -> Result<Message, RpcError> {
        let fields = [
            ("result", Want::Term),
            ("error", Want::Fault),
            ("stream_id", Want::Plain),
        ];
        let [result, error, stream] = self.fields(fields)?;
        Ok(Message::StreamReply {
            stream: stream.required("stream_id")?.stream("stream_id")?,
            outcome: outcome(result, error)?,
        })
    }
}

/// An error counts, whatever else is there.
fn outcome(result: Slot<'_>, error: Slot<'_>) -> Result<Outcome, RpcError> {
    match (result, error) {
        (_, Slot::Fault(fault)) => Ok(Outcome::Err(fault)),
        (Slot::Term(result), _) => Ok(Outcome::Ok(result)),
        _ => Err(RpcError::Missing("result")),
    }
}

const STRING: &str = "a string";

fn wrong(field: &'static str, expected: &'static str) -> RpcError {
    RpcError::WrongType { field, expected }
}

impl<'a> Slot<'a> {
    fn required(self, field: &'static str) -> Result<Self, RpcError> {
        match self {
            Self::Absent => Err(RpcError::Missing(field)),
            there => Ok(there),
        }
    }

    fn optional<T>(
        self,
        field: &'static str,
        read: fn(Self, &'static str) -> Result<T, RpcError>,
    ) -> Result<Option<T>, RpcError> {
        match self {
            Self::Absent | Self::Term(Value::Null) => Ok(None),
            there => read(there, field).map(Some),
        }
    }

    fn string(self, field: &'static str) -> Result<Str<'a>, RpcError> {
        match self {
            Self::Plain(Token::Bytes(string) | Token::Text(string)) => Ok(string),
            _ => Err(wrong(field, STRING)),
        }
    }

    /// A copy of a string, so that what outlives the message does not pin the buffer that it came in.
    fn bytes(self, field: &'static str) -> Result<Bytes, RpcError> {
        Ok(self.string(field)?.to_bytes())
    }

    fn stream(self, field: &'static str) -> Result<StreamId, RpcError> {
        let id = self.string(field)?;
        let bytes = id.to_array().ok_or(RpcError::StreamId(id.len()))?;
        Ok(StreamId(bytes))
    }

    fn uint(self, field: &'static str) -> Result<u64, RpcError> {
        match self {
            Self::Plain(Token::Uint(value)) => Ok(value),
            _ => Err(wrong(field, "an integer that is not negative")),
        }
    }

    fn boolean(self, field: &'static str) -> Result<bool, RpcError> {
        match self {
            Self::Plain(Token::Bool(value)) => Ok(value),
            _ => Err(wrong(field, "a boolean")),
        }
    }

    /// A list of strings. MessagePack peers of Erlang send an empty list as an empty `str`.
    fn strings(self, field: &'static str) -> Result<Vec<Bytes>, RpcError> {
        let expected = "a list of strings";
        match self {
            Self::Term(Value::Array(elements)) => {
                let strings = elements.iter().map(|element| element.as_string().cloned());
                strings.collect::<Option<_>>().ok_or(wrong(field, expected))
            }
            Self::Term(Value::Text(text)) if text.is_empty() => Ok(Vec::new()),
            _ => Err(wrong(field, expected)),
        }
    }

    fn term(self) -> Option<Value> {
        match self {
            Self::Term(value) => Some(value),
            _ => None,
        }
    }

    /// A value other than null, which is what deployed peers make of nothing.
    fn some_term(self) -> Option<Value> {
        self.term().filter(|value| !value.is_null())
    }
}
