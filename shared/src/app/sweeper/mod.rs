//! The sweeper: every second, one instance runs the steps that complete work that a crash left half
//! done.
//!
//! Each step is bounded, idempotent and independent of the others: one that fails is logged and
//! tried again with the next tick. Two leaders at once (after a long pause of one of them) do no
//! harm, only the same work twice.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use tracing::{Instrument as _, Span};

mod line;
mod propagation;
mod queue_barrier;
mod queue_watermark;
mod rebuild;
mod reconcile;

use line::LineWork;
pub(super) use propagation::SharingMemory;
use queue_barrier::Looks;
use rebuild::Waiting;
use reconcile::Look;

use super::App;
use crate::{
    domain::{AdmissionState, EndedOrder, Lease, Order, OrderId, Reservation, Sale, SaleId},
    ports::{Random, StoreError, Stored},
    trace::{self, STEP, TARGET},
};

/// The name of the leader's lock.
const LEADER: &str = "sweeper";
/// Sales read at a time.
const SALES_PAGE: u32 = 200;
/// Sales swept at the same time, so that one whose store does not answer holds up few others.
const SALES_AT_ONCE: usize = 8;
/// Most sales that ended long ago and are checked in one tick.
const ENDED_PAGE: u32 = 20;
/// Most sales that ended long ago and are swept every tick, because they still have work.
const ATTENDED_MAX: usize = 100;
/// Most pages of `batch_max` orders whose units are returned in one tick.
const RETURN_PAGES_MAX: u32 = 10;

/// The results of one tick.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Swept {
    /// Whether this process leads; if not, nothing was done.
    pub leader: bool,
    /// Whether it does not lead because its clock differs too much from the ledger's.
    pub clock_wrong: bool,
    /// Ends of sessions and changes of bans passed to the fast store, and old ones deleted from
    /// the ledger.
    pub shared: u32,
    /// Unpaid orders that expired.
    pub expired: u32,
    /// Units given back to the admission store.
    pub returned: u32,
    /// Overdue reservations published again.
    pub republished: u32,
    /// Overdue reservations that were in the ledger already.
    pub settled: u32,
    /// Sales whose rebuild was begun or finished.
    pub rebuilt: u32,
    /// Reservations corrected to match the ledger.
    pub reconciled: u32,
    /// Users of draws who were invited to buy.
    pub invited: u32,
    /// Reservations that were overdue.
    pub overdue: u32,
    /// Sales whose rebuild goes on.
    pub rebuilding: u32,
    /// Steps that failed.
    pub failed: u32,
}

/// State that the sweeper keeps from tick to tick.
pub(super) struct SweepMemory {
    /// This process's secret for the leader's lock.
    token: u128,
    /// This process's name among the consumers of the queue.
    pub(super) holder: u128,
    beat: AtomicU64,
    leads: AtomicBool,
    looks: Mutex<HashMap<SaleId, Look>>,
    rebuilds: Mutex<HashMap<SaleId, Waiting>>,
    /// Where the next page of units to be returned begins; `None`: at the first.
    returned_to: Mutex<Option<OrderId>>,
    lines: Mutex<HashMap<SaleId, LineWork>>,
    ended: Mutex<Ended>,
    /// Observations of the queue since it was last worked off.
    queue_looks: Mutex<Option<Looks>>,
}

/// Sales that ended longer ago than `tail_seconds`.
#[derive(Default)]
struct Ended {
    /// The last sale that was checked; `None`: the next is the first.
    looked_to: Option<SaleId>,
    /// Sales with work left.
    attended: BTreeSet<SaleId>,
}

impl SweepMemory {
    pub(super) fn new(random: &dyn Random) -> Self {
        let number = || {
            let mut bytes = [0; 16];
            random.fill(&mut bytes);
            u128::from_ne_bytes(bytes)
        };
        Self {
            token: number(),
            holder: number(),
            beat: AtomicU64::new(0),
            leads: AtomicBool::new(false),
            looks: Mutex::default(),
            rebuilds: Mutex::default(),
            returned_to: Mutex::default(),
            lines: Mutex::default(),
            ended: Mutex::default(),
            queue_looks: Mutex::default(),
        }
    }

