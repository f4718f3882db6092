//! Turns for work that takes a processor: a bounded number at once, and bounded queues in front of
//! them that are fair by address prefix.
//!
//! A queue serves the prefixes that wait in it round robin. So a request waits for at most one turn
//! of every other prefix, however many requests that prefix has sent. One prefix holds at most a
//! quarter of a queue's places. When a queue is full, a request of a prefix with fewer places
//! replaces the last request of the prefix with the most places.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

use crate::domain::AddressPrefix;

/// CPU cores that work outside of buying may use: half, at least one.
pub(super) fn half_of_the_processors() -> usize {
    (std::thread::available_parallelism().map_or(1, usize::from) / 2).max(1)
}

/// The right to work, until it is dropped. Move it into the closure that does the work, because the
/// work goes on when its caller disconnects.
pub(super) struct Turn(Option<Arc<Shared>>);

/// Gives out turns.
pub(super) struct FairTurns(Arc<Shared>);

struct Shared {
    at_once: usize,
    waiting_max: usize,
    state: Mutex<State>,
}

struct State {
    running: usize,
    queues: Vec<Queue>,
    /// The queue to serve first when a turn is free; the queues are served round robin too.
    next_queue: usize,
    next_id: u64,
}

/// One queue.
#[derive(Default)]
struct Queue {
    /// Waiting requests by prefix; a prefix without any has no entry.
    lines: HashMap<AddressPrefix, VecDeque<Waiting>>,
    /// The prefixes that have an entry, the next one to be served first.
    order: VecDeque<AddressPrefix>,
    waiting: usize,
}

struct Waiting {
    id: u64,
    sender: oneshot::Sender<Turn>,
}

impl FairTurns {
    /// `queues` queues of `waiting_max` places each, before `at_once` turns (at least 1).
    pub(super) fn new(at_once: usize, queues: usize, waiting_max: usize) -> Self {
        let queues = (0..queues).map(|_| Queue::default()).collect();
        let state = Mutex::new(State { running: 0, queues, next_queue: 0, next_id: 0 });
        Self(Arc::new(Shared { at_once: at_once.max(1), waiting_max, state }))
    }

    /// Waits for a turn. `None`: the queue is full, or this place went to a prefix with fewer
    /// requests.
    pub(super) async fn turn(&self, queue: usize, prefix: AddressPrefix) -> Option<Turn> {
        let mut place = {
            let mut state = self.0.lock();
            if state.running < self.0.at_once {
                state.running += 1;
                return Some(self.0.turn());
            }
            let (sender, receiver) = oneshot::channel();
            let id = state.next_id;
            state.next_id += 1;
            if !state.queues[queue].push(prefix, Waiting { id, sender }, self.0.waiting_max) {
                return None;
            }
            Place { shared: &self.0, queue, prefix, id, receiver }
        };
        (&mut place.receiver).await.ok()
    }

    /// A turn, if one is free.
    pub(super) fn idle_turn(&self) -> Option<Turn> {
        let mut state = self.0.lock();
        if state.running >= self.0.at_once {
            return None;
        }
        state.running += 1;
        Some(self.0.turn())
    }

    /// Whether at least half of a queue's places are taken.
    pub(super) fn half_full(&self, queue: usize) -> bool {
        self.0.lock().queues[queue].waiting * 2 >= self.0.waiting_max
    }

    #[cfg(test)]
    pub(super) fn waiting(&self, queue: usize) -> usize {
        self.0.lock().queues[queue].waiting
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A critical section only moves plain values, so a panic leaves none of them half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn turn(self: &Arc<Self>) -> Turn {
        Turn(Some(Arc::clone(self)))
    }

    /// Takes out the request that gets the freed turn; if none waits, the turn is free again.
    fn next(&self) -> Option<Waiting> {
        let mut state = self.lock();
        let queues = state.queues.len();
        for step in 0..queues {
            let queue = (state.next_queue + step) % queues;
            if let Some(waiting) = state.queues[queue].pop() {
                state.next_queue = (queue + 1) % queues;
                return Some(waiting);
            }
        }
        state.running -= 1;
        None
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(shared) = self.0.take() else { return };
        while let Some(next) = shared.next() {
            match next.sender.send(shared.turn()) {
                Ok(()) => return,
                // The caller has gone away. Empty the returned turn, so that dropping it does not
                // free a second one.
                Err(mut turn) => drop(turn.0.take()),
            }
        }
    }
}

impl Queue {
    /// Adds a waiting request; `false` when there is no place.
    fn push(&mut self, prefix: AddressPrefix, waiting: Waiting, waiting_max: usize) -> bool {
        let own = self.lines.get(&prefix).map_or(0, VecDeque::len);
        if own >= waiting_max.div_ceil(4) {
            return false;
        }
        if self.waiting >= waiting_max {
            let longest = self.lines.iter().max_by_key(|(_, line)| line.len());
            let Some((&longest, _)) = longest.filter(|(_, line)| line.len() > own + 1) else {
                return false;
            };
            if let Some(last) =
                self.lines.get(&longest).and_then(VecDeque::back).map(|last| last.id)
            {
                self.remove(longest, last);
            }
        }
        self.lines.entry(prefix).or_default().push_back(waiting);
        if own == 0 {
            self.order.push_back(prefix);
        }
        self.waiting += 1;
        true
    }

