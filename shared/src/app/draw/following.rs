//! Following an entry: how many are ahead, and when it is the user's turn.

use std::sync::Arc;

use super::entering::EntryClaims;
use crate::{
    api::EntryView,
    app::{App, Caller, draw::lost, limits::RateLimit},
    domain::{
        DrawTerms, EntryState, LineFront, LineKey, OrderId, PlaceTable, Sale, SaleId, Timestamp,
        UserId,
    },
    ports::{StoreError, Stored},
    problem::Problem,
};

/// Orders of a user read at a time.
const ORDERS_PAGE: u32 = 100;

impl App {
    /// The state of the user's entry. `token` is the signed entry; with it, the answer needs no
    /// store until it is the user's turn.
    ///
    /// # Errors
    /// `not-found` (no entry, or the sale is not by draw), `rate-limited`, `banned`,
    /// `unavailable`.
    pub async fn entry_state(
        &self,
        caller: &Caller,
        sale_id: SaleId,
        token: Option<&str>,
    ) -> Result<EntryView, Problem> {
        let Caller { session: who, client } = caller;
        self.enter_memory(client, Some(who.user_id), RateLimit::OrderStatus).await?;
        if !self.catalog.knows(sale_id) {
            self.enter_reader(client).await?;
        }
        let sale = self.sale(sale_id).await?;
        let terms = sale.draw.as_ref().ok_or(Problem::NotFound)?;
        let claims = match token {
            Some(token) => self.read_entry(token, sale_id, who.user_id).await?,
            None => None,
        };
        let (now, front) = (self.now(), self.line_front(&sale).await?);
        let in_time = claims.filter(|claims| claims.entered_at() < sale.starts_at);
        if !front.drawn {
            if in_time.is_none() && !self.has_entered(&sale, who.user_id).await? {
                return Err(Problem::NotFound);
            }
            let state = if now < sale.ends_at { EntryState::Waiting } else { EntryState::SoldOut };
            return Ok(self.entry_view(&sale, who.user_id, state, now));
        }
        let by_score = self.score_key(&sale, terms, who.user_id).await?;
        let key = match (in_time, by_score) {
            (Some(_), Some(key)) => key,
            _ => match self.line_key(&sale, who.user_id).await? {
                Some(key) => key,
                // The entry is on its way to the line, or the line is being rebuilt.
                None if self.has_entered(&sale, who.user_id).await? => {
                    return Ok(self.entry_view(&sale, who.user_id, EntryState::Waiting, now));
                }
                None => return Err(Problem::NotFound),
            },
        };
        if front.has_passed(key, who.user_id) {
            return self.after_turn(&sale, &front, who.user_id, key, now).await;
        }
        self.before_turn(&sale, &front, who.user_id, key, now).await
    }

    /// The claims of a signed entry, if it is the user's and of this sale.
    async fn read_entry(
        &self,
        token: &str,
        sale_id: SaleId,
        user_id: UserId,
    ) -> Result<Option<EntryClaims>, Problem> {
        let keys = self.ticket_keys.ring(&self.ports).await?;
        let claims: Option<EntryClaims> = keys.verify(token);
        Ok(claims.filter(|claims| claims.sale_id == sale_id && claims.user_id == user_id))
    }

    /// Whether the user has an entry, before the draw. The line may be empty: it has lost its data, or
    /// the sale's beacon is not known yet.
    async fn has_entered(&self, sale: &Sale, user_id: UserId) -> Result<bool, Problem> {
        let sale_id = sale.sale_id;
        if self.line_key(sale, user_id).await?.is_some()
            || self.entry_is_remembered(sale_id, user_id).await?
        {
            return Ok(true);
        }
        let load = async { Ok(self.ports.draws.entry(sale_id, user_id).await?.is_some()) };
        let entered = self.draws.entered.load((sale_id, user_id), load).await;
        entered.map_err(|error: Arc<StoreError>| Problem::from((*error).clone()))
    }

    async fn score_key(
        &self,
        sale: &Sale,
        terms: &DrawTerms,
        user_id: UserId,
    ) -> Result<Option<LineKey>, Problem> {
        let scores = self.scores(sale.sale_id, terms).await?;
        Ok(scores.map(|scores| LineKey::in_time(scores.of(sale.sale_id, user_id))))
    }

    /// The user's key in the line, as read lately. A line that loses its data after the sale's end
    /// is not filled again; then the ledger has the last word.
    async fn line_key(&self, sale: &Sale, user_id: UserId) -> Result<Option<LineKey>, Problem> {
        let sale_id = sale.sale_id;
        let load = async {
            match self.ports.line.key(sale_id, user_id).await? {
                None if self.now() >= sale.ends_at => self.recorded_key(sale, user_id).await,
                key => Ok(key),
            }
        };
        let key = self.draws.keys.load((sale_id, user_id), load).await;
        key.map_err(|error: Arc<StoreError>| Problem::from((*error).clone()))
    }

    /// The key of the user's entry, as the ledger has it.
    async fn recorded_key(&self, sale: &Sale, user_id: UserId) -> Stored<Option<LineKey>> {
        let Some(terms) = &sale.draw else { return Ok(None) };
        let scores = self.scores(sale.sale_id, terms).await?;
        let recorded = self.ports.draws.entry(sale.sale_id, user_id).await?;
        Ok(recorded.zip(scores).map(|(recorded, scores)| recorded.key(&scores)))
    }

