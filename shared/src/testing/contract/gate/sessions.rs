//! Sessions.

use super::{GatePorts, nothing};
use crate::{
    domain::{GateDecision, GateRequest, Role, SESSIONS_PER_USER_MAX, Session, Subject},
    testing::{START, session_id, user_id},
};

/// A session is alive from its opening to its end. All sessions of a user, or all but one, can end
/// at once.
pub async fn sessions(ports: &GatePorts) {
    let sessions = &ports.sessions;
    let (user, stranger) = (user_id(), user_id());
    let end = START.plus_ms(1_000);
    let first = ports.open(user, end, START).await;
    assert!(ports.alive(user, first, START).await);
    assert!(ports.alive(user, first, end.minus_ms(1)).await);
    assert!(!ports.alive(user, first, end).await, "it has ended at `expires_at`");
    assert!(!ports.alive(stranger, first, START).await);
    assert!(!ports.alive(user, session_id(), START).await);

    // Opening it again does no harm, and a later end takes effect.
    let again = Session {
        session_id: first,
        user_id: user,
        role: Role::Shopper,
        expires_at: end.plus_ms(9_000),
    };
    for _ in 0..2 {
        sessions.open(std::slice::from_ref(&again), START).await.expect("a session is opened");
    }
    assert!(ports.alive(user, first, end).await);

    // One ends; the others stay.
    let second = ports.open(user, end, START).await;
    let of_stranger = ports.open(stranger, end, START).await;
    sessions.end(user, session_id()).await.expect("an unknown session is ended");
    sessions.end(stranger, second).await.expect("another user's session is not ended");
    assert!(ports.alive(user, second, START).await);
    sessions.end(user, first).await.expect("a session is ended");
    sessions.end(user, first).await.expect("it is ended again");
    assert!(!ports.alive(user, first, START).await);
    assert!(ports.alive(user, second, START).await);

    // All but one end; then all.
    let third = ports.open(user, end, START).await;
    let fourth = ports.open(user, end, START).await;
    sessions.end_all(user, Some(third)).await.expect("the others are ended");
    assert!(!ports.alive(user, second, START).await && !ports.alive(user, fourth, START).await);
    assert!(ports.alive(user, third, START).await);
    sessions.end_all(user, Some(session_id())).await.expect("one that is unknown keeps nothing");
    assert!(!ports.alive(user, third, START).await);
    let fifth = ports.open(user, end, START).await;
    sessions.end_all(user, None).await.expect("all are ended");
    sessions.end_all(user, None).await.expect("none are left to be ended");
    assert!(!ports.alive(user, fifth, START).await);
    assert!(ports.alive(stranger, of_stranger, START).await);

    one_too_many(ports).await;
}

/// Above the limit per user, the session that would expire first ends, in whatever order they were
/// opened.
async fn one_too_many(ports: &GatePorts) {
    let user = user_id();
    let most = SESSIONS_PER_USER_MAX as u64;
    // The seventh one opened expires first.
    let end = |index: u64| START.plus_ms(1_000 + (index + most - 7) % most * 1_000);
    let mut opened = Vec::new();
    for index in 0..most {
        opened.push(ports.open(user, end(index), START).await);
    }
    for session in &opened {
        assert!(ports.alive(user, *session, START).await);
    }
    let another = user_id();
    let of_another = ports.open(another, START.plus_ms(1), START).await;
    opened.push(ports.open(user, START.plus_ms(3_600_000), START).await);
    for (index, session) in opened.iter().enumerate() {
        assert_eq!(ports.alive(user, *session, START).await, index != 7, "{index}");
    }
    assert!(ports.alive(another, of_another, START).await);

    // Opening many at once has the same result.
    let user = user_id();
    let batch: Vec<Session> = (0..50)
        .map(|index| Session {
            session_id: session_id(),
            user_id: user,
            role: Role::Shopper,
            expires_at: START.plus_ms(1_000 + index),
        })
        .collect();
    ports.sessions.open(&batch, START).await.expect("sessions are opened");
    for (index, session) in batch.iter().enumerate() {
        assert_eq!(ports.alive(user, session.session_id, START).await, index >= 30, "{index}");
    }
}

/// A session records its role, which an entry may require. The wrong role is reported after a
/// missing session and before a ban, and charges nothing.
pub async fn session_roles(ports: &GatePorts) {
    let end = START.plus_ms(60_000);
    for (role, other) in [(Role::Shopper, Role::Admin), (Role::Admin, Role::Shopper)] {
        let user = user_id();
        let session = Session { session_id: session_id(), user_id: user, role, expires_at: end };
        ports
            .sessions
            .open(std::slice::from_ref(&session), START)
            .await
            .expect("a session is opened");
        let asks = |session_id, role, now| GateRequest {
            session: Some((user, session_id)),
            role,
            ..nothing(now)
        };
        assert_eq!(
            ports.enter(&asks(session.session_id, None, START)).await,
            GateDecision::Entered
        );
        assert_eq!(
            ports.enter(&asks(session.session_id, Some(role), START)).await,
            GateDecision::Entered
        );
        assert_eq!(
            ports.enter(&asks(session.session_id, Some(other), START)).await,
            GateDecision::WrongRole,
            "{role:?}"
        );
        assert_eq!(
            ports.enter(&asks(session.session_id, Some(role), end)).await,
            GateDecision::NoSession
        );
        assert_eq!(
            ports.enter(&asks(session_id(), Some(role), START)).await,
            GateDecision::NoSession
        );

        let subject = Subject::User(user);
        let limited = super::limited(&subject, crate::domain::Quota::per(1, 10_000), START);
        let banned = GateRequest {
            not_banned: vec![subject.clone()],
            limits: limited.limits,
            ..asks(session.session_id, Some(other), START)
        };
        ports.blacklist.ban(&super::ban(&subject, START, None)).await.expect("a ban is put");
        assert_eq!(ports.enter(&banned).await, GateDecision::WrongRole);
        assert!(ports.blacklist.lift(&subject).await.expect("a ban is lifted"));
        assert_eq!(ports.enter(&banned).await, GateDecision::WrongRole);
        assert_eq!(
            ports.enter(&GateRequest { role: Some(role), ..banned }).await,
            GateDecision::Entered,
            "no limit was charged"
        );
    }
}

/// Ten thousand at once, as seeding does.
pub async fn many_sessions(ports: &GatePorts) {
    ports.sessions.open(&[], START).await.expect("none are opened");
    let end = START.plus_ms(60_000);
    let all: Vec<Session> = (0..10_000)
        .map(|_| Session {
            session_id: session_id(),
            user_id: user_id(),
            role: Role::Shopper,
            expires_at: end,
        })
        .collect();
    ports.sessions.open(&all, START).await.expect("sessions are opened");
    for session in all.iter().step_by(97).chain(all.last()) {
        assert!(ports.alive(session.user_id, session.session_id, START).await);
    }
}
