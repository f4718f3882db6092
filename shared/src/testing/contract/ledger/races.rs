//! `OrderLedger` with many concurrent callers.

use std::collections::HashMap;

use futures_util::future::join_all;

use super::{Ledger, PAY_WITHIN_MS, again, all};
use crate::{
    adapters::system::SystemRandom,
    domain::{AdmittedOrder, OrderId, OrderStatus, Recorded, RejectReason, Transition},
    ports::Random as _,
    testing::{self, START},
};

/// Many workers record concurrently, some of them the same orders.
pub async fn recording_races(ledger: &Ledger) {
    a_crowd(ledger).await;
    several_sales_in_any_order(ledger).await;
    one_user(ledger, 1).await;
    one_user(ledger, 2).await;
    one_id(ledger).await;
}

fn random(below: usize) -> usize {
    let mut bytes = [0; 8];
    SystemRandom.fill(&mut bytes);
    usize::try_from(u64::from_be_bytes(bytes) % below as u64).expect("it is below a usize")
}

/// The requests in random batches of 1 to 8.
fn batches(mut requests: Vec<AdmittedOrder>) -> Vec<Vec<AdmittedOrder>> {
    let mut batches = Vec::new();
    while !requests.is_empty() {
        let size = 1 + random(8).min(requests.len() - 1);
        batches.push((0..size).map(|_| requests.swap_remove(random(requests.len()))).collect());
    }
    batches
}

/// Records each batch in its own task.
async fn record_all(ledger: &Ledger, batches: Vec<Vec<AdmittedOrder>>) -> Vec<Recorded> {
    let tasks = batches.into_iter().map(|batch| {
        let orders = ledger.orders.clone();
        tokio::spawn(async move {
            let recorded = all(again(|| orders.record(&batch, START, PAY_WITHIN_MS)).await);
            assert!(
                batch
                    .iter()
                    .map(|request| request.order_id)
                    .eq(recorded.iter().map(|recorded| recorded.order.order_id))
            );
            recorded
        })
    });
    join_all(tasks).await.into_iter().flat_map(Result::unwrap).collect()
}

/// All callers got the same answer about an order, and it matches the ledger.
async fn assert_consistent(ledger: &Ledger, recorded: &[Recorded]) -> HashMap<OrderId, Recorded> {
    let mut told = HashMap::<_, Recorded>::new();
    for recorded in recorded {
        let first = told.entry(recorded.order.order_id).or_insert_with(|| recorded.clone());
        assert_eq!(first.order, recorded.order);
    }
    for recorded in told.values() {
        assert_eq!(ledger.get(recorded.order.order_id).await, recorded.order);
    }
    told
}

fn count(told: &HashMap<OrderId, Recorded>, reason: Option<RejectReason>) -> usize {
    told.values().filter(|recorded| recorded.order.reason == reason).count()
}

async fn a_crowd(ledger: &Ledger) {
    let sale = ledger.new_sale(50, 1).await;
    let requests: Vec<_> = (0..200).map(|_| testing::request(&sale, testing::user_id())).collect();
    // Each order twice: a message may be delivered again while the first worker is still processing
    // it.
    let mut all = batches(requests.clone());
    all.extend(batches(requests));
    let told = assert_consistent(ledger, &record_all(ledger, all).await).await;
    assert_eq!(count(&told, None), 50);
    assert_eq!(count(&told, Some(RejectReason::SoldOut)), 150);
    ledger.assert_sold(&sale, 50).await;
}

async fn several_sales_in_any_order(ledger: &Ledger) {
    let mut sales = Vec::new();
    for _ in 0..5 {
        sales.push(ledger.new_sale(10, 1).await);
    }
    let requests: Vec<_> = sales
        .iter()
        .flat_map(|sale| (0..30).map(|_| testing::request(sale, testing::user_id())))
        .collect();
    let told = assert_consistent(ledger, &record_all(ledger, batches(requests)).await).await;
    assert_eq!(count(&told, None), 50);
    for sale in &sales {
        ledger.assert_sold(sale, 10).await;
    }
}

