//! `OrderLedger::record`, with one caller.

use super::{Ledger, PAY_WITHIN_MS, all, assert_corrupt, reasons};
use crate::{
    domain::{
        ActionKind, AdmittedOrder, Currency, Order, OrderStatus, Recorded, RejectReason, Sale,
        SaleChange, Timestamp,
    },
    testing::{self, START},
};

/// The fields recorded of an admitted order, and the orders that are refused.
pub async fn recording(ledger: &Ledger) {
    fields(ledger).await;
    stock(ledger).await;
    limits(ledger).await;
    repetitions(ledger).await;
    several_sales(ledger).await;
    a_large_batch(ledger).await;
    what_can_never_be_stored(ledger).await;
    prices(ledger).await;
}

async fn fields(ledger: &Ledger) {
    let sale = Sale { price: 77, currency: Currency::CNY, ..testing::sale(1) };
    ledger.sales.create(&sale).await.unwrap();
    let request = AdmittedOrder {
        admitted_at: START.minus_ms(5),
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
        ..testing::request(&sale, testing::user_id())
    };
    assert_eq!(ledger.orders.get(request.order_id).await.unwrap(), None);
    let expected = Order {
        order_id: request.order_id,
        sale_id: sale.sale_id,
        user_id: request.user_id,
        status: OrderStatus::Confirmed,
        reason: None,
        cancellation_reason: None,
        price: 77,
        currency: Currency::CNY,
        created_at: START.minus_ms(5),
        pay_by: Some(START.plus_ms(PAY_WITHIN_MS)),
        updated_at: START,
        version: 1,
    };
    assert_eq!(
        ledger.record(std::slice::from_ref(&request)).await,
        [Recorded { order: expected.clone(), fresh: true }]
    );
    assert_eq!(ledger.get(request.order_id).await, expected);
    ledger.assert_sold(&sale, 1).await;

    let late = testing::request(&sale, testing::user_id());
    let expected = Order {
        status: OrderStatus::Rejected,
        reason: Some(RejectReason::SoldOut),
        updated_at: START,
        version: 1,
        ..Order::queued(&late)
    };
    assert_eq!(ledger.record(&[late]).await, [Recorded { order: expected.clone(), fresh: true }]);
    assert_eq!(ledger.get(expected.order_id).await, expected);

    assert_eq!(ledger.record(&[]).await, []);
    let sale = ledger.new_sale(1, 1).await;
    let forever = testing::request(&sale, testing::user_id());
    let recorded = all(ledger.orders.record(&[forever], START, u64::MAX).await.unwrap());
    assert_eq!(recorded[0].order.pay_by, Some(Timestamp::MAX));
}

async fn stock(ledger: &Ledger) {
    use RejectReason::SoldOut;
    let sale = ledger.new_sale(3, 1).await;
    let batch: Vec<_> = (0..5).map(|_| testing::request(&sale, testing::user_id())).collect();
    assert_eq!(
        reasons(&ledger.record(&batch).await),
        [None, None, None, Some(SoldOut), Some(SoldOut)],
        "the first orders get the units"
    );
    ledger.assert_sold(&sale, 3).await;
    assert_eq!(
        reasons(&ledger.record(&[testing::request(&sale, testing::user_id())]).await),
        [Some(SoldOut)]
    );

    let more = SaleChange { stock: Some(4), ..SaleChange::default() };
    ledger
        .sales
        .change(sale.sale_id, &more, &testing::action(ActionKind::SaleChanged))
        .await
        .unwrap();
    let next =
        [testing::request(&sale, testing::user_id()), testing::request(&sale, testing::user_id())];
    assert_eq!(reasons(&ledger.record(&next).await), [None, Some(SoldOut)]);
    ledger.assert_sold(&sale, 4).await;
}

