//! The same frames and messages as plain structs, as one would write them for serde and for minicbor.

use std::convert::Infallible;

use minicbor::{Decoder, Encoder, data::Type, decode};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_bytes::{ByteArray, ByteBuf};

type Out<'a> = Encoder<&'a mut Vec<u8>>;
type EncodeResult = Result<(), minicbor::encode::Error<Infallible>>;

/// A struct of which ciborium, rmp-serde and minicbor make bytes.
pub(crate) trait Mirror: Serialize + DeserializeOwned + PartialEq + 'static {
    fn put(&self, out: &mut Out<'_>) -> EncodeResult;
    fn take(input: &mut Decoder<'_>) -> Result<Self, decode::Error>;
}

/// A type of field, for minicbor; serde has its own.
trait Field: Sized {
    fn put(&self, out: &mut Out<'_>) -> EncodeResult;
    fn take(input: &mut Decoder<'_>) -> Result<Self, decode::Error>;
}

impl Field for u64 {
    fn put(&self, out: &mut Out<'_>) -> EncodeResult {
        out.u64(*self).map(drop)
    }

    fn take(input: &mut Decoder<'_>) -> Result<Self, decode::Error> {
        input.u64()
    }
}

impl Field for String {
    fn put(&self, out: &mut Out<'_>) -> EncodeResult {
        out.str(self).map(drop)
    }

    fn take(input: &mut Decoder<'_>) -> Result<Self, decode::Error> {
        input.str().map(str::to_owned)
    }
}

impl Field for ByteBuf {
    fn put(&self, out: &mut Out<'_>) -> EncodeResult {
        out.bytes(self).map(drop)
    }

    fn take(input: &mut Decoder<'_>) -> Result<Self, decode::Error> {
        input.bytes().map(|bytes| Self::from(bytes.to_vec()))
    }
}

impl<const N: usize> Field for ByteArray<N> {
    fn put(&self, out: &mut Out<'_>) -> EncodeResult {
        out.bytes(self.as_slice()).map(drop)
    }

    fn take(input: &mut Decoder<'_>) -> Result<Self, decode::Error> {
        let bytes = input.bytes()?.try_into();
        bytes
            .map(Self::new)
            .map_err(|_| decode::Error::message("another length"))
    }
}

impl<F: Field> Field for Option<F> {
    fn put(&self, out: &mut Out<'_>) -> EncodeResult {
        match self {
            Some(field) => field.put(out),
            None => out.null().map(drop),
        }
    }

    fn take(input: &mut Decoder<'_>) -> Result<Self, decode::Error> {
        match input.datatype()? {
            Type::Null => input.null().map(|()| None),
            _ => F::take(input).map(Some),
        }
    }
}

/// A frame without a signature, its fields in the order of the wire.
macro_rules! frame {
    ($name:ident { $($field:ident: $type:ty,)+ }) => {
        #[derive(Serialize, Deserialize, PartialEq)]
        pub(crate) struct $name {
            $(pub(crate) $field: $type,)+
        }

        impl Mirror for $name {
            fn put(&self, out: &mut Out<'_>) -> EncodeResult {
                const FIELDS: u64 = [$(stringify!($field)),+].len() as u64;
                out.map(FIELDS)?;
                $(out.str(stringify!($field))?;
                self.$field.put(out)?;)+
                Ok(())
            }

            fn take(input: &mut Decoder<'_>) -> Result<Self, decode::Error> {
                $(let mut $field: Option<$type> = None;)+
                for _ in 0..input.map()?.unwrap_or_default() {
                    match input.str()? {
                        $(stringify!($field) => $field = Some(Field::take(input)?),)+
                        _ => input.skip()?,
                    }
                }
                let missing = || decode::Error::message("a field is missing");
                Ok(Self { $($field: $field.ok_or_else(missing)?,)+ })
            }
        }
    };
}

type Null = Option<u64>;
type Id16 = ByteArray<16>;
type Id32 = ByteArray<32>;

frame!(Publish {
    seq: u64,
    realm: Id32,
    topic: ByteBuf,
    ttl_ms: Option<u64>,
    call_id: Null,
    payload: ByteBuf,
    version: u64,
    frame_id: Id16,
    publisher: Id32,
    frame_type: String,
    sent_at_ms: u64,
    capabilities: u64,
    source_route: Null,
    published_at_ms: u64,
});

frame!(TopicEvent {
    seq: u64,
    realm: Id32,
    topic: ByteBuf,
    call_id: Null,
    payload: ByteBuf,
    version: u64,
    frame_id: Id16,
    publisher: Id32,
    frame_type: String,
    sent_at_ms: u64,
    capabilities: u64,
    source_route: Null,
    delivered_via: String,
});

frame!(Call {
    realm: Id32,
    caller: Id32,
    call_id: Id16,
    payload: ByteBuf,
    version: u64,
    frame_id: Id16,
    procedure: ByteBuf,
    frame_type: String,
    sent_at_ms: u64,
    deadline_ms: u64,
    capabilities: u64,
    retry_budget: u64,
    source_route: ByteBuf,
});

frame!(StreamData {
    seq: u64,
    body: ByteBuf,
    realm: Null,
    call_id: Null,
    version: u64,
    encoding: String,
    frame_id: Id16,
    stream_id: Id16,
    frame_type: String,
    sent_at_ms: u64,
    capabilities: u64,
    source_route: Null,
});

frame!(StreamEnd {
    role: String,
    realm: Null,
    call_id: Null,
    version: u64,
    frame_id: Id16,
    stream_id: Id16,
    frame_type: String,
    sent_at_ms: u64,
    capabilities: u64,
    source_route: Null,
});

// A raw chunk of a call.
frame!(RawChunk {
    encoding: String,
    seq: u64,
    stream_id: Id16,
    body: ByteBuf,
});

/// A control message: whichever fields it has. Serde writes its keys as text, which is as long as byte strings.
#[derive(Serialize, Deserialize, PartialEq, Default)]
#[serde(default)]
pub(crate) struct Control {
    #[serde(skip_serializing_if = "Option::is_none")]
    n: Option<ByteBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    r: Option<ByteBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    src: Option<ByteBuf>,
    t: ByteBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<ByteBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tid: Option<Id32>,
}

impl Mirror for Control {
    fn put(&self, out: &mut Out<'_>) -> EncodeResult {
        let Self {
            n,
            r,
            src,
            t,
            target,
            tid,
        } = self;
        let strings = [n, r, src].map(Option::as_ref);
        let fields = strings.iter().flatten().count() + 1 + usize::from(target.is_some()) + usize::from(tid.is_some());
        out.map(fields as u64)?;
        for (key, value) in [&b"n"[..], b"r", b"src"].into_iter().zip(strings) {
            if let Some(value) = value {
                out.bytes(key)?.bytes(value)?;
            }
        }
        out.bytes(b"t")?.bytes(t)?;
        if let Some(target) = target {
            out.bytes(b"target")?.bytes(target)?;
        }
        if let Some(tid) = tid {
            out.bytes(b"tid")?.bytes(tid.as_slice())?;
        }
        Ok(())
    }

    fn take(input: &mut Decoder<'_>) -> Result<Self, decode::Error> {
        let mut read = Self::default();
        for _ in 0..input.map()?.unwrap_or_default() {
            match input.bytes()? {
                b"n" => read.n = Some(Field::take(input)?),
                b"r" => read.r = Some(Field::take(input)?),
                b"src" => read.src = Some(Field::take(input)?),
                b"t" => read.t = Field::take(input)?,
                b"target" => read.target = Some(Field::take(input)?),
                b"tid" => read.tid = Some(Field::take(input)?),
                _ => input.skip()?,
            }
        }
        Ok(read)
    }
}
