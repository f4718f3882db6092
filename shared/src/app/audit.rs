//! Whether the books balance: reads the live stores and names every promise that does not hold, with the ids.
//!
//! The auditor knows only the rules. It shares no code with those who keep them, and it repairs nothing.

use std::collections::{HashMap, HashSet};

use serde::Serialize;

use super::App;
use crate::{
    domain::{Order, OrderId, Sale, SaleId},
    ports::{AdmissionState, Reservation, Stored},
    problem::Problem,
};

const PAGE: u32 = 500;
/// A queued order turns final within this time (promise 5).
const FINAL_WITHIN_MS: u64 = 30_000;
/// Ids named in one finding.
const IDS_MAX: usize = 20;

/// A promise that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Finding {
    /// Number of the promise in the design: 1 to 6.
    pub promise: u8,
    /// Which sale.
    pub sale_id: SaleId,
    /// What is wrong.
    pub what: String,
    /// Whose ids: orders or users, at most twenty of them.
    pub ids: Vec<String>,
}

/// The books of one sale.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[expect(missing_docs, reason = "the names say it")]
pub struct SaleBooks {
    pub sale_id: SaleId,
    pub title: String,
    pub stock: u32,
    pub available: u32,
    pub reserved: u32,
    pub sold: u32,
    pub findings: Vec<Finding>,
}

impl App {
    /// The books of all sales, newest first.
    ///
    /// # Errors
    /// When a store does not answer.
    pub async fn audit(&self) -> Stored<Vec<SaleBooks>> {
        let mut books = Vec::new();
        let mut before = None;
        loop {
            let page = self.ports.sales.list(before, PAGE).await?;
            before = page.last().map(|sale| sale.sale_id);
            for sale in &page {
                books.push(self.audit_sale(sale.sale_id).await?);
            }
            if page.len() < PAGE as usize {
                return Ok(books.into_iter().flatten().collect());
            }
        }
    }

    /// The books of one sale.
    ///
    /// # Errors
    /// `NotFound` when there is no such sale, and when a store does not answer.
    pub async fn sale_books(&self, sale_id: SaleId) -> Result<SaleBooks, Problem> {
        self.audit_sale(sale_id).await?.ok_or(Problem::NotFound)
    }

    async fn audit_sale(&self, sale_id: SaleId) -> Stored<Option<SaleBooks>> {
        // The store in front is read before the ledger behind it, so that what moves meanwhile moves towards agreement.
        let state = self.ports.admission.state(sale_id).await?;
        let reservations = self.all_reservations(sale_id).await?;
        let active = self.all_active(sale_id).await?;
        let Some(sale) = self.ports.sales.get(sale_id).await? else {
            return Ok(None);
        };
        let mut findings = self.audit_ledger(&sale, &active).await?;
        let now = self.now();
        let looked_after = now < sale.ends_at.plus_ms(self.config.sweeper.tail_seconds * 1_000);
        let (mut available, mut reserved) = (sale.stock.saturating_sub(sale.sold), 0);
        if let AdmissionState::Open { stock, reserved: unsettled, settled, .. } = state {
            available = stock.saturating_sub(unsettled + settled);
            reserved = unsettled;
            findings.extend(self.audit_admission(&sale, &reservations, &active).await?);
            if stock != sale.stock {
                findings.push(finding(4, sale_id, format!("the admission store has a stock of {stock}, the ledger {}", sale.stock), []));
            }
            if u64::from(available) + u64::from(unsettled) + u64::from(settled) != u64::from(stock) {
                let held = unsettled + settled;
                findings.push(finding(1, sale_id, format!("{held} units are held of a stock of {stock}"), []));
            }
        } else if looked_after {
            findings.push(finding(4, sale_id, "the admission store has not been rebuilt".to_owned(), []));
        }
        Ok(Some(SaleBooks { sale_id, title: sale.title, stock: sale.stock, available, reserved, sold: sale.sold, findings }))
    }

