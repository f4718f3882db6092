//! The order worker's part of a draw: it records entries in the ledger and adds them to the line.

use std::collections::BTreeMap;

use tracing::Instrument as _;

use crate::{
    app::{App, recording::Unusable},
    domain::{Entry, EntryMessage, LineKey, NoDraw, RecordedEntry, SaleId, UserId},
    logging::OncePerSecond,
    metrics::{ENTRIES_RECORDED, Outcomes},
    ports::Stored,
    trace::STEP,
};

static RECORDED: Outcomes = Outcomes::new(ENTRIES_RECORDED);

impl App {
    /// Records entries. Those of sales that are not by draw become `unusable`.
    pub(in crate::app) async fn record_entries(
        &self,
        entries: &[Entry],
        unusable: &mut Unusable,
    ) -> Stored<()> {
        let step = tracing::info_span!(target: STEP, "ledger.enter", otel.kind = "client");
        let outcomes = self.ports.draws.enter(entries).instrument(step).await?;
        let mut sales: BTreeMap<SaleId, Vec<RecordedEntry>> = BTreeMap::new();
        for (outcome, entry) in outcomes.into_iter().zip(entries) {
            match outcome {
                Ok(recorded) => {
                    let late = recorded.arrival.is_some();
                    RECORDED.add(if late { "late" } else { "in-time" }, 1);
                    sales.entry(recorded.entry.sale_id).or_default().push(recorded);
                }
                Err(NoDraw) => {
                    RECORDED.add("unrecordable", 1);
                    let message =
                        EntryMessage { v: EntryMessage::VERSION, entries: vec![entry.clone()] };
                    let body =
                        serde_json::to_vec(&message).expect("a message can be written as JSON");
                    unusable.insert(body, "the sale is not by draw".to_owned());
                }
            }
        }
        for (sale_id, recorded) in sales {
            if let Err(error) = self.add_to_line(sale_id, &recorded).await {
                static LINES: OncePerSecond = OncePerSecond::new();
                if let Some(left_out) = LINES.pass() {
                    tracing::warn!(%error, %sale_id, left_out, "entries are not in the line yet; the sweeper will add them");
                }
            }
        }
        Ok(())
    }

    /// Adds recorded entries to the line. Does nothing while their keys are not known because the
    /// sale waits for its beacon.
    pub(in crate::app) async fn add_to_line(
        &self,
        sale_id: SaleId,
        recorded: &[RecordedEntry],
    ) -> Stored<()> {
        let Some(sale) = self.ports.sales.get(sale_id).await? else { return Ok(()) };
        let Some(terms) = &sale.draw else { return Ok(()) };
        let Some(scores) = self.scores(sale_id, terms).await? else { return Ok(()) };
        let keys: Vec<(UserId, LineKey)> =
            recorded.iter().map(|entry| (entry.entry.user_id, entry.key(&scores))).collect();
        self.ports.line.add(sale_id, &keys).await
    }
}