async fn limits(ledger: &Ledger) {
    use RejectReason::AlreadyBought;
    let sale = ledger.new_sale(20, 2).await;
    let (user, other) = (testing::user_id(), testing::user_id());
    let batch = [user, user, other, user].map(|user| testing::request(&sale, user));
    assert_eq!(
        reasons(&ledger.record(&batch).await),
        [None, None, None, Some(AlreadyBought)],
        "within one batch"
    );
    let next = [user, other, other].map(|user| testing::request(&sale, user));
    assert_eq!(
        reasons(&ledger.record(&next).await),
        [Some(AlreadyBought), None, Some(AlreadyBought)],
        "and across batches"
    );
    ledger.assert_sold(&sale, 4).await;

    // Paid orders count, ended ones do not.
    ledger.orders.pay(batch[0].order_id, user, START).await.unwrap();
    ledger.orders.cancel(batch[1].order_id, user, None, START).await.unwrap();
    let again = [user, user].map(|user| testing::request(&sale, user));
    assert_eq!(reasons(&ledger.record(&again).await), [None, Some(AlreadyBought)]);
    ledger.assert_sold(&sale, 4).await;

    // The limit applies per sale.
    let elsewhere = ledger.new_sale(20, 1).await;
    assert_eq!(reasons(&ledger.record(&[testing::request(&elsewhere, user)]).await), [None]);

    let raised = SaleChange { per_user_limit: Some(3), ..SaleChange::default() };
    ledger
        .sales
        .change(sale.sale_id, &raised, &testing::action(ActionKind::SaleChanged))
        .await
        .unwrap();
    let third = [user, user].map(|user| testing::request(&sale, user));
    assert_eq!(reasons(&ledger.record(&third).await), [None, Some(AlreadyBought)]);
}

async fn repetitions(ledger: &Ledger) {
    let sale = ledger.new_sale(2, 1).await;
    let (first, second) =
        (testing::request(&sale, testing::user_id()), testing::request(&sale, testing::user_id()));
    let recorded = ledger.record(&[first.clone(), second.clone(), first.clone()]).await;
    assert_eq!(
        recorded.iter().map(|recorded| recorded.fresh).collect::<Vec<_>>(),
        [true, true, false],
        "recorded once"
    );
    assert_eq!(recorded[0].order, recorded[2].order);
    ledger.assert_sold(&sale, 2).await;

    let later = all(ledger
        .orders
        .record(&[second.clone(), first.clone()], START.plus_ms(9), 1)
        .await
        .unwrap());
    assert_eq!(later.iter().map(|recorded| recorded.fresh).collect::<Vec<_>>(), [false, false]);
    assert_eq!(
        [&later[0].order, &later[1].order],
        [&recorded[1].order, &recorded[0].order],
        "as it was"
    );

    // In any status.
    let paid = super::done(ledger.orders.pay(first.order_id, first.user_id, START).await);
    let cancelled =
        super::done(ledger.orders.cancel(second.order_id, second.user_id, None, START).await);
    let later = ledger.record(&[first.clone(), second.clone()]).await;
    assert_eq!([&later[0].order, &later[1].order], [&paid, &cancelled]);
    ledger.assert_sold(&sale, 1).await;

    // The id decides, whatever the request's other fields say.
    let confused =
        AdmittedOrder { order_id: first.order_id, ..testing::request(&sale, testing::user_id()) };
    assert_eq!(ledger.record(&[confused]).await, [Recorded { order: paid, fresh: false }]);
    ledger.assert_sold(&sale, 1).await;

    // A rejected order stays rejected, even when a unit becomes available.
    let sale = ledger.new_sale(1, 1).await;
    let holder = ledger.confirmed(&sale).await;
    let loser = testing::request(&sale, testing::user_id());
    let rejected = ledger.record(std::slice::from_ref(&loser)).await;
    ledger.orders.cancel(holder.order_id, holder.user_id, None, START).await.unwrap();
    let later = ledger.record(&[loser]).await;
    assert_eq!((later[0].fresh, &later[0].order), (false, &rejected[0].order));
    ledger.assert_sold(&sale, 0).await;
}

async fn several_sales(ledger: &Ledger) {
    use RejectReason::{AlreadyBought, SoldOut, UnknownSale};
    let (small, large) = (ledger.new_sale(1, 1).await, ledger.new_sale(10, 1).await);
    let unknown = testing::sale(5);
    let (a, b) = (testing::user_id(), testing::user_id());
    let batch = [
        testing::request(&large, a),
        testing::request(&unknown, a),
        testing::request(&small, b),
        testing::request(&large, a),
        testing::request(&small, a),
        testing::request(&large, b),
    ];
    let recorded = ledger.record(&batch).await;
    assert_eq!(
        reasons(&recorded),
        [None, Some(UnknownSale), None, Some(AlreadyBought), Some(SoldOut), None]
    );
    for (request, recorded) in batch.iter().zip(&recorded) {
        assert_eq!(
            (request.order_id, request.sale_id),
            (recorded.order.order_id, recorded.order.sale_id),
            "in the given order"
        );
        assert_eq!(ledger.get(request.order_id).await, recorded.order);
    }
    ledger.assert_sold(&small, 1).await;
    ledger.assert_sold(&large, 2).await;
    assert_eq!(ledger.sales.get(unknown.sale_id).await.unwrap(), None);
}

