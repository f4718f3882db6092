//! `OrderLedger`, from a recorded order to its end, with one caller.

use super::{Ledger, done, reasons, refused};
use crate::{
    domain::{
        ActionKind, AddressPrefix, AdmittedOrder, Order, OrderId, OrderStatus, Patch, RejectReason,
        Sale, SaleChange, SaleChanged, SaleTally, Transition,
    },
    testing::{self, START},
};

/// `pay`.
pub async fn payment(ledger: &Ledger) {
    let orders = &ledger.orders;
    let sale = ledger.new_sale(10, 1).await;
    let order = ledger.confirmed(&sale).await;
    let pay_by = order.pay_by.unwrap();
    assert_eq!(
        orders.pay(testing::order_id(), order.user_id, START).await.unwrap(),
        Transition::NotFound
    );
    assert_eq!(
        orders.pay(order.order_id, testing::user_id(), START).await.unwrap(),
        Transition::NotFound,
        "another user's order"
    );

    assert_eq!(
        refused(orders.pay(order.order_id, order.user_id, pay_by).await),
        order,
        "too late at pay_by itself"
    );
    assert_eq!(ledger.get(order.order_id).await, order);
    let last_moment = pay_by.minus_ms(1);
    let paid =
        Order { status: OrderStatus::Paid, updated_at: last_moment, version: 2, ..order.clone() };
    assert_eq!(done(orders.pay(order.order_id, order.user_id, last_moment).await), paid);
    assert_eq!(ledger.get(order.order_id).await, paid);
    assert_eq!(
        done(orders.pay(order.order_id, order.user_id, pay_by.plus_ms(1)).await),
        paid,
        "a repeated payment finds it paid, at any time"
    );
    ledger.assert_sold(&sale, 1).await;

    let cancelled = ledger.confirmed(&sale).await;
    let cancelled = done(orders.cancel(cancelled.order_id, cancelled.user_id, None, START).await);
    assert_eq!(refused(orders.pay(cancelled.order_id, cancelled.user_id, START).await), cancelled);
    let rejected = ledger
        .record(&[testing::request(&testing::sale(1), testing::user_id())])
        .await
        .pop()
        .unwrap()
        .order;
    assert_eq!(refused(orders.pay(rejected.order_id, rejected.user_id, START).await), rejected);
    ledger.assert_sold(&sale, 1).await;
}

/// `cancel`.
pub async fn cancellation(ledger: &Ledger) {
    let orders = &ledger.orders;
    let sale = ledger.new_sale(2, 1).await;
    let order = ledger.confirmed(&sale).await;
    let now = START.plus_ms(7);
    assert_eq!(
        orders.cancel(testing::order_id(), order.user_id, None, now).await.unwrap(),
        Transition::NotFound
    );
    assert_eq!(
        orders.cancel(order.order_id, testing::user_id(), None, now).await.unwrap(),
        Transition::NotFound,
        "another user's order"
    );
    ledger.assert_sold(&sale, 1).await;

    let cancelled =
        Order { status: OrderStatus::Cancelled, updated_at: now, version: 2, ..order.clone() };
    assert_eq!(done(orders.cancel(order.order_id, order.user_id, None, now).await), cancelled);
    assert_eq!(ledger.get(order.order_id).await, cancelled);
    ledger.assert_sold(&sale, 0).await;
    assert_eq!(
        done(orders.cancel(order.order_id, order.user_id, None, now.plus_ms(1)).await),
        cancelled,
        "cancelled once"
    );
    ledger.assert_sold(&sale, 0).await;

    let paid = ledger.confirmed(&sale).await;
    let paid = done(orders.pay(paid.order_id, paid.user_id, START).await);
    assert_eq!(refused(orders.cancel(paid.order_id, paid.user_id, None, now).await), paid);
    let rejected = ledger
        .record(&[testing::request(&testing::sale(1), testing::user_id())])
        .await
        .pop()
        .unwrap()
        .order;
    assert_eq!(
        refused(orders.cancel(rejected.order_id, rejected.user_id, None, now).await),
        rejected
    );
    ledger.assert_sold(&sale, 1).await;

    cancellation_before_recording(ledger).await;
}

