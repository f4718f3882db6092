//! The order queue as a table. Who holds which message is kept in memory: one process owns the file, so after its
//! restart nobody holds anything, and every message is there again.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use sqlx::{Row as _, SqliteConnection};
use tokio::{
    sync::Notify,
    time::{Instant, timeout, timeout_at},
};

use super::{Sqlite, stored};
use crate::{
    domain::{AdmittedOrder, ConsumerProgress, Delivery, QueueBacklog, QueueDepth, QueueMessage},
    ports::{OrderQueue, OrderSource, PUBLISH_LIMIT_MS, StoreError, Stored},
};

/// How often a message is handed back before it is parked.
const ATTEMPTS_MAX: i64 = 50;
/// Most messages that are given out at once.
const RECEIVE_MAX: u32 = 2_000;
/// Longest wait for a first message, whatever the caller says.
const WAIT_MAX: Duration = Duration::from_secs(3_600);

/// What the queue knows in memory.
pub(super) struct Queue {
    /// Rings when a message may have become visible.
    visible: Notify,
    /// One look for visible messages at a time, so that none is given out twice.
    looking: tokio::sync::Mutex<()>,
    /// What was given out, by the tag of the delivery. A tag is used once: an old one says nothing about a new delivery.
    held: Mutex<BTreeMap<u64, GivenOut>>,
    tags: AtomicU64,
    /// The last message of earlier runs.
    before: i64,
}

struct GivenOut {
    message_id: i64,
    /// Whether its verdict is being written; another is ignored.
    settling: bool,
}

impl Queue {
    /// Reads what earlier runs have left.
    pub(super) async fn load(connection: &mut SqliteConnection) -> sqlx::Result<Self> {
        let before = sqlx::query_scalar("SELECT coalesce(max(message_id), 0) FROM queue_messages")
            .fetch_one(connection)
            .await?;
        Ok(Self {
            visible: Notify::new(),
            looking: tokio::sync::Mutex::default(),
            held: Mutex::default(),
            tags: AtomicU64::new(0),
            before,
        })
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<u64, GivenOut>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The messages of those tags that are held and have no verdict yet.
    fn verdict(&self, tags: &[u64]) -> Verdict<'_> {
        let mut held = self.held();
        let mut verdict = Verdict { queue: self, tags: Vec::new(), ids: Vec::new(), off: false };
        for tag in tags {
            if let Some(delivery) = held.get_mut(tag).filter(|delivery| !delivery.settling) {
                delivery.settling = true;
                verdict.tags.push(*tag);
                verdict.ids.push(delivery.message_id);
            }
        }
        verdict
    }
}

/// Messages that are being taken off or handed back. Whatever comes of it, they are not held afterwards: what is still
/// in the table is visible again.
struct Verdict<'q> {
    queue: &'q Queue,
    tags: Vec<u64>,
    ids: Vec<i64>,
    /// Whether they are known to be off the table.
    off: bool,
}

impl Drop for Verdict<'_> {
    fn drop(&mut self) {
        let mut held = self.queue.held();
        for tag in &self.tags {
            held.remove(tag);
        }
        drop(held);
        if !self.off {
            self.queue.visible.notify_one();
        }
    }
}

fn json(ids: &[i64]) -> String {
    let texts: Vec<String> = ids.iter().map(i64::to_string).collect();
    format!("[{}]", texts.join(","))
}

#[async_trait]
impl OrderQueue for Sqlite {
    async fn publish(&self, orders: &[AdmittedOrder]) -> Stored<()> {
        if orders.is_empty() {
            return Ok(());
        }
        let message = QueueMessage { v: QueueMessage::VERSION, orders: orders.to_vec() };
        let body = serde_json::to_vec(&message).map_err(|error| StoreError::Unavailable {
            store: "SQLite",
            cause: error.to_string(),
        })?;
        let written = self.write(move |connection| {
            Box::pin(async move {
                sqlx::query("INSERT INTO queue_messages (body) VALUES (?)")
                    .bind(body)
                    .execute(connection)
                    .await
                    .map_err(stored)?;
                Ok(())
            })
        });
        let outcome =
            timeout(Duration::from_millis(PUBLISH_LIMIT_MS), written).await.unwrap_or_else(|_| {
                Err(StoreError::Unknown {
                    store: "SQLite",
                    cause: format!("no answer within {PUBLISH_LIMIT_MS} ms"),
                })
            });
        // Also after an error: the message may be there all the same.
        self.queue().visible.notify_one();
        outcome
    }

