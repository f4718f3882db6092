//! `Sales`.

use futures_util::future::join_all;

use super::{Ledger, PAY_WITHIN_MS, again, all, assert_corrupt};
use crate::{
    domain::{ActionKind, CreationKey, Patch, Sale, SaleChange, SaleChanged, SaleCreated},
    testing::{self, START},
};

/// Every method of `Sales`, and concurrent changes and epochs.
pub async fn sales(ledger: &Ledger) {
    creation(ledger).await;
    creation_once(ledger).await;
    changes(ledger).await;
    the_limit_per_user_stays_once_units_are_sold(ledger).await;
    epochs(ledger).await;
    lists(ledger).await;
}

async fn creation(ledger: &Ledger) {
    let sales = &ledger.sales;
    let sale = Sale {
        title: "手机 📱 \"'; DROP TABLE sales; --  ".to_owned(),
        description: "线".repeat(4_000),
        image_url: format!("https://example.com/{}", "a".repeat(1_980)),
        stock: Sale::STOCK_MAX,
        epoch: 3,
        version: 5,
        price: 0,
        original_price: Sale::PRICE_MAX,
        ..testing::sale(1)
    };
    assert_eq!(sale.validate(), Ok(()));
    assert_eq!(sales.get(sale.sale_id).await.unwrap(), None);
    sales.create(&Sale { sold: 7, ..sale.clone() }).await.unwrap();
    assert_eq!(sales.get(sale.sale_id).await.unwrap().as_ref(), Some(&sale), "sold begins at 0");
    sales.create(&Sale { title: "other".to_owned(), ..sale.clone() }).await.unwrap();
    assert_eq!(
        sales.get(sale.sale_id).await.unwrap().as_ref(),
        Some(&sale),
        "a repeat changes nothing"
    );

    let impossible = Sale { ends_at: START, starts_at: START, ..testing::sale(1) };
    assert_corrupt(sales.create(&impossible).await);
    assert_eq!(sales.get(impossible.sale_id).await.unwrap(), None);
    let too_much = Sale { version: u64::MAX, ..testing::sale(1) };
    assert_corrupt(sales.create(&too_much).await);
}

async fn creation_once(ledger: &Ledger) {
    let sales = &ledger.sales;
    // A digest of a new id, so that no other test uses it.
    let key =
        || CreationKey { key: format!("{:0>64}", testing::sale_id()), request: "a".repeat(64) };
    let once = key();
    let first = testing::sale(1);
    let created = SaleCreated::Created { sale_id: first.sale_id, created_at: first.created_at };
    assert_eq!(
        sales.create_once(&first, &once, &testing::action(ActionKind::SaleCreated)).await.unwrap(),
        created
    );
    assert_eq!(sales.get(first.sale_id).await.unwrap().as_ref(), Some(&first));
    let second = Sale { created_at: START.plus_ms(1), ..testing::sale(1) };
    for same in [&first, &second] {
        assert_eq!(
            sales
                .create_once(same, &once, &testing::action(ActionKind::SaleCreated))
                .await
                .unwrap(),
            created,
            "it is that sale's key"
        );
    }
    let other = CreationKey { request: "b".repeat(64), ..once.clone() };
    assert_eq!(
        sales
            .create_once(&second, &other, &testing::action(ActionKind::SaleCreated))
            .await
            .unwrap(),
        SaleCreated::OtherRequest
    );
    assert_eq!(sales.get(second.sale_id).await.unwrap(), None, "nothing was stored");
    assert!(
        matches!(sales.create_once(&second, &key(), &testing::action(ActionKind::SaleCreated)).await.unwrap(), SaleCreated::Created { sale_id, .. } if sale_id == second.sale_id)
    );

    // Concurrently.
    let once = key();
    let tasks = (0..10).map(|_| {
        let (sales, once, sale) = (sales.clone(), once.clone(), testing::sale(1));
        let action = testing::action(ActionKind::SaleCreated);
        tokio::spawn(async move {
            (sale.sale_id, again(|| sales.create_once(&sale, &once, &action)).await)
        })
    });
    let outcomes: Vec<_> = join_all(tasks).await.into_iter().map(Result::unwrap).collect();
    assert!(outcomes.iter().all(|(_, outcome)| *outcome == outcomes[0].1), "{outcomes:?}");
    let mut stored = 0;
    for (sale_id, _) in &outcomes {
        stored += usize::from(sales.get(*sale_id).await.unwrap().is_some());
    }
    assert_eq!(stored, 1);
}

