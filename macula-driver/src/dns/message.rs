//! Queries and answers.

use std::net::IpAddr;

use domain::{
    base::{Message, MessageBuilder, Name, Rtype},
    rdata::{A, Aaaa},
};

/// Longest answer, in bytes, that a server may send in a datagram: no path cuts that into pieces.
pub(super) const LONGEST: u16 = 1232;

/// What is asked for: a name, and a type of record.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    pub(crate) name: Name<Vec<u8>>,
    pub(crate) kind: Rtype,
}

/// A query. `extended`: with what servers have to be told to send more than 512 bytes, and very old ones do not understand.
pub(super) fn query(id: u16, question: &Question, extended: bool) -> Option<Message<Vec<u8>>> {
    let mut builder = MessageBuilder::new_vec();
    builder.header_mut().set_id(id);
    builder.header_mut().set_rd(true);
    let mut builder = builder.question();
    builder.push((&question.name, question.kind)).ok()?;
    let mut builder = builder.additional();
    if extended {
        let size = |opt: &mut domain::base::message_builder::OptBuilder<'_, Vec<u8>>| {
            opt.set_udp_payload_size(LONGEST);
            Ok(())
        };
        builder.opt(size).ok()?;
    }
    Some(builder.into_message())
}

/// The addresses in an answer, at most `max` of them; `None` if it cannot be read.
pub(crate) fn addresses(answer: &Message<Vec<u8>>, max: usize) -> Option<Vec<IpAddr>> {
    let owner = answer.canonical_name()?;
    let mut found = Vec::new();
    for record in answer.answer().ok()? {
        let record = record.ok()?;
        if found.len() >= max {
            break;
        }
        if record.owner() != owner {
            continue;
        }
        if let Some(record) = record.to_record::<A>().ok()? {
            found.push(record.data().addr().into());
        } else if let Some(record) = record.to_record::<Aaaa>().ok()? {
            found.push(record.data().addr().into());
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_says_what_is_asked_and_how_much_may_come() {
        let question = Question {
            name: "a.example".parse().unwrap(),
            kind: Rtype::SRV,
        };
        let bytes = query(0x1234, &question, true).unwrap().into_octets();
        let head = [0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
        let asked = b"\x01a\x07example\0\0\x21\0\x01";
        let size = [0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0];
        assert_eq!(bytes, [&head[..], asked, &size].concat());
        let plain = query(0x1234, &question, false).unwrap().into_octets();
        assert_eq!((plain.len(), plain[11]), (12 + asked.len(), 0));
    }
}
