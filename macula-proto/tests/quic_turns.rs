//! Many streams that share the send window of one connection.

#![cfg(feature = "self-signed")]

mod common;

use std::collections::BTreeMap;

use common::{CLIENT, SERVER, World, ms, transport};
use macula_proto::{
    Code,
    quic::{ConnectionHandle, Dir, Event, StreamId},
};
use proptest::prelude::*;

/// What a stream may write before it is another's turn.
const SHARE: u64 = 64 << 10;
/// What programs write at once.
const PIECE: usize = 64 << 10;

/// What the program of a stream does whenever it may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Habit {
    /// Writes until the stream takes no more.
    Flood,
    /// Writes one small piece.
    Trickle,
    /// Has lost interest.
    Ignore,
    /// Ends the stream in good order, or not.
    Finish,
    Reset,
    /// Ends it when the other side has read something.
    StoppedByPeer,
    /// Queues bytes to be sent in their own time, as often as there is room in its queue.
    Enqueue,
}

struct Program {
    habit: Habit,
    sent: u64,
    received: u64,
    over: bool,
}

struct Scene {
    world: World,
    client: ConnectionHandle,
    server: ConnectionHandle,
    programs: BTreeMap<StreamId, Program>,
    told: u64,
}

impl Scene {
    fn new(send_window: u64, habits: &[Habit]) -> Self {
        let config = transport(|transport| {
            transport.max_bidi_streams = 1000;
            transport.initial_streams = 1000;
        });
        let (mut world, client, server) = World::connected_with(&config, &config);
        world.client().connection(client).unwrap().set_send_window(send_window);
        let mut scene = Self {
            world,
            client,
            server,
            programs: BTreeMap::new(),
            told: 0,
        };
        for &habit in habits {
            let mut conn = scene.world.client().connection(client).unwrap();
            let stream = conn.open(Dir::Bi).unwrap();
            let program = Program {
                habit: Habit::Flood,
                sent: 0,
                received: 0,
                over: false,
            };
            scene.programs.insert(stream, program);
            // All want to send at first.
            scene.act(stream);
            scene.programs.get_mut(&stream).unwrap().habit = habit;
        }
        scene
    }

    /// The program of a stream may write.
    fn act(&mut self, id: StreamId) {
        let program = self.programs.get_mut(&id).unwrap();
        if program.over {
            return;
        }
        let mut conn = self.world.client().connection(self.client).unwrap();
        let Ok(mut stream) = conn.stream(id) else { return };
        match program.habit {
            Habit::Flood | Habit::StoppedByPeer => {
                while let Ok(bytes) = stream.write(&[7; PIECE]) {
                    program.sent += bytes as u64;
                }
            }
            Habit::Trickle => program.sent += stream.write(&[7; 500]).unwrap_or(0) as u64,
            Habit::Ignore => {}
            Habit::Enqueue => {
                while stream.stats().bytes_queued < 200_000 && stream.enqueue(vec![7; 10_000].into()).is_ok() {
                    program.sent += 10_000;
                }
            }
            Habit::Finish => {
                let _ = stream.finish();
                program.over = true;
            }
            Habit::Reset => {
                let _ = stream.reset(Code::CANCELLED);
                program.over = true;
            }
        }
    }

    /// Both sides do what they can, and the network has some time.
    fn step(&mut self) {
        self.world.run_for(ms(5));
        let ids: Vec<_> = self.programs.keys().copied().collect();
        for id in ids {
            let program = self.programs.get_mut(&id).unwrap();
            let mut conn = self.world.server().connection(self.server).unwrap();
            let Ok(mut stream) = conn.stream(id) else { continue };
            while let Ok(bytes) = stream.read_chunk(usize::MAX) {
                let Some(bytes) = bytes else { break };
                program.received += bytes.len() as u64;
                if program.habit == Habit::StoppedByPeer {
                    let _ = stream.stop(Code::CANCELLED);
                    program.over = true;
                    break;
                }
            }
            // Sent in its own time, whoever is told of room.
            if program.habit == Habit::Enqueue {
                self.act(id);
            }
        }
        self.world.run_for(ms(5));
        for event in self.world.take(CLIENT) {
            if let Event::Writable { stream, .. } = event {
                self.told += 1;
                self.act(stream);
            }
        }
        let _ = self.world.take(SERVER);
    }

