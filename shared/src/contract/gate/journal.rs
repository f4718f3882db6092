//! The journal of the memory adapters.

use super::ban;
use crate::{
    contract::{START, phone, session_id, user_id},
    domain::{Ban, Subject},
    ports::{Journal, Session},
};

/// What was saved is read back until it is over or removed; nothing else is.
pub async fn journal(journal: &dyn Journal) {
    let session = |expires_in_ms| Session { session_id: session_id(), user_id: user_id(), expires_at: START.plus_ms(expires_in_ms) };
    let mut saved = vec![session(1_000), session(1_001), session(9_000)];
    let own = async |now| {
        let mut all = journal.sessions(now).await.expect("sessions are read");
        all.retain(|session| saved.iter().any(|known| known.session_id == session.session_id));
        all.sort_by_key(|session| session.expires_at);
        all
    };
    journal.save_sessions(&[]).await.expect("none are stored");
    journal.remove_sessions(&[]).await.expect("none are removed");
    for _ in 0..2 {
        journal.save_sessions(&saved).await.expect("sessions are stored");
    }
    assert_eq!(own(START).await, saved);
    assert_eq!(own(START.plus_ms(1_000)).await, saved[1..]);
    journal.remove_sessions(&[saved[1].session_id, session_id()]).await.expect("sessions are removed");
    assert_eq!(own(START.plus_ms(1_000)).await, saved[2..]);
    saved[2].expires_at = START.plus_ms(9_999);
    journal.save_sessions(&saved[2..]).await.expect("sessions are stored");
    let mut all = journal.sessions(START.plus_ms(9_000)).await.expect("sessions are read");
    all.retain(|session| session.session_id == saved[2].session_id);
    assert_eq!(all, saved[2..], "a session saved again has its new end");

    let subjects = [super::user(), super::address(), Subject::address([192, 0, 2, 7].into()), Subject::Phone(phone())];
    let mut bans: Vec<Ban> =
        (1..).zip(&subjects).map(|(n, subject)| ban(subject, START.plus_ms(n), Some(START.plus_ms(1_000 * n)))).collect();
    bans[3].expires_at = None;
    let of = async |now| {
        let mut all = journal.bans(now).await.expect("bans are read");
        all.retain(|ban| subjects.contains(&ban.subject));
        all.sort_by_key(|ban| ban.created_at);
        all
    };
    for ban in bans.iter().chain(&bans) {
        journal.save_ban(ban).await.expect("a ban is stored");
    }
    assert_eq!(of(START).await, bans);
    assert_eq!(of(START.plus_ms(1_000)).await, bans[1..]);
    bans[1].reason = "another 'reason'\n文".to_owned();
    bans[1].expires_at = None;
    journal.save_ban(&bans[1]).await.expect("a ban is stored in place of the earlier one");
    assert_eq!(of(START.plus_ms(1_000)).await, bans[1..]);
    for _ in 0..2 {
        journal.remove_ban(&subjects[3]).await.expect("a ban is removed");
    }
    assert_eq!(of(START.plus_ms(86_400_000)).await, bans[1..2]);
    journal.remove_ban(&subjects[1]).await.expect("a ban is removed");

    // Thousands are one call, as seeding makes it.
    let many: Vec<Session> = (0..5_000).map(|_| session(9_000)).collect();
    journal.save_sessions(&many).await.expect("sessions are stored");
    let all = journal.sessions(START).await.expect("sessions are read");
    let known: std::collections::HashSet<_> = all.iter().map(|session| session.session_id).collect();
    assert!(many.iter().all(|session| known.contains(&session.session_id)));
    let ids: Vec<_> = many.iter().map(|session| session.session_id).collect();
    journal.remove_sessions(&ids).await.expect("sessions are removed");
    assert!(journal.sessions(START).await.expect("sessions are read").iter().all(|session| !ids.contains(&session.session_id)));
}
