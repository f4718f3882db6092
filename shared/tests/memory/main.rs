//! Audits and reconciles a sale of three million orders in 64 MiB. The stores generate their pages,
//! because a database would be too slow. The test has a binary of its own, because peak memory is
//! measured per process.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use flashsale::{
    app::App,
    config::Config,
    domain::{
        AddressPrefix, AdmissionDecision, AdmissionState, AdmittedOrder, Availability, EndedOrder,
        Order, OrderId, OrderOrigin, OrderStatus, Recorded, ReportedOrder, Reservation,
        ReservationPage, ReserveRequest, Sale, SaleId, SaleTally, SaleTerms, Timestamp, Transition,
        Unrecordable, UserId,
    },
    ports::{Admission, OrderLedger, Stored},
    testing::{self, ManualClock, START, user_id},
    wire,
};

const ORDERS: u32 = 3_000_000;
/// The positions of an order that the admission store lacks, and of an ended order whose unit it
/// still holds.
const FORGOTTEN: u32 = 1_000_001;
const ENDED: u32 = 2_000_003;
const MEMORY_MAX_KIB: u64 = 64 * 1_024;

fn id(number: u32) -> OrderId {
    let mut bytes = [0; 10];
    bytes[6..].copy_from_slice(&number.to_be_bytes());
    OrderId::new(START, &bytes)
}

fn number(id: OrderId) -> u32 {
    u32::from_be_bytes(id.as_bytes()[12..].try_into().unwrap())
}

/// Both stores of the large sale.
struct Made {
    sale: Sale,
    user: UserId,
    released: AtomicUsize,
    settled: AtomicUsize,
}

impl Made {
    fn request(&self, number: u32) -> AdmittedOrder {
        AdmittedOrder { order_id: id(number), ..testing::request(&self.sale, self.user) }
    }

    fn reservation(&self, number: u32) -> Option<Reservation> {
        let held = match number {
            FORGOTTEN => self.settled.load(Ordering::SeqCst) > 0,
            ENDED => self.released.load(Ordering::SeqCst) == 0,
            _ => number < ORDERS,
        };
        held.then(|| Reservation { order: self.request(number), settled: true })
    }

    fn order(&self, number: u32) -> Order {
        let status = if number == ENDED { OrderStatus::Cancelled } else { OrderStatus::Paid };
        Order { status, ..Order::queued(&self.request(number)) }
    }
}

#[async_trait]
impl Admission for Made {
    async fn reserve(&self, _: &ReserveRequest, _: Timestamp) -> Stored<AdmissionDecision> {
        unreachable!()
    }

    async fn look(
        &self,
        _: SaleId,
        _: UserId,
        _: Option<AddressPrefix>,
    ) -> Stored<Option<Availability>> {
        unreachable!()
    }

    async fn find(&self, _: SaleId, order_id: OrderId) -> Stored<Option<Reservation>> {
        Ok(self.reservation(number(order_id)))
    }

    async fn find_many(&self, _: SaleId, order_ids: &[OrderId]) -> Stored<Vec<Reservation>> {
        Ok(order_ids.iter().filter_map(|id| self.reservation(number(*id))).collect())
    }

