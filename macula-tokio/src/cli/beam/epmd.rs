//! The protocol of EPMD, the Erlang port mapper daemon: bytes to requests, answers to bytes, and nothing else.
//!
//! A client sends one request per TCP connection: a length of 2 bytes, then as many bytes, the first of which says what is
//! asked. All numbers are big-endian. After the answer the server closes the connection, except after a registration, which
//! lasts for as long as its connection does. Answers have no length; the kind, or the end of the connection, tells.

/// The longest request that is read, without its length field. A registration with the longest name (255 characters of up to
/// 4 bytes) and no extra field takes 1033 bytes.
pub(super) const MAX_REQUEST: usize = 2048;

/// What a normal, visible node registers as; a hidden one says 72.
const NORMAL_NODE: u8 = 77;
/// TCP over IPv4.
const TCP_IPV4: u8 = 0;
/// The version of the distribution handshake that OTP 23 brought and OTP 25 demands.
const HANDSHAKE_6: u16 = 6;
/// The version before.
const HANDSHAKE_5: u16 = 5;

const ALIVE2_REQ: u8 = 120;
const ALIVE2_RESP: u8 = 121;
const ALIVE2_X_RESP: u8 = 118;
const PORT_PLEASE2_REQ: u8 = 122;
const PORT2_RESP: u8 = 119;
const NAMES_REQ: u8 = 110;
const DUMP_REQ: u8 = 100;
const KILL_REQ: u8 = 107;
const STOP_REQ: u8 = 115;

const OK: u8 = 0;
const REFUSED: u8 = 1;

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Request {
    /// ALIVE2_REQ: take this node down for as long as the connection is open.
    Register(Registration),
    /// PORT_PLEASE2_REQ: where does the node of this name, without its host, listen?
    Port(Vec<u8>),
    /// NAMES_REQ: which nodes are there?
    Names,
    /// DUMP_REQ: as names, but with more detail, for people.
    Dump,
    /// KILL_REQ: end the daemon.
    Kill,
    /// STOP_REQ: forget a node.
    Stop,
}

/// What a node says of itself, and what others are told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Registration {
    /// Where it listens for connections of other nodes.
    pub(super) port: u16,
    /// 77: normal, 72: hidden.
    pub(super) node_type: u8,
    /// 0: TCP over IPv4.
    pub(super) protocol: u8,
    /// Highest version of the distribution handshake.
    pub(super) highest: u16,
    /// Lowest one.
    pub(super) lowest: u16,
    /// Without the host.
    pub(super) name: Vec<u8>,
    /// Nobody uses it today.
    pub(super) extra: Vec<u8>,
}

impl Registration {
    /// Of a node that is known by no more than name and port: visible, and as old as OTP 23 at most.
    pub(super) fn assumed(name: &str, port: u16) -> Self {
        Self {
            port,
            node_type: NORMAL_NODE,
            protocol: TCP_IPV4,
            highest: HANDSHAKE_6,
            lowest: HANDSHAKE_5,
            name: name.as_bytes().to_vec(),
            extra: Vec::new(),
        }
    }
}

/// Why bytes are no request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadRequest {
    #[error("a request of {0} bytes, where {MAX_REQUEST} are the limit")]
    TooLong(u16),
    #[error("an unknown request, {0}")]
    Unknown(u8),
    #[error("a request that ends too soon")]
    Short,
    #[error("a request with bytes left over")]
    Surplus,
}

/// The request that `bytes`, all that came so far, begin with; `None` while more has to come.
pub(super) fn request(bytes: &[u8]) -> Result<Option<Request>, BadRequest> {
    let Some((length, rest)) = bytes.split_first_chunk() else {
        return Ok(None);
    };
    let length = u16::from_be_bytes(*length);
    // Before anything is waited for, let alone kept.
    if usize::from(length) > MAX_REQUEST {
        return Err(BadRequest::TooLong(length));
    }
    match rest.get(..usize::from(length)) {
        Some(body) => body_of_request(body).map(Some),
        None => Ok(None),
    }
}

fn body_of_request(body: &[u8]) -> Result<Request, BadRequest> {
    let (&code, mut rest) = body.split_first().ok_or(BadRequest::Short)?;
    let request = match code {
        ALIVE2_REQ => Request::Register(registration(&mut rest)?),
        PORT_PLEASE2_REQ => Request::Port(std::mem::take(&mut rest).to_vec()),
        NAMES_REQ => Request::Names,
        DUMP_REQ => Request::Dump,
        KILL_REQ => Request::Kill,
        STOP_REQ => {
            // The name does not matter to who refuses.
            rest = &[];
            Request::Stop
        }
        _ => return Err(BadRequest::Unknown(code)),
    };
    match rest.is_empty() {
        true => Ok(request),
        false => Err(BadRequest::Surplus),
    }
}

