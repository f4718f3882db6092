//! The cache. As with locks, a store may use its own clock for the time to live.

use std::{sync::Arc, time::Duration};

use crate::{
    domain::{CacheEntry, Timestamp},
    ports::Cache,
    testing::{START, order_id},
};

const LONG_MS: u64 = 600_000;
const SHORT_MS: u64 = 20;

fn entry(key: &str, version: u64, value: &[u8], ttl_ms: u64) -> CacheEntry {
    CacheEntry { key: key.to_owned(), version, value: value.to_vec(), ttl_ms }
}

async fn put(cache: &Arc<dyn Cache>, entries: &[CacheEntry], now: Timestamp) {
    cache.put(entries, now).await.expect("the cache is written");
}

/// Entries that are put together are independent; of those with the same key the newest stays.
pub async fn many_entries(cache: &Arc<dyn Cache>) {
    let name = order_id();
    let key = |n: usize| format!("suite-{name}-{n}");
    let get = async |n: usize| cache.get(&key(n), START).await.expect("the cache is read");
    put(cache, &[], START).await;
    // More than an adapter may send at once.
    let count = 450;
    put(cache, &[entry(&key(1), 5, b"newer", LONG_MS)], START).await;
    let all: Vec<_> =
        (0..count).map(|n| entry(&key(n), 4, n.to_string().as_bytes(), LONG_MS)).collect();
    put(cache, &all, START).await;
    for n in 0..count {
        let expected = if n == 1 { "newer".to_owned() } else { n.to_string() };
        assert_eq!(get(n).await.as_deref(), Some(expected.as_bytes()), "{n}");
    }
    let twice = [
        entry(&key(2), 10, b"ten", LONG_MS),
        entry(&key(2), 9, b"nine", LONG_MS),
        entry(&key(3), 9, b"z", LONG_MS),
        entry(&key(3), 9, b"a", LONG_MS),
        entry(&key(4), 5, b"short", SHORT_MS),
    ];
    put(cache, &twice, START).await;
    assert_eq!(get(2).await.as_deref(), Some(&b"ten"[..]));
    assert_eq!(get(3).await.as_deref(), Some(&b"a"[..]), "of one version the last");
    tokio::time::sleep(Duration::from_millis(SHORT_MS * 3)).await;
    let later = START.plus_ms(SHORT_MS);
    assert_eq!(cache.get(&key(4), later).await.expect("the cache is read"), None);
    assert_eq!(
        cache.get(&key(5), later).await.expect("the cache is read").as_deref(),
        Some(&b"5"[..])
    );
}

/// A value is kept for its time to live, and only a newer one replaces it.
pub async fn newest_version(cache: &Arc<dyn Cache>) {
    let key = format!("suite-{}", order_id());
    let get = async |now| cache.get(&key, now).await.expect("the cache is read");
    let put = async |version, value: &[u8], ttl_ms| {
        put(cache, &[entry(&key, version, value, ttl_ms)], START).await;
    };
    assert_eq!(get(START).await, None);
    put(9, b"nine", LONG_MS).await;
    assert_eq!(get(START).await.as_deref(), Some(&b"nine"[..]));
    // Versions compare as numbers, not as text.
    put(10, b"ten\0\xff", LONG_MS).await;
    assert_eq!(get(START).await.as_deref(), Some(&b"ten\0\xff"[..]));
    put(9, b"nine", LONG_MS).await;
    assert_eq!(get(START).await.as_deref(), Some(&b"ten\0\xff"[..]));
    put(10, b"ten again", LONG_MS).await;
    assert_eq!(get(START).await.as_deref(), Some(&b"ten again"[..]));
    // Adjacent versions that a float can't distinguish.
    put(u64::MAX, b"last", LONG_MS).await;
    put(u64::MAX - 1, b"last but one", LONG_MS).await;
    assert_eq!(get(START).await.as_deref(), Some(&b"last"[..]));
    put(u64::MAX, b"", LONG_MS).await;
    assert_eq!(get(START).await.as_deref(), Some(&b""[..]));
    assert_eq!(cache.get(&format!("{key}-b"), START).await.expect("the cache is read"), None);

    // After its time to live it is gone, and an older version may be stored.
    put(u64::MAX, b"short", SHORT_MS).await;
    tokio::time::sleep(Duration::from_millis(SHORT_MS * 3)).await;
    let later = START.plus_ms(SHORT_MS);
    assert_eq!(get(later).await, None);
    let one = [entry(&key, 1, b"one", LONG_MS)];
    cache.put(&one, later).await.expect("the cache is written");
    assert_eq!(get(later).await.as_deref(), Some(&b"one"[..]));

    // A reader never sees an older version after a newer one, even with many concurrent writers.
    let key = format!("suite-{}", order_id());
    let writers: Vec<_> = (0..8_u64)
        .map(|writer| {
            let (cache, key) = (Arc::clone(cache), key.clone());
            tokio::spawn(async move {
                for step in 0..25_u64 {
                    let version = step * 8 + writer;
                    let value = version.to_string();
                    let entries = [entry(&key, version, value.as_bytes(), LONG_MS)];
                    cache.put(&entries, START).await.expect("the cache is written");
                }
            })
        })
        .collect();
    let mut seen = 0_u64;
    while seen < 199 {
        let text = cache
            .get(&key, START)
            .await
            .expect("the cache is read")
            .unwrap_or_else(|| b"0".to_vec());
        let version = String::from_utf8(text)
            .expect("versions are text")
            .parse()
            .expect("versions are numbers");
        assert!(version >= seen, "{version} after {seen}");
        seen = version;
        tokio::task::yield_now().await;
    }
    for writer in writers {
        writer.await.expect("the task ends");
    }
    assert_eq!(
        cache.get(&key, START).await.expect("the cache is read").as_deref(),
        Some(&b"199"[..])
    );
}
