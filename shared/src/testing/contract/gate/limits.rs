//! Limits: how many requests enter, when the next one may, and what is charged.

use std::sync::Arc;

use super::{GatePorts, address, enter, limited, nothing, retry_after_ms, user};
use crate::{
    domain::{GateDecision, GateRequest, LimitCheck, Quota, Subject},
    testing::{START, phone},
};

/// A burst, then one per interval, and none in between.
pub async fn burst_and_rate(GatePorts { gate, .. }: &GatePorts) {
    let subjects =
        [user(), address(), Subject::Phone(phone()), Subject::phone_at(phone(), super::ip())];
    for subject in &subjects {
        // One second per request, five at once: over a minute, 5 + 60.
        let quota = Quota { limit: 60, window_ms: 60_000, burst: 5 };
        let mut entered = Vec::new();
        for elapsed_ms in (0..=60_000).step_by(250) {
            for _ in 0..if elapsed_ms == 0 { 8 } else { 1 } {
                if enter(&**gate, &limited(subject, quota, START.plus_ms(elapsed_ms))).await
                    == GateDecision::Entered
                {
                    entered.push(elapsed_ms);
                }
            }
        }
        let expected: Vec<u64> =
            [0; 4].into_iter().chain((0..=60).map(|second| second * 1_000)).collect();
        assert_eq!(entered, expected, "{subject:?}");

        // After a long pause the whole burst is available again, and no more.
        let later = START.plus_ms(3_600_000);
        let mut at_once = 0;
        for _ in 0..8 {
            at_once += u32::from(
                enter(&**gate, &limited(subject, quota, later)).await == GateDecision::Entered,
            );
        }
        assert_eq!(at_once, quota.burst, "{subject:?}");
    }
}

/// `retry_after_ms` is exact: a request one millisecond earlier is refused, one at that time
/// enters.
pub async fn exact_retry(GatePorts { gate, .. }: &GatePorts) {
    let quotas = [
        Quota::per(1, 1_000),
        Quota::per(3, 1_000),                             // 333,333 us
        Quota { limit: 7, window_ms: 1_000, burst: 2 },   // no whole number of milliseconds
        Quota { limit: 900, window_ms: 1_000, burst: 1 }, // hardly more than a millisecond
        Quota { limit: 1, window_ms: 86_400_000, burst: 3 },
    ];
    for quota in quotas {
        let subject = user();
        let mut now = START.plus_ms(17);
        for _ in 0..quota.burst {
            assert_eq!(
                enter(&**gate, &limited(&subject, quota, now)).await,
                GateDecision::Entered,
                "{quota:?}"
            );
        }
        for _ in 0..5 {
            let wait = retry_after_ms(&enter(&**gate, &limited(&subject, quota, now)).await);
            assert!(wait >= 1, "{quota:?}");
            if wait > 1 {
                let early = enter(&**gate, &limited(&subject, quota, now.plus_ms(wait - 1))).await;
                assert_eq!(
                    early,
                    GateDecision::Limited { limit: 0, retry_after_ms: 1 },
                    "{quota:?}"
                );
            }
            now = now.plus_ms(wait);
            assert_eq!(
                enter(&**gate, &limited(&subject, quota, now)).await,
                GateDecision::Entered,
                "{quota:?}"
            );
        }
    }

    // More than one per microsecond amounts to no limit; it must not divide by zero either.
    let subject = user();
    let quota = Quota { limit: u32::MAX, window_ms: 1, burst: u32::MAX };
    assert_eq!(enter(&**gate, &limited(&subject, quota, START)).await, GateDecision::Entered);
    // The same holds for the longest window.
    let quota = Quota { limit: 1, window_ms: 1_000_000_000_000, burst: 1 };
    assert_eq!(enter(&**gate, &limited(&user(), quota, START)).await, GateDecision::Entered);
}

/// Of a hundred concurrent requests, exactly as many enter as the quota allows.
pub async fn quota_under_contention(GatePorts { gate, .. }: &GatePorts) {
    for subject in [user(), address()] {
        let tasks: Vec<_> = (0..100)
            .map(|_| {
                let gate = Arc::clone(gate);
                let entry = limited(&subject, Quota::per(10, 60_000), START);
                tokio::spawn(async move { enter(&*gate, &entry).await })
            })
            .collect();
        let mut entered = 0;
        for task in tasks {
            match task.await.expect("the task ends") {
                GateDecision::Entered => entered += 1,
                refused => {
                    assert_eq!(refused, GateDecision::Limited { limit: 0, retry_after_ms: 6_000 })
                }
            }
        }
        assert_eq!(entered, 10, "{subject:?}");
    }
}

