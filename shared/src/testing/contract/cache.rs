//! The cache. As with locks, a store may use its own clock for the time to live.

use std::{sync::Arc, time::Duration};

use crate::{
    ports::Cache,
    testing::{START, order_id},
};

const LONG_MS: u64 = 600_000;
const SHORT_MS: u64 = 20;

/// A value is kept for its time to live, and only a newer one replaces it.
pub async fn newest_version(cache: &Arc<dyn Cache>) {
    let key = format!("suite-{}", order_id());
    let get = async |now| cache.get(&key, now).await.expect("the cache is read");
    let put = async |version, value: &[u8], ttl_ms| {
        cache.put(&key, version, value, ttl_ms, START).await.expect("the cache is written")
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
    cache.put(&key, 1, b"one", LONG_MS, later).await.expect("the cache is written");
    assert_eq!(get(later).await.as_deref(), Some(&b"one"[..]));

    // A reader never sees an older version after a newer one, even with many concurrent writers.
    let key = format!("suite-{}", order_id());
    let writers: Vec<_> = (0..8_u64)
        .map(|writer| {
            let (cache, key) = (Arc::clone(cache), key.clone());
            tokio::spawn(async move {
                for step in 0..25_u64 {
                    let version = step * 8 + writer;
                    cache
                        .put(&key, version, version.to_string().as_bytes(), LONG_MS, START)
                        .await
                        .expect("the cache is written");
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