async fn a_large_batch(ledger: &Ledger) {
    let sale = ledger.new_sale(700, 1).await;
    let batch: Vec<_> = (0..1_234).map(|_| testing::request(&sale, testing::user_id())).collect();
    let recorded = ledger.record(&batch).await;
    assert_eq!(recorded.iter().position(|recorded| recorded.order.reason.is_some()), Some(700));
    assert_eq!(recorded.iter().filter(|recorded| recorded.order.reason.is_none()).count(), 700);
    ledger.assert_sold(&sale, 700).await;
    let repeated = ledger.record(&batch).await;
    assert!(
        repeated
            .iter()
            .zip(&recorded)
            .all(|(repeated, recorded)| !repeated.fresh && repeated.order == recorded.order)
    );
    ledger.assert_sold(&sale, 700).await;
}

async fn what_can_never_be_stored(ledger: &Ledger) {
    let sale = ledger.new_sale(10, 1).await;
    let good = testing::request(&sale, testing::user_id());
    let bad = AdmittedOrder { price: -1, ..testing::request(&sale, testing::user_id()) };
    let batch = [bad.clone(), good.clone(), bad.clone()];
    let outcomes = ledger.orders.record(&batch, START, PAY_WITHIN_MS).await.unwrap();
    assert!(
        matches!(&outcomes[..], [Err(_), Ok(recorded), Err(_)] if recorded.order.order_id == good.order_id),
        "{outcomes:?}"
    );
    assert_eq!(
        ledger.get(good.order_id).await.status,
        OrderStatus::Confirmed,
        "a bad order affects no other"
    );
    assert_eq!(ledger.orders.get(bad.order_id).await.unwrap(), None);
    ledger.assert_sold(&sale, 1).await;
    assert_corrupt(ledger.orders.cancel(bad.order_id, bad.user_id, Some(&bad), START).await);
}

/// An order at a price that its sale never had was not admitted by this service.
async fn prices(ledger: &Ledger) {
    let sale = ledger.new_sale(10, 10).await;
    let user = testing::user_id();
    let at = |price: i64| AdmittedOrder { price, ..testing::request(&sale, user) };
    let price = async |price: i64| {
        let change = SaleChange { price: Some(price), ..SaleChange::default() };
        ledger
            .sales
            .change(sale.sale_id, &change, &testing::action(ActionKind::SaleChanged))
            .await
            .unwrap();
    };
    let recorded = async |requests: &[AdmittedOrder]| {
        let outcomes = ledger.orders.record(requests, START, PAY_WITHIN_MS).await.unwrap();
        outcomes
            .iter()
            .map(|outcome| outcome.as_ref().is_ok_and(|recorded| recorded.order.reason.is_none()))
            .collect::<Vec<_>>()
    };
    let forged =
        [at(0), at(sale.price), AdmittedOrder { currency: Currency::CNY, ..at(sale.price) }];
    assert_eq!(recorded(&forged).await, [false, true, false]);
    assert_eq!(ledger.orders.get(forged[0].order_id).await.unwrap(), None, "it leaves no record");
    ledger.assert_sold(&sale, 1).await;

    // The price is changed and changed back, twice: orders admitted before each change stay valid.
    price(500).await;
    assert_eq!(recorded(&[at(500), at(sale.price), at(499)]).await, [true, true, false]);
    price(600).await;
    price(500).await;
    assert_eq!(
        recorded(&[at(600), at(500), at(sale.price), at(0)]).await,
        [true, true, true, false]
    );
    ledger.assert_sold(&sale, 6).await;

    // Creating the sale again changes nothing.
    ledger.sales.create(&Sale { price: 1, ..sale.clone() }).await.unwrap();
    assert_eq!(recorded(&[at(1), at(sale.price)]).await, [false, true]);
    // Prices of one sale do not apply to another.
    let other = ledger.new_sale(1, 1).await;
    assert_eq!(
        recorded(&[AdmittedOrder { price: 600, ..testing::request(&other, user) }]).await,
        [false]
    );
}
