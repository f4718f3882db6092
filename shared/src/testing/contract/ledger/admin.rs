//! `AdminLedger`, and the actions that the methods of `Sales` and `BanLedger` note.

use super::{Ledger, again, done, refused};
use crate::{
    domain::{
        ActionKind, AddressPrefix, AdminAction, AdmittedOrder, Ban, BanReach, CreationKey,
        FieldChange, Opening, Order, OrderId, OrderOrigin, OrderStatus, Patch, ReportFilter,
        ReportSort, ReportedOrder, Sale, SaleChange, Session, Subject, Transition,
    },
    testing::{self, START},
};

fn prefix(n: u8) -> AddressPrefix {
    AddressPrefix::of([198, 51, n, 9].into())
}

impl Ledger {
    /// All pages of a report.
    async fn report(
        &self,
        sale: &Sale,
        filter: &ReportFilter,
        sort: ReportSort,
        limit: u32,
    ) -> Vec<ReportedOrder> {
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = self.admin.orders(sale.sale_id, filter, sort, after, limit).await.unwrap();
            assert!(page.orders.len() <= limit as usize);
            seen.extend(page.orders);
            match page.next {
                Some(next) => after = Some(next),
                None => return seen,
            }
        }
    }

    /// The actions of one administrator, oldest first.
    async fn actions_of(&self, action: &AdminAction) -> Vec<AdminAction> {
        let (mut found, mut before) = (Vec::new(), None);
        loop {
            let page = self.admin.actions(before, 100).await.unwrap();
            assert!(page.is_sorted_by(|one, other| one.action_id > other.action_id));
            before = page.last().map(|last| last.action_id);
            let full = page.len() == 100;
            found.extend(page.into_iter().filter(|one| one.admin_id == action.admin_id));
            if !full {
                found.reverse();
                return found;
            }
        }
    }
}

fn ids(orders: &[ReportedOrder]) -> Vec<OrderId> {
    orders.iter().map(|reported| reported.order.order_id).collect()
}

/// `orders`, and what recording keeps of an order's origin.
pub async fn reports(ledger: &Ledger) {
    filters(ledger).await;
    a_search_is_bounded(ledger).await;
}