async fn cancellation_before_recording(ledger: &Ledger) {
    let orders = &ledger.orders;
    let now = START.plus_ms(7);
    let sale = ledger.new_sale(1, 1).await;
    let queued = testing::request(&sale, testing::user_id());
    assert_eq!(
        orders.cancel(queued.order_id, queued.user_id, None, now).await.unwrap(),
        Transition::NotFound
    );

    // A queued request for another order or user is not used for this one.
    let other = testing::request(&sale, testing::user_id());
    assert_eq!(
        orders.cancel(queued.order_id, queued.user_id, Some(&other), now).await.unwrap(),
        Transition::NotFound
    );
    assert_eq!(
        orders.cancel(queued.order_id, testing::user_id(), Some(&queued), now).await.unwrap(),
        Transition::NotFound
    );
    assert_eq!(orders.get_many(&[queued.order_id, other.order_id]).await.unwrap(), []);

    let cancelled = Order {
        status: OrderStatus::Cancelled,
        updated_at: now,
        version: 1,
        ..Order::queued(&queued)
    };
    for _ in 0..2 {
        assert_eq!(
            done(orders.cancel(queued.order_id, queued.user_id, Some(&queued), now).await),
            cancelled
        );
    }
    assert_eq!(ledger.get(queued.order_id).await, cancelled);
    let recorded = ledger.record(std::slice::from_ref(&queued)).await;
    assert_eq!(
        (recorded[0].fresh, &recorded[0].order),
        (false, &cancelled),
        "the delayed message finds it cancelled"
    );
    ledger.assert_sold(&sale, 0).await;
    assert!(orders.stock_to_return(None, 100_000).await.unwrap().contains(&cancelled));

    // After recording it is cancelled like any other, even if the caller still believes that it is
    // queued.
    let queued = testing::request(&sale, testing::user_id());
    ledger.record(std::slice::from_ref(&queued)).await;
    let cancelled = done(orders.cancel(queued.order_id, queued.user_id, Some(&queued), now).await);
    assert_eq!((cancelled.status, cancelled.version), (OrderStatus::Cancelled, 2));
    ledger.assert_sold(&sale, 0).await;

    // Also for a sale that is missing in the ledger.
    let stray = testing::request(&testing::sale(1), testing::user_id());
    done(orders.cancel(stray.order_id, stray.user_id, Some(&stray), now).await);
    assert_eq!(ledger.get(stray.order_id).await.status, OrderStatus::Cancelled);
}

