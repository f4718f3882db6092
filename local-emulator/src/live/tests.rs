use std::sync::atomic::AtomicUsize;

use async_trait::async_trait;
use flashsale::{
    config::Config,
    domain::{
        AdmittedOrder, CreationKey, Order, OrderId, Recorded, SaleChange, SaleChanged, SaleCreated,
        SaleTally, Transition, Unrecordable, UserId,
    },
    ports::{OrderLedger, Sales, StoreError},
    testing, wire,
};

use super::*;

#[test]
fn latencies_fall_into_buckets_that_hold_them() {
    for micros in [1, 4, 5, 7, 8, 100, 999, 1_000, 1_001, 65_536, 1_000_000, 60_000_000] {
        let bucket = bucket(Duration::from_micros(micros));
        assert!(bound_ms(bucket) * 1e3 >= micros as f64, "{micros} µs in {bucket}");
        assert!(
            bound_ms(bucket) * 1e3 <= (micros as f64 * 1.26).max(5.0),
            "{micros} µs in {bucket}: within a quarter"
        );
    }
    assert!(bucket(Duration::MAX) < BUCKETS);
}

#[test]
fn quantiles_are_of_what_was_counted() {
    let tally = Tally::new();
    assert_eq!(quantile(&tally.now().latencies, 50), None);
    for _ in 0..98 {
        tally.count(
            "/api/sales/{sale_id}/tickets",
            StatusCode::CREATED,
            Duration::from_micros(1_000),
        );
    }
    for _ in 0..2 {
        tally.count("/api/orders", StatusCode::SERVICE_UNAVAILABLE, Duration::from_millis(200));
    }
    let counted = tally.now();
    assert_eq!((counted.outcomes[0][0], counted.outcomes[2][4]), (98, 2));
    let (middle, late) =
        (quantile(&counted.latencies, 50).unwrap(), quantile(&counted.latencies, 99).unwrap());
    assert!((1.0..1.3).contains(&middle) && (200.0..260.0).contains(&late), "{middle} {late}");
}

/// A ledger whose orders nobody may read, and whose lists of sales are counted.
struct Guarded {
    sales: Arc<dyn Sales>,
    lists: AtomicUsize,
}

fn scanned<T>() -> Stored<T> {
    Err(StoreError::Unavailable {
        store: "test",
        cause: "the live view reads no orders".to_owned(),
    })
}

#[async_trait]
impl OrderLedger for Guarded {
    async fn record(
        &self,
        _: &[AdmittedOrder],
        _: Timestamp,
        _: u64,
    ) -> Stored<Vec<Result<Recorded, Unrecordable>>> {
        scanned()
    }

    async fn get(&self, _: OrderId) -> Stored<Option<Order>> {
        scanned()
    }

    async fn get_many(&self, _: &[OrderId]) -> Stored<Vec<Order>> {
        scanned()
    }

    async fn of_user(&self, _: UserId, _: Option<OrderId>, _: u32) -> Stored<Vec<Order>> {
        scanned()
    }

    async fn pay(&self, _: OrderId, _: UserId, _: Timestamp) -> Stored<Transition> {
        scanned()
    }

    async fn cancel(
        &self,
        _: OrderId,
        _: UserId,
        _: Option<&AdmittedOrder>,
        _: Timestamp,
    ) -> Stored<Transition> {
        scanned()
    }

    async fn expire_due(&self, _: Timestamp, _: u32) -> Stored<Vec<Order>> {
        scanned()
    }

    async fn sales_with_due(&self, _: Timestamp, _: Option<SaleId>, _: u32) -> Stored<Vec<SaleId>> {
        scanned()
    }

    async fn expire_due_of(&self, _: SaleId, _: Timestamp, _: u32) -> Stored<Vec<Order>> {
        scanned()
    }

    async fn stock_to_return(&self, _: Option<OrderId>, _: u32) -> Stored<Vec<Order>> {
        scanned()
    }

    async fn mark_stock_returned(&self, _: &[OrderId], _: Timestamp) -> Stored<()> {
        scanned()
    }

    async fn active(&self, _: SaleId, _: Option<OrderId>, _: u32) -> Stored<Vec<Order>> {
        scanned()
    }

    async fn tally(&self, _: SaleId) -> Stored<SaleTally> {
        scanned()
    }
}

#[async_trait]
impl Sales for Guarded {
    async fn create(&self, sale: &Sale) -> Stored<()> {
        self.sales.create(sale).await
    }

    async fn create_once(&self, sale: &Sale, once: &CreationKey) -> Stored<SaleCreated> {
        self.sales.create_once(sale, once).await
    }