    pub(super) fn next_beat(&self) -> u64 {
        self.beat.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn looks(&self) -> MutexGuard<'_, HashMap<SaleId, Look>> {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lines(&self) -> MutexGuard<'_, HashMap<SaleId, LineWork>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads or changes what is remembered of a sale's line.
    fn line<T>(&self, sale_id: SaleId, with: impl FnOnce(&mut LineWork) -> T) -> T {
        with(self.lines().entry(sale_id).or_default())
    }

    pub(super) fn rebuilds(&self) -> MutexGuard<'_, HashMap<SaleId, Waiting>> {
        self.rebuilds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this process led at its last sweep.
    pub(super) fn leads(&self) -> bool {
        self.leads.load(Ordering::Relaxed)
    }

    fn returned_to(&self) -> MutexGuard<'_, Option<OrderId>> {
        self.returned_to.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn queue_looks(&self) -> MutexGuard<'_, Option<Looks>> {
        self.queue_looks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ended(&self) -> MutexGuard<'_, Ended> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Swept {
    /// Adds the results of another sweep, or of a part of this one.
    pub fn add(&mut self, other: &Self) {
        let Self {
            leader: _,
            clock_wrong: _,
            shared,
            expired,
            returned,
            republished,
            settled,
            rebuilt,
            reconciled,
            invited,
            overdue,
            rebuilding,
            failed,
        } = other;
        self.shared += shared;
        self.expired += expired;
        self.returned += returned;
        self.republished += republished;
        self.settled += settled;
        self.rebuilt += rebuilt;
        self.reconciled += reconciled;
        self.invited += invited;
        self.overdue += overdue;
        self.rebuilding += rebuilding;
        self.failed += failed;
    }

    fn fails(&mut self, step: &str, sale_id: Option<SaleId>, error: &StoreError) {
        let sale_id = sale_id.map(tracing::field::display);
        tracing::warn!(%error, step, sale_id, "sweeper");
        self.failed += 1;
    }
}

impl App {
    /// One tick.
    ///
    /// # Errors
    /// When the lock store or the ledger's clock does not answer. Failures of single steps are
    /// counted in [`Swept::failed`].
    pub async fn sweep(&self) -> Stored<Swept> {
        let span = trace::sample().map_or_else(
            Span::none,
            |_| tracing::info_span!(target: TARGET, parent: None, "sweep"),
        );
        self.sweep_once().instrument(span).await
    }

