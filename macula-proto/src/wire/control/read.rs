//! From tokens to a message, in either encoding.

use super::{ControlError, Message, NodeName, Reason, TunnelId};
use crate::wire::reader::{Entries, Reader, Str, Token};

/// Nesting taken inside the value of a key that is not known.
const UNKNOWN_DEPTH: usize = 16;

/// What a map holds under one of the known keys.
#[derive(Debug, Clone, Copy, Default)]
enum Slot<'a> {
    #[default]
    Absent,
    NotAString,
    String(Str<'a>),
}

#[derive(Debug, Default)]
struct Fields<'a> {
    kind: Slot<'a>,
    name: Slot<'a>,
    target: Slot<'a>,
    tunnel: Slot<'a>,
    reason: Slot<'a>,
    source: Slot<'a>,
}

pub(super) fn message<'a, R: Reader<'a>>(mut reader: R, max_name: usize) -> Result<Message, ControlError> {
    let Token::Map(length) = reader.item()? else {
        return Err(ControlError::NotAMap);
    };
    let mut fields = Fields::default();
    let mut entries = Entries::new(&reader, length, 2)?;
    loop {
        let key = match entries.next_short_bytes(&mut reader) {
            Some(key) => Token::Bytes(Str::whole(key)),
            None => match entries.next(&mut reader)? {
                Some(key) => key,
                None => break,
            },
        };
        let slot = match key {
            Token::Bytes(key) | Token::Text(key) => fields.slot(key),
            other => {
                reader.skip(other, UNKNOWN_DEPTH)?;
                None
            }
        };
        let value = match reader.short_bytes() {
            Some(value) => Token::Bytes(Str::whole(value)),
            None => reader.item()?,
        };
        if let Some((slot, name)) = slot {
            if !R::DUPLICATE_KEYS && !matches!(slot, Slot::Absent) {
                return Err(ControlError::Duplicate(name));
            }
            *slot = match value {
                Token::Bytes(value) | Token::Text(value) => Slot::String(value),
                _ => Slot::NotAString,
            };
        }
        reader.skip(value, UNKNOWN_DEPTH)?;
    }
    reader.finish()?;
    fields.message(max_name)
}

impl<'a> Fields<'a> {
    fn slot(&mut self, key: Str<'_>) -> Option<(&mut Slot<'a>, &'static str)> {
        let all = [
            (&mut self.kind, "t"),
            (&mut self.name, "n"),
            (&mut self.target, "target"),
            (&mut self.tunnel, "tid"),
            (&mut self.reason, "r"),
            (&mut self.source, "src"),
        ];
        all.into_iter().find(|(_, name)| key.is(name.as_bytes()))
    }

    fn message(self, max_name: usize) -> Result<Message, ControlError> {
        let kind = self.kind.string("t")?;
        let is = |name: &str| kind.is(name.as_bytes());
        Ok(if is("id") {
            let name = self.name.name("n", max_name)?;
            Message::Identify { name }
        } else if is("id_ok") {
            Message::Identified
        } else if is("tun_req") {
            let target = self.target.name("target", max_name)?;
            Message::TunnelRequest { target }
        } else if is("tun_ok") {
            let tunnel = self.tunnel.tunnel("tid")?;
            Message::TunnelOk { tunnel }
        } else if is("tun_err") {
            let reason = self.reason.string("r")?;
            let reason = match reason.as_whole() {
                Some(reason) => Reason::copied(reason),
                None => Reason::new(reason.to_bytes()),
            };
            Message::TunnelError { reason }
        } else if is("tun_notify") {
            let tunnel = self.tunnel.tunnel("tid")?;
            let source = self.source.name("src", max_name)?;
            Message::TunnelNotify { tunnel, source }
        } else if is("tun_close") {
            let tunnel = self.tunnel.tunnel("tid")?;
            Message::TunnelClose { tunnel }
        } else {
            return Err(ControlError::UnknownType);
        })
    }
}

impl<'a> Slot<'a> {
    fn string(self, field: &'static str) -> Result<Str<'a>, ControlError> {
        match self {
            Self::Absent => Err(ControlError::Missing(field)),
            Self::NotAString => Err(ControlError::NotAString(field)),
            Self::String(string) => Ok(string),
        }
    }

    fn name(self, field: &'static str, limit: usize) -> Result<NodeName, ControlError> {
        let name = self.string(field)?;
        let length = name.len();
        if length > limit {
            return Err(ControlError::NameTooLong { field, length, limit });
        }
        Ok(match name.as_whole() {
            Some(name) => NodeName::new(name),
            None => name.to_bytes().into(),
        })
    }

    fn tunnel(self, field: &'static str) -> Result<TunnelId, ControlError> {
        let id = self.string(field)?;
        let bytes = id.to_array().ok_or(ControlError::TunnelId(id.len()))?;
        Ok(TunnelId::from_bytes(bytes))
    }
}
