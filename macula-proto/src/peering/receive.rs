//! What a peering connection makes of what it receives.

use bytes::Bytes;

use super::{
    Action, Connected, Deliver, EndReason, HandshakeError, Peering, Received, Refusal, Role, SendFailure, Verdict,
    binding::Checked,
    handshake::{self, Introduction},
    machine::{Candidate, Closing, PeerEnd, State},
    outbox::Kind,
    reason::BindingFault,
};
use crate::{
    Code, Now,
    wire::{
        DecodeLimits,
        frame::{Body, DecodedFrame, FrameError, FrameParser},
    },
};

impl Peering {
    pub(super) fn received(&mut self, now: Now, bytes: Bytes, actions: &mut Vec<Action>) {
        self.stats.bytes_received += bytes.len() as u64;
        if bytes.is_empty() || self.input_end.is_some() {
            return;
        }
        self.input.push_back(bytes);
        self.pump(now, actions);
        // What waits for a start or a decision is all that can be left.
        if self.input_bytes() > self.config.limits.peering_handshake_frame as usize {
            self.end_and_close(
                EndReason::HandshakeFlood,
                Code::LIMIT,
                "too much before the handshake",
                actions,
            );
        }
    }

    pub(super) fn input_ended(&mut self, now: Now, end: PeerEnd, actions: &mut Vec<Action>) {
        if self.input_end.is_none() {
            self.input_end = Some(end);
        }
        self.pump(now, actions);
    }

    pub(super) fn input_bytes(&self) -> usize {
        self.input.iter().map(Bytes::len).sum()
    }

    /// Reads frames as long as the state lets it.
    pub(super) fn pump(&mut self, now: Now, actions: &mut Vec<Action>) {
        loop {
            match self.state {
                State::AwaitConnect | State::AwaitHello | State::Up | State::Closing(Closing::Drain) => {}
                State::Closing(Closing::Leave(_) | Closing::Refuse(_)) => {
                    self.input.clear();
                    break;
                }
                State::Fresh | State::Dialling | State::Opening | State::Deciding(_) | State::Ended => return,
            }
            let Some(piece) = self.input.front_mut() else {
                break;
            };
            match self.parser.next(piece) {
                None => {
                    self.input.pop_front();
                }
                Some(Ok(frame)) => self.frame(now, frame, actions),
                Some(Err(error)) => self.bad_frame(error, actions),
            }
        }
        if let Some(end) = self.input_end {
            self.peer_ended(end, actions);
        }
    }

    fn bad_frame(&mut self, error: FrameError, actions: &mut Vec<Action>) {
        self.stats.bad_frames += 1;
        if matches!(self.state, State::Closing(_)) {
            // Late, like everything else; only behind an absurd length nothing can be read any more.
            return;
        }
        let code = match error {
            FrameError::TooLarge(_) => Code::LIMIT,
            FrameError::Bad(_) => Code::PROTOCOL,
        };
        let phrase = error.name();
        self.end_and_close(EndReason::BadFrame(error), code, phrase, actions);
    }

    /// The peer's side of the stream is over, and everything on it was read.
    fn peer_ended(&mut self, end: PeerEnd, actions: &mut Vec<Action>) {
        match self.state {
            // It said so before.
            State::Closing(Closing::Leave(_)) => {}
            // It may still read why it is refused.
            State::Closing(Closing::Refuse(_)) if matches!(end, PeerEnd::Finished) => {}
            _ => {
                let reason = match self.state {
                    State::Up => EndReason::PeerClosed,
                    State::Closing(Closing::Drain) => EndReason::PeerClosedDuringDrain,
                    State::Closing(Closing::Refuse(why)) => EndReason::NotAdmitted(why),
                    _ => EndReason::ClosedDuringHandshake,
                };
                self.end_and_close(reason, Code::CLOSED, "closed", actions);
            }
        }
    }