    async fn park(&self, body: &[u8], reason: &str) -> Stored<()> {
        let (body, reason) = (body.to_vec(), reason.to_owned());
        self.write(move |connection| {
            Box::pin(async move {
                sqlx::query("INSERT INTO queue_parked (body, reason) VALUES (?, ?)")
                    .bind(body)
                    .bind(reason)
                    .execute(connection)
                    .await
                    .map_err(stored)?;
                Ok(())
            })
        })
        .await
    }

    async fn depth(&self) -> Stored<QueueDepth> {
        let row = sqlx::query(
            "SELECT (SELECT count(*) FROM queue_messages), (SELECT count(*) FROM queue_parked)",
        )
        .fetch_one(self.readers())
        .await
        .map_err(stored)?;
        let count = |column: usize| -> Stored<u64> {
            Ok(row.try_get::<i64, _>(column).map_err(stored)?.unsigned_abs())
        };
        Ok(QueueDepth { waiting: count(0)?, parked: count(1)? })
    }

    /// A message stays in the table until its work is done, so nothing is with a consumer that is not counted here.
    async fn backlog(&self) -> Stored<QueueBacklog> {
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM queue_messages")
            .fetch_one(self.readers())
            .await
            .map_err(stored)?;
        Ok(QueueBacklog { ready: count.unsigned_abs(), consumers: 0 })
    }

    /// The directory's lock keeps other processes away.
    async fn inherited(&self) -> Stored<Option<u64>> {
        let count: i64 =
            sqlx::query_scalar("SELECT count(*) FROM queue_messages WHERE message_id <= ?")
                .bind(self.queue().before)
                .fetch_one(self.readers())
                .await
                .map_err(stored)?;
        Ok(Some(count.unsigned_abs()))
    }
}

#[async_trait]
impl OrderSource for Sqlite {
    fn progress(&self) -> Option<ConsumerProgress> {
        None
    }

    /// At most 2,000 messages at once. All clones of the store are one consumer. A message of an earlier run is said to
    /// be redelivered, because it may have been given out then.
    async fn receive(&self, limit: u32, wait_ms: u64) -> Stored<Vec<Delivery>> {
        let deadline = Instant::now() + Duration::from_millis(wait_ms).min(WAIT_MAX);
        loop {
            let visible = self.queue().visible.notified();
            tokio::pin!(visible);
            visible.as_mut().enable();
            let deliveries = self.give_out(limit.min(RECEIVE_MAX)).await?;
            if !deliveries.is_empty() || limit == 0 || timeout_at(deadline, visible).await.is_err()
            {
                return Ok(deliveries);
            }
        }
    }

    async fn ack(&self, tags: &[u64]) -> Stored<()> {
        let mut verdict = self.queue().verdict(tags);
        if verdict.ids.is_empty() {
            return Ok(());
        }
        let ids = json(&verdict.ids);
        self.write(move |connection| {
            Box::pin(async move {
                sqlx::query("DELETE FROM queue_messages WHERE message_id IN (SELECT value FROM json_each(?))")
                    .bind(ids)
                    .execute(connection)
                    .await
                    .map_err(stored)?;
                Ok(())
            })
        })
        .await?;
        verdict.off = true;
        Ok(())
    }

    async fn hand_back(&self, tags: &[u64]) -> Stored<()> {
        let verdict = self.queue().verdict(tags);
        if verdict.ids.is_empty() {
            return Ok(());
        }
        let ids = json(&verdict.ids);
        self.write(move |connection| Box::pin(hand_back(connection, ids))).await
    }

    /// Nothing to do: what this process held is visible again to the next one that opens the file.
    async fn close(&self) {}
}

impl Sqlite {
    /// A message may have become visible.
    pub(super) fn wake(&self) {
        self.queue().visible.notify_one();
    }

