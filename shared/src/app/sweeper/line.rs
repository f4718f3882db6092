//! The line of a sale by draw: closes entries, completes the line, invites who is next, and
//! publishes how far the line has come.
//!
//! Each step follows from the ledger and can be repeated. An invitation is stored in the ledger
//! first and then in the admission store; a crash in between leaves invitations that the store does
//! not know, and the next tick passes them on before it counts free units. Two leaders at once don't
//! invite too many: the ledger takes the invitations of the one that comes first.

use serde::Serialize;

use super::Swept;
use crate::{
    app::{
        App,
        draw::{front_key, lost, table_key},
    },
    domain::{
        CacheEntry, Draw, DrawTerms, Invitation, LineFront, OrderStatus, PlaceTable, Sale, SaleId,
        Scores, Timestamp, UserId,
    },
    ports::{FreeUnits, Stored},
};

/// How long after a sale's start an entry that was accepted before it may take to be confirmed.
const LAST_ENTRIES_MS: u64 = 2_000;
/// Entries read at a time.
const PAGE: u32 = 2_000;
/// Most pages added to a line in one tick: a million entries take some ticks, and other sales are
/// not kept waiting.
const PAGES_MAX: u32 = 50;
/// Most users invited at a time.
const INVITE_MAX: u32 = 500;
/// Most users invited in one tick.
const INVITE_IN_TICK: u32 = 10_000;
/// How often the units of a sold-out sale are counted by status, in milliseconds: that reads the
/// rows of all its orders.
const COUNT_EVERY_MS: u64 = 10_000;
/// How often the table of places is checked, in milliseconds.
const TABLE_EVERY_MS: u64 = 30_000;
/// How long the shared cache keeps the front and the table, in milliseconds.
const PUBLISHED_MS: u64 = 600_000;
/// How long entries may be on their way to the line before they are added again.
const MISSING_MS: u64 = 10_000;

/// What the leader remembers of a sale's line from tick to tick.
#[derive(Debug, Default)]
pub(in crate::app) struct LineWork {
    /// Where the next page of entries to be added begins, while the line is being completed.
    adding: Option<Option<UserId>>,
    missing_since_ms: Option<u64>,
    counted: Option<(u64, bool)>,
    table_checked_ms: Option<u64>,
}

impl App {
    /// One step of the sale's draw. The sale's admission is open.
    pub(super) async fn sweep_line(&self, sale: &Sale, swept: &mut Swept) -> Stored<()> {
        let Some(terms) = &sale.draw else { return Ok(()) };
        let (sale_id, now) = (sale.sale_id, self.now());
        if now < terms.entries_open_at {
            return Ok(());
        }
        let mut draw = self.ports.draws.draw(sale_id).await?.ok_or_else(|| lost(sale_id))?;
        if draw.closed_at.is_none() {
            if now < sale.starts_at || !self.entries_may_close(sale, now).await {
                // A line that has lost its data is filled before the draw.
                let Some(scores) = self.scores(sale_id, terms).await? else { return Ok(()) };
                return self.complete_line(sale, &draw, &scores).await.map(drop);
            }
            draw =
                self.ports.draws.close_entries(sale_id, now).await?.ok_or_else(|| lost(sale_id))?;
            tracing::info!(%sale_id, in_time = draw.in_time, "entries are closed");
        }
        let Some(scores) = self.scores(sale_id, terms).await? else { return Ok(()) };
        if !self.complete_line(sale, &draw, &scores).await? {
            return Ok(());
        }
        // The table first: once the front is published, polls look up places in it.
        self.publish_table(sale_id, draw.in_time).await?;
        let front = self.invite(sale, terms, draw, &scores, swept).await?;
        self.publish_line(front_key(sale_id), &front).await
    }

    /// Whether every entry that was accepted before the sale's start is in the ledger, or has been
    /// waited for long enough.
    async fn entries_may_close(&self, sale: &Sale, now: Timestamp) -> bool {
        let recorded_until = sale.starts_at.plus_ms(LAST_ENTRIES_MS);
        if now >= recorded_until.plus_ms(self.config.sweeper.rebuild_wait_max_ms) {
            return true;
        }
        now >= recorded_until
            && self.read_worked_off().await.is_some_and(|until| until >= recorded_until)
    }