async fn filters(ledger: &Ledger) {
    let (sale, elsewhere) = (ledger.new_sale(4, 2).await, ledger.new_sale(9, 9).await);
    let user = testing::user_id();
    let from = |address_prefix, request| AdmittedOrder { address_prefix, ..request };
    let mut requests: Vec<AdmittedOrder> = (0..6_u8)
        .map(|n| from(Some(prefix(n % 2)), testing::request(&sale, testing::user_id())))
        .collect();
    requests[2].user_id = user;
    requests[3].user_id = user;
    // As an earlier release publishes it.
    requests[5].address_prefix = None;
    requests.push(from(Some(prefix(0)), testing::request(&elsewhere, user)));
    ledger.record(&requests).await;
    done(ledger.orders.pay(requests[0].order_id, requests[0].user_id, START).await);

    let mut expected = Vec::new();
    for request in &requests[..6] {
        let order = ledger.get(request.order_id).await;
        let origin =
            OrderOrigin { address_prefix: request.address_prefix, opened_at: Some(sale.starts_at) };
        expected.push(ReportedOrder { order, origin });
    }
    expected.sort_by_key(|reported| reported.order.order_id);
    let all = ReportFilter::default();
    for limit in [1, 4, 6, 100] {
        assert_eq!(ledger.report(&sale, &all, ReportSort::Oldest, limit).await, expected);
        let mut newest = ledger.report(&sale, &all, ReportSort::Newest, limit).await;
        newest.reverse();
        assert_eq!(newest, expected, "page by page, the other way round");
    }
    assert_eq!(ledger.report(&testing::sale(1), &all, ReportSort::Newest, 9).await, []);

    let matching = |meets: &dyn Fn(&ReportedOrder) -> bool| -> Vec<OrderId> {
        ids(&expected.iter().filter(|one| meets(one)).cloned().collect::<Vec<_>>())
    };
    let status = |status| ReportFilter { status: Some(status), ..ReportFilter::default() };
    let of_user = ReportFilter { user_id: Some(user), ..ReportFilter::default() };
    let one = ReportFilter { order_id: Some(requests[1].order_id), ..ReportFilter::default() };
    let near = ReportFilter { address_prefix: Some(prefix(1)), ..ReportFilter::default() };
    let both = ReportFilter { status: Some(OrderStatus::Paid), ..near.clone() };
    for (filter, found) in [
        (status(OrderStatus::Paid), vec![requests[0].order_id]),
        (status(OrderStatus::Rejected), matching(&|one| one.order.status == OrderStatus::Rejected)),
        (status(OrderStatus::Expired), Vec::new()),
        (of_user, matching(&|one| one.order.user_id == user)),
        (one, vec![requests[1].order_id]),
        (near, matching(&|one| one.origin.address_prefix == Some(prefix(1)))),
        (both, Vec::new()),
    ] {
        let rejected = filter.status == Some(OrderStatus::Rejected);
        assert!(!rejected || found.len() == 2, "the stock is four");
        for limit in [1, 100] {
            let orders = ledger.report(&sale, &filter, ReportSort::Oldest, limit).await;
            assert_eq!(ids(&orders), found, "{filter:?}");
        }
    }

    // A queued order that is cancelled has an origin too; an order of an unknown sale has no opening.
    let queued = from(Some(prefix(7)), testing::request(&sale, testing::user_id()));
    done(ledger.orders.cancel(queued.order_id, queued.user_id, Some(&queued), START).await);
    let stray = from(Some(prefix(8)), testing::request(&testing::sale(1), testing::user_id()));
    ledger.record(std::slice::from_ref(&stray)).await;
    for (request, opened_at) in [(queued, Some(sale.starts_at)), (stray, None)] {
        let filter = ReportFilter { order_id: Some(request.order_id), ..ReportFilter::default() };
        let of = Sale { sale_id: request.sale_id, ..sale.clone() };
        let found = ledger.report(&of, &filter, ReportSort::Newest, 1).await;
        let origin = OrderOrigin { address_prefix: request.address_prefix, opened_at };
        assert_eq!(found.iter().map(|one| one.origin).collect::<Vec<_>>(), [origin]);
    }
}

/// A page of a rare kind of order ends early rather than going through the whole sale, and the
/// pages still find every such order.
async fn a_search_is_bounded(ledger: &Ledger) {
    let sale = ledger.new_sale(6_000, 1).await;
    let crowd: Vec<_> = (0..5_500).map(|_| testing::request(&sale, testing::user_id())).collect();
    for batch in crowd.chunks(500) {
        ledger.record(batch).await;
    }
    let mut sorted: Vec<_> = crowd.iter().collect();
    sorted.sort_by_key(|request| request.order_id);
    let (first, last) = (sorted[0], sorted[sorted.len() - 1]);
    for request in [first, last] {
        done(ledger.orders.pay(request.order_id, request.user_id, START).await);
    }
    let paid = ReportFilter { status: Some(OrderStatus::Paid), ..ReportFilter::default() };
    for (sort, near, far) in [(ReportSort::Oldest, first, last), (ReportSort::Newest, last, first)]
    {
        let page = ledger.admin.orders(sale.sale_id, &paid, sort, None, 10).await.unwrap();
        assert_eq!(ids(&page.orders), [near.order_id], "the other one is too far away");
        let rest = ledger.admin.orders(sale.sale_id, &paid, sort, page.next, 10).await.unwrap();
        assert_eq!((ids(&rest.orders), rest.next), (vec![far.order_id], None));
    }
}