/// `expire_due`.
pub async fn expiry(ledger: &Ledger) {
    let orders = &ledger.orders;
    let sales =
        [ledger.new_sale(4, 1).await, ledger.new_sale(4, 1).await, ledger.new_sale(4, 1).await];
    let mut due = Vec::new();
    for sale in &sales {
        for pay_within_ms in [50, 60] {
            let request = testing::request(sale, testing::user_id());
            due.push(
                orders
                    .record(&[request], START, pay_within_ms)
                    .await
                    .unwrap()
                    .pop()
                    .unwrap()
                    .unwrap()
                    .order,
            );
        }
    }
    let late = ledger.confirmed(&sales[0]).await;
    let paid = orders
        .record(&[testing::request(&sales[0], testing::user_id())], START, 50)
        .await
        .unwrap()
        .pop()
        .unwrap()
        .unwrap()
        .order;
    let paid = done(orders.pay(paid.order_id, paid.user_id, START).await);

    let ours = |expired: Vec<Order>| {
        expired
            .into_iter()
            .filter(|expired| due.iter().any(|order| order.order_id == expired.order_id))
    };
    assert_eq!(ours(expire_all(ledger, 49).await).count(), 0, "not before pay_by");
    let expired: Vec<_> = ours(expire_all(ledger, 50).await).collect();
    assert_eq!(expired.len(), 3, "at pay_by, of several sales in a call");
    let expired: Vec<_> =
        expired.into_iter().chain(ours(expire_all(ledger, 1_000).await)).collect();
    assert_eq!(expired.len(), 6);
    for order in &due {
        let now = if order.pay_by == Some(START.plus_ms(50)) { 50 } else { 1_000 };
        let expected = Order {
            status: OrderStatus::Expired,
            updated_at: START.plus_ms(now),
            version: 2,
            ..order.clone()
        };
        assert!(expired.contains(&expected), "{expected:?}");
        assert_eq!(ledger.get(order.order_id).await, expected);
        assert_eq!(refused(orders.pay(order.order_id, order.user_id, START).await), expected);
        assert_eq!(
            refused(orders.cancel(order.order_id, order.user_id, None, START).await),
            expected
        );
    }
    assert_eq!(ours(expire_all(ledger, 1_000).await).count(), 0, "once");
    assert_eq!(ledger.get(paid.order_id).await, paid);
    assert_eq!(ledger.get(late.order_id).await, late);
    ledger.assert_sold(&sales[0], 2).await;
    ledger.assert_sold(&sales[1], 0).await;
    ledger.assert_sold(&sales[2], 0).await;
    // The units can be sold again.
    let next: Vec<_> = (0..3).map(|_| testing::request(&sales[0], testing::user_id())).collect();
    assert_eq!(reasons(&ledger.record(&next).await), [None, None, Some(RejectReason::SoldOut)]);

    // More in one call than fit in one statement.
    let sale = ledger.new_sale(1_200, 1).await;
    let crowd: Vec<_> = (0..1_100).map(|_| testing::request(&sale, testing::user_id())).collect();
    orders.record(&crowd, START, 50).await.unwrap();
    let expired = orders.expire_due(START.plus_ms(50), 100_000).await.unwrap();
    assert_eq!(expired.iter().filter(|order| order.sale_id == sale.sale_id).count(), 1_100);
    ledger.assert_sold(&sale, 0).await;
}

/// All due orders, a few per call.
async fn expire_all(ledger: &Ledger, after_ms: u64) -> Vec<Order> {
    let mut all = Vec::new();
    loop {
        let expired = ledger.orders.expire_due(START.plus_ms(after_ms), 2).await.unwrap();
        assert!(expired.len() <= 2);
        if expired.is_empty() {
            return all;
        }
        all.extend(expired);
    }
}

/// `sales_with_due` and `expire_due_of`.
pub async fn expiry_by_sale(ledger: &Ledger) {
    let orders = &ledger.orders;
    let sales =
        [ledger.new_sale(3, 1).await, ledger.new_sale(3, 1).await, ledger.new_sale(3, 1).await];
    let mut due = Vec::new();
    for sale in &sales[..2] {
        let requests = [0; 2].map(|_| testing::request(sale, testing::user_id()));
        due.push(
            orders
                .record(&requests, START, 5)
                .await
                .unwrap()
                .into_iter()
                .map(|one| one.unwrap().order)
                .collect::<Vec<_>>(),
        );
    }
    let not_due = ledger.confirmed(&sales[2]).await;
    let with_due = async |now| {
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = orders.sales_with_due(now, after, 1).await.unwrap();
            assert!(page.len() <= 1);
            let Some(last) = page.last() else { break };
            after = Some(*last);
            seen.extend(page);
        }
        assert!(seen.is_sorted_by(|a, b| a < b), "by id, none twice");
        seen.retain(|id| sales.iter().any(|sale| sale.sale_id == *id));
        seen
    };
    let mut expected = vec![sales[0].sale_id, sales[1].sale_id];
    expected.sort_unstable();
    assert_eq!(with_due(START.plus_ms(4)).await, []);
    assert_eq!(with_due(START.plus_ms(5)).await, expected);
    assert_eq!(orders.expire_due_of(sales[0].sale_id, START.plus_ms(4), 10).await.unwrap(), []);
    assert_eq!(orders.expire_due_of(sales[2].sale_id, START.plus_ms(5), 10).await.unwrap(), []);
    let first = orders.expire_due_of(sales[0].sale_id, START.plus_ms(5), 1).await.unwrap();
    assert_eq!(first.len(), 1);
    assert_eq!((first[0].status, first[0].sale_id), (OrderStatus::Expired, sales[0].sale_id));
    ledger.assert_sold(&sales[0], 1).await;
    assert_eq!(
        orders.expire_due_of(sales[0].sale_id, START.plus_ms(5), 10).await.unwrap().len(),
        1
    );
    assert_eq!(orders.expire_due_of(sales[0].sale_id, START.plus_ms(5), 10).await.unwrap(), []);
    assert_eq!(with_due(START.plus_ms(5)).await, [sales[1].sale_id]);
    for order in &due[1] {
        assert_eq!(
            ledger.get(order.order_id).await.status,
            OrderStatus::Confirmed,
            "another sale's"
        );
    }
    assert_eq!(
        orders.expire_due_of(sales[1].sale_id, START.plus_ms(5), 10).await.unwrap().len(),
        2
    );
    assert_eq!(ledger.get(not_due.order_id).await.status, OrderStatus::Confirmed);
}

