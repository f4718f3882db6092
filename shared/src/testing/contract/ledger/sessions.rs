//! `SessionLedger`, and the effect of `Users::change` on sessions.

use futures_util::future::join_all;

use super::{Ledger, again};
use crate::{
    domain::{
        KeptSession, Opening, Role, SESSIONS_PER_USER_MAX, Session, SessionId, Timestamp, User,
        UserChange,
    },
    testing::{self, START, session_id},
};

fn opening(user: &User, expires_at: Timestamp) -> Opening {
    let session =
        Session { session_id: session_id(), user_id: user.user_id, role: user.role, expires_at };
    Opening { session, generation: user.generation }
}

impl Ledger {
    async fn new_user(&self) -> User {
        let user = testing::user();
        self.users.create(&user).await.unwrap();
        user
    }

    async fn open(&self, opening: &Opening) -> bool {
        !self.sessions.open(std::slice::from_ref(opening), START).await.unwrap().is_empty()
    }

    async fn kept(&self, session_id: SessionId) -> Option<KeptSession> {
        self.sessions.get_many(&[session_id]).await.unwrap().pop()
    }

    async fn alive(&self, opening: &Opening) -> bool {
        self.kept(opening.session.session_id).await.is_some_and(|kept| kept.alive(START))
    }

    /// Whether the fast store must be updated with the session's end.
    async fn end_is_due(&self, opening: &Opening, now: Timestamp) -> bool {
        let due = self.sessions.ends_due(now, 10_000).await.unwrap();
        due.iter().any(|kept| kept.session.session_id == opening.session.session_id)
    }
}

/// Every method of `SessionLedger`.
pub async fn kept_sessions(ledger: &Ledger) {
    opening_and_ending(ledger).await;
    generations(ledger).await;
    too_many(ledger).await;
    many_at_once(ledger).await;
    old_ones_are_deleted(ledger).await;
}

async fn opening_and_ending(ledger: &Ledger) {
    let (user, stranger) = (ledger.new_user().await, ledger.new_user().await);
    let end = START.plus_ms(1_000);
    let (first, second) = (opening(&user, end), opening(&user, end));
    assert_eq!(ledger.sessions.open(&[], START).await.unwrap(), [] as [SessionId; 0]);
    assert_eq!(ledger.kept(first.session.session_id).await, None);
    for _ in 0..2 {
        assert!(ledger.open(&first).await, "a repeat changes nothing");
    }
    assert!(ledger.open(&second).await);
    let kept = ledger.kept(first.session.session_id).await.unwrap();
    assert_eq!(kept, KeptSession { session: first.session.clone(), ended_at: None });
    assert!(kept.alive(end.minus_ms(1)) && !kept.alive(end));
    assert!(!ledger.end_is_due(&first, Timestamp::MAX).await);

    let now = START.plus_ms(7);
    ledger.sessions.end(stranger.user_id, first.session.session_id, now).await.unwrap();
    assert!(ledger.alive(&first).await, "another user's session is not ended");
    for later in 0..2 {
        ledger
            .sessions
            .end(user.user_id, first.session.session_id, now.plus_ms(later))
            .await
            .unwrap();
        assert_eq!(
            ledger.kept(first.session.session_id).await.unwrap().ended_at,
            Some(now),
            "the first end counts"
        );
    }
    assert!(ledger.alive(&second).await);
    assert!(!ledger.open(&first).await, "an ended session never comes to life again");
    assert!(!ledger.alive(&first).await);

    // An end is due until it is noted as shared, and due again at the time given in the note.
    assert!(
        !ledger.end_is_due(&first, now.minus_ms(1)).await && ledger.end_is_due(&first, now).await
    );
    ledger
        .sessions
        .note_ends(&[first.session.session_id, second.session.session_id], Some(now.plus_ms(60)))
        .await
        .unwrap();
    assert!(
        !ledger.end_is_due(&first, now.plus_ms(59)).await
            && ledger.end_is_due(&first, now.plus_ms(60)).await
    );
    assert!(!ledger.end_is_due(&second, Timestamp::MAX).await, "it has not ended");
    ledger.sessions.note_ends(&[first.session.session_id], None).await.unwrap();
    assert!(!ledger.end_is_due(&first, Timestamp::MAX).await);
    ledger.sessions.note_ends(&[], None).await.unwrap();
    assert!(ledger.sessions.ends_due(Timestamp::MAX, 1).await.unwrap().len() <= 1);
}

/// A change of the user ends all sessions except one, and none that was prepared earlier can be
/// opened.
async fn generations(ledger: &Ledger) {
    let user = ledger.new_user().await;
    let end = START.plus_ms(1_000);
    let (kept, ended, late) = (opening(&user, end), opening(&user, end), opening(&user, end));
    assert!(ledger.open(&kept).await && ledger.open(&ended).await);
    let change = UserChange {
        keep: Some(kept.session.session_id),
        only_generation: Some(1),
        ..UserChange::default()
    };
    assert!(!ledger.users.change(user.user_id, &change, START).await.unwrap());
    assert!(ledger.alive(&ended).await, "another generation changes nothing");
    let change = UserChange { only_generation: Some(0), ..change };
    assert!(ledger.users.change(user.user_id, &change, START).await.unwrap());
    assert!(ledger.alive(&kept).await && !ledger.alive(&ended).await);
    assert!(ledger.end_is_due(&ended, START).await && !ledger.end_is_due(&kept, START).await);
    assert!(!ledger.open(&late).await, "it was prepared for the old generation");
    assert_eq!(ledger.kept(late.session.session_id).await, None);
    let user = ledger.users.by_id(user.user_id).await.unwrap().unwrap();
    assert_eq!(user.generation, 1);
    assert!(ledger.open(&opening(&user, end)).await);
    assert!(!ledger.open(&opening(&testing::user(), end)).await, "there is no such user");

    // In a batch each session is decided separately.
    let other = ledger.new_user().await;
    let (good, bad) = (opening(&other, end), late);
    assert_eq!(
        ledger.sessions.open(&[bad, good.clone()], START).await.unwrap(),
        [good.session.session_id]
    );
}

