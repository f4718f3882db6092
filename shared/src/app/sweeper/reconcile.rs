//! Compares the admission store with the ledger, order by order, and corrects the differences.
//!
//! The figures are compared often. The orders are compared only when the figures differ and stand
//! still, or after a while: under traffic the figures always differ by the orders in flight.
//!
//! A comparison goes page by page, first through the reservations and then through the ledger's
//! active orders, and compares each page with the other store's state of the same orders. It keeps
//! its position from tick to tick, so that a tick and its memory are bounded however large the sale
//! is.

use std::collections::HashMap;

use super::{count, rebuild::request};
use crate::app::App;
use crate::{
    domain::{AdmissionState, AdmittedOrder, EndedOrder, Order, OrderId, Sale},
    ports::{StoreError, Stored},
};

/// Orders compared at a time.
const PAGE: u32 = 500;
/// Pages of one sale that are compared in one tick.
const PAGES_MAX: u32 = 20;
/// Number of looks after which the orders are compared whatever the figures are.
const LOOKS_MAX: u32 = 12;

/// The state of a sale at the last look.
#[derive(Debug, Clone, Copy)]
pub(in crate::app) struct Look {
    /// By the monotonic clock: a wall clock that is set back must not delay the next look.
    at_ms: u64,
    sold: u32,
    settled: u32,
    looks: u32,
    /// The comparison that is under way.
    place: Option<Place>,
}

/// Where a comparison continues.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// At this page of the reservations.
    Reservations { cursor: u64 },
    /// After this active order of the ledger.
    Ledger { after: Option<OrderId> },
}

impl App {
    /// Looks at a sale when it is due. Returns how many orders were corrected.
    pub(in crate::app) async fn reconcile(
        &self,
        sale: &Sale,
        state: &AdmissionState,
    ) -> Stored<u32> {
        let AdmissionState::Open { settled, .. } = *state else {
            return Ok(0);
        };
        let mut place = match self.look_at_figures(sale, settled) {
            Some(place) => place,
            None => return Ok(0),
        };
        let mut changed = 0;
        for _ in 0..PAGES_MAX {
            let (in_page, next) = match self.compare_page(sale, place).await {
                Ok(compared) => compared,
                Err(error) => {
                    // A page that can never be read must not block every further comparison: the
                    // next one begins anew.
                    if matches!(error, StoreError::Corrupt { .. }) {
                        self.keep_place(sale, None);
                    }
                    return Err(error);
                }
            };
            changed += in_page;
            self.keep_place(sale, next);
            match next {
                Some(next) => place = next,
                None => break,
            }
        }
        Ok(changed)
    }

    /// Where to continue comparing, if there is something to compare now.
    fn look_at_figures(&self, sale: &Sale, settled: u32) -> Option<Place> {
        let now_ms = self.monotonic_ms();
        let mut looks = self.sweep.looks();
        let last = looks.get(&sale.sale_id).copied();
        if let Some(place) = last.and_then(|last| last.place) {
            return Some(place);
        }
        if last.is_some_and(|last| {
            now_ms.saturating_sub(last.at_ms) < self.config.sweeper.reconcile_ms
        }) {
            return None;
        }
        let stands_still =
            last.is_some_and(|last| (last.sold, last.settled) == (sale.sold, settled));
        let looked = last.map_or(0, |last| last.looks) + 1;
        let due = (sale.sold != settled && stands_still) || looked >= LOOKS_MAX;
        let place = due.then_some(Place::Reservations { cursor: 0 });
        looks.insert(
            sale.sale_id,
            Look {
                at_ms: now_ms,
                sold: sale.sold,
                settled,
                looks: if due { 0 } else { looked },
                place,
            },
        );
        place
    }

    fn keep_place(&self, sale: &Sale, place: Option<Place>) {
        if let Some(look) = self.sweep.looks().get_mut(&sale.sale_id) {
            look.place = place;
        }
    }

    async fn compare_page(&self, sale: &Sale, place: Place) -> Stored<(u32, Option<Place>)> {
        match place {
            Place::Reservations { cursor } => {
                let (changed, next) = self.compare_reservations(sale, cursor).await?;
                Ok((
                    changed,
                    Some(next.map_or(Place::Ledger { after: None }, |cursor| {
                        Place::Reservations { cursor }
                    })),
                ))
            }
            Place::Ledger { after } => {
                let (changed, next) = self.compare_ledger(sale, after).await?;
                Ok((changed, next.map(|after| Place::Ledger { after: Some(after) })))
            }
        }
    }

    /// Corrects settled reservations whose orders are not active. An order that has ended stays so,
    /// whichever store was read first.
    async fn compare_reservations(&self, sale: &Sale, cursor: u64) -> Stored<(u32, Option<u64>)> {
        let page = self.ports.admission.reservations(sale.sale_id, cursor, PAGE).await?;
        let settled: Vec<&AdmittedOrder> = page
            .reservations
            .iter()
            .filter(|reservation| reservation.settled)
            .map(|reservation| &reservation.order)
            .collect();
        let ids: Vec<OrderId> = settled.iter().map(|request| request.order_id).collect();
        let rows: HashMap<OrderId, Order> = match ids.as_slice() {
            [] => HashMap::new(),
            ids => self
                .ports
                .orders
                .get_many(ids)
                .await?
                .into_iter()
                .map(|order| (order.order_id, order))
                .collect(),
        };
        let mut changed = 0;
        let ended: Vec<EndedOrder> =
            rows.values().filter(|row| !row.status.is_active()).map(EndedOrder::from).collect();
        if !ended.is_empty() {
            self.ports.admission.release(sale.sale_id, &ended).await?;
            changed += count(ended.len());
        }
        // The ledger was restored from a backup. The buyer has seen `confirmed`, so the order is
        // published again.
        let lost: Vec<AdmittedOrder> = settled
            .iter()
            .filter(|request| !rows.contains_key(&request.order_id))
            .map(|request| (*request).clone())
            .collect();
        if !lost.is_empty() {
            tracing::error!(sale_id = %sale.sale_id, orders = lost.len(), "settled orders are missing in the ledger: publishing them again");
            for group in lost.chunks(self.config.orders.publish_group_max) {
                self.ports.queue.publish(group).await?;
            }
            changed += count(lost.len());
        }
        Ok((changed, page.next))
    }

    /// Corrects active orders that are not held as settled. If one ends in between, it is not
    /// brought back: the store remembers which orders have ended.
    async fn compare_ledger(
        &self,
        sale: &Sale,
        after: Option<OrderId>,
    ) -> Stored<(u32, Option<OrderId>)> {
        let page = self.ports.orders.active(sale.sale_id, after, PAGE).await?;
        let ids: Vec<OrderId> = page.iter().map(|row| row.order.order_id).collect();
        if ids.is_empty() {
            return Ok((0, None));
        }
        let held: HashMap<OrderId, bool> = self
            .ports
            .admission
            .find_many(sale.sale_id, &ids)
            .await?
            .iter()
            .map(|reservation| (reservation.order.order_id, reservation.settled))
            .collect();
        let missing: Vec<AdmittedOrder> = page
            .iter()
            .filter(|row| held.get(&row.order.order_id) != Some(&true))
            .map(request)
            .collect();
        if !missing.is_empty() {
            self.ports.admission.settle(sale.sale_id, &missing).await?;
        }
        let full = ids.len() == PAGE as usize;
        Ok((count(missing.len()), ids.last().copied().filter(|_| full)))
    }
}
