//! The admission store in SQLite.
//!
//! The writer runs its work strictly one after another, so each piece is atomic by itself and may read, decide and
//! write. A claim that is refused is refused by a reader already, so that the crowd that comes too late does not stand
//! in the writer's queue in front of the orders.

use std::{collections::BTreeSet, fmt::Display};

use async_trait::async_trait;
use sqlx::{Row as _, SqliteConnection, sqlite::SqliteRow};

use super::{Sqlite, stored};
use crate::{
    domain::{
        AdmissionDecision, AdmissionState, AdmittedOrder, Availability, Currency, OrderId,
        Reservation, ReservationPage, SaleId, SaleTerms, TicketClaims, Timestamp, UserId,
    },
    ports::{Admission, StoreError, Stored},
};

/// Orders per piece of work, so that a long list does not hold up everybody else.
const BATCH_MAX: usize = 500;

fn corrupt(cause: impl Display) -> StoreError {
    StoreError::Corrupt { store: "SQLite", cause: cause.to_string() }
}

/// Epochs and versions: SQLite's integers are signed.
fn signed(number: u64) -> Stored<i64> {
    i64::try_from(number).map_err(corrupt)
}

fn number<T: TryFrom<i64, Error: Display>>(row: &SqliteRow, column: &str) -> Stored<T> {
    T::try_from(row.try_get::<i64, _>(column).map_err(stored)?).map_err(corrupt)
}

fn time(row: &SqliteRow, column: &str) -> Stored<Timestamp> {
    row.try_get(column).map(Timestamp::from_epoch_ms).map_err(stored)
}

fn parsed<T: std::str::FromStr<Err: Display>>(row: &SqliteRow, column: &str) -> Stored<T> {
    row.try_get::<&str, _>(column).map_err(stored)?.parse().map_err(corrupt)
}

/// Reads `order_id, user_id, price, currency, admitted_at_ms, traceparent, watched_ms`.
fn reservation(sale_id: SaleId, row: &SqliteRow) -> Stored<Reservation> {
    Ok(Reservation {
        order: AdmittedOrder {
            order_id: parsed(row, "order_id")?,
            sale_id,
            user_id: parsed(row, "user_id")?,
            price: number(row, "price")?,
            currency: parsed(row, "currency")?,
            admitted_at: time(row, "admitted_at_ms")?,
            traceparent: row.try_get("traceparent").map_err(stored)?,
        },
        settled: row.try_get::<Option<i64>, _>("watched_ms").map_err(stored)?.is_none(),
    })
}

/// A ticket at one moment.
struct Claim {
    sale_id: SaleId,
    order_id: OrderId,
    user_id: UserId,
    ticket_expired: bool,
    now: Timestamp,
}

/// What stands against a claim, or the terms at which it can be met.
enum Verdict {
    Answer(AdmissionDecision),
    Room { price: i64, currency: Currency },
}