/// `stock_to_return` and `mark_stock_returned`.
pub async fn stock_return(ledger: &Ledger) {
    let orders = &ledger.orders;
    let sale = ledger.new_sale(4, 1).await;
    let confirmed = ledger.confirmed(&sale).await;
    let paid = ledger.confirmed(&sale).await;
    let paid = done(orders.pay(paid.order_id, paid.user_id, START).await);
    let cancelled = ledger.confirmed(&sale).await;
    let cancelled = done(orders.cancel(cancelled.order_id, cancelled.user_id, None, START).await);
    let due = orders
        .record(&[testing::request(&sale, testing::user_id())], START, 5)
        .await
        .unwrap()
        .pop()
        .unwrap()
        .unwrap()
        .order;
    orders.expire_due(START.plus_ms(5), 100_000).await.unwrap();
    let expired = ledger.get(due.order_id).await;
    assert_eq!(expired.status, OrderStatus::Expired);
    let rejected = ledger
        .record(&[testing::request(&testing::sale(1), testing::user_id())])
        .await
        .pop()
        .unwrap()
        .order;

    let all = [&confirmed, &paid, &cancelled, &expired, &rejected].map(|order| order.order_id);
    let ours = async || {
        let mut ours = orders.stock_to_return(None, 100_000).await.unwrap();
        ours.retain(|order| all.contains(&order.order_id));
        ours.sort_by_key(|order| order.order_id);
        ours
    };
    let mut expected = vec![cancelled.clone(), expired.clone(), rejected.clone()];
    expected.sort_by_key(|order| order.order_id);
    assert_eq!(ours().await, expected);
    let (mut paged, mut after) = (Vec::new(), None);
    loop {
        let page = orders.stock_to_return(after, 2).await.unwrap();
        assert!(page.len() <= 2);
        let Some(last) = page.last() else { break };
        after = Some(last.order_id);
        paged.extend(page);
    }
    assert!(paged.is_sorted_by(|a, b| a.order_id < b.order_id), "by id, none twice");
    paged.retain(|order| all.contains(&order.order_id));
    assert_eq!(paged, expected);
    assert_eq!(orders.stock_to_return(None, 0).await.unwrap(), []);

    orders.mark_stock_returned(&[], START).await.unwrap();
    for _ in 0..2 {
        // Active orders have nothing to return yet, whatever the caller believes; unknown ids are
        // ignored.
        let ids = [expired.order_id, confirmed.order_id, cancelled.order_id, testing::order_id()];
        orders.mark_stock_returned(&ids, START).await.unwrap();
        assert_eq!(ours().await, std::slice::from_ref(&rejected));
    }
    assert_eq!(ledger.get(cancelled.order_id).await, cancelled, "the order itself is unchanged");
    let confirmed = done(orders.cancel(confirmed.order_id, confirmed.user_id, None, START).await);
    let mut expected = vec![confirmed, rejected];
    expected.sort_by_key(|order| order.order_id);
    assert_eq!(ours().await, expected);

    let many: Vec<_> =
        (0..1_100).map(|_| testing::request(&testing::sale(1), testing::user_id())).collect();
    ledger.record(&many).await;
    let ids: Vec<_> = many.iter().map(|request| request.order_id).collect();
    orders.mark_stock_returned(&ids, START).await.unwrap();
    assert!(
        orders
            .stock_to_return(None, 100_000)
            .await
            .unwrap()
            .iter()
            .all(|order| !ids.contains(&order.order_id))
    );
}

