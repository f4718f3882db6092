//! A map with incremental expiry: each insertion inspects two old entries, so there is neither
//! unbounded growth nor a cleanup pause.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
};

/// Entries inspected per insertion. With two, expired entries are removed before the map has grown
/// by half.
const LOOKS_PER_PUT: usize = 2;

/// A map of at most `entries_max` entries. When it is full, the entry that was inspected longest
/// ago is evicted.
pub(super) struct ExpiringMap<K, V> {
    map: HashMap<K, (u64, V)>,
    /// Each key of the map once, with its entry's number. Also holds stale items, of entries that
    /// were removed or stored again since.
    queue: VecDeque<(K, u64)>,
    next: u64,
    entries_max: usize,
}

impl<K: Clone + Eq + Hash, V> ExpiringMap<K, V> {
    pub(super) fn new(entries_max: usize) -> Self {
        Self { map: HashMap::new(), queue: VecDeque::new(), next: 0, entries_max }
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.map.get(key).map(|(_, value)| value)
    }

    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.map.get_mut(key).map(|(_, value)| value)
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        self.map.remove(key).map(|(_, value)| value)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.map.values().map(|(_, value)| value)
    }

    /// Stores a value, replacing the key's earlier one. Returns the entries removed: some that are
    /// `over`, or the one evicted to make room.
    pub(super) fn put(&mut self, key: K, value: V, over: impl Fn(&V) -> bool) -> Vec<V> {
        if let Some(earlier) = self.get_mut(&key) {
            *earlier = value;
            return Vec::new();
        }
        let mut forgotten = Vec::new();
        for _ in 0..LOOKS_PER_PUT {
            let Some((key, number)) = self.queue.pop_front() else { break };
            match self.map.get(&key) {
                Some((current, value)) if *current == number => {
                    if over(value) {
                        forgotten.extend(self.remove(&key));
                    } else {
                        self.queue.push_back((key, number));
                    }
                }
                _ => {}
            }
        }
        while self.map.len() >= self.entries_max {
            let Some((key, number)) = self.queue.pop_front() else { break };
            if self.map.get(&key).is_some_and(|(current, _)| *current == number) {
                forgotten.extend(self.remove(&key));
            }
        }
        self.next += 1;
        self.map.insert(key.clone(), (self.next, value));
        self.queue.push_back((key, self.next));
        forgotten
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each value is its own expiry time.
    fn put(map: &mut ExpiringMap<u32, u32>, key: u32, end: u32, now: u32) -> Vec<u32> {
        map.put(key, end, |end| *end <= now)
    }

    #[test]
    fn what_is_over_goes_before_the_map_doubles() {
        let mut map = ExpiringMap::new(usize::MAX);
        for now in 0..100_000 {
            put(&mut map, now, now + 100, now);
            assert!(
                map.map.len() <= 200 && map.queue.len() <= 400,
                "{} {}",
                map.map.len(),
                map.queue.len()
            );
        }
        assert_eq!(map.get(&99_999), Some(&100_099));
        assert_eq!(map.get(&0), None);
    }

    #[test]
    fn what_is_put_and_removed_again_leaves_nothing() {
        let mut map = ExpiringMap::new(usize::MAX);
        for _ in 0..10_000 {
            put(&mut map, 1, 10, 0);
            put(&mut map, 2, 10, 0);
            assert_eq!(map.remove(&1), Some(10));
            assert!(map.queue.len() <= 8, "{}", map.queue.len());
        }
        assert_eq!(map.get(&2), Some(&10));
    }

    #[test]
    fn a_full_map_makes_room() {
        let mut map = ExpiringMap::new(10);
        for key in 0..1_000 {
            let forgotten = put(&mut map, key, u32::MAX, 0);
            assert_eq!(forgotten.len(), usize::from(key >= 10));
            assert_eq!(map.get(&key), Some(&u32::MAX));
            assert!(map.map.len() <= 10 && map.queue.len() <= 20);
        }
    }
}