    async fn get(&self, sale_id: SaleId) -> Stored<Option<Sale>> {
        self.sales.get(sale_id).await
    }

    async fn list(&self, before: Option<SaleId>, limit: u32) -> Stored<Vec<Sale>> {
        self.sales.list(before, limit).await
    }

    async fn ending_from(
        &self,
        ends_from: Timestamp,
        after: Option<SaleId>,
        limit: u32,
    ) -> Stored<Vec<Sale>> {
        self.sales.ending_from(ends_from, after, limit).await
    }

    async fn ending_last(&self, ends_from: Timestamp, limit: u32) -> Stored<Vec<Sale>> {
        self.lists.fetch_add(1, Ordering::SeqCst);
        self.sales.ending_last(ends_from, limit).await
    }

    async fn ended_before(
        &self,
        ends_before: Timestamp,
        after: Option<SaleId>,
        limit: u32,
    ) -> Stored<Vec<Sale>> {
        self.sales.ended_before(ends_before, after, limit).await
    }

    async fn change(&self, sale_id: SaleId, change: &SaleChange) -> Stored<SaleChanged> {
        self.sales.change(sale_id, change).await
    }

    async fn raise_epoch(&self, sale_id: SaleId) -> Stored<Option<u64>> {
        self.sales.raise_epoch(sale_id).await
    }
}

#[tokio::test]
async fn the_sales_that_end_last_are_shown_and_no_order_is_read_for_it() {
    let dir = std::env::temp_dir().join(format!("flashsale-live-{}", testing::order_id()));
    let settings = [("FLASHSALE_DATA_DIR".to_owned(), dir.display().to_string())];
    let config = Config::load(None, settings, []).unwrap();
    let mut ports = wire::connect(&config).await.unwrap();
    let guarded = Arc::new(Guarded { sales: Arc::clone(&ports.sales), lists: AtomicUsize::new(0) });
    (ports.sales, ports.orders) = (guarded.clone(), guarded.clone());
    let app = App::new(config, ports).unwrap();
    let (ports, now) = (&app.ports, app.now());
    let mut ids = Vec::new();
    for n in 0..12 {
        // The ids grow with the hour of creation; those that end first are created last.
        let sale = Sale { starts_at: now, ends_at: now.plus_ms(3_600_000 - n), ..testing::sale(7) };
        ports.sales.create(&sale).await.unwrap();
        ids.push(sale.sale_id);
        if n == 1 {
            assert!(ports.admission.begin_rebuild(&sale.terms(), 1, now).await.unwrap());
            assert!(ports.admission.finish_rebuild(sale.sale_id, 1).await.unwrap());
            ports
                .admission
                .settle(sale.sale_id, &[testing::request(&sale, testing::user_id())])
                .await
                .unwrap();
        }
    }
    let live = Live {
        app: app.clone(),
        seconds: watch::channel(None).0,
        places: Arc::new(Semaphore::new(1)),
        running: Arc::default(),
        draining: watch::channel(false).1,
    };
    let list = Mutex::default();
    for _ in 0..5 {
        let units = live.units(&list).await.unwrap();
        assert_eq!(
            units.iter().map(|units| units.sale_id).collect::<Vec<_>>(),
            ids[..SALES_MAX as usize]
        );
        let figures =
            |at: usize| (units[at].stock, units[at].available, units[at].reserved, units[at].sold);
        assert_eq!([figures(0), figures(1)], [(7, 0, 0, 0), (7, 6, 0, 1)]);
    }
    assert_eq!(guarded.lists.load(Ordering::SeqCst), 1, "the list is kept for some seconds");
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_sale_whose_store_does_not_answer_hides_no_other() {
    let sales = [testing::sale(7), testing::sale(8)];
    let silent = || Err(StoreError::Unavailable { store: "test", cause: String::new() });
    let units = shown(&sales, vec![silent(), Ok(AdmissionState::Missing)]).unwrap();
    assert_eq!(units.iter().map(|units| units.sale_id).collect::<Vec<_>>(), [sales[1].sale_id]);
    assert!(shown(&sales, vec![silent(), silent()]).is_err());
}

#[tokio::test]
async fn a_late_answer_is_waited_for_and_not_given_up() {
    let (answer, asked) = tokio::sync::oneshot::channel();
    let mut look = Look::default();
    assert_eq!(look.ask(|| async { asked.await.unwrap() }).await, None, "not in time");
    answer.send(7).unwrap();
    assert_eq!(look.ask(|| async { unreachable!("one question at a time") }).await, Some(7));
    assert_eq!(look.ask(|| async { 8 }).await, Some(8));
}
