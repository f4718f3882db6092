//! Several concurrent tasks on the same few orders and users. The order of their calls is open, so
//! the test checks what must hold for every order.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use flashsale::{
    domain::{AdmissionDecision, AdmissionState, AdmittedOrder, EndedOrder, OrderId, Sale, UserId},
    ports::Admission,
    testing::{self, Claim, START},
};
use proptest::{collection::vec, prelude::*};
use tokio::task::JoinSet;

const USERS: usize = 3;
const ORDERS: usize = 10;
const NETWORKS: [&str; 2] = ["192.0.2.7", "2001:db8:1::7"];

/// One call of one task. An order belongs to the user of its index, modulo the number of users.
#[derive(Debug, Clone)]
pub enum Step {
    Reserve(usize),
    /// An order that the task has seen admitted; the ledger knows no others.
    Settle(usize),
    Release(usize),
    ClaimOverdue,
    /// A rebuild with the orders that the task has seen admitted, under the next epoch. It is
    /// refused, because the sale is open.
    Rebuild,
}

#[derive(Debug, Clone)]
pub struct Plan {
    stock: u32,
    limit: u32,
    units_per_prefix: Option<u32>,
    tasks: Vec<Vec<Step>>,
}

pub fn strategy() -> impl Strategy<Value = Plan> {
    let step = prop_oneof![
        10 => (0..ORDERS).prop_map(Step::Reserve),
        3 => (0..ORDERS).prop_map(Step::Settle),
        3 => (0..ORDERS).prop_map(Step::Release),
        1 => Just(Step::ClaimOverdue),
        1 => Just(Step::Rebuild),
    ];
    let units_per_prefix = prop::option::of(1..4_u32);
    (1..6_u32, 1..4_u32, units_per_prefix, vec(vec(step, 1..25), 2..6)).prop_map(
        |(stock, limit, units_per_prefix, tasks)| Plan { stock, limit, units_per_prefix, tasks },
    )
}

struct World {
    port: Arc<dyn Admission>,
    sale: Sale,
    users: [UserId; USERS],
    orders: [OrderId; ORDERS],
    epoch: AtomicU64,
}

/// The answers to a task.
#[derive(Default)]
struct Log {
    reserved: Vec<OrderId>,
    admitted: BTreeMap<OrderId, AdmittedOrder>,
    released: BTreeSet<OrderId>,
}

impl World {
    fn claim(&self, order: usize) -> Claim {
        let (order_id, user_id) = (self.orders[order], self.users[order % USERS]);
        Claim {
            address_prefix: testing::network(NETWORKS[order % NETWORKS.len()]),
            attempts_max: 0,
            ..Claim::new(self.sale.sale_id, order_id, user_id, START)
        }
    }

    async fn rebuild(&self, active: &[AdmittedOrder]) -> bool {
        let epoch = self.epoch.fetch_add(1, Ordering::SeqCst) + 1;
        let (port, sale_id) = (&self.port, self.sale.sale_id);
        port.begin_rebuild(&self.sale.terms(), epoch, START).await.unwrap()
            && port.restore(sale_id, epoch, active).await.unwrap()
            && port.finish_rebuild(sale_id, epoch).await.unwrap()
    }

    async fn task(self: Arc<Self>, steps: Vec<Step>) -> Log {
        let (port, sale_id) = (&self.port, self.sale.sale_id);
        let mut log = Log::default();
        for step in steps {
            match step {
                Step::Reserve(order) => {
                    let claim = self.claim(order);
                    match port.reserve(&claim.request(), claim.now).await.unwrap() {
                        AdmissionDecision::Reserved(order) => {
                            assert_eq!(order.user_id, claim.user_id);
                            log.reserved.push(claim.order_id);
                            log.admitted.insert(claim.order_id, order);
                        }
                        AdmissionDecision::Again(held) => {
                            assert_eq!(held.order.user_id, claim.user_id);
                            assert!(
                                !log.released.contains(&claim.order_id),
                                "it had ended before the call"
                            );
                            log.admitted.insert(claim.order_id, held.order);
                        }
                        AdmissionDecision::AlreadyBought { order_id } => {
                            let index = self.orders.iter().position(|id| *id == order_id).unwrap();
                            assert_eq!(self.users[index % USERS], claim.user_id);
                            assert_ne!(order_id, claim.order_id);
                        }
                        AdmissionDecision::Ended
                        | AdmissionDecision::Closed
                        | AdmissionDecision::SoldOut
                        | AdmissionDecision::NetworkSoldOut => {}
                        other => panic!("nothing in the plan leads to {other:?}"),
                    }
                }
                Step::Settle(order) => {
                    if let Some(request) = log.admitted.get(&self.orders[order]) {
                        port.settle(sale_id, std::slice::from_ref(request)).await.unwrap();
                    }
                }
                Step::Release(order) => {
                    let given_up_by = Some(self.users[order % USERS]);
                    let ended = EndedOrder { order_id: self.orders[order], given_up_by };
                    port.release(sale_id, &[ended]).await.unwrap();
                    log.released.insert(self.orders[order]);
                }
                Step::ClaimOverdue => {
                    port.claim_overdue(sale_id, START, START, 3).await.unwrap();
                }
                Step::Rebuild => {
                    let active: Vec<_> = log.admitted.values().cloned().collect();
                    assert!(!self.rebuild(&active).await, "an open sale stays open");
                }
            }
        }
        log
    }
}