fn registration(rest: &mut &[u8]) -> Result<Registration, BadRequest> {
    Ok(Registration {
        port: u16_of(rest)?,
        node_type: u8_of(rest)?,
        protocol: u8_of(rest)?,
        highest: u16_of(rest)?,
        lowest: u16_of(rest)?,
        name: bytes_of(rest)?,
        extra: bytes_of(rest)?,
    })
}

fn u8_of(rest: &mut &[u8]) -> Result<u8, BadRequest> {
    let (first, behind) = rest.split_first().ok_or(BadRequest::Short)?;
    *rest = behind;
    Ok(*first)
}

fn u16_of(rest: &mut &[u8]) -> Result<u16, BadRequest> {
    let (first, behind) = rest.split_first_chunk().ok_or(BadRequest::Short)?;
    *rest = behind;
    Ok(u16::from_be_bytes(*first))
}

/// A length of 2 bytes and as many bytes.
fn bytes_of(rest: &mut &[u8]) -> Result<Vec<u8>, BadRequest> {
    let length = u16_of(rest)?;
    let (first, behind) = rest.split_at_checked(length.into()).ok_or(BadRequest::Short)?;
    *rest = behind;
    Ok(first.to_vec())
}

/// The answer to a registration: the creation, by which nodes tell two lives of one name apart, or a refusal. Nodes that
/// know version 6 are given all 32 bits of the creation, older ones 2 that are not all zero.
pub(super) fn registered(highest: u16, creation: Option<u32>) -> Vec<u8> {
    let result = if creation.is_some() { OK } else { REFUSED };
    let creation = creation.unwrap_or_default();
    if highest >= HANDSHAKE_6 {
        let mut answer = vec![ALIVE2_X_RESP, result];
        answer.extend(creation.to_be_bytes());
        return answer;
    }
    let small = u16::try_from(creation % 3 + 1).unwrap_or(1);
    let mut answer = vec![ALIVE2_RESP, result];
    answer.extend(small.to_be_bytes());
    answer
}

/// The answer to the question for a port: all that is known of the node, or that there is none.
pub(super) fn port(found: Option<&Registration>) -> Vec<u8> {
    let Some(node) = found else {
        return vec![PORT2_RESP, REFUSED];
    };
    let mut answer = vec![PORT2_RESP, OK];
    answer.extend(node.port.to_be_bytes());
    answer.extend([node.node_type, node.protocol]);
    answer.extend(node.highest.to_be_bytes());
    answer.extend(node.lowest.to_be_bytes());
    for field in [&node.name, &node.extra] {
        // They came with lengths of 2 bytes, or are shorter still.
        answer.extend(u16::try_from(field.len()).unwrap_or_default().to_be_bytes());
        answer.extend(field);
    }
    answer
}

/// The answer to the question for names: the port of this EPMD, which clients compare with what they expect, and a line for
/// each node.
pub(super) fn names<'a>(epmd: u16, nodes: impl IntoIterator<Item = &'a Registration>) -> Vec<u8> {
    let mut answer = u32::from(epmd).to_be_bytes().to_vec();
    for node in nodes {
        let name = String::from_utf8_lossy(&node.name);
        answer.extend(format!("name {name} at port {}\n", node.port).into_bytes());
    }
    answer
}

/// The answer to who wants this EPMD to end: it is not allowed.
pub(super) fn kill_refused() -> Vec<u8> {
    b"NO".to_vec()
}

/// The answer to who wants a node to be forgotten: there is none of that name that could be.
pub(super) fn stop_refused() -> Vec<u8> {
    b"NOEXIST".to_vec()
}

/// The request for names, to find out who answers at an address.
pub(super) fn names_request() -> [u8; 3] {
    [0, 1, NAMES_REQ]
}

/// The names in an answer to [`names_request`]; `None` if it cannot be one.
pub(super) fn names_in(answer: &[u8], epmd: u16) -> Option<Vec<String>> {
    let (port, text) = answer.split_first_chunk()?;
    if u32::from_be_bytes(*port) != u32::from(epmd) {
        return None;
    }
    let text = String::from_utf8_lossy(text);
    let name = |line: &str| Some(line.strip_prefix("name ")?.split(' ').next()?.to_owned());
    Some(text.lines().filter_map(name).collect())
}

#[cfg(test)]
mod tests {
    use macula_proto::Rng;

    use super::*;

    /// As a node of OTP 25 with the name `a` sends it.
    const REGISTER: [u8; 16] = [0, 14, 120, 0x9c, 0x40, 77, 0, 0, 6, 0, 5, 0, 1, b'a', 0, 0];

    fn node() -> Registration {
        Registration::assumed("a", 40_000)
    }

