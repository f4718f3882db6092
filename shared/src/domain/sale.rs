//! A sale: a number of units at one price, within one time window.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Allocation, Currency, DrawTerms, Patch, SaleId, Timestamp, UserId, patch::not_null};

/// A sale as the ledger keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Sale {
    /// Its id.
    pub sale_id: SaleId,
    /// Shown to shoppers; 1 to 200 characters.
    pub title: String,
    /// Shown to shoppers; at most 4,000 characters.
    pub description: String,
    /// An `https:` or site-relative address of a picture; empty for none.
    pub image_url: String,
    /// Price of one unit in minor units.
    pub price: i64,
    /// The price without the sale, in minor units; never below `price`.
    pub original_price: i64,
    /// Currency of both prices.
    pub currency: Currency,
    /// Units for sale.
    pub stock: u32,
    /// Units held by active orders; never above `stock`.
    pub sold: u32,
    /// Active orders one user may hold.
    pub per_user_limit: u32,
    /// First instant at which an order is accepted.
    pub starts_at: Timestamp,
    /// First instant at which orders are no longer accepted.
    pub ends_at: Timestamp,
    /// Fencing token of the admission store's contents: raised before every rebuild.
    pub epoch: u64,
    /// Raised with every change of the sale itself (not of `sold` or `epoch`).
    pub version: u64,
    /// When it was created.
    pub created_at: Timestamp,
    /// How its draw works; `None`: units go to the first who order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draw: Option<DrawTerms>,
    /// Only users who registered before this may take part; `None`: everybody may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eligible_registered_before: Option<Timestamp>,
    /// Active orders that may be placed from one network: an IPv4 /24 or an IPv6 /48; `None`: any
    /// number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub units_per_prefix: Option<u32>,
}

/// What the admission store needs to know of a sale.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SaleTerms {
    /// Which sale.
    pub sale_id: SaleId,
    /// Units for sale.
    pub stock: u32,
    /// Active orders one user may hold.
    pub per_user_limit: u32,
    /// Price of one unit in minor units.
    pub price: i64,
    /// Its currency.
    pub currency: Currency,
    /// Start of the window, included.
    pub starts_at: Timestamp,
    /// End of the window, not included.
    pub ends_at: Timestamp,
    /// The sale's `version`: older terms never replace newer ones.
    pub version: u64,
    /// Whether only invited users get a unit.
    pub draw: bool,
    /// Units that orders from one network may hold; `None`: any number.
    pub units_per_prefix: Option<u32>,
}

/// A sale's phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SaleState {
    /// Before `starts_at`.
    Upcoming,
    /// Within the window, with units available.
    Open,
    /// Within the window, with no unit available at the moment.
    SoldOut,
    /// At or after `ends_at`.
    Ended,
}

/// A change of a sale; `None` and [`Patch::Keep`] leave the field as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "stock": 60 }), description = "A JSON merge patch (RFC 7396): an absent field stays; `null` removes `eligible_registered_before` or `units_per_prefix`, and is refused for other fields.")]
pub struct SaleChange {
    /// New title.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false, min_length = 1, max_length = 200)]
    pub title: Option<String>,
    /// New description.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false, max_length = 4000)]
    pub description: Option<String>,
    /// New picture.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false, max_length = 2000, pattern = "^($|https://|/($|[^/]))")]
    pub image_url: Option<String>,
    /// New price in minor units; orders already admitted keep theirs.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false, minimum = 0, maximum = 1000000000000i64)]
    pub price: Option<i64>,
    /// New original price in minor units.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false, minimum = 0, maximum = 1000000000000i64)]
    pub original_price: Option<i64>,
    /// New stock; never below the units already sold.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false, minimum = 1, maximum = 10000000)]
    pub stock: Option<u32>,
    /// New limit per user.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false, minimum = 1, maximum = 100)]
    pub per_user_limit: Option<u32>,
    /// New start.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false)]
    pub starts_at: Option<Timestamp>,
    /// New end.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false)]
    pub ends_at: Option<Timestamp>,
    /// New moment before which users must have registered to take part; `null`: everybody may.
    #[serde(default)]
    #[schema(value_type = Option<Timestamp>)]
    pub eligible_registered_before: Patch<Timestamp>,
    /// New limit per network, orders that exceed it already stay; `null`: any number.
    #[serde(default)]
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 1000000)]
    pub units_per_prefix: Patch<u32>,
}