async fn judge(connection: &mut SqliteConnection, claim: &Claim) -> Stored<Verdict> {
    const SQL: &str = "
        SELECT o.order_id, o.user_id, o.price, o.currency, o.admitted_at_ms, o.traceparent, o.watched_ms,
               e.order_id IS NOT NULL AS ended,
               s.state, s.starts_at_ms, s.ends_at_ms, s.per_user_limit, s.stock, s.held, s.price AS sale_price, s.currency AS sale_currency,
               (SELECT COUNT(*) FROM admission_orders b WHERE b.sale_id = ?1 AND b.user_id = ?3) AS mine,
               (SELECT b.order_id FROM admission_orders b WHERE b.sale_id = ?1 AND b.user_id = ?3 ORDER BY b.place LIMIT 1) AS bought
        FROM (SELECT 1)
        LEFT JOIN admission_orders o ON o.sale_id = ?1 AND o.order_id = ?2
        LEFT JOIN admission_ended e ON e.sale_id = ?1 AND e.order_id = ?2
        LEFT JOIN admission_sales s ON s.sale_id = ?1";
    let row = sqlx::query(SQL)
        .bind(claim.sale_id.to_string())
        .bind(claim.order_id.to_string())
        .bind(claim.user_id.to_string())
        .fetch_one(connection)
        .await
        .map_err(stored)?;
    let held: Option<&str> = row.try_get("order_id").map_err(stored)?;
    if held.is_some() {
        return Ok(Verdict::Answer(AdmissionDecision::Again(reservation(claim.sale_id, &row)?)));
    }
    if row.try_get("ended").map_err(stored)? {
        return Ok(Verdict::Answer(AdmissionDecision::Ended));
    }
    if row.try_get::<Option<&str>, _>("state").map_err(stored)? != Some("open") {
        return Ok(Verdict::Answer(AdmissionDecision::Closed));
    }
    if claim.ticket_expired {
        return Ok(Verdict::Answer(AdmissionDecision::TicketExpired));
    }
    let starts_at = time(&row, "starts_at_ms")?;
    if claim.now < starts_at {
        return Ok(Verdict::Answer(AdmissionDecision::NotOpen { starts_at }));
    }
    if claim.now >= time(&row, "ends_at_ms")? {
        return Ok(Verdict::Answer(AdmissionDecision::SaleEnded));
    }
    let mine: i64 = number(&row, "mine")?;
    if mine > 0 && mine >= number(&row, "per_user_limit")? {
        return Ok(Verdict::Answer(AdmissionDecision::AlreadyBought {
            order_id: parsed(&row, "bought")?,
        }));
    }
    if number::<i64>(&row, "held")? >= number(&row, "stock")? {
        return Ok(Verdict::Answer(AdmissionDecision::SoldOut));
    }
    Ok(Verdict::Room {
        price: number(&row, "sale_price")?,
        currency: parsed(&row, "sale_currency")?,
    })
}

/// Adds an order unless it has ended. One that is there is left as it is, but settled when `watched` is `None`.
async fn add(
    connection: &mut SqliteConnection,
    sale_id: SaleId,
    request: &AdmittedOrder,
    watched: Option<Timestamp>,
) -> Stored<()> {
    const SQL: &str = "
        INSERT INTO admission_orders (sale_id, order_id, user_id, price, currency, admitted_at_ms, traceparent, watched_ms)
        SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8
        WHERE NOT EXISTS (SELECT 1 FROM admission_ended WHERE sale_id = ?1 AND order_id = ?2)
        ON CONFLICT (sale_id, order_id) DO UPDATE SET watched_ms = NULL WHERE excluded.watched_ms IS NULL AND watched_ms IS NOT NULL";
    sqlx::query(SQL)
        .bind(sale_id.to_string())
        .bind(request.order_id.to_string())
        .bind(request.user_id.to_string())
        .bind(request.price)
        .bind(request.currency.to_string())
        .bind(request.admitted_at.epoch_ms())
        .bind(request.traceparent.clone())
        .bind(watched.map(Timestamp::epoch_ms))
        .execute(connection)
        .await
        .map_err(stored)?;
    Ok(())
}

async fn reserve(connection: &mut SqliteConnection, claim: &Claim) -> Stored<AdmissionDecision> {
    let (price, currency) = match judge(connection, claim).await? {
        Verdict::Answer(answer) => return Ok(answer),
        Verdict::Room { price, currency } => (price, currency),
    };
    let request = AdmittedOrder {
        order_id: claim.order_id,
        sale_id: claim.sale_id,
        user_id: claim.user_id,
        price,
        currency,
        admitted_at: claim.now,
        traceparent: None,
    };
    add(connection, claim.sale_id, &request, Some(claim.now)).await?;
    Ok(AdmissionDecision::Reserved(request))
}

/// State and epoch of a sale that the store knows.
async fn known(
    connection: &mut SqliteConnection,
    sale_id: SaleId,
) -> Stored<Option<(String, u64)>> {
    let row = sqlx::query("SELECT state, epoch FROM admission_sales WHERE sale_id = ?")
        .bind(sale_id.to_string())
        .fetch_optional(connection)
        .await
        .map_err(stored)?;
    row.map(|row| Ok((row.try_get("state").map_err(stored)?, number(&row, "epoch")?))).transpose()
}

