//! A bounded cache in this process's memory whose entries expire.
//!
//! A library evicts the entries; expiry and single flight are added here. Entries expire by the
//! process's own clock, which is enough for memory that may be old by its life. A fact whose end
//! matters carries the end in its value.

use std::{
    collections::{HashMap, hash_map::RandomState},
    convert::Infallible,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use quick_cache::{
    Equivalent, UnitWeighter,
    sync::{Cache, DefaultLifecycle},
};

/// A cache. `E` is the error of its loads.
pub(super) struct LocalCache<K, V, E = Infallible> {
    entries: Entries<K, V>,
    life: Option<Duration>,
    loads: Mutex<HashMap<K, Arc<Load<V, E>>>>,
}

type Entries<K, V> = Cache<K, Kept<V>, UnitWeighter, RandomState>;

#[derive(Clone)]
struct Kept<V> {
    value: V,
    expires_at: Option<Instant>,
}

impl<V> Kept<V> {
    fn is_over(&self) -> bool {
        self.expires_at.is_some_and(|expires_at| expires_at <= Instant::now())
    }
}

/// A load in progress. The caller that loads holds the lock, the others wait for it.
type Load<V, E> = tokio::sync::Mutex<Option<Result<V, Arc<E>>>>;

impl<K: Hash + Eq + Clone, V: Clone, E> LocalCache<K, V, E> {
    /// A cache of this many entries, each of which expires this long after it was inserted.
    pub(super) fn new(entries_max: usize, life: Duration) -> Self {
        Self::with(entries_max, Some(life))
    }

    /// A cache whose entries do not expire.
    pub(super) fn lasting(entries_max: usize) -> Self {
        Self::with(entries_max, None)
    }

    fn with(entries_max: usize, life: Option<Duration>) -> Self {
        let entries = Cache::with(
            entries_max,
            entries_max as u64,
            UnitWeighter,
            RandomState::new(),
            DefaultLifecycle::default(),
        );
        Self { entries, life, loads: Mutex::default() }
    }

    /// The value, unless it has expired.
    pub(super) fn get<Q: Hash + Equivalent<K> + ?Sized>(&self, key: &Q) -> Option<V> {
        self.entries.get(key).filter(|kept| !kept.is_over()).map(|kept| kept.value)
    }

    /// Whether the cache has a value that has not expired.
    pub(super) fn has(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// The value; inserts one if there is none.
    pub(super) fn get_or_insert(&self, key: &K, make: impl FnOnce() -> V) -> V {
        if let Some(value) = self.get(key) {
            return value;
        }
        self.entries.remove_if(key, Kept::is_over);
        let made = || Ok::<_, Infallible>(self.kept(make()));
        let Ok(Kept { value, .. }) = self.entries.get_or_insert_with(key, made);
        value
    }

    fn kept(&self, value: V) -> Kept<V> {
        Kept { value, expires_at: self.life.map(|life| Instant::now() + life) }
    }

    /// Inserts or replaces a value.
    pub(super) fn insert(&self, key: K, value: V) {
        self.entries.insert(key, self.kept(value));
    }

    /// Removes a value.
    pub(super) fn remove(&self, key: &K) {
        self.entries.remove(key);
    }

    /// Removes all values.
    pub(super) fn clear(&self) {
        self.entries.clear();
    }

    /// The value. If there is none, `load` makes it; concurrent callers wait for one load and
    /// receive its outcome, also its error. If the loading caller is dropped, another one loads.
    pub(super) async fn load(
        &self,
        key: K,
        load: impl Future<Output = Result<V, E>>,
    ) -> Result<V, Arc<E>> {
        if let Some(value) = self.get(&key) {
            return Ok(value);
        }
        let turn = self.turn(key);
        let mut outcome = turn.load().lock().await;
        if let Some(outcome) = outcome.as_ref() {
            return outcome.clone();
        }
        // A load may have ended between the look-up and the turn.
        let loaded = match self.get(&turn.key) {
            Some(value) => Ok(value),
            None => load.await.map_err(Arc::new),
        };
        if let Ok(value) = &loaded {
            self.insert(turn.key.clone(), value.clone());
        }
        *outcome = Some(loaded.clone());
        // Those who wait have the outcome; a later caller begins anew.
        turn.end();
        loaded
    }

    fn turn(&self, key: K) -> Turn<'_, K, V, E> {
        let mut loads = self.loads.lock().unwrap_or_else(PoisonError::into_inner);
        let load = Arc::clone(loads.entry(key.clone()).or_default());
        Turn { loads: &self.loads, key, load: Some(load) }
    }
}

/// A caller's share in a load.
struct Turn<'c, K: Hash + Eq, V, E> {
    loads: &'c Mutex<HashMap<K, Arc<Load<V, E>>>>,
    key: K,
    /// `None` once the turn is dropped.
    load: Option<Arc<Load<V, E>>>,
}