    /// Promises 1 and 2, from the rows alone.
    async fn audit_ledger(&self, sale: &Sale, active: &[Order]) -> Stored<Vec<Finding>> {
        let mut findings = Vec::new();
        let mut per_user: HashMap<_, u32> = HashMap::new();
        for order in active {
            *per_user.entry(order.user_id).or_default() += 1;
        }
        if active.len() > sale.stock as usize {
            findings.push(finding(1, sale.sale_id, format!("{} active orders, stock {}", active.len(), sale.stock), []));
        }
        if active.len() != sale.sold as usize {
            findings.push(finding(1, sale.sale_id, format!("{} active orders, but the sale says {} sold", active.len(), sale.sold), []));
        }
        let greedy: Vec<String> =
            per_user.iter().filter(|(_, count)| **count > sale.per_user_limit).map(|(user_id, _)| user_id.to_string()).collect();
        if !greedy.is_empty() {
            findings.push(finding(2, sale.sale_id, format!("users with more than {} active orders", sale.per_user_limit), greedy));
        }
        let tally = self.ports.orders.tally(sale.sale_id).await?;
        if tally.active != active.len() as u64 {
            findings.push(finding(1, sale.sale_id, format!("{} active orders listed, {} counted", active.len(), tally.active), []));
        }
        Ok(findings)
    }

    /// Promises 3 to 5: every unit that is held belongs to an order, and every order holds its unit.
    async fn audit_admission(&self, sale: &Sale, reservations: &[Reservation], active: &[Order]) -> Stored<Vec<Finding>> {
        let mut findings = Vec::new();
        let held: HashMap<OrderId, &Reservation> =
            reservations.iter().map(|reservation| (reservation.request.order_id, reservation)).collect();
        let active_ids: HashSet<OrderId> = active.iter().map(|order| order.order_id).collect();
        let unheld: Vec<String> =
            active_ids.iter().filter(|id| held.get(id).is_none_or(|held| !held.settled)).map(ToString::to_string).collect();
        if !unheld.is_empty() {
            findings.push(finding(
                4,
                sale.sale_id,
                "active orders whose unit the admission store does not hold as settled".to_owned(),
                unheld,
            ));
        }
        let leaked: Vec<String> = held
            .values()
            .filter(|held| held.settled && !active_ids.contains(&held.request.order_id))
            .map(|held| held.request.order_id.to_string())
            .collect();
        if !leaked.is_empty() {
            findings.push(finding(4, sale.sale_id, "units held by orders that are not active".to_owned(), leaked));
        }
        let now = self.now();
        let open: Vec<OrderId> = held
            .values()
            .filter(|held| !held.settled && now.since_ms(held.request.admitted_at) > FINAL_WITHIN_MS)
            .map(|held| held.request.order_id)
            .collect();
        if !open.is_empty() && self.ports.queue.depth().await?.waiting == 0 {
            let what = "orders admitted more than 30 s ago that are neither final nor in the queue".to_owned();
            findings.push(finding(5, sale.sale_id, what, open.iter().map(ToString::to_string)));
        }
        Ok(findings)
    }

    async fn all_reservations(&self, sale_id: SaleId) -> Stored<Vec<Reservation>> {
        let mut all = Vec::new();
        let mut cursor = 0;
        loop {
            let page = self.ports.admission.reservations(sale_id, cursor, PAGE).await?;
            all.extend(page.reservations);
            match page.next {
                Some(next) => cursor = next,
                None => return Ok(all),
            }
        }
    }

    async fn all_active(&self, sale_id: SaleId) -> Stored<Vec<Order>> {
        let mut all: Vec<Order> = Vec::new();
        loop {
            let page = self.ports.orders.active(sale_id, all.last().map(|order| order.order_id), PAGE).await?;
            let full = page.len() == PAGE as usize;
            all.extend(page);
            if !full {
                return Ok(all);
            }
        }
    }
}

fn finding(promise: u8, sale_id: SaleId, what: String, ids: impl IntoIterator<Item = String>) -> Finding {
    let mut ids: Vec<String> = ids.into_iter().collect();
    ids.sort_unstable();
    ids.truncate(IDS_MAX);
    Finding { promise, sale_id, what, ids }
}
