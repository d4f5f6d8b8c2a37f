//! Ranks that are threads, for tests.

use std::sync::mpsc::{Receiver, Sender, channel};

use super::{Message, Transport, World};

struct Threads {
    rank: usize,
    to: Vec<Sender<Vec<u8>>>,
    from: Vec<Receiver<Vec<u8>>>,
}

impl Transport for Threads {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.to.len()
    }

    fn local(&self) -> (usize, usize) {
        (self.rank, self.size())
    }

    fn exchange(&self, what: &str, messages: Vec<(usize, Message)>) {
        for (rank, message) in &messages {
            if !message.send.is_empty() {
                self.to[*rank].send(message.send.to_vec()).unwrap();
            }
        }
        for (rank, message) in messages {
            if !message.receive.is_empty() {
                let bytes = self.from[rank].recv().unwrap();
                assert_eq!(bytes.len(), message.receive.len(), "{what}");
                message.receive.copy_from_slice(&bytes);
            }
        }
    }

    fn set_limited(&self, _: bool) {}

    fn abort(&self) -> ! {
        panic!("aborted")
    }
}

/// Runs `work` as `size` ranks and returns what each has found.
pub(crate) fn in_ranks<T: Send>(size: usize, work: impl Fn(World) -> T + Sync) -> Vec<T> {
    let mut to: Vec<Vec<Sender<Vec<u8>>>> = (0..size).map(|_| Vec::new()).collect();
    let mut from: Vec<Vec<Receiver<Vec<u8>>>> = (0..size).map(|_| Vec::new()).collect();
    for receiver in &mut from {
        for sender in &mut to {
            let (send, receive) = channel();
            sender.push(send);
            receiver.push(receive);
        }
    }
    let work = &work;
    std::thread::scope(|scope| {
        let start = |(rank, (to, from))| scope.spawn(move || work(World::new(Box::new(Threads { rank, to, from }))));
        let ranks: Vec<_> = to.into_iter().zip(from).enumerate().map(start).collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

#[test]
fn sums_are_those_of_one_process_in_the_order_of_the_ranks() {
    for (size, length) in [(2, 7), (3, 2), (4, 1000), (5, 0)] {
        let value =
            |rank: usize, index: usize| ((rank * 31 + index * 17) as f32 * 0.37).sin() * 10_f32.powi(rank as i32);
        let mut expected: Vec<f32> = (0..length).map(|index| value(0, index)).collect();
        for rank in 1..size {
            expected.iter_mut().enumerate().for_each(|(index, sum)| *sum += value(rank, index));
        }
        let sums = in_ranks(size, |world| {
            let mut values: Vec<f32> = (0..length).map(|index| value(world.rank(), index)).collect();
            world.all_reduce("the sum", &mut values);
            values
        });
        assert!(sums.iter().all(|sum| *sum == expected), "{size} ranks, {length} values");
    }
}

#[test]
fn every_rank_receives_what_the_first_one_has_and_what_all_have() {
    for (size, length) in [(2, 5), (3, 1), (4, 4099)] {
        let bytes: Vec<u8> = (0..length).map(|index| (index * 7) as u8).collect();
        let found = in_ranks(size, |world| {
            let own = if world.is_first() { bytes.clone() } else { Vec::new() };
            let text = world.all_gather("the names", &"x".repeat(world.rank())).unwrap();
            let first = world.broadcast("the answer", world.rank() + 40).unwrap();
            (world.broadcast_bytes("the weights", own), text, first)
        });
        let names: Vec<String> = (0..size).map(|rank| "x".repeat(rank)).collect();
        assert!(found.iter().all(|(received, text, first)| *received == bytes && *text == names && *first == 40));
    }
}
