//! Sale pages: read from this process's cache, then from the cache that all processes share, then
//! from SQL.
//!
//! Single flight: concurrent callers share one read of a page, so that a sale's first second costs
//! one query per process and not ten thousand.
//!
//! While SQL does not answer, a process works with its last copy of a sale, so that tickets are
//! issued during an outage of the ledger. The admission store has the window, the limit and the
//! price that count for an order.

use std::{
    collections::HashMap,
    sync::{
        Arc, LazyLock, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::Semaphore;

mod last_copies;
mod list;

use last_copies::LastCopies;
pub use list::CachedJson;
use list::SaleLists;

use super::{App, Client, local_cache::LocalCache};
use crate::{
    api::SaleView,
    config::CacheTimes,
    domain::{AdmissionState, Availability, CacheEntry, OrderId, Sale, SaleId, Timestamp, UserId},
    metrics::CacheCounts,
    ports::StoreError,
    problem::Problem,
};

static SALE: LazyLock<CacheCounts> = LazyLock::new(|| CacheCounts::new("sale"));
static AVAILABLE: LazyLock<CacheCounts> = LazyLock::new(|| CacheCounts::new("available"));
static SHARED_SALE: LazyLock<CacheCounts> = LazyLock::new(|| CacheCounts::new("shared_sale"));

/// Most users known to hold no order of a sale, and most orders known not to be recorded, in a
/// process's memory.
const NONE_MAX: usize = 100_000;
/// Most look-ups of refused tickets in the ledger at the same time.
const LOOKUPS_MAX: usize = 8;
/// A flag is no longer trusted when this many of its lives have passed since the last look that
/// succeeded.
const LIVES_UNSEEN_MAX: u64 = 4;
/// Most sold-out flags in a process's memory.
const FLAGS_MAX: usize = 10_000;
/// Most sales in a process's memory.
const LOCAL_SALES_MAX: usize = 10_000;

pub(super) struct Catalog {
    sales: LocalCache<SaleId, Option<Arc<Sale>>, StoreError>,
    last_copies: LastCopies,
    available: LocalCache<SaleId, u32, StoreError>,
    sold_out: SoldOutFlags,
    /// Users who were seen to hold no order of a sale while it was sold out, with the flag of that
    /// time. Only they receive `sold-out` from memory: any other user may be a winner.
    without: LocalCache<(SaleId, UserId), Known>,
    /// Orders that were not in the ledger, so that a refused ticket that is sent repeatedly is
    /// looked up there only once in a while.
    unrecorded: LocalCache<OrderId, Known>,
    pub(super) lookups: Semaphore,
    no_order_ms: u64,
    no_record_ms: u64,
    lists: SaleLists,
}

impl Catalog {
    pub(super) fn new(times: &CacheTimes) -> Self {
        let (sale_life, figure_life) =
            (Duration::from_millis(times.sale_local_ms), Duration::from_millis(times.sold_out_ms));
        // When an entry is evicted. Its own end and the app's clock decide whether it is still
        // valid.
        let kept = |life_ms| Duration::from_millis(life_ms) + Duration::from_secs(60);
        Self {
            sales: LocalCache::new(LOCAL_SALES_MAX, sale_life),
            last_copies: LastCopies::new(times.sale_local_ms),
            available: LocalCache::new(LOCAL_SALES_MAX, figure_life),
            without: LocalCache::new(NONE_MAX, kept(times.no_order_ms)),
            unrecorded: LocalCache::new(NONE_MAX, kept(times.no_record_ms)),
            lookups: Semaphore::new(LOOKUPS_MAX),
            no_order_ms: times.no_order_ms,
            no_record_ms: times.no_record_ms,
            sold_out: SoldOutFlags {
                flags: RwLock::default(),
                number: AtomicU64::new(0),
                life_ms: times.sold_out_ms,
            },
            lists: SaleLists::new(times),
        }
    }

    pub(super) const fn lists(&self) -> &SaleLists {
        &self.lists
    }

    /// Whether the sale's page is in memory.
    pub(super) fn knows(&self, sale_id: SaleId) -> bool {
        self.sales.has(&sale_id)
    }

    /// Whether the user is known to hold no order (or fewer than the limit), since the sale was
    /// last seen to be sold out.
    pub(super) fn is_without(
        &self,
        sale_id: SaleId,
        user_id: UserId,
        flag: FlagNumber,
        now_ms: u64,
    ) -> bool {
        let known = self.without.get(&(sale_id, user_id));
        known.is_some_and(|known| known.flag == flag && now_ms < known.until_ms)
    }

    pub(super) fn note_without(
        &self,
        sale_id: SaleId,
        user_id: UserId,
        flag: FlagNumber,
        now_ms: u64,
    ) {
        self.without
            .insert((sale_id, user_id), Known { flag, until_ms: now_ms + self.no_order_ms });
    }

    /// Forgets what [`Catalog::note_without`] noted: the user has an order now.
    pub(super) fn note_winner(&self, sale_id: SaleId, user_id: UserId) {
        self.without.remove(&(sale_id, user_id));
    }

    /// Whether a recent look-up did not find the order in the ledger.
    pub(super) fn is_unrecorded(&self, order_id: OrderId, now_ms: u64) -> bool {
        self.unrecorded.get(&order_id).is_some_and(|known| now_ms < known.until_ms)
    }

    pub(super) fn note_unrecorded(&self, order_id: OrderId, now_ms: u64) {
        self.unrecorded
            .insert(order_id, Known { flag: FlagNumber(0), until_ms: now_ms + self.no_record_ms });
    }

    /// Whether sales in memory may be older than their time to live, because SQL does not answer.
    pub(super) fn may_be_old(&self, now_ms: u64) -> bool {
        self.last_copies.are_in_use(now_ms)
    }

    /// Forgets a sale that has changed.
    pub(super) fn forget(&self, sale_id: SaleId) {
        self.sales.remove(&sale_id);
        self.last_copies.forget(sale_id);
        self.available.remove(&sale_id);
        self.sold_out.clear(sale_id);
        self.lists.forget();
    }
}

/// A fact that is trusted until a time of the monotonic clock.
#[derive(Debug, Clone, Copy)]
struct Known {
    flag: FlagNumber,
    until_ms: u64,
}

/// Identifies one sold-out flag, from its being set until units are free or were sold again. Facts
/// noted under an earlier flag are not trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FlagNumber(u64);

/// Which sales are sold out, as far as this process knows. A flag is valid for a short time; then
/// one caller asks the store again, while the others are still answered from the flag. All times
/// are the monotonic clock's: a wall clock that is set back must not keep a flag alive.
struct SoldOutFlags {
    flags: RwLock<HashMap<SaleId, SoldOut>>,
    number: AtomicU64,
    life_ms: u64,
}

struct SoldOut {
    number: FlagNumber,
    /// [`Availability::epoch`] and [`Availability::admissions`] when no unit was left: other numbers
    /// mean that a unit may have been bought since, perhaps by a user who was seen to hold no
    /// order.
    seen: (u64, u64),
    /// When the store last said so.
    seen_at_ms: u64,
    /// When the store must be asked again.
    until_ms: AtomicU64,
}

/// A flag's answer to one caller.
#[derive(Debug, PartialEq, Eq)]
enum Flag {
    Unset,
    SoldOut(FlagNumber),
    /// The flag has expired, and this caller must ask the store.
    LookAgain,
}

impl SoldOutFlags {
    fn ask(&self, sale_id: SaleId, now_ms: u64) -> Flag {
        let flags = self.flags.read().unwrap_or_else(PoisonError::into_inner);
        let Some(flag) = flags.get(&sale_id) else {
            return Flag::Unset;
        };
        // The caller that was to look again has failed or is gone: nobody is refused from memory
        // until a look succeeds.
        if now_ms >= flag.seen_at_ms + LIVES_UNSEEN_MAX * self.life_ms {
            return Flag::Unset;
        }
        let seen = flag.until_ms.load(Ordering::Relaxed);
        if now_ms < seen {
            return Flag::SoldOut(flag.number);
        }
        match flag.until_ms.compare_exchange(
            seen,
            now_ms + self.life_ms,
            Ordering::Relaxed,
            Ordering::Relaxed,
        ) {
            Ok(_) => Flag::LookAgain,
            Err(_) => Flag::SoldOut(flag.number),
        }
    }

    fn set(&self, sale_id: SaleId, seen: (u64, u64), now_ms: u64) -> FlagNumber {
        let mut flags = self.flags.write().unwrap_or_else(PoisonError::into_inner);
        if flags.len() >= FLAGS_MAX {
            // Drop the flags of sales that are no longer requested.
            flags.retain(|_, flag| now_ms < flag.until_ms.load(Ordering::Relaxed));
        }
        let known = flags.get(&sale_id).filter(|flag| flag.seen == seen).map(|flag| flag.number);
        let number =
            known.unwrap_or_else(|| FlagNumber(self.number.fetch_add(1, Ordering::Relaxed) + 1));
        flags.insert(
            sale_id,
            SoldOut {
                number,
                seen,
                seen_at_ms: now_ms,
                until_ms: AtomicU64::new(now_ms + self.life_ms),
            },
        );
        number
    }

    fn clear(&self, sale_id: SaleId) {
        self.flags.write().unwrap_or_else(PoisonError::into_inner).remove(&sale_id);
    }
}

impl App {
    /// The sale's sold-out flag, from memory. When it has expired, one caller asks the admission
    /// store for all.
    pub(super) async fn sold_out_flag(
        &self,
        sale_id: SaleId,
        user_id: UserId,
    ) -> Result<Option<FlagNumber>, Problem> {
        match self.catalog.sold_out.ask(sale_id, self.monotonic_ms()) {
            Flag::Unset => Ok(None),
            Flag::SoldOut(flag) => Ok(Some(flag)),
            Flag::LookAgain => match self.ports.admission.look(sale_id, user_id, None).await? {
                Some(look) if look.available == 0 => Ok(Some(self.note_sold_out(sale_id, &look))),
                _ => {
                    self.catalog.sold_out.clear(sale_id);
                    Ok(None)
                }
            },
        }
    }

    /// Notes that the admission store had no unit left.
    pub(super) fn note_sold_out(&self, sale_id: SaleId, look: &Availability) -> FlagNumber {
        self.catalog.sold_out.set(sale_id, (look.epoch, look.admissions), self.monotonic_ms())
    }

    /// A sale page.
    ///
    /// # Errors
    /// `not-found`, `rate-limited`, `banned`, `unavailable`.
    pub async fn sale_page(&self, client: &Client, sale_id: SaleId) -> Result<SaleView, Problem> {
        if !self.catalog.knows(sale_id) {
            // Sales in memory cost nothing. Requests for others are limited, because ids may be
            // made up.
            self.enter_reader(client).await?;
        }
        let sale = self.sale(sale_id).await?;
        self.view(&sale).await
    }

    /// The sale, from memory, from the shared cache, or from SQL.
    pub(super) async fn sale(&self, sale_id: SaleId) -> Result<Arc<Sale>, Problem> {
        SALE.lookups.increment(1);
        let found = self
            .catalog
            .sales
            .load(sale_id, self.read_sale(sale_id))
            .await
            .map_err(|error: Arc<StoreError>| Problem::from((*error).clone()))?;
        found.ok_or(Problem::NotFound)
    }

    async fn read_sale(&self, sale_id: SaleId) -> Result<Option<Arc<Sale>>, StoreError> {
        let sale = self.read_caches(sale_id).await?;
        if let Some(sale) = &sale {
            self.catalog.last_copies.keep(sale);
        }
        Ok(sale)
    }

    async fn read_caches(&self, sale_id: SaleId) -> Result<Option<Arc<Sale>>, StoreError> {
        SALE.misses.increment(1);
        SHARED_SALE.lookups.increment(1);
        let key = cache_key(sale_id);
        let now = self.now();
        match self.ports.cache.get(&key, now).await {
            Ok(Some(bytes)) => match serde_json::from_slice(&bytes) {
                Ok(sale) => return Ok(Some(Arc::new(sale))),
                // Written by another version of the product: read from SQL instead.
                Err(error) => tracing::warn!(%error, key, "unreadable cache entry"),
            },
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "shared cache"),
        }
        SHARED_SALE.misses.increment(1);
        let from_sql = async {
            let found = self.ports.sales.get(sale_id).await?;
            if let Some(sale) = &found {
                self.share_sale(sale, now).await;
            }
            Ok(found.map(Arc::new))
        };
        self.catalog.last_copies.or_last(sale_id, from_sql, || self.monotonic_ms()).await
    }

    /// Stores a sale in the shared cache. A failure is only logged.
    pub(super) async fn share_sale(&self, sale: &Sale, now: Timestamp) {
        let entry = CacheEntry {
            key: cache_key(sale.sale_id),
            version: sale.version,
            value: serde_json::to_vec(sale).expect("a sale can be written as JSON"),
            ttl_ms: self.config.cache.sale_shared_ms,
        };
        if let Err(error) = self.ports.cache.put(&[entry], now).await {
            tracing::warn!(%error, "shared cache");
        }
    }

    pub(super) async fn view(&self, sale: &Sale) -> Result<SaleView, Problem> {
        AVAILABLE.lookups.increment(1);
        let available = self
            .catalog
            .available
            .load(sale.sale_id, async {
                AVAILABLE.misses.increment(1);
                Ok(match self.ports.admission.state(sale.sale_id).await? {
                    AdmissionState::Open { stock, reserved, settled, .. } => {
                        stock.saturating_sub(reserved.saturating_add(settled))
                    }
                    // While the store is being loaded, the ledger's figure is the best available.
                    AdmissionState::Missing | AdmissionState::Rebuilding { .. } => {
                        sale.stock - sale.sold.min(sale.stock)
                    }
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
            allocation: sale.allocation(),
            entries_open_at: sale.draw.as_ref().map(|draw| draw.entries_open_at),
            invite_seconds: sale.draw.as_ref().map(|draw| draw.invite_seconds),
            seed_hash: sale.draw.as_ref().map(|draw| draw.seed_hash),
            beacon: sale.draw.as_ref().and_then(|draw| draw.beacon.clone()),
            eligible_registered_before: sale.eligible_registered_before,
            units_per_prefix: sale.units_per_prefix,
        })
    }
}

fn cache_key(sale_id: SaleId) -> String {
    format!("sale:{sale_id}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn one_caller_looks_again_when_a_flag_is_old() {
        let flags =
            SoldOutFlags { flags: RwLock::default(), number: AtomicU64::new(0), life_ms: 250 };
        let sale = testing::sale_id();
        assert_eq!(flags.ask(sale, 1_000), Flag::Unset);
        let first = flags.set(sale, (1, 7), 1_000);
        assert_eq!(flags.ask(sale, 1_249), Flag::SoldOut(first));
        assert_eq!(flags.ask(sale, 1_250), Flag::LookAgain);
        assert_eq!(flags.ask(sale, 1_250), Flag::SoldOut(first));
        assert_eq!(flags.set(sale, (1, 7), 1_300), first, "the same flag lives on");
        let second = flags.set(sale, (1, 8), 1_310);
        assert_ne!(second, first, "a unit was bought since");
        assert_eq!(flags.ask(sale, 1_320), Flag::SoldOut(second));
        let rebuilt = flags.set(sale, (2, 8), 1_320);
        assert_ne!(rebuilt, second, "the store was rebuilt since");
        assert_eq!(flags.ask(sale, 2_319), Flag::LookAgain);
        assert_eq!(flags.ask(sale, 2_319), Flag::SoldOut(rebuilt));
        assert_eq!(flags.ask(sale, 2_320), Flag::Unset, "no look has succeeded for a second");
        assert_eq!(flags.set(sale, (2, 8), 2_330), rebuilt, "and nothing was bought meanwhile");
        flags.clear(sale);
        assert_eq!(flags.ask(sale, 1_320), Flag::Unset);
        assert_ne!(
            flags.set(sale, (2, 8), 1_320),
            rebuilt,
            "a new flag after the old one was cleared"
        );
    }

    #[test]
    fn flags_are_bounded() {
        let flags =
            SoldOutFlags { flags: RwLock::default(), number: AtomicU64::new(0), life_ms: 250 };
        for turn in 0..3 {
            for _ in 0..FLAGS_MAX {
                flags.set(testing::sale_id(), (1, 0), turn * 1_000);
            }
        }
        assert!(flags.flags.read().unwrap().len() <= FLAGS_MAX);
    }
}
