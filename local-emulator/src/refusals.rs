//! Refused requests of the last minute by reason and by the client's network, for the operator's
//! console. They are counted only while somebody watches, so that nobody else pays for it.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, VecDeque},
    hash::Hash,
    net::IpAddr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{
    body::{Body, to_bytes},
    response::{IntoResponse as _, Response},
};
use flashsale::{
    domain::AddressPrefix,
    problem::{EXPLAINED, Problem},
};
use serde::{Deserialize, Serialize};

use crate::lambda::PAYLOAD_BYTES_MAX;

/// The refusals of this process.
pub static REFUSALS: Refusals = Refusals::new();

/// Seconds that are summed up.
const SECONDS: usize = 60;
/// Networks that are counted apart in one second. An attacker with more of them is told from the
/// reasons.
const NETWORKS_MAX: usize = 2_000;
/// Networks that are shown.
const NETWORKS_SHOWN: usize = 10;

/// Counts refusals.
pub struct Refusals {
    watched: AtomicBool,
    second: Mutex<Option<Tally>>,
}

/// Refusals by reason and by network.
#[derive(Debug, Default)]
struct Tally {
    reasons: HashMap<&'static str, u64>,
    networks: HashMap<AddressPrefix, u64>,
}

impl Refusals {
    const fn new() -> Self {
        Self { watched: AtomicBool::new(false), second: Mutex::new(None) }
    }

    /// Whether refusals are counted.
    pub fn are_watched(&self) -> bool {
        self.watched.load(Ordering::Relaxed)
    }

    /// Counts a refusal; `reason` is the slug of its problem.
    pub fn count(&self, reason: &'static str, address: IpAddr) {
        let mut second = self.second.lock().unwrap_or_else(PoisonError::into_inner);
        let tally = second.get_or_insert_default();
        *tally.reasons.entry(reason).or_default() += 1;
        let network = AddressPrefix::of(address);
        if tally.networks.len() < NETWORKS_MAX || tally.networks.contains_key(&network) {
            *tally.networks.entry(network).or_default() += 1;
        }
    }

    fn take(&self) -> Tally {
        let mut second = self.second.lock().unwrap_or_else(PoisonError::into_inner);
        second.take().unwrap_or_default()
    }
}

/// Counts a refusal by the reason that its body names, because the function may run in another
/// process.
pub async fn observe(response: Response, client: IpAddr) -> Response {
    let (parts, body) = response.into_parts();
    let bytes = match to_bytes(body, PAYLOAD_BYTES_MAX).await {
        Ok(bytes) => bytes,
        Err(error) => {
            tracing::error!(%error, "an answer could not be read");
            return Problem::Internal.into_response();
        }
    };
    REFUSALS.count(reason(&bytes), client);
    Response::from_parts(parts, Body::from(bytes))
}

/// The slug of a problem; `other` for what a function other than the product's may send.
fn reason(body: &[u8]) -> &'static str {
    #[derive(Deserialize)]
    struct Named<'b> {
        #[serde(rename = "type", borrow)]
        name: Cow<'b, str>,
    }
    let named = serde_json::from_slice::<Named<'_>>(body).ok();
    let slug = named.as_ref().and_then(|named| named.name.strip_prefix("/problems/"));
    let known = EXPLAINED.iter().find(|known| Some(known.slug) == slug);
    known.map_or("other", |known| known.slug)
}

/// The last minute, while somebody watches.
pub struct LastMinute<'r> {
    refusals: &'r Refusals,
    seconds: VecDeque<Tally>,
}

/// The refusals of the last minute.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// Their number by reason.
    reasons: BTreeMap<&'static str, u64>,
    /// The networks with most refusals, first the one with most.
    networks: Vec<Network>,
}

/// One network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Network {
    network: String,
    refused: u64,
}

impl<'r> LastMinute<'r> {
    /// Begins to count.
    pub fn watch(refusals: &'r Refusals) -> Self {
        refusals.take();
        refusals.watched.store(true, Ordering::Relaxed);
        Self { refusals, seconds: VecDeque::with_capacity(SECONDS) }
    }