async fn one_user(ledger: &Ledger, limit: u32) {
    let sale = ledger.new_sale(50, limit).await;
    let user = testing::user_id();
    let each: Vec<_> = (0..20).map(|_| vec![testing::request(&sale, user)]).collect();
    let told = assert_consistent(ledger, &record_all(ledger, each).await).await;
    assert_eq!(count(&told, None), limit as usize);
    assert_eq!(count(&told, Some(RejectReason::AlreadyBought)), 20 - limit as usize);
    ledger.assert_sold(&sale, limit).await;
}

async fn one_id(ledger: &Ledger) {
    // Workers record the same order concurrently: of one sale, of an unknown sale, and one id
    // claimed by two sales.
    let (sale, elsewhere) = (ledger.new_sale(5, 1).await, ledger.new_sale(5, 1).await);
    for rival in [&sale, &elsewhere] {
        let request = testing::request(&sale, testing::user_id());
        let stray = testing::request(&testing::sale(1), testing::user_id());
        let claim = AdmittedOrder { sale_id: rival.sale_id, ..request.clone() };
        let all = (0..10)
            .flat_map(|_| [vec![request.clone()], vec![stray.clone()], vec![claim.clone()]])
            .collect();
        let recorded = record_all(ledger, all).await;
        assert_consistent(ledger, &recorded).await;
        assert_eq!(
            recorded.iter().filter(|recorded| recorded.fresh).count(),
            2,
            "each was recorded once"
        );
    }
    let sold = async |sale_id| ledger.sales.get(sale_id).await.unwrap().unwrap().sold;
    assert_eq!(sold(sale.sale_id).await + sold(elsewhere.sale_id).await, 2);
}

/// Payment, cancellation, expiry and recording of the same orders at once.
pub async fn ending_races(ledger: &Ledger) {
    pay_or_expire_or_cancel(ledger).await;
    cancel_or_record(ledger).await;
    everything_at_once(ledger).await;
}

async fn pay_or_expire_or_cancel(ledger: &Ledger) {
    const ROUNDS: u32 = 30;
    let sale = ledger.new_sale(ROUNDS, 1).await;
    let mut paid = 0;
    for _ in 0..ROUNDS {
        let request = testing::request(&sale, testing::user_id());
        let (order_id, user_id) = (request.order_id, request.user_id);
        ledger.orders.record(&[request], START, 100).await.unwrap();
        let just_in_time = START.plus_ms(99);

        let orders = ledger.orders.clone();
        let pay =
            tokio::spawn(async move { orders.pay(order_id, user_id, just_in_time).await.unwrap() });
        let orders = ledger.orders.clone();
        let cancel = tokio::spawn(async move {
            orders.cancel(order_id, user_id, None, just_in_time).await.unwrap()
        });
        let orders = ledger.orders.clone();
        let expire =
            tokio::spawn(
                async move { orders.expire_due(START.plus_ms(100), 1_000).await.unwrap() },
            );
        let (pay, cancel, expired) =
            (pay.await.unwrap(), cancel.await.unwrap(), expire.await.unwrap());

        let order = ledger.get(order_id).await;
        assert_eq!(order.version, 2, "it ended once: {order:?}");
        let winners = [
            (matches!(pay, Transition::Done(_)), OrderStatus::Paid),
            (matches!(cancel, Transition::Done(_)), OrderStatus::Cancelled),
            (expired.iter().any(|expired| expired.order_id == order_id), OrderStatus::Expired),
        ];
        for (won, status) in winners {
            assert_eq!(won, order.status == status, "{pay:?} {cancel:?} {expired:?}");
        }
        for transition in [pay, cancel] {
            match transition {
                Transition::Done(told) | Transition::Refused(told) => assert_eq!(told, order),
                Transition::NotFound => panic!("it is there"),
            }
        }
        paid += u32::from(order.status == OrderStatus::Paid);
    }
    ledger.assert_sold(&sale, paid).await;
}

