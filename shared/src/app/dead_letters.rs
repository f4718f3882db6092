//! Messages that can't be used: the worker parks them; the operator lists, retries or discards
//! them.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use ring::digest::{SHA256, digest};

use super::{Admin, App, finish, local_cache::LocalCache};
use crate::{
    api::ParkedView,
    domain::{ActionKind, QueueMessage},
    metrics::MESSAGES_PARKED,
    ports::Stored,
    problem::Problem,
};

/// Parked messages that this process remembers, and for how long.
const REMEMBERED_MAX: usize = 1_000;
const REMEMBERED_FOR: Duration = Duration::from_secs(3_600);
/// Most parked messages that are searched for an id.
const SEARCHED_MAX: u32 = 1_000;

/// Most bytes of a message that are shown: enough to recognize it.
const SHOWN_BYTES: usize = 4_096;
/// Most orders of a message that are named.
const ORDERS_MAX: usize = 20;

/// Messages that this process has parked lately, by the SHA-256 of the body.
pub(super) struct ParkedLately(LocalCache<[u8; 32], ()>);

impl Default for ParkedLately {
    fn default() -> Self {
        Self(LocalCache::new(REMEMBERED_MAX, REMEMBERED_FOR))
    }
}

fn hash(body: &[u8]) -> [u8; 32] {
    digest(&SHA256, body).as_ref().try_into().expect("SHA-256 gives 32 bytes")
}

impl App {
    /// Parks messages, each with its reason. If a message comes again (its batch was repeated, or
    /// the sweeper has published its order again) while it is still parked, it is not parked twice.
    ///
    /// # Errors
    /// When the queue does not answer.
    pub(super) async fn park(&self, messages: BTreeMap<Vec<u8>, String>) -> Stored<()> {
        let mut still_parked = None;
        for (body, reason) in messages {
            let hash = hash(&body);
            // Memory alone can't decide: the operator may have put the message back into the queue.
            // The list of parked messages is read only for a message that memory knows, because a
            // list of thousands is slow to read.
            if self.parked_lately.0.has(&hash) {
                if still_parked.is_none() {
                    still_parked = Some(self.parked_hashes().await);
                }
                if still_parked.as_ref().is_some_and(|parked| parked.contains(&hash)) {
                    continue;
                }
            }
            tracing::error!(reason, bytes = body.len(), "a message can't be used and is parked");
            self.ports.queue.park(&body, &reason).await?;
            MESSAGES_PARKED.counter(&[]).increment(1);
            self.parked_lately.0.insert(hash, ());
        }
        Ok(())
    }

    /// The hashes of the parked messages. If they can't be read, a message is parked twice rather
    /// than lost.
    async fn parked_hashes(&self) -> HashSet<[u8; 32]> {
        match self.ports.dead_letters.list(SEARCHED_MAX).await {
            Ok(parked) => parked.iter().map(|parked| hash(&parked.body)).collect(),
            Err(error) => {
                tracing::warn!(%error, "the parked messages can't be read; one may be parked twice");
                HashSet::new()
            }
        }
    }

    /// The parked messages, at most `limit`.
    ///
    /// # Errors
    /// When the queue does not answer.
    pub async fn parked(&self, _: &Admin, limit: u32) -> Result<Vec<ParkedView>, Problem> {
        let parked = self.ports.dead_letters.list(limit).await?;
        let view = |message: crate::domain::DeadLetter| {
            let orders = serde_json::from_slice::<QueueMessage>(&message.body)
                .map(|message| message.orders)
                .unwrap_or_default();
            ParkedView {
                parked_id: message.id,
                reason: message.reason,
                order_ids: orders.iter().take(ORDERS_MAX).map(|order| order.order_id).collect(),
                bytes: message.body.len(),
                body: String::from_utf8_lossy(&message.body[..message.body.len().min(SHOWN_BYTES)])
                    .into_owned(),
            }
        };
        Ok(parked.into_iter().map(view).collect())
    }

    /// Moves a parked message back into the queue, and then notes the action: the queue and the
    /// ledger share no transaction, so a failure in between leaves it in the security log alone.
    ///
    /// # Errors
    /// `NotFound` when the message is not parked, and when the queue does not answer.
    pub async fn retry_parked(&self, admin: &Admin, id: &str) -> Result<(), Problem> {
        let action = admin.action(self, ActionKind::ParkedRetried, id, Vec::new());
        let (app, admin, id) = (self.clone(), *admin, id.to_owned());
        finish(async move {
            if !app.ports.dead_letters.retry(&id).await? {
                return Err(Problem::NotFound);
            }
            admin.did(&action);
            Ok(app.ports.admin_ledger.note(&action).await?)
        })
        .await
    }

    /// Discards a parked message.
    ///
    /// # Errors
    /// As [`App::retry_parked`].
    pub async fn discard_parked(&self, admin: &Admin, id: &str) -> Result<(), Problem> {
        let action = admin.action(self, ActionKind::ParkedDiscarded, id, Vec::new());
        let (app, admin, id) = (self.clone(), *admin, id.to_owned());
        finish(async move {
            if !app.ports.dead_letters.discard(&id).await? {
                return Err(Problem::NotFound);
            }
            admin.did(&action);
            Ok(app.ports.admin_ledger.note(&action).await?)
        })
        .await
    }
}
