use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

use super::{
    Control, Flags, FragmentError, FragmentLimits,
    control::ControlError,
    fragments::Fragments,
    header::{AtomCache, Header, HeaderError},
};
use crate::wire::{
    DecodeError, DecodeLimits, EncodeError,
    etf::{self, Atom, Term, TermReader},
};

/// A message between two nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What is done.
    pub control: Control,
    /// What is sent with it, for those controls that [have a payload](Control::has_payload).
    pub payload: Option<Term>,
}

impl Message {
    /// A message without a payload.
    pub fn control(control: Control) -> Self {
        Self { control, payload: None }
    }

    /// A message with one.
    pub fn with_payload(control: Control, payload: Term) -> Self {
        Self {
            control,
            payload: Some(payload),
        }
    }
}

/// Why a message cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MessageError {
    /// Its header; the connection is lost.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// A fragment that does not fit; the connection is lost.
    #[error(transparent)]
    Fragment(#[from] FragmentError),
    /// Its terms. Only this message is lost.
    #[error("bad term in a distribution message: {0}")]
    Term(#[from] DecodeError),
    /// Its control term. Only this message is lost.
    #[error("bad control term: {0}")]
    Control(#[from] ControlError),
}

impl MessageError {
    /// Whether nothing that follows can be trusted.
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::Header(_) | Self::Fragment(_))
    }
}

/// Limits of terms that suit messages between nodes: nested up to 512 deep, as [`encode_message`] writes them too, and of up to
/// 2,097,152 items, which cost about 100 MiB at the most besides the bytes of the message. A message with more of either
/// is lost, and nothing else with it.
pub const MESSAGE_LIMITS: DecodeLimits = DecodeLimits::DEFAULT.with_depth(etf::MAX_DEPTH).with_items(1 << 21);

/// Reads the messages of one direction of a connection, in order. It keeps the peer's atom cache, and messages in fragments until
/// they are complete.
#[derive(Debug)]
pub struct MessageDecoder {
    cache: AtomCache,
    fragments: Fragments,
    limits: DecodeLimits,
}

impl MessageDecoder {
    /// At the start of a connection. `max_message` is the most that fragments may add up to, in bytes.
    pub fn new(limits: DecodeLimits, fragments: FragmentLimits, max_message: u32) -> Self {
        Self {
            cache: AtomCache::new(),
            fragments: Fragments::new(fragments, max_message),
            limits,
        }
    }

    /// Reads a message as it came out of the framing. `None`: a fragment, and others have to follow.
    ///
    /// # Errors
    /// [`MessageError`], which tells whether the connection [is lost](MessageError::is_fatal).
    pub fn decode(&mut self, message: &Bytes) -> Result<Option<Message>, MessageError> {
        match self.cache.read_header(message)? {
            Header::Normal { atoms, body } => self.terms(&rest(message, body), &atoms).map(Some),
            Header::FirstFragment {
                fragment: 1,
                atoms,
                body,
                ..
            } => self.terms(&rest(message, body), &atoms).map(Some),
            Header::FirstFragment {
                sequence,
                fragment,
                atoms,
                body,
            } => {
                self.fragments.first(sequence, fragment, atoms, &rest(message, body))?;
                Ok(None)
            }
            Header::Fragment {
                sequence,
                fragment,
                body,
            } => match self.fragments.next(sequence, fragment, &rest(message, body))? {
                Some((atoms, body)) => self.terms(&body, &atoms).map(Some),
                None => Ok(None),
            },
            Header::PassThrough { body } => {
                let body = rest(message, body);
                let mut reader = TermReader::new(&body, &self.limits, &[]);
                let control = Control::from_term(reader.versioned_term()?)?;
                let payload = control.has_payload().then(|| reader.versioned_term()).transpose()?;
                reader.finish()?;
                Ok(Some(Message { control, payload }))
            }
        }
    }

    /// Bytes held of messages of which fragments are missing.
    pub fn buffered(&self) -> usize {
        self.fragments.buffered()
    }

    fn terms(&self, body: &Bytes, atoms: &[Atom]) -> Result<Message, MessageError> {
        let mut reader = TermReader::new(body, &self.limits, atoms);
        let control = Control::from_term(reader.term()?)?;
        let payload = control.has_payload().then(|| reader.term()).transpose()?;
        reader.finish()?;
        Ok(Message { control, payload })
    }
}

fn rest(message: &Bytes, at: usize) -> Bytes {
    message.slice(at.min(message.len())..)
}

/// How messages are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Without a header, the terms with version bytes.
    PassThrough,
    /// With a distribution header that names no atoms: the form for those who share an atom cache.
    Header,
}

impl Form {
    /// What two nodes with these flags in common use.
    pub fn negotiated(common: Flags) -> Self {
        if common.contains(Flags::DIST_HDR_ATOM_CACHE) {
            Self::Header
        } else {
            Self::PassThrough
        }
    }
}

/// Why a message cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EncodeMessageError {
    /// One of its terms.
    #[error(transparent)]
    Term(#[from] EncodeError),
    /// A payload where there is none to be, or none where there has to be one.
    #[error("a payload that does not go with the operation")]
    Payload,
}

/// Appends a message as it goes into the framing. Any peer can read [`Form::PassThrough`]; an OTP node expects the form that the
/// common flags say.
///
/// # Errors
/// [`EncodeMessageError`]; `out` is then as it was before.
pub fn encode_message(message: &Message, form: Form, out: &mut BytesMut) -> Result<(), EncodeMessageError> {
    encode_parts(message, form, out).map(|_| ())
}

/// As [`encode_message`]; returns how many of the bytes come before the payload.
pub(super) fn encode_parts(message: &Message, form: Form, out: &mut BytesMut) -> Result<usize, EncodeMessageError> {
    if message.control.has_payload() != message.payload.is_some() {
        return Err(EncodeMessageError::Payload);
    }
    let start = out.len();
    let put = match form {
        Form::PassThrough => {
            out.put_u8(112);
            etf::encode
        }
        Form::Header => {
            out.put_slice(&[etf::VERSION, 68, 0]);
            etf::encode_bare
        }
    };
    let written = put(&message.control.to_term(), out).and_then(|()| {
        let control = out.len().saturating_sub(start);
        message.payload.iter().try_for_each(|term| put(term, out))?;
        Ok(control)
    });
    if written.is_err() {
        out.truncate(start);
    }
    Ok(written?)
}
