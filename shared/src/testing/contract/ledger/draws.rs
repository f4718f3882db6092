//! Suites of [`DrawLedger`](crate::ports::DrawLedger).

use std::collections::BTreeSet;

use super::Ledger;
use crate::{
    domain::{
        ActionKind, Draw, DrawTerms, Entry, Invitation, NoDraw, RecordedEntry, Sale, Seed,
        Timestamp, UserId,
    },
    testing::{self, START, user_id},
};

const SEED: [u8; 32] = [7; 32];

impl Ledger {
    /// A sale by draw that starts at [`START`].
    async fn new_draw(&self, stock: u32) -> Sale {
        let seed = Seed::from(SEED);
        let draw = DrawTerms {
            entries_open_at: START.minus_ms(60_000),
            invite_seconds: 60,
            seed_hash: seed.hash(),
            beacon: Some("drand round 1".to_owned()),
        };
        let sale = Sale { draw: Some(draw), starts_at: START, ..testing::sale(stock) };
        self.draws.prepare(sale.sale_id, &seed).await.unwrap();
        self.sales.create(&sale).await.unwrap();
        sale
    }

    async fn numbers(&self, sale: &Sale) -> (u64, u64, u64) {
        let draw = self.draws.draw(sale.sale_id).await.unwrap().unwrap();
        (draw.in_time, draw.late, draw.invited)
    }
}

fn entry(sale: &Sale, user_id: UserId, entered_at: Timestamp) -> Entry {
    Entry { sale_id: sale.sale_id, user_id, entered_at }
}

fn invited(users: &[UserId], from: u64, until: Timestamp) -> Vec<Invitation> {
    (from..)
        .zip(users)
        .map(|(place, user_id)| Invitation { place, user_id: *user_id, invited_at: START, until })
        .collect()
}

/// Entries are recorded once, in time or late.
pub async fn draw_entries(ledger: &Ledger) {
    let (sale, other) = (ledger.new_draw(5).await, ledger.new_draw(5).await);
    let stored = ledger.sales.get(sale.sale_id).await.unwrap().unwrap();
    assert_eq!(stored, Sale { sold: 0, ..sale.clone() });
    assert_eq!(ledger.draws.draw(sale.sale_id).await.unwrap(), Some(Draw::new(SEED.into())));
    ledger.draws.prepare(sale.sale_id, &Seed::from([1; 32])).await.unwrap();
    assert_eq!(ledger.draws.draw(sale.sale_id).await.unwrap(), Some(Draw::new(SEED.into())));
    assert_eq!(ledger.draws.enter(&[]).await.unwrap(), []);

    let [a, b, c, d] = [(); 4].map(|()| user_id());
    let early = START.minus_ms(1);
    let first_come = testing::sale(1);
    ledger.sales.create(&first_come).await.unwrap();
    let batch = [
        entry(&sale, a, early),
        entry(&first_come, a, early),
        entry(&other, a, early),
        entry(&sale, b, START),
        entry(&sale, a, START.plus_ms(9)),
        entry(&sale, c, START),
    ];
    let recorded = |entry: &Entry, arrival| Ok(RecordedEntry { entry: entry.clone(), arrival });
    let expected = [
        recorded(&batch[0], None),
        Err(NoDraw),
        recorded(&batch[2], None),
        recorded(&batch[3], Some(0)),
        recorded(&batch[0], None),
        recorded(&batch[5], Some(1)),
    ];
    for _ in 0..2 {
        assert_eq!(ledger.draws.enter(&batch).await.unwrap(), expected);
        assert_eq!(ledger.numbers(&sale).await, (1, 2, 0));
        assert_eq!(ledger.numbers(&other).await, (1, 0, 0));
    }
    let closed = ledger.draws.close_entries(sale.sale_id, START.plus_ms(3)).await.unwrap().unwrap();
    assert_eq!(closed.closed_at, Some(START.plus_ms(3)));
    let again = ledger.draws.close_entries(sale.sale_id, START.plus_ms(9)).await.unwrap();
    assert_eq!(again, Some(closed), "a repeat changes nothing");
    let straggler = [entry(&sale, d, early)];
    let late = ledger.draws.enter(&straggler).await.unwrap();
    assert_eq!(late, [recorded(&straggler[0], Some(2))], "entries are closed");

    let mut all = vec![];
    let mut after = None;
    loop {
        let page = ledger.draws.entries(sale.sale_id, after, 3).await.unwrap();
        all.extend(page.iter().map(|entry| entry.entry.user_id));
        after = all.last().copied();
        if page.len() < 3 {
            break;
        }
    }
    let mut users = vec![a, b, c, d];
    users.sort_unstable();
    assert_eq!(all, users);
    let one = ledger.draws.entry(sale.sale_id, c).await.unwrap();
    assert_eq!(one.map(Ok), Some(expected[5].clone()));
    assert_eq!(ledger.draws.entry(sale.sale_id, user_id()).await.unwrap(), None);
    let nobody = testing::sale_id();
    assert_eq!(ledger.draws.draw(nobody).await.unwrap(), None);
    assert_eq!(ledger.draws.close_entries(nobody, START).await.unwrap(), None);
}

