//! Messages of a link as signed frames of a peering connection, and back.

use bytes::Bytes;

use crate::{
    Now,
    identity::NodeId,
    rpc::{Fault, Outcome},
    wire::{
        frame::{Body, Call, CallError, CallResult, ErrorCode, Id16, Id32, Text},
        rpc::{self, Message, Reply, signed},
    },
};

/// How long a streaming call on a signed link may take, in milliseconds: deployed peers want to be told.
const DEADLINE_MS: u64 = 24 * 60 * 60 * 1000;
/// How long a unary call without a time-out of its own may take, in milliseconds.
const CALL_MS: u64 = 30_000;

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Speaker {
    pub(super) node: NodeId,
    pub(super) realm: Id32,
}

/// Whether a frame belongs to a link.
pub(in crate::endpoint) fn is_rpc(body: &Body) -> bool {
    matches!(
        body,
        Body::Call(_)
            | Body::CallResult(_)
            | Body::CallError(_)
            | Body::StreamOpen(_)
            | Body::StreamData(_)
            | Body::StreamEnd(_)
            | Body::StreamError(_)
            | Body::StreamReply(_)
    )
}

/// The frame that says what a message says; `None` for messages that have none (greetings, pings, publications).
pub(super) fn body(message: Message, now: Now, speaker: Speaker) -> Option<Body> {
    match message {
        Message::Call(call) => Some(call_frame(call, now, speaker)?.into()),
        Message::Reply(reply) => reply_frame(reply, speaker),
        message => {
            let open = || signed::OpenFields {
                realm: speaker.realm,
                deadline_ms: now.unix_ms.saturating_add(DEADLINE_MS),
                caller: speaker.node,
                source_route: Bytes::new(),
                retry_budget: 0,
            };
            signed::body(message, open, speaker.node).ok()
        }
    }
}

/// The message that says what a frame says; `None` for a frame that is not of a link, or cannot be understood.
pub(super) fn message(body: Body, now: Now) -> Option<Message> {
    match body {
        Body::Call(call) => Some(Message::Call(rpc::Call {
            call_id: id(call.call_id),
            procedure: call.procedure,
            args: call.payload,
            target: None,
            timeout: Some(call.deadline_ms.saturating_sub(now.unix_ms)),
            trace: None,
        })),
        Body::CallResult(result) => Some(reply(result.call_id, Outcome::Ok(result.payload))),
        Body::CallError(error) => {
            let fault = Fault {
                code: error.name.into_bytes(),
                message: error.detail,
            };
            Some(reply(error.call_id, Outcome::Err(fault)))
        }
        body => signed::message(body).ok(),
    }
}

fn call_frame(call: rpc::Call, now: Now, speaker: Speaker) -> Option<Call> {
    Some(Call {
        call_id: Id16(call.call_id.as_ref().try_into().ok()?),
        procedure: call.procedure,
        realm: speaker.realm,
        payload: call.args,
        deadline_ms: now.unix_ms.saturating_add(call.timeout.unwrap_or(CALL_MS)),
        caller: speaker.node,
        source_route: Bytes::new(),
        retry_budget: 0,
    })
}

fn reply_frame(reply: Reply, speaker: Speaker) -> Option<Body> {
    let call_id = Id16(reply.call_id.as_ref().try_into().ok()?);
    Some(match reply.outcome {
        Outcome::Ok(payload) => CallResult {
            call_id,
            payload,
            responded_by: speaker.node,
            source_route_reverse: Bytes::new(),
        }
        .into(),
        Outcome::Err(fault) => CallError {
            call_id,
            // The numbers are about routes; what failed in a procedure is in the name.
            code: ErrorCode::UNKNOWN_ERROR,
            name: Text::from_bytes(fault.code),
            reported_by: speaker.node,
            detail: fault.message,
            offending_hop: None,
            source_route_partial: Bytes::new(),
        }
        .into(),
    })
}

fn reply(call: Id16, outcome: Outcome) -> Message {
    Message::Reply(Reply {
        call_id: id(call),
        outcome,
        trace: None,
    })
}

fn id(call: Id16) -> Bytes {
    Bytes::copy_from_slice(&call.0)
}
