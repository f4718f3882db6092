//! The order queue as a table. Memory holds which message was delivered to whom: a single process
//! owns the file, so after its restart no message is held and all are visible again.

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
    domain::{
        AdmittedOrder, ConsumerProgress, Delivery, Entry, EntryMessage, QueueBacklog, QueueDepth,
        QueueMessage,
    },
    ports::{OrderQueue, OrderSource, PUBLISH_LIMIT_MS, StoreError, Stored},
};

/// How many times a message may be handed back before it is parked.
const ATTEMPTS_MAX: i64 = 50;
/// Limit on the messages that one call of `receive` returns.
const RECEIVE_MAX: u32 = 2_000;
/// Longest wait for a first message; a caller's longer wait is cut to this.
const WAIT_MAX: Duration = Duration::from_secs(3_600);

/// The queue's state in memory.
pub(super) struct Queue {
    /// Notified when a message may have become visible.
    visible: Notify,
    /// Lets one task at a time look for visible messages, so that none is delivered twice.
    looking: tokio::sync::Mutex<()>,
    /// Messages in delivery, by tag. A tag is used once, so an old tag never affects a new
    /// delivery.
    held: Mutex<BTreeMap<u64, GivenOut>>,
    tags: AtomicU64,
    /// The last message of earlier runs.
    before: i64,
}

struct GivenOut {
    message_id: i64,
    /// Whether its outcome is being written; a second outcome is ignored.
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

    /// Selects the messages that these tags hold and that have no outcome yet.
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

/// Messages that are being acknowledged or handed back. Whether or not that succeeds, they are not
/// held afterwards: rows that are still in the table become visible again.
struct Verdict<'q> {
    queue: &'q Queue,
    tags: Vec<u64>,
    ids: Vec<i64>,
    /// Whether their rows are known to be deleted.
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

impl Sqlite {
    /// Stores a message in one synced commit, which it shares with others that come meanwhile.
    async fn put(&self, message: &impl serde::Serialize) -> Stored<()> {
        let body = serde_json::to_vec(message).map_err(|error| StoreError::Unavailable {
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
        // Also after an error: the message may have been stored nevertheless.
        self.queue().visible.notify_one();
        outcome
    }
}

#[async_trait]
impl OrderQueue for Sqlite {
    fn publishes_at_once(&self) -> usize {
        // There is one writer, and a larger group shares its commit.
        1
    }

    async fn publish(&self, orders: &[AdmittedOrder]) -> Stored<()> {
        if orders.is_empty() {
            return Ok(());
        }
        self.put(&QueueMessage { v: QueueMessage::VERSION, orders: orders.to_vec() }).await
    }

    async fn publish_entries(&self, entries: &[Entry]) -> Stored<()> {
        if entries.is_empty() {
            return Ok(());
        }
        self.put(&EntryMessage { v: EntryMessage::VERSION, entries: entries.to_vec() }).await
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

    /// A message stays in the table until its work is done, so this counts every message that a
    /// consumer holds.
    async fn backlog(&self) -> Stored<QueueBacklog> {
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM queue_messages")
            .fetch_one(self.readers())
            .await
            .map_err(stored)?;
        Ok(QueueBacklog { ready: count.unsigned_abs(), consumers: 0 })
    }

    /// The directory's lock excludes other processes.
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

    /// Returns at most 2,000 messages per call. All clones of the store are one consumer. A message
    /// of an earlier run is marked as redelivered, because it may have been delivered then.
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

    /// Nothing to do: the messages that this process holds are visible to the next process that
    /// opens the file.
    async fn close(&self) {}
}

impl Sqlite {
    /// Signals that a message may have become visible.
    pub(super) fn wake(&self) {
        self.queue().visible.notify_one();
    }

    /// The oldest visible messages; they are held from now on.
    async fn give_out(&self, limit: u32) -> Stored<Vec<Delivery>> {
        let queue = self.queue();
        let looking = queue.looking.lock().await;
        // Only held messages are ever deleted. One that is held now may be gone from the table a
        // moment later, but all other rows that the query finds remain.
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
        // No await follows, so the caller is certain to receive them.
        queue.held().extend(ids);
        drop(looking);
        if deliveries.len() == limit as usize {
            // There may be more for another receiver.
            queue.visible.notify_one();
        }
        Ok(deliveries)
    }
}

/// Counts a failed attempt, and parks messages that have used up their attempts.
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
        // SQLite raises a limit below the file's present size to that size.
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
        assert!(full(&refused), "a full disk is not corrupt data: {refused:?}");

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