    fn frame(&mut self, now: Now, frame: DecodedFrame, actions: &mut Vec<Action>) {
        self.stats.frames_received += 1;
        let count = self.by_type.get_mut(frame.frame.body.type_index());
        count.into_iter().for_each(|count| *count += 1);
        if let Body::Unknown(unknown) = &frame.frame.body {
            match unknown.fault {
                Some(_) => self.stats.unfit += 1,
                None => self.stats.unknown_types += 1,
            }
        }
        match (&self.state, frame.frame.frame_type()) {
            (State::AwaitConnect, "connect") => self.connect(now, frame, actions),
            (State::AwaitConnect, "hello") => {
                let phrase = "unexpected_hello_on_server";
                self.end_and_close(EndReason::UnexpectedHelloOnServer, Code::PROTOCOL, phrase, actions);
            }
            (State::AwaitHello, "hello") => self.hello(now, frame, actions),
            (State::AwaitHello, "connect") => {
                let phrase = "unexpected_connect_on_client";
                self.end_and_close(EndReason::UnexpectedConnectOnClient, Code::PROTOCOL, phrase, actions);
            }
            (State::AwaitConnect | State::AwaitHello, _) => self.skip(actions),
            (State::Up, _) => self.deliver(now, frame, actions),
            (State::Closing(Closing::Drain), "goodbye") => self.crossing_goodbye(&frame, actions),
            _ => self.stats.late += 1,
        }
    }

    // ----- the handshake -------------------------------------------------------------------------------------------

    fn skip(&mut self, actions: &mut Vec<Action>) {
        self.stats.skipped += 1;
        self.skipped = self.skipped.saturating_add(1);
        if self.skipped > self.config.limits.peering_skipped {
            let phrase = "too many frames before the handshake";
            self.end_and_close(EndReason::HandshakeFlood, Code::LIMIT, phrase, actions);
        }
    }

    fn connect(&mut self, now: Now, decoded: DecodedFrame, actions: &mut Vec<Action>) {
        let introduction = match Introduction::read(&decoded) {
            Ok(introduction) => introduction,
            Err(error) => return self.bad_connect(error, actions),
        };
        if introduction.shows_wrong_evidence() {
            self.stats.wrong_puzzle_evidence += 1;
        }
        let checked = introduction.check(&self.config, now, Role::Dialler, self.exporter.as_ref());
        let bound = match checked {
            Ok(checked) => self.bound(checked),
            Err(error) => {
                return match handshake::refusal(error) {
                    Some(why) => self.refuse(now, why, actions),
                    None => self.bad_connect(error, actions),
                };
            }
        };
        actions.push(Action::Authorize {
            peer: introduction.node_id,
        });
        self.state = State::Deciding(Box::new(Candidate {
            introduction,
            decoded,
            bound,
        }));
    }

    fn bound(&mut self, checked: Checked) -> bool {
        if checked == Checked::Unchecked {
            self.stats.unchecked_bindings += 1;
        }
        checked == Checked::Bound
    }

    fn bad_connect(&mut self, error: HandshakeError, actions: &mut Vec<Action>) {
        let reason = EndReason::ConnectVerifyFailed(error);
        self.end_and_close(reason, Code::PROTOCOL, "connect_verify_failed", actions);
    }

    pub(super) fn admit(&mut self, now: Now, actions: &mut Vec<Action>) {
        let candidate = match std::mem::replace(&mut self.state, State::Ended) {
            State::Deciding(candidate) => *candidate,
            other => {
                self.state = other;
                self.stats.stale_events += 1;
                return;
            }
        };
        let introduction = candidate.introduction;
        let negotiated = introduction.capabilities & self.config.capabilities;
        let header = self.header(now);
        let hello = match handshake::hello(&self.config, header, negotiated, None, self.exporter.as_ref()) {
            Ok(hello) => hello,
            Err(error) => {
                let reason = EndReason::SendHelloFailed(SendFailure::Encode(error));
                return self.end_and_close(reason, Code::INTERNAL, "HELLO cannot be written", actions);
            }
        };
        // A peer that sends a binding loses nothing that comes right behind HELLO.
        let kind = if introduction.has_binding() {
            Kind::Own
        } else {
            Kind::LonelyHello
        };
        self.push(&hello, kind, actions);
        self.up(introduction, negotiated, candidate.bound, candidate.decoded, actions);
        self.pump(now, actions);
    }

    pub(super) fn refuse_candidate(&mut self, now: Now, why: Refusal, actions: &mut Vec<Action>) {
        if matches!(self.state, State::Deciding(_)) {
            self.refuse(now, why, actions);
        } else {
            self.stats.stale_events += 1;
        }
    }

