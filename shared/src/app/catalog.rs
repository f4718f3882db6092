//! Sale pages, cached at two levels: this process, then the store that all processes share, then SQL.
//!
//! One caller at a time reads a page for all who wait for it (single flight), so that a sale's first second is one
//! query per process and not ten thousand.

use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use moka::future::Cache as LocalCache;
use serde::Serialize;

use super::{App, Client};
use crate::{
    config::CacheTimes,
    domain::{Currency, Sale, SaleId, SaleState, Timestamp, UserId},
    ports::{AdmissionState, StoreError},
    problem::Problem,
};

/// Winners kept in a process's memory, and for how long.
const WINNERS_MAX: u64 = 100_000;
const WINNER_LIFE: Duration = Duration::from_secs(3_600);
/// Sales kept in a process's memory.
const LOCAL_SALES_MAX: u64 = 10_000;

/// A sale as a shopper sees it.
#[derive(Debug, Clone, Serialize)]
#[expect(missing_docs, reason = "the fields of the API, see API.md")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SaleView {
    pub sale_id: SaleId,
    pub title: String,
    pub description: String,
    pub image_url: String,
    pub price: i64,
    pub original_price: i64,
    pub currency: Currency,
    pub stock: u32,
    pub available: u32,
    pub per_user_limit: u32,
    pub starts_at: Timestamp,
    pub ends_at: Timestamp,
    pub state: SaleState,
    pub server_time: Timestamp,
}

pub(super) struct Catalog {
    sales: LocalCache<SaleId, Option<Arc<Sale>>>,
    available: LocalCache<SaleId, u32>,
    sold_out: SoldOutFlags,
    /// Who got an order here lately: told `already-bought`, with the order, also when the sale is sold out.
    winners: LocalCache<(SaleId, UserId), ()>,
    lists: LocalCache<(Option<SaleId>, u32), Arc<Vec<Sale>>>,
}

impl Catalog {
    pub(super) fn new(times: &CacheTimes) -> Self {
        let (sale_life, figure_life) = (Duration::from_millis(times.sale_local_ms), Duration::from_millis(times.sold_out_ms));
        Self {
            sales: LocalCache::builder().max_capacity(LOCAL_SALES_MAX).time_to_live(sale_life).build(),
            available: LocalCache::builder().max_capacity(LOCAL_SALES_MAX).time_to_live(figure_life).build(),
            winners: LocalCache::builder().max_capacity(WINNERS_MAX).time_to_live(WINNER_LIFE).build(),
            sold_out: SoldOutFlags { flags: RwLock::default(), life_ms: times.sold_out_ms },
            lists: LocalCache::builder().max_capacity(100).time_to_live(sale_life).build(),
        }
    }

    /// Whether the sale's page is in memory.
    pub(super) fn knows(&self, sale_id: SaleId) -> bool {
        self.sales.contains_key(&sale_id)
    }

    pub(super) async fn note_winner(&self, sale_id: SaleId, user_id: UserId) {
        self.winners.insert((sale_id, user_id), ()).await;
    }

    pub(super) fn has_won(&self, sale_id: SaleId, user_id: UserId) -> bool {
        self.winners.contains_key(&(sale_id, user_id))
    }

    /// Forgets a sale that has changed.
    pub(super) async fn forget(&self, sale_id: SaleId) {
        self.sales.invalidate(&sale_id).await;
        self.available.invalidate(&sale_id).await;
        self.sold_out.clear(sale_id);
        self.lists.invalidate_all();
    }
}

/// Which sales are sold out, as far as this process knows. A flag is believed for a short life; then one caller looks
/// again, while the others are still answered from it.
struct SoldOutFlags {
    /// When each flag is to be looked at again, in milliseconds since 1970.
    flags: RwLock<HashMap<SaleId, AtomicI64>>,
    life_ms: u64,
}

/// What a flag says to one caller.
#[derive(Debug, PartialEq, Eq)]
enum Flag {
    Unset,
    SoldOut,
    /// The flag's life is over, and this caller is the one to look.
    LookAgain,
}

impl SoldOutFlags {
    fn ask(&self, sale_id: SaleId, now: Timestamp) -> Flag {
        let flags = self.flags.read().unwrap_or_else(PoisonError::into_inner);
        let Some(until) = flags.get(&sale_id) else {
            return Flag::Unset;
        };
        let seen = until.load(Ordering::Relaxed);
        if now.epoch_ms() < seen {
            return Flag::SoldOut;
        }
        let next = now.plus_ms(self.life_ms).epoch_ms();
        match until.compare_exchange(seen, next, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => Flag::LookAgain,
            Err(_) => Flag::SoldOut,
        }
    }

    fn set(&self, sale_id: SaleId, now: Timestamp) {
        let until = now.plus_ms(self.life_ms).epoch_ms();
        self.flags.write().unwrap_or_else(PoisonError::into_inner).insert(sale_id, AtomicI64::new(until));
    }

    fn clear(&self, sale_id: SaleId) {
        self.flags.write().unwrap_or_else(PoisonError::into_inner).remove(&sale_id);
    }
}

impl App {
    /// Whether the sale is sold out, from memory; now and then one caller asks the admission store for all.
    pub(super) async fn is_sold_out(&self, sale_id: SaleId) -> Result<bool, Problem> {
        match self.catalog.sold_out.ask(sale_id, self.now()) {
            Flag::Unset => Ok(false),
            Flag::SoldOut => Ok(true),
            Flag::LookAgain => match self.ports.admission.state(sale_id).await? {
                AdmissionState::Open { stock, reserved, settled, .. } if reserved.saturating_add(settled) >= stock => Ok(true),
                _ => {
                    self.catalog.sold_out.clear(sale_id);
                    Ok(false)
                }
            },
        }
    }

