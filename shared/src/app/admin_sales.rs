//! Sales as an administrator creates, changes and watches them.

use ring::digest::{SHA256, digest};

use super::{Admin, App, draw::lost, finish};
use crate::{
    api::{DrawStats, NewSale, SaleStats},
    domain::{
        ActionKind, AdmissionState, Allocation, CreationKey, Currency, DrawTerms, FieldChange,
        IdempotencyKey, QueueDepth, Sale, SaleChange, SaleChanged, SaleCreated, SaleId, Seed,
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
        let (app, (sale, seed)) = (self.clone(), self.new_sale(new)?);
        finish(async move {
            app.prepare_draw(&sale, seed.as_ref()).await?;
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
        let (sale, seed) = self.new_sale(new)?;
        // Without a key of the caller, the new id is one that is used once.
        let key = key.map_or_else(|| sale.sale_id.to_string(), ToString::to_string);
        let once = CreationKey {
            key: hex_sha256(format!("{} {key}", admin.user_id()).as_bytes()),
            request: hex_sha256(&request),
        };
        let action = admin.action(self, ActionKind::SaleCreated, sale.sale_id, Vec::new());
        let (app, admin) = (self.clone(), *admin);
        finish(async move {
            app.prepare_draw(&sale, seed.as_ref()).await?;
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
            // A repeated request gets the first answer, so also the commitment of the first seed.
            let stored = match sale_id == sale.sale_id {
                true => None,
                false => app.ports.sales.get(sale_id).await?,
            };
            let draw = stored.map_or_else(|| sale.draw.clone(), |stored| stored.draw);
            Ok(Sale { sale_id, created_at, draw, ..sale })
        })
        .await
    }

    /// The requested sale, with a new id, and the seed of its draw.
    fn new_sale(&self, new: NewSale) -> Result<(Sale, Option<Seed>), Problem> {
        let now = self.now();
        let (draw, seed) = self.new_draw(&new)?.unzip();
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
            draw,
            eligible_registered_before: new.eligible_registered_before,
            units_per_prefix: new.units_per_prefix,
        };
        sale.validate()?;
        Ok((sale, seed))
    }

    /// The terms of the requested draw and its seed, which is made here and leaves the ledger only
    /// once the sale has ended.
    fn new_draw(&self, new: &NewSale) -> Result<Option<(DrawTerms, Seed)>, Problem> {
        let invalid = |field: &str, expected: &str| {
            Err(Problem::Invalid { field: field.to_owned(), expected: expected.to_owned() })
        };
        if new.allocation != Some(Allocation::Draw) {
            let expected = "left out, unless allocation is \"draw\"";
            return match (&new.entries_open_at, &new.invite_seconds, &new.beacon) {
                (None, None, None) => Ok(None),
                (Some(_), ..) => invalid("entries_open_at", expected),
                (None, Some(_), _) => invalid("invite_seconds", expected),
                (None, None, Some(_)) => invalid("beacon", expected),
            };
        }
        if new.per_user_limit.is_some_and(|limit| limit != 1) {
            return invalid("per_user_limit", "1 in a sale by draw: an invitation is for one unit");
        }
        let Some(entries_open_at) = new.entries_open_at else {
            return invalid("entries_open_at", "a time, because allocation is \"draw\"");
        };
        let mut bytes = [0; 32];
        self.ports.random.fill(&mut bytes);
        let seed = Seed::from(bytes);
        let terms = DrawTerms {
            entries_open_at,
            invite_seconds: new.invite_seconds.unwrap_or(DrawTerms::INVITE_SECONDS),
            seed_hash: seed.hash(),
            beacon: new.beacon.clone(),
        };
        Ok(Some((terms, seed)))
    }

    /// Stores the seed before the sale, so that no sale by draw is without one.
    async fn prepare_draw(&self, sale: &Sale, seed: Option<&Seed>) -> Result<(), Problem> {
        match seed {
            Some(seed) => Ok(self.ports.draws.prepare(sale.sale_id, seed).await?),
            None => Ok(()),
        }
    }

    /// Stores the value of the beacon that the sale named, once entries are closed.
    ///
    /// # Errors
    /// `not-found`, `invalid` (the sale names no beacon, entries are open, or another value is
    /// stored), `unavailable`.
    pub async fn set_beacon_value(
        &self,
        admin: &Admin,
        sale_id: SaleId,
        value: &str,
    ) -> Result<(), Problem> {
        let sale = self.ports.sales.get(sale_id).await?.ok_or(Problem::NotFound)?;
        let named = sale.draw.as_ref().is_some_and(|draw| draw.beacon.is_some());
        let fits = !value.trim().is_empty() && value.chars().count() <= DrawTerms::BEACON_MAX;
        let invalid = |expected: &str| {
            Err(Problem::Invalid { field: "value".to_owned(), expected: expected.to_owned() })
        };
        if !named {
            return invalid("nothing: the sale names no beacon");
        }
        if !fits {
            return invalid("1 to 200 characters");
        }
        let changes = vec![FieldChange::to("beacon_value", value)];
        let action = admin.action(self, ActionKind::BeaconSet, sale_id, changes);
        if !self.ports.draws.set_beacon_value(sale_id, value, &action).await? {
            return invalid("the value that is stored, or one after entries were closed");
        }
        admin.did(&action);
        Ok(())
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
        let orders = self.order_counts(sale_id).await?.as_ref().clone();
        let QueueDepth { waiting, parked } = self.ports.queue.depth().await?;
        let draw = match &sale.draw {
            Some(_) => Some(self.draw_stats(sale_id).await?),
            None => None,
        };
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
            draw,
        })
    }

    async fn draw_stats(&self, sale_id: SaleId) -> Result<DrawStats, Problem> {
        let draw = self.ports.draws.draw(sale_id).await?.ok_or_else(|| lost(sale_id))?;
        let units = self.ports.line.free(sale_id, self.now()).await?;
        Ok(DrawStats {
            in_time: draw.in_time,
            late: draw.late,
            invited: draw.invited,
            closed_at: draw.closed_at,
            beacon_value: draw.beacon_value,
            open_invitations: units.map_or(0, |units| units.open_invitations),
            free: units.map_or(0, |units| units.free),
        })
    }
}

fn hex_sha256(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
