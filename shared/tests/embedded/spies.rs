//! Ports that wrap real ones, count their calls, and fail where a test asks for it.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use flashsale::{
    adapters::memory::{MemoryAdmission, MemoryCache},
    domain::{
        AddressPrefix, AdminAction, AdmissionDecision, AdmissionState, AdmittedOrder, Availability,
        CacheEntry, CreationKey, EndedOrder, Entry, Order, OrderId, QueueBacklog, QueueDepth,
        Recorded, ReportedOrder, Reservation, ReservationPage, ReserveRequest, Sale, SaleChange,
        SaleChanged, SaleCreated, SaleId, SaleTally, SaleTerms, Timestamp, Transition,
        Unrecordable, UserId,
    },
    ports::{Admission, Cache, OrderLedger, OrderQueue, Sales, StoreError, Stored},
    testing::ManualClock,
};

fn fault() -> StoreError {
    StoreError::Unavailable { store: "spy", cause: "a test's fault".to_owned() }
}

/// The number of calls, and the most items of one call.
#[derive(Default)]
pub struct Count {
    calls: AtomicUsize,
    most: AtomicUsize,
}

impl Count {
    fn note(&self, items: usize) {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.most.fetch_max(items, Ordering::SeqCst);
    }

    /// The number of calls since this was last called.
    pub fn calls(&self) -> usize {
        self.calls.swap(0, Ordering::SeqCst)
    }

    /// The most items of one call.
    pub fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }
}

/// A queue to which other processes may publish too, as to RabbitMQ.
pub struct SharedQueue {
    queue: Arc<dyn OrderQueue>,
    /// Whether entries can't be published.
    pub refuses_entries: AtomicBool,
}

impl SharedQueue {
    pub fn new(queue: Arc<dyn OrderQueue>) -> Self {
        Self { queue, refuses_entries: AtomicBool::new(false) }
    }
}

#[async_trait]
impl OrderQueue for SharedQueue {
    fn publishes_at_once(&self) -> usize {
        self.queue.publishes_at_once()
    }

    async fn publish(&self, orders: &[AdmittedOrder]) -> Stored<()> {
        self.queue.publish(orders).await
    }

    async fn publish_entries(&self, entries: &[Entry]) -> Stored<()> {
        if self.refuses_entries.load(Ordering::Relaxed) {
            return Err(fault());
        }
        self.queue.publish_entries(entries).await
    }

    async fn park(&self, body: &[u8], reason: &str) -> Stored<()> {
        self.queue.park(body, reason).await
    }

    async fn depth(&self) -> Stored<QueueDepth> {
        self.queue.depth().await
    }

    async fn backlog(&self) -> Stored<QueueBacklog> {
        self.queue.backlog().await
    }

    async fn inherited(&self) -> Stored<Option<u64>> {
        Ok(None)
    }
}

/// An admission store that counts calls and pages, and fails for some sales.
pub struct SpiedAdmission {
    inner: Arc<dyn Admission>,
    lost: Mutex<HashMap<SaleId, Arc<dyn Admission>>>,
    fails: Mutex<HashSet<SaleId>>,
    silent: Mutex<HashSet<SaleId>>,
    pub calls: Count,
    pub pages: Count,
    pub found: Count,
}

impl SpiedAdmission {
    pub fn new(inner: Arc<dyn Admission>) -> Self {
        let (lost, fails, silent) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self {
            inner,
            lost,
            fails,
            silent,
            calls: Count::default(),
            pages: Count::default(),
            found: Count::default(),
        }
    }

    /// Loses all data of this sale, as an emptied Redis does.
    pub fn lose(&self, sale_id: SaleId) {
        self.lost.lock().unwrap().insert(sale_id, Arc::new(MemoryAdmission::default()));
    }

    fn of(&self, sale_id: SaleId) -> Arc<dyn Admission> {
        let lost = self.lost.lock().unwrap();
        Arc::clone(lost.get(&sale_id).unwrap_or(&self.inner))
    }

    /// Fails for this sale from now on, as a cluster with one failed shard does.
    pub fn fail(&self, sale_id: SaleId) {
        self.fails.lock().unwrap().insert(sale_id);
    }

    /// Never answers for this sale from now on, as a cluster with one silent shard does.
    pub fn silence(&self, sale_id: SaleId) {
        self.silent.lock().unwrap().insert(sale_id);
    }

