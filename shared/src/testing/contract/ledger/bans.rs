//! `BanLedger`.

use super::Ledger;
use crate::{
    domain::{ActionKind, Ban, KeptBan, Subject, Timestamp},
    testing::{START, action, phone, user_id},
};

fn ban(subject: &Subject, created_at: Timestamp, expires_at: Option<Timestamp>) -> Ban {
    Ban { subject: subject.clone(), reason: "a 'reason'\n文".to_owned(), created_at, expires_at }
}

impl Ledger {
    async fn kept_ban(&self, subject: &Subject) -> Option<KeptBan> {
        self.bans.of(std::slice::from_ref(subject)).await.unwrap().pop()
    }

    async fn due(&self, subject: &Subject, now: Timestamp) -> Option<KeptBan> {
        let due = self.bans.shares_due(now, 10_000).await.unwrap();
        due.into_iter().find(|kept| kept.ban.subject == *subject)
    }
}

/// Every method of `BanLedger`.
pub async fn kept_bans(ledger: &Ledger) {
    one_ban(ledger).await;
    pages(ledger).await;
}

async fn one_ban(ledger: &Ledger) {
    let bans = &ledger.bans;
    let address = Subject::address(
        std::net::Ipv6Addr::from_bits(u128::from_be_bytes(*user_id().as_bytes())).into(),
    );
    let Subject::Address(ip) = address else { panic!("an address is one") };
    let network = Subject::of_client(ip).remove(1);
    for subject in [Subject::User(user_id()), address, network, Subject::Phone(phone())] {
        assert_eq!(ledger.kept_ban(&subject).await, None);
        assert!(!bans.lift(&subject, START, &action(ActionKind::BanLifted)).await.unwrap());
        let end = START.plus_ms(1_000);
        let short = ban(&subject, START, Some(end));
        bans.put(&short, &action(ActionKind::BanPut)).await.unwrap();
        let kept = ledger.kept_ban(&subject).await.unwrap();
        assert_eq!(kept, KeptBan { ban: short, lifted: false, changed_at: START, version: 1 });
        assert!(kept.holds(end.minus_ms(1)) && !kept.holds(end));
        assert_eq!(ledger.due(&subject, START.minus_ms(1)).await, None);
        assert_eq!(ledger.due(&subject, START).await, Some(kept));

        // A new ban replaces it. The note about the first ban does not apply to the new one.
        let endless = ban(&subject, START.plus_ms(5), None);
        bans.put(&endless, &action(ActionKind::BanPut)).await.unwrap();
        let kept = ledger.kept_ban(&subject).await.unwrap();
        assert_eq!(
            kept,
            KeptBan {
                ban: endless.clone(),
                lifted: false,
                changed_at: START.plus_ms(5),
                version: 2
            }
        );
        bans.note_shared(&subject, 1, None).await.unwrap();
        assert!(ledger.due(&subject, START.plus_ms(5)).await.is_some());
        bans.note_shared(&subject, 2, Some(START.plus_ms(90))).await.unwrap();
        assert_eq!(ledger.due(&subject, START.plus_ms(89)).await, None);
        assert_eq!(ledger.due(&subject, START.plus_ms(90)).await, Some(kept));
        bans.note_shared(&subject, 2, None).await.unwrap();
        assert_eq!(ledger.due(&subject, Timestamp::MAX).await, None);

        // After the lift, the fast store must be updated again.
        assert!(
            bans.lift(&subject, START.plus_ms(9), &action(ActionKind::BanLifted)).await.unwrap()
        );
        assert!(
            !bans.lift(&subject, START.plus_ms(9), &action(ActionKind::BanLifted)).await.unwrap()
        );
        let lifted = ledger.kept_ban(&subject).await.unwrap();
        assert_eq!(
            lifted,
            KeptBan { ban: endless, lifted: true, changed_at: START.plus_ms(9), version: 3 }
        );
        assert!(!lifted.holds(START.plus_ms(9)));
        assert_eq!(ledger.due(&subject, START.plus_ms(9)).await, Some(lifted));

        // Created again.
        bans.put(&ban(&subject, START.plus_ms(10), Some(end)), &action(ActionKind::BanPut))
            .await
            .unwrap();
        assert!(ledger.kept_ban(&subject).await.unwrap().holds(START.plus_ms(10)));
        assert!(
            !bans.lift(&subject, end, &action(ActionKind::BanLifted)).await.unwrap(),
            "it has ended by itself"
        );
        bans.delete_over(end, 100_000).await.unwrap();
        assert!(ledger.kept_ban(&subject).await.is_some(), "the fast store was not updated");
        bans.note_shared(&subject, 4, None).await.unwrap();
        bans.delete_over(end.minus_ms(1), 100_000).await.unwrap();
        assert!(ledger.kept_ban(&subject).await.is_some(), "it has not ended");
        assert_eq!(bans.delete_over(end, 0).await.unwrap(), 0);
        assert!(bans.delete_over(end, 100_000).await.unwrap() >= 1);
        assert_eq!(ledger.kept_ban(&subject).await, None);
    }
}

async fn pages(ledger: &Ledger) {
    let bans = &ledger.bans;
    let mut put = Vec::new();
    for index in 0..25_u64 {
        let subject =
            if index % 2 == 0 { Subject::User(user_id()) } else { Subject::Phone(phone()) };
        let expires_at = if index % 5 == 0 { Some(START.plus_ms(1_000)) } else { None };
        bans.put(&ban(&subject, START, expires_at), &action(ActionKind::BanPut)).await.unwrap();
        put.push(subject);
    }
    assert!(bans.lift(&put[1], START, &action(ActionKind::BanLifted)).await.unwrap());
    let all = async |now| {
        let (mut found, mut after) = (Vec::<Subject>::new(), None);
        loop {
            let page = bans.page(now, after.as_ref(), 7).await.unwrap();
            assert!(page.len() <= 7 && page.iter().all(|kept| kept.holds(now)));
            found.extend(page.iter().map(|kept| kept.ban.subject.clone()));
            if page.len() < 7 {
                break;
            }
            after = found.last().cloned();
        }
        assert!(
            found.is_sorted_by_key(|subject| (subject.kind(), subject.value())),
            "without a repeat or a gap"
        );
        found.retain(|subject| put.contains(subject));
        found
    };
    assert_eq!(all(START).await.len(), 24);
    assert_eq!(all(START.plus_ms(1_000)).await.len(), 19);
    let found = bans.of(&put).await.unwrap();
    assert_eq!(found.len(), 25);
    assert_eq!(bans.of(&[]).await.unwrap(), []);
}
