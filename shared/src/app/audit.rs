//! Audits the books: reads the live stores and reports every broken promise, with the ids
//! concerned.
//!
//! The auditor knows only the rules. It shares no code with the modules that must keep them, and it
//! repairs nothing. It holds one page of orders in memory at a time, however large the sale is.

use std::{collections::HashSet, time::Duration};

use super::{Admin, App};
use crate::{
    api::{Finding, SaleBooks},
    domain::{AdmissionState, OrderId, Reservation, Sale, SaleId, SaleTally},
    ports::Stored,
    problem::Problem,
};

const PAGE: u32 = 500;
/// A queued order turns final within this time (promise 5).
const FINAL_WITHIN_MS: u64 = 30_000;
/// Entries of a draw up to which the books of one sale include its places: the console reads them
/// again and again.
const WATCHED_ENTRIES_MAX: u64 = 20_000;
/// Most ids named in one finding.
const IDS_MAX: usize = 20;
/// How often a sale and its rows are read until their totals agree.
const TALLIES_MAX: u32 = 5;
/// How often orders that differ between the stores are read again before they are reported.
const LOOKS_AGAIN: u32 = 3;
/// The pause before each of these readings, and the most pauses for one sale: if more orders
/// differ, requests in flight are not the cause.
const PAUSE: Duration = Duration::from_millis(200);
const PAUSES_MAX: u32 = 15;

/// Is called with the number of reservations or orders that were just compared.
pub type Compared<'a> = &'a (dyn Fn(usize) + Sync);

impl App {
    /// The books of all sales, newest first.
    ///
    /// # Errors
    /// When a store does not answer.
    pub async fn audit(&self) -> Stored<Vec<SaleBooks>> {
        self.audit_watched(&|_| {}).await
    }

