//! Sales as an administrator creates, changes and watches them.

use ring::digest::{SHA256, digest};

use super::{Admin, App, finish};
use crate::{
    api::{NewSale, SaleStats},
    domain::{
        ActionKind, AdmissionState, CreationKey, Currency, IdempotencyKey, QueueDepth, Sale,
        SaleChange, SaleChanged, SaleCreated, SaleId,
    },
    problem::Problem,
};

impl App {
    /// Creates a sale and loads it into the admission store. For commands and the demo; see
    /// [`App::create_sale_as`].
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

    /// Creates a sale for an administrator, once per idempotency key of the administrator: a
    /// repeated request receives the first answer, even if the sale has changed since.
    ///
    /// # Errors
    /// As [`App::create_sale`]; and `invalid` when the key was used for another request.
    pub async fn create_sale_as(
        &self,
        admin: &Admin,
        new: NewSale,
        key: Option<&IdempotencyKey>,
    ) -> Result<Sale, Problem> {
        let request = serde_json::to_vec(&new).expect("a new sale can be written as JSON");
        // A digest has a fixed length, whatever the key, and includes the caller, so that different
        // callers may use the same key.
        let sale = self.new_sale(new)?;
        // Without a key of the caller, the new id is one that is used once.
        let key = key.map_or_else(|| sale.sale_id.to_string(), ToString::to_string);
        let once = CreationKey {
            key: hex_sha256(format!("{} {key}", admin.user_id()).as_bytes()),
            request: hex_sha256(&request),
        };
        let action = admin.action(self, ActionKind::SaleCreated, sale.sale_id, Vec::new());
        let (app, admin) = (self.clone(), *admin);
        finish(async move {
            let created = app.ports.sales.create_once(&sale, &once, &action).await?;
            let SaleCreated::Created { sale_id, created_at } = created else {
                let expected = "a new key: this one was used for another sale".to_owned();
                return Err(Problem::Invalid {
                    field: IdempotencyKey::HEADER.to_owned(),
                    expected,
                });
            };
            if sale_id == sale.sale_id {
                admin.did(&action);
                app.load_new(&sale).await;
            }
            Ok(Sale { sale_id, created_at, ..sale })
        })
        .await
    }

    /// The requested sale, with a new id.
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

    /// Loads a newly stored sale into the admission store.
    async fn load_new(&self, sale: &Sale) {
        if let Err(error) = self.preheat(sale).await {
            tracing::warn!(%error, sale_id = %sale.sale_id, "the sale is not loaded yet; the sweeper will do it");
        }
        self.catalog.forget(sale.sale_id);
    }

    /// Changes a sale, in the ledger first.
    ///
    /// # Errors
    /// `not-found`, `invalid`, `unavailable`.
    pub async fn change_sale(
        &self,
        admin: &Admin,
        sale_id: SaleId,
        change: &SaleChange,
    ) -> Result<Sale, Problem> {
        let (app, admin, change) = (self.clone(), *admin, change.clone());
        finish(async move { app.apply_change(&admin, sale_id, &change).await }).await
    }

    async fn apply_change(
        &self,
        admin: &Admin,
        sale_id: SaleId,
        change: &SaleChange,
    ) -> Result<Sale, Problem> {
        let action = admin.action(self, ActionKind::SaleChanged, sale_id, Vec::new());
        match self.ports.sales.change(sale_id, change, &action).await? {
            SaleChanged::NotFound => Err(Problem::NotFound),
            SaleChanged::Refused(error) => Err(error.into()),
            SaleChanged::Changed(sale) => {
                admin.did(&action);
                if let Err(error) = self.ports.admission.set_terms(&sale.terms()).await {
                    tracing::warn!(%error, %sale_id, "the new terms are not loaded yet; the sweeper will do it");
                }
                self.share_sale(&sale, self.now()).await;
                self.catalog.forget(sale_id);
                Ok(sale)
            }
        }
    }

    /// The current figures of a sale, read from the stores.
    ///
    /// # Errors
    /// `not-found`, `unavailable`.
    pub async fn sale_stats(&self, _: &Admin, sale_id: SaleId) -> Result<SaleStats, Problem> {
        let sale = self.ports.sales.get(sale_id).await?.ok_or(Problem::NotFound)?;
        let (admission, available, reserved, settled) =
            match self.ports.admission.state(sale_id).await? {
                AdmissionState::Open { stock, reserved, settled, .. } => {
                    ("open", stock.saturating_sub(reserved + settled), reserved, settled)
                }
                AdmissionState::Rebuilding { .. } => ("rebuilding", 0, 0, 0),
                AdmissionState::Missing => ("missing", 0, 0, 0),
            };
        let orders = self.ports.orders.tally(sale_id).await?.by_status.into_iter().collect();
        let QueueDepth { waiting, parked } = self.ports.queue.depth().await?;
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
}

fn hex_sha256(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