/// The beacon's value is stored once, after entries were closed.
pub async fn draw_beacon(ledger: &Ledger) {
    let (sale, draws) = (ledger.new_draw(1).await, &ledger.draws);
    let action = &testing::action(ActionKind::BeaconSet);
    assert!(!draws.set_beacon_value(sale.sale_id, "ab", action).await.unwrap(), "entries are open");
    draws.close_entries(sale.sale_id, START).await.unwrap();
    for _ in 0..2 {
        assert!(draws.set_beacon_value(sale.sale_id, "ab", action).await.unwrap());
    }
    assert!(!draws.set_beacon_value(sale.sale_id, "cd", action).await.unwrap());
    let value = draws.draw(sale.sale_id).await.unwrap().unwrap().beacon_value;
    assert_eq!(value.as_deref(), Some("ab"));
    assert!(!draws.set_beacon_value(testing::sale_id(), "ab", action).await.unwrap());
}

/// Invitations are stored in turn, each user once, and end when they are used.
pub async fn draw_invitations(ledger: &Ledger) {
    let (sale, draws) = (ledger.new_draw(5).await, &ledger.draws);
    let users: Vec<UserId> = (0..4).map(|_| user_id()).collect();
    let early = START.minus_ms(1);
    let entries: Vec<_> = users.iter().map(|user| entry(&sale, *user, early)).collect();
    draws.enter(&entries).await.unwrap();
    let until = START.plus_ms(60_000);
    let first = invited(&users[..2], 0, until);
    draws.invite(sale.sale_id, &first).await.unwrap_err();
    draws.close_entries(sale.sale_id, START).await.unwrap();
    assert!(draws.invite(sale.sale_id, &first).await.unwrap());
    assert!(!draws.invite(sale.sale_id, &first).await.unwrap(), "another process invited");
    let gap = invited(&users[2..3], 3, until);
    assert!(!draws.invite(sale.sale_id, &gap).await.unwrap());
    let twice = invited(&users[1..2], 2, until);
    draws.invite(sale.sale_id, &twice).await.unwrap_err();
    assert_eq!(ledger.numbers(&sale).await, (4, 0, 2));
    let too_many = invited(&[users[2], users[3], user_id()], 2, until);
    draws.invite(sale.sale_id, &too_many).await.unwrap_err();
    assert_eq!(ledger.numbers(&sale).await, (4, 0, 2), "nothing of it was stored");
    let later = invited(&users[2..], 2, until.plus_ms(1));
    assert!(draws.invite(sale.sale_id, &later).await.unwrap());
    let all: Vec<_> = first.iter().chain(&later).cloned().collect();
    assert_eq!(draws.invitations(sale.sale_id, 0, 9).await.unwrap(), all);
    assert_eq!(draws.invitations(sale.sale_id, 1, 2).await.unwrap(), all[1..3]);

    let unused = async |now, from, limit| {
        draws.unused_invitations(sale.sale_id, now, from, limit).await.unwrap()
    };
    assert_eq!(unused(START, 0, 9).await, all);
    ledger.record(&[testing::request(&sale, users[1])]).await;
    assert_eq!(unused(START, 0, 9).await, [&all[..1], &all[2..]].concat());
    assert_eq!(unused(START, 1, 1).await, all[2..3]);
    assert_eq!(unused(until, 0, 9).await, all[2..], "the first two have ended");
    assert_eq!(unused(until.plus_ms(1), 0, 9).await, []);
}

/// Concurrent batches give every late entry a number of its own, without gaps.
pub async fn draw_entry_races(ledger: &Ledger) {
    let sales = [ledger.new_draw(5).await, ledger.new_draw(5).await];
    let users: Vec<UserId> = (0..40).map(|_| user_id()).collect();
    let recording: Vec<_> = (0..8)
        .map(|task| {
            let (draws, sales) = (ledger.draws.clone(), sales.clone());
            let users: Vec<_> = users.iter().skip(task * 4).take(12).copied().collect();
            tokio::spawn(async move {
                let entries: Vec<_> = users
                    .iter()
                    .flat_map(|user| sales.iter().map(|sale| entry(sale, *user, START)))
                    .collect();
                super::again(|| draws.enter(&entries)).await;
            })
        })
        .collect();
    for task in recording {
        task.await.unwrap();
    }
    for sale in &sales {
        let entries = ledger.draws.entries(sale.sale_id, None, 100).await.unwrap();
        let arrivals: BTreeSet<_> = entries.iter().filter_map(|entry| entry.arrival).collect();
        assert_eq!(entries.len(), users.len());
        assert_eq!(arrivals, (0..users.len() as u64).collect());
        assert_eq!(ledger.numbers(sale).await, (0, users.len() as u64, 0));
    }
}
