//! Rebuilds the admission store of one sale, when it is new or has lost its data.
//!
//! First the ledger issues a fencing token (the sale's `epoch`); the store refuses callers with an
//! older one. Then the rebuild waits until the publishes that were under way have ended and the
//! queue is worked off, because an order on its way to the ledger holds a unit that the ledger does
//! not show yet. If orders are still on their way after the longest wait, the ledger refuses those
//! that exceed the stock: the store is only the gate in front of it.
//!
//! An embedded store is a special case of a lost one: it is in memory, so every process starts with
//! an empty one. No other process publishes, so the rebuild waits for no publishes, only for the
//! messages that this process has inherited. Without any, it takes one step.

use futures_util::future::try_join_all;

use super::{SALES_AT_ONCE, SALES_PAGE, queue_barrier::Looks};
use crate::app::App;
use crate::{
    domain::{AdmissionState, AdmittedOrder, EndedOrder, ReportedOrder, Sale, SaleId},
    ports::Stored,
};

/// Orders restored at a time.
const PAGE: u32 = 500;

/// A rebuild that this process waits for.
#[derive(Debug)]
pub(in crate::app) struct Waiting {
    epoch: u64,
    /// When this process first saw it, by the monotonic clock.
    since_ms: u64,
    looks: Option<Looks>,
}

impl App {
    /// One step of a rebuild; called every tick until the store is open. Returns how many steps
    /// were taken.
    pub(in crate::app) async fn rebuild(&self, sale: &Sale, state: &AdmissionState) -> Stored<u32> {
        match state {
            AdmissionState::Open { .. } => Ok(0),
            AdmissionState::Rebuilding { epoch, since } if *epoch == sale.epoch => {
                // Another process, with another clock, may have begun the rebuild; the longest wait
                // is long enough to allow for that.
                let longest =
                    self.now().since_ms(*since) >= self.config.sweeper.rebuild_wait_max_ms;
                self.restore_after_wait(sale, *epoch, longest).await
            }
            // The store has lost the sale, or the rebuild was begun with a token that is no longer
            // the ledger's.
            AdmissionState::Missing | AdmissionState::Rebuilding { .. } => {
                if self.ports.queue.inherited().await?.is_some() {
                    tracing::debug!(sale_id = %sale.sale_id, "loading the sale into this process's admission store");
                } else {
                    tracing::warn!(sale_id = %sale.sale_id, "the admission store has lost the sale: rebuilding it from the ledger");
                }
                let Some(epoch) = self.begin_rebuild(sale).await? else {
                    return Ok(0);
                };
                self.sweep.rebuilds().insert(
                    sale.sale_id,
                    Waiting { epoch, since_ms: self.monotonic_ms(), looks: None },
                );
                Ok(1 + self.restore_after_wait(sale, epoch, false).await?)
            }
        }
    }

    /// Opens the admission store for every sale that the sweeper looks after, as far as inherited
    /// messages allow; for a process that is about to serve buyers. Returns how many sales are
    /// still closed: 0 where other processes publish too, because their store outlives this process
    /// and the sweeper looks after it.
    ///
    /// # Errors
    /// When a store does not answer; the sweeper then does the rest.
    pub async fn open_admission(&self) -> Stored<usize> {
        if self.ports.queue.inherited().await?.is_none() {
            return Ok(0);
        }
        let (mut closed, mut after) = (0, None);
        loop {
            let page = self.live_sales(after).await?;
            after = page.last().map(|sale| sale.sale_id);
            for some in page.chunks(SALES_AT_ONCE) {
                let open = try_join_all(some.iter().map(|sale| self.open_sale(sale))).await?;
                closed += open.iter().filter(|open| !**open).count();
            }
            if page.len() < SALES_PAGE as usize {
                return Ok(closed);
            }
        }
    }

    /// Takes one step of a sale's rebuild and returns whether the sale is open now.
    async fn open_sale(&self, sale: &Sale) -> Stored<bool> {
        let state = self.ports.admission.state(sale.sale_id).await?;
        self.rebuild(sale, &state).await?;
        let state = self.ports.admission.state(sale.sale_id).await?;
        Ok(matches!(state, AdmissionState::Open { .. }))
    }