/// An invalid value in a sale: the field and what is expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {expected}")]
pub struct SaleError {
    /// The JSON field.
    pub field: &'static str,
    /// What is expected.
    pub expected: &'static str,
}

impl Sale {
    /// The epoch under which a new sale is loaded. A higher epoch means that the admission store
    /// has lost data and was rebuilt.
    pub const FIRST_EPOCH: u64 = 1;
    /// Largest stock of one sale.
    pub const STOCK_MAX: u32 = 10_000_000;
    /// Largest limit per user.
    pub const PER_USER_LIMIT_MAX: u32 = 100;
    /// Largest limit per network.
    pub const UNITS_PER_PREFIX_MAX: u32 = 1_000_000;
    /// Largest price in minor units.
    pub const PRICE_MAX: i64 = 1_000_000_000_000;

    /// Checks every rule that concerns the sale alone.
    ///
    /// # Errors
    /// Names the first field that breaks a rule.
    pub fn validate(&self) -> Result<(), SaleError> {
        let rule = |holds: bool, field, expected| {
            if holds { Ok(()) } else { Err(SaleError { field, expected }) }
        };
        let title = self.title.trim();
        rule(
            !title.is_empty() && self.title.chars().count() <= 200,
            "title",
            "1 to 200 characters",
        )?;
        rule(self.description.chars().count() <= 4_000, "description", "at most 4000 characters")?;
        let image = self.image_url.as_str();
        rule(
            image.len() <= 2_000
                && (image.is_empty()
                    || image.starts_with("https://")
                    || (image.starts_with('/') && !image.starts_with("//"))),
            "image_url",
            "empty, an https:// address, or a path starting with /, at most 2000 bytes",
        )?;
        rule(
            (0..=Self::PRICE_MAX).contains(&self.price),
            "price",
            "0 to 1000000000000 minor units",
        )?;
        rule(
            (self.price..=Self::PRICE_MAX).contains(&self.original_price),
            "original_price",
            "not below price, at most 1000000000000 minor units",
        )?;
        rule((1..=Self::STOCK_MAX).contains(&self.stock), "stock", "1 to 10000000 units")?;
        rule(self.sold <= self.stock, "stock", "not below the units already sold")?;
        rule(
            (1..=Self::PER_USER_LIMIT_MAX).contains(&self.per_user_limit),
            "per_user_limit",
            "1 to 100",
        )?;
        rule(
            self.units_per_prefix
                .is_none_or(|limit| (1..=Self::UNITS_PER_PREFIX_MAX).contains(&limit)),
            "units_per_prefix",
            "1 to 1000000",
        )?;
        rule(self.starts_at < self.ends_at, "ends_at", "later than starts_at")?;
        let Some(draw) = &self.draw else { return Ok(()) };
        rule(draw.entries_open_at < self.starts_at, "entries_open_at", "earlier than starts_at")?;
        let lengths = DrawTerms::INVITE_SECONDS_MIN..=DrawTerms::INVITE_SECONDS_MAX;
        rule(lengths.contains(&draw.invite_seconds), "invite_seconds", "10 to 86400 seconds")?;
        let beacon = draw.beacon.as_deref().is_none_or(|text| {
            !text.trim().is_empty() && text.chars().count() <= DrawTerms::BEACON_MAX
        });
        rule(beacon, "beacon", "1 to 200 characters")
    }

