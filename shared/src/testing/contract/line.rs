//! Suites of [`Line`], with the [`Admission`](crate::ports::Admission) of the same store: every
//! sentence of its contract.

#![expect(clippy::unwrap_used, reason = "suites are tests")]

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    domain::{AdmissionDecision, DrawTerms, Invitation, LineKey, Sale, Seed, Timestamp, UserId},
    ports::{Admission, FreeUnits, Line, LineLength},
    testing::{Claim, START, ended, order_id, sale, user_id},
};

/// Both ports of one store.
#[derive(Clone)]
#[expect(missing_docs, reason = "each field is the port of its type")]
pub struct LinePorts {
    pub admission: Arc<dyn Admission>,
    pub line: Arc<dyn Line>,
}

impl LinePorts {
    /// Both ports of a store that implements them.
    pub fn of<S: Admission + Line + 'static>(store: Arc<S>) -> Self {
        Self { admission: Arc::clone(&store) as _, line: store }
    }

    /// A sale by draw that is open in the store.
    async fn opened(&self, stock: u32) -> Sale {
        let sale = by_draw(stock);
        assert!(self.admission.begin_rebuild(&sale.terms(), 1, START).await.unwrap());
        assert!(self.admission.finish_rebuild(sale.sale_id, 1).await.unwrap());
        sale
    }

    async fn free(&self, sale: &Sale, now: Timestamp) -> FreeUnits {
        self.line.free(sale.sale_id, now).await.unwrap().expect("the sale is open")
    }

    async fn reserve(&self, sale: &Sale, user_id: UserId, now: Timestamp) -> AdmissionDecision {
        let claim = Claim::new(sale.sale_id, order_id(), user_id, now);
        self.admission.reserve(&claim.request(), now).await.unwrap()
    }
}

fn by_draw(stock: u32) -> Sale {
    let draw = DrawTerms {
        entries_open_at: START.minus_ms(9_000),
        invite_seconds: 60,
        seed_hash: Seed::from([1; 32]).hash(),
        beacon: None,
    };
    Sale { draw: Some(draw), ..sale(stock) }
}

fn invitations(users: &[UserId], from: u64, until: Timestamp) -> Vec<Invitation> {
    (from..)
        .zip(users)
        .map(|(place, user_id)| Invitation { place, user_id: *user_id, invited_at: START, until })
        .collect()
}

/// Users stand in the order of their keys, late ones behind, users with the same key in the order
/// of their ids.
pub async fn order(ports: &LinePorts) {
    let (sale, line) = (ports.opened(1).await, &ports.line);
    let sale_id = sale.sale_id;
    assert_eq!(line.length(sale_id).await.unwrap(), LineLength::default());
    assert_eq!(line.next(sale_id, None, 5).await.unwrap(), []);
    let mut users: Vec<UserId> = (0..6).map(|_| user_id()).collect();
    users.sort_unstable();
    let key = LineKey::from_number;
    let most = LineKey::late(0).number() - 1;
    let entries = [
        (users[5], key(0)),
        (users[2], key(7)),
        (users[4], key(7)),
        (users[0], key(most)),
        (users[3], LineKey::late(0)),
        (users[1], LineKey::late(1)),
    ];
    let mut shuffled = entries;
    shuffled.reverse();
    for _ in 0..2 {
        line.add(sale_id, &shuffled).await.unwrap();
        assert_eq!(line.length(sale_id).await.unwrap(), LineLength { in_time: 4, late: 2 });
    }
    assert_eq!(line.next(sale_id, None, 9).await.unwrap(), entries);
    assert_eq!(line.next(sale_id, None, 0).await.unwrap(), []);
    for (place, (user_id, key)) in (0_u64..).zip(entries) {
        let next = line.next(sale_id, Some((key, user_id)), 2).await.unwrap();
        let behind: Vec<_> =
            entries.iter().skip(usize::try_from(place).unwrap() + 1).take(2).copied().collect();
        assert_eq!(next, behind);
        assert_eq!(line.key(sale_id, user_id).await.unwrap(), Some(key));
        assert_eq!(line.place(sale_id, user_id).await.unwrap(), Some(place));
    }
    let stranger = user_id();
    assert_eq!(line.key(sale_id, stranger).await.unwrap(), None);
    assert_eq!(line.place(sale_id, stranger).await.unwrap(), None);
    assert_eq!(line.sample(sale_id, 4, 2).await.unwrap(), [key(0), key(7)]);
    assert_eq!(line.sample(sale_id, 4, 3).await.unwrap(), [key(0), key(most)]);
    assert_eq!(line.sample(sale_id, 0, 1).await.unwrap(), []);
}

/// More users than one command takes.
pub async fn long(ports: &LinePorts) {
    let (sale, line) = (ports.opened(1).await, &ports.line);
    let entries: Vec<_> = (0..2_500).map(|n| (user_id(), LineKey::from_number(3 * n))).collect();
    line.add(sale.sale_id, &entries).await.unwrap();
    assert_eq!(line.length(sale.sale_id).await.unwrap(), LineLength { in_time: 2_500, late: 0 });
    let sample = line.sample(sale.sale_id, 2_500, 1).await.unwrap();
    assert_eq!(sample, entries.iter().map(|(_, key)| *key).collect::<Vec<_>>());
    let sample = line.sample(sale.sale_id, 2_500, 4).await.unwrap();
    assert_eq!(sample, entries.iter().step_by(4).map(|(_, key)| *key).collect::<Vec<_>>());
    let users: Vec<UserId> = entries.iter().map(|(user_id, _)| *user_id).collect();
    let many = ports.opened(3_000).await;
    let until = START.plus_ms(60_000);
    line.invite(many.sale_id, &invitations(&users, 0, until), 2_500).await.unwrap();
    let free = ports.free(&many, START).await;
    assert_eq!((free.free, free.open_invitations, free.invited), (500, 2_500, 2_500));
}