    /// Restores and opens the sale if its wait has ended, or if `longest`: the longest wait has
    /// passed. Returns how many steps were taken.
    async fn restore_after_wait(&self, sale: &Sale, epoch: u64, longest: bool) -> Stored<u32> {
        if !longest && !self.has_waited(sale.sale_id, epoch).await? {
            return Ok(0);
        }
        let open = self.restore(sale, epoch).await?;
        if open {
            self.sweep.rebuilds().remove(&sale.sale_id);
        }
        Ok(u32::from(open))
    }

    /// Whether the orders that were admitted before the rebuild are recorded: their publishes have
    /// ended, and the queue is worked off.
    async fn has_waited(&self, sale_id: SaleId, epoch: u64) -> Stored<bool> {
        // The store is in memory in this case: this process has admitted no order of the sale, and
        // the process that did has ended.
        if let Some(inherited) = self.ports.queue.inherited().await? {
            return Ok(inherited == 0);
        }
        let now_ms = self.monotonic_ms();
        let earlier =
            self.sweep.rebuilds().remove(&sale_id).filter(|waiting| waiting.epoch == epoch);
        let Waiting { since_ms, mut looks, .. } =
            earlier.unwrap_or(Waiting { epoch, since_ms: now_ms, looks: None });
        let published = now_ms.saturating_sub(since_ms) >= self.config.sweeper.rebuild_wait_min_ms;
        let worked_off = if published {
            self.worked_off_until(&mut looks).await.map(|until| until.is_some())
        } else {
            Ok(false)
        };
        self.sweep.rebuilds().insert(sale_id, Waiting { epoch, since_ms, looks });
        worked_off
    }

    /// Loads a sale that can't have orders yet, in one step.
    pub(in crate::app) async fn preheat(&self, sale: &Sale) -> Stored<()> {
        if let Some(epoch) = self.begin_rebuild(sale).await? {
            self.ports.admission.finish_rebuild(sale.sale_id, epoch).await?;
        }
        Ok(())
    }

    async fn begin_rebuild(&self, sale: &Sale) -> Stored<Option<u64>> {
        let Some(epoch) = self.ports.sales.raise_epoch(sale.sale_id).await? else {
            return Ok(None);
        };
        let begun = self.ports.admission.begin_rebuild(&sale.terms(), epoch, self.now()).await?;
        Ok(begun.then_some(epoch))
    }

    async fn restore(&self, sale: &Sale, epoch: u64) -> Stored<bool> {
        let mut after = None;
        loop {
            let page = self.ports.orders.active(sale.sale_id, after, PAGE).await?;
            after = page.last().map(|row| row.order.order_id);
            let requests: Vec<AdmittedOrder> = page.iter().map(request).collect();
            if !requests.is_empty()
                && !self.ports.admission.restore(sale.sale_id, epoch, &requests).await?
            {
                // The store has lost the sale again, or a newer rebuild has begun.
                return Ok(false);
            }
            if page.len() < PAGE as usize {
                break;
            }
        }
        self.restore_attempts(sale.sale_id).await?;
        self.restore_invitations(sale).await?;
        let open = self.ports.admission.finish_rebuild(sale.sale_id, epoch).await?;
        if open {
            // The epoch tells every instance that the store has lost data.
            self.share_sale(&Sale { epoch, ..sale.clone() }, self.now()).await;
            self.catalog.forget(sale.sale_id);
            tracing::info!(sale_id = %sale.sale_id, epoch, "the admission store is open again");
        }
        Ok(open)
    }

    /// Counts the orders that users have given up. Releasing an order that holds no unit does just
    /// that, once for each order.
    async fn restore_attempts(&self, sale_id: SaleId) -> Stored<()> {
        let mut after = None;
        loop {
            let page = self.ports.orders.given_up(sale_id, after, PAGE).await?;
            after = page.last().map(|order| order.order_id);
            let ended: Vec<EndedOrder> = page.iter().map(EndedOrder::from).collect();
            if !ended.is_empty() {
                self.ports.admission.release(sale_id, &ended).await?;
            }
            if page.len() < PAGE as usize {
                return Ok(());
            }
        }
    }
}

/// The request that a recorded order came from.
pub(in crate::app) fn request(recorded: &ReportedOrder) -> AdmittedOrder {
    let ReportedOrder { order, origin } = recorded;
    AdmittedOrder {
        order_id: order.order_id,
        sale_id: order.sale_id,
        user_id: order.user_id,
        price: order.price,
        currency: order.currency,
        admitted_at: order.created_at,
        traceparent: None,
        address_prefix: origin.address_prefix,
    }
}