async fn cancel_or_record(ledger: &Ledger) {
    let sale = ledger.new_sale(40, 1).await;
    let mut tasks = Vec::new();
    for _ in 0..40 {
        let request = testing::request(&sale, testing::user_id());
        let (orders, batch) = (ledger.orders.clone(), [request.clone()]);
        let record = tokio::spawn(async move {
            again(|| orders.record(&batch, START, PAY_WITHIN_MS)).await.pop().unwrap().unwrap()
        });
        let (orders, queued) = (ledger.orders.clone(), request.clone());
        let cancel = tokio::spawn(async move {
            again(|| orders.cancel(queued.order_id, queued.user_id, Some(&queued), START)).await
        });
        tasks.push((request.order_id, record, cancel));
    }
    for (order_id, record, cancel) in tasks {
        let (recorded, cancelled) = (record.await.unwrap(), cancel.await.unwrap());
        let order = ledger.get(order_id).await;
        assert_eq!(cancelled, Transition::Done(order.clone()));
        match recorded.order.status {
            // Recorded first, then cancelled like any other.
            OrderStatus::Confirmed => assert!(recorded.fresh && order.version == 2),
            // Found cancelled.
            _ => assert!(
                !recorded.fresh && recorded.order == order && order.version == 1,
                "{recorded:?} {order:?}"
            ),
        }
    }
    ledger.assert_sold(&sale, 0).await;
}

async fn everything_at_once(ledger: &Ledger) {
    const BUYERS: usize = 60;
    let sales = [ledger.new_sale(10, 1).await, ledger.new_sale(10, 1).await];
    let requests: Vec<_> =
        (0..BUYERS).map(|n| testing::request(&sales[n % 2], testing::user_id())).collect();
    let recording = batches(requests.clone()).into_iter().map(|batch| {
        let orders = ledger.orders.clone();
        tokio::spawn(async move {
            again(|| orders.record(&batch, START, 100)).await;
        })
    });
    let ending = requests.iter().cloned().enumerate().map(|(n, request)| {
        let orders = ledger.orders.clone();
        tokio::spawn(async move {
            let AdmittedOrder { order_id, user_id, .. } = request;
            let ids = [order_id];
            // Each may come before, between or after the others; this test does not check their
            // answers.
            if n % 4 == 0 {
                again(|| orders.pay(order_id, user_id, START)).await;
            } else if n % 4 == 1 {
                again(|| orders.cancel(order_id, user_id, Some(&request), START)).await;
            } else if n % 4 == 2 {
                again(|| orders.expire_due(START.plus_ms(100), 3)).await;
            } else {
                again(|| orders.mark_stock_returned(&ids, START)).await;
            }
        })
    });
    for task in join_all(recording.chain(ending)).await {
        task.unwrap();
    }
    for sale in &sales {
        let row = ledger.sales.get(sale.sale_id).await.unwrap().unwrap();
        assert!(row.sold <= sale.stock);
        ledger.assert_sold(sale, row.sold).await;
    }
}

/// Prints how many orders per second are recorded in batches of 500, by one worker and by four.
/// Checks nothing.
#[expect(clippy::print_stdout, reason = "the benchmark prints its figures")]
pub async fn record_rate(ledger: &Ledger, store: &str) {
    const BATCH: usize = 500;
    const BATCHES: usize = 40;
    for workers in [1, 4] {
        let sale = ledger.new_sale(1_000_000, 1).await;
        let begun = std::time::Instant::now();
        let tasks = (0..workers).map(|_| {
            let (orders, sale) = (ledger.orders.clone(), sale.clone());
            tokio::spawn(async move {
                for _ in 0..BATCHES / workers {
                    let batch: Vec<_> =
                        (0..BATCH).map(|_| testing::request(&sale, testing::user_id())).collect();
                    again(|| orders.record(&batch, START, PAY_WITHIN_MS)).await;
                }
            })
        });
        for task in join_all(tasks).await {
            task.unwrap();
        }
        let seconds = begun.elapsed().as_secs_f64();
        println!(
            "{store}: {workers} workers, {:.0} orders/s, {:.1} ms a batch",
            (BATCH * BATCHES) as f64 / seconds,
            seconds * 1e3 / BATCHES as f64
        );
    }
}
