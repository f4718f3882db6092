//! Entering a draw.

use serde::{Deserialize, Serialize};
use tracing::Instrument as _;

use crate::{
    api::EntryAccepted,
    app::{App, Caller, CaptchaAnswer, limits::RateLimit},
    config::CaptchaMode,
    domain::{CacheEntry, CaptchaPurpose, Entry, SaleId, Timestamp, UserId},
    logging::OncePerSecond,
    metrics::{self, Outcomes},
    ports::StoreError,
    problem::Problem,
    trace::STEP,
};

/// Delay before a client repeats an entry that could not be made durable.
const RETRY_MS: u64 = 1_000;
/// How long the shared cache remembers an entry, so that a repeated request finds it although it may
/// not be in the ledger yet.
const REMEMBERED_MS: u64 = 600_000;
/// How long a client may take to repeat an entry that could not be made durable, without another
/// captcha.
const PASSED_MS: u64 = 120_000;

static ENTRIES: Outcomes = Outcomes::new(metrics::ENTRIES);

/// The claims of a signed entry. No field is shared with those of a ticket that a ticket could be
/// mistaken for an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct EntryClaims {
    #[serde(rename = "sub")]
    pub(super) user_id: UserId,
    #[serde(rename = "sale")]
    pub(super) sale_id: SaleId,
    /// Milliseconds since 1970.
    pub(super) entered_ms: i64,
}

impl EntryClaims {
    pub(super) const fn entered_at(&self) -> Timestamp {
        Timestamp::from_epoch_ms(self.entered_ms)
    }
}

impl App {
    /// Enters the user into the sale's draw and returns once the entry is durable. Every later call
    /// returns the same entry.
    ///
    /// # Errors
    /// `not-found` (also for a sale that is not by draw), `entries-not-open`, `sale-ended`,
    /// `not-eligible`, `captcha-*`, `not-durable-yet`, `unauthenticated`, `rate-limited`, `banned`,
    /// `unavailable`.
    pub async fn enter_draw(
        &self,
        caller: &Caller,
        sale_id: SaleId,
        captcha: Option<CaptchaAnswer>,
    ) -> Result<EntryAccepted, Problem> {
        ENTRIES.note("entered", self.make_entry(caller, sale_id, captcha).await)
    }

    async fn make_entry(
        &self,
        caller: &Caller,
        sale_id: SaleId,
        captcha: Option<CaptchaAnswer>,
    ) -> Result<EntryAccepted, Problem> {
        let Caller { session: who, client } = caller;
        if !self.catalog.knows(sale_id) {
            self.enter_reader(client).await?;
        }
        let sale = self.sale(sale_id).await?;
        let terms = sale.draw.as_ref().ok_or(Problem::NotFound)?;
        let now = self.now();
        if now < terms.entries_open_at {
            return Err(Problem::EntriesNotOpen { entries_open_at: terms.entries_open_at });
        }
        if now >= sale.ends_at {
            return Err(Problem::SaleEnded);
        }
        if let Some(registered_before) = sale.registered_too_late(who.user_id) {
            return Err(Problem::NotEligible { registered_before });
        }
        self.enter(caller, RateLimit::Entry).await?;
        if let Some(entered_at) = self.known_entry(sale_id, who.user_id, now).await? {
            return self.accepted(sale_id, who.user_id, entered_at).await;
        }
        if !self.has_passed_captcha(sale_id, who.user_id).await? {
            // Last, because it uses the captcha up.
            self.check_captcha(client, CaptchaPurpose::of(caller, sale_id), captcha).await?;
        }
        let entry = Entry { sale_id, user_id: who.user_id, entered_at: now };
        let step = tracing::info_span!(target: STEP, "entries.publish", otel.kind = "producer");
        if let Err(error) = self.entry_publisher.publish(entry.clone()).instrument(step).await {
            static LINES: OncePerSecond = OncePerSecond::new();
            if let Some(left_out) = LINES.pass() {
                tracing::warn!(%error, %sale_id, left_out, "an entry was not published");
            }
            self.remember(passed_key(sale_id, who.user_id), "", PASSED_MS).await;
            // It may have been published. The repeated request is recorded once.
            return Err(Problem::NotDurableYet { retry_after_ms: RETRY_MS });
        }
        let entered_ms = entry.entered_at.epoch_ms().to_string();
        self.remember(entry_key(sale_id, who.user_id), &entered_ms, REMEMBERED_MS).await;
        self.accepted(sale_id, who.user_id, now).await
    }

    /// When the user entered, if that is known: from the shared cache, else from the ledger. While
    /// the ledger does not answer, the entry is published again, which changes nothing.
    async fn known_entry(
        &self,
        sale_id: SaleId,
        user_id: UserId,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, Problem> {
        let cached = self.ports.cache.get(&entry_key(sale_id, user_id), now).await?;
        let entered_ms = cached.and_then(|bytes| std::str::from_utf8(&bytes).ok()?.parse().ok());
        if let Some(entered_ms) = entered_ms {
            return Ok(Some(Timestamp::from_epoch_ms(entered_ms)));
        }
        match self.ports.draws.entry(sale_id, user_id).await {
            Ok(recorded) => Ok(recorded.map(|recorded| recorded.entry.entered_at)),
            Err(error @ StoreError::Corrupt { .. }) => Err(error.into()),
            Err(error) => {
                tracing::debug!(%error, %sale_id, "an entry is accepted unseen");
                Ok(None)
            }
        }
    }

    /// Whether the user's captcha was right in a request whose entry could not be made durable: the
    /// client sends the same request again, and a captcha can be answered once only.
    async fn has_passed_captcha(&self, sale_id: SaleId, user_id: UserId) -> Result<bool, Problem> {
        if self.config.captcha == CaptchaMode::Off {
            return Ok(false);
        }
        let key = passed_key(sale_id, user_id);
        Ok(self.ports.cache.get(&key, self.now()).await?.is_some())
    }

    /// Puts a value into the shared cache. Nothing is lost without it.
    async fn remember(&self, key: String, value: &str, ttl_ms: u64) {
        let remembered = CacheEntry { key, version: 1, value: value.as_bytes().to_vec(), ttl_ms };
        if let Err(error) = self.ports.cache.put(&[remembered], self.now()).await {
            tracing::warn!(%error, "shared cache");
        }
    }

    async fn accepted(
        &self,
        sale_id: SaleId,
        user_id: UserId,
        entered_at: Timestamp,
    ) -> Result<EntryAccepted, Problem> {
        let claims = EntryClaims { user_id, sale_id, entered_ms: entered_at.epoch_ms() };
        let entry = self.ticket_keys.ring(&self.ports).await?.sign(&claims);
        Ok(EntryAccepted { entry, entered_at })
    }

    /// Whether the shared cache knows an entry of the user that may not be in the line yet.
    pub(super) async fn entry_is_remembered(
        &self,
        sale_id: SaleId,
        user_id: UserId,
    ) -> Result<bool, Problem> {
        let key = entry_key(sale_id, user_id);
        Ok(self.ports.cache.get(&key, self.now()).await?.is_some())
    }
}

/// Where the shared cache remembers that the user need not answer a captcha again.
fn passed_key(sale_id: SaleId, user_id: UserId) -> String {
    format!("entry-captcha:{sale_id}:{user_id}")
}

fn entry_key(sale_id: SaleId, user_id: UserId) -> String {
    format!("entry:{sale_id}:{user_id}")
}