async fn changes(ledger: &Ledger) {
    let sales = &ledger.sales;
    let sale = ledger.new_sale(5, 2).await;
    for _ in 0..2 {
        ledger.confirmed(&sale).await;
    }
    sales.raise_epoch(sale.sale_id).await.unwrap();
    let sale = sales.get(sale.sale_id).await.unwrap().unwrap();

    let title = SaleChange { title: Some("New".to_owned()), ..SaleChange::default() };
    let expected = Sale { title: "New".to_owned(), version: sale.version + 1, ..sale.clone() };
    assert_eq!(
        sales
            .change(sale.sale_id, &title, &testing::action(ActionKind::SaleChanged))
            .await
            .unwrap(),
        SaleChanged::Changed(expected.clone())
    );
    assert_eq!(sales.get(sale.sale_id).await.unwrap(), Some(expected));

    let all = SaleChange {
        eligible_registered_before: Patch::Set(START.minus_ms(9)),
        units_per_prefix: Patch::Set(4),
        title: Some("T".to_owned()),
        description: Some("D".to_owned()),
        image_url: Some("/i".to_owned()),
        price: Some(1),
        original_price: Some(2),
        stock: Some(2),
        per_user_limit: Some(3),
        starts_at: Some(START.plus_ms(1)),
        ends_at: Some(START.plus_ms(2)),
    };
    let expected = Sale {
        title: "T".to_owned(),
        description: "D".to_owned(),
        image_url: "/i".to_owned(),
        price: 1,
        original_price: 2,
        stock: 2,
        per_user_limit: 3,
        starts_at: START.plus_ms(1),
        ends_at: START.plus_ms(2),
        eligible_registered_before: Some(START.minus_ms(9)),
        units_per_prefix: Some(4),
        version: sale.version + 2,
        ..sale.clone()
    };
    assert_eq!(expected.sold, 2);
    assert_eq!(
        sales.change(sale.sale_id, &all, &testing::action(ActionKind::SaleChanged)).await.unwrap(),
        SaleChanged::Changed(expected.clone())
    );
    assert_eq!(sales.get(sale.sale_id).await.unwrap().as_ref(), Some(&expected));

    // Each of the two rules is removed, and the other stays.
    let remove = [
        SaleChange { eligible_registered_before: Patch::Remove, ..SaleChange::default() },
        SaleChange { units_per_prefix: Patch::Remove, ..SaleChange::default() },
    ];
    let left = [(None, Some(4)), (None, None)];
    let mut expected = expected;
    for (change, left) in remove.iter().zip(left) {
        (expected.eligible_registered_before, expected.units_per_prefix) = left;
        expected.version += 1;
        let action = testing::action(ActionKind::SaleChanged);
        let changed = sales.change(sale.sale_id, change, &action).await.unwrap();
        assert_eq!(changed, SaleChanged::Changed(expected.clone()));
        assert_eq!(sales.get(sale.sale_id).await.unwrap().as_ref(), Some(&expected));
    }

    let nothing = SaleChange::default();
    let action = testing::action(ActionKind::SaleChanged);
    let changed = sales.change(sale.sale_id, &nothing, &action).await.unwrap();
    assert_eq!(changed, SaleChanged::Changed(expected.clone()), "the version stays");

    let below_sold =
        SaleChange { title: Some("never".to_owned()), stock: Some(1), ..SaleChange::default() };
    assert!(
        matches!(sales.change(sale.sale_id, &below_sold, &testing::action(ActionKind::SaleChanged)).await.unwrap(), SaleChanged::Refused(error) if error.field == "stock")
    );
    assert_eq!(sales.get(sale.sale_id).await.unwrap(), Some(expected), "nothing was stored");
    assert_eq!(
        sales
            .change(testing::sale_id(), &title, &testing::action(ActionKind::SaleChanged))
            .await
            .unwrap(),
        SaleChanged::NotFound
    );

    let sale = ledger.new_sale(5, 1).await;
    let tasks = (0..10).map(|n| {
        let (sales, sale_id) = (sales.clone(), sale.sale_id);
        let change = SaleChange { price: Some(n), ..SaleChange::default() };
        let action = testing::action(ActionKind::SaleChanged);
        tokio::spawn(async move {
            match again(|| sales.change(sale_id, &change, &action)).await {
                SaleChanged::Changed(sale) => sale.version,
                other => panic!("{other:?}"),
            }
        })
    });
    let mut versions: Vec<_> = join_all(tasks).await.into_iter().map(Result::unwrap).collect();
    versions.sort_unstable();
    assert_eq!(versions, (2..=11).collect::<Vec<_>>(), "no change was lost");
}

