//! Comparing the admission store with the ledger, order by order, and putting right what differs.
//!
//! The figures are compared often, the orders only when the figures differ and stand still, or after a while: under
//! traffic they differ all the time, by what is on its way.

use std::{collections::HashMap, sync::PoisonError};

use super::{App, rebuilding::request, sweeping::count};
use crate::{
    domain::{OrderId, OrderRequest, Sale, Timestamp},
    ports::{AdmissionState, Stored},
};

/// Orders compared at a time.
const PAGE: u32 = 500;
/// Looks after which the orders are compared whatever the figures say.
const LOOKS_MAX: u32 = 12;

/// What was seen of a sale at the last look.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    at: Timestamp,
    sold: u32,
    settled: u32,
    looks: u32,
}

impl App {
    /// Looks at a sale when it is time to. Returns how many orders were put right.
    pub(super) async fn reconcile(&self, sale: &Sale, state: &AdmissionState) -> Stored<u32> {
        let AdmissionState::Open { settled, .. } = *state else {
            return Ok(0);
        };
        let now = self.now();
        let due = {
            let mut looks = self.sweep.looks.lock().unwrap_or_else(PoisonError::into_inner);
            let last = looks.get(&sale.sale_id).copied();
            if last.is_some_and(|last| now.since_ms(last.at) < self.config.sweeper.reconcile_ms) {
                return Ok(0);
            }
            let stands_still = last.is_some_and(|last| (last.sold, last.settled) == (sale.sold, settled));
            let looked = last.map_or(0, |last| last.looks) + 1;
            let due = (sale.sold != settled && stands_still) || looked >= LOOKS_MAX;
            looks.insert(sale.sale_id, Look { at: now, sold: sale.sold, settled, looks: if due { 0 } else { looked } });
            due
        };
        if due { self.compare(sale).await } else { Ok(0) }
    }

    async fn compare(&self, sale: &Sale) -> Stored<u32> {
        let mut changed = 0;
        let mut held: HashMap<OrderId, bool> = HashMap::new();
        let mut cursor = 0;
        loop {
            let page = self.ports.admission.reservations(sale.sale_id, cursor, PAGE).await?;
            let settled: Vec<&OrderRequest> =
                page.reservations.iter().filter(|reservation| reservation.settled).map(|reservation| &reservation.request).collect();
            let ids: Vec<OrderId> = settled.iter().map(|request| request.order_id).collect();
            let rows: HashMap<OrderId, bool> = match ids.as_slice() {
                [] => HashMap::new(),
                ids => self.ports.orders.get_many(ids).await?.iter().map(|order| (order.order_id, order.status.is_active())).collect(),
            };
            let ended: Vec<OrderId> = ids.iter().copied().filter(|id| rows.get(id) == Some(&false)).collect();
            if !ended.is_empty() {
                self.ports.admission.release(sale.sale_id, &ended).await?;
                changed += count(ended.len());
            }
            // The ledger was set back (a restored backup): the buyer was told `confirmed`, so the order is sent again.
            let lost: Vec<OrderRequest> =
                settled.iter().filter(|request| !rows.contains_key(&request.order_id)).map(|request| (*request).clone()).collect();
            if !lost.is_empty() {
                tracing::error!(sale_id = %sale.sale_id, orders = lost.len(), "settled orders are missing in the ledger: publishing them again");
                for group in lost.chunks(self.config.orders.publish_group_max) {
                    self.ports.queue.publish(group).await?;
                }
                changed += count(lost.len());
            }
            held.extend(page.reservations.iter().map(|reservation| (reservation.request.order_id, reservation.settled)));
            match page.next {
                Some(next) => cursor = next,
                None => break,
            }
        }
        let mut after = None;
        loop {
            let page = self.ports.orders.active(sale.sale_id, after, PAGE).await?;
            after = page.last().map(|order| order.order_id);
            let missing: Vec<OrderRequest> = page.iter().filter(|order| held.get(&order.order_id) != Some(&true)).map(request).collect();
            if !missing.is_empty() {
                self.ports.admission.settle(sale.sale_id, &missing).await?;
                changed += count(missing.len());
            }
            if page.len() < PAGE as usize {
                return Ok(changed);
            }
        }
    }
}