async fn too_many(ledger: &Ledger) {
    let user = ledger.new_user().await;
    let most = SESSIONS_PER_USER_MAX as u64;
    // The seventh one opened expires first; an expired session does not count.
    let over = opening(&user, START);
    ledger.open(&over).await;
    let openings: Vec<Opening> = (0..most)
        .map(|index| opening(&user, START.plus_ms(1_000 + (index + most - 7) % most * 1_000)))
        .collect();
    for opening in &openings {
        assert!(ledger.open(opening).await);
    }
    assert!(ledger.open(&opening(&user, START.plus_ms(3_600_000))).await);
    for (index, opening) in openings.iter().enumerate() {
        assert_eq!(ledger.alive(opening).await, index != 7, "{index}");
    }
    assert!(ledger.end_is_due(&openings[7], START).await, "the fast store must be updated");
}

/// Thousands at once, as seeding does.
async fn many_at_once(ledger: &Ledger) {
    let users: Vec<User> = std::iter::repeat_with(testing::user).take(1_300).collect();
    ledger.users.create_many(&users).await.unwrap();
    let openings: Vec<Opening> =
        users.iter().map(|user| opening(user, START.plus_ms(1_000))).collect();
    let ids: Vec<SessionId> = openings.iter().map(|opening| opening.session.session_id).collect();
    assert_eq!(ledger.sessions.open(&openings, START).await.unwrap(), ids);
    let found = ledger.sessions.get_many(&[&ids[..], &[session_id()]].concat()).await.unwrap();
    assert_eq!(found.len(), ids.len());
    assert!(found.iter().all(|kept| kept.alive(START)));
    assert_eq!(ledger.sessions.get_many(&[]).await.unwrap(), []);
}

async fn old_ones_are_deleted(ledger: &Ledger) {
    let user = ledger.new_user().await;
    // Earlier than any session that the other suites open.
    let long_ago = START.minus_ms(86_400_000);
    let old: Vec<Opening> = (0..3).map(|_| opening(&user, long_ago)).collect();
    for opening in &old {
        ledger.open(opening).await;
    }
    let exact = opening(&user, long_ago.plus_ms(1));
    ledger.open(&exact).await;
    assert_eq!(ledger.sessions.delete_over(long_ago, 2).await.unwrap(), 2);
    assert_eq!(ledger.sessions.delete_over(long_ago, 10).await.unwrap(), 1);
    assert_eq!(ledger.sessions.delete_over(long_ago, 10).await.unwrap(), 0);
    assert_eq!(ledger.kept(old[0].session.session_id).await, None);
    assert!(ledger.kept(exact.session.session_id).await.is_some());
    assert_eq!(ledger.sessions.delete_over(long_ago.plus_ms(1), 10).await.unwrap(), 1);
}

/// Sign-ins concurrent with a change of the user: after it, no session prepared before the change
/// is alive.
pub async fn session_races(ledger: &Ledger) {
    for round in 0..5 {
        let user = ledger.new_user().await;
        let openings: Vec<Opening> = (0..8).map(|_| opening(&user, START.plus_ms(1_000))).collect();
        let tasks = openings.iter().cloned().map(|opening| {
            let sessions = ledger.sessions.clone();
            tokio::spawn(async move {
                again(|| sessions.open(std::slice::from_ref(&opening), START)).await.len()
            })
        });
        let tasks: Vec<_> = tasks.collect();
        let change = UserChange { password_hash: Some("new".to_owned()), ..UserChange::default() };
        again(|| ledger.users.change(user.user_id, &change, START)).await;
        let alive_after = async || {
            let mut alive = 0;
            for opening in &openings {
                alive += usize::from(ledger.alive(opening).await);
            }
            alive
        };
        assert_eq!(
            alive_after().await,
            0,
            "round {round}: those opened before the change have ended"
        );
        join_all(tasks).await;
        assert_eq!(alive_after().await, 0, "round {round}: none is opened after it");
    }

    // Many concurrent sign-ins of one user stay within the limit.
    let user = User { role: Role::Admin, ..testing::user() };
    ledger.users.create(&user).await.unwrap();
    let openings: Vec<Opening> =
        (0..30).map(|n| opening(&user, START.plus_ms(1_000 + n))).collect();
    let tasks = openings.iter().cloned().map(|opening| {
        let sessions = ledger.sessions.clone();
        tokio::spawn(
            async move { again(|| sessions.open(std::slice::from_ref(&opening), START)).await },
        )
    });
    join_all(tasks).await;
    let ids: Vec<SessionId> = openings.iter().map(|opening| opening.session.session_id).collect();
    let alive: Vec<KeptSession> = ledger
        .sessions
        .get_many(&ids)
        .await
        .unwrap()
        .into_iter()
        .filter(|kept| kept.alive(START))
        .collect();
    assert_eq!(alive.len(), SESSIONS_PER_USER_MAX);
    assert!(alive.iter().all(|kept| kept.session.role == Role::Admin));
}