    #[test]
    fn requests_are_read() {
        let table: [(&[u8], Request); 6] = [
            (&REGISTER, Request::Register(node())),
            (&[0, 3, 122, b'a', b'b'], Request::Port(b"ab".to_vec())),
            (&[0, 1, 110], Request::Names),
            (&[0, 1, 100], Request::Dump),
            (&[0, 1, 107], Request::Kill),
            (&[0, 3, 115, b'x', b'y'], Request::Stop),
        ];
        for (bytes, expected) in table {
            for cut in 0..bytes.len() {
                assert_eq!(request(&bytes[..cut]), Ok(None), "{expected:?} cut at {cut}");
            }
            assert_eq!(request(bytes), Ok(Some(expected.clone())));
            // What a client sends behind its request is not looked at.
            assert_eq!(request(&[bytes, &[1, 2, 3]].concat()), Ok(Some(expected)));
        }
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let table: [(&[u8], BadRequest); 8] = [
            (&[0, 0], BadRequest::Short),
            (&[0, 1, 120], BadRequest::Short),
            (&[0, 1, 7], BadRequest::Unknown(7)),
            (&[0, 2, 110, 0], BadRequest::Surplus),
            (&[0xff, 0xff], BadRequest::TooLong(0xffff)),
            (&[8, 1], BadRequest::TooLong(2049)),
            // A name that is longer than its request.
            (
                &[0, 14, 120, 0, 1, 77, 0, 0, 6, 0, 5, 0xff, 0xff, b'a', 0, 0],
                BadRequest::Short,
            ),
            (
                &[0, 15, 120, 0, 1, 77, 0, 0, 6, 0, 5, 0, 1, b'a', 0, 0, 0],
                BadRequest::Surplus,
            ),
        ];
        for (bytes, error) in table {
            assert_eq!(request(bytes), Err(error), "{bytes:?}");
        }
        // The longest that is taken.
        let mut longest = vec![8, 0, 122];
        longest.resize(2 + MAX_REQUEST, b'x');
        assert_eq!(request(&longest), Ok(Some(Request::Port(vec![b'x'; MAX_REQUEST - 1]))));
    }

    #[test]
    fn any_bytes_are_a_request_or_refused() {
        let mut rng = Rng::from_entropy([7; 32]);
        let mut read = 0;
        for _ in 0..20_000 {
            let mut bytes = rng.bytes::<64>().to_vec();
            bytes.truncate(usize::try_from(rng.below(64)).unwrap());
            // Mostly as long as it says, and mostly of a kind that there is.
            if let [high, low, code, ..] = &mut bytes[..] {
                let kinds = [120, 121, 122, 110, 100, 107, 115, *code];
                (*high, *low) = (0, *low % 64);
                *code = kinds[usize::try_from(rng.below(8)).unwrap()];
            }
            if let Ok(Some(found)) = request(&bytes) {
                read += 1;
                assert!(format!("{found:?}").len() < 1000);
            }
        }
        assert!(read > 1000, "only {read} of them were requests");
        // Every byte of a good request changed to every other value.
        for at in 0..REGISTER.len() {
            for value in 0..=u8::MAX {
                let mut bytes = REGISTER;
                bytes[at] = value;
                let _ = request(&bytes);
            }
        }
    }

    #[test]
    fn answers_are_as_erlang_reads_them() {
        assert_eq!(registered(6, Some(0x0102_0304)), [118, 0, 1, 2, 3, 4]);
        assert_eq!(registered(6, None), [118, 1, 0, 0, 0, 0]);
        assert_eq!(registered(5, Some(3)), [121, 0, 0, 1]);
        assert_eq!(registered(5, Some(u32::MAX)), [121, 0, 0, 1]);
        assert_eq!(registered(5, None)[..2], [121, 1]);
        assert_eq!(port(None), [119, 1]);
        assert_eq!(
            port(Some(&node())),
            [119, 0, 0x9c, 0x40, 77, 0, 0, 6, 0, 5, 0, 1, b'a', 0, 0]
        );
        assert_eq!(names(4369, []), [0, 0, 0x11, 0x11]);
        assert_eq!(names(4369, [&node()]), b"\0\0\x11\x11name a at port 40000\n");
        assert_eq!(
            (&kill_refused()[..], &stop_refused()[..]),
            (&b"NO"[..], &b"NOEXIST"[..])
        );
    }

    #[test]
    fn an_epmd_is_recognised_by_its_answer() {
        assert_eq!(request(&names_request()), Ok(Some(Request::Names)));
        let other = Registration::assumed("other", 1);
        let answer = names(4370, [&node(), &other]);
        assert_eq!(names_in(&answer, 4370), Some(vec!["a".to_owned(), "other".to_owned()]));
        assert_eq!(names_in(&names(4370, []), 4370), Some(Vec::new()));
        assert_eq!(names_in(&answer, 4369), None);
        assert_eq!(names_in(b"HTTP/1.1 400 Bad Request", 4369), None);
        assert_eq!(names_in(&[0, 0], 0), None);
    }
}
