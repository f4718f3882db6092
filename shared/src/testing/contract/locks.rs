//! Locks. A store may measure leases by its own clock instead of `now`. So where a lease must have
//! ended, the suite lets both clocks pass; where it must still hold, the lease is long.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{
    domain::Lease,
    ports::Locks,
    testing::{START, order_id},
};

const LONG_MS: u64 = 600_000;
const SHORT_MS: u64 = 20;

/// Waits until a short lease has ended by any clock that measures real time. The caller must
/// advance `now`.
async fn outlive() {
    tokio::time::sleep(Duration::from_millis(SHORT_MS * 3)).await;
}

/// One token holds a lock at a time; a former holder can do nothing more with it.
pub async fn one_holder(locks: &Arc<dyn Locks>) {
    let name = format!("suite-{}", order_id());
    let (ours, theirs) = (u128::MAX, 1);
    let acquire = async |token, lease_ms, now| {
        locks.acquire(&name, token, lease_ms, now).await.expect("a lock is asked for")
    };
    let renew = async |lease: &Lease, now| {
        locks.renew(lease, LONG_MS, now).await.expect("a lease is renewed")
    };
    let release = async |lease: &Lease| locks.release(lease).await.expect("a lease is given up");

    let first = acquire(ours, LONG_MS, START).await.expect("the lock is free");
    assert_eq!((first.name.as_str(), first.token), (name.as_str(), ours));
    assert_eq!(acquire(theirs, LONG_MS, START).await, None);
    assert_eq!(acquire(ours, LONG_MS, START).await.as_ref(), Some(&first), "the same token renews");
    assert!(renew(&first, START).await);
    // Another name is another lock.
    let elsewhere = locks
        .acquire(&format!("{name}-b"), theirs, LONG_MS, START)
        .await
        .expect("a lock is asked for");
    assert!(elsewhere.is_some());

    release(&first).await;
    assert!(!renew(&first, START).await);
    let second = acquire(theirs, LONG_MS, START).await.expect("the lock was given up");
    assert!(second.fence > first.fence);
    // The former holder has lost it.
    release(&first).await;
    assert!(!renew(&first, START).await);
    assert_eq!(acquire(ours, LONG_MS, START).await, None);
    assert!(renew(&second, START).await);

    // An earlier lease of the same token is just as useless.
    release(&second).await;
    let third = acquire(theirs, LONG_MS, START).await.expect("the lock was given up");
    assert!(third.fence > second.fence);
    assert!(!renew(&second, START).await);
    release(&second).await;
    assert_eq!(acquire(ours, LONG_MS, START).await, None);
    release(&third).await;

    // An expired lease goes to the next token, with a larger fence.
    let lost = acquire(ours, SHORT_MS, START).await.expect("the lock was given up");
    outlive().await;
    let now = START.plus_ms(SHORT_MS);
    assert!(!renew(&lost, now).await);
    let next = acquire(theirs, LONG_MS, now).await.expect("the lease has ended");
    assert!(next.fence > lost.fence);
    release(&lost).await;
    assert!(renew(&next, now).await);
    release(&next).await;

    // Renewal extends a lease beyond its first term, by acquiring again or by renewing.
    let lease = acquire(ours, SHORT_MS, now).await.expect("the lock was given up");
    let renewed = locks.renew(&lease, LONG_MS, now).await.expect("a lease is renewed");
    // If the machine slept through the short lease, there is nothing to check.
    if renewed {
        outlive().await;
        assert_eq!(acquire(theirs, LONG_MS, now.plus_ms(SHORT_MS)).await, None);
    }
    release(&lease).await;
}

/// Fifty tasks compete for the lock: two never hold it at once, and each later holder has a larger
/// fence.
pub async fn exclusion(locks: &Arc<dyn Locks>) {
    let name: Arc<str> = format!("suite-{}", order_id()).into();
    let (held, last_fence) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let tasks: Vec<_> = (0..50_u128)
        .map(|token| {
            let (locks, name) = (Arc::clone(locks), Arc::clone(&name));
            let (held, last_fence) = (Arc::clone(&held), Arc::clone(&last_fence));
            tokio::spawn(async move {
                let lease = loop {
                    if let Some(lease) = locks
                        .acquire(&name, token, LONG_MS, START)
                        .await
                        .expect("a lock is asked for")
                    {
                        break lease;
                    }
                    tokio::task::yield_now().await;
                };
                let alone = !held.swap(true, Ordering::SeqCst);
                tokio::task::yield_now().await;
                let grown = last_fence.swap(lease.fence, Ordering::SeqCst) < lease.fence;
                held.store(false, Ordering::SeqCst);
                // Release before asserting; otherwise the other tasks would wait for ever.
                locks.release(&lease).await.expect("a lease is given up");
                (alone, grown)
            })
        })
        .collect();
    for task in tasks {
        let (alone, grown) = task.await.expect("the task ends");
        assert!(alone, "two held the lock at once");
        assert!(grown, "a later holder had no larger fence");
    }
}
