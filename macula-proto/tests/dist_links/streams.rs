//! Streams of users.

use std::time::Duration;

use bytes::Bytes;
use macula_proto::{
    Code,
    dist::user::{Owner, Priority, UserError, UserEvent},
    endpoint::{DistEvent, DistStreamError},
    quic::StreamId,
};

use crate::{
    net::{End, Net},
    world::pattern,
};

const A: Owner = Owner(10);
const B: Owner = Owner(20);
const C: Owner = Owner(30);

impl Net {
    fn open(&mut self, (host, dist): End, owner: Owner, priority: i64) -> Result<StreamId, DistStreamError> {
        let now = self.world.now;
        let endpoint = &mut self.world.hosts[host].endpoint;
        endpoint.dist_open_stream(now, dist, owner, Priority::clamped(priority))
    }

    fn write(
        &mut self,
        (host, dist): End,
        stream: StreamId,
        owner: Owner,
        data: &[u8],
    ) -> Result<usize, DistStreamError> {
        let mut data = Bytes::copy_from_slice(data);
        self.world.hosts[host]
            .endpoint
            .dist_stream_write(dist, stream, owner, &mut data)
    }

    fn read(&mut self, (host, dist): End, stream: StreamId, owner: Owner) -> Result<Option<Bytes>, DistStreamError> {
        let now = self.world.now;
        self.world.hosts[host]
            .endpoint
            .dist_stream_read(now, dist, stream, owner, 1 << 16)
    }

    fn finish(&mut self, (host, dist): End, stream: StreamId, owner: Owner) {
        let now = self.world.now;
        self.world.hosts[host]
            .endpoint
            .dist_stream_finish(now, dist, stream, owner)
            .unwrap();
    }

    /// Waits for an event of a stream, and says whose it is.
    fn stream_event(&mut self, host: usize, stream: StreamId, wanted: UserEvent) -> Owner {
        self.find(host, &format!("{wanted:?}"), |_, event| match event {
            DistEvent::Stream {
                stream: found,
                owner,
                event,
            } if *found == stream && *event == wanted => Some(*owner),
            _ => None,
        })
    }

    /// Everything up to the end of a stream.
    fn read_all(&mut self, end: End, stream: StreamId, owner: Owner) -> Vec<u8> {
        let mut data = Vec::new();
        loop {
            match self.read(end, stream, owner) {
                Ok(Some(bytes)) => data.extend_from_slice(&bytes),
                Ok(None) => return data,
                Err(DistStreamError::Blocked) => _ = self.stream_event(end.0, stream, UserEvent::Readable),
                Err(error) => panic!("{error}"),
            }
        }
    }
}

fn id(stream: u64) -> StreamId {
    StreamId::new(stream).unwrap()
}

#[test]
fn both_sides_open_streams_and_owners_take_turns() {
    let (mut net, a, b) = Net::linked(|_, _| {});
    for (from, to, first) in [(a, b, 20), (b, a, 17)] {
        for owner in [B, C] {
            net.world.hosts[to.0].endpoint.dist_accept_streams(to.1, owner).unwrap();
        }
        for (index, taker) in [(0, B), (1, C), (2, B)] {
            let stream = net.open(from, A, 100).unwrap();
            assert_eq!(stream.get(), first + 4 * index);
            net.write(from, stream, A, b"question").unwrap();
            net.finish(from, stream, A);
            assert_eq!(net.stream_event(to.0, stream, UserEvent::Accepted), taker);
            assert_eq!(net.read_all(to, stream, taker), b"question");
            let entry = net.world.hosts[to.0].endpoint.dist_streams(to.1)[0];
            assert!(entry.recv_fin && !entry.send_fin && entry.owner == taker);
            net.write(to, stream, taker, b"answer").unwrap();
            net.finish(to, stream, taker);
            assert_eq!(net.read_all(from, stream, A), b"answer");
            for end in [from, to] {
                assert_eq!(net.world.hosts[end.0].endpoint.dist_streams(end.1), [], "it is over");
            }
        }
        net.world.hosts[to.0].endpoint.dist_stop_accepting(to.1, B);
        net.world.hosts[to.0].endpoint.dist_stop_accepting(to.1, C);
    }
}

#[test]
fn a_stream_that_nobody_accepts_is_refused() {
    let (mut net, a, b) = Net::linked(|_, _| {});
    let stream = net.open(a, A, 128).unwrap();
    net.write(a, stream, A, b"hello").unwrap();
    let code = Code::new(0x100).unwrap();
    assert_eq!(net.stream_event(0, stream, UserEvent::Reset(code)), A);
    assert_eq!(net.stream_event(0, stream, UserEvent::Stopped(code)), A);
    assert_eq!(
        net.write(a, stream, A, b"more"),
        Err(DistStreamError::User(UserError::Unknown))
    );
    assert_eq!(net.world.hosts[1].endpoint.dist_streams(b.1), []);
    assert_eq!(
        net.world.hosts[1]
            .endpoint
            .dist_stat(b.1)
            .unwrap()
            .controller
            .users
            .refused,
        1
    );
}

