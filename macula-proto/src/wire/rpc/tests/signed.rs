//! To signed frames and back.

use super::*;
use crate::identity::NodeId;
use crate::wire::frame::{self, Body, Id16, Id32};
use crate::wire::rpc::signed::{self, OpenFields, SignedError};

#[test]
fn streams_go_through_signed_frames() {
    let node = NodeId::from_bytes([3; 32]);
    let fields = OpenFields {
        realm: Id32([1; 32]),
        deadline_ms: 5,
        caller: node,
        source_route: Bytes::new(),
        retry_budget: 2,
    };
    for message in messages() {
        let body = signed::body(message.clone(), || fields.clone(), node);
        if message.stream().is_none() {
            assert_eq!(body, Err(SignedError::OtherKind));
            continue;
        }
        let body = body.expect("a frame");
        if let Body::StreamOpen(open) = &body {
            assert_eq!(OpenFields::from(open), fields);
        }
        let back = signed::message(body).expect("a message");
        match message {
            // There is no reply with an error.
            Message::StreamReply {
                stream,
                outcome: Outcome::Err(fault),
            } => {
                assert_eq!(back, Message::StreamError { stream, fault });
            }
            message => assert_eq!(back, message),
        }
    }
    let end = frame::StreamEnd {
        stream_id: Id16([0; 16]),
        role: frame::StreamRole::Both,
    };
    assert!(matches!(
        signed::message(end.into()),
        Ok(Message::StreamEnd {
            role: EndRole::Both,
            ..
        })
    ));
    let data = frame::StreamData {
        stream_id: Id16([0; 16]),
        seq: 0,
        encoding: frame::StreamEncoding::Raw,
        body: Value::Uint(5),
    };
    assert_eq!(signed::message(data.into()), Err(SignedError::RawBody));
    let end = frame::ManifestReq {
        mcid: frame::Mcid([0; 34]),
    };
    assert_eq!(signed::message(end.into()), Err(SignedError::OtherKind));
}
