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
                let mut buffer = [0; 4096];
                while let Ok((length, from)) = udp.recv_from(&mut buffer) {
                    asked.fetch_add(1, Ordering::Relaxed);
                    for answer in answers(&buffer[..length], &zone, false) {
                        udp.send_to(&answer, from).unwrap();
                    }
                }
            }
        });
        thread::spawn(move || {
            for stream in tcp.incoming() {
                let mut stream = stream.unwrap();
                let mut length = [0; 2];
                stream.read_exact(&mut length).unwrap();
                let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
                stream.read_exact(&mut query).unwrap();
                for answer in answers(&query, &zone, true) {
                    let length = u16::try_from(answer.len()).unwrap().to_be_bytes();
                    let _ = stream.write_all(&[&length[..], &answer].concat());
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

fn answers(query: &[u8], zone: &Zone, over_tcp: bool) -> Vec<Vec<u8>> {
    let query = Message::from_octets(query).unwrap();
    let question = query.sole_question().unwrap();
    let reply = zone(&question.qname().to_string().to_ascii_lowercase(), question.qtype());
    of(&query, &reply, over_tcp)
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
            None => b"\0\x01".to_vec(),
        },
        Reply::Long(_) => {
            let mut answer = start(Rcode::NOERROR);
            answer.header_mut().set_tc(true);
            answer.finish()
        }
    };
    vec![answer]
}
