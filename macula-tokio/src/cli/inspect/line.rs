//! One line of output.

use macula_proto::wire::{Encoding, Value};
use serde::{Serialize, Serializer};

use super::tagged::Tagged;

/// The type of a frame: its name, or the number of one without a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(super) enum Type {
    Name(String),
    Number(u8),
}

/// What an RPC header says besides the type, where it is not what it always is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Oddities {
    pub(super) version: Option<u8>,
    pub(super) flags: Option<u8>,
    pub(super) reserved: Option<u8>,
}

/// What is wrong with a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) kind: &'static str,
    pub(super) message: String,
}

impl Fault {
    pub(super) fn new(kind: &'static str, message: impl ToString) -> Self {
        let message = message.to_string();
        Self { kind, message }
    }
}

/// A frame, or what there is instead of one.
#[derive(Debug, Default)]
pub(super) struct Finding {
    pub(super) kind: Option<Type>,
    pub(super) encoding: Option<Encoding>,
    pub(super) oddities: Oddities,
    pub(super) value: Option<Value>,
    pub(super) verify: Option<&'static str>,
    /// A frame of a type that is known, but with fields that do not fit it.
    pub(super) misfit: Option<String>,
    pub(super) fault: Option<Fault>,
}

impl From<Fault> for Finding {
    fn from(fault: Fault) -> Self {
        Self {
            fault: Some(fault),
            ..Self::default()
        }
    }
}

/// A finding, and where it is.
#[derive(Debug)]
pub(super) struct Line<'a> {
    /// Whether it is an event, which has a name and, if it is an error, its usual members.
    pub(super) event: bool,
    pub(super) offset: u64,
    /// Unknown of a value so bad that its end cannot be told.
    pub(super) length: Option<u64>,
    pub(super) finding: &'a Finding,
}

impl Serialize for Line<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Fields<'a> {
            #[serde(skip_serializing_if = "Option::is_none")]
            event: Option<&'static str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            kind: Option<&'static str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            message: Option<&'a str>,
            offset: u64,
            #[serde(skip_serializing_if = "Option::is_none")]
            length: Option<u64>,
            #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
            frame_type: Option<&'a Type>,
            #[serde(skip_serializing_if = "Option::is_none")]
            encoding: Option<&'static str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            version: Option<u8>,
            #[serde(skip_serializing_if = "Option::is_none")]
            flags: Option<u8>,
            #[serde(skip_serializing_if = "Option::is_none")]
            reserved: Option<u8>,
            #[serde(skip_serializing_if = "Option::is_none")]
            value: Option<Tagged<'a>>,
            #[serde(skip_serializing_if = "Option::is_none")]
            verify: Option<Option<&'static str>>,
            #[serde(skip_serializing_if = "Option::is_none")]
            misfit: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            error: Option<&'a str>,
        }
        let finding = self.finding;
        let error = finding.fault.as_ref().map(|fault| fault.message.as_str());
        let name = if error.is_some() { "error" } else { "frame" };
        Fields {
            event: self.event.then_some(name),
            kind: finding.fault.as_ref().filter(|_| self.event).map(|fault| fault.kind),
            message: error.filter(|_| self.event),
            offset: self.offset,
            length: self.length,
            frame_type: finding.kind.as_ref(),
            encoding: finding.encoding.map(encoding_name),
            version: finding.oddities.version,
            flags: finding.oddities.flags,
            reserved: finding.oddities.reserved,
            value: finding.value.as_ref().map(Tagged),
            // There is nothing to check in the formats without signatures, which is not the same as not to know.
            verify: finding.value.is_some().then_some(finding.verify),
            misfit: finding.misfit.as_deref(),
            error,
        }
        .serialize(serializer)
    }
}

/// What an encoding is called.
pub(super) fn encoding_name(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::MessagePack => "msgpack",
        Encoding::Cbor => "cbor",
    }
}
