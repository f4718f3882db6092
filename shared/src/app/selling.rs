//! The operator's side: sales, their figures, the blacklist.

use std::{collections::BTreeMap, fmt::Display, net::IpAddr};

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use super::{App, Client, SessionClaims, finish};
use crate::{
    domain::{Ban, Currency, IdempotencyKey, Role, Sale, SaleChange, SaleId, Subject, Timestamp, UserId},
    metrics::BANS,
    ports::{AdmissionState, Changed, CreatedOnce, CreationKey, Depth},
    problem::Problem,
    security,
};

/// A sale to be created.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the fields of the API, see API.md")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(example = json!({
        "title": "Kettle", "price": 12900, "original_price": 25900, "currency": "CNY", "stock": 50, "per_user_limit": 2,
        "starts_at": "2027-01-01T20:00:00+08:00", "ends_at": "2027-01-01T21:00:00+08:00"
    })))]
pub struct NewSale {
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 200))]
    pub title: String,
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(max_length = 4000))]
    pub description: String,
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(max_length = 2000, pattern = "^($|https://|/($|[^/]))"))]
    pub image_url: String,
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 1000000000000i64))]
    pub price: i64,
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 1000000000000i64))]
    pub original_price: Option<i64>,
    pub currency: Option<Currency>,
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 10000000))]
    pub stock: u32,
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 100))]
    pub per_user_limit: Option<u32>,
    pub starts_at: Timestamp,
    pub ends_at: Timestamp,
}

/// The figures of a sale.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SaleStats {
    /// The sale as the ledger has it.
    pub sale: Sale,
    /// `open`, `rebuilding` or `missing`.
    #[cfg_attr(feature = "openapi", schema(pattern = "^(open|rebuilding|missing)$"))]
    pub admission: &'static str,
    /// Units that can be reserved now.
    pub available: u32,
    /// Units held by orders that the ledger has not confirmed yet.
    pub reserved: u32,
    /// Units held by orders that it has.
    pub settled: u32,
    /// Orders in the ledger by the word of their status.
    pub orders: BTreeMap<String, u64>,
    /// Messages in the queue, of all sales.
    pub queue_waiting: u64,
    /// Messages that were parked, of all sales.
    pub queue_parked: u64,
    /// When this was read.
    pub server_time: Timestamp,
}

/// A ban as the operator sees it.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BanView {
    /// `user`, `address` or `phone`.
    #[cfg_attr(feature = "openapi", schema(pattern = "^(user|address|phone)$"))]
    pub kind: &'static str,
    /// The id, the address or the number.
    pub value: String,
    /// Why.
    pub reason: String,
    /// When it was put.
    pub created_at: Timestamp,
    /// When it ends, if it does.
    #[cfg_attr(feature = "openapi", schema(required))]
    pub expires_at: Option<Timestamp>,
}

impl From<&Ban> for BanView {
    fn from(ban: &Ban) -> Self {
        Self {
            kind: ban.subject.kind(),
            value: ban.subject.value(),
            reason: ban.reason.clone(),
            created_at: ban.created_at,
            expires_at: ban.expires_at,
        }
    }
}

/// A ban to be put.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the fields of the API, see API.md")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(example = json!({ "kind": "phone", "value": "+1 201-555-0125", "reason": "resale" })))]
pub struct NewBan {
    #[cfg_attr(feature = "openapi", schema(pattern = "^(user|address|phone)$"))]
    pub kind: String,
    pub value: String,
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 500))]
    pub reason: String,
    pub expires_at: Option<Timestamp>,
}

/// An administrator who was let in. The use cases that only an administrator may start take one, and write the security log's
/// line right after what they do is stored: what fails later, or a client that goes away, must not leave it unsaid.
#[derive(Debug, Clone, Copy)]
pub struct Admin {
    user_id: UserId,
    address: IpAddr,
}

impl Admin {
    /// Writes the security log's line about what the administrator has done; `object` names what it was done to, without
    /// a person's data.
    pub(super) fn did(&self, event: &'static str, object: &dyn Display) {
        security::administered(event, self.address, self.user_id, object);
    }

    fn did_to_ban(&self, event: &'static str, subject: &Subject) {
        self.did(event, &security::loggable(subject));
    }
}

