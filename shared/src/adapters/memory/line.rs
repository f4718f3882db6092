//! The line of a sale by draw in memory, kept in the same book as the sale's reservations.

use std::{
    collections::{BTreeSet, HashMap},
    ops::Bound,
};

use async_trait::async_trait;

use super::{MemoryAdmission, admission::count};
use crate::{
    domain::{Invitation, LineKey, SaleId, Timestamp, UserId},
    ports::{FreeUnits, Line, LineLength, Stored},
};

/// The line of one sale.
#[derive(Debug, Default)]
pub(super) struct LineBook {
    keys: HashMap<UserId, LineKey>,
    order: BTreeSet<(LineKey, UserId)>,
    /// Ends of the invitations that were not used.
    open: HashMap<UserId, Timestamp>,
    /// Places that were invited.
    invited: u64,
}

impl LineBook {
    pub(super) fn invited_until(&self, user_id: UserId) -> Option<Timestamp> {
        self.open.get(&user_id).copied()
    }

    pub(super) fn use_invitation(&mut self, user_id: UserId) {
        self.open.remove(&user_id);
    }
}

#[async_trait]
impl Line for MemoryAdmission {
    async fn add(&self, sale_id: SaleId, entries: &[(UserId, LineKey)]) -> Stored<()> {
        if let Some(book) = self.books().get_mut(&sale_id).filter(|book| book.loaded.is_some()) {
            for &(user_id, key) in entries {
                if let Some(before) = book.line.keys.insert(user_id, key) {
                    book.line.order.remove(&(before, user_id));
                }
                book.line.order.insert((key, user_id));
            }
        }
        Ok(())
    }

    async fn length(&self, sale_id: SaleId) -> Stored<LineLength> {
        let books = self.books();
        let Some(book) = books.get(&sale_id) else { return Ok(LineLength::default()) };
        let late = book.line.order.iter().rev().take_while(|(key, _)| key.arrival().is_some());
        let late = late.count() as u64;
        Ok(LineLength { in_time: book.line.order.len() as u64 - late, late })
    }

    async fn key(&self, sale_id: SaleId, user_id: UserId) -> Stored<Option<LineKey>> {
        Ok(self.books().get(&sale_id).and_then(|book| book.line.keys.get(&user_id).copied()))
    }

    /// Counts the users in front, so it takes time in proportion to the place.
    async fn place(&self, sale_id: SaleId, user_id: UserId) -> Stored<Option<u64>> {
        let books = self.books();
        let Some(book) = books.get(&sale_id) else { return Ok(None) };
        let key = book.line.keys.get(&user_id);
        Ok(key.map(|key| book.line.order.range(..(*key, user_id)).count() as u64))
    }

    async fn next(
        &self,
        sale_id: SaleId,
        after: Option<(LineKey, UserId)>,
        limit: u32,
    ) -> Stored<Vec<(UserId, LineKey)>> {
        let books = self.books();
        let Some(book) = books.get(&sale_id) else { return Ok(Vec::new()) };
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let next = book.line.order.range((from, Bound::Unbounded)).take(limit as usize);
        Ok(next.map(|&(key, user_id)| (user_id, key)).collect())
    }

    async fn sample(&self, sale_id: SaleId, count: u64, step: u64) -> Stored<Vec<LineKey>> {
        let whole = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let books = self.books();
        let Some(book) = books.get(&sale_id) else { return Ok(Vec::new()) };
        let line = book.line.order.iter().take(whole(count));
        Ok(line.step_by(whole(step.max(1))).map(|(key, _)| *key).collect())
    }

    async fn free(&self, sale_id: SaleId, now: Timestamp) -> Stored<Option<FreeUnits>> {
        let mut books = self.books();
        let Some(book) = books.get_mut(&sale_id) else { return Ok(None) };
        let held = book.units_held();
        let Some(stock) = book.open().map(|terms| terms.stock) else { return Ok(None) };
        book.line.open.retain(|_, until| *until > now);
        let open_invitations = count(book.line.open.len());
        Ok(Some(FreeUnits {
            free: stock.saturating_sub(held.saturating_add(open_invitations)),
            open_invitations,
            invited: book.line.invited,
        }))
    }

    async fn invite(&self, sale_id: SaleId, next: &[Invitation], invited: u64) -> Stored<()> {
        if let Some(book) = self.books().get_mut(&sale_id).filter(|book| book.loaded.is_some())
            && book.line.invited < invited
        {
            book.line.open.extend(next.iter().map(|next| (next.user_id, next.until)));
            book.line.invited = invited;
        }
        Ok(())
    }
}
