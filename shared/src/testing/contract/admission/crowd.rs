//! Many concurrent callers.

use std::collections::BTreeSet;

use tokio::task::JoinSet;

use super::*;

/// Runs `work` for each item in its own task and returns the results.
async fn at_once<I: Send + 'static, T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    items: impl IntoIterator<Item = I>,
    work: impl Fn(I) -> F,
) -> Vec<T> {
    let mut tasks = JoinSet::new();
    for item in items {
        tasks.spawn(work(item));
    }
    tasks.join_all().await
}

async fn reserve_at_once(
    port: &Arc<dyn Admission>,
    claims: Vec<Claim>,
) -> Vec<(Claim, AdmissionDecision)> {
    at_once(claims, |claim| {
        let port = Arc::clone(port);
        async move {
            let answer = ask(&*port, &claim).await;
            (claim, answer)
        }
    })
    .await
}

fn reserved(answers: &[(Claim, AdmissionDecision)]) -> Vec<&Claim> {
    answers
        .iter()
        .filter(|(_, answer)| matches!(answer, AdmissionDecision::Reserved(_)))
        .map(|(claim, _)| claim)
        .collect()
}

/// A rush of buyers: no unit is sold twice, however often a user retries.
pub async fn suite(port: &Arc<dyn Admission>) {
    fifty_units_go_to_fifty_of_two_hundred(port).await;
    one_user_never_gets_more_than_the_limit(port).await;
    one_order_gets_one_unit(port).await;
    overdue_orders_go_to_one_claimer(port).await;
    of_many_rebuilders_one_opens_the_sale(port).await;
}

async fn fifty_units_go_to_fifty_of_two_hundred(port: &Arc<dyn Admission>) {
    let sale = opened(&**port, 50).await;
    let answers = reserve_at_once(port, (0..200).map(|_| claim(&sale, user_id())).collect()).await;
    let winners = reserved(&answers);
    assert_eq!(winners.len(), 50);
    assert_eq!(
        answers.iter().filter(|(_, answer)| *answer == AdmissionDecision::SoldOut).count(),
        150
    );
    let all = read_all(&**port, sale.sale_id, 7).await;
    assert_eq!(all.len(), 50);
    for winner in winners {
        let held = Reservation { order: admitted(&sale, winner), settled: false };
        assert_eq!(all.get(&winner.order_id), Some(&held));
        assert_eq!(find(&**port, &held.order).await.as_ref(), Some(&held));
    }
    // Released and reserved concurrently: only as many are reserved as were released.
    let back: Vec<_> = all.keys().take(20).copied().collect();
    let releases = at_once(back, |order_id| {
        let (port, sale_id) = (Arc::clone(port), sale.sale_id);
        async move { port.release(sale_id, &[order_id, order_id].map(ended)).await.expect("store") }
    });
    let claims = reserve_at_once(port, (0..100).map(|_| claim(&sale, user_id())).collect());
    let (_, first) = tokio::join!(releases, claims);
    let second = reserve_at_once(port, (0..100).map(|_| claim(&sale, user_id())).collect()).await;
    assert_eq!(reserved(&first).len() + reserved(&second).len(), 20);
    assert_held(&**port, sale.sale_id, 50, 0).await;
}

async fn one_user_never_gets_more_than_the_limit(port: &Arc<dyn Admission>) {
    for limit in [1, 2] {
        let mut sale = sale(100);
        sale.per_user_limit = limit;
        open(&**port, &sale).await;
        let user = user_id();
        let answers = reserve_at_once(port, (0..50).map(|_| claim(&sale, user)).collect()).await;
        let mine: BTreeSet<_> = reserved(&answers).iter().map(|claim| claim.order_id).collect();
        assert_eq!(mine.len(), limit as usize);
        for (_, answer) in &answers {
            match answer {
                AdmissionDecision::Reserved(_) => {}
                AdmissionDecision::AlreadyBought { order_id } => assert!(mine.contains(order_id)),
                other => panic!("{other:?}"),
            }
        }
        assert_held(&**port, sale.sale_id, limit, 0).await;
    }
}

async fn one_order_gets_one_unit(port: &Arc<dyn Admission>) {
    let mut sale = sale(100);
    // The limit per user must not be what prevents a second unit.
    sale.per_user_limit = 100;
    open(&**port, &sale).await;
    let first = claim(&sale, user_id());
    let repeats = (0..50).map(|ms| Claim { now: at(ms), ..first.clone() }).collect();
    let answers = reserve_at_once(port, repeats).await;
    let [winner] = reserved(&answers)[..] else {
        panic!("expected exactly one: {answers:?}");
    };
    let held = Reservation { order: admitted(&sale, winner), settled: false };
    for (claim, answer) in &answers {
        if claim.now != winner.now {
            assert_eq!(*answer, AdmissionDecision::Again(held.clone()));
        }
    }
    assert_held(&**port, sale.sale_id, 1, 0).await;
}

async fn overdue_orders_go_to_one_claimer(port: &Arc<dyn Admission>) {
    let sale = opened(&**port, 60).await;
    let answers = reserve_at_once(port, (0..60).map(|_| claim(&sale, user_id())).collect()).await;
    assert_eq!(reserved(&answers).len(), 60);
    let claimed = at_once(0..20, |_| {
        let (port, sale_id) = (Arc::clone(port), sale.sale_id);
        async move { port.claim_overdue(sale_id, START, at(10), 4).await.expect("store") }
    })
    .await;
    let ids: Vec<_> =
        claimed.iter().flatten().map(|reservation| reservation.order.order_id).collect();
    assert_eq!(ids.len(), 60, "each is claimed");
    assert_eq!(ids.into_iter().collect::<BTreeSet<_>>().len(), 60);
}

async fn of_many_rebuilders_one_opens_the_sale(port: &Arc<dyn Admission>) {
    let sale = sale(100);
    let winners: Vec<_> = (0..10).map(|_| request(&sale, user_id())).collect();
    let finished = at_once(2..=21_u64, |epoch| {
        let (port, sale, winners) = (Arc::clone(port), sale.clone(), winners.clone());
        async move {
            if !port.begin_rebuild(&sale.terms(), epoch, at(epoch)).await.expect("store") {
                return (epoch, false);
            }
            for order in &winners {
                if !port
                    .restore(sale.sale_id, epoch, std::slice::from_ref(order))
                    .await
                    .expect("store")
                {
                    return (epoch, false);
                }
            }
            (epoch, port.finish_rebuild(sale.sale_id, epoch).await.expect("store"))
        }
    })
    .await;
    // A newer rebuild takes over until the sale is open; from then on all are refused.
    let opened_by: Vec<u64> =
        finished.iter().filter(|(_, open)| *open).map(|(epoch, _)| *epoch).collect();
    let [epoch] = opened_by[..] else {
        panic!("expected exactly one: {finished:?}");
    };
    let expected = AdmissionState::Open { epoch, version: 1, stock: 100, reserved: 0, settled: 10 };
    assert_eq!(port.state(sale.sale_id).await.expect("store"), expected);
}