    async fn sweep_once(&self) -> Stored<Swept> {
        if self.clock_fault().await?.is_some() {
            // By its clock, this process would expire orders that can still be paid.
            if self.sweep.leads.swap(false, Ordering::Relaxed) {
                self.stop_sweeping().await?;
            }
            return Ok(Swept { clock_wrong: true, ..Swept::default() });
        }
        let lease = self.lead().await?;
        self.sweep.leads.store(lease.is_some(), Ordering::Relaxed);
        let Some(lease) = lease else {
            return Ok(Swept::default());
        };
        let mut swept = Swept { leader: true, ..Swept::default() };
        // This step is first, because after a loss shoppers and bans wait for it, and the sales
        // below may take long.
        match self
            .share_accounts()
            .instrument(tracing::info_span!(target: STEP, "share accounts"))
            .await
        {
            Ok(shared) => swept.shared += shared,
            Err(error) => swept.fails("sessions and bans", None, &error),
        }
        self.expire_unpaid(&mut swept)
            .instrument(tracing::info_span!(target: STEP, "expire unpaid"))
            .await;
        self.return_stock(&mut swept)
            .instrument(tracing::info_span!(target: STEP, "return stock"))
            .await;
        let mut seen = HashSet::new();
        let mut all_read = true;
        let mut after = None;
        loop {
            let page = match self.live_sales(after).await {
                Ok(page) => page,
                Err(error) => {
                    swept.fails("live sales", None, &error);
                    all_read = false;
                    break;
                }
            };
            after = page.last().map(|sale| sale.sale_id);
            let step =
                tracing::info_span!(target: STEP, "sweep sales", flashsale.sales = page.len());
            self.sweep_sales(&page, &mut swept).instrument(step).await;
            seen.extend(page.iter().map(|sale| sale.sale_id));
            if page.len() < SALES_PAGE as usize {
                break;
            }
            if !self.ports.locks.renew(&lease, self.config.sweeper.lease_ms, self.now()).await? {
                // Another instance leads by now and does the rest.
                return Ok(swept);
            }
        }
        self.sweep_ended(&mut swept)
            .instrument(tracing::info_span!(target: STEP, "sweep ended sales"))
            .await;
        if let Err(error) =
            self.watch_queue().instrument(tracing::info_span!(target: STEP, "watch queue")).await
        {
            swept.fails("queue", None, &error);
        }
        // Sales on a page that could not be read may still be live: keep what is known of them.
        if all_read {
            seen.extend(&self.sweep.ended().attended);
            self.sweep.looks().retain(|sale_id, _| seen.contains(sale_id));
            self.sweep.rebuilds().retain(|sale_id, _| seen.contains(sale_id));
            self.sweep.lines().retain(|sale_id, _| seen.contains(sale_id));
        }
        swept.rebuilding = count(self.sweep.rebuilds().len());
        Ok(swept)
    }

    /// Gives up leadership, so that another instance does not wait for the lease to end.
    ///
    /// # Errors
    /// When the lock store does not answer.
    pub async fn stop_sweeping(&self) -> Stored<()> {
        match self.lead().await? {
            Some(lease) => self.ports.locks.release(&lease).await,
            None => Ok(()),
        }
    }

    async fn lead(&self) -> Stored<Option<Lease>> {
        self.ports
            .locks
            .acquire(LEADER, self.sweep.token, self.config.sweeper.lease_ms, self.now())
            .await
    }

    async fn live_sales(&self, after: Option<SaleId>) -> Stored<Vec<Sale>> {
        let from = self.now().minus_ms(self.config.sweeper.tail_seconds * 1_000);
        self.ports.sales.ending_from(from, after, SALES_PAGE).await
    }

    async fn sweep_sales(&self, sales: &[Sale], swept: &mut Swept) {
        for some in sales.chunks(SALES_AT_ONCE) {
            for of_sale in join_all(some.iter().map(|sale| self.sweep_sale(sale))).await {
                swept.add(&of_sale);
            }
        }
    }

    async fn sweep_sale(&self, sale: &Sale) -> Swept {
        let mut swept = Swept::default();
        let state = match self.ports.admission.state(sale.sale_id).await {
            Ok(state) => state,
            Err(error) => {
                swept.fails("state", Some(sale.sale_id), &error);
                return swept;
            }
        };
        let sale_id = Some(sale.sale_id);
        if let AdmissionState::Open { version, .. } = &state {
            if *version < sale.version {
                // A change of the sale was stored in the ledger but did not reach the admission
                // store.
                if let Err(error) = self.ports.admission.set_terms(&sale.terms()).await {
                    swept.fails("set terms", sale_id, &error);
                }
            }
            self.settle_overdue(sale, &mut swept).await;
            match self.reconcile(sale, &state).await {
                Ok(changed) => swept.reconciled += changed,
                Err(error) => swept.fails("reconcile", sale_id, &error),
            }
            if let Err(error) = self.sweep_line(sale, &mut swept).await {
                swept.fails("line", sale_id, &error);
            }
        } else {
            match self.rebuild(sale, &state).await {
                Ok(steps) => swept.rebuilt += steps,
                Err(error) => swept.fails("rebuild", sale_id, &error),
            }
        }
        swept
    }