#[test]
fn only_the_owner_may_and_it_may_hand_over() {
    let (mut net, a, b) = Net::linked(|_, _| {});
    net.world.hosts[1].endpoint.dist_accept_streams(b.1, B).unwrap();
    let stream = net.open(a, A, 0).unwrap();
    let not_owner = || DistStreamError::User(UserError::NotOwner);
    assert_eq!(net.write(a, stream, C, b"x"), Err(not_owner()));
    assert_eq!(net.read(a, stream, C), Err(not_owner()));
    let now = net.world.now;
    let endpoint = &mut net.world.hosts[0].endpoint;
    assert_eq!(endpoint.dist_hand_over(now, a.1, stream, C, C), Err(not_owner()));
    assert_eq!(
        endpoint.dist_stream_reset(now, a.1, stream, C, Code::CLOSED),
        Err(not_owner())
    );
    let listed = endpoint.dist_streams(a.1)[0];
    assert_eq!((listed.stream, listed.owner, listed.priority.get()), (20, A, 16));
    endpoint.dist_hand_over(now, a.1, stream, A, C).unwrap();
    assert_eq!(net.stream_event(0, stream, UserEvent::HandedOver), C);
    assert_eq!(net.write(a, stream, A, b"x"), Err(not_owner()));
    net.write(a, stream, C, b"x").unwrap();
    net.finish(a, stream, C);
    net.stream_event(1, stream, UserEvent::Accepted);
    assert_eq!(net.read_all(b, stream, B), b"x");
}

#[test]
fn streams_of_an_owner_that_is_gone_are_reset() {
    let (mut net, a, b) = Net::linked(|_, _| {});
    net.world.hosts[1].endpoint.dist_accept_streams(b.1, B).unwrap();
    for _ in 0..2 {
        let stream = net.open(a, A, 128).unwrap();
        net.write(a, stream, A, b"x").unwrap();
        net.stream_event(1, stream, UserEvent::Accepted);
    }
    let other = net.open(a, C, 128).unwrap();
    net.write(a, other, C, b"x").unwrap();
    net.stream_event(1, other, UserEvent::Accepted);
    let now = net.world.now;
    net.world.hosts[0].endpoint.dist_owner_gone(now, A);
    for stream in [20, 24] {
        assert_eq!(net.stream_event(1, id(stream), UserEvent::Reset(Code::CANCELLED)), B);
    }
    let left: Vec<u64> = net.world.hosts[0]
        .endpoint
        .dist_streams(a.1)
        .iter()
        .map(|entry| entry.stream)
        .collect();
    assert_eq!(left, [28]);
    let now = net.world.now;
    net.world.hosts[1].endpoint.dist_owner_gone(now, B);
    net.stream_event(0, other, UserEvent::Reset(Code::CANCELLED));
    let late = net.open(a, C, 128).unwrap();
    net.write(a, late, C, b"x").unwrap();
    net.stream_event(0, late, UserEvent::Reset(Code::REFUSED));
}

#[test]
fn a_reset_carries_its_code_and_a_close_loses_nothing() {
    let (mut net, a, b) = Net::linked(|_, _| {});
    net.world.hosts[1].endpoint.dist_accept_streams(b.1, B).unwrap();
    let (cut, closed) = (net.open(a, A, 128).unwrap(), net.open(a, A, 128).unwrap());
    for stream in [cut, closed] {
        net.write(a, stream, A, b"all of it").unwrap();
        net.stream_event(1, stream, UserEvent::Accepted);
    }
    let now = net.world.now;
    let endpoint = &mut net.world.hosts[0].endpoint;
    let code = Code::new(4711).unwrap();
    endpoint.dist_stream_reset(now, a.1, cut, A, code).unwrap();
    endpoint.dist_stream_close(now, a.1, closed, A).unwrap();
    assert_eq!(endpoint.dist_streams(a.1), []);
    assert_eq!(net.stream_event(1, cut, UserEvent::Reset(code)), B);
    assert_eq!(net.stream_event(1, closed, UserEvent::Stopped(Code::CLOSED)), B);
    assert_eq!(net.read_all(b, closed, B), b"all of it");
    net.world.run_for(Duration::from_secs(1));
    assert_eq!(net.world.hosts[1].endpoint.dist_streams(b.1), []);
}