    /// Adds the ledger's entries to the line if some are missing, and returns whether the line has
    /// all that were in time. The worker adds entries as it records them, so that there is usually
    /// nothing to do, except after a loss of the store and where places depend on a beacon.
    async fn complete_line(&self, sale: &Sale, draw: &Draw, scores: &Scores) -> Stored<bool> {
        let (sale_id, now_ms) = (sale.sale_id, self.monotonic_ms());
        let length = self.ports.line.length(sale_id).await?;
        let missing = length.late < draw.late || length.in_time < draw.in_time;
        let must_be_whole = draw.closed_at.is_some() && length.in_time < draw.in_time;
        let begin = self.sweep.line(sale_id, |work| {
            let since = *work.missing_since_ms.get_or_insert(now_ms);
            if !missing {
                work.missing_since_ms = None;
            }
            let overdue = missing && now_ms.saturating_sub(since) >= MISSING_MS;
            if work.adding.is_none() && (must_be_whole || overdue) {
                work.adding = Some(None);
            }
            work.adding
        });
        let Some(mut after) = begin else { return Ok(true) };
        for _ in 0..PAGES_MAX {
            let page = self.ports.draws.entries(sale_id, after, PAGE).await?;
            let keys: Vec<_> =
                page.iter().map(|entry| (entry.entry.user_id, entry.key(scores))).collect();
            self.ports.line.add(sale_id, &keys).await?;
            after = page.last().map(|entry| entry.entry.user_id);
            if page.len() < PAGE as usize {
                self.sweep.line(sale_id, |work| {
                    (work.adding, work.missing_since_ms) = (None, None);
                });
                let length = self.ports.line.length(sale_id).await?;
                return Ok(length.in_time == draw.in_time);
            }
            self.sweep.line(sale_id, |work| work.adding = Some(after));
        }
        Ok(false)
    }

    /// Invites as many as units are free, and returns how far the line has come.
    async fn invite(
        &self,
        sale: &Sale,
        terms: &DrawTerms,
        mut draw: Draw,
        scores: &Scores,
        swept: &mut Swept,
    ) -> Stored<LineFront> {
        let (sale_id, line, now) = (sale.sale_id, &self.ports.line, self.now());
        let mut last = self.last_invited(sale_id, &draw, scores).await?;
        let mut next_after = last;
        let mut left = INVITE_IN_TICK;
        let mut units = self.free_units(sale_id, &draw, now).await?;
        let until = now.plus_ms(u64::from(terms.invite_seconds) * 1_000).min(sale.ends_at);
        while now < sale.ends_at && left > 0 {
            let Some(free) = units.map(|units| units.free.min(left).min(INVITE_MAX)) else { break };
            let next = line.next(sale_id, next_after, free).await?;
            let mut invitations = Vec::with_capacity(next.len());
            for (place, (user_id, key)) in (draw.invited..).zip(next) {
                if !draw.follows(place, key) {
                    break;
                }
                invitations.push(Invitation { place, user_id, invited_at: now, until });
                next_after = Some((key, user_id));
            }
            let count = invitations.len() as u64;
            if count == 0 || !self.ports.draws.invite(sale_id, &invitations).await? {
                break;
            }
            (draw.invited, last) = (draw.invited + count, next_after);
            line.invite(sale_id, &invitations, draw.invited).await?;
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            swept.invited += count;
            left -= count;
            units = line.free(sale_id, now).await?;
        }
        let idle = units.is_some_and(|units| units.free == 0 && units.open_invitations == 0);
        Ok(LineFront {
            drawn: true,
            invited: draw.invited,
            last,
            sold_out: idle && self.all_paid(sale).await?,
        })
    }