async fn the_limit_per_user_stays_once_units_are_sold(ledger: &Ledger) {
    let limit = |limit| SaleChange { per_user_limit: Some(limit), ..SaleChange::default() };
    let refused = |changed: &SaleChanged| matches!(changed, SaleChanged::Refused(error) if error.field == "per_user_limit");
    let sale = ledger.new_sale(5, 3).await;
    assert!(
        matches!(
            ledger
                .sales
                .change(sale.sale_id, &limit(2), &testing::action(ActionKind::SaleChanged))
                .await
                .unwrap(),
            SaleChanged::Changed(_)
        ),
        "nobody has bought"
    );
    let order = ledger.confirmed(&sale).await;
    let lowered = ledger
        .sales
        .change(sale.sale_id, &limit(1), &testing::action(ActionKind::SaleChanged))
        .await
        .unwrap();
    assert!(refused(&lowered), "{lowered:?}");
    for same_or_more in [2, 3] {
        assert!(matches!(
            ledger
                .sales
                .change(
                    sale.sale_id,
                    &limit(same_or_more),
                    &testing::action(ActionKind::SaleChanged)
                )
                .await
                .unwrap(),
            SaleChanged::Changed(_)
        ));
    }
    ledger.orders.cancel(order.order_id, order.user_id, None, START).await.unwrap();
    assert!(
        matches!(
            ledger
                .sales
                .change(sale.sale_id, &limit(1), &testing::action(ActionKind::SaleChanged))
                .await
                .unwrap(),
            SaleChanged::Changed(_)
        ),
        "nobody holds a unit"
    );

    // Also while the order is being recorded: one of the two comes first, and the other decides
    // after it.
    for _ in 0..20 {
        let (sale, user) = (ledger.new_sale(5, 2).await, testing::user_id());
        let batch = [testing::request(&sale, user), testing::request(&sale, user)];
        let (orders, sales, sale_id) = (ledger.orders.clone(), ledger.sales.clone(), sale.sale_id);
        let record = tokio::spawn(async move {
            all(again(|| orders.record(&batch, START, PAY_WITHIN_MS)).await)
        });
        let lower = limit(1);
        let action = testing::action(ActionKind::SaleChanged);
        let change =
            tokio::spawn(async move { again(|| sales.change(sale_id, &lower, &action)).await });
        let (recorded, changed) = (record.await.unwrap(), change.await.unwrap());
        let confirmed = recorded.iter().filter(|recorded| recorded.order.reason.is_none()).count();
        assert_eq!(confirmed, if refused(&changed) { 2 } else { 1 }, "{changed:?}");
        // This also checks that no user is above the limit.
        ledger.assert_sold(&sale, u32::try_from(confirmed).unwrap()).await;
    }
}