impl App {
    /// Lets an administrator in, from where the admin API answers.
    ///
    /// # Errors
    /// `forbidden`, `unauthenticated`, `rate-limited`, `banned`.
    pub async fn enter_admin(&self, who: &SessionClaims, client: &Client) -> Result<Admin, Problem> {
        let networks = &self.config.admin_networks;
        if !networks.is_empty() && !networks.iter().any(|network| network.contains(client.address)) {
            return Err(Problem::Forbidden("this does not answer in your network"));
        }
        // Costs no store; the session's record has the last word below.
        if who.role != Role::Admin {
            return Err(Problem::Forbidden("only an administrator may do this"));
        }
        self.enter_as(who, client, "admin", self.config.limits.admin, Some(Role::Admin)).await?;
        Ok(Admin { user_id: who.user_id, address: client.address })
    }

    /// Creates a sale and loads it into the admission store. For commands and the demo; see [`App::create_sale_as`].
    ///
    /// # Errors
    /// `invalid`, `unavailable`.
    pub async fn create_sale(&self, new: NewSale) -> Result<Sale, Problem> {
        let (app, sale) = (self.clone(), self.new_sale(new)?);
        finish(async move {
            app.ports.sales.create(&sale).await?;
            app.load_new(&sale).await;
            Ok(sale)
        })
        .await
    }

    /// Creates a sale for an administrator, and only once for each of the administrator's keys: asked for again, the answer
    /// is the first one, whatever has become of the sale since.
    ///
    /// # Errors
    /// As [`App::create_sale`]; and `invalid` when the key was used for another request.
    pub async fn create_sale_as(&self, admin: Admin, new: NewSale, key: Option<&IdempotencyKey>) -> Result<Sale, Problem> {
        let request = serde_json::to_vec(&new).expect("a new sale can be written as JSON");
        // Digests have one length, whatever a key looks like, and a caller's key means nothing to another caller.
        let digests = |key| CreationKey { key: hex_sha256(format!("{} {key}", admin.user_id).as_bytes()), request: hex_sha256(&request) };
        let (app, sale, once) = (self.clone(), self.new_sale(new)?, key.map(digests));
        finish(async move {
            let created = match once {
                Some(once) => app.ports.sales.create_once(&sale, &once).await?,
                None => {
                    app.ports.sales.create(&sale).await?;
                    CreatedOnce::Created { sale_id: sale.sale_id, created_at: sale.created_at }
                }
            };
            let CreatedOnce::Created { sale_id, created_at } = created else {
                let expected = "a new key: this one was used for another sale".to_owned();
                return Err(Problem::Invalid { field: IdempotencyKey::HEADER.to_owned(), expected });
            };
            admin.did("sale-created", &sale_id);
            if sale_id == sale.sale_id {
                app.load_new(&sale).await;
            }
            Ok(Sale { sale_id, created_at, ..sale })
        })
        .await
    }

    /// The sale that is asked for, with an id.
    fn new_sale(&self, new: NewSale) -> Result<Sale, Problem> {
        let now = self.now();
        let sale = Sale {
            sale_id: SaleId::new(now, &self.ten()),
            title: new.title,
            description: new.description,
            image_url: new.image_url,
            price: new.price,
            original_price: new.original_price.unwrap_or(new.price),
            currency: new.currency.unwrap_or(Currency::USD),
            stock: new.stock,
            sold: 0,
            per_user_limit: new.per_user_limit.unwrap_or(1),
            starts_at: new.starts_at,
            ends_at: new.ends_at,
            epoch: 0,
            version: 1,
            created_at: now,
        };
        sale.validate()?;
        Ok(sale)
    }

    /// Loads a sale that was just stored into the admission store.
    async fn load_new(&self, sale: &Sale) {
        if let Err(error) = self.preheat(sale).await {
            tracing::warn!(%error, sale_id = %sale.sale_id, "the sale is not loaded yet; the sweeper will do it");
        }
        self.catalog.forget(sale.sale_id).await;
    }

    /// Changes a sale, in the ledger first.
    ///
    /// # Errors
    /// `not-found`, `invalid`, `unavailable`.
    pub async fn change_sale(&self, admin: Admin, sale_id: SaleId, change: &SaleChange) -> Result<Sale, Problem> {
        let (app, change) = (self.clone(), change.clone());
        finish(async move { app.apply_change(admin, sale_id, &change).await }).await
    }

    async fn apply_change(&self, admin: Admin, sale_id: SaleId, change: &SaleChange) -> Result<Sale, Problem> {
        match self.ports.sales.change(sale_id, change).await? {
            Changed::NotFound => Err(Problem::NotFound),
            Changed::Refused(error) => Err(error.into()),
            Changed::Changed(sale) => {
                admin.did("sale-changed", &sale_id);
                if let Err(error) = self.ports.admission.set_terms(&sale.terms()).await {
                    tracing::warn!(%error, %sale_id, "the new terms are not loaded yet; the sweeper will do it");
                }
                self.share_sale(&sale, self.now()).await;
                self.catalog.forget(sale_id).await;
                Ok(sale)
            }
        }
    }