    async fn settle(&self, _: SaleId, active: &[AdmittedOrder]) -> Stored<()> {
        assert_eq!(
            active.iter().map(|request| number(request.order_id)).collect::<Vec<_>>(),
            [FORGOTTEN]
        );
        self.settled.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    async fn release(&self, _: SaleId, ended: &[EndedOrder]) -> Stored<()> {
        assert_eq!(ended, [EndedOrder { order_id: id(ENDED), given_up_by: Some(self.user) }]);
        self.released.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    async fn claim_overdue(
        &self,
        _: SaleId,
        _: Timestamp,
        _: Timestamp,
        _: u32,
    ) -> Stored<Vec<Reservation>> {
        Ok(Vec::new())
    }

    async fn reservations(&self, _: SaleId, cursor: u64, limit: u32) -> Stored<ReservationPage> {
        let from = u32::try_from(cursor).unwrap();
        let to = ORDERS.min(from + limit);
        let reservations = (from..to).filter_map(|number| self.reservation(number)).collect();
        Ok(ReservationPage { reservations, next: (to < ORDERS).then_some(u64::from(to)) })
    }

    async fn state(&self, _: SaleId) -> Stored<AdmissionState> {
        // The figures differ from the ledger's row and do not change, so the sweeper compares the
        // orders.
        Ok(AdmissionState::Open {
            epoch: 1,
            version: self.sale.version,
            stock: self.sale.stock,
            reserved: 0,
            settled: ORDERS - 1,
        })
    }

    async fn begin_rebuild(&self, _: &SaleTerms, _: u64, _: Timestamp) -> Stored<bool> {
        unreachable!()
    }

    async fn restore(&self, _: SaleId, _: u64, _: &[AdmittedOrder]) -> Stored<bool> {
        unreachable!()
    }

    async fn finish_rebuild(&self, _: SaleId, _: u64) -> Stored<bool> {
        unreachable!()
    }

    async fn set_terms(&self, _: &SaleTerms) -> Stored<bool> {
        Ok(true)
    }
}

#[async_trait]
impl OrderLedger for Made {
    async fn record(
        &self,
        _: &[AdmittedOrder],
        _: Timestamp,
        _: u64,
    ) -> Stored<Vec<Result<Recorded, Unrecordable>>> {
        unreachable!()
    }

    async fn get(&self, order_id: OrderId) -> Stored<Option<Order>> {
        Ok(Some(self.order(number(order_id))))
    }

    async fn get_many(&self, order_ids: &[OrderId]) -> Stored<Vec<Order>> {
        Ok(order_ids.iter().map(|id| self.order(number(*id))).collect())
    }

    async fn of_user(&self, _: UserId, _: Option<OrderId>, _: u32) -> Stored<Vec<Order>> {
        unreachable!()
    }

    async fn pay(&self, _: OrderId, _: UserId, _: Timestamp) -> Stored<Transition> {
        unreachable!()
    }

    async fn cancel(
        &self,
        _: OrderId,
        _: UserId,
        _: Option<&AdmittedOrder>,
        _: Timestamp,
    ) -> Stored<Transition> {
        unreachable!()
    }

    async fn expire_due(&self, _: Timestamp, _: u32) -> Stored<Vec<Order>> {
        Ok(Vec::new())
    }

    async fn sales_with_due(&self, _: Timestamp, _: Option<SaleId>, _: u32) -> Stored<Vec<SaleId>> {
        Ok(Vec::new())
    }

    async fn expire_due_of(&self, _: SaleId, _: Timestamp, _: u32) -> Stored<Vec<Order>> {
        Ok(Vec::new())
    }

    async fn stock_to_return(&self, _: Option<OrderId>, _: u32) -> Stored<Vec<Order>> {
        Ok(Vec::new())
    }

    async fn mark_stock_returned(&self, _: &[OrderId], _: Timestamp) -> Stored<()> {
        Ok(())
    }

    async fn active(
        &self,
        _: SaleId,
        after: Option<OrderId>,
        limit: u32,
    ) -> Stored<Vec<ReportedOrder>> {
        let from = after.map_or(0, |id| number(id) + 1);
        Ok((from..ORDERS)
            .filter(|number| *number != ENDED)
            .take(limit as usize)
            .map(|number| self.order(number))
            .map(|order| ReportedOrder { order, origin: OrderOrigin::default() })
            .collect())
    }

    async fn given_up(&self, _: SaleId, _: Option<OrderId>, _: u32) -> Stored<Vec<Order>> {
        unreachable!()
    }

    async fn count_by_status(&self, _: SaleId) -> Stored<Vec<(String, u64)>> {
        unreachable!()
    }

    async fn tally(&self, _: SaleId) -> Stored<SaleTally> {
        Ok(SaleTally { active: u64::from(ORDERS) - 1, ..SaleTally::default() })
    }
}

/// A line of this process's status, in KiB.
fn status_kib(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_start_matches(':').split_whitespace().next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn three_million_orders_are_checked_in_64_mib() {
    let dir = std::env::temp_dir().join(format!("flashsale-memory-{}", testing::order_id()));
    let config =
        Config::load(None, [("FLASHSALE_DATA_DIR".to_owned(), dir.display().to_string())], [])
            .unwrap();
    let mut ports = wire::connect(&config).await.unwrap();
    let sale = testing::sale(ORDERS);
    ports.sales.create(&sale).await.unwrap();
    let made = Arc::new(Made {
        sale: sale.clone(),
        user: user_id(),
        released: AtomicUsize::new(0),
        settled: AtomicUsize::new(0),
    });
    let clock = Arc::new(ManualClock::at(START));
    (ports.admission, ports.orders, ports.clock, ports.ledger_clock) =
        (made.clone(), made.clone(), clock.clone(), clock.clone());
    let app = App::new(config, ports).unwrap();
    app.sweep().await.unwrap();
    let admin = testing::admin(&app, &testing::client_at("192.0.2.7")).await;

    let before = status_kib("VmRSS");
    // Reset the peak.
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let books = app.sale_books(&admin, sale.sale_id).await.unwrap();
    let named: Vec<_> = books
        .findings
        .iter()
        .filter(|finding| finding.promise == 4)
        .flat_map(|finding| &finding.ids)
        .collect();
    assert_eq!(named, [&id(FORGOTTEN).to_string(), &id(ENDED).to_string()]);

    let mut ticks = 0;
    while made.settled.load(Ordering::SeqCst) == 0 || made.released.load(Ordering::SeqCst) == 0 {
        clock.advance_ms(1_000);
        assert_eq!(app.sweep().await.unwrap().failed, 0);
        ticks += 1;
        assert!(ticks < 1_000, "the comparison takes less than 1,000 ticks");
    }
    assert!(ticks > 100, "and not all of it in one tick: {ticks}");
    let grown = status_kib("VmHWM").saturating_sub(before);
    assert!(grown < MEMORY_MAX_KIB, "{grown} KiB on top of {before} KiB");
    drop(app);
    let _ = fs::remove_dir_all(dir);
}
