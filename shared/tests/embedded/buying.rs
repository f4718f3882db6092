//! The answers to buyers from a process that did not accept their order, and from one whose
//! admission store has lost it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use async_trait::async_trait;
use flashsale::{
    adapters::memory::{MemoryAdmission, MemoryGate},
    app::{App, Caller, SessionClaims},
    domain::{ActionKind, AdmissionState, GateDecision, GateRequest, OrderId, SaleChange, SaleId},
    ports::{Admission, Gate, Stored},
    problem::Problem,
    testing::{self, session_id},
};
use tokio::sync::Semaphore;

use crate::{
    app::{Shop, refused},
    spies::{Outage, SpiedOrders, SpiedSales},
};

async fn ticket(app: &App, who: &Caller, sale: SaleId) -> Result<String, Problem> {
    app.issue_ticket(who, sale, None).await.map(|ticket| ticket.ticket)
}

#[track_caller]
fn already_bought<T>(outcome: Result<T, Problem>, order: OrderId) {
    let problem = refused(outcome, "already-bought");
    assert!(
        matches!(problem, Problem::AlreadyBought { order_id } if order_id == order),
        "{problem:?}"
    );
}

/// The same user, signed out: the gate refuses every request that reaches it.
fn signed_out(who: &Caller) -> Caller {
    let session = SessionClaims { session_id: session_id(), ..who.session.clone() };
    Caller { session, ..who.clone() }
}

#[tokio::test]
async fn a_winner_is_told_so_by_a_process_that_did_not_take_the_order() {
    let shop = Shop::without_captchas().await;
    let (shoppers, sale) = (shop.shoppers(3).await, shop.sale(2).await);
    let orders = [shop.buy(&shoppers[0], sale).await, shop.buy(&shoppers[1], sale).await];
    let other = shop.another();
    refused(ticket(&other, &shoppers[2], sale).await, "sold-out");
    // The flag is set and stays set while the order is recorded and paid.
    already_bought(ticket(&other, &shoppers[0], sale).await, orders[0]);
    shop.work().await;
    already_bought(ticket(&other, &shoppers[1], sale).await, orders[1]);
    already_bought(ticket(&other, &shoppers[0], sale).await, orders[0]);
    let restarted = shop.another();
    refused(ticket(&restarted, &shoppers[2], sale).await, "sold-out");
    already_bought(ticket(&restarted, &shoppers[1], sale).await, orders[1]);
}

#[tokio::test]
async fn who_holds_no_order_is_refused_from_memory_for_five_seconds() {
    let shop = Shop::without_captchas().await;
    let (shoppers, sale) = (shop.shoppers(3).await, shop.sale(1).await);
    let order = shop.buy(&shoppers[0], sale).await;
    let late = &shoppers[1];
    refused(shop.ticket(late, sale).await, "sold-out");
    refused(shop.ticket(&signed_out(late), sale).await, "sold-out");
    // As long as looks confirm the flag.
    for _ in 0..5 {
        shop.clock.advance_ms(990);
        refused(shop.ticket(&signed_out(late), sale).await, "sold-out");
    }
    shop.clock.advance_ms(49);
    refused(shop.ticket(&signed_out(late), sale).await, "sold-out");
    shop.clock.advance_ms(1);
    refused(shop.ticket(&signed_out(late), sale).await, "unauthenticated");
    refused(shop.ticket(late, sale).await, "sold-out");
    // A unit is returned and sold again: earlier knowledge must be discarded.
    shop.work().await;
    shop.app.cancel_order(&shoppers[0], order).await.unwrap();
    shop.clock.advance_ms(250);
    shop.buy(&shoppers[2], sale).await;
    refused(shop.ticket(&shoppers[0], sale).await, "sold-out");
    refused(shop.ticket(&signed_out(late), sale).await, "unauthenticated");
}

#[tokio::test]
async fn who_buys_with_an_older_ticket_is_not_remembered_as_without() {
    let shop = Shop::without_captchas().await;
    let (shoppers, sale) = (shop.shoppers(2).await, shop.sale(1).await);
    let older = shop.ticket(&shoppers[1], sale).await.unwrap();
    let order = shop.buy(&shoppers[0], sale).await;
    refused(shop.ticket(&shoppers[1], sale).await, "sold-out");
    shop.work().await;
    shop.app.cancel_order(&shoppers[0], order).await.unwrap();
    // Within the flag's time to live, so that it is unchanged.
    let order = shop.order(&shoppers[1], sale, &older).await.unwrap();
    already_bought(shop.ticket(&shoppers[1], sale).await, order);
}