/// A refusal charges nothing; an entry charges every limit. Limits with other names or subjects are
/// independent.
pub async fn charges_all_or_none(GatePorts { gate, .. }: &GatePorts) {
    let (wide, narrow) = (Quota::per(3, 60_000), Quota::per(1, 600_000));
    for (one, other) in
        [(user(), address()), (address(), user()), (user(), Subject::Phone(phone()))]
    {
        let limit =
            |name, subject: &Subject, quota| LimitCheck { name, subject: subject.clone(), quota };
        let both = GateRequest {
            limits: vec![limit("suite", &one, wide), limit("suite", &other, narrow)],
            ..nothing(START)
        };
        let swapped =
            GateRequest { limits: both.limits.iter().rev().cloned().collect(), ..both.clone() };

        assert_eq!(enter(&**gate, &both).await, GateDecision::Entered);
        for _ in 0..10 {
            assert_eq!(
                enter(&**gate, &both).await,
                GateDecision::Limited { limit: 1, retry_after_ms: 600_000 }
            );
            assert_eq!(
                enter(&**gate, &swapped).await,
                GateDecision::Limited { limit: 0, retry_after_ms: 600_000 }
            );
        }
        // The other subject's limit was charged once, by the entry, and not by the refusals.
        for _ in 0..2 {
            assert_eq!(enter(&**gate, &limited(&one, wide, START)).await, GateDecision::Entered);
        }
        assert_eq!(retry_after_ms(&enter(&**gate, &limited(&one, wide, START)).await), 20_000);

        // Both are used up: the answer names the limit with the longer wait, wherever it is listed,
        // and after that wait the request enters.
        assert_eq!(
            enter(&**gate, &both).await,
            GateDecision::Limited { limit: 1, retry_after_ms: 600_000 }
        );
        assert_eq!(
            enter(&**gate, &swapped).await,
            GateDecision::Limited { limit: 0, retry_after_ms: 600_000 }
        );
        assert_eq!(
            enter(&**gate, &GateRequest { now: START.plus_ms(600_000), ..both.clone() }).await,
            GateDecision::Entered
        );

        let other_name =
            GateRequest { limits: vec![limit("other", &one, narrow)], ..nothing(START) };
        assert_eq!(enter(&**gate, &other_name).await, GateDecision::Entered);
        assert_eq!(enter(&**gate, &limited(&user(), narrow, START)).await, GateDecision::Entered);
    }

    // All addresses of a /64 are one subject.
    let host = |last: u16| {
        let std::net::IpAddr::V6(v6) = super::ip() else {
            unreachable!("the suite's addresses are IPv6")
        };
        let [a, b, c, d, ..] = v6.segments();
        move |other: u16| {
            Subject::address(std::net::Ipv6Addr::new(a, b, c, d, 0, 0, last, other).into())
        }
    };
    let in_network = host(7);
    assert_eq!(
        enter(&**gate, &limited(&in_network(1), narrow, START)).await,
        GateDecision::Entered
    );
    assert_eq!(
        retry_after_ms(&enter(&**gate, &limited(&in_network(2), narrow, START)).await),
        600_000
    );
}

/// A clock that goes back admits no more requests, and locks a subject out for no longer than it
/// went back. It locks out no one once it is further back than clocks ever differ.
pub async fn clock_set_back(GatePorts { gate, .. }: &GatePorts) {
    let quota = Quota::per(5, 5_000);
    let subject = user();
    let mut entered = 0;
    // Two instances, whose clocks differ by a second, take turns.
    for turn in 0..40 {
        let now = if turn % 2 == 0 { START.plus_ms(1_000) } else { START };
        entered += u32::from(
            enter(&**gate, &limited(&subject, quota, now)).await == GateDecision::Entered,
        );
    }
    assert_eq!(entered, quota.burst);
    // The wait that the slower one reports is right by its own clock.
    let wait = retry_after_ms(&enter(&**gate, &limited(&subject, quota, START)).await);
    assert_eq!(wait, 2_000);
    assert_eq!(
        enter(&**gate, &limited(&subject, quota, START.plus_ms(wait))).await,
        GateDecision::Entered
    );

    let subject = user();
    for _ in 0..quota.burst {
        assert_eq!(enter(&**gate, &limited(&subject, quota, START)).await, GateDecision::Entered);
    }
    let before = START.minus_ms(86_400_000);
    assert_eq!(enter(&**gate, &limited(&subject, quota, before)).await, GateDecision::Entered);
    for _ in 1..quota.burst {
        assert_eq!(enter(&**gate, &limited(&subject, quota, before)).await, GateDecision::Entered);
    }
    assert_eq!(retry_after_ms(&enter(&**gate, &limited(&subject, quota, before)).await), 1_000);
}