    pub fn mend(&self) {
        self.fails.lock().unwrap().clear();
        self.silent.lock().unwrap().clear();
    }

    async fn works(&self, sale_id: SaleId) -> Stored<()> {
        self.calls.note(1);
        let silent = self.silent.lock().unwrap().contains(&sale_id);
        if silent {
            std::future::pending::<()>().await;
        }
        if self.fails.lock().unwrap().contains(&sale_id) { Err(fault()) } else { Ok(()) }
    }
}

#[async_trait]
impl Admission for SpiedAdmission {
    async fn reserve(&self, request: &ReserveRequest, now: Timestamp) -> Stored<AdmissionDecision> {
        let sale_id = request.ticket.sale_id;
        self.works(sale_id).await?;
        self.of(sale_id).reserve(request, now).await
    }

    async fn look(
        &self,
        sale_id: SaleId,
        user_id: UserId,
        from: Option<AddressPrefix>,
    ) -> Stored<Option<Availability>> {
        self.works(sale_id).await?;
        self.of(sale_id).look(sale_id, user_id, from).await
    }

    async fn find(&self, sale_id: SaleId, order_id: OrderId) -> Stored<Option<Reservation>> {
        self.works(sale_id).await?;
        self.of(sale_id).find(sale_id, order_id).await
    }

    async fn find_many(&self, sale_id: SaleId, order_ids: &[OrderId]) -> Stored<Vec<Reservation>> {
        self.works(sale_id).await?;
        self.found.note(order_ids.len());
        self.of(sale_id).find_many(sale_id, order_ids).await
    }

    async fn settle(&self, sale_id: SaleId, active: &[AdmittedOrder]) -> Stored<()> {
        self.works(sale_id).await?;
        self.of(sale_id).settle(sale_id, active).await
    }

    async fn release(&self, sale_id: SaleId, ended: &[EndedOrder]) -> Stored<()> {
        self.works(sale_id).await?;
        self.of(sale_id).release(sale_id, ended).await
    }

    async fn claim_overdue(
        &self,
        sale_id: SaleId,
        before: Timestamp,
        now: Timestamp,
        limit: u32,
    ) -> Stored<Vec<Reservation>> {
        self.works(sale_id).await?;
        self.of(sale_id).claim_overdue(sale_id, before, now, limit).await
    }

    async fn reservations(
        &self,
        sale_id: SaleId,
        cursor: u64,
        limit: u32,
    ) -> Stored<ReservationPage> {
        self.works(sale_id).await?;
        let page = self.of(sale_id).reservations(sale_id, cursor, limit).await?;
        self.pages.note(page.reservations.len());
        Ok(page)
    }

    async fn state(&self, sale_id: SaleId) -> Stored<AdmissionState> {
        self.works(sale_id).await?;
        self.of(sale_id).state(sale_id).await
    }

    async fn begin_rebuild(&self, terms: &SaleTerms, epoch: u64, now: Timestamp) -> Stored<bool> {
        self.works(terms.sale_id).await?;
        self.of(terms.sale_id).begin_rebuild(terms, epoch, now).await
    }

    async fn restore(&self, sale_id: SaleId, epoch: u64, active: &[AdmittedOrder]) -> Stored<bool> {
        self.works(sale_id).await?;
        self.of(sale_id).restore(sale_id, epoch, active).await
    }

    async fn finish_rebuild(&self, sale_id: SaleId, epoch: u64) -> Stored<bool> {
        self.works(sale_id).await?;
        self.of(sale_id).finish_rebuild(sale_id, epoch).await
    }

    async fn set_terms(&self, terms: &SaleTerms) -> Stored<bool> {
        self.works(terms.sale_id).await?;
        self.of(terms.sale_id).set_terms(terms).await
    }
}

/// A cache that never answers while it is silent.
#[derive(Default)]
pub struct SilentCache {
    inner: MemoryCache,
    silent: AtomicBool,
}

impl SilentCache {
    pub fn silence(&self, silent: bool) {
        self.silent.store(silent, Ordering::SeqCst);
    }

    async fn answers(&self) {
        if self.silent.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
    }
}

