//! Where the units of each sale are.

use flashsale::{
    app::App,
    domain::{AdmissionState, Sale, SaleId},
    ports::Stored,
};
use futures_util::future::join_all;
use serde::Serialize;
use tokio::{
    sync::Mutex,
    time::{Duration, Instant},
};

/// How many sales are shown, ordered by their end, latest first.
pub const SALES_MAX: u32 = 10;
/// How long the list of sales is cached.
const SALE_LIST_LIFE: Duration = Duration::from_secs(3);

/// Where a sale's units are.
#[derive(Debug, Clone, Serialize)]
pub struct SaleUnits {
    pub sale_id: SaleId,
    title: String,
    pub stock: u32,
    pub available: u32,
    pub reserved: u32,
    pub sold: u32,
}

/// The sales that are shown, read anew after [`SALE_LIST_LIFE`].
#[derive(Default)]
pub struct SaleList(Mutex<List>);

#[derive(Default)]
struct List {
    sales: Vec<Sale>,
    read_at: Option<Instant>,
}

impl SaleList {
    /// Where the units are, according to the admission store: counting orders in the ledger costs a
    /// scan for each sale.
    pub async fn units(&self, app: &App) -> Stored<Vec<SaleUnits>> {
        let ports = &app.ports;
        let mut list = self.0.lock().await;
        if list.read_at.is_none_or(|read_at| read_at.elapsed() >= SALE_LIST_LIFE) {
            list.sales = ports.sales.ending_last(app.now(), SALES_MAX).await?;
            list.read_at = Some(Instant::now());
        }
        let states =
            join_all(list.sales.iter().map(|sale| ports.admission.state(sale.sale_id))).await;
        units(&list.sales, states)
    }
}

/// The units of the sales whose store answers. An error when none does.
fn units(sales: &[Sale], states: Vec<Stored<AdmissionState>>) -> Stored<Vec<SaleUnits>> {
    let mut shown = Vec::with_capacity(sales.len());
    let mut failed = None;
    for (sale, state) in sales.iter().zip(states) {
        let (stock, available, reserved, sold) = match state {
            Ok(AdmissionState::Open { stock, reserved, settled, .. }) => {
                (stock, stock.saturating_sub(reserved.saturating_add(settled)), reserved, settled)
            }
            // No unit can be reserved now; the sold ones are read from the ledger.
            Ok(AdmissionState::Rebuilding { .. } | AdmissionState::Missing) => {
                (sale.stock, 0, 0, sale.sold)
            }
            Err(error) => {
                failed = Some(error);
                continue;
            }
        };
        shown.push(SaleUnits {
            sale_id: sale.sale_id,
            title: sale.title.clone(),
            stock,
            available,
            reserved,
            sold,
        });
    }
    match failed {
        Some(error) if shown.is_empty() => Err(error),
        _ => Ok(shown),
    }
}

#[cfg(test)]
mod tests;
