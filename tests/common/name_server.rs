//! A name server of the test.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use domain::{
    base::{
        Message, MessageBuilder, Name, Rtype, Ttl,
        iana::{Class, Rcode},
        rdata::UnknownRecordData,
    },
    rdata::{A, Srv},
};

/// What the name server answers.
#[derive(Clone)]
pub(crate) enum Reply {
    /// Priority, weight, port and target of each record, with one time to live for all.
    Srv(u32, Vec<(u16, u16, u16, &'static str)>),
    Address(Ipv4Addr),
    /// Nothing of the sort is there.
    Code(Rcode),
    Silence,
    /// Noise and answers to other questions; behind them, if there is one, a good answer.
    Noise(Option<Box<Reply>>),
    /// A record whose data ends early.
    Short,
    /// Too long for a datagram. Over TCP: this, or a message that breaks off.
    Long(Option<Box<Reply>>),
    /// From another address than the one that was asked.
    Elsewhere(Box<Reply>),
    /// That it cannot read queries with more than a question, or else this.
    Old(Box<Reply>),
    /// So many answers, which these bytes behind the question pretend to be.
    Raw(u16, Vec<u8>),
}

/// A name server on loopback, for the time of the test.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

/// What is asked for, and what is answered.
pub(crate) type Zone = Arc<dyn Fn(&str, Rtype) -> Reply + Send + Sync>;

impl Server {
    pub(crate) fn start(zone: impl Fn(&str, Rtype) -> Reply + Send + Sync + 'static) -> Self {
        let zone: Zone = Arc::new(zone);
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        let udp = UdpSocket::bind(address).unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        thread::spawn({
            let (asked, zone) = (Arc::clone(&asked), Arc::clone(&zone));
            move || {
                let elsewhere = UdpSocket::bind("127.0.0.1:0").unwrap();
                let mut buffer = [0; 4096];
                while let Ok((length, from)) = udp.recv_from(&mut buffer) {
                    asked.fetch_add(1, Ordering::Relaxed);
                    let (query, reply) = asked_for(&buffer[..length], &zone);
                    let socket = match reply {
                        Reply::Elsewhere(_) => &elsewhere,
                        _ => &udp,
                    };
                    for answer in of(&query, &reply, false) {
                        socket.send_to(&answer, from).unwrap();
                    }
                }
            }
        });
        thread::spawn(move || {
            let mut kept = Vec::new();
            for stream in tcp.incoming() {
                let mut stream = stream.unwrap();
                let mut length = [0; 2];
                stream.read_exact(&mut length).unwrap();
                let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
                stream.read_exact(&mut query).unwrap();
                let (query, reply) = asked_for(&query, &zone);
                let answers = of(&query, &reply, true);
                for answer in &answers {
                    let mut length = u16::try_from(answer.len()).unwrap();
                    if let Reply::Long(None) = reply {
                        length += 100;
                    }
                    let _ = stream.write_all(&[&length.to_be_bytes()[..], answer].concat());
                }
                if answers.is_empty() {
                    kept.push(stream);
                }
            }
        });
        Self { address, asked }
    }

    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

fn name(text: &str) -> Name<Vec<u8>> {
    text.parse().unwrap()
}

fn asked_for<'a>(query: &'a [u8], zone: &Zone) -> (Message<&'a [u8]>, Reply) {
    let query = Message::from_octets(query).unwrap();
    let question = query.sole_question().unwrap();
    let reply = zone(&question.qname().to_string().to_ascii_lowercase(), question.qtype());
    (query, reply)
}

fn of(query: &Message<&[u8]>, reply: &Reply, over_tcp: bool) -> Vec<Vec<u8>> {
    let owner = query.sole_question().unwrap().qname().to_string();
    let owner = name(&owner);
    let start = |code| MessageBuilder::new_vec().start_answer(query, code).unwrap();
    let answer = match reply {
        Reply::Srv(ttl, records) => {
            let mut answer = start(Rcode::NOERROR);
            for (priority, weight, port, target) in records {
                let srv = Srv::new(*priority, *weight, *port, name(target));
                answer.push((&owner, Class::IN, Ttl::from_secs(*ttl), srv)).unwrap();
            }
            answer.finish()
        }
        Reply::Address(address) => {
            let mut answer = start(Rcode::NOERROR);
            let record = A::new(*address);
            answer.push((&owner, Class::IN, Ttl::from_secs(60), record)).unwrap();
            answer.finish()
        }
        Reply::Code(code) => start(*code).finish(),
        Reply::Silence => return Vec::new(),
        Reply::Elsewhere(reply) => return of(query, reply, over_tcp),
        Reply::Old(_) if query.header_counts().arcount() > 0 => {
            let mut answer = query.as_slice()[..12].to_vec();
            // An answer, of a header only: it says that the query has a wrong form.
            (answer[2], answer[3]) = (0x80, 1);
            answer[4..].fill(0);
            answer
        }
        Reply::Old(reply) => return of(query, reply, over_tcp),
        Reply::Raw(count, bytes) => {
            let mut answer = start(Rcode::NOERROR).finish();
            answer[6..8].copy_from_slice(&count.to_be_bytes());
            [answer, bytes.clone()].concat()
        }
        Reply::Short => {
            let mut answer = start(Rcode::NOERROR);
            let data = UnknownRecordData::from_octets(Rtype::SRV, [0, 1, 0]).unwrap();
            answer.push((&owner, Class::IN, Ttl::from_secs(60), data)).unwrap();
            answer.finish()
        }
        Reply::Noise(behind) => {
            let mut other = start(Rcode::NOERROR).finish();
            other[0] ^= 0xff;
            let mut elsewhere = MessageBuilder::new_vec();
            elsewhere.header_mut().set_id(query.header().id());
            elsewhere.header_mut().set_qr(true);
            let mut elsewhere = elsewhere.question();
            elsewhere.push((name("elsewhere.example"), Rtype::SRV)).unwrap();
            let mut answers = vec![
                b"noise".to_vec(),
                vec![0xff; 600],
                Vec::new(),
                other,
                elsewhere.finish(),
            ];
            if let Some(behind) = behind {
                answers.extend(of(query, behind, over_tcp));
            }
            return answers;
        }
        Reply::Long(full) if over_tcp => match full {
            Some(full) => return of(query, full, true),
            None => start(Rcode::NOERROR).finish(),
        },
        Reply::Long(_) => {
            let mut answer = start(Rcode::NOERROR);
            answer.header_mut().set_tc(true);
            answer.finish()
        }
    };
    vec![answer]
}