#[async_trait]
impl Cache for SilentCache {
    async fn get(&self, key: &str, now: Timestamp) -> Stored<Option<Vec<u8>>> {
        self.answers().await;
        self.inner.get(key, now).await
    }

    async fn put(&self, entries: &[CacheEntry], now: Timestamp) -> Stored<()> {
        self.answers().await;
        self.inner.put(entries, now).await
    }
}

/// A cache that counts reads.
#[derive(Default)]
pub struct CountedCache {
    inner: MemoryCache,
    pub gets: Count,
}

#[async_trait]
impl Cache for CountedCache {
    async fn get(&self, key: &str, now: Timestamp) -> Stored<Option<Vec<u8>>> {
        self.gets.note(1);
        self.inner.get(key, now).await
    }

    async fn put(&self, entries: &[CacheEntry], now: Timestamp) -> Stored<()> {
        self.inner.put(entries, now).await
    }
}

/// An order ledger that counts reads and can't expire the orders of some sales.
pub struct SpiedOrders {
    inner: Arc<dyn OrderLedger>,
    unexpirable: Mutex<HashSet<SaleId>>,
    pub got: Count,
    pub got_many: Count,
    pub active: Count,
    pub counted: Count,
    /// How far a count by status advances the clock.
    slow_count: Mutex<Option<(Arc<ManualClock>, u64)>>,
}

impl SpiedOrders {
    pub fn new(inner: Arc<dyn OrderLedger>) -> Self {
        Self {
            inner,
            unexpirable: Mutex::default(),
            got: Count::default(),
            got_many: Count::default(),
            active: Count::default(),
            counted: Count::default(),
            slow_count: Mutex::default(),
        }
    }

    pub fn count_slowly(&self, clock: Arc<ManualClock>, ms: u64) {
        *self.slow_count.lock().unwrap() = Some((clock, ms));
    }

    pub fn never_expire(&self, sale_id: SaleId) {
        self.unexpirable.lock().unwrap().insert(sale_id);
    }

    fn expires(&self, sale_id: SaleId) -> bool {
        !self.unexpirable.lock().unwrap().contains(&sale_id)
    }
}

#[async_trait]
impl OrderLedger for SpiedOrders {
    async fn record(
        &self,
        requests: &[AdmittedOrder],
        now: Timestamp,
        pay_within_ms: u64,
    ) -> Stored<Vec<Result<Recorded, Unrecordable>>> {
        self.inner.record(requests, now, pay_within_ms).await
    }

    async fn get(&self, order_id: OrderId) -> Stored<Option<Order>> {
        self.got.note(1);
        self.inner.get(order_id).await
    }

    async fn get_many(&self, order_ids: &[OrderId]) -> Stored<Vec<Order>> {
        self.got_many.note(order_ids.len());
        self.inner.get_many(order_ids).await
    }

    async fn of_user(
        &self,
        user_id: UserId,
        before: Option<OrderId>,
        limit: u32,
    ) -> Stored<Vec<Order>> {
        self.inner.of_user(user_id, before, limit).await
    }

    async fn pay(&self, order_id: OrderId, user_id: UserId, now: Timestamp) -> Stored<Transition> {
        self.inner.pay(order_id, user_id, now).await
    }

    async fn cancel(
        &self,
        order_id: OrderId,
        user_id: UserId,
        queued: Option<&AdmittedOrder>,
        now: Timestamp,
    ) -> Stored<Transition> {
        self.inner.cancel(order_id, user_id, queued, now).await
    }

    async fn expire_due(&self, now: Timestamp, limit: u32) -> Stored<Vec<Order>> {
        let due = self.inner.sales_with_due(now, None, 1_000).await?;
        if due.into_iter().all(|sale_id| self.expires(sale_id)) {
            self.inner.expire_due(now, limit).await
        } else {
            Err(fault())
        }
    }

    async fn sales_with_due(
        &self,
        now: Timestamp,
        after: Option<SaleId>,
        limit: u32,
    ) -> Stored<Vec<SaleId>> {
        self.inner.sales_with_due(now, after, limit).await
    }

    async fn expire_due_of(
        &self,
        sale_id: SaleId,
        now: Timestamp,
        limit: u32,
    ) -> Stored<Vec<Order>> {
        if self.expires(sale_id) {
            self.inner.expire_due_of(sale_id, now, limit).await
        } else {
            Err(fault())
        }
    }