/// Nothing is kept of a sale that the store does not have, and nothing is free in one that is
/// closed.
pub async fn missing(ports: &LinePorts) {
    let (sale, line) = (by_draw(3), &ports.line);
    let (sale_id, user) = (sale.sale_id, user_id());
    line.add(sale_id, &[(user, LineKey::from_number(1))]).await.unwrap();
    let until = START.plus_ms(60_000);
    line.invite(sale_id, &invitations(&[user], 0, until), 1).await.unwrap();
    assert_eq!(line.length(sale_id).await.unwrap(), LineLength::default());
    assert_eq!(line.free(sale_id, START).await.unwrap(), None);
    assert!(ports.admission.begin_rebuild(&sale.terms(), 1, START).await.unwrap());
    assert_eq!(line.free(sale_id, START).await.unwrap(), None, "it is being rebuilt");
    // A rebuild restores invitations before the sale opens.
    line.invite(sale_id, &invitations(&[user], 0, until), 1).await.unwrap();
    assert!(ports.admission.finish_rebuild(sale_id, 1).await.unwrap());
    let free = ports.free(&sale, START).await;
    assert_eq!(free, FreeUnits { free: 2, open_invitations: 1, invited: 1 });
}

/// Only an invited user gets a unit, once; an invitation ends at its time and is then free for
/// others.
pub async fn invited(ports: &LinePorts) {
    let (sale, line) = (ports.opened(3).await, &ports.line);
    let users: Vec<UserId> = (0..4).map(|_| user_id()).collect();
    assert_eq!(ports.reserve(&sale, users[0], START).await, AdmissionDecision::NotInvited);
    let none = FreeUnits { free: 3, open_invitations: 0, invited: 0 };
    assert_eq!(ports.free(&sale, START).await, none);
    let until = START.plus_ms(60_000);
    let first = invitations(&users[..2], 0, until);
    line.invite(sale.sale_id, &first, 2).await.unwrap();
    let two = FreeUnits { free: 1, open_invitations: 2, invited: 2 };
    assert_eq!(ports.free(&sale, START).await, two);
    let look = ports.admission.look(sale.sale_id, users[0], None).await.unwrap().unwrap();
    assert_eq!(look.invited_until, Some(until));
    let look = ports.admission.look(sale.sale_id, users[2], None).await.unwrap().unwrap();
    assert_eq!(look.invited_until, None);

    let bought = ports.reserve(&sale, users[0], until.minus_ms(1)).await;
    let AdmissionDecision::Reserved(order) = bought else { panic!("{bought:?}") };
    let free = FreeUnits { free: 1, open_invitations: 1, invited: 2 };
    assert_eq!(ports.free(&sale, START).await, free);
    let again = ports.reserve(&sale, users[0], until.minus_ms(1)).await;
    assert_eq!(again, AdmissionDecision::AlreadyBought { order_id: order.order_id });
    // The invitation was used: whoever gives the unit up is not invited again.
    ports.admission.release(sale.sale_id, &[order.order_id].map(ended)).await.unwrap();
    assert_eq!(ports.reserve(&sale, users[0], START).await, AdmissionDecision::NotInvited);
    let free = FreeUnits { free: 2, open_invitations: 1, invited: 2 };
    assert_eq!(ports.free(&sale, START).await, free);

    assert_eq!(ports.reserve(&sale, users[1], until).await, AdmissionDecision::NotInvited);
    let free = FreeUnits { free: 3, open_invitations: 0, invited: 2 };
    assert_eq!(ports.free(&sale, until).await, free);
    // A repeat of an earlier call changes nothing, also one that arrives late.
    line.invite(sale.sale_id, &first, 2).await.unwrap();
    assert_eq!(ports.free(&sale, START).await, free);
    let until = until.plus_ms(60_000);
    line.invite(sale.sale_id, &invitations(&users[2..], 2, until), 4).await.unwrap();
    let free = FreeUnits { free: 1, open_invitations: 2, invited: 4 };
    assert_eq!(ports.free(&sale, START.plus_ms(60_000)).await, free);
}

/// Many invited users and others ask at once: exactly the invited ones get units.
pub async fn crowd(ports: &LinePorts) {
    const INVITED: usize = 20;
    let sale = ports.opened(30).await;
    let users: Vec<UserId> = (0..60).map(|_| user_id()).collect();
    let until = START.plus_ms(60_000);
    let first = invitations(&users[..INVITED], 0, until);
    ports.line.invite(sale.sale_id, &first, INVITED as u64).await.unwrap();
    let asking: Vec<_> = users
        .iter()
        .chain(&users)
        .map(|user_id| {
            let (ports, sale, user_id) = (ports.clone(), sale.clone(), *user_id);
            tokio::spawn(async move { (user_id, ports.reserve(&sale, user_id, START).await) })
        })
        .collect();
    let mut winners = BTreeSet::new();
    for asked in asking {
        let (user_id, decision) = asked.await.unwrap();
        if matches!(decision, AdmissionDecision::Reserved(_)) {
            assert!(winners.insert(user_id), "an invitation is for one unit");
        }
    }
    assert_eq!(winners, users[..INVITED].iter().copied().collect());
    let free = FreeUnits { free: 10, open_invitations: 0, invited: INVITED as u64 };
    assert_eq!(ports.free(&sale, START).await, free);
}