    /// How its units are given out.
    #[must_use]
    pub const fn allocation(&self) -> Allocation {
        if self.draw.is_some() { Allocation::Draw } else { Allocation::FirstCome }
    }

    /// The moment before which the user should have registered, if the user did so too late to
    /// take part. A user's id says when the user registered.
    #[must_use]
    pub fn registered_too_late(&self, user_id: UserId) -> Option<Timestamp> {
        self.eligible_registered_before.filter(|before| user_id.made_at() >= *before)
    }

    /// The sale with `change` applied and its version raised.
    ///
    /// # Errors
    /// Names the field whose new value breaks a rule of [`Sale::validate`], or the limit per user
    /// when it is lowered although units are sold: buyers within the old limit must not exceed the
    /// new one.
    pub fn changed(&self, change: &SaleChange) -> Result<Self, SaleError> {
        let SaleChange {
            title,
            description,
            image_url,
            price,
            original_price,
            stock,
            per_user_limit,
            starts_at,
            ends_at,
            eligible_registered_before,
            units_per_prefix,
        } = change.clone();
        let sale = Self {
            title: title.unwrap_or_else(|| self.title.clone()),
            description: description.unwrap_or_else(|| self.description.clone()),
            image_url: image_url.unwrap_or_else(|| self.image_url.clone()),
            price: price.unwrap_or(self.price),
            original_price: original_price.unwrap_or(self.original_price),
            stock: stock.unwrap_or(self.stock),
            per_user_limit: per_user_limit.unwrap_or(self.per_user_limit),
            starts_at: starts_at.unwrap_or(self.starts_at),
            ends_at: ends_at.unwrap_or(self.ends_at),
            eligible_registered_before: eligible_registered_before
                .applied_to(self.eligible_registered_before),
            units_per_prefix: units_per_prefix.applied_to(self.units_per_prefix),
            version: self.version + 1,
            ..self.clone()
        };
        if self.sold > 0 && sale.per_user_limit < self.per_user_limit {
            return Err(SaleError {
                field: "per_user_limit",
                expected: "not lowered once units are sold",
            });
        }
        sale.validate()?;
        Ok(sale)
    }

    /// What the admission store needs.
    #[must_use]
    pub fn terms(&self) -> SaleTerms {
        SaleTerms {
            sale_id: self.sale_id,
            stock: self.stock,
            per_user_limit: self.per_user_limit,
            price: self.price,
            currency: self.currency,
            starts_at: self.starts_at,
            ends_at: self.ends_at,
            version: self.version,
            draw: self.draw.is_some(),
            units_per_prefix: self.units_per_prefix,
        }
    }

    /// The sale's phase at `now`, with `available` units left.
    #[must_use]
    pub fn state(&self, available: u32, now: Timestamp) -> SaleState {
        if now < self.starts_at {
            SaleState::Upcoming
        } else if now >= self.ends_at {
            SaleState::Ended
        } else if available == 0 {
            SaleState::SoldOut
        } else {
            SaleState::Open
        }
    }
}

/// The outcome of changing a sale in the ledger.
#[expect(clippy::large_enum_variant, reason = "one is made per change of a sale, and read at once")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SaleChanged {
    /// Stored; the sale as it is now.
    Changed(Sale),
    /// No such sale.
    NotFound,
    /// The change breaks a rule of [`Sale::changed`]; nothing was stored.
    Refused(SaleError),
}

/// Identifies a creation request, so that the ledger recognises its repetition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreationKey {
    /// A digest of the caller and the caller's key, 64 characters.
    pub key: String,
    /// A digest of the request, 64 characters.
    pub request: String,
}

/// The outcome of creating a sale under a [`CreationKey`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaleCreated {
    /// Stored now, or by an earlier call with the same key and request.
    Created {
        /// The id of the sale that is stored.
        sale_id: SaleId,
        /// When it was created.
        created_at: Timestamp,
    },
    /// The key was used for another request; nothing was stored.
    OtherRequest,
}