    async fn stock_to_return(&self, after: Option<OrderId>, limit: u32) -> Stored<Vec<Order>> {
        self.inner.stock_to_return(after, limit).await
    }

    async fn mark_stock_returned(&self, order_ids: &[OrderId], now: Timestamp) -> Stored<()> {
        self.inner.mark_stock_returned(order_ids, now).await
    }

    async fn active(
        &self,
        sale_id: SaleId,
        after: Option<OrderId>,
        limit: u32,
    ) -> Stored<Vec<ReportedOrder>> {
        let page = self.inner.active(sale_id, after, limit).await?;
        self.active.note(page.len());
        Ok(page)
    }

    async fn given_up(
        &self,
        sale_id: SaleId,
        after: Option<OrderId>,
        limit: u32,
    ) -> Stored<Vec<Order>> {
        self.inner.given_up(sale_id, after, limit).await
    }

    async fn count_by_status(&self, sale_id: SaleId) -> Stored<Vec<(String, u64)>> {
        self.counted.note(1);
        let counts = self.inner.count_by_status(sale_id).await;
        if let Some((clock, ms)) = &*self.slow_count.lock().unwrap() {
            clock.advance_ms(*ms);
        }
        counts
    }

    async fn tally(&self, sale_id: SaleId) -> Stored<SaleTally> {
        self.inner.tally(sale_id).await
    }
}

/// Sales of which a page, or each single sale, can't be read.
pub struct SpiedSales {
    inner: Arc<dyn Sales>,
    page_fails: AtomicBool,
    outage: Mutex<Option<Outage>>,
    pub got: Count,
}

/// How a store does not answer.
#[derive(Debug, Clone, Copy)]
pub enum Outage {
    Error,
    Silence,
}

impl SpiedSales {
    pub fn new(inner: Arc<dyn Sales>) -> Self {
        Self {
            inner,
            page_fails: AtomicBool::new(false),
            outage: Mutex::default(),
            got: Count::default(),
        }
    }

    pub fn fail_next_page(&self) {
        self.page_fails.store(true, Ordering::SeqCst);
    }

    pub fn set_outage(&self, outage: Option<Outage>) {
        *self.outage.lock().unwrap() = outage;
    }
}

#[async_trait]
impl Sales for SpiedSales {
    async fn create(&self, sale: &Sale) -> Stored<()> {
        self.inner.create(sale).await
    }

    async fn create_once(
        &self,
        sale: &Sale,
        once: &CreationKey,
        action: &AdminAction,
    ) -> Stored<SaleCreated> {
        self.inner.create_once(sale, once, action).await
    }

    async fn get(&self, sale_id: SaleId) -> Stored<Option<Sale>> {
        self.got.note(1);
        let outage = *self.outage.lock().unwrap();
        match outage {
            Some(Outage::Error) => return Err(fault()),
            Some(Outage::Silence) => std::future::pending().await,
            None => {}
        }
        self.inner.get(sale_id).await
    }

    async fn list(&self, before: Option<SaleId>, limit: u32) -> Stored<Vec<Sale>> {
        self.inner.list(before, limit).await
    }

    async fn ending_from(
        &self,
        ends_from: Timestamp,
        after: Option<SaleId>,
        limit: u32,
    ) -> Stored<Vec<Sale>> {
        if self.page_fails.swap(false, Ordering::SeqCst) {
            return Err(fault());
        }
        self.inner.ending_from(ends_from, after, limit).await
    }

    async fn ending_last(&self, ends_from: Timestamp, limit: u32) -> Stored<Vec<Sale>> {
        self.inner.ending_last(ends_from, limit).await
    }

    async fn ended_before(
        &self,
        ends_before: Timestamp,
        after: Option<SaleId>,
        limit: u32,
    ) -> Stored<Vec<Sale>> {
        self.inner.ended_before(ends_before, after, limit).await
    }

    async fn change(
        &self,
        sale_id: SaleId,
        change: &SaleChange,
        action: &AdminAction,
    ) -> Stored<SaleChanged> {
        self.inner.change(sale_id, change, action).await
    }

    async fn raise_epoch(&self, sale_id: SaleId) -> Stored<Option<u64>> {
        self.inner.raise_epoch(sale_id).await
    }
}