    fn received(&self) -> u64 {
        self.programs.values().map(|program| program.received).sum()
    }
}

#[test]
fn all_get_the_same_share() {
    let mut scene = Scene::new(1_000_000, &[Habit::Flood; 100]);
    let received = |scene: &Scene| -> Vec<u64> { scene.programs.values().map(|program| program.received).collect() };
    // Who was first had the window for itself.
    while received(&scene).iter().any(|bytes| *bytes < SHARE) {
        scene.step();
    }
    let before = received(&scene);
    while scene.received() < 100 * 20 * SHARE {
        scene.step();
    }
    let after = received(&scene).into_iter();
    let mut carried: Vec<_> = after.zip(before).map(|(after, before)| after - before).collect();
    carried.sort_unstable();
    assert!(carried[0] * 10 >= carried[50] * 8, "{carried:?}");
    assert!(carried[99] * 8 <= carried[50] * 10, "{carried:?}");
}

#[test]
fn few_are_told_of_room_that_is_not_there() {
    let mut scene = Scene::new(1_000_000, &[Habit::Flood; 200]);
    while scene.received() < 200 * 6 * SHARE {
        scene.step();
    }
    let shares = scene.received() / SHARE;
    assert!(scene.told <= 3 * shares, "told {} times of {shares} shares", scene.told);
}

#[test]
fn who_has_the_window_for_itself_is_not_interrupted() {
    let mut scene = Scene::new(10_000_000, &[Habit::Flood]);
    while scene.received() < 20_000_000 {
        scene.step();
    }
    // Its own window is what stops it, each time that the other side has read half of that.
    assert!(scene.told <= 80, "told {} times", scene.told);
}

#[test]
fn who_has_its_turn_and_does_nothing_holds_up_nobody() {
    let mut habits = vec![Habit::Ignore; 60];
    habits.resize(100, Habit::Flood);
    let mut scene = Scene::new(500_000, &habits);
    for _ in 0..2000 {
        scene.step();
    }
    let enough = |program: &Program| program.received > 10 * SHARE;
    assert!(scene.programs.values().filter(|program| enough(program)).count() == 40);
}

#[test]
fn a_reader_that_stalls_holds_up_its_own_stream_alone() {
    let mut scene = Scene::new(3_000_000, &[Habit::Flood; 40]);
    let stalled = *scene.programs.keys().next().unwrap();
    // Nobody reads the first one, so that it fills its window.
    let program = scene.programs.remove(&stalled).unwrap();
    assert!(program.sent > 0);
    for _ in 0..1000 {
        scene.world.run_for(ms(5));
        let told: Vec<_> = scene.world.take(CLIENT);
        for event in told {
            match event {
                Event::Writable { stream, .. } if stream == stalled => {
                    let mut conn = scene.world.client().connection(scene.client).unwrap();
                    while conn.stream(stalled).unwrap().write(&[7; PIECE]).is_ok() {}
                }
                Event::Writable { stream, .. } => scene.act(stream),
                _ => {}
            }
        }
        scene.step();
    }
    let least = scene.programs.values().map(|program| program.received).min();
    assert!(least.unwrap() > 10 * SHARE, "{least:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 60, ..ProptestConfig::default() })]

    /// Whatever the others do, those that want to send get to send.
    #[test]
    fn whoever_wants_to_send_does(
        habits in prop::collection::vec(
            prop_oneof![
                3 => Just(Habit::Flood),
                1 => Just(Habit::Trickle),
                1 => Just(Habit::Ignore),
                1 => Just(Habit::Finish),
                1 => Just(Habit::Reset),
                1 => Just(Habit::StoppedByPeer),
                1 => Just(Habit::Enqueue),
            ],
            2..60,
        ),
        window in 30_000_u64..2_000_000,
    ) {
        let mut scene = Scene::new(window, &habits);
        let wanting = |scene: &Scene| {
            let waits = |program: &&Program| {
                matches!(program.habit, Habit::Flood | Habit::Enqueue) && program.received < 3 * SHARE
            };
            scene.programs.values().filter(waits).count()
        };
        let mut steps = 0;
        while wanting(&scene) > 0 {
            scene.step();
            steps += 1;
            prop_assert!(steps < 4_000, "{} of {habits:?} wait for good", wanting(&scene));
        }
    }
}