#[test]
fn each_direction_can_be_given_up_with_a_code() {
    let (mut net, a, b) = Net::linked(|_, _| {});
    net.world.hosts[1].endpoint.dist_accept_streams(b.1, B).unwrap();
    let stream = net.open(a, A, 128).unwrap();
    net.write(a, stream, A, b"question").unwrap();
    net.stream_event(1, stream, UserEvent::Accepted);
    let (stop, abandon) = (Code::new(11).unwrap(), Code::new(12).unwrap());
    let now = net.world.now;
    let endpoint = &mut net.world.hosts[0].endpoint;
    endpoint.dist_stream_stop(now, a.1, stream, A, stop).unwrap();
    assert_eq!(net.stream_event(1, stream, UserEvent::Stopped(stop)), B);
    assert_eq!(net.read(b, stream, B).unwrap().unwrap(), "question");
    net.write(a, stream, A, b" and more").unwrap();
    net.stream_event(1, stream, UserEvent::Readable);
    assert_eq!(net.read(b, stream, B).unwrap().unwrap(), " and more");
    let now = net.world.now;
    let endpoint = &mut net.world.hosts[0].endpoint;
    endpoint.dist_stream_abandon(now, a.1, stream, A, abandon).unwrap();
    assert_eq!(endpoint.dist_streams(a.1), []);
    assert_eq!(net.stream_event(1, stream, UserEvent::Reset(abandon)), B);
    assert_eq!(net.world.hosts[1].endpoint.dist_streams(b.1), []);
}

#[test]
fn that_streams_are_gone_is_told_before_the_last_message_is_fetched() {
    let (mut net, a, b) = Net::linked(|_, _| {});
    net.try_send(a, &crate::net::numbered(1), 0).unwrap();
    assert!(net.world.hosts[0].endpoint.has_news(), "it is to be written");
    net.find(1, "a message", |_, event| (*event == DistEvent::Readable).then_some(()));
    let now = net.world.now;
    net.world.hosts[0].endpoint.dist_close(now, a.1, Code::CLOSED);
    net.find(1, "the end", |dist, event| {
        (dist == b.1 && matches!(event, DistEvent::Over(_))).then_some(())
    });
    assert!(net.rest(b).iter().all(|event| !matches!(event, DistEvent::Down { .. })));
    assert!(net.recv(b).is_some());
    assert_eq!(net.recv(b), None);
    net.down(b);
    // Where there is nothing to be fetched, one word is enough.
    net.down(a);
    assert!(net.rest(a).iter().all(|event| !matches!(event, DistEvent::Over(_))));
}

#[test]
fn the_more_urgent_stream_arrives_first() {
    let (mut net, a, b) = Net::linked(|_, config| {
        config.controller.net_tick = None;
        config.controller.pool.windows = 20;
    });
    net.world.rate = Some(200_000);
    net.world.hosts[1].endpoint.dist_accept_streams(b.1, B).unwrap();
    let data = pattern(24_000, 5);
    // The least urgent one first: what is sent as it comes would arrive the other way round.
    let streams: Vec<StreamId> = [255, 200, 128, 16]
        .map(|priority| net.open(a, A, priority).unwrap())
        .into();
    for stream in &streams {
        let taken = net.write(a, *stream, A, &data).unwrap();
        assert!(taken > 6_000, "{taken}");
        net.finish(a, *stream, A);
    }
    let mut ends: Vec<StreamId> = Vec::new();
    let mut read = 0;
    net.world.run_until("all streams", |world| {
        let now = world.now;
        for stream in &streams {
            while !ends.contains(stream)
                && let Ok(bytes) = world.hosts[1].endpoint.dist_stream_read(now, b.1, *stream, B, 1 << 16)
            {
                match bytes {
                    Some(bytes) => read += bytes.len(),
                    None => ends.push(*stream),
                }
            }
        }
        (ends.len() == streams.len()).then_some(())
    });
    assert!(read >= 4 * 6_000, "{read}");
    let expected: Vec<StreamId> = streams.iter().rev().copied().collect();
    assert_eq!(ends, expected);
}

#[test]
fn a_hundred_streams_at_once_next_to_messages() {
    let (mut net, a, b) = Net::linked(|_, _| {});
    net.world.lose_every = Some(31);
    for owner in [B, C] {
        net.world.hosts[1].endpoint.dist_accept_streams(b.1, owner).unwrap();
    }
    let mut streams = Vec::new();
    while streams.len() < 90 {
        match net.open(a, A, 10 + streams.len() as i64) {
            Ok(stream) => {
                net.write(a, stream, A, &stream.get().to_be_bytes()).unwrap();
                streams.push(stream);
            }
            Err(DistStreamError::Blocked) => net.find(0, "room for streams", |_, event| {
                (*event == DistEvent::StreamsAvailable).then_some(())
            }),
            Err(error) => panic!("{error}"),
        }
    }
    let messages: Vec<(u64, Bytes)> = (0..500).map(|n| (n, crate::net::numbered(n))).collect();
    assert_eq!(net.transfer(a, b, &messages).len(), 500);
    for stream in streams {
        let data = pattern(3_000, stream.get());
        assert_eq!(net.write(a, stream, A, &data), Ok(data.len()));
        net.finish(a, stream, A);
        let owner = net.stream_event(1, stream, UserEvent::Accepted);
        let expected = [&stream.get().to_be_bytes()[..], &data[..]].concat();
        assert!(net.read_all(b, stream, owner) == expected, "{stream}");
    }
}

#[test]
fn no_streams_before_the_node_is_up() {
    let mut net = Net::new(&["a@h", "b@h"]);
    let a = net.dial(0, 1);
    assert_eq!(net.open((0, a), A, 128), Err(DistStreamError::User(UserError::NotUp)));
}