/// `cancel` of `AdminLedger`.
pub async fn admin_cancellation(ledger: &Ledger) {
    let now = START.plus_ms(7);
    let sale = ledger.new_sale(3, 1).await;
    let action = testing::action(ActionKind::OrderCancelled);
    let other = AdminAction { admin_id: action.admin_id, ..testing::action(action.kind) };
    let cancel = async |order_id, queued: Option<&AdmittedOrder>, reason, action| {
        ledger.admin.cancel(order_id, queued, reason, action, now).await
    };

    let order = ledger.confirmed(&sale).await;
    let expected = Order {
        status: OrderStatus::Cancelled,
        cancellation_reason: Some("a 'reason'\n文".to_owned()),
        updated_at: now,
        version: 2,
        ..order.clone()
    };
    for _ in 0..2 {
        assert_eq!(done(cancel(order.order_id, None, "a 'reason'\n文", &action).await), expected);
    }
    assert_eq!(ledger.get(order.order_id).await, expected);
    ledger.assert_sold(&sale, 0).await;
    assert!(ledger.orders.stock_to_return(None, 100_000).await.unwrap().contains(&expected));
    assert_eq!(refused(cancel(order.order_id, None, "another", &other).await), expected);
    let by_buyer = ledger.orders.cancel(order.order_id, order.user_id, None, now).await;
    assert_eq!(done(by_buyer), expected, "the buyer finds it cancelled");

    // Other ends are final.
    let paid = ledger.confirmed(&sale).await;
    let paid = done(ledger.orders.pay(paid.order_id, paid.user_id, START).await);
    let given_up = ledger.confirmed(&sale).await;
    let given_up =
        done(ledger.orders.cancel(given_up.order_id, given_up.user_id, None, START).await);
    for order in [paid, given_up] {
        assert_eq!(refused(cancel(order.order_id, None, "late", &other).await), order);
        assert_eq!(ledger.get(order.order_id).await, order);
    }
    ledger.assert_sold(&sale, 1).await;
    let unknown = cancel(testing::order_id(), None, "nothing", &other).await.unwrap();
    assert_eq!(unknown, Transition::NotFound);

    // A queued order is recorded as cancelled; its message finds it so.
    let queued = testing::request(&sale, testing::user_id());
    let queued_action = AdminAction { admin_id: action.admin_id, ..testing::action(action.kind) };
    let cancelled = done(cancel(queued.order_id, Some(&queued), "queued", &queued_action).await);
    assert_eq!(cancelled.cancellation_reason.as_deref(), Some("queued"));
    let recorded = ledger.record(std::slice::from_ref(&queued)).await.remove(0);
    assert_eq!((recorded.fresh, recorded.order), (false, cancelled));

    let mut noted = vec![action.clone(), queued_action];
    noted.sort_by_key(|action| action.action_id);
    assert_eq!(ledger.actions_of(&action).await, noted, "one for each change, none for a refusal");
}

/// `note` and `actions`, and the actions of sales and bans.
pub async fn actions(ledger: &Ledger) {
    let first = testing::action(ActionKind::SaleCreated);
    let by_same = |kind, n| AdminAction {
        admin_id: first.admin_id,
        at: START.plus_ms(n),
        ..testing::action(kind)
    };
    let sale = testing::sale(3);
    let key = format!("{:0>64}", sale.sale_id);
    let once = CreationKey { key, request: "a".repeat(64) };
    let created = by_same(ActionKind::SaleCreated, 1);
    for _ in 0..2 {
        again(|| ledger.sales.create_once(&sale, &once, &created)).await;
    }
    // Another request with the same key creates nothing.
    let late = by_same(ActionKind::SaleCreated, 2);
    ledger.sales.create_once(&testing::sale(3), &once, &late).await.unwrap();
    let reused = CreationKey { request: "b".repeat(64), ..once };
    ledger.sales.create_once(&testing::sale(3), &reused, &late).await.unwrap();

    let changed = by_same(ActionKind::SaleChanged, 3);
    let change = SaleChange { stock: Some(4), price: Some(sale.price), ..SaleChange::default() };
    ledger.sales.change(sale.sale_id, &change, &changed).await.unwrap();
    let never = by_same(ActionKind::SaleChanged, 4);
    let wrong = SaleChange { stock: Some(0), ..SaleChange::default() };
    ledger.sales.change(sale.sale_id, &wrong, &never).await.unwrap();
    ledger.sales.change(testing::sale_id(), &change, &never).await.unwrap();

    // A rule of the sale, set and removed.
    let mut rules = Vec::new();
    let value = |text: &str| Some(text.to_owned());
    for (n, patch, from, to) in
        [(5, Patch::Set(2), None, value("2")), (6, Patch::Remove, value("2"), None)]
    {
        let action = by_same(ActionKind::SaleChanged, n);
        let change = SaleChange { units_per_prefix: patch, ..SaleChange::default() };
        ledger.sales.change(sale.sale_id, &change, &action).await.unwrap();
        let field = FieldChange { field: "units_per_prefix".to_owned(), from, to };
        rules.push(AdminAction { changes: vec![field], ..action });
    }
    let [set, removed] = rules.try_into().unwrap();

    let subject = Subject::User(testing::user_id());
    let ban = Ban {
        subject: subject.clone(),
        reason: "resale".to_owned(),
        created_at: START,
        expires_at: None,
    };
    let reason = FieldChange::to("reason", "a 'reason'\n文");
    let put = AdminAction { changes: vec![reason], ..by_same(ActionKind::BanPut, 7) };
    ledger.bans.put(&ban, &put).await.unwrap();
    let lifted = by_same(ActionKind::BanLifted, 8);
    assert!(ledger.bans.lift(&subject, START, &lifted).await.unwrap());
    assert!(!ledger.bans.lift(&subject, START, &by_same(lifted.kind, 9)).await.unwrap());

    let retried = by_same(ActionKind::ParkedRetried, 10);
    for _ in 0..2 {
        ledger.admin.note(&retried).await.unwrap();
    }

    let mut found = ledger.actions_of(&first).await;
    found.sort_by_key(|action| action.at);
    let [noted, ..] = &mut found[..] else { panic!("the creation is noted") };
    let fields = std::mem::take(&mut noted.changes);
    assert!(fields.contains(&FieldChange::to("stock", "3")), "{fields:?}");
    let stock = FieldChange { from: Some("3".to_owned()), ..FieldChange::to("stock", "4") };
    let changed = AdminAction { changes: vec![stock], ..changed };
    assert_eq!(found, [created, changed, set, removed, put, lifted, retried]);
}