    /// As [`App::audit`]. Calls `compared` after each page, with the number of its reservations or
    /// orders.
    ///
    /// # Errors
    /// When a store does not answer.
    pub async fn audit_watched(&self, compared: Compared<'_>) -> Stored<Vec<SaleBooks>> {
        let mut books = Vec::new();
        let mut before = None;
        loop {
            let page = self.ports.sales.list(before, PAGE).await?;
            before = page.last().map(|sale| sale.sale_id);
            for sale in &page {
                books.push(self.audit_sale(sale.sale_id, compared, u64::MAX).await?);
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
    pub async fn sale_books(&self, _: &Admin, sale_id: SaleId) -> Result<SaleBooks, Problem> {
        let audited = self.audit_sale(sale_id, &|_| {}, WATCHED_ENTRIES_MAX).await?;
        audited.ok_or(Problem::NotFound)
    }

    async fn audit_sale(
        &self,
        sale_id: SaleId,
        compared: Compared<'_>,
        draw_entries_max: u64,
    ) -> Stored<Option<SaleBooks>> {
        let state = self.ports.admission.state(sale_id).await?;
        let Some((sale, tally)) = self.tallied(sale_id).await? else {
            return Ok(None);
        };
        let mut findings = audit_ledger(&sale, &tally);
        findings.extend(
            self.audit_draw(&sale, draw_entries_max)
                .await?
                .into_iter()
                .map(|what| finding(8, sale_id, what, [])),
        );
        let looked_after =
            self.now() < sale.ends_at.plus_ms(self.config.sweeper.tail_seconds * 1_000);
        let (mut available, mut reserved) = (sale.stock.saturating_sub(sale.sold), 0);
        if let AdmissionState::Open { stock, reserved: unsettled, settled, .. } = state {
            available = stock.saturating_sub(unsettled + settled);
            reserved = unsettled;
            findings.extend(self.audit_admission(&sale, compared).await?);
            if stock != sale.stock {
                findings.push(finding(
                    4,
                    sale_id,
                    format!(
                        "the admission store has a stock of {stock}, the ledger {}",
                        sale.stock
                    ),
                    [],
                ));
            }
            if u64::from(available) + u64::from(unsettled) + u64::from(settled) != u64::from(stock)
            {
                let held = unsettled + settled;
                findings.push(finding(
                    1,
                    sale_id,
                    format!("{held} units are held of a stock of {stock}"),
                    [],
                ));
            }
        } else if looked_after && self.should_be_open().await? {
            findings.push(finding(
                4,
                sale_id,
                "the admission store has not been rebuilt".to_owned(),
                [],
            ));
        }
        Ok(Some(SaleBooks {
            sale_id,
            title: sale.title,
            stock: sale.stock,
            available,
            reserved,
            sold: sale.sold,
            findings,
        }))
    }

    /// Whether the admission store of a sale that the sweeper looks after must be open. An embedded
    /// store starts empty in each process and is loaded only by a process that serves buyers, so
    /// any other command finds it empty.
    async fn should_be_open(&self) -> Stored<bool> {
        Ok(self.sweep.leads() || self.ports.queue.inherited().await?.is_none())
    }

    /// The sale, and the totals of its rows. They are read one after the other; if they differ,
    /// both are read again, because an order may have been recorded in between.
    async fn tallied(&self, sale_id: SaleId) -> Stored<Option<(Sale, SaleTally)>> {
        let mut tries = 0;
        loop {
            let tally = self.ports.orders.tally(sale_id).await?;
            let Some(sale) = self.ports.sales.get(sale_id).await? else {
                return Ok(None);
            };
            tries += 1;
            if tally.active == u64::from(sale.sold) || tries == TALLIES_MAX {
                return Ok(Some((sale, tally)));
            }
        }
    }

    /// Promises 3 to 5: every unit that is held belongs to an order, and every order holds its
    /// unit. Both stores are read page by page, and each page is compared with the other store's
    /// state of the same orders; only the ids to report are kept.
    async fn audit_admission(&self, sale: &Sale, compared: Compared<'_>) -> Stored<Vec<Finding>> {
        let mut pauses = PAUSES_MAX;
        let (mut leaked, mut open, mut unheld) =
            (Suspects::default(), Suspects::default(), Suspects::default());
        let mut cursor = 0;
        loop {
            let page = self.ports.admission.reservations(sale.sale_id, cursor, PAGE).await?;
            let read = page.reservations.len();
            let (settled, waiting): (Vec<_>, Vec<_>) =
                page.reservations.into_iter().partition(|reservation| reservation.settled);
            leaked.extend(self.leaked(sale.sale_id, &ids(&settled), &mut pauses).await?);
            let now = self.now();
            let late = |reservation: &&Reservation| {
                now.since_ms(reservation.order.admitted_at) > FINAL_WITHIN_MS
            };
            open.extend(waiting.iter().filter(late).map(|reservation| reservation.order.order_id));
            compared(read);
            match page.next {
                Some(next) => cursor = next,
                None => break,
            }
        }
        let mut after = None;
        loop {
            let page = self.ports.orders.active(sale.sale_id, after, PAGE).await?;
            after = page.last().map(|row| row.order.order_id);
            let active: Vec<OrderId> = page.iter().map(|row| row.order.order_id).collect();
            unheld.extend(self.unheld(sale.sale_id, &active, &mut pauses).await?);
            compared(page.len());
            if page.len() < PAGE as usize {
                break;
            }
        }
        let mut findings = Vec::new();
        let mut found = |promise, what: &str, suspects: Suspects| {
            if suspects.count > 0 {
                findings.push(finding(
                    promise,
                    sale.sale_id,
                    format!("{} {what}", suspects.count),
                    suspects.named,
                ));
            }
        };
        found(4, "active orders whose unit the admission store does not hold as settled", unheld);
        found(4, "units held by orders that are not active", leaked);
        if open.count > 0 && self.ports.queue.depth().await?.waiting == 0 {
            found(
                5,
                "orders admitted more than 30 s ago that are neither final nor in the queue",
                open,
            );
        }
        Ok(findings)
    }

    /// The settled reservations whose orders are not active. Both stores are read again first,
    /// because an order that has just ended still holds its unit for a moment.
    async fn leaked(
        &self,
        sale_id: SaleId,
        settled: &[OrderId],
        pauses: &mut u32,
    ) -> Stored<Vec<OrderId>> {
        let not_active = async |asked: &[OrderId]| -> Stored<Vec<OrderId>> {
            let rows = if asked.is_empty() {
                Vec::new()
            } else {
                self.ports.orders.get_many(asked).await?
            };
            let active: HashSet<OrderId> = rows
                .iter()
                .filter(|order| order.status.is_active())
                .map(|order| order.order_id)
                .collect();
            Ok(asked.iter().copied().filter(|id| !active.contains(id)).collect())
        };
        let mut suspects = not_active(settled).await?;
        for _ in 0..LOOKS_AGAIN {
            if suspects.is_empty() {
                break;
            }
            pause(pauses).await;
            let held: Vec<Reservation> = self.ports.admission.find_many(sale_id, &suspects).await?;
            let held: Vec<_> = held.into_iter().filter(|reservation| reservation.settled).collect();
            suspects = not_active(&ids(&held)).await?;
        }
        Ok(suspects)
    }

    /// The active orders that are not held as settled. Both stores are read again first, because an
    /// order that has just been recorded is settled a moment later.
    async fn unheld(
        &self,
        sale_id: SaleId,
        active: &[OrderId],
        pauses: &mut u32,
    ) -> Stored<Vec<OrderId>> {
        let not_held = async |asked: &[OrderId]| -> Stored<Vec<OrderId>> {
            let found = if asked.is_empty() {
                Vec::new()
            } else {
                self.ports.admission.find_many(sale_id, asked).await?
            };
            let held: HashSet<OrderId> = found
                .iter()
                .filter(|reservation| reservation.settled)
                .map(|reservation| reservation.order.order_id)
                .collect();
            Ok(asked.iter().copied().filter(|id| !held.contains(id)).collect())
        };
        let mut suspects = not_held(active).await?;
        for _ in 0..LOOKS_AGAIN {
            if suspects.is_empty() {
                break;
            }
            pause(pauses).await;
            let rows = self.ports.orders.get_many(&suspects).await?;
            let active: Vec<OrderId> = rows
                .iter()
                .filter(|order| order.status.is_active())
                .map(|order| order.order_id)
                .collect();
            suspects = not_held(&active).await?;
        }
        Ok(suspects)
    }
}

/// The number of orders in a finding, and the first of their ids.
#[derive(Default)]
struct Suspects {
    count: u64,
    named: Vec<String>,
}

impl Suspects {
    fn extend(&mut self, ids: impl IntoIterator<Item = OrderId>) {
        for id in ids {
            self.count += 1;
            if self.named.len() < IDS_MAX {
                self.named.push(id.to_string());
            }
        }
    }
}

fn ids(reservations: &[Reservation]) -> Vec<OrderId> {
    reservations.iter().map(|reservation| reservation.order.order_id).collect()
}

async fn pause(left: &mut u32) {
    if *left > 0 {
        *left -= 1;
        tokio::time::sleep(PAUSE).await;
    }
}

/// Promises 1 and 2, from the rows alone.
fn audit_ledger(sale: &Sale, tally: &SaleTally) -> Vec<Finding> {
    let mut findings = Vec::new();
    let active = tally.active;
    if active > u64::from(sale.stock) {
        findings.push(finding(
            1,
            sale.sale_id,
            format!("{active} active orders, stock {}", sale.stock),
            [],
        ));
    }
    if active != u64::from(sale.sold) {
        findings.push(finding(
            1,
            sale.sale_id,
            format!("{active} active orders, but the sale says {} sold", sale.sold),
            [],
        ));
    }
    if !tally.users_over_limit.is_empty() {
        let greedy = tally.users_over_limit.iter().map(ToString::to_string);
        findings.push(finding(
            2,
            sale.sale_id,
            format!("users with more than {} active orders", sale.per_user_limit),
            greedy,
        ));
    }
    if let Some(limit) = sale.units_per_prefix
        && !tally.networks_over_limit.is_empty()
    {
        let networks = tally.networks_over_limit.iter().map(ToString::to_string);
        findings.push(finding(
            2,
            sale.sale_id,
            format!("networks with more than {limit} active orders"),
            networks,
        ));
    }
    findings
}

fn finding(
    promise: u8,
    sale_id: SaleId,
    what: String,
    ids: impl IntoIterator<Item = String>,
) -> Finding {
    let mut ids: Vec<String> = ids.into_iter().collect();
    ids.sort_unstable();
    ids.truncate(IDS_MAX);
    Finding { promise, sale_id, what, ids }
}
