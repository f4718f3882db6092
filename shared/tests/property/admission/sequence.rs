//! Random sequences of calls, each compared with the model.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Mutex,
};

use flashsale::{
    domain::{
        AddressPrefix, AdmissionDecision, AdmittedOrder, Currency, EndedOrder, Invitation, OrderId,
        SaleId, SaleTerms, Timestamp, UserId,
    },
    ports::Admission,
    testing::{self, Claim, START},
};
use proptest::{collection::vec, prelude::*};

use super::{Subject, model::Model};

/// Few of each, so that calls interact.
const USERS: usize = 3;
const ORDERS: usize = 8;
const NETWORKS: [&str; 2] = ["192.0.2.7", "2001:db8:1::7"];

/// One call. Orders and users are named by index, times are milliseconds after [`START`].
#[derive(Debug, Clone)]
pub enum Step {
    Reserve {
        order: usize,
        user: usize,
        expired: bool,
        network: usize,
        attempts_max: u32,
        now: u64,
    },
    Settle(Vec<(usize, usize)>),
    /// Orders, and the users who gave them up.
    Release(Vec<(usize, Option<usize>)>),
    /// Only in a sale by draw. The number of places invited grows by this.
    Invite {
        user: usize,
        until: u64,
        places: u64,
    },
    ClaimOverdue {
        before: u64,
        now: u64,
        limit: u32,
    },
    /// The epoch is the store's plus this less 1, so that older, same and newer ones come up.
    BeginRebuild {
        epoch: u64,
        terms: Terms,
        now: u64,
    },
    Restore {
        epoch: u64,
        orders: Vec<(usize, usize)>,
    },
    FinishRebuild {
        epoch: u64,
    },
    SetTerms(Terms),
    Lose,
}

#[derive(Debug, Clone)]
pub struct Terms {
    stock: u32,
    limit: u32,
    price: i64,
    starts: u64,
    ends: u64,
    /// The store's version plus this less 1.
    version: u64,
    units_per_prefix: Option<u32>,
}

