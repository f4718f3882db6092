//! Audits the draw of a sale: promise 8, and that nobody is invited to buy a unit that another one
//! may buy.

use std::{collections::HashMap, time::Duration};

use super::check::{CheckedDraw, CheckedEntry, check_draw};
use crate::{
    app::App,
    domain::{Draw, DrawTerms, Sale, SaleId, UserId},
    ports::Stored,
};

const PAGE: u32 = 2_000;
/// How often numbers that disagree are read again, and the pause before.
const LOOKS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(200);

impl App {
    /// The broken rules of a sale's draw, in words. Holds all entries in memory, about two hundred
    /// bytes each. Does not check the places of a draw with more than `entries_max` entries.
    pub(in crate::app) async fn audit_draw(
        &self,
        sale: &Sale,
        entries_max: u64,
    ) -> Stored<Vec<String>> {
        let Some(terms) = &sale.draw else { return Ok(Vec::new()) };
        let Some(draw) = self.ports.draws.draw(sale.sale_id).await? else {
            return Ok(vec!["the sale is by draw and has no draw".to_owned()]);
        };
        let mut faults = Vec::new();
        if draw.length() <= entries_max {
            faults.extend(self.audit_places(sale.sale_id, terms, &draw).await?);
        }
        faults.extend(self.audit_promised(sale).await?);
        Ok(faults)
    }

    async fn audit_places(
        &self,
        sale_id: SaleId,
        terms: &DrawTerms,
        before: &Draw,
    ) -> Stored<Vec<String>> {
        let mut entries = self.draw_entries(sale_id).await?;
        // Late entries go on while pages are read, in no order: those since the beginning don't count.
        entries.retain(|entry| entry.arrival.is_none_or(|arrival| arrival < before.late));
        let Some(after) = self.ports.draws.draw(sale_id).await? else { return Ok(Vec::new()) };
        let mut faults = Vec::new();
        let late = entries.iter().filter(|entry| entry.arrival.is_some()).count() as u64;
        let in_time = entries.len() as u64 - late;
        let invited = entries.iter().filter(|entry| entry.invited_as.is_some()).count() as u64;
        for (what, counted, before, after) in [
            ("entries in time", in_time, before.in_time, after.in_time),
            ("late entries", late, before.late, before.late),
            ("invitations", invited, before.invited, after.invited),
        ] {
            // Entries in time and invitations go on too.
            if !(before..=after).contains(&counted) {
                faults.push(format!("{counted} {what}, but the draw says {after}"));
            }
        }
        let known = before.beacon_value.is_some() || terms.beacon.is_none();
        if before.closed_at.is_some() && known {
            let value = terms.beacon.as_ref().and(before.beacon_value.as_deref());
            let CheckedDraw { faults: wrong, .. } =
                check_draw(sale_id, &before.seed, terms.seed_hash, value, &entries);
            faults.extend(wrong);
        }
        Ok(faults)
    }

    /// All entries of a sale and their invitations. Invitations are read first, so that an entry
    /// that is invited meanwhile seems to be invited not yet, never out of turn.
    ///
    /// # Errors
    /// When the ledger does not answer.
    pub async fn draw_entries(&self, sale_id: SaleId) -> Stored<Vec<CheckedEntry>> {
        let mut places: HashMap<UserId, u64> = HashMap::new();
        let mut from = 0;
        loop {
            let page = self.ports.draws.invitations(sale_id, from, PAGE).await?;
            from += page.len() as u64;
            let full = page.len() == PAGE as usize;
            places.extend(page.into_iter().map(|invited| (invited.user_id, invited.place)));
            if !full {
                break;
            }
        }
        let (mut entries, mut after) = (Vec::new(), None);
        loop {
            let page = self.ports.draws.entries(sale_id, after, PAGE).await?;
            after = page.last().map(|entry| entry.entry.user_id);
            let full = page.len() == PAGE as usize;
            entries.extend(page.into_iter().map(|recorded| CheckedEntry {
                user_id: recorded.entry.user_id,
                arrival: recorded.arrival,
                invited_as: places.get(&recorded.entry.user_id).copied(),
            }));
            if !full {
                return Ok(entries);
            }
        }
    }

    /// Whether units that are sold and units that are promised exceed the stock. A stock that was
    /// lowered may be exceeded by invitations until they end, so only a sale that was never changed
    /// is checked.
    async fn audit_promised(&self, sale: &Sale) -> Stored<Vec<String>> {
        if sale.version > 1 {
            return Ok(Vec::new());
        }
        let mut looks = LOOKS;
        loop {
            // Read in this order, so that an order that is recorded in between is not counted
            // twice.
            let Some(Sale { sold, .. }) = self.ports.sales.get(sale.sale_id).await? else {
                return Ok(Vec::new());
            };
            let now = self.now();
            let (mut promised, mut from) = (0_u64, 0);
            loop {
                let page =
                    self.ports.draws.unused_invitations(sale.sale_id, now, from, PAGE).await?;
                promised += page.len() as u64;
                match page.last() {
                    Some(last) if page.len() == PAGE as usize => from = last.place + 1,
                    _ => break,
                }
            }
            if u64::from(sold) + promised <= u64::from(sale.stock) {
                return Ok(Vec::new());
            }
            looks -= 1;
            if looks == 0 {
                let stock = sale.stock;
                return Ok(vec![format!(
                    "{sold} units are sold and {promised} promised, of a stock of {stock}"
                )]);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}