async fn epochs(ledger: &Ledger) {
    let sales = &ledger.sales;
    assert_eq!(sales.raise_epoch(testing::sale_id()).await.unwrap(), None);
    let sale = ledger.new_sale(5, 1).await;
    let tasks = (0..10).map(|_| {
        let (sales, sale_id) = (sales.clone(), sale.sale_id);
        tokio::spawn(async move { again(|| sales.raise_epoch(sale_id)).await.unwrap() })
    });
    let mut epochs: Vec<_> = join_all(tasks).await.into_iter().map(Result::unwrap).collect();
    epochs.sort_unstable();
    epochs.dedup();
    assert_eq!(epochs.len(), 10, "no two get the same");
    let raised = sales.get(sale.sale_id).await.unwrap().unwrap();
    assert_eq!(raised, Sale { epoch: *epochs.last().unwrap(), ..sale }, "and nothing else changes");
}

async fn lists(ledger: &Ledger) {
    let sales = &ledger.sales;
    // A time that few other sales end after.
    let far = START.plus_ms(1_000_000_000_000);
    let mut ours = Vec::new();
    for n in 0..5 {
        let sale = Sale { ends_at: far.plus_ms(n), ..testing::sale(1) };
        sales.create(&sale).await.unwrap();
        ours.push(sale);
    }
    ours.sort_by_key(|sale| sale.sale_id);

    let mut seen = Vec::new();
    let mut before = None;
    loop {
        let page = sales.list(before, 3).await.unwrap();
        assert!(page.len() <= 3);
        let Some(last) = page.last() else { break };
        before = Some(last.sale_id);
        seen.extend(page);
    }
    assert!(seen.is_sorted_by(|a, b| a.sale_id > b.sale_id), "newest first, none twice");
    let newest_first: Vec<_> = seen.into_iter().filter(|sale| ours.contains(sale)).rev().collect();
    assert_eq!(newest_first, ours);
    assert_eq!(
        sales
            .list(Some(ours[0].sale_id), 100)
            .await
            .unwrap()
            .iter()
            .filter(|sale| ours.contains(sale))
            .count(),
        0
    );
    assert_eq!(sales.list(None, 0).await.unwrap(), []);

    let mut last_first = ours.clone();
    last_first.sort_by_key(|sale| std::cmp::Reverse(sale.ends_at));
    for from in 0..6 {
        let last = sales.ending_last(far.plus_ms(from), 10_000).await.unwrap();
        assert!(
            last.is_sorted_by(|a, b| a.ends_at >= b.ends_at)
                && last.iter().all(|sale| sale.ends_at >= far.plus_ms(from))
        );
        let seen: Vec<_> = last.iter().filter(|sale| ours.contains(sale)).collect();
        assert!(
            seen.into_iter().eq(last_first.iter().filter(|sale| sale.ends_at >= far.plus_ms(from)))
        );
        let fewer = sales.ending_last(far.plus_ms(from), 2).await.unwrap();
        assert!(fewer.iter().all(|sale| last.contains(sale)) && fewer.len() == last.len().min(2));
    }

    for from in 0..6 {
        let mut seen = Vec::new();
        let mut after = None;
        loop {
            let page = sales.ending_from(far.plus_ms(from), after, 2).await.unwrap();
            assert!(page.len() <= 2 && page.iter().all(|sale| sale.ends_at >= far.plus_ms(from)));
            let Some(last) = page.last() else { break };
            after = Some(last.sale_id);
            seen.extend(page);
        }
        assert!(seen.is_sorted_by(|a, b| a.sale_id < b.sale_id));
        seen.retain(|sale| ours.contains(sale));
        let expected: Vec<_> =
            ours.iter().filter(|sale| sale.ends_at >= far.plus_ms(from)).cloned().collect();
        assert_eq!(seen, expected);

        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = sales.ended_before(far.plus_ms(from), after, 200).await.unwrap();
            assert!(page.len() <= 200 && page.iter().all(|sale| sale.ends_at < far.plus_ms(from)));
            let Some(last) = page.last() else { break };
            after = Some(last.sale_id);
            seen.extend(page);
        }
        assert!(seen.is_sorted_by(|a, b| a.sale_id < b.sale_id));
        seen.retain(|sale| ours.contains(sale));
        let expected: Vec<_> =
            ours.iter().filter(|sale| sale.ends_at < far.plus_ms(from)).cloned().collect();
        assert_eq!(seen, expected, "the others have ended");
    }
}