/// `reach_of_network` and `reach_of_user`.
pub async fn reach(ledger: &Ledger) {
    let sale = ledger.new_sale(9, 9).await;
    // A network that no other test uses.
    let bytes = *testing::user_id().as_bytes();
    let network = AddressPrefix::of([bytes[13], bytes[14], bytes[15], 1].into());
    let before = ledger.admin.reach_of_network(network).await.unwrap();
    let mut requests: Vec<AdmittedOrder> = (0..4)
        .map(|_| AdmittedOrder {
            address_prefix: Some(network),
            ..testing::request(&sale, testing::user_id())
        })
        .collect();
    requests[1].user_id = requests[0].user_id;
    requests[3].address_prefix = None;
    ledger.record(&requests).await;
    done(ledger.orders.cancel(requests[2].order_id, requests[2].user_id, None, START).await);
    let reach = ledger.admin.reach_of_network(network).await.unwrap();
    assert_eq!(
        (reach.orders - before.orders, reach.users - before.users),
        (3, 2),
        "two users have three orders"
    );
    assert_eq!(reach.active_orders - before.active_orders, 2, "one is cancelled");
    assert_eq!(reach.sessions, None);
    assert!(reach.searched_orders.is_some_and(|searched| searched >= 4), "{reach:?}");

    let user = testing::user();
    ledger.users.create(&user).await.unwrap();
    let expires_at = START.plus_ms(1_000);
    let opening = |expires_at| Opening {
        session: Session {
            session_id: testing::session_id(),
            user_id: user.user_id,
            role: user.role,
            expires_at,
        },
        generation: user.generation,
    };
    let openings = [opening(expires_at), opening(expires_at), opening(START.plus_ms(1))];
    ledger.sessions.open(&openings, START).await.unwrap();
    ledger.sessions.end(user.user_id, openings[0].session.session_id, START).await.unwrap();
    let orders = [(); 2].map(|()| testing::request(&sale, user.user_id));
    ledger.record(&orders).await;
    done(ledger.orders.cancel(orders[0].order_id, user.user_id, None, START).await);
    let expected = BanReach {
        users: 1,
        orders: 2,
        active_orders: 1,
        sessions: Some(1),
        searched_orders: None,
    };
    let now = START.plus_ms(1);
    assert_eq!(ledger.admin.reach_of_user(user.user_id, now).await.unwrap(), expected);
}
