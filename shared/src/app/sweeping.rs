//! What is done every second, by one instance: the steps that make good whatever a crash left half done.
//!
//! Each step is bounded, idempotent and independent of the others: one that fails is logged and tried again with the
//! next tick. Two leaders at once (after a long pause of one of them) do no harm, only the same work twice.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use serde::Serialize;

use super::App;
use crate::{
    domain::{OrderId, Sale, SaleId},
    ports::{AdmissionState, Lease, Random, Stored},
};

/// The lock that its holder leads by.
const LEADER: &str = "sweeper";
/// Sales read at a time.
const SALES_PAGE: u32 = 200;

/// What one tick did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Swept {
    /// Whether this process leads; if not, nothing was done.
    pub leader: bool,
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
    /// Reservations put right against the ledger.
    pub reconciled: u32,
    /// Steps that failed.
    pub failed: u32,
}

/// What the sweeper remembers from tick to tick.
pub(super) struct SweepMemory {
    /// This process's secret for the leader's lock.
    token: u128,
    pub(super) looks: Mutex<HashMap<SaleId, super::reconciling::Look>>,
}

impl SweepMemory {
    pub(super) fn new(random: &dyn Random) -> Self {
        let mut token = [0; 16];
        random.fill(&mut token);
        Self { token: u128::from_ne_bytes(token), looks: Mutex::default() }
    }
}

impl App {
    /// One tick.
    ///
    /// # Errors
    /// When the lock store does not answer. Failures of single steps are counted in [`Swept::failed`].
    pub async fn sweep(&self) -> Stored<Swept> {
        let Some(lease) = self.lead().await? else {
            return Ok(Swept::default());
        };
        let mut swept = Swept { leader: true, ..Swept::default() };
        step(&mut swept, "expire", |swept| &mut swept.expired, self.expire_unpaid().await);
        step(&mut swept, "return stock", |swept| &mut swept.returned, self.return_stock().await);
        let mut after = None;
        let mut live = Vec::new();
        loop {
            let page = self.live_sales(after).await?;
            after = page.last().map(|sale| sale.sale_id);
            let full = page.len() == SALES_PAGE as usize;
            for sale in &page {
                self.sweep_sale(sale, &mut swept).await;
            }
            live.extend(page.iter().map(|sale| sale.sale_id));
            if !full {
                break;
            }
            self.ports.locks.renew(&lease, self.config.sweeper.lease_ms, self.now()).await?;
        }
        self.sweep.looks.lock().unwrap_or_else(PoisonError::into_inner).retain(|sale_id, _| live.contains(sale_id));
        Ok(swept)
    }

    /// Gives up leadership, so that another instance need not wait for the lease to end.
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
        self.ports.locks.acquire(LEADER, self.sweep.token, self.config.sweeper.lease_ms, self.now()).await
    }

    async fn live_sales(&self, after: Option<SaleId>) -> Stored<Vec<Sale>> {
        let from = self.now().minus_ms(self.config.sweeper.tail_seconds * 1_000);
        self.ports.sales.ending_from(from, after, SALES_PAGE).await
    }

    async fn sweep_sale(&self, sale: &Sale, swept: &mut Swept) {
        let state = match self.ports.admission.state(sale.sale_id).await {
            Ok(state) => state,
            Err(error) => {
                tracing::warn!(%error, sale_id = %sale.sale_id, "sweeper: state");
                swept.failed += 1;
                return;
            }
        };
        if let AdmissionState::Open { version, .. } = &state {
            if *version < sale.version {
                // A change whose second half was lost.
                let terms = self.ports.admission.set_terms(&sale.terms()).await.map(|_| 0);
                step(swept, "set terms", |swept| &mut swept.reconciled, terms);
            }
            match self.settle_overdue(sale).await {
                Ok((republished, settled)) => {
                    swept.republished += republished;
                    swept.settled += settled;
                }
                failed => step(swept, "overdue", |swept| &mut swept.republished, failed.map(|_| 0)),
            }
            step(swept, "reconcile", |swept| &mut swept.reconciled, self.reconcile(sale, &state).await);
        } else {
            step(swept, "rebuild", |swept| &mut swept.rebuilt, self.rebuild(sale, &state).await);
        }
    }

    /// Confirmed orders that were not paid in time. Their unit is given back by the next step, through the ledger.
    async fn expire_unpaid(&self) -> Stored<u32> {
        let expired = self.ports.orders.expire_due(self.now(), self.config.sweeper.batch_max).await?;
        for order in &expired {
            self.share_order(order).await;
        }
        Ok(count(expired.len()))
    }

    /// Units of orders that have ended go back to the admission store first and are noted in the ledger afterwards: a
    /// crash in between does the first again, which by id changes nothing.
    async fn return_stock(&self) -> Stored<u32> {
        let orders = self.ports.orders.stock_to_return(self.config.sweeper.batch_max).await?;
        let mut sales: HashMap<SaleId, Vec<OrderId>> = HashMap::new();
        for order in &orders {
            sales.entry(order.sale_id).or_default().push(order.order_id);
        }
        for (sale_id, order_ids) in sales {
            self.ports.admission.release(sale_id, &order_ids).await?;
            self.ports.orders.mark_stock_returned(&order_ids, self.now()).await?;
        }
        Ok(count(orders.len()))
    }

    /// Reservations that should have been settled by now: those in the ledger are settled, the others published again.
    async fn settle_overdue(&self, sale: &Sale) -> Stored<(u32, u32)> {
        let now = self.now();
        let before = now.minus_ms(self.config.sweeper.overdue_ms);
        let overdue = self.ports.admission.claim_overdue(sale.sale_id, before, now, self.config.sweeper.batch_max).await?;
        if overdue.is_empty() {
            return Ok((0, 0));
        }
        let ids: Vec<OrderId> = overdue.iter().map(|reservation| reservation.request.order_id).collect();
        let recorded = self.ports.orders.get_many(&ids).await?;
        let status: HashMap<OrderId, bool> = recorded.iter().map(|order| (order.order_id, order.status.is_active())).collect();
        let (mut active, mut ended, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
        for reservation in overdue {
            match status.get(&reservation.request.order_id) {
                Some(true) => active.push(reservation.request),
                Some(false) => ended.push(reservation.request.order_id),
                None => unknown.push(reservation.request),
            }
        }
        if !active.is_empty() {
            self.ports.admission.settle(sale.sale_id, &active).await?;
        }
        if !ended.is_empty() {
            self.ports.admission.release(sale.sale_id, &ended).await?;
        }
        for group in unknown.chunks(self.config.orders.publish_group_max) {
            self.ports.queue.publish(group).await?;
        }
        Ok((count(unknown.len()), count(active.len() + ended.len())))
    }
}

pub(super) fn count(items: usize) -> u32 {
    u32::try_from(items).unwrap_or(u32::MAX)
}

fn step(swept: &mut Swept, name: &str, counter: impl FnOnce(&mut Swept) -> &mut u32, outcome: Stored<u32>) {
    match outcome {
        Ok(done) => *counter(swept) += done,
        Err(error) => {
            tracing::warn!(%error, step = name, "sweeper");
            swept.failed += 1;
        }
    }
}