/// Replaces the terms unless the store has newer ones.
async fn put_terms(connection: &mut SqliteConnection, terms: &SaleTerms) -> Stored<()> {
    const SQL: &str = "
        UPDATE admission_sales
        SET version = ?2, stock = ?3, per_user_limit = ?4, price = ?5, currency = ?6, starts_at_ms = ?7, ends_at_ms = ?8
        WHERE sale_id = ?1 AND version <= ?2";
    sqlx::query(SQL)
        .bind(terms.sale_id.to_string())
        .bind(signed(terms.version)?)
        .bind(terms.stock)
        .bind(terms.per_user_limit)
        .bind(terms.price)
        .bind(terms.currency.to_string())
        .bind(terms.starts_at.epoch_ms())
        .bind(terms.ends_at.epoch_ms())
        .execute(connection)
        .await
        .map_err(stored)?;
    Ok(())
}

async fn release(
    connection: &mut SqliteConnection,
    sale_id: SaleId,
    order_id: OrderId,
) -> Stored<()> {
    for sql in [
        "INSERT OR IGNORE INTO admission_ended (sale_id, order_id) VALUES (?, ?)",
        "DELETE FROM admission_orders WHERE sale_id = ? AND order_id = ?",
    ] {
        sqlx::query(sql)
            .bind(sale_id.to_string())
            .bind(order_id.to_string())
            .execute(&mut *connection)
            .await
            .map_err(stored)?;
    }
    Ok(())
}

impl Sqlite {
    /// One batch of `settle` (epoch `None`) or `restore`; whether the state allowed it.
    async fn settle_batch(
        &self,
        sale_id: SaleId,
        epoch: Option<u64>,
        active: &[AdmittedOrder],
    ) -> Stored<bool> {
        let active = active.to_vec();
        self.write(move |connection| {
            Box::pin(async move {
                let allowed = match (known(connection, sale_id).await?, epoch) {
                    (None, _) => false,
                    (Some(_), None) => true,
                    (Some((state, found)), Some(epoch)) => state == "rebuilding" && found == epoch,
                };
                if allowed {
                    for request in &active {
                        add(connection, sale_id, request, None).await?;
                    }
                }
                Ok(allowed)
            })
        })
        .await
    }
}

#[async_trait]
impl Admission for Sqlite {
    async fn reserve(&self, ticket: &TicketClaims, now: Timestamp) -> Stored<AdmissionDecision> {
        let claim = Claim {
            sale_id: ticket.sale_id,
            order_id: ticket.order_id,
            user_id: ticket.user_id,
            ticket_expired: ticket.expired(now),
            now,
        };
        let mut reader = self.readers().acquire().await.map_err(stored)?;
        if let Verdict::Answer(answer) = judge(&mut reader, &claim).await? {
            return Ok(answer);
        }
        drop(reader);

        self.write(move |connection| Box::pin(async move { reserve(connection, &claim).await }))
            .await
    }

    async fn look(&self, sale_id: SaleId, user_id: UserId) -> Stored<Option<Availability>> {
        const SQL: &str = "
            SELECT MAX(0, s.stock - s.held) AS available, s.per_user_limit,
                   s.held + (SELECT COUNT(*) FROM admission_ended e WHERE e.sale_id = ?1) AS admissions,
                   (SELECT COUNT(*) FROM admission_orders b WHERE b.sale_id = ?1 AND b.user_id = ?2) AS mine,
                   (SELECT b.order_id FROM admission_orders b WHERE b.sale_id = ?1 AND b.user_id = ?2 ORDER BY b.place LIMIT 1) AS bought
            FROM admission_sales s WHERE s.sale_id = ?1 AND s.state = 'open'";
        let row = sqlx::query(SQL)
            .bind(sale_id.to_string())
            .bind(user_id.to_string())
            .fetch_optional(self.readers())
            .await
            .map_err(stored)?;
        let Some(row) = row else {
            return Ok(None);
        };
        let mine: i64 = number(&row, "mine")?;
        let full = mine > 0 && mine >= number(&row, "per_user_limit")?;
        let already_bought = if full { Some(parsed(&row, "bought")?) } else { None };
        Ok(Some(Availability {
            available: number(&row, "available")?,
            already_bought,
            admissions: number(&row, "admissions")?,
        }))
    }