    /// The figures of a sale, fresh.
    ///
    /// # Errors
    /// `not-found`, `unavailable`.
    pub async fn sale_stats(&self, sale_id: SaleId) -> Result<SaleStats, Problem> {
        let sale = self.ports.sales.get(sale_id).await?.ok_or(Problem::NotFound)?;
        let (admission, available, reserved, settled) = match self.ports.admission.state(sale_id).await? {
            AdmissionState::Open { stock, reserved, settled, .. } => ("open", stock.saturating_sub(reserved + settled), reserved, settled),
            AdmissionState::Rebuilding { .. } => ("rebuilding", 0, 0, 0),
            AdmissionState::Missing => ("missing", 0, 0, 0),
        };
        let orders = self.ports.orders.tally(sale_id).await?.by_status.into_iter().collect();
        let Depth { waiting, parked } = self.ports.queue.depth().await?;
        Ok(SaleStats {
            sale,
            admission,
            available,
            reserved,
            settled,
            orders,
            queue_waiting: waiting,
            queue_parked: parked,
            server_time: self.now(),
        })
    }

    /// Puts a ban. A banned user's sessions stay, but let nobody in.
    ///
    /// # Errors
    /// `invalid`, `unavailable`.
    pub async fn put_ban(&self, admin: Admin, new: NewBan) -> Result<BanView, Problem> {
        const REASON_CHARS_MAX: usize = 500;
        let invalid = |field: &str, expected: &str| Problem::Invalid { field: field.to_owned(), expected: expected.to_owned() };
        let subject = read_subject(&new.kind, &new.value)?;
        if new.reason.trim().is_empty() || new.reason.chars().count() > REASON_CHARS_MAX {
            return Err(invalid("reason", "1 to 500 characters"));
        }
        let now = self.now();
        if new.expires_at.is_some_and(|end| end <= now) {
            return Err(invalid("expires_at", "a time to come, or left out for a ban without end"));
        }
        let ban = Ban { subject, reason: new.reason, created_at: now, expires_at: new.expires_at };
        let app = self.clone();
        finish(async move {
            app.ports.ban_ledger.put(&ban).await?;
            BANS.counter(&["operator"]).increment(1);
            admin.did_to_ban("ban-put", &ban.subject);
            // Should the rest fail, the sweeper does it.
            app.ports.blacklist.ban(&ban).await?;
            app.refusals.forget_bans();
            app.end_sessions_of(&ban.subject).await?;
            Ok(BanView::from(&ban))
        })
        .await
    }

    /// Lifts a ban.
    ///
    /// # Errors
    /// `invalid`, `not-found`, `unavailable`.
    pub async fn lift_ban(&self, admin: Admin, kind: &str, value: &str) -> Result<(), Problem> {
        let subject = read_subject(kind, value)?;
        let app = self.clone();
        finish(async move {
            let lifted = app.ports.ban_ledger.lift(&subject, app.now()).await?;
            if lifted {
                admin.did_to_ban("ban-lifted", &subject);
            }
            // Also an automatic ban, of which the ledger knows nothing.
            let lifted_here = app.ports.blacklist.lift(&subject).await?;
            if !lifted {
                if !lifted_here {
                    return Err(Problem::NotFound);
                }
                admin.did_to_ban("ban-lifted", &subject);
            }
            app.refusals.forget_bans();
            Ok(())
        })
        .await
    }

    /// Bans that hold, newest first.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn bans(&self, offset: u32, limit: u32) -> Result<Vec<BanView>, Problem> {
        Ok(self.ports.blacklist.list(self.now(), offset, limit).await?.iter().map(BanView::from).collect())
    }
}

fn hex_sha256(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read_subject(kind: &str, value: &str) -> Result<Subject, Problem> {
    let invalid = |field: &str, expected: &str| Problem::Invalid { field: field.to_owned(), expected: expected.to_owned() };
    if !["user", "address", "phone"].contains(&kind) {
        return Err(invalid("kind", "user, address or phone"));
    }
    Subject::parse(kind, value)
        .map_err(|_| invalid("value", "a user's id, an IP address, or a phone number with its country code, as kind says"))
}