    /// Sweeps sales that ended longer ago than the tail: a page of them per tick, in turn, and
    /// every tick those with work left. If the admission store has forgotten such a sale, it is not
    /// rebuilt.
    async fn sweep_ended(&self, swept: &mut Swept) {
        let before = self.now().minus_ms(self.config.sweeper.tail_seconds * 1_000);
        let (after, attended) = {
            let ended = self.sweep.ended();
            (ended.looked_to, ended.attended.clone())
        };
        let mut sales = match self.ports.sales.ended_before(before, after, ENDED_PAGE).await {
            Ok(page) => {
                let full = page.len() == ENDED_PAGE as usize;
                self.sweep.ended().looked_to =
                    page.last().filter(|_| full).map(|sale| sale.sale_id);
                page
            }
            Err(error) => {
                swept.fails("ended sales", None, &error);
                Vec::new()
            }
        };
        for sale_id in attended {
            if sales.iter().all(|sale| sale.sale_id != sale_id) {
                match self.ports.sales.get(sale_id).await {
                    Ok(sale) => sales.extend(sale),
                    Err(error) => swept.fails("ended sale", Some(sale_id), &error),
                }
            }
        }
        for some in sales.chunks(SALES_AT_ONCE) {
            for of_sale in join_all(some.iter().map(|sale| self.sweep_ended_sale(sale))).await {
                swept.add(&of_sale);
            }
        }
    }

    async fn sweep_ended_sale(&self, sale: &Sale) -> Swept {
        let sale_id = sale.sale_id;
        let has_work = match self.ports.admission.state(sale_id).await {
            Ok(AdmissionState::Missing) => false,
            Ok(AdmissionState::Rebuilding { .. }) => true,
            Ok(AdmissionState::Open { reserved, settled, .. }) => {
                reserved > 0 || settled != sale.sold
            }
            Err(error) => {
                let mut swept = Swept::default();
                swept.fails("state", Some(sale_id), &error);
                return swept;
            }
        };
        {
            let mut ended = self.sweep.ended();
            if !has_work {
                ended.attended.remove(&sale_id);
            } else if ended.attended.len() < ATTENDED_MAX {
                ended.attended.insert(sale_id);
            }
        }
        if has_work { self.sweep_sale(sale).await } else { Swept::default() }
    }

    /// Expires confirmed orders that were not paid in time. The next step returns their units,
    /// through the ledger.
    async fn expire_unpaid(&self, swept: &mut Swept) {
        let (now, limit) = (self.now(), self.config.sweeper.batch_max);
        match self.ports.orders.expire_due(now, limit).await {
            Ok(expired) => self.share_expired(&expired, swept).await,
            Err(error) => {
                swept.fails("expire", None, &error);
                self.expire_sale_by_sale(swept).await;
            }
        }
    }

    /// Expires the orders of each sale separately: a sale whose orders can't be expired would fail
    /// the transaction of all.
    async fn expire_sale_by_sale(&self, swept: &mut Swept) {
        let (now, limit) = (self.now(), self.config.sweeper.batch_max);
        let mut after = None;
        loop {
            let page = match self.ports.orders.sales_with_due(now, after, SALES_PAGE).await {
                Ok(page) => page,
                Err(error) => return swept.fails("expire", None, &error),
            };
            after = page.last().copied();
            for sale_id in &page {
                match self.ports.orders.expire_due_of(*sale_id, now, limit).await {
                    Ok(expired) => self.share_expired(&expired, swept).await,
                    Err(error) => swept.fails("expire", Some(*sale_id), &error),
                }
            }
            if page.len() < SALES_PAGE as usize {
                return;
            }
        }
    }

    async fn share_expired(&self, expired: &[Order], swept: &mut Swept) {
        self.order_sharing.share(expired).await;
        swept.expired += count(expired.len());
    }

