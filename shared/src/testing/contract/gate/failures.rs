//! Failed sign-ins.

use std::sync::Arc;

use super::{GatePorts, ip, user};
use crate::{
    domain::Subject,
    testing::{START, phone},
};

/// The window starts with the first failure; after it ends the count starts anew. Subjects are
/// independent.
pub async fn failures(GatePorts { failures, .. }: &GatePorts) {
    const WINDOW_MS: u64 = 10_000;
    let phone = phone();
    let subjects = [
        user(),
        Subject::address(ip()),
        Subject::Phone(phone.clone()),
        Subject::phone_at(phone.clone(), ip()),
    ];
    for subject in &subjects {
        let count = async |now| failures.count(subject, now).await.expect("failures are counted");
        let add =
            async |now| failures.add(subject, WINDOW_MS, now).await.expect("a failure is added");
        assert_eq!(count(START).await, 0);
        assert_eq!(add(START).await, 1);
        assert_eq!(add(START.plus_ms(9_999)).await, 2);
        assert_eq!(count(START.plus_ms(9_999)).await, 2);
        assert_eq!(count(START.plus_ms(10_000)).await, 0);
        assert_eq!(add(START.plus_ms(10_000)).await, 1);
        assert_eq!(count(START.plus_ms(19_999)).await, 1);

        failures.clear(subject).await.expect("failures are forgotten");
        failures.clear(subject).await.expect("none are forgotten");
        assert_eq!(count(START.plus_ms(10_000)).await, 0);
        assert_eq!(add(START.plus_ms(10_000)).await, 1);
    }
    // The same phone from another address is another subject.
    let elsewhere = Subject::phone_at(phone, ip());
    assert_eq!(
        failures.count(&elsewhere, START.plus_ms(10_000)).await.expect("failures are counted"),
        0
    );

    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let (failures, subject) = (Arc::clone(failures), elsewhere.clone());
            tokio::spawn(async move {
                failures.add(&subject, WINDOW_MS, START).await.expect("a failure is added")
            })
        })
        .collect();
    let mut counts = Vec::new();
    for task in tasks {
        counts.push(task.await.expect("the task ends"));
    }
    counts.sort_unstable();
    assert_eq!(counts, (1..=50).collect::<Vec<u32>>());
}