#[tokio::test]
async fn who_buys_a_returned_unit_elsewhere_is_told_so_when_the_flag_is_looked_at_again() {
    let shop = Shop::without_captchas().await;
    let (shoppers, sale) = (shop.shoppers(2).await, shop.sale(1).await);
    let order = shop.buy(&shoppers[0], sale).await;
    shop.work().await;
    refused(shop.ticket(&shoppers[1], sale).await, "sold-out");
    // Within the flag's time to live a unit is returned, sold by another process and recorded: the
    // store's figures are the same as before.
    let before = shop.app.ports.admission.state(sale).await.unwrap();
    shop.app.cancel_order(&shoppers[0], order).await.unwrap();
    let other = shop.another();
    let ticket = ticket(&other, &shoppers[1], sale).await.unwrap();
    let order = other.place_order(&shoppers[1], sale, &ticket, None).await.unwrap().order_id;
    shop.work().await;
    assert_eq!(shop.app.ports.admission.state(sale).await.unwrap(), before);
    shop.clock.advance_ms(250);
    already_bought(shop.ticket(&shoppers[1], sale).await, order);
}

#[tokio::test]
async fn a_clock_set_back_does_not_keep_a_sale_sold_out() {
    let shop = Shop::without_captchas().await;
    let (shoppers, sale) = (shop.shoppers(2).await, shop.sale(1).await);
    let order = shop.buy(&shoppers[0], sale).await;
    shop.work().await;
    shop.clock.advance_ms(600_000);
    refused(shop.ticket(&shoppers[1], sale).await, "sold-out");
    shop.app.cancel_order(&shoppers[0], order).await.unwrap();
    shop.clock.set_by_ms(-300_000);
    shop.clock.advance_ms(250);
    shop.ticket(&shoppers[1], sale).await.unwrap();
}

/// A shop whose admission store can lose all data, and a spy on its ledger.
async fn forgetful() -> (Shop, Arc<MemoryAdmission>, Arc<SpiedOrders>) {
    let admission = Arc::new(MemoryAdmission::default());
    let mut spied = None;
    let shop = Shop::open_with(&[("CAPTCHA", "off")], |ports| {
        let orders = Arc::new(SpiedOrders::new(ports.orders.clone()));
        ports.orders = orders.clone();
        ports.admission = admission.clone();
        spied = Some(orders);
    })
    .await;
    (shop, admission, spied.unwrap())
}

/// Loses the admission store's data and rebuilds it.
async fn lose_and_rebuild(shop: &Shop, admission: &MemoryAdmission, sale: SaleId) {
    admission.lose_everything();
    shop.sweep().await;
    shop.clock.advance_ms(8_500);
    shop.sweep().await;
    assert!(matches!(admission.state(sale).await.unwrap(), AdmissionState::Open { .. }));
}

#[tokio::test]
async fn a_refused_ticket_whose_order_only_the_ledger_knows_gives_that_order() {
    let (shop, admission, _) = forgetful().await;
    let (shoppers, sale) = (shop.shoppers(2).await, shop.sale(1).await);
    let ticket = shop.ticket(&shoppers[0], sale).await.unwrap();
    let order = shop.order(&shoppers[0], sale, &ticket).await.unwrap();
    shop.work().await;
    shop.app.cancel_order(&shoppers[0], order).await.unwrap();
    lose_and_rebuild(&shop, &admission, sale).await;
    // Sold out by another buyer.
    let other = shop.buy(&shoppers[1], sale).await;
    assert_eq!(shop.order(&shoppers[0], sale, &ticket).await.unwrap(), order);
    // Already bought: the same user with another order.
    shop.work().await;
    shop.app.cancel_order(&shoppers[1], other).await.unwrap();
    shop.clock.advance_ms(3_000);
    let second = shop.buy(&shoppers[0], sale).await;
    assert_ne!(second, order);
    assert_eq!(shop.order(&shoppers[0], sale, &ticket).await.unwrap(), order);
    // The sale has ended or was postponed.
    let change = |starts_at, ends_at| SaleChange { starts_at, ends_at, ..SaleChange::default() };
    for change in [
        change(None, Some(shop.app.now())),
        change(Some(shop.app.now().plus_ms(1)), Some(shop.app.now().plus_ms(2))),
    ] {
        shop.app.change_sale(&shop.admin().await, sale, &change).await.unwrap();
        assert_eq!(shop.order(&shoppers[0], sale, &ticket).await.unwrap(), order, "{change:?}");
    }
    // The ticket has expired.
    shop.clock.advance_ms(60_000);
    assert_eq!(shop.order(&shoppers[0], sale, &ticket).await.unwrap(), order);
}