    /// Returns the units of ended orders to the admission store first, and notes that in the ledger
    /// afterwards. After a crash in between, the return is repeated; it goes by order id, so
    /// nothing changes.
    ///
    /// The orders are read in the order of their ids, each tick from where the last one ended, so
    /// that a sale whose admission store fails does not block the others for ever.
    async fn return_stock(&self, swept: &mut Swept) {
        let limit = self.config.sweeper.batch_max;
        let mut failed = HashSet::new();
        for _ in 0..RETURN_PAGES_MAX {
            let after = *self.sweep.returned_to();
            let page = match self.ports.orders.stock_to_return(after, limit).await {
                Ok(page) => page,
                Err(error) => return swept.fails("return stock", None, &error),
            };
            let full = page.len() == limit as usize;
            *self.sweep.returned_to() = page.last().filter(|_| full).map(|order| order.order_id);
            let mut sales: HashMap<SaleId, Vec<EndedOrder>> = HashMap::new();
            for order in page.iter().filter(|order| !failed.contains(&order.sale_id)) {
                sales.entry(order.sale_id).or_default().push(order.into());
            }
            for (sale_id, ended) in sales {
                match self.give_back(sale_id, &ended).await {
                    Ok(()) => swept.returned += count(ended.len()),
                    Err(error) => {
                        swept.fails("return stock", Some(sale_id), &error);
                        failed.insert(sale_id);
                    }
                }
            }
            if !full {
                return;
            }
        }
    }

    async fn give_back(&self, sale_id: SaleId, ended: &[EndedOrder]) -> Stored<()> {
        self.ports.admission.release(sale_id, ended).await?;
        let order_ids: Vec<OrderId> = ended.iter().map(|order| order.order_id).collect();
        self.ports.orders.mark_stock_returned(&order_ids, self.now()).await
    }

    /// Handles reservations that should have been settled by now: those in the ledger are settled,
    /// the others published again. A failure is retried after another `overdue_ms`.
    async fn settle_overdue(&self, sale: &Sale, swept: &mut Swept) {
        let sale_id = sale.sale_id;
        let (overdue, recorded) = match self.overdue(sale_id).await {
            Ok(found) => found,
            Err(error) => return swept.fails("overdue", Some(sale_id), &error),
        };
        swept.overdue += count(overdue.len());
        let rows: HashMap<OrderId, &Order> =
            recorded.iter().map(|order| (order.order_id, order)).collect();
        let (mut active, mut ended, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
        for reservation in overdue {
            match rows.get(&reservation.order.order_id) {
                Some(row) if row.status.is_active() => active.push(reservation.order),
                Some(&row) => ended.push(EndedOrder::from(row)),
                None => unknown.push(reservation.order),
            }
        }
        // These calls go to different stores: if one fails, the others may succeed.
        if !active.is_empty() {
            match self.ports.admission.settle(sale_id, &active).await {
                Ok(()) => swept.settled += count(active.len()),
                Err(error) => swept.fails("settle overdue", Some(sale_id), &error),
            }
        }
        if !ended.is_empty() {
            match self.ports.admission.release(sale_id, &ended).await {
                Ok(()) => swept.settled += count(ended.len()),
                Err(error) => swept.fails("release overdue", Some(sale_id), &error),
            }
        }
        for group in unknown.chunks(self.config.orders.publish_group_max) {
            match self.ports.queue.publish(group).await {
                Ok(()) => swept.republished += count(group.len()),
                Err(error) => return swept.fails("publish overdue", Some(sale_id), &error),
            }
        }
    }

    /// Overdue reservations, and the orders of those that the ledger has.
    async fn overdue(&self, sale_id: SaleId) -> Stored<(Vec<Reservation>, Vec<Order>)> {
        let now = self.now();
        let before = now.minus_ms(self.config.sweeper.overdue_ms);
        let overdue = self
            .ports
            .admission
            .claim_overdue(sale_id, before, now, self.config.sweeper.batch_max)
            .await?;
        if overdue.is_empty() {
            return Ok((overdue, Vec::new()));
        }
        let ids: Vec<OrderId> =
            overdue.iter().map(|reservation| reservation.order.order_id).collect();
        let recorded = self.ports.orders.get_many(&ids).await?;
        Ok((overdue, recorded))
    }
}

pub(super) fn count(items: usize) -> u32 {
    u32::try_from(items).unwrap_or(u32::MAX)
}
