//! Sales, as shoppers and administrators see them.

use std::{collections::BTreeMap, ops::Range};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::DrawStats;
use crate::domain::{Allocation, Currency, Sale, SaleId, SaleState, SeedHash, Timestamp};

/// A sale as a shopper sees it.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the fields of the API, see API.md")]
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
    pub allocation: Allocation,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entries_open_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invite_seconds: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed_hash: Option<SeedHash>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beacon: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eligible_registered_before: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub units_per_prefix: Option<u32>,
}

/// A sale in the list, without its description.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the fields of the API, see API.md")]
pub struct ListedSale {
    pub sale_id: SaleId,
    pub title: String,
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
    pub allocation: Allocation,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entries_open_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eligible_registered_before: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub units_per_prefix: Option<u32>,
}

impl From<SaleView> for ListedSale {
    fn from(sale: SaleView) -> Self {
        Self {
            sale_id: sale.sale_id,
            title: sale.title,
            image_url: sale.image_url,
            price: sale.price,
            original_price: sale.original_price,
            currency: sale.currency,
            stock: sale.stock,
            available: sale.available,
            per_user_limit: sale.per_user_limit,
            starts_at: sale.starts_at,
            ends_at: sale.ends_at,
            state: sale.state,
            server_time: sale.server_time,
            allocation: sale.allocation,
            entries_open_at: sale.entries_open_at,
            eligible_registered_before: sale.eligible_registered_before,
            units_per_prefix: sale.units_per_prefix,
        }
    }
}

/// A page of the list of sales.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct SaleList {
    /// The sales, newest first.
    pub sales: Vec<ListedSale>,
    /// The cursor of the next page, if there is one.
    #[schema(required)]
    pub next_cursor: Option<SaleId>,
}

/// A sale to create.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the fields of the API, see API.md")]
#[schema(example = json!({
        "title": "Kettle", "price": 12900, "original_price": 25900, "currency": "CNY", "stock": 50, "per_user_limit": 2,
        "starts_at": "2027-01-01T20:00:00+08:00", "ends_at": "2027-01-01T21:00:00+08:00"
    }))]
pub struct NewSale {
    #[schema(min_length = 1, max_length = 200)]
    pub title: String,
    #[serde(default)]
    #[schema(max_length = 4000)]
    pub description: String,
    #[serde(default)]
    #[schema(max_length = 2000, pattern = "^($|https://|/($|[^/]))")]
    pub image_url: String,
    #[schema(minimum = 0, maximum = 1000000000000i64)]
    pub price: i64,
    #[schema(minimum = 0, maximum = 1000000000000i64)]
    pub original_price: Option<i64>,
    pub currency: Option<Currency>,
    #[schema(minimum = 1, maximum = 10000000)]
    pub stock: u32,
    #[schema(minimum = 1, maximum = 100)]
    pub per_user_limit: Option<u32>,
    pub starts_at: Timestamp,
    pub ends_at: Timestamp,
    pub allocation: Option<Allocation>,
    pub entries_open_at: Option<Timestamp>,
    #[schema(minimum = 10, maximum = 86400)]
    pub invite_seconds: Option<u32>,
    #[schema(min_length = 1, max_length = 200)]
    pub beacon: Option<String>,
    pub eligible_registered_before: Option<Timestamp>,
    #[schema(minimum = 1, maximum = 1000000)]
    pub units_per_prefix: Option<u32>,
}

impl NewSale {
    /// A sale to the first who order, one unit for each user, without description or picture.
    #[must_use]
    pub fn new(title: impl Into<String>, price: i64, stock: u32, window: Range<Timestamp>) -> Self {
        Self {
            title: title.into(),
            description: String::new(),
            image_url: String::new(),
            price,
            original_price: None,
            currency: None,
            stock,
            per_user_limit: None,
            starts_at: window.start,
            ends_at: window.end,
            allocation: None,
            entries_open_at: None,
            invite_seconds: None,
            beacon: None,
            eligible_registered_before: None,
            units_per_prefix: None,
        }
    }
}

/// The live figures of a sale.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct SaleStats {
    /// The sale, as the ledger stores it.
    pub sale: Sale,
    /// `open`, `rebuilding` or `missing`.
    #[schema(pattern = "^(open|rebuilding|missing)$")]
    pub admission: &'static str,
    /// Units that can be reserved now.
    pub available: u32,
    /// Units held by orders that the ledger has not yet confirmed.
    pub reserved: u32,
    /// Units held by orders that the ledger has confirmed.
    pub settled: u32,
    /// The number of orders in the ledger by the name of their status.
    pub orders: BTreeMap<String, u64>,
    /// Messages in the queue, of all sales.
    pub queue_waiting: u64,
    /// Parked messages, of all sales.
    pub queue_parked: u64,
    /// When the figures were read.
    pub server_time: Timestamp,
    /// The figures of the draw; absent unless the sale is by draw.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub draw: Option<DrawStats>,
}