/// `given_up`: what counts as an attempt of a user.
pub async fn attempts(ledger: &Ledger) {
    let orders = &ledger.orders;
    let sale = ledger.new_sale(9, 1).await;
    let mut given_up = Vec::new();
    for _ in 0..3 {
        let order = ledger.confirmed(&sale).await;
        let cancelled = orders.cancel(order.order_id, order.user_id, None, START).await;
        given_up.push(done(cancelled));
    }
    let queued = testing::request(&sale, testing::user_id());
    let cancelled = orders.cancel(queued.order_id, queued.user_id, Some(&queued), START).await;
    given_up.push(done(cancelled));
    // Neither what an administrator cancelled or the ledger rejected, nor what is active.
    let by_admin = ledger.confirmed(&sale).await;
    let action = testing::action(ActionKind::OrderCancelled);
    let cancelled = ledger.admin.cancel(by_admin.order_id, None, "a bot", &action, START).await;
    assert!(!done(cancelled).given_up());
    let paid = ledger.confirmed(&sale).await;
    done(orders.pay(paid.order_id, paid.user_id, START).await);
    let second = ledger.record(&[testing::request(&sale, paid.user_id)]).await;
    assert_eq!(second[0].order.reason, Some(RejectReason::AlreadyBought));
    // Last, because whatever else is confirmed is due too.
    let due = testing::request(&sale, testing::user_id());
    orders.record(std::slice::from_ref(&due), START, 3).await.unwrap();
    orders.expire_due_of(sale.sale_id, START.plus_ms(3), 100).await.unwrap();
    given_up.push(ledger.get(due.order_id).await);
    assert_eq!(given_up[4].status, OrderStatus::Expired);
    given_up.sort_by_key(|order| order.order_id);
    for limit in [1, 2, 5, 100] {
        let mut seen: Vec<Order> = Vec::new();
        loop {
            let after = seen.last().map(|order| order.order_id);
            let page = orders.given_up(sale.sale_id, after, limit).await.unwrap();
            assert!(page.len() <= limit as usize && seen.len() <= 5);
            if page.is_empty() {
                break;
            }
            seen.extend(page);
        }
        assert_eq!(seen, given_up, "by id upwards");
        assert!(seen.iter().all(Order::given_up));
    }
    assert_eq!(orders.given_up(testing::sale_id(), None, 10).await.unwrap(), []);
}