    /// The oldest visible messages, held from now on.
    async fn give_out(&self, limit: u32) -> Stored<Vec<Delivery>> {
        let queue = self.queue();
        let looking = queue.looking.lock().await;
        // What is held now may be gone from the table a moment later, but nothing else may: only held messages are
        // taken off. So whatever the query finds beside them is really there.
        let held: Vec<i64> = queue.held().values().map(|delivery| delivery.message_id).collect();
        let rows = sqlx::query(
            "SELECT message_id, body, attempts FROM queue_messages
             WHERE message_id NOT IN (SELECT value FROM json_each(?)) ORDER BY message_id LIMIT ?",
        )
        .bind(json(&held))
        .bind(limit)
        .fetch_all(self.readers())
        .await
        .map_err(stored)?;
        let mut deliveries = Vec::with_capacity(rows.len());
        let mut ids = Vec::with_capacity(rows.len());
        for row in rows {
            let message_id: i64 = row.try_get(0).map_err(stored)?;
            let attempts: i64 = row.try_get(2).map_err(stored)?;
            let tag = queue.tags.fetch_add(1, Ordering::Relaxed) + 1;
            ids.push((tag, GivenOut { message_id, settling: false }));
            deliveries.push(Delivery {
                tag,
                body: row.try_get(1).map_err(stored)?,
                redelivered: attempts > 0 || message_id <= queue.before,
            });
        }
        // Nothing can interrupt between this and the caller's having them.
        queue.held().extend(ids);
        drop(looking);
        if deliveries.len() == limit as usize {
            // There may be more, for another receiver.
            queue.visible.notify_one();
        }
        Ok(deliveries)
    }
}

/// Counts an attempt, and parks what has used up its attempts.
async fn hand_back(connection: &mut SqliteConnection, ids: String) -> Stored<()> {
    let statements = [
        "UPDATE queue_messages SET attempts = attempts + 1 WHERE message_id IN (SELECT value FROM json_each(?1))",
        "INSERT INTO queue_parked (body, reason) SELECT body, 'handed back ' || attempts || ' times' FROM queue_messages
         WHERE message_id IN (SELECT value FROM json_each(?1)) AND attempts > ?2",
        "DELETE FROM queue_messages WHERE message_id IN (SELECT value FROM json_each(?1)) AND attempts > ?2",
    ];
    for (index, statement) in statements.into_iter().enumerate() {
        let query = sqlx::query(statement).bind(&ids);
        let query = if index == 0 { query } else { query.bind(ATTEMPTS_MAX) };
        query.execute(&mut *connection).await.map_err(stored)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ports::OrderLedger as _, private_files::Loose, testing};

    async fn pages_max(store: &Sqlite, pages: u32) {
        let pragma = format!("PRAGMA max_page_count = {pages}");
        let set = store.write(move |connection| {
            Box::pin(async move {
                sqlx::query(sqlx::AssertSqlSafe(pragma))
                    .execute(connection)
                    .await
                    .map(drop)
                    .map_err(stored)
            })
        });
        set.await.unwrap();
    }

    #[tokio::test]
    async fn a_full_disk_refuses_what_is_new_and_loses_nothing() {
        let dir = std::env::temp_dir().join(format!("flashsale-full-{}", testing::order_id()));
        let store = Sqlite::open(&dir, Loose::Tighten).await.unwrap();
        let sale = testing::sale(10_000);
        // SQLite takes the file's present size for a limit below it.
        pages_max(&store, 1).await;
        let mut published = Vec::new();
        let refused = loop {
            let orders: Vec<_> =
                (0..20).map(|_| testing::request(&sale, testing::user_id())).collect();
            match store.publish(&orders).await {
                Ok(()) => published.push(orders),
                Err(refused) => break refused,
            }
            assert!(published.len() < 1_000, "it is never full");
        };
        let full = |error: &StoreError| matches!(error, StoreError::Unavailable { cause, .. } if cause.contains("full"));
        assert!(full(&refused), "{refused:?}");
        let many: Vec<_> =
            (0..2_000).map(|_| testing::request(&sale, testing::user_id())).collect();
        let refused = store.record(&many, testing::START, 1).await.unwrap_err();
        assert!(full(&refused), "no poison: it can be recorded once there is room: {refused:?}");

        pages_max(&store, 1_000_000).await;
        store.publish(&many).await.unwrap();
        published.push(many);
        let mut received = Vec::new();
        while received.len() < published.len() {
            let some = store.receive(100, 0).await.unwrap();
            assert!(!some.is_empty(), "{} are missing", published.len() - received.len());
            store.ack(&some.iter().map(|delivery| delivery.tag).collect::<Vec<_>>()).await.unwrap();
            received.extend(some.into_iter().map(|delivery| {
                serde_json::from_slice::<QueueMessage>(&delivery.body).unwrap().orders
            }));
        }
        assert_eq!(received, published);
        drop(store);
        std::fs::remove_dir_all(dir).unwrap();
    }
}
