//! The result of a draw, for everybody, once the sale has ended.

use std::sync::Arc;

use crate::{
    api::{DrawResult, OwnPlace},
    app::{App, Caller, limits::RateLimit},
    domain::{LineKey, SaleId},
    ports::StoreError,
    problem::Problem,
};

impl App {
    /// The seed and the numbers of the sale's draw, and the caller's own place.
    ///
    /// # Errors
    /// `not-found` (also for a sale that is not by draw), `draw-not-over`, `unauthenticated`,
    /// `rate-limited`, `banned`, `unavailable`.
    pub async fn draw_result(
        &self,
        caller: &Caller,
        sale_id: SaleId,
    ) -> Result<DrawResult, Problem> {
        self.enter(caller, RateLimit::OrderStatus).await?;
        let (sale, user_id) = (self.sale(sale_id).await?, caller.session.user_id);
        let terms = sale.draw.as_ref().ok_or(Problem::NotFound)?;
        if self.now() < sale.ends_at {
            return Err(Problem::DrawNotOver { ends_at: sale.ends_at });
        }
        let load = async { Ok(self.ports.draws.draw(sale_id).await?.map(Arc::new)) };
        let draw = self.draws.results.load(sale_id, load).await;
        let draw = draw.map_err(|error: Arc<StoreError>| Problem::from((*error).clone()))?;
        let draw = draw.ok_or_else(|| super::lost(sale_id))?;
        // The end may be moved. Once entries are closed, knowing the seed is of no use.
        if draw.closed_at.is_none() {
            self.draws.results.remove(&sale_id);
            return Err(Problem::DrawNotOver { ends_at: sale.ends_at });
        }
        let mut own = None;
        if let Some(recorded) = self.ports.draws.entry(sale_id, user_id).await?
            && let Some(seed) = draw.deciding_seed(terms)
        {
            let key = recorded.key(&seed.scores());
            let place = match recorded.arrival {
                Some(arrival) => Some(draw.in_time + arrival),
                None => self.ports.line.place(sale_id, user_id).await?,
            };
            let score = key.arrival().is_none().then_some(LineKey::number(key));
            own = Some(OwnPlace {
                score,
                place,
                invited: place.is_some_and(|place| place < draw.invited),
            });
        }
        Ok(DrawResult {
            seed: draw.seed.reveal(),
            seed_hash: terms.seed_hash,
            beacon: terms.beacon.clone(),
            beacon_value: draw.beacon_value.clone(),
            entries: draw.length(),
            late_entries: draw.late,
            cutoff: draw.invited,
            own,
        })
    }
}
