//! Long messages in fragments, and what passes between them.

use proptest::prelude::*;

use super::*;
use crate::wire::dist::FRAGMENT;

fn pair() -> World {
    let flags = Flags::DEFAULT | Flags::DIST_HDR_ATOM_CACHE | Flags::FRAGMENTS;
    let mut world = World::new(2, flags, &NodeLimits::default());
    world.connect(0, 1);
    world
}

fn binary(fragments: usize) -> Term {
    Term::binary(vec![7; fragments * FRAGMENT])
}

/// What node 0 sends next, as what it is: `#` for a fragment, or the message.
fn next(world: &mut World, decoder: &mut MessageDecoder) -> Option<Result<Message, Bytes>> {
    let bytes = world.with(0, |node, actions| node.poll_message(1, actions))?;
    Some(match decoder.decode(&bytes).unwrap() {
        Some(message) => Ok(message),
        None => Err(bytes),
    })
}

#[test]
fn messages_of_others_pass_between_fragments_and_those_of_the_same_process_do_not() {
    let mut world = pair();
    let (one, two, far) = (world.spawn(0), world.spawn(0), world.spawn(1));
    world.monitor(1, &far, &one);
    world.settle();
    world.send(0, &one, &far, binary(10)).unwrap();
    world.send(0, &one, &far, term("behind")).unwrap();
    world.send(0, &two, &far, term("passes")).unwrap();
    world.send(0, &two, &far, term("too")).unwrap();
    world.end(0, &one, "done");
    let mut decoder = MessageDecoder::new(MESSAGE_LIMITS, FragmentLimits::default(), 16 << 20);
    let mut order = String::new();
    while let Some(sent) = next(&mut world, &mut decoder) {
        order.push(match sent {
            Err(_) => '#',
            Ok(Message {
                control: Control::MonitorExit { .. },
                ..
            }) => 'D',
            Ok(Message { payload, .. }) => match payload.unwrap() {
                Term::Atom(atom) => atom.chars().next().unwrap(),
                _ => 'L',
            },
        });
    }
    assert_eq!(order, "##p#t#######LbD");
    assert!(world.nodes[0].poll_message(1, &mut Vec::new()).is_none());
}

#[test]
fn several_long_messages_go_in_turn() {
    let mut world = pair();
    let far = world.spawn(1);
    for _ in 0..3 {
        let from = world.spawn(0);
        world.send(0, &from, &far, binary(2)).unwrap();
    }
    let mut decoder = MessageDecoder::new(MESSAGE_LIMITS, FragmentLimits::default(), 16 << 20);
    let mut sequences = Vec::new();
    while let Some(bytes) = world.with(0, |node, actions| node.poll_message(1, actions)) {
        sequences.push(bytes[9]);
        decoder.decode(&bytes).unwrap();
    }
    assert_eq!(sequences.len(), 9);
    // Each begins before any one is through.
    let last = sequences.iter().position(|sequence| *sequence == 2).unwrap();
    assert!(last < 6, "{sequences:?}");
    assert_eq!(decoder.buffered(), 0);
}

#[test]
fn without_the_flags_nothing_is_cut() {
    for flags in [Flags::FRAGMENTS, Flags::DIST_HDR_ATOM_CACHE] {
        let mut world = World::new(2, Flags::DEFAULT | flags, &NodeLimits::default());
        world.connect(0, 1);
        let (near, far) = (world.spawn(0), world.spawn(1));
        world.send(0, &near, &far, binary(4)).unwrap();
        let sent = world.with(0, |node, actions| node.poll_message(1, actions)).unwrap();
        assert!(sent.len() > 4 * FRAGMENT);
        assert_eq!(world.with(0, |node, actions| node.poll_message(1, actions)), None);
    }
}

proptest! {
    #[test]
    fn everything_arrives_and_each_process_is_heard_in_order(
        sends in proptest::collection::vec((0..4_usize, prop_oneof![3 => Just(0_usize), 1 => 1..4_usize]), 1..30),
        polls in proptest::collection::vec(0..4_usize, 1..20),
    ) {
        let mut world = pair();
        let from: Vec<Pid> = (0..4).map(|_| world.spawn(0)).collect();
        let far = world.spawn(1);
        let mut polls = polls.iter().cycle();
        let mut expected: Vec<Vec<i64>> = vec![Vec::new(); 4];
        for (number, (sender, fragments)) in sends.iter().enumerate() {
            let number = number as i64;
            let term: Term = [Term::Int(number), binary(*fragments)].into();
            world.send(0, &from[*sender], &far, term).unwrap();
            expected[*sender].push(number);
            for _ in 0..*polls.next().unwrap() {
                world.step(0, 1);
            }
        }
        let mut got: Vec<Vec<i64>> = vec![Vec::new(); 4];
        for signal in world.drain(1, &far) {
            let Signal::Message { from: Some(sender), term } = signal else { panic!() };
            let at = from.iter().position(|pid| *pid == sender).unwrap();
            got[at].push(term.as_tuple().unwrap()[0].as_i64().unwrap());
        }
        prop_assert_eq!(got, expected);
    }
}
