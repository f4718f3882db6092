//! `of_user` and `active`.

use super::{Ledger, done};
use crate::{
    domain::{AdmittedOrder, Order},
    testing::{self, START},
};

/// Pages contain the right rows in order, each row once.
pub async fn paging(ledger: &Ledger) {
    let orders = &ledger.orders;
    let (sale, elsewhere) = (ledger.new_sale(100, 100).await, ledger.new_sale(100, 100).await);
    let (user, other) = (testing::user_id(), testing::user_id());
    let mut requests: Vec<AdmittedOrder> = (0..7).map(|_| testing::request(&sale, user)).collect();
    requests.extend((0..3).map(|_| testing::request(&elsewhere, user)));
    requests.extend((0..4).map(|_| testing::request(&sale, other)));
    ledger.record(&requests).await;
    done(orders.cancel(requests[0].order_id, user, None, START).await);
    done(orders.pay(requests[1].order_id, user, START).await);

    let mut all = Vec::new();
    for request in &requests {
        all.push(ledger.get(request.order_id).await);
    }
    all.sort_by_key(|order| order.order_id);

    let of_user: Vec<_> = all.iter().filter(|order| order.user_id == user).rev().cloned().collect();
    for limit in [1, 3, 10, 100] {
        let mut seen: Vec<Order> = Vec::new();
        loop {
            let page =
                orders.of_user(user, seen.last().map(|order| order.order_id), limit).await.unwrap();
            assert!(page.len() <= limit as usize && seen.len() <= 10);
            if page.is_empty() {
                break;
            }
            seen.extend(page);
        }
        assert_eq!(seen, of_user, "in every status, newest first");
    }
    assert_eq!(orders.of_user(testing::user_id(), None, 10).await.unwrap(), []);
    assert_eq!(orders.of_user(user, None, 0).await.unwrap(), []);

    let active: Vec<_> = all
        .iter()
        .filter(|order| order.sale_id == sale.sale_id && order.status.is_active())
        .cloned()
        .collect();
    assert_eq!(active.len(), 10);
    for limit in [1, 4, 10, 100] {
        let mut seen: Vec<Order> = Vec::new();
        loop {
            let page = orders
                .active(sale.sale_id, seen.last().map(|order| order.order_id), limit)
                .await
                .unwrap();
            assert!(page.len() <= limit as usize && seen.len() <= 10);
            if page.is_empty() {
                break;
            }
            seen.extend(page.into_iter().map(|row| row.order));
        }
        assert_eq!(seen, active, "confirmed and paid, by id upwards");
    }
    assert_eq!(orders.active(testing::sale_id(), None, 10).await.unwrap(), []);
}