/// Runs the plan on a new sale.
pub async fn run(port: &Arc<dyn Admission>, plan: &Plan) {
    let sale = Sale {
        per_user_limit: plan.limit,
        units_per_prefix: plan.units_per_prefix,
        ..testing::sale(plan.stock)
    };
    let (users, orders) =
        ([(); USERS].map(|()| testing::user_id()), [(); ORDERS].map(|()| testing::order_id()));
    let world =
        Arc::new(World { port: Arc::clone(port), sale, users, orders, epoch: AtomicU64::new(0) });
    assert!(world.rebuild(&[]).await);

    let done = Arc::new(AtomicBool::new(false));
    let observer = tokio::spawn(observe(Arc::clone(&world), Arc::clone(&done)));
    let mut tasks = JoinSet::new();
    for steps in &plan.tasks {
        tasks.spawn(Arc::clone(&world).task(steps.clone()));
    }
    let logs = tasks.join_all().await;
    done.store(true, Ordering::SeqCst);
    observer.await.unwrap();
    check(&world, &logs).await;
}

/// At no time are more units held than the stock, because the plan never settles orders beyond the
/// stock.
async fn observe(world: Arc<World>, done: Arc<AtomicBool>) {
    while !done.load(Ordering::SeqCst) {
        if let AdmissionState::Open { stock, reserved, settled, .. } =
            world.port.state(world.sale.sale_id).await.unwrap()
        {
            assert!(reserved + settled <= stock, "{reserved} + {settled} of {stock}");
        }
        tokio::task::yield_now().await;
    }
}

async fn check(world: &World, logs: &[Log]) {
    let (port, sale_id, sale) = (&world.port, world.sale.sale_id, &world.sale);
    let reserved: Vec<_> = logs.iter().flat_map(|log| &log.reserved).copied().collect();
    let released: BTreeSet<_> = logs.iter().flat_map(|log| &log.released).copied().collect();
    let won: BTreeSet<_> = reserved.iter().copied().collect();
    assert_eq!(won.len(), reserved.len(), "an order is reserved once");
    let page = port.reservations(sale_id, 0, 100).await.unwrap();
    assert_eq!(page.next, None);
    let held: BTreeMap<_, _> =
        page.reservations.into_iter().map(|held| (held.order.order_id, held)).collect();
    assert_eq!(
        held.keys().copied().collect::<BTreeSet<_>>(),
        &won - &released,
        "exactly the orders that were reserved and not released"
    );

    let settled = held.values().filter(|held| held.settled).count() as u32;
    let reserved = held.len() as u32 - settled;
    let expected = AdmissionState::Open {
        epoch: 1,
        version: sale.version,
        stock: sale.stock,
        reserved,
        settled,
    };
    assert_eq!(port.state(sale_id).await.unwrap(), expected);
    assert!(reserved + settled <= sale.stock);

    for user_id in world.users {
        let mine = held.values().filter(|held| held.order.user_id == user_id).count() as u32;
        assert!(mine <= sale.per_user_limit);
        let look = port.look(sale_id, user_id, None).await.unwrap().unwrap();
        assert_eq!(look.already_bought.is_some(), mine == sale.per_user_limit);
        assert_eq!(look.available, sale.stock - reserved - settled);
        let given_up = (0..ORDERS)
            .filter(|order| world.users[order % USERS] == user_id)
            .filter(|order| released.contains(&world.orders[*order]));
        assert_eq!(look.given_up as usize, given_up.count());
    }
    for address in NETWORKS {
        let from = testing::network(address);
        let units = held.values().filter(|held| held.order.address_prefix == Some(from)).count();
        let limit = sale.units_per_prefix.map(|limit| limit as usize);
        assert!(limit.is_none_or(|limit| units <= limit));
        let look = port.look(sale_id, world.users[0], Some(from)).await.unwrap().unwrap();
        assert_eq!(look.network_sold_out, limit == Some(units));
    }
    let overdue = port.claim_overdue(sale_id, START, START.plus_ms(1), 100).await.unwrap();
    let overdue: BTreeSet<_> = overdue.into_iter().map(|held| held.order.order_id).collect();
    assert_eq!(
        overdue,
        held.values().filter(|held| !held.settled).map(|held| held.order.order_id).collect()
    );

    for (index, order_id) in world.orders.iter().enumerate() {
        if released.contains(order_id) {
            let claim = world.claim(index);
            let answer = port.reserve(&claim.request(), claim.now).await.unwrap();
            assert_eq!(answer, AdmissionDecision::Ended);
        }
    }
    // Exactly the remaining units can still be reserved.
    for left in (0..=sale.stock - reserved - settled).rev() {
        // From networks of their own, so that no network's limit is what stops them.
        let claim = Claim {
            order_id: testing::order_id(),
            user_id: testing::user_id(),
            address_prefix: testing::network(&format!("198.51.{left}.1")),
            ..world.claim(0)
        };
        let answer = port.reserve(&claim.request(), claim.now).await.unwrap();
        assert_eq!(matches!(answer, AdmissionDecision::Reserved(_)), left > 0, "{answer:?}");
    }
}