impl<K: Hash + Eq, V, E> Turn<'_, K, V, E> {
    fn end(&self) {
        let mut loads = self.loads();
        if self.is_in(&loads) {
            loads.remove(&self.key);
        }
    }

    fn load(&self) -> &Load<V, E> {
        self.load.as_ref().expect("taken only when the turn is dropped")
    }

    fn is_in(&self, loads: &HashMap<K, Arc<Load<V, E>>>) -> bool {
        let own = self.load.as_ref();
        loads.get(&self.key).zip(own).is_some_and(|(load, own)| Arc::ptr_eq(load, own))
    }

    fn loads(&self) -> MutexGuard<'_, HashMap<K, Arc<Load<V, E>>>> {
        self.loads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The last caller of a load that nobody finished removes it.
impl<K: Hash + Eq, V, E> Drop for Turn<'_, K, V, E> {
    fn drop(&mut self) {
        // Counted and given up under the lock, which every caller needs: this turn's and the map's.
        let mut loads = self.loads.lock().unwrap_or_else(PoisonError::into_inner);
        let in_map = self.is_in(&loads);
        let last = self.load.take().is_some_and(|load| Arc::strong_count(&load) == 2);
        if in_map && last {
            loads.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::pending,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use futures_util::future::join_all;
    use tokio::time::{sleep, timeout};

    use super::*;

    type Numbers = LocalCache<u32, u32, &'static str>;

    fn is_idle(cache: &Numbers) -> bool {
        cache.loads.lock().unwrap().is_empty()
    }

    #[tokio::test]
    async fn entries_expire_and_are_bounded() {
        let cache = Numbers::new(100, Duration::from_millis(20));
        cache.insert(1, 10);
        assert_eq!((cache.get(&1), cache.has(&2)), (Some(10), false));
        sleep(Duration::from_millis(25)).await;
        assert_eq!(cache.get(&1), None);
        let lasting = Numbers::lasting(100);
        for number in 0..1_000 {
            lasting.insert(number, number);
        }
        assert!((0..1_000).filter(|number| lasting.has(number)).count() <= 100);
        lasting.remove(&999);
        assert!(!lasting.has(&999));
        lasting.clear();
        assert!((0..1_000).all(|number| !lasting.has(&number)));
    }

    #[tokio::test]
    async fn concurrent_callers_share_one_load_and_its_error() {
        let (cache, loads) = (Numbers::new(100, Duration::from_secs(60)), AtomicUsize::new(0));
        for (number, outcome) in [(1, Ok(10)), (2, Err("no answer"))] {
            let load = async || {
                loads.fetch_add(1, Ordering::Relaxed);
                sleep(Duration::from_millis(5)).await;
                outcome
            };
            let all = join_all((0..100).map(|_| cache.load(number, load()))).await;
            assert!(all.iter().all(|got| got.clone().map_err(|error| *error) == outcome));
            assert!(is_idle(&cache));
        }
        assert_eq!(loads.load(Ordering::Relaxed), 2);
        assert_eq!(cache.load(1, async { Err("not asked") }).await, Ok(10));
        assert_eq!(cache.load(2, async { Ok(20) }).await, Ok(20), "an error is not kept");
    }

    #[tokio::test]
    async fn another_caller_loads_when_the_first_is_dropped() {
        let cache = Numbers::new(100, Duration::from_secs(60));
        let first = timeout(Duration::from_millis(10), cache.load(1, pending()));
        let (first, second) = tokio::join!(first, cache.load(1, async { Ok(10) }));
        assert!(first.is_err());
        assert_eq!((second, is_idle(&cache)), (Ok(10), true));
        let alone = timeout(Duration::from_millis(10), cache.load(2, pending())).await;
        assert!(alone.is_err() && is_idle(&cache));
    }
}
