//! Sales by draw: entering, following the line, and the result.
//!
//! Polls are by far the most frequent requests of such a sale. They are answered from this process's
//! memory: the [front](LineFront) of the line, which the sweeper's leader publishes through the
//! shared cache, is compared with the key that the sale's seed gives the user. Only users whose turn
//! has come cost a look at the admission store, and late ones a look at the line.

mod audit;
mod check;
mod entering;
mod following;
mod recording;
mod result;

use std::{sync::Arc, time::Duration};

pub use check::{CheckedDraw, CheckedEntry, CheckedPlace, check_draw};
pub(super) use following::{front_key, table_key};

use super::{App, Caller, limits::RateLimit, local_cache::LocalCache};
use crate::{
    config::CacheTimes,
    domain::{
        Draw, DrawTerms, Invitation, LineFront, LineKey, PlaceTable, Sale, SaleId, Scores,
        Timestamp, UserId,
    },
    ports::{StoreError, Stored},
    problem::Problem,
};

/// Most sales by draw in a process's memory.
const SALES_MAX: usize = 1_000;
/// Most users in a process's memory whose key was read from the line.
const KEYS_MAX: usize = 100_000;
/// How long a key that was read, or its absence, is remembered.
const KEY_LIFE: Duration = Duration::from_secs(5);
/// How long it is remembered whether the ledger has an entry.
const ENTERED_LIFE: Duration = Duration::from_secs(1);
/// How long a table of places is remembered. It changes only when the line is rebuilt.
const TABLE_LIFE: Duration = Duration::from_secs(30);
/// How long the ledger's answer about a draw that is over is remembered.
const RESULT_LIFE: Duration = Duration::from_secs(30);

/// This process's memory of draws.
pub(super) struct DrawMemory {
    /// The key that gives scores, once it can't change any more.
    scores: LocalCache<SaleId, Arc<Scores>>,
    fronts: LocalCache<SaleId, Arc<LineFront>, StoreError>,
    tables: LocalCache<SaleId, Option<Arc<PlaceTable>>, StoreError>,
    keys: LocalCache<(SaleId, UserId), Option<LineKey>, StoreError>,
    entered: LocalCache<(SaleId, UserId), bool, StoreError>,
    results: LocalCache<SaleId, Option<Arc<Draw>>, StoreError>,
}

impl DrawMemory {
    pub(super) fn new(times: &CacheTimes) -> Self {
        Self {
            scores: LocalCache::lasting(SALES_MAX),
            fronts: LocalCache::new(SALES_MAX, Duration::from_millis(times.sold_out_ms)),
            tables: LocalCache::new(SALES_MAX, TABLE_LIFE),
            keys: LocalCache::new(KEYS_MAX, KEY_LIFE),
            entered: LocalCache::new(KEYS_MAX, ENTERED_LIFE),
            results: LocalCache::new(SALES_MAX, RESULT_LIFE),
        }
    }
}

impl App {
    /// What gives the scores of the sale's entries. `None` while the value of its beacon is not
    /// known.
    pub(super) async fn scores(
        &self,
        sale_id: SaleId,
        terms: &DrawTerms,
    ) -> Stored<Option<Arc<Scores>>> {
        if let Some(scores) = self.draws.scores.get(&sale_id) {
            return Ok(Some(scores));
        }
        let draw = self.ports.draws.draw(sale_id).await?.ok_or_else(|| lost(sale_id))?;
        let scores = draw.deciding_seed(terms).map(|seed| Arc::new(seed.scores()));
        if let Some(scores) = &scores {
            self.draws.scores.insert(sale_id, Arc::clone(scores));
        }
        Ok(scores)
    }

    /// The last user who was invited.
    pub(in crate::app) async fn last_invited(
        &self,
        sale_id: SaleId,
        draw: &Draw,
        scores: &Scores,
    ) -> Stored<Option<(LineKey, UserId)>> {
        let Some(place) = draw.invited.checked_sub(1) else { return Ok(None) };
        let found = self.ports.draws.invitations(sale_id, place, 1).await?.pop();
        let Some(Invitation { user_id, .. }) = found else { return Err(lost(sale_id)) };
        let key = match place.checked_sub(draw.in_time) {
            Some(arrival) => LineKey::late(arrival),
            None => LineKey::in_time(scores.of(sale_id, user_id)),
        };
        Ok(Some((key, user_id)))
    }

    /// Refuses, from memory, a user who can't be invited yet. Such a request counts against the
    /// user's limit of tickets in this process.
    pub(super) async fn refuse_uninvited(
        &self,
        sale: &Sale,
        caller: &Caller,
    ) -> Result<(), Problem> {
        let user_id = caller.session.user_id;
        if self.may_be_invited(sale, user_id).await? {
            return Ok(());
        }
        self.enter_memory(&caller.client, Some(user_id), RateLimit::Ticket).await?;
        let poll_after_ms = self.poll_after_ms(sale, user_id, self.now());
        Err(Problem::NotInvited { poll_after_ms })
    }

    /// Whether the store must be asked whether the user is invited.
    async fn may_be_invited(&self, sale: &Sale, user_id: UserId) -> Result<bool, Problem> {
        let Some(terms) = &sale.draw else { return Ok(true) };
        let front = self.line_front(sale).await?;
        let Some((last, _)) = front.last.filter(|_| front.drawn) else { return Ok(false) };
        if last.arrival().is_some() {
            // Late entries are invited by now: only the store knows who they are.
            return Ok(true);
        }
        let Some(scores) = self.scores(sale.sale_id, terms).await? else { return Ok(false) };
        let key = LineKey::in_time(scores.of(sale.sale_id, user_id));
        Ok(front.has_passed(key, user_id))
    }

    /// When the user should ask again about an entry. Differs between users, so that they don't all
    /// ask at the same moment.
    pub(super) fn poll_after_ms(&self, sale: &Sale, user_id: UserId, now: Timestamp) -> u64 {
        let until_start = sale.starts_at.since_ms(now);
        let spread = u64::from(user_id.as_bytes()[15]) * 1_000 / 256;
        match until_start {
            0 => FOLLOWING_MS + spread,
            // Once more right after the start, else now and then: the start may be moved.
            left => left.min(WAITING_MS) + spread,
        }
    }
}

/// Pause between two polls after the sale's start, in milliseconds.
const FOLLOWING_MS: u64 = 2_000;
/// Longest pause between two polls before the sale's start, in milliseconds.
const WAITING_MS: u64 = 30_000;

/// The ledger has a sale by draw without its draw.
pub(super) fn lost(sale_id: SaleId) -> StoreError {
    StoreError::Corrupt { store: "ledger", cause: format!("sale {sale_id} has lost its draw") }
}
