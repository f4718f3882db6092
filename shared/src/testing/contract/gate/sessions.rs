//! Sessions.

use super::{Doors, nothing};
use crate::{
    domain::{GateDecision, GateRequest, Role, SESSIONS_PER_USER_MAX, Session, Subject},
    testing::{START, session_id, user_id},
};

/// A session is alive from its opening to its end, and ends for all devices, or all others, at once.
pub async fn sessions(doors: &Doors) {
    let sessions = &doors.sessions;
    let (user, stranger) = (user_id(), user_id());
    let end = START.plus_ms(1_000);
    let first = doors.open(user, end, START).await;
    assert!(doors.alive(user, first, START).await);
    assert!(doors.alive(user, first, end.minus_ms(1)).await);
    assert!(
        !doors.alive(user, first, end).await,
        "`expires_at` is the first instant at which it is over"
    );
    assert!(!doors.alive(stranger, first, START).await);
    assert!(!doors.alive(user, session_id(), START).await);

    // A repeat does no harm, and a later end counts.
    let again = Session {
        session_id: first,
        user_id: user,
        role: Role::Shopper,
        expires_at: end.plus_ms(9_000),
    };
    for _ in 0..2 {
        sessions.open(std::slice::from_ref(&again), START).await.expect("a session is opened");
    }
    assert!(doors.alive(user, first, end).await);

    // One ends; the others stay.
    let second = doors.open(user, end, START).await;
    let of_stranger = doors.open(stranger, end, START).await;
    sessions.end(user, session_id()).await.expect("an unknown session is ended");
    sessions.end(stranger, second).await.expect("another user's session is not ended");
    assert!(doors.alive(user, second, START).await);
    sessions.end(user, first).await.expect("a session is ended");
    sessions.end(user, first).await.expect("it is ended again");
    assert!(!doors.alive(user, first, START).await);
    assert!(doors.alive(user, second, START).await);

    // All end but one; then all.
    let third = doors.open(user, end, START).await;
    let fourth = doors.open(user, end, START).await;
    sessions.end_all(user, Some(third)).await.expect("the others are ended");
    assert!(!doors.alive(user, second, START).await && !doors.alive(user, fourth, START).await);
    assert!(doors.alive(user, third, START).await);
    sessions.end_all(user, Some(session_id())).await.expect("one that is unknown keeps nothing");
    assert!(!doors.alive(user, third, START).await);
    let fifth = doors.open(user, end, START).await;
    sessions.end_all(user, None).await.expect("all are ended");
    sessions.end_all(user, None).await.expect("none are left to be ended");
    assert!(!doors.alive(user, fifth, START).await);
    assert!(doors.alive(stranger, of_stranger, START).await);

    one_too_many(doors).await;
}

/// Above the most a user may hold, the one that would be over first ends, in whatever order they were opened.
async fn one_too_many(doors: &Doors) {
    let user = user_id();
    let most = SESSIONS_PER_USER_MAX as u64;
    // The seventh opened is the first to be over.
    let end = |index: u64| START.plus_ms(1_000 + (index + most - 7) % most * 1_000);
    let mut opened = Vec::new();
    for index in 0..most {
        opened.push(doors.open(user, end(index), START).await);
    }
    for session in &opened {
        assert!(doors.alive(user, *session, START).await);
    }
    let another = user_id();
    let of_another = doors.open(another, START.plus_ms(1), START).await;
    opened.push(doors.open(user, START.plus_ms(3_600_000), START).await);
    for (index, session) in opened.iter().enumerate() {
        assert_eq!(doors.alive(user, *session, START).await, index != 7, "{index}");
    }
    assert!(doors.alive(another, of_another, START).await);

    // Many at once come to the same.
    let user = user_id();
    let batch: Vec<Session> = (0..50)
        .map(|index| Session {
            session_id: session_id(),
            user_id: user,
            role: Role::Shopper,
            expires_at: START.plus_ms(1_000 + index),
        })
        .collect();
    doors.sessions.open(&batch, START).await.expect("sessions are opened");
    for (index, session) in batch.iter().enumerate() {
        assert_eq!(doors.alive(user, session.session_id, START).await, index >= 30, "{index}");
    }
}

/// A session's record has its role, which an entry may ask for; another role is refused behind a missing session and
/// before a ban, and charges nothing.
pub async fn session_roles(doors: &Doors) {
    let end = START.plus_ms(60_000);
    for (role, other) in [(Role::Shopper, Role::Admin), (Role::Admin, Role::Shopper)] {
        let user = user_id();
        let session = Session { session_id: session_id(), user_id: user, role, expires_at: end };
        doors
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
            doors.enter(&asks(session.session_id, None, START)).await,
            GateDecision::Entered
        );
        assert_eq!(
            doors.enter(&asks(session.session_id, Some(role), START)).await,
            GateDecision::Entered
        );
        assert_eq!(
            doors.enter(&asks(session.session_id, Some(other), START)).await,
            GateDecision::WrongRole,
            "{role:?}"
        );
        assert_eq!(
            doors.enter(&asks(session.session_id, Some(role), end)).await,
            GateDecision::NoSession
        );
        assert_eq!(
            doors.enter(&asks(session_id(), Some(role), START)).await,
            GateDecision::NoSession
        );

        let subject = Subject::User(user);
        let limited = super::limited(&subject, crate::domain::Quota::per(1, 10_000), START);
        let banned = GateRequest {
            not_banned: vec![subject.clone()],
            limits: limited.limits,
            ..asks(session.session_id, Some(other), START)
        };
        doors.blacklist.ban(&super::ban(&subject, START, None)).await.expect("a ban is put");
        assert_eq!(doors.enter(&banned).await, GateDecision::WrongRole);
        assert!(doors.blacklist.lift(&subject).await.expect("a ban is lifted"));
        assert_eq!(doors.enter(&banned).await, GateDecision::WrongRole);
        assert_eq!(
            doors.enter(&GateRequest { role: Some(role), ..banned }).await,
            GateDecision::Entered,
            "no limit was charged"
        );
    }
}

/// Ten thousand at once, as seeding opens them.
pub async fn many_sessions(doors: &Doors) {
    doors.sessions.open(&[], START).await.expect("none are opened");
    let end = START.plus_ms(60_000);
    let all: Vec<Session> = (0..10_000)
        .map(|_| Session {
            session_id: session_id(),
            user_id: user_id(),
            role: Role::Shopper,
            expires_at: end,
        })
        .collect();
    doors.sessions.open(&all, START).await.expect("sessions are opened");
    for session in all.iter().step_by(97).chain(all.last()) {
        assert!(doors.alive(session.user_id, session.session_id, START).await);
    }
}