    async fn find(&self, sale_id: SaleId, order_id: OrderId) -> Stored<Option<Reservation>> {
        let row = sqlx::query("SELECT * FROM admission_orders WHERE sale_id = ? AND order_id = ?")
            .bind(sale_id.to_string())
            .bind(order_id.to_string())
            .fetch_optional(self.readers())
            .await
            .map_err(stored)?;
        row.map(|row| reservation(sale_id, &row)).transpose()
    }

    async fn find_many(&self, sale_id: SaleId, order_ids: &[OrderId]) -> Stored<Vec<Reservation>> {
        let mut found = Vec::with_capacity(order_ids.len());
        let asked: Vec<OrderId> =
            order_ids.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
        for batch in asked.chunks(BATCH_MAX) {
            let texts: Vec<String> =
                batch.iter().map(|order_id| format!("\"{order_id}\"")).collect();
            let rows = sqlx::query("SELECT * FROM admission_orders WHERE sale_id = ? AND order_id IN (SELECT value FROM json_each(?))")
                .bind(sale_id.to_string())
                .bind(format!("[{}]", texts.join(",")))
                .fetch_all(self.readers())
                .await
                .map_err(stored)?;
            for row in &rows {
                found.push(reservation(sale_id, row)?);
            }
        }
        Ok(found)
    }

    async fn settle(&self, sale_id: SaleId, active: &[AdmittedOrder]) -> Stored<()> {
        for batch in active.chunks(BATCH_MAX) {
            if !self.settle_batch(sale_id, None, batch).await? {
                break;
            }
        }
        Ok(())
    }

    async fn release(&self, sale_id: SaleId, order_ids: &[OrderId]) -> Stored<()> {
        for batch in order_ids.chunks(BATCH_MAX) {
            let batch = batch.to_vec();
            self.write(move |connection| {
                Box::pin(async move {
                    for order_id in batch {
                        release(connection, sale_id, order_id).await?;
                    }
                    Ok(())
                })
            })
            .await?;
        }
        Ok(())
    }

    async fn claim_overdue(
        &self,
        sale_id: SaleId,
        before: Timestamp,
        now: Timestamp,
        limit: u32,
    ) -> Stored<Vec<Reservation>> {
        const SQL: &str = "
            SELECT * FROM admission_orders
            WHERE sale_id = ? AND watched_ms IS NOT NULL AND watched_ms <= ? ORDER BY watched_ms, order_id LIMIT ?";
        self.write(move |connection| {
            Box::pin(async move {
                let rows = sqlx::query(SQL)
                    .bind(sale_id.to_string())
                    .bind(before.epoch_ms())
                    .bind(limit)
                    .fetch_all(&mut *connection)
                    .await
                    .map_err(stored)?;
                let mut claimed = Vec::with_capacity(rows.len());
                for row in &rows {
                    claimed.push(reservation(sale_id, row)?);
                    sqlx::query("UPDATE admission_orders SET watched_ms = ? WHERE place = ?")
                        .bind(now.epoch_ms())
                        .bind(row.try_get::<i64, _>("place").map_err(stored)?)
                        .execute(&mut *connection)
                        .await
                        .map_err(stored)?;
                }
                Ok(claimed)
            })
        })
        .await
    }