    fn pop(&mut self) -> Option<Waiting> {
        let prefix = self.order.pop_front()?;
        let line = self.lines.get_mut(&prefix)?;
        let waiting = line.pop_front();
        if line.is_empty() {
            self.lines.remove(&prefix);
        } else {
            self.order.push_back(prefix);
        }
        self.waiting -= 1;
        waiting
    }

    fn remove(&mut self, prefix: AddressPrefix, id: u64) {
        let Some(line) = self.lines.get_mut(&prefix) else { return };
        let Some(at) = line.iter().position(|waiting| waiting.id == id) else { return };
        line.remove(at);
        if line.is_empty() {
            self.lines.remove(&prefix);
            self.order.retain(|other| *other != prefix);
        }
        self.waiting -= 1;
    }
}

/// A place in a queue. It is given up when the caller's future is dropped.
struct Place<'t> {
    shared: &'t Shared,
    queue: usize,
    prefix: AddressPrefix,
    id: u64,
    receiver: oneshot::Receiver<Turn>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.shared.lock().queues[self.queue].remove(self.prefix, self.id);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt as _, future::BoxFuture};

    use super::*;

    fn prefix(number: u8) -> AddressPrefix {
        AddressPrefix::of(std::net::Ipv4Addr::new(10, 0, number, 1).into())
    }

    /// A request that waits already.
    fn wait(turns: &Arc<FairTurns>, queue: usize, number: u8) -> BoxFuture<'static, Option<Turn>> {
        let turns = Arc::clone(turns);
        let mut future = async move { turns.turn(queue, prefix(number)).await }.boxed();
        assert!((&mut future).now_or_never().is_none(), "it must wait");
        future
    }

    fn served(future: &mut BoxFuture<'static, Option<Turn>>) -> Option<Turn> {
        future.now_or_never().flatten()
    }

    #[test]
    fn an_honest_request_waits_for_one_turn_of_every_flooding_prefix() {
        let turns = Arc::new(FairTurns::new(1, 1, 1_000));
        let mut held = turns.idle_turn();
        let mut flood: Vec<_> =
            (0..300).map(|number| Some(wait(&turns, 0, (number % 15) as u8))).collect();
        let mut honest = wait(&turns, 0, 200);
        let mut turns_before = 0;
        loop {
            drop(held.take());
            if served(&mut honest).is_some() {
                break;
            }
            let (at, turn) = flood
                .iter_mut()
                .enumerate()
                .find_map(|(at, request)| Some((at, served(request.as_mut()?)?)))
                .expect("one of the requests has the turn");
            flood[at] = None;
            held = Some(turn);
            turns_before += 1;
        }
        assert!(turns_before <= 15, "{turns_before}");
    }

    #[test]
    fn a_full_queue_takes_a_place_from_the_prefix_with_the_most() {
        let turns = Arc::new(FairTurns::new(1, 1, 30));
        let held = turns.idle_turn();
        let mut flood: Vec<_> =
            (0..30).map(|number| wait(&turns, 0, (number % 15) as u8)).collect();
        assert!(
            turns.turn(0, prefix(3)).now_or_never().expect("refused at once").is_none(),
            "the prefix holds its share already"
        );
        let mut honest = wait(&turns, 0, 200);
        assert_eq!(turns.waiting(0), 30);
        let before = flood.len();
        flood.retain_mut(|request| request.now_or_never().is_none());
        assert_eq!(before - flood.len(), 1, "one of the flood has lost its place");
        drop(held);
        // Each is served and gives its turn back at once.
        while !flood.is_empty() {
            let before = flood.len();
            flood.retain_mut(|request| request.now_or_never().is_none());
            if flood.len() == before {
                break;
            }
        }
        assert!(served(&mut honest).is_some());
    }

    #[test]
    fn places_and_turns_of_callers_that_go_away_are_free_again() {
        let turns = Arc::new(FairTurns::new(1, 1, 2));
        let held = turns.idle_turn();
        let (first, second) = (wait(&turns, 0, 1), wait(&turns, 0, 2));
        assert!(
            turns.turn(0, prefix(1)).now_or_never().expect("refused at once").is_none(),
            "one prefix holds a quarter"
        );
        assert!(turns.half_full(0));
        drop(first);
        drop(second);
        assert_eq!(turns.waiting(0), 0);
        assert!(!turns.half_full(0));
        let given = wait(&turns, 0, 1);
        drop(held);
        // The turn is handed over, but its new owner is dropped before it is polled.
        drop(given);
        assert!(turns.idle_turn().is_some());
    }

    #[test]
    fn queues_take_turns() {
        let turns = Arc::new(FairTurns::new(1, 2, 10));
        let held = turns.idle_turn();
        let mut crowd: Vec<_> = (0..5).map(|number| wait(&turns, 0, number)).collect();
        let mut other = wait(&turns, 1, 0);
        drop(held);
        let first = served(&mut crowd[0]).expect("the first queue's turn");
        drop(first);
        assert!(served(&mut other).is_some(), "then the other queue's");
    }
}