/// What the ledger has of a limit per network: the sale's, the orders' networks, and those above
/// the limit.
pub async fn network_limit(ledger: &Ledger) {
    let orders = &ledger.orders;
    let limited = Sale { units_per_prefix: Some(2), per_user_limit: 9, ..testing::sale(9) };
    ledger.sales.create(&limited).await.unwrap();
    assert_eq!(ledger.sales.get(limited.sale_id).await.unwrap().as_ref(), Some(&limited));
    let open = ledger.new_sale(9, 9).await;
    let user = testing::user_id();
    let from = |sale: &Sale, address: Option<&str>| AdmittedOrder {
        address_prefix: address.map(testing::network),
        ..testing::request(sale, user)
    };
    for sale in [&limited, &open] {
        let mut requests = vec![from(sale, Some("192.0.3.1")), from(sale, Some("2001:db8::1"))];
        requests.extend((0..3).map(|_| from(sale, None)));
        requests.extend((0..2).map(|_| from(sale, Some("192.0.2.1"))));
        ledger.record(&requests).await;
        let active = orders.active(sale.sale_id, None, 100).await.unwrap();
        assert_eq!(active.len(), requests.len());
        for row in active {
            let request =
                requests.iter().find(|request| request.order_id == row.order.order_id).unwrap();
            assert_eq!(row.origin.address_prefix, request.address_prefix);
        }
        let none = Vec::<AddressPrefix>::new();
        assert_eq!(orders.tally(sale.sale_id).await.unwrap().networks_over_limit, none);
        // One that has ended does not count, one more active order does.
        let [gone, late] = [(); 2].map(|()| from(sale, Some("192.0.2.9")));
        ledger.record(std::slice::from_ref(&gone)).await;
        done(orders.cancel(gone.order_id, user, None, START).await);
        assert_eq!(orders.tally(sale.sale_id).await.unwrap().networks_over_limit, none);
        ledger.record(std::slice::from_ref(&late)).await;
    }
    let above = async |sale: &Sale| orders.tally(sale.sale_id).await.unwrap().networks_over_limit;
    assert_eq!(above(&limited).await, [testing::network("192.0.2.1")]);
    assert_eq!(above(&open).await, []);
    // The limit may have been lower or absent when they were placed.
    for sale in [&limited, &open] {
        let change = SaleChange { units_per_prefix: Patch::Set(1), ..SaleChange::default() };
        let action = testing::action(ActionKind::SaleChanged);
        let changed = ledger.sales.change(sale.sale_id, &change, &action).await.unwrap();
        assert!(matches!(changed, SaleChanged::Changed(sale) if sale.units_per_prefix == Some(1)));
        assert_eq!(above(sale).await, []);
    }
    for limit in [0, Sale::UNITS_PER_PREFIX_MAX + 1] {
        let change = SaleChange { units_per_prefix: Patch::Set(limit), ..SaleChange::default() };
        let action = testing::action(ActionKind::SaleChanged);
        let changed = ledger.sales.change(open.sale_id, &change, &action).await.unwrap();
        assert!(
            matches!(changed, SaleChanged::Refused(error) if error.field == "units_per_prefix")
        );
    }
}

/// `tally`, `count_by_status` and `get_many`.
pub async fn tally(ledger: &Ledger) {
    let orders = &ledger.orders;
    assert_eq!(orders.tally(testing::sale_id()).await.unwrap(), SaleTally::default());
    assert_eq!(orders.count_by_status(testing::sale_id()).await.unwrap(), []);
    let sale = ledger.new_sale(6, 3).await;
    let (user, other) = (testing::user_id(), testing::user_id());
    let batch =
        [user, user, user, user, other, other, other].map(|user| testing::request(&sale, user));
    ledger.record(&batch).await;
    done(orders.pay(batch[0].order_id, user, START).await);
    done(orders.cancel(batch[4].order_id, other, None, START).await);
    orders.record(&[testing::request(&sale, testing::user_id())], START, 3).await.unwrap();
    orders.expire_due(START.plus_ms(3), 100_000).await.unwrap();
    let words = |counts: &[(&str, u64)]| {
        counts.iter().map(|&(word, count)| (word.to_owned(), count)).collect::<Vec<_>>()
    };
    let by_status =
        words(&[("cancelled", 1), ("confirmed", 4), ("expired", 1), ("paid", 1), ("rejected", 1)]);
    assert_eq!(orders.count_by_status(sale.sale_id).await.unwrap(), by_status);
    let expected = SaleTally { active: 5, by_status, ..SaleTally::default() };
    assert_eq!(orders.tally(sale.sale_id).await.unwrap(), expected);

    assert_eq!(orders.get_many(&[]).await.unwrap(), []);
    let missing = testing::order_id();
    let [a, b] = [batch[0].order_id, batch[3].order_id];
    let mut found = orders.get_many(&[a, missing, b, a]).await.unwrap();
    found.sort_by_key(|order| order.order_id);
    let mut expected = vec![ledger.get(a).await, ledger.get(b).await];
    expected.sort_by_key(|order| order.order_id);
    assert_eq!(found, expected, "each once, however often it is asked for");

    let sale = ledger.new_sale(2_000, 1).await;
    let many: Vec<AdmittedOrder> =
        (0..1_100).map(|_| testing::request(&sale, testing::user_id())).collect();
    ledger.record(&many).await;
    let ids: Vec<OrderId> = many.iter().map(|request| request.order_id).collect();
    assert_eq!(orders.get_many(&ids.repeat(2)).await.unwrap().len(), 1_100);
}
