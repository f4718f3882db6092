//! The order in which an entry is checked.

use super::{Doors, ban, nothing};
use crate::{
    domain::{Entered, Entry, Limit, Quota, Subject},
    testing::{START, session_id, user_id},
};

/// The first that applies: session, ban, limit. A refusal by the first two charges nothing.
pub async fn order_of_checks(doors: &Doors) {
    assert_eq!(doors.enter(&nothing(START)).await, Entered::Entered);

    let user_id = user_id();
    let (user, address) = (Subject::User(user_id), super::address());
    let until = START.plus_ms(1_000);
    let session = doors.open(user_id, START.plus_ms(60_000), START).await;
    let limit = |subject: &Subject| Limit {
        name: "suite",
        subject: subject.clone(),
        quota: Quota::per(1, 10_000),
    };
    let entry = Entry {
        session: Some((user_id, session_id())),
        not_banned: vec![user.clone(), address.clone()],
        limits: vec![limit(&address), limit(&user)],
        ..nothing(START)
    };
    doors.blacklist.ban(&ban(&address, START, Some(until))).await.expect("a ban is put");
    assert_eq!(doors.enter(&entry).await, Entered::NoSession);
    let entry = Entry { session: Some((user_id, session)), ..entry };
    assert_eq!(doors.enter(&entry).await, Entered::Banned { until: Some(until) });

    // Of several bans the one that lasts longer is told: after it the request can get in.
    doors.blacklist.ban(&ban(&user, START, Some(until.plus_ms(500)))).await.expect("a ban is put");
    assert_eq!(doors.enter(&entry).await, Entered::Banned { until: Some(until.plus_ms(500)) });
    doors.blacklist.ban(&ban(&user, START, None)).await.expect("a ban is put");
    assert_eq!(doors.enter(&entry).await, Entered::Banned { until: None });
    assert!(doors.blacklist.lift(&user).await.expect("a ban is lifted"));

    // Only subjects that are asked for count.
    let unasked = Entry {
        not_banned: vec![user.clone(), super::user()],
        limits: Vec::new(),
        ..entry.clone()
    };
    assert_eq!(doors.enter(&unasked).await, Entered::Entered);

    let entry = Entry { now: until, ..entry };
    assert_eq!(doors.enter(&entry).await, Entered::Entered, "neither refusal has charged a limit");
    assert_eq!(doors.enter(&entry).await, Entered::Limited { limit: 0, retry_after_ms: 10_000 });
    let of_user = Entry { limits: vec![limit(&user)], ..entry.clone() };
    assert_eq!(doors.enter(&of_user).await, Entered::Limited { limit: 0, retry_after_ms: 10_000 });
    assert_eq!(
        doors.enter(&Entry { session: None, ..entry.clone() }).await,
        Entered::Limited { limit: 0, retry_after_ms: 10_000 }
    );

    // A ban or a session that is gone comes before a limit that is full.
    doors.blacklist.ban(&ban(&user, START, None)).await.expect("a ban is put");
    assert_eq!(doors.enter(&entry).await, Entered::Banned { until: None });
    doors.sessions.end(user_id, session).await.expect("a session is ended");
    assert_eq!(doors.enter(&entry).await, Entered::NoSession);
}
