//! The list of sales: built once for all requests within the lifetime of its figures, and answered
//! with the same bytes.

use std::{
    io::Write as _,
    sync::{Arc, LazyLock, OnceLock},
    time::Duration,
};

use flate2::{Compression, write::GzEncoder};
use ring::digest;

use crate::{
    api::{ListedSale, SaleList},
    app::{App, Client, limits::RateLimit, local_cache::LocalCache},
    config::CacheTimes,
    domain::{Sale, SaleId, Timestamp},
    metrics::CacheCounts,
    ports::StoreError,
    problem::Problem,
};

static LIST: LazyLock<CacheCounts> = LazyLock::new(|| CacheCounts::new("sale_list"));

/// Most pages kept in memory.
const PAGES_MAX: usize = 100;

/// Where a page begins, and how many sales it has at most.
type Key = (Option<SaleId>, u32);

/// JSON that is sent to many clients.
#[derive(Debug)]
pub struct CachedJson {
    plain: Arc<[u8]>,
    gzip: OnceLock<Arc<[u8]>>,
    tag: String,
}

impl CachedJson {
    /// The bytes.
    #[must_use]
    pub fn plain(&self) -> Arc<[u8]> {
        Arc::clone(&self.plain)
    }

    /// The bytes compressed with gzip, on first use.
    #[must_use]
    pub fn gzip(&self) -> Arc<[u8]> {
        let compress = || {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            let written = encoder.write_all(&self.plain).and_then(|()| encoder.finish());
            written.expect("writing to memory does not fail").into()
        };
        Arc::clone(self.gzip.get_or_init(compress))
    }

    /// A weak entity tag: the same for pages that differ only in `server_time`.
    #[must_use]
    pub fn tag(&self) -> &str {
        &self.tag
    }
}

impl SaleList {
    fn cached(self) -> CachedJson {
        let plain = serde_json::to_vec(&self).expect("a list of sales can be written as JSON");
        let mut timeless = self;
        for sale in &mut timeless.sales {
            sale.server_time = Timestamp::from_epoch_ms(0);
        }
        let timeless =
            serde_json::to_vec(&timeless).expect("a list of sales can be written as JSON");
        let hash = digest::digest(&digest::SHA256, &timeless);
        let hex: String = hash.as_ref().iter().take(12).map(|byte| format!("{byte:02x}")).collect();
        CachedJson { plain: plain.into(), gzip: OnceLock::new(), tag: format!("W/\"{hex}\"") }
    }
}

/// The pages in this process's memory.
pub(in crate::app) struct SaleLists {
    /// The sales of a page, kept for the lifetime of a sale's text.
    sales: LocalCache<Key, Arc<Vec<Sale>>, StoreError>,
    /// The page as it is sent, kept for the lifetime of its figures.
    pages: LocalCache<Key, Arc<CachedJson>, Problem>,
}

impl SaleLists {
    pub(in crate::app) fn new(times: &CacheTimes) -> Self {
        let page_ms = times.sold_out_ms.min(times.sale_local_ms);
        Self {
            sales: LocalCache::new(PAGES_MAX, Duration::from_millis(times.sale_local_ms)),
            pages: LocalCache::new(PAGES_MAX, Duration::from_millis(page_ms)),
        }
    }

    pub(in crate::app) fn forget(&self) {
        self.sales.clear();
        self.pages.clear();
    }
}

impl App {
    /// A page of the list of sales, newest first.
    ///
    /// # Errors
    /// `rate-limited`, `banned`, `unavailable`.
    pub async fn sale_list(
        &self,
        client: &Client,
        before: Option<SaleId>,
        limit: u32,
    ) -> Result<Arc<CachedJson>, Problem> {
        let (key, lists) = ((before, limit), self.catalog.lists());
        if lists.sales.has(&key) {
            self.enter_memory(client, None, RateLimit::Address).await?;
        } else {
            self.enter_reader(client).await?;
        }
        LIST.lookups.increment(1);
        let page = lists
            .pages
            .load(key, async { self.make_list(key).await.map(|list| Arc::new(list.cached())) })
            .await;
        page.map_err(|problem: Arc<Problem>| (*problem).clone())
    }

    async fn make_list(&self, key: Key) -> Result<SaleList, Problem> {
        LIST.misses.increment(1);
        let (before, limit) = key;
        let read = self
            .catalog
            .lists()
            .sales
            .load(key, async { self.ports.sales.list(before, limit).await.map(Arc::new) })
            .await;
        let sales = read.map_err(|error: Arc<StoreError>| Problem::from((*error).clone()))?;
        let mut listed = Vec::with_capacity(sales.len());
        for sale in sales.iter() {
            listed.push(ListedSale::from(self.view(sale).await?));
        }
        let full = sales.len() == limit as usize;
        Ok(SaleList {
            sales: listed,
            next_cursor: sales.last().filter(|_| full).map(|sale| sale.sale_id),
        })
    }
}