    /// Ends a second and sums up the last minute.
    pub fn tick(&mut self) -> Summary {
        // The last watcher may have left just after this one came.
        self.refusals.watched.store(true, Ordering::Relaxed);
        if self.seconds.len() == SECONDS {
            self.seconds.pop_front();
        }
        self.seconds.push_back(self.refusals.take());
        let reasons = summed(self.seconds.iter().map(|second| &second.reasons));
        let mut networks: Vec<_> =
            summed(self.seconds.iter().map(|second| &second.networks)).into_iter().collect();
        networks.sort_by_cached_key(|(network, refused)| {
            (std::cmp::Reverse(*refused), network.to_string())
        });
        let shown = networks.into_iter().take(NETWORKS_SHOWN);
        Summary {
            reasons: reasons.into_iter().collect(),
            networks: shown
                .map(|(network, refused)| Network { network: network.to_string(), refused })
                .collect(),
        }
    }
}

impl Drop for LastMinute<'_> {
    fn drop(&mut self) {
        self.refusals.watched.store(false, Ordering::Relaxed);
        self.refusals.take();
    }
}

fn summed<'t, K: Copy + Eq + Hash + 't>(
    seconds: impl Iterator<Item = &'t HashMap<K, u64>>,
) -> HashMap<K, u64> {
    let mut sums = HashMap::new();
    for (key, count) in seconds.flatten() {
        *sums.entry(*key).or_default() += count;
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_is_summed_up_and_then_forgotten() {
        let refusals = Refusals::new();
        assert!(!refusals.are_watched());
        let mut minute = LastMinute::watch(&refusals);
        assert!(refusals.are_watched());
        for host in 0..3 {
            refusals.count("rate-limited", IpAddr::from([198, 51, 100, host]));
        }
        refusals.count("banned", "2001:db8:1:2::3".parse().unwrap());
        minute.tick();
        refusals.count("rate-limited", "198.51.100.9".parse().unwrap());
        let summary = minute.tick();
        assert_eq!(summary.reasons, BTreeMap::from([("banned", 1), ("rate-limited", 4)]));
        let network = |network: &str, refused| Network { network: network.to_owned(), refused };
        let expected = [network("198.51.100.0/24", 4), network("2001:db8:1::/48", 1)];
        assert_eq!(summary.networks, expected);
        for _ in 0..SECONDS - 1 {
            minute.tick();
        }
        let summary = minute.tick();
        assert!(summary.reasons.is_empty() && summary.networks.is_empty());
        drop(minute);
        assert!(!refusals.are_watched());
    }

    #[test]
    fn a_watcher_that_leaves_does_not_end_the_count_of_the_next() {
        let refusals = Refusals::new();
        let left = LastMinute::watch(&refusals);
        let mut minute = LastMinute::watch(&refusals);
        drop(left);
        minute.tick();
        assert!(refusals.are_watched());
    }

    #[test]
    fn the_reason_is_read_from_the_body() {
        assert_eq!(reason(br#"{"type":"/problems/sold-out","status":409}"#), "sold-out");
        assert_eq!(reason(br#"{"type":"/problems/made-up"}"#), "other");
        assert_eq!(reason(b"no"), "other");
    }

    #[test]
    fn networks_that_are_counted_and_shown_are_bounded() {
        let refusals = Refusals::new();
        let mut minute = LastMinute::watch(&refusals);
        for number in 0..2 * NETWORKS_MAX {
            let [.., high, low] = number.to_be_bytes();
            refusals.count("sold-out", IpAddr::from([10, high, low, 1]));
        }
        let counted = refusals.second.lock().unwrap().as_ref().unwrap().networks.len();
        assert_eq!(counted, NETWORKS_MAX);
        let summary = minute.tick();
        assert_eq!(summary.networks.len(), NETWORKS_SHOWN);
        assert_eq!(summary.reasons["sold-out"], 2 * NETWORKS_MAX as u64);
    }
}
