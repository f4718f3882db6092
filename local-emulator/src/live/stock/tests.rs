use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use flashsale::{
    config::Config,
    domain::{
        AdminAction, AdmittedOrder, CreationKey, Order, OrderId, Recorded, ReportedOrder,
        SaleChange, SaleChanged, SaleCreated, SaleTally, Timestamp, Transition, Unrecordable,
        UserId,
    },
    ports::{OrderLedger, Sales, StoreError},
    testing, wire,
};

use super::*;

/// A ledger that fails when orders are read, and counts the reads of its list of sales.
struct NoOrders {
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
impl OrderLedger for NoOrders {
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

    async fn active(&self, _: SaleId, _: Option<OrderId>, _: u32) -> Stored<Vec<ReportedOrder>> {
        scanned()
    }

    async fn given_up(&self, _: SaleId, _: Option<OrderId>, _: u32) -> Stored<Vec<Order>> {
        scanned()
    }

    async fn count_by_status(&self, _: SaleId) -> Stored<Vec<(String, u64)>> {
        scanned()
    }

    async fn tally(&self, _: SaleId) -> Stored<SaleTally> {
        scanned()
    }
}

#[async_trait]
impl Sales for NoOrders {
    async fn create(&self, sale: &Sale) -> Stored<()> {
        self.sales.create(sale).await
    }

    async fn create_once(
        &self,
        sale: &Sale,
        once: &CreationKey,
        action: &AdminAction,
    ) -> Stored<SaleCreated> {
        self.sales.create_once(sale, once, action).await
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

    async fn change(
        &self,
        sale_id: SaleId,
        change: &SaleChange,
        action: &AdminAction,
    ) -> Stored<SaleChanged> {
        self.sales.change(sale_id, change, action).await
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
    let store = Arc::new(NoOrders { sales: Arc::clone(&ports.sales), lists: AtomicUsize::new(0) });
    (ports.sales, ports.orders) = (store.clone(), store.clone());
    let app = App::new(config, ports).unwrap();
    let (ports, now) = (&app.ports, app.now());
    let mut ids = Vec::new();
    for n in 0..12 {
        // Ids grow with the time of creation; the sales that end first are created last.
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
    let list = SaleList::default();
    for _ in 0..5 {
        let units = list.units(&app).await.unwrap();
        assert_eq!(
            units.iter().map(|units| units.sale_id).collect::<Vec<_>>(),
            ids[..SALES_MAX as usize]
        );
        let figures =
            |at: usize| (units[at].stock, units[at].available, units[at].reserved, units[at].sold);
        assert_eq!([figures(0), figures(1)], [(7, 0, 0, 0), (7, 6, 0, 1)]);
    }
    assert_eq!(store.lists.load(Ordering::SeqCst), 1, "the list is kept for some seconds");
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_sale_whose_store_does_not_answer_hides_no_other() {
    let sales = [testing::sale(7), testing::sale(8)];
    let silent = || Err(StoreError::Unavailable { store: "test", cause: String::new() });
    let shown = units(&sales, vec![silent(), Ok(AdmissionState::Missing)]).unwrap();
    assert_eq!(shown.iter().map(|units| units.sale_id).collect::<Vec<_>>(), [sales[1].sale_id]);
    assert!(units(&sales, vec![silent(), silent()]).is_err());
}