    async fn before_turn(
        &self,
        sale: &Sale,
        front: &LineFront,
        user_id: UserId,
        key: LineKey,
        now: Timestamp,
    ) -> Result<EntryView, Problem> {
        if front.sold_out || now >= sale.ends_at {
            return Ok(self.entry_view(sale, user_id, EntryState::SoldOut, now));
        }
        let mut view = self.entry_view(sale, user_id, EntryState::Waiting, now);
        if let Some(table) = self.place_table(sale.sale_id).await? {
            let ahead = table.place(key).saturating_sub(front.invited);
            view.ahead = Some(ahead);
            // Who stands far behind need not ask often.
            view.poll_after_ms += (ahead / 100).min(13) * 1_000;
        }
        Ok(view)
    }

    async fn after_turn(
        &self,
        sale: &Sale,
        front: &LineFront,
        user_id: UserId,
        key: LineKey,
        now: Timestamp,
    ) -> Result<EntryView, Problem> {
        let (bought, invited_until) =
            match self.ports.admission.look(sale.sale_id, user_id, None).await? {
                Some(look) => (look.already_bought, look.invited_until),
                // A store that loses its data long after the end is not filled again.
                None if now >= sale.ends_at => (self.order_in_ledger(sale, user_id).await?, None),
                // The store is being rebuilt.
                None => return Ok(self.entry_view(sale, user_id, EntryState::Waiting, now)),
            };
        let mut view = self.entry_view(sale, user_id, EntryState::Passed, now);
        if let Some(order_id) = bought {
            (view.state, view.order_id) = (EntryState::Bought, Some(order_id));
        } else if let Some(until) = invited_until.filter(|until| *until > now) {
            (view.state, view.invited_until) = (EntryState::Invited, Some(until));
        } else if let Some(recorded) = self.line_key(sale, user_id).await?
            && recorded != key
            && !front.has_passed(recorded, user_id)
        {
            // The entry was accepted in time but recorded after entries had closed.
            return self.before_turn(sale, front, user_id, recorded, now).await;
        }
        Ok(view)
    }

    fn entry_view(
        &self,
        sale: &Sale,
        user_id: UserId,
        state: EntryState,
        now: Timestamp,
    ) -> EntryView {
        EntryView {
            state,
            ahead: None,
            invited_until: None,
            order_id: None,
            poll_after_ms: self.poll_after_ms(sale, user_id, now),
        }
    }

    /// How far the sale's line has come: as the sweeper's leader published it last, and long after
    /// the sale's end, when it is not published any more, as the ledger has it.
    pub(in crate::app) async fn line_front(&self, sale: &Sale) -> Result<Arc<LineFront>, Problem> {
        let sale_id = sale.sale_id;
        let load = async {
            let bytes = self.ports.cache.get(&front_key(sale_id), self.now()).await?;
            let front = match bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()) {
                Some(front) => front,
                None if self.now() >= sale.ends_at => self.last_front(sale).await?,
                None => LineFront::undrawn(),
            };
            Ok(Arc::new(front))
        };
        let front = self.draws.fronts.load(sale_id, load).await;
        front.map_err(|error: Arc<StoreError>| Problem::from((*error).clone()))
    }

    /// How far the line of a sale that has ended had come.
    async fn last_front(&self, sale: &Sale) -> Stored<LineFront> {
        let Some(terms) = &sale.draw else { return Ok(LineFront::undrawn()) };
        let draw = self.ports.draws.draw(sale.sale_id).await?.ok_or_else(|| lost(sale.sale_id))?;
        let Some(scores) = self.scores(sale.sale_id, terms).await? else {
            return Ok(LineFront::undrawn());
        };
        let last = self.last_invited(sale.sale_id, &draw, &scores).await?;
        let (drawn, sold_out) = (draw.closed_at.is_some(), false);
        Ok(LineFront { drawn, invited: draw.invited, last, sold_out })
    }

    /// The user's active order of the sale, as the ledger has it.
    async fn order_in_ledger(&self, sale: &Sale, user_id: UserId) -> Stored<Option<OrderId>> {
        let mut before = None;
        loop {
            let page = self.ports.orders.of_user(user_id, before, ORDERS_PAGE).await?;
            let active =
                page.iter().find(|order| order.sale_id == sale.sale_id && order.status.is_active());
            before = page.last().map(|order| order.order_id);
            let older_is_of_other_sales =
                before.is_none_or(|order_id| order_id.made_at() < sale.starts_at);
            if active.is_some() || older_is_of_other_sales {
                return Ok(active.map(|order| order.order_id));
            }
        }
    }

    /// The table of places, if the leader has published it.
    async fn place_table(&self, sale_id: SaleId) -> Result<Option<Arc<PlaceTable>>, Problem> {
        let load = async {
            let bytes = self.ports.cache.get(&table_key(sale_id), self.now()).await?;
            Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).map(Arc::new))
        };
        let table = self.draws.tables.load(sale_id, load).await;
        table.map_err(|error: Arc<StoreError>| Problem::from((*error).clone()))
    }
}

/// Where the shared cache holds the front of the sale's line.
pub(in crate::app) fn front_key(sale_id: SaleId) -> String {
    format!("line:{sale_id}")
}

/// Where the shared cache holds the sale's table of places.
pub(in crate::app) fn table_key(sale_id: SaleId) -> String {
    format!("places:{sale_id}")
}