    /// Notes that the admission store had no unit left.
    pub(super) fn note_sold_out(&self, sale_id: SaleId) {
        self.catalog.sold_out.set(sale_id, self.now());
    }

    /// A sale page.
    ///
    /// # Errors
    /// `not-found`, `rate-limited`, `banned`, `unavailable`.
    pub async fn sale_page(&self, client: &Client, sale_id: SaleId) -> Result<SaleView, Problem> {
        if !self.catalog.knows(sale_id) {
            // What is in memory is free; made-up ids, which are not, are limited.
            self.enter_reader(client).await?;
        }
        let sale = self.sale(sale_id).await?;
        self.view(&sale).await
    }

    /// Sale pages, newest first, and where the next ones begin.
    ///
    /// # Errors
    /// `rate-limited`, `banned`, `unavailable`.
    pub async fn sale_list(&self, client: &Client, before: Option<SaleId>, limit: u32) -> Result<(Vec<SaleView>, Option<SaleId>), Problem> {
        if !self.catalog.lists.contains_key(&(before, limit)) {
            self.enter_reader(client).await?;
        }
        let sales = self
            .catalog
            .lists
            .try_get_with((before, limit), async { self.ports.sales.list(before, limit).await.map(Arc::new) })
            .await
            .map_err(|error: Arc<StoreError>| Problem::from((*error).clone()))?;
        let mut views = Vec::with_capacity(sales.len());
        for sale in sales.iter() {
            views.push(self.view(sale).await?);
        }
        let full = sales.len() == limit as usize;
        Ok((views, sales.last().filter(|_| full).map(|sale| sale.sale_id)))
    }

    /// The sale, from memory, from the shared cache, or from SQL.
    pub(super) async fn sale(&self, sale_id: SaleId) -> Result<Arc<Sale>, Problem> {
        let found = self
            .catalog
            .sales
            .try_get_with(sale_id, self.read_sale(sale_id))
            .await
            .map_err(|error: Arc<StoreError>| Problem::from((*error).clone()))?;
        found.ok_or(Problem::NotFound)
    }

    async fn read_sale(&self, sale_id: SaleId) -> Result<Option<Arc<Sale>>, StoreError> {
        let key = cache_key(sale_id);
        let now = self.now();
        match self.ports.cache.get(&key, now).await {
            Ok(Some(bytes)) => match serde_json::from_slice(&bytes) {
                Ok(sale) => return Ok(Some(Arc::new(sale))),
                // Written by another version of the product: SQL knows.
                Err(error) => tracing::warn!(%error, key, "unreadable cache entry"),
            },
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "shared cache"),
        }
        let Some(sale) = self.ports.sales.get(sale_id).await? else {
            return Ok(None);
        };
        self.share_sale(&sale, now).await;
        Ok(Some(Arc::new(sale)))
    }

    /// Puts a sale into the shared cache. A cache that does not answer is no reason to fail.
    pub(super) async fn share_sale(&self, sale: &Sale, now: Timestamp) {
        let bytes = serde_json::to_vec(sale).expect("a sale can be written as JSON");
        let ttl_ms = self.config.cache.sale_shared_ms;
        if let Err(error) = self.ports.cache.put(&cache_key(sale.sale_id), sale.version, &bytes, ttl_ms, now).await {
            tracing::warn!(%error, "shared cache");
        }
    }

    async fn view(&self, sale: &Sale) -> Result<SaleView, Problem> {
        let available = self
            .catalog
            .available
            .try_get_with(sale.sale_id, async {
                Ok(match self.ports.admission.state(sale.sale_id).await? {
                    AdmissionState::Open { stock, reserved, settled, .. } => stock.saturating_sub(reserved.saturating_add(settled)),
                    // While it is loaded the ledger's figure is the best there is.
                    AdmissionState::Missing | AdmissionState::Rebuilding { .. } => sale.stock - sale.sold.min(sale.stock),
                })
            })
            .await
            .map_err(|error: Arc<StoreError>| Problem::from((*error).clone()))?;
        let now = self.now();
        Ok(SaleView {
            sale_id: sale.sale_id,
            title: sale.title.clone(),
            description: sale.description.clone(),
            image_url: sale.image_url.clone(),
            price: sale.price,
            original_price: sale.original_price,
            currency: sale.currency,
            stock: sale.stock,
            available,
            per_user_limit: sale.per_user_limit,
            starts_at: sale.starts_at,
            ends_at: sale.ends_at,
            state: sale.state(available, now),
            server_time: now,
        })
    }
}

fn cache_key(sale_id: SaleId) -> String {
    format!("sale:{sale_id}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract;

    #[test]
    fn one_caller_looks_again_when_a_flag_is_old() {
        let flags = SoldOutFlags { flags: RwLock::default(), life_ms: 250 };
        let (sale, start) = (contract::sale_id(), contract::START);
        assert_eq!(flags.ask(sale, start), Flag::Unset);
        flags.set(sale, start);
        assert_eq!(flags.ask(sale, start.plus_ms(249)), Flag::SoldOut);
        assert_eq!(flags.ask(sale, start.plus_ms(250)), Flag::LookAgain);
        assert_eq!(flags.ask(sale, start.plus_ms(250)), Flag::SoldOut);
        flags.clear(sale);
        assert_eq!(flags.ask(sale, start.plus_ms(250)), Flag::Unset);
    }
}