fn terms() -> impl Strategy<Value = Terms> {
    let units_per_prefix = prop::option::of(1..4_u32);
    (0..7_u32, 1..4_u32, 0..3_i64, 0..15_u64, 40..60_u64, 0..3_u64, units_per_prefix).prop_map(
        |(stock, limit, price, starts, ends, version, units_per_prefix)| Terms {
            stock,
            limit,
            price,
            starts,
            ends,
            version,
            units_per_prefix,
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let orders = || vec((0..ORDERS, 0..USERS), 0..4);
    prop_oneof![
        40 => (0..ORDERS, 0..USERS, prop::bool::weighted(0.1), 0..NETWORKS.len(), 0..3_u32, 0..60_u64)
            .prop_map(|(order, user, expired, network, attempts_max, now)| {
                Step::Reserve { order, user, expired, network, attempts_max, now }
            }),
        10 => orders().prop_map(Step::Settle),
        10 => vec((0..ORDERS, prop::option::of(0..USERS)), 0..3).prop_map(Step::Release),
        10 => (0..USERS, 20..60_u64, 0..3_u64).prop_map(|(user, until, places)| Step::Invite { user, until, places }),
        10 => (0..70_u64, 0..70_u64, 0..4_u32).prop_map(|(before, now, limit)| Step::ClaimOverdue { before, now, limit }),
        4 => (0..3_u64, terms(), 0..60_u64).prop_map(|(epoch, terms, now)| Step::BeginRebuild { epoch, terms, now }),
        4 => (0..3_u64, orders()).prop_map(|(epoch, orders)| Step::Restore { epoch, orders }),
        8 => (0..3_u64).prop_map(|epoch| Step::FinishRebuild { epoch }),
        6 => terms().prop_map(Step::SetTerms),
        2 => Just(Step::Lose),
    ]
}

/// Whether the sale is loaded and open at the beginning, whether it is by draw, and the calls.
pub fn strategy() -> impl Strategy<Value = (bool, bool, Vec<Step>)> {
    (prop::bool::weighted(0.8), prop::bool::weighted(0.3), vec(step(), 1..40))
}

struct World<'a> {
    port: &'a dyn Admission,
    model: Model,
    draw: bool,
    sale_id: SaleId,
    users: [UserId; USERS],
    orders: [OrderId; ORDERS],
}

fn network(index: usize) -> AddressPrefix {
    testing::network(NETWORKS[index])
}

fn at(ms: u64) -> Timestamp {
    START.plus_ms(ms)
}

impl World<'_> {
    fn requests(&self, orders: &[(usize, usize)]) -> Vec<AdmittedOrder> {
        let request = |(order, user): &(usize, usize)| AdmittedOrder {
            order_id: self.orders[*order],
            sale_id: self.sale_id,
            user_id: self.users[*user],
            price: 99,
            currency: Currency::USD,
            admitted_at: at(5),
            traceparent: (*user == 0)
                .then(|| "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
            // Some orders are of an earlier release.
            address_prefix: (*order % 3 < NETWORKS.len()).then(|| network(*order % 3)),
        };
        orders.iter().map(request).collect()
    }

    fn terms(&self, terms: &Terms) -> SaleTerms {
        SaleTerms {
            sale_id: self.sale_id,
            stock: terms.stock,
            per_user_limit: terms.limit,
            price: terms.price,
            currency: Currency::CNY,
            starts_at: at(terms.starts),
            ends_at: at(terms.ends),
            version: (self.model.version() + terms.version).saturating_sub(1),
            draw: self.draw,
            units_per_prefix: terms.units_per_prefix,
        }
    }

    fn epoch(&self, relative: u64) -> u64 {
        (self.model.epoch() + relative).saturating_sub(1)
    }

    async fn take(&mut self, step: &Step, subject: &Subject, seen: &Mutex<BTreeSet<&'static str>>) {
        let (port, sale_id) = (self.port, self.sale_id);
        match step {
            Step::Reserve { order, user, expired, network: from, attempts_max, now } => {
                let (order_id, user_id) = (self.orders[*order], self.users[*user]);
                let claim = Claim {
                    sale_id,
                    order_id,
                    user_id,
                    ticket_expired: *expired,
                    address_prefix: network(*from),
                    attempts_max: *attempts_max,
                    now: at(*now),
                };
                // The domain's rules, which a script copies, and the model, which restates them.
                let ruled = self
                    .model
                    .view(&claim, &self.model.of_user(user_id))
                    .decide(&claim.request(), claim.now);
                let (actual, expected) = (
                    port.reserve(&claim.request(), claim.now).await.unwrap(),
                    self.model.reserve(&claim),
                );
                seen.lock().unwrap().insert(word(&expected));
                for expected in [ruled, expected] {
                    match (&actual, &expected) {
                        (
                            AdmissionDecision::AlreadyBought { order_id },
                            AdmissionDecision::AlreadyBought { .. },
                        ) => assert!(
                            self.model.of_user(user_id).contains(order_id),
                            "the order named is the user's"
                        ),
                        _ => assert_eq!(actual, expected),
                    }
                }
            }
            Step::Settle(orders) => {
                let active = self.requests(orders);
                port.settle(sale_id, &active).await.unwrap();
                self.model.settle(&active);
            }
            Step::Release(orders) => {
                let ended = |(order, user): &(usize, Option<usize>)| EndedOrder {
                    order_id: self.orders[*order],
                    given_up_by: user.map(|user| self.users[user]),
                };
                let ended: Vec<_> = orders.iter().map(ended).collect();
                port.release(sale_id, &ended).await.unwrap();
                self.model.release(&ended);
            }
            Step::Invite { .. } if !self.draw => {}
            Step::Invite { user, until, places } => {
                let (user_id, until) = (self.users[*user], at(*until));
                let invited = self.model.invited + places;
                let next = [Invitation { user_id, place: invited, invited_at: START, until }];
                subject.line.invite(sale_id, &next, invited).await.unwrap();
                self.model.invite(user_id, until, invited);
            }
            Step::ClaimOverdue { before, now, limit } => {
                let actual =
                    port.claim_overdue(sale_id, at(*before), at(*now), *limit).await.unwrap();
                assert_eq!(actual, self.model.claim_overdue(at(*before), at(*now), *limit));
            }
            Step::BeginRebuild { epoch, terms, now } => {
                let (epoch, terms) = (self.epoch(*epoch), self.terms(terms));
                let actual = port.begin_rebuild(&terms, epoch, at(*now)).await.unwrap();
                assert_eq!(actual, self.model.begin_rebuild(&terms, epoch, at(*now)));
            }
            Step::Restore { epoch, orders } => {
                let (epoch, active) = (self.epoch(*epoch), self.requests(orders));
                assert_eq!(
                    port.restore(sale_id, epoch, &active).await.unwrap(),
                    self.model.restore(epoch, &active)
                );
            }
            Step::FinishRebuild { epoch } => {
                let epoch = self.epoch(*epoch);
                assert_eq!(
                    port.finish_rebuild(sale_id, epoch).await.unwrap(),
                    self.model.finish_rebuild(epoch)
                );
            }
            Step::SetTerms(terms) => {
                let terms = self.terms(terms);
                assert_eq!(port.set_terms(&terms).await.unwrap(), self.model.set_terms(&terms));
            }
            Step::Lose => {
                (subject.lose)(sale_id).await;
                self.model = Model::default();
            }
        }
    }

    /// Compares all visible state.
    async fn compare(&self) {
        assert_eq!(self.port.state(self.sale_id).await.unwrap(), self.model.state());
        let (mut actual, mut cursor) = (BTreeMap::new(), 0);
        loop {
            let page = self.port.reservations(self.sale_id, cursor, 2).await.unwrap();
            actual.extend(page.reservations.into_iter().map(|held| (held.order.order_id, held)));
            match page.next {
                Some(next) => cursor = next,
                None => break,
            }
        }
        let expected = self
            .model
            .orders
            .iter()
            .map(|order| (order.reservation.order.order_id, order.reservation.clone()))
            .collect();
        assert_eq!(actual, expected);
        for (index, user_id) in self.users.into_iter().enumerate() {
            let from = network(index % NETWORKS.len());
            let look = self.port.look(self.sale_id, user_id, Some(from)).await.unwrap();
            let seen =
                look.as_ref().map(|look| (look.available as usize, look.already_bought.is_some()));
            assert_eq!(seen, self.model.look(user_id));
            if let Some(look) = &look {
                assert_eq!(look.given_up as usize, self.model.attempts(user_id));
                assert_eq!(look.network_sold_out, self.model.network_full(from));
                assert_eq!(look.invited_until, self.model.invited_until(user_id));
            }
            if let Some(order_id) = look.and_then(|look| look.already_bought) {
                assert!(
                    self.model.of_user(user_id).contains(&order_id),
                    "the order named is the user's"
                );
            }
        }
    }
}

/// Runs the steps on a new sale.
pub async fn run(
    subject: &Subject,
    loaded: bool,
    draw: bool,
    steps: &[Step],
    seen: &Mutex<BTreeSet<&'static str>>,
) {
    let mut orders = [(); ORDERS].map(|()| testing::order_id());
    orders.sort();
    let mut world = World {
        port: &*subject.port,
        model: Model::default(),
        draw,
        sale_id: testing::sale_id(),
        users: [(); USERS].map(|()| testing::user_id()),
        orders,
    };
    if loaded {
        let terms = Terms {
            stock: 4,
            limit: 2,
            price: 2,
            starts: 10,
            ends: 50,
            version: 2,
            units_per_prefix: Some(2),
        };
        for step in
            [Step::BeginRebuild { epoch: 2, terms, now: 0 }, Step::FinishRebuild { epoch: 1 }]
        {
            world.take(&step, subject, seen).await;
        }
    }
    for step in steps {
        world.take(step, subject, seen).await;
        world.compare().await;
    }
    for order_id in world.orders {
        assert_eq!(
            world.port.find(world.sale_id, order_id).await.unwrap(),
            world.model.find(order_id)
        );
    }
    // The overdue index: every unsettled reservation once, oldest first.
    let (expected, actual) = (
        world.model.claim_overdue(at(99), at(100), 99),
        world.port.claim_overdue(world.sale_id, at(99), at(100), 99),
    );
    assert_eq!(actual.await.unwrap(), expected);
}

/// Every answer to `reserve`.
pub const ANSWERS: [&str; 12] = [
    "again",
    "already bought",
    "closed",
    "ended",
    "network sold out",
    "not invited",
    "not open",
    "reserved",
    "sale ended",
    "sold out",
    "ticket expired",
    "too many attempts",
];

fn word(admitted: &AdmissionDecision) -> &'static str {
    match admitted {
        AdmissionDecision::Again(_) => "again",
        AdmissionDecision::Ended => "ended",
        AdmissionDecision::Closed => "closed",
        AdmissionDecision::TicketExpired => "ticket expired",
        AdmissionDecision::NotOpen { .. } => "not open",
        AdmissionDecision::SaleEnded => "sale ended",
        AdmissionDecision::AlreadyBought { .. } => "already bought",
        AdmissionDecision::SoldOut => "sold out",
        AdmissionDecision::Reserved(_) => "reserved",
        AdmissionDecision::TooManyAttempts => "too many attempts",
        AdmissionDecision::NotInvited => "not invited",
        AdmissionDecision::NetworkSoldOut => "network sold out",
    }
}
