//! Automatic bans.

use super::{GatePorts, ban, banned, limited, user};
use crate::{
    domain::{AbusePolicy, Abuser, Ban, GateDecision, GateRequest, Quota, Subject, Timestamp},
    testing::START,
};

const ABUSE: AbusePolicy = AbusePolicy {
    abuser: Abuser::User,
    refusals_max: 3,
    window_ms: 10_000,
    ban_ms: 60_000,
    also_refused: 0,
};

async fn bans_of(ports: &GatePorts, subject: &Subject, now: Timestamp) -> Vec<Ban> {
    let mut all = super::blacklist::all(&*ports.blacklist, now).await;
    all.retain(|ban| ban.subject == *subject);
    all
}

/// A subject with too many refusals within a window is banned, until the ban ends or is lifted.
pub async fn strikes(ports: &GatePorts) {
    let entry = |subject: &Subject, now| GateRequest {
        not_banned: vec![subject.clone()],
        abuse: Some(ABUSE),
        ..limited(subject, Quota::per(1, 3_600_000), now)
    };
    let refusals = async |subject: &Subject, now, times: u32| {
        for _ in 0..times {
            let entered = ports.enter(&entry(subject, now)).await;
            assert!(matches!(entered, GateDecision::Limited { limit: 0, .. }), "{entered:?}");
        }
    };

    // One refusal more than allowed causes a ban. The ban reports its end, is listed, and ends by
    // itself.
    let subject = user();
    assert_eq!(ports.enter(&entry(&subject, START)).await, GateDecision::Entered);
    refusals(&subject, START, ABUSE.refusals_max).await;
    assert_eq!(bans_of(ports, &subject, START).await, []);
    let now = START.plus_ms(9_999);
    refusals(&subject, now, 1).await;
    let until = now.plus_ms(ABUSE.ban_ms);
    assert_eq!(
        ports.enter(&entry(&subject, now)).await,
        GateDecision::Banned { until: Some(until) }
    );
    let listed = bans_of(ports, &subject, now).await;
    assert!(
        matches!(listed.as_slice(), [ban] if ban.created_at == now && ban.expires_at == Some(until)),
        "{listed:?}"
    );
    assert_eq!(listed[0].reason, "too many refused requests");
    assert_eq!(
        ports.enter(&entry(&subject, until.minus_ms(1))).await,
        GateDecision::Banned { until: Some(until) }
    );
    // Then counting starts anew: refusals before the ban no longer count.
    refusals(&subject, until, ABUSE.refusals_max).await;
    assert_eq!(ports.enter(&banned(&subject, until)).await, GateDecision::Entered);
    refusals(&subject, until, 1).await;
    assert!(matches!(ports.enter(&banned(&subject, until)).await, GateDecision::Banned { .. }));
    assert!(ports.blacklist.lift(&subject).await.expect("a ban is lifted"));
    assert_eq!(ports.enter(&banned(&subject, until)).await, GateDecision::Entered);
    assert_eq!(bans_of(ports, &subject, until).await, []);
    // Counting also starts anew after a ban is lifted, including an operator's ban.
    for by_operator in [true, false] {
        refusals(&subject, until, ABUSE.refusals_max).await;
        assert_eq!(ports.enter(&banned(&subject, until)).await, GateDecision::Entered);
        if by_operator {
            ports.blacklist.ban(&ban(&subject, until, None)).await.expect("a ban is put");
            assert!(ports.blacklist.lift(&subject).await.expect("a ban is lifted"));
        }
    }

    // Refusals that the caller answered itself count with the next refusal, and not with an entry
    // that succeeds.
    let subject = user();
    let with_others = |now, also_refused| GateRequest {
        abuse: Some(AbusePolicy { also_refused, ..ABUSE }),
        ..entry(&subject, now)
    };
    assert_eq!(ports.enter(&with_others(START, 1_000)).await, GateDecision::Entered);
    assert!(matches!(
        ports.enter(&with_others(START, ABUSE.refusals_max - 1)).await,
        GateDecision::Limited { .. }
    ));
    assert_eq!(ports.enter(&banned(&subject, START)).await, GateDecision::Entered);
    let now = START.plus_ms(ABUSE.window_ms);
    assert!(matches!(
        ports.enter(&with_others(now, ABUSE.refusals_max)).await,
        GateDecision::Limited { .. }
    ));
    assert_eq!(
        ports.enter(&banned(&subject, now)).await,
        GateDecision::Banned { until: Some(now.plus_ms(ABUSE.ban_ms)) }
    );

    // The window starts at its first refusal and is not extended.
    let subject = user();
    assert_eq!(ports.enter(&entry(&subject, START)).await, GateDecision::Entered);
    refusals(&subject, START, 1).await;
    refusals(&subject, START.plus_ms(9_000), 2).await;
    refusals(&subject, START.plus_ms(10_000), ABUSE.refusals_max).await;
    assert_eq!(ports.enter(&banned(&subject, START.plus_ms(10_000))).await, GateDecision::Entered);

    // Refusals by a limit of another kind, or without a policy, count against no one.
    let subject = user();
    let address = super::address();
    let shared = GateRequest { limits: entry(&address, START).limits, ..entry(&subject, START) };
    assert_eq!(ports.enter(&shared).await, GateDecision::Entered);
    for _ in 0..10 {
        assert!(matches!(ports.enter(&shared).await, GateDecision::Limited { .. }));
    }
    let lenient = GateRequest { abuse: None, ..entry(&subject, START) };
    assert_eq!(ports.enter(&lenient).await, GateDecision::Entered);
    for _ in 0..10 {
        assert!(matches!(ports.enter(&lenient).await, GateDecision::Limited { .. }));
    }
    for unbanned in [&subject, &address] {
        assert_eq!(ports.enter(&banned(unbanned, START)).await, GateDecision::Entered);
    }

    // Under a policy for addresses, the address is banned, whoever else shares its network.
    let address = super::address();
    let anonymous = GateRequest {
        not_banned: vec![address.clone()],
        abuse: Some(AbusePolicy { abuser: Abuser::Address, ..ABUSE }),
        ..entry(&address, START)
    };
    assert_eq!(ports.enter(&anonymous).await, GateDecision::Entered);
    for _ in 0..=ABUSE.refusals_max {
        assert!(matches!(ports.enter(&anonymous).await, GateDecision::Limited { .. }));
    }
    let until = START.plus_ms(ABUSE.ban_ms);
    assert_eq!(ports.enter(&anonymous).await, GateDecision::Banned { until: Some(until) });
    assert_eq!(bans_of(ports, &address, START).await.len(), 1);

    // Two kinds of limits in one entry: the user's refusal still counts.
    let both = GateRequest {
        limits: [entry(&super::address(), START).limits, entry(&subject, START).limits].concat(),
        ..entry(&subject, START)
    };
    for _ in 0..=ABUSE.refusals_max {
        assert!(matches!(ports.enter(&both).await, GateDecision::Limited { limit: 1, .. }));
    }
    assert_eq!(
        ports.enter(&both).await,
        GateDecision::Banned { until: Some(START.plus_ms(ABUSE.ban_ms)) }
    );

    // An operator's ban that lasts longer stays; one that would end earlier is replaced.
    for (operator, holds) in [
        (None, None),
        (Some(START.plus_ms(ABUSE.ban_ms)), Some(START.plus_ms(ABUSE.ban_ms))),
        (Some(START.plus_ms(ABUSE.ban_ms + 1)), Some(START.plus_ms(ABUSE.ban_ms + 1))),
        (Some(START.plus_ms(1)), Some(START.plus_ms(ABUSE.ban_ms))),
    ] {
        let subject = user();
        let unchecked = |now| GateRequest { not_banned: Vec::new(), ..entry(&subject, now) };
        assert_eq!(ports.enter(&unchecked(START)).await, GateDecision::Entered);
        let operators = ban(&subject, START.minus_ms(5), operator);
        ports.blacklist.ban(&operators).await.expect("a ban is put");
        for _ in 0..=ABUSE.refusals_max {
            assert!(matches!(ports.enter(&unchecked(START)).await, GateDecision::Limited { .. }));
        }
        let listed = bans_of(ports, &subject, START).await;
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0] == operators, operator == holds, "{listed:?}");
        assert_eq!(
            ports.enter(&banned(&subject, START)).await,
            GateDecision::Banned { until: holds }
        );
    }
}