#[tokio::test]
async fn a_refused_ticket_costs_the_ledger_nothing_and_after_a_loss_one_look_in_a_second() {
    let (shop, admission, orders) = forgetful().await;
    let (shoppers, sale) = (shop.shoppers(2).await, shop.sale(1).await);
    let late = shop.ticket(&shoppers[1], sale).await.unwrap();
    shop.buy(&shoppers[0], sale).await;
    for _ in 0..5 {
        refused(shop.order(&shoppers[1], sale, &late).await, "sold-out");
    }
    assert_eq!(orders.got.calls(), 0, "without a loss the admission store answers alone");
    shop.work().await;
    lose_and_rebuild(&shop, &admission, sale).await;
    for _ in 0..5 {
        refused(shop.order(&shoppers[1], sale, &late).await, "sold-out");
    }
    assert_eq!(orders.got.calls(), 1);
    shop.clock.advance_ms(1_000);
    refused(shop.order(&shoppers[1], sale, &late).await, "sold-out");
    assert_eq!(orders.got.calls(), 1);
}

#[tokio::test]
async fn buying_goes_on_while_the_ledger_does_not_answer() {
    let settings =
        [("CAPTCHA", "off"), ("CACHE__SALE_LOCAL_MS", "1"), ("CACHE__SALE_SHARED_MS", "1")];
    for outage in [Outage::Error, Outage::Silence] {
        let mut sales = None;
        let shop = Shop::open_with(&settings, |ports| {
            let spied = Arc::new(SpiedSales::new(ports.sales.clone()));
            ports.sales = spied.clone();
            sales = Some(spied);
        })
        .await;
        let sales = sales.unwrap();
        let (shoppers, sale) = (shop.shoppers(4).await, shop.sale(3).await);
        // The copies in memory and in the shared cache expire.
        let expire = async |ms| {
            shop.clock.advance_ms(ms);
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        shop.buy(&shoppers[0], sale).await;
        sales.set_outage(Some(outage));
        for who in &shoppers[1..3] {
            expire(10).await;
            shop.buy(who, sale).await;
        }
        expire(10).await;
        sales.got.calls();
        let page = shop.app.sale_page(&shop.client, sale).await.unwrap();
        assert_eq!((page.sale_id, page.available), (sale, 0));
        assert_eq!(sales.got.calls(), 0, "not asked again at once");
        if matches!(outage, Outage::Error) {
            // A process that has never read the sale has no copy.
            refused(ticket(&shop.another(), &shoppers[3], sale).await, "unavailable");
        }
        sales.set_outage(None);
        let more = SaleChange { title: Some("Phones".to_owned()), ..SaleChange::default() };
        shop.app
            .ports
            .sales
            .change(sale, &more, &testing::action(ActionKind::SaleChanged))
            .await
            .unwrap();
        expire(2_000).await;
        let page = shop.app.sale_page(&shop.client, sale).await.unwrap();
        assert_eq!(page.title, "Phones", "SQL is asked again");
    }
}

/// A gate whose next call, once `slow` is set, waits for a permit.
struct SlowGate {
    gate: Arc<MemoryGate>,
    slow: AtomicBool,
    waits: AtomicBool,
    turns: Semaphore,
}

#[async_trait]
impl Gate for SlowGate {
    async fn enter(&self, entry: &GateRequest) -> Stored<GateDecision> {
        if self.slow.swap(false, SeqCst) {
            self.waits.store(true, SeqCst);
            self.turns.acquire().await.unwrap().forget();
        }
        self.gate.enter(entry).await
    }
}

#[tokio::test]
async fn who_buys_while_the_gate_is_slow_is_not_refused_by_the_look_of_before() {
    let ([slow, waits], memory) = ([false; 2].map(AtomicBool::new), Arc::new(MemoryGate::new()));
    let gate = Arc::new(SlowGate { gate: memory.clone(), slow, waits, turns: Semaphore::new(0) });
    let shop = testing::Shop::open_with(&[("CAPTCHA", "off")], |ports| {
        ports.gate = gate.clone();
        ports.sessions = memory.clone();
        ports.blacklist = memory.clone();
        ports.failures = memory.clone();
        ports.captchas = memory;
    })
    .await;
    let (shoppers, sale) = (shop.shoppers(2).await, shop.sale(1).await);
    let first = shop.buy(&shoppers[0], sale).await;
    shop.work().await;
    let (other, late) = (shop.another(), &shoppers[1]);
    let elsewhere = async {
        gate.slow.store(true, SeqCst);
        while !gate.waits.load(SeqCst) {
            tokio::task::yield_now().await;
        }
        other.cancel_order(&shoppers[0], first).await.unwrap();
        let bought = ticket(&other, late, sale).await.unwrap();
        let order = other.place_order(late, sale, &bought, None).await.unwrap().order_id;
        shop.clock.advance_ms(51);
        gate.turns.add_permits(1);
        order
    };
    let asked = async {
        while !gate.slow.load(SeqCst) {
            tokio::task::yield_now().await;
        }
        ticket(&shop.app, late, sale).await
    };
    let (order, answer) = tokio::join!(elsewhere, asked);
    already_bought(answer, order);
}
