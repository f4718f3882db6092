//! The order in which an entry is checked.

use super::{GatePorts, ban, nothing};
use crate::{
    domain::{GateDecision, GateRequest, LimitCheck, Quota, Subject},
    testing::{START, session_id, user_id},
};

/// The first that applies is reported: session, ban, limit. A refusal by the first two charges
/// nothing.
pub async fn order_of_checks(ports: &GatePorts) {
    assert_eq!(ports.enter(&nothing(START)).await, GateDecision::Entered);

    let user_id = user_id();
    let (user, address) = (Subject::User(user_id), super::address());
    let until = START.plus_ms(1_000);
    let session = ports.open(user_id, START.plus_ms(60_000), START).await;
    let limit = |subject: &Subject| LimitCheck {
        name: "suite",
        subject: subject.clone(),
        quota: Quota::per(1, 10_000),
    };
    let entry = GateRequest {
        session: Some((user_id, session_id())),
        not_banned: vec![user.clone(), address.clone()],
        limits: vec![limit(&address), limit(&user)],
        ..nothing(START)
    };
    ports.blacklist.ban(&ban(&address, START, Some(until))).await.expect("a ban is put");
    assert_eq!(ports.enter(&entry).await, GateDecision::NoSession);
    let entry = GateRequest { session: Some((user_id, session)), ..entry };
    assert_eq!(ports.enter(&entry).await, GateDecision::Banned { until: Some(until) });

    // Of several bans the longest is reported, because the request can enter only after it.
    ports.blacklist.ban(&ban(&user, START, Some(until.plus_ms(500)))).await.expect("a ban is put");
    assert_eq!(ports.enter(&entry).await, GateDecision::Banned { until: Some(until.plus_ms(500)) });
    ports.blacklist.ban(&ban(&user, START, None)).await.expect("a ban is put");
    assert_eq!(ports.enter(&entry).await, GateDecision::Banned { until: None });
    assert!(ports.blacklist.lift(&user).await.expect("a ban is lifted"));

    // Only subjects in the request count.
    let unasked = GateRequest {
        not_banned: vec![user.clone(), super::user()],
        limits: Vec::new(),
        ..entry.clone()
    };
    assert_eq!(ports.enter(&unasked).await, GateDecision::Entered);

    let entry = GateRequest { now: until, ..entry };
    assert_eq!(
        ports.enter(&entry).await,
        GateDecision::Entered,
        "neither refusal has charged a limit"
    );
    assert_eq!(
        ports.enter(&entry).await,
        GateDecision::Limited { limit: 0, retry_after_ms: 10_000 }
    );
    let of_user = GateRequest { limits: vec![limit(&user)], ..entry.clone() };
    assert_eq!(
        ports.enter(&of_user).await,
        GateDecision::Limited { limit: 0, retry_after_ms: 10_000 }
    );
    assert_eq!(
        ports.enter(&GateRequest { session: None, ..entry.clone() }).await,
        GateDecision::Limited { limit: 0, retry_after_ms: 10_000 }
    );

    // A ban or an ended session precedes a used-up limit.
    ports.blacklist.ban(&ban(&user, START, None)).await.expect("a ban is put");
    assert_eq!(ports.enter(&entry).await, GateDecision::Banned { until: None });
    ports.sessions.end(user_id, session).await.expect("a session is ended");
    assert_eq!(ports.enter(&entry).await, GateDecision::NoSession);
}