    /// Passes invitations to the store that only the ledger knows, then counts.
    async fn free_units(
        &self,
        sale_id: SaleId,
        draw: &Draw,
        now: Timestamp,
    ) -> Stored<Option<FreeUnits>> {
        let line = &self.ports.line;
        let Some(units) = line.free(sale_id, now).await? else { return Ok(None) };
        if units.invited > draw.invited {
            // The ledger was restored from an older backup. Inviting from here on would promise units
            // twice; once the store is emptied, both agree again.
            tracing::error!(%sale_id, ledger = draw.invited, store = units.invited, "the admission store knows invitations that the ledger does not: nobody is invited");
            return Ok(None);
        }
        if units.invited == draw.invited {
            return Ok(Some(units));
        }
        self.pass_invitations(sale_id, units.invited, draw.invited).await?;
        line.free(sale_id, now).await
    }

    /// Whether all units are held by orders that are paid, as counted some seconds ago at most.
    async fn all_paid(&self, sale: &Sale) -> Stored<bool> {
        if sale.sold < sale.stock {
            return Ok(false);
        }
        let now_ms = self.monotonic_ms();
        let counted = self.sweep.line(sale.sale_id, |work| work.counted);
        if let Some((at_ms, paid)) = counted
            && now_ms.saturating_sub(at_ms) < COUNT_EVERY_MS
        {
            return Ok(paid);
        }
        let counts = self.ports.orders.count_by_status(sale.sale_id).await?;
        let paid = counts.iter().any(|(status, orders)| {
            status == OrderStatus::Paid.as_str() && *orders >= u64::from(sale.stock)
        });
        self.sweep.line(sale.sale_id, |work| work.counted = Some((now_ms, paid)));
        Ok(paid)
    }

    /// Publishes the table of places where the shared cache does not have it.
    async fn publish_table(&self, sale_id: SaleId, in_time: u64) -> Stored<()> {
        let now_ms = self.monotonic_ms();
        let lately = self.sweep.line(sale_id, |work| {
            let lately = work
                .table_checked_ms
                .is_some_and(|at_ms| now_ms.saturating_sub(at_ms) < TABLE_EVERY_MS);
            if !lately {
                work.table_checked_ms = Some(now_ms);
            }
            lately
        });
        if lately {
            return Ok(());
        }
        let step = PlaceTable::step_of(in_time);
        let keys = self.ports.line.sample(sale_id, in_time, step).await?;
        let table = PlaceTable { step, keys, in_time };
        self.publish_line(table_key(sale_id), &table).await
    }

    /// Stores what instances need to know of a line in the shared cache.
    async fn publish_line(&self, key: String, value: &impl Serialize) -> Stored<()> {
        let now = self.now();
        let value = serde_json::to_vec(value).expect("plain fields can be written as JSON");
        let version = u64::try_from(now.epoch_ms()).unwrap_or_default();
        let entry = CacheEntry { key, version, value, ttl_ms: PUBLISHED_MS };
        self.ports.cache.put(&[entry], now).await
    }

    /// Restores the invitations that last and were not used, during a rebuild of the sale's
    /// admission: before it opens, so that nobody else is invited in their place.
    pub(super) async fn restore_invitations(&self, sale: &Sale) -> Stored<()> {
        if sale.draw.is_none() {
            return Ok(());
        }
        let sale_id = sale.sale_id;
        let draw = self.ports.draws.draw(sale_id).await?.ok_or_else(|| lost(sale_id))?;
        self.pass_invitations(sale_id, 0, draw.invited).await
    }

    /// Passes the unused invitations with places from `from` up to `invited` to the store.
    async fn pass_invitations(&self, sale_id: SaleId, mut from: u64, invited: u64) -> Stored<()> {
        let now = self.now();
        while from < invited {
            let page = self.ports.draws.unused_invitations(sale_id, now, from, PAGE).await?;
            let full = page.len() == PAGE as usize;
            from = page.last().filter(|_| full).map_or(invited, |last| last.place + 1);
            self.ports.line.invite(sale_id, &page, from).await?;
        }
        Ok(())
    }
}
