//! `Users`.

use futures_util::future::join_all;

use super::{Ledger, again};
use crate::{
    domain::{Role, User, UserChange, UserCreated, UserId},
    testing::{self, START},
};

/// Every method of `Users`, and concurrent registrations of one phone.
pub async fn users(ledger: &Ledger) {
    one_user(ledger).await;
    many_users(ledger).await;
    proved_phones(ledger).await;
    races(ledger).await;
}

async fn one_user(ledger: &Ledger) {
    let users = &ledger.users;
    let hash = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$RdescudvJCsgt3ub+b+dWRWJTmaaJObGc+Pl3Ux0uuU";
    let user = User {
        password_hash: hash.to_owned(),
        role: Role::Admin,
        created_at: START.plus_ms(1),
        ..testing::user()
    };
    assert_eq!(users.by_id(user.user_id).await.unwrap(), None);
    assert_eq!(users.by_phone(&user.phone).await.unwrap(), None);
    assert!(!users.change(user.user_id, &UserChange::default(), START).await.unwrap());

    assert_eq!(users.create(&user).await.unwrap(), UserCreated::Created);
    assert_eq!(users.by_id(user.user_id).await.unwrap().as_ref(), Some(&user));
    assert_eq!(users.by_phone(&user.phone).await.unwrap().as_ref(), Some(&user));

    let repeat = User { password_hash: "!".to_owned(), ..user.clone() };
    assert_eq!(users.create(&repeat).await.unwrap(), UserCreated::Created);
    assert_eq!(
        users.by_id(user.user_id).await.unwrap().as_ref(),
        Some(&user),
        "a repeat changes nothing"
    );

    let other = User { phone: user.phone.clone(), ..testing::user() };
    assert_eq!(users.create(&other).await.unwrap(), UserCreated::PhoneTaken);
    assert_eq!(users.by_id(other.user_id).await.unwrap(), None);
    assert_eq!(users.by_phone(&user.phone).await.unwrap().as_ref(), Some(&user));

    let new_hash = UserChange { password_hash: Some("new".to_owned()), ..UserChange::default() };
    for generation in 1..=2 {
        assert!(
            users.change(user.user_id, &new_hash, START).await.unwrap(),
            "also when it is the same"
        );
        let changed = User { password_hash: "new".to_owned(), generation, ..user.clone() };
        assert_eq!(users.by_id(user.user_id).await.unwrap().unwrap(), changed);
    }
    let demoted =
        UserChange { only_generation: Some(2), role: Some(Role::Shopper), ..UserChange::default() };
    let expected = User {
        password_hash: "new".to_owned(),
        generation: 3,
        role: Role::Shopper,
        ..user.clone()
    };
    assert!(users.change(user.user_id, &demoted, START).await.unwrap());
    assert_eq!(users.by_phone(&user.phone).await.unwrap().as_ref(), Some(&expected));
    assert!(
        !users.change(user.user_id, &demoted, START).await.unwrap(),
        "the generation has changed since"
    );
    assert_eq!(
        users.by_id(user.user_id).await.unwrap().as_ref(),
        Some(&expected),
        "and nothing changed"
    );
}

/// The first proof of a phone stays.
async fn proved_phones(ledger: &Ledger) {
    let users = &ledger.users;
    let first = Some(START.plus_ms(7));
    let proved = User { phone_verified_at: first, ..testing::user() };
    let unproved = testing::user();
    for user in [&proved, &unproved] {
        assert_eq!(users.create(user).await.unwrap(), UserCreated::Created);
        assert_eq!(users.by_phone(&user.phone).await.unwrap().as_ref(), Some(user));
    }
    for (at, generation) in [(7, 1), (9, 2)] {
        let at = Some(START.plus_ms(at));
        let change = UserChange { phone_verified_at: at, ..UserChange::default() };
        for user in [&proved, &unproved] {
            assert!(users.change(user.user_id, &change, START).await.unwrap());
            let changed = User { phone_verified_at: first, generation, ..user.clone() };
            assert_eq!(users.by_id(user.user_id).await.unwrap(), Some(changed));
        }
    }
}

async fn many_users(ledger: &Ledger) {
    let users = &ledger.users;
    assert_eq!(users.create_many(&[]).await.unwrap(), [] as [UserId; 0]);

    let old = testing::user();
    users.create(&old).await.unwrap();
    let [a, b, c] = [testing::user(), testing::user(), testing::user()];
    let phone_taken = User { phone: old.phone.clone(), ..testing::user() };
    let phone_taken_here = User { phone: a.phone.clone(), ..testing::user() };
    let batch = [
        c.clone(),
        phone_taken.clone(),
        a.clone(),
        old.clone(),
        phone_taken_here.clone(),
        b.clone(),
    ];
    for _ in 0..2 {
        let stored = users.create_many(&batch).await.unwrap();
        assert_eq!(stored, [c.user_id, a.user_id, old.user_id, b.user_id]);
    }
    for user in [&a, &b, &c, &old] {
        assert_eq!(users.by_phone(&user.phone).await.unwrap().as_ref(), Some(user));
    }
    for user in [&phone_taken, &phone_taken_here] {
        assert_eq!(users.by_id(user.user_id).await.unwrap(), None);
    }

    let crowd: Vec<_> = std::iter::repeat_with(testing::user).take(1_234).collect();
    let ids: Vec<_> = crowd.iter().map(|user| user.user_id).collect();
    assert_eq!(users.create_many(&crowd).await.unwrap(), ids);
    assert_eq!(users.by_id(ids[1_233]).await.unwrap().as_ref(), crowd.last());
}

async fn races(ledger: &Ledger) {
    let phone = testing::phone();
    let rivals: Vec<_> =
        (0..20).map(|_| User { phone: phone.clone(), ..testing::user() }).collect();
    // Half of them alone, half in a batch with another user.
    let tasks = rivals.iter().cloned().enumerate().map(|(index, user)| {
        let users = ledger.users.clone();
        tokio::spawn(async move {
            if index % 2 == 0 {
                again(|| users.create(&user)).await == UserCreated::Created
            } else {
                let batch = [testing::user(), user.clone(), testing::user()];
                again(|| users.create_many(&batch)).await.contains(&user.user_id)
            }
        })
    });
    let won: Vec<_> = join_all(tasks).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(won.iter().filter(|won| **won).count(), 1, "{won:?}");
    let winner = &rivals[won.iter().position(|won| *won).unwrap()];
    assert_eq!(ledger.users.by_phone(&phone).await.unwrap().as_ref(), Some(winner));

    let user = testing::user();
    let tasks = (0..20).map(|_| {
        let (users, user) = (ledger.users.clone(), user.clone());
        tokio::spawn(async move { again(|| users.create(&user)).await })
    });
    for created in join_all(tasks).await {
        assert_eq!(created.unwrap(), UserCreated::Created);
    }
}