    async fn reservations(
        &self,
        sale_id: SaleId,
        cursor: u64,
        limit: u32,
    ) -> Stored<ReservationPage> {
        let limit = limit.max(1) as usize;
        // One more than asked for tells whether a page follows.
        let mut rows = sqlx::query(
            "SELECT * FROM admission_orders WHERE sale_id = ? AND place > ? ORDER BY place LIMIT ?",
        )
        .bind(sale_id.to_string())
        .bind(signed(cursor)?)
        .bind(i64::try_from(limit + 1).map_err(corrupt)?)
        .fetch_all(self.readers())
        .await
        .map_err(stored)?;
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| more).map(|row| number(row, "place")).transpose()?;
        Ok(ReservationPage {
            reservations: rows
                .iter()
                .map(|row| reservation(sale_id, row))
                .collect::<Stored<_>>()?,
            next,
        })
    }

    async fn state(&self, sale_id: SaleId) -> Stored<AdmissionState> {
        const SQL: &str = "
            SELECT state, epoch, since_ms, version, stock, settled, held - settled AS reserved FROM admission_sales WHERE sale_id = ?";
        let row = sqlx::query(SQL)
            .bind(sale_id.to_string())
            .fetch_optional(self.readers())
            .await
            .map_err(stored)?;
        let Some(row) = row else {
            return Ok(AdmissionState::Missing);
        };
        let epoch = number(&row, "epoch")?;
        if row.try_get::<&str, _>("state").map_err(stored)? == "rebuilding" {
            return Ok(AdmissionState::Rebuilding { epoch, since: time(&row, "since_ms")? });
        }
        Ok(AdmissionState::Open {
            epoch,
            version: number(&row, "version")?,
            stock: number(&row, "stock")?,
            reserved: number(&row, "reserved")?,
            settled: number(&row, "settled")?,
        })
    }

    async fn begin_rebuild(&self, terms: &SaleTerms, epoch: u64, now: Timestamp) -> Stored<bool> {
        const SQL: &str = "
            INSERT INTO admission_sales (sale_id, state, epoch, since_ms, version, stock, per_user_limit, price, currency, starts_at_ms, ends_at_ms)
            VALUES (?, 'rebuilding', ?, ?, 0, 0, 0, 0, '', 0, 0)
            ON CONFLICT (sale_id) DO UPDATE SET state = excluded.state, epoch = excluded.epoch, since_ms = excluded.since_ms
            WHERE state = 'rebuilding' AND epoch < excluded.epoch";
        let terms = terms.clone();
        self.write(move |connection| {
            Box::pin(async move {
                let begun = sqlx::query(SQL)
                    .bind(terms.sale_id.to_string())
                    .bind(signed(epoch)?)
                    .bind(now.epoch_ms())
                    .execute(&mut *connection)
                    .await
                    .map_err(stored)?
                    .rows_affected()
                    > 0;
                if begun {
                    put_terms(connection, &terms).await?;
                }
                Ok(begun)
            })
        })
        .await
    }

    async fn restore(&self, sale_id: SaleId, epoch: u64, active: &[AdmittedOrder]) -> Stored<bool> {
        // Also without orders the answer says whether the epoch holds.
        let empty = active.is_empty().then_some(active);
        for batch in active.chunks(BATCH_MAX).chain(empty) {
            if !self.settle_batch(sale_id, Some(epoch), batch).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn finish_rebuild(&self, sale_id: SaleId, epoch: u64) -> Stored<bool> {
        let epoch = signed(epoch)?;
        self.write(move |connection| {
            Box::pin(async move {
                let done = sqlx::query(
                    "UPDATE admission_sales SET state = 'open' WHERE sale_id = ? AND epoch = ?",
                )
                .bind(sale_id.to_string())
                .bind(epoch)
                .execute(connection)
                .await
                .map_err(stored)?;
                Ok(done.rows_affected() > 0)
            })
        })
        .await
    }

    async fn set_terms(&self, terms: &SaleTerms) -> Stored<bool> {
        let terms = terms.clone();
        self.write(move |connection| {
            Box::pin(async move {
                let is_known = known(connection, terms.sale_id).await?.is_some();
                if is_known {
                    put_terms(connection, &terms).await?;
                }
                Ok(is_known)
            })
        })
        .await
    }
}
