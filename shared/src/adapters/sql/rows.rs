//! Database rows and the values read from them.

use std::str::FromStr;

use super::{Failure, Value};
use crate::domain::{DrawTerms, Order, Phone, Sale, Timestamp, User};

/// A row of either database. The errors of these methods name the column.
pub(in crate::adapters) trait Row {
    fn text(&self, column: &'static str) -> Result<String, Failure>;
    fn text_or_null(&self, column: &'static str) -> Result<Option<String>, Failure>;
    fn int(&self, column: &'static str) -> Result<i64, Failure>;
    fn int_or_null(&self, column: &'static str) -> Result<Option<i64>, Failure>;
    fn bytes(&self, column: &'static str) -> Result<Vec<u8>, Failure>;

    /// A text that is parsed. The error does not repeat it.
    fn parsed<T: FromStr>(&self, column: &'static str) -> Result<T, Failure> {
        parse(column, &self.text(column)?)
    }

    /// A number as a `T`. An error if it is out of range.
    fn number<T: TryFrom<i64>>(&self, column: &'static str) -> Result<T, Failure> {
        in_range(column, self.int(column)?)
    }

    /// As [`Row::number`], where the column may be NULL.
    fn number_or_null<T: TryFrom<i64>>(&self, column: &'static str) -> Result<Option<T>, Failure> {
        self.int_or_null(column)?.map(|number| in_range(column, number)).transpose()
    }

    /// A time, stored as milliseconds since the epoch.
    fn time(&self, column: &'static str) -> Result<Timestamp, Failure> {
        self.int(column).map(Timestamp::from_epoch_ms)
    }
}

fn in_range<T: TryFrom<i64>>(column: &'static str, number: i64) -> Result<T, Failure> {
    T::try_from(number).map_err(|_| {
        Failure::Corrupt(format!("column {column} holds {number}, which is out of range"))
    })
}

pub(super) fn parse<T: FromStr>(column: &'static str, text: &str) -> Result<T, Failure> {
    text.parse().map_err(|_| {
        Failure::Corrupt(format!("column {column} holds text that has no meaning there"))
    })
}

/// A `u64` as the databases store it.
pub(super) fn signed(what: &'static str, number: u64) -> Result<Value, Failure> {
    i64::try_from(number)
        .map(Value::Int)
        .map_err(|_| Failure::Corrupt(format!("{what} is {number}, which is out of range")))
}

/// A value that can be read from a row.
pub(in crate::adapters) trait FromRow: Sized + Send + Unpin {
    fn from_row(row: &impl Row) -> Result<Self, Failure>;
}

pub(super) const USER_COLUMNS: &str =
    "user_id, phone, password_hash, role, created_at_ms, generation, phone_verified_at_ms";

impl FromRow for User {
    fn from_row(row: &impl Row) -> Result<Self, Failure> {
        Ok(Self {
            user_id: row.parsed("user_id")?,
            phone: row.parsed::<Phone>("phone")?,
            password_hash: row.text("password_hash")?,
            role: row.parsed("role")?,
            created_at: row.time("created_at_ms")?,
            generation: row.number("generation")?,
            phone_verified_at: row
                .int_or_null("phone_verified_at_ms")?
                .map(Timestamp::from_epoch_ms),
        })
    }
}

pub(super) const SALE_COLUMNS: &str = "sale_id, title, description, image_url, price, original_price, currency, stock, sold, \
                                       per_user_limit, starts_at_ms, ends_at_ms, epoch, version, created_at_ms, \
                                       entries_open_at_ms, invite_seconds, seed_hash, beacon, eligible_registered_before_ms, units_per_prefix";

impl FromRow for Sale {
    fn from_row(row: &impl Row) -> Result<Self, Failure> {
        let draw = match row.int_or_null("entries_open_at_ms")? {
            Some(opens) => Some(DrawTerms {
                entries_open_at: Timestamp::from_epoch_ms(opens),
                invite_seconds: row.number("invite_seconds")?,
                seed_hash: row.parsed("seed_hash")?,
                beacon: row.text_or_null("beacon")?,
            }),
            None => None,
        };
        Ok(Self {
            sale_id: row.parsed("sale_id")?,
            title: row.text("title")?,
            description: row.text("description")?,
            image_url: row.text("image_url")?,
            price: row.int("price")?,
            original_price: row.int("original_price")?,
            currency: row.parsed("currency")?,
            stock: row.number("stock")?,
            sold: row.number("sold")?,
            per_user_limit: row.number("per_user_limit")?,
            starts_at: row.time("starts_at_ms")?,
            ends_at: row.time("ends_at_ms")?,
            epoch: row.number("epoch")?,
            version: row.number("version")?,
            created_at: row.time("created_at_ms")?,
            draw,
            eligible_registered_before: row
                .int_or_null("eligible_registered_before_ms")?
                .map(Timestamp::from_epoch_ms),
            units_per_prefix: row.number_or_null("units_per_prefix")?,
        })
    }
}

pub(super) const ORDER_COLUMNS: &str = "order_id, sale_id, user_id, status, reason, cancellation_reason, price, currency, created_at_ms, pay_by_ms, updated_at_ms, version";

/// The columns of an order's origin.
pub(super) const REPORT_COLUMNS: &str = "address_prefix, opened_at_ms";

impl FromRow for Order {
    fn from_row(row: &impl Row) -> Result<Self, Failure> {
        Ok(Self {
            order_id: row.parsed("order_id")?,
            sale_id: row.parsed("sale_id")?,
            user_id: row.parsed("user_id")?,
            status: row.parsed("status")?,
            reason: row.text_or_null("reason")?.map(|text| parse("reason", &text)).transpose()?,
            cancellation_reason: row.text_or_null("cancellation_reason")?,
            price: row.int("price")?,
            currency: row.parsed("currency")?,
            created_at: row.time("created_at_ms")?,
            pay_by: row.int_or_null("pay_by_ms")?.map(Timestamp::from_epoch_ms),
            updated_at: row.time("updated_at_ms")?,
            version: row.number("version")?,
        })
    }
}