    /// Tells the peer that it may not stay, and waits for it to go.
    fn refuse(&mut self, now: Now, why: Refusal, actions: &mut Vec<Action>) {
        let header = self.header(now);
        let hello = handshake::hello(&self.config, header, 0, Some(why), self.exporter.as_ref());
        self.closing(now, Closing::Refuse(why));
        if let Ok(hello) = hello {
            self.push(&hello, Kind::Own, actions);
        }
        self.finish_stream(actions);
        self.pump(now, actions);
    }

    fn hello(&mut self, now: Now, decoded: DecodedFrame, actions: &mut Vec<Action>) {
        let introduction = match Introduction::read(&decoded) {
            Ok(introduction) => introduction,
            Err(error) => return self.bad_hello(error, actions),
        };
        let answer = introduction.answer;
        if !answer.accepted {
            let reason = EndReason::Refused(answer.refusal_code);
            return self.end_and_close(reason, Code::CLOSED, "refused", actions);
        }
        let checked = introduction.check(&self.config, now, Role::Acceptor, self.exporter.as_ref());
        let bound = match checked {
            Ok(checked) => self.bound(checked),
            Err(error) => return self.bad_hello(error, actions),
        };
        // What a deployed acceptor calls negotiated is what it can do itself.
        let negotiated = answer.negotiated.unwrap_or(introduction.capabilities) & self.config.capabilities;
        self.up(introduction, negotiated, bound, decoded, actions);
    }

    fn bad_hello(&mut self, error: HandshakeError, actions: &mut Vec<Action>) {
        let code = match error {
            HandshakeError::UnexpectedPeer(_)
            | HandshakeError::Puzzle
            | HandshakeError::ClockSkew
            | HandshakeError::Realm
            | HandshakeError::Binding(BindingFault::Missing) => Code::NOT_ALLOWED,
            _ => Code::PROTOCOL,
        };
        self.end_and_close(
            EndReason::HelloVerifyFailed(error),
            code,
            "hello_verify_failed",
            actions,
        );
    }

    fn up(
        &mut self,
        introduction: Introduction,
        capabilities: u64,
        bound: bool,
        decoded: DecodedFrame,
        actions: &mut Vec<Action>,
    ) {
        self.state = State::Up;
        self.disarm();
        // The last frame ended with its last byte, so nothing of the next one is lost with the old parser.
        self.parser = FrameParser::new(self.config.limits.peering_frame, DecodeLimits::DEFAULT);
        self.peer = Some(introduction.key);
        actions.push(Action::Connected(Box::new(Connected {
            peer: introduction.node_id,
            station_id: introduction.station_id,
            capabilities,
            bound,
            introduction: decoded,
        })));
    }

    // ----- after it ------------------------------------------------------------------------------------------------

    fn verdict(&self, decoded: &DecodedFrame) -> Verdict {
        let key = self.peer.as_ref();
        key.map_or(Verdict::Unsigned, |key| handshake::verdict(&decoded.raw, key))
    }

    fn deliver(&mut self, now: Now, decoded: DecodedFrame, actions: &mut Vec<Action>) {
        // It sends, so it has read HELLO.
        self.release(actions);
        let verdict = self.verdict(&decoded);
        match verdict {
            Verdict::Verified => self.stats.verified += 1,
            Verdict::OtherSigner => self.stats.other_signer += 1,
            Verdict::Unsigned => self.stats.unsigned += 1,
        }
        if verdict != Verdict::Verified && self.config.deliver == Deliver::VerifiedOnly {
            self.stats.dropped_unverified += 1;
            return;
        }
        match decoded.frame.body {
            Body::Goodbye(goodbye) if verdict == Verdict::Verified => {
                self.outbox.drop_unbegun();
                self.closing(now, Closing::Leave(goodbye.reason.clone()));
                let (reason, detail) = (goodbye.reason, goodbye.detail);
                actions.push(Action::Goodbye { reason, detail });
                self.finish_stream(actions);
            }
            _ => actions.push(Action::Frame(Box::new(Received { decoded, verdict }))),
        }
    }

    /// Both sides said GOODBYE: nothing more comes, and the peer may know that at once.
    fn crossing_goodbye(&mut self, decoded: &DecodedFrame, actions: &mut Vec<Action>) {
        self.stats.late += 1;
        if self.verdict(decoded) == Verdict::Verified {
            self.finish_stream(actions);
        }
    }
}
