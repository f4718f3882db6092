//! `SigningKeys`.

use std::collections::HashSet;

use futures_util::future::join_all;

use super::{Ledger, again};
use crate::testing;

/// One secret per name, the same for all callers, even if many call concurrently for the first
/// time.
pub async fn signing_keys(ledger: &Ledger) {
    let name = format!("test-{}", testing::order_id());
    let tasks = (0..20_u8).map(|n| {
        // Bytes that are not UTF-8.
        let (keys, name, candidate) = (ledger.signing_keys.clone(), name.clone(), [n, 0, 255, 128]);
        tokio::spawn(async move { again(|| keys.get_or_create(&name, &candidate)).await })
    });
    let secrets: HashSet<_> = join_all(tasks).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(secrets.len(), 1, "all get the same");
    let secret = secrets.into_iter().next().unwrap();
    assert!(secret[0] < 20 && secret[1..] == [0, 255, 128]);
    assert_eq!(ledger.signing_keys.get_or_create(&name, &[7; 64]).await.unwrap(), secret);

    let other = format!("other-{name}");
    assert_eq!(ledger.signing_keys.get_or_create(&other, &[7; 64]).await.unwrap(), [7; 64]);
}
