//! The port `Sales`.

use async_trait::async_trait;

use super::{
    AFTER_ALL_IDS, BEFORE_ALL_IDS, Failure, FromRow, Row, Statement, Store, Transaction, Value,
    Work,
    actions::{differences, note_with},
    rows::{SALE_COLUMNS, signed},
};
use crate::{
    domain::{
        AdminAction, CreationKey, Sale, SaleChange, SaleChanged, SaleCreated, SaleId, Timestamp,
    },
    ports::{Sales, Stored},
};

#[async_trait]
impl<S: Store> Sales for S {
    async fn create(&self, sale: &Sale) -> Stored<()> {
        self.transact(CreateSale { sale: sale.clone() }).await
    }

    async fn create_once(
        &self,
        sale: &Sale,
        once: &CreationKey,
        action: &AdminAction,
    ) -> Stored<SaleCreated> {
        let (sale, once, action) = (sale.clone(), once.clone(), action.clone());
        self.transact(CreateSaleOnce { sale, once, action }).await
    }

    async fn get(&self, sale_id: SaleId) -> Stored<Option<Sale>> {
        let select = Statement::new(format!("SELECT {SALE_COLUMNS} FROM sales WHERE sale_id = ?"))
            .bind(sale_id);
        Ok(self.fetch(select).await?.pop())
    }

    async fn list(&self, before: Option<SaleId>, limit: u32) -> Stored<Vec<Sale>> {
        let select = Statement::new(format!(
            "SELECT {SALE_COLUMNS} FROM sales WHERE sale_id < ? ORDER BY sale_id DESC LIMIT ?"
        ))
        .bind(before.map_or_else(|| Value::from(AFTER_ALL_IDS), Value::from))
        .bind(limit);
        self.fetch(select).await
    }

    async fn ending_from(
        &self,
        ends_from: Timestamp,
        after: Option<SaleId>,
        limit: u32,
    ) -> Stored<Vec<Sale>> {
        let select =
            Statement::new(format!("SELECT {SALE_COLUMNS} FROM sales WHERE ends_at_ms >= ? AND sale_id > ? ORDER BY sale_id LIMIT ?"))
                .bind(ends_from)
                .bind(after.map_or_else(|| Value::from(BEFORE_ALL_IDS), Value::from))
                .bind(limit);
        self.fetch(select).await
    }

    async fn ending_last(&self, ends_from: Timestamp, limit: u32) -> Stored<Vec<Sale>> {
        let select = Statement::new(format!(
            "SELECT {SALE_COLUMNS} FROM sales WHERE ends_at_ms >= ? ORDER BY ends_at_ms DESC, sale_id DESC LIMIT ?"
        ))
        .bind(ends_from)
        .bind(limit);
        self.fetch(select).await
    }

    async fn ended_before(
        &self,
        ends_before: Timestamp,
        after: Option<SaleId>,
        limit: u32,
    ) -> Stored<Vec<Sale>> {
        let select =
            Statement::new(format!("SELECT {SALE_COLUMNS} FROM sales WHERE ends_at_ms < ? AND sale_id > ? ORDER BY sale_id LIMIT ?"))
                .bind(ends_before)
                .bind(after.map_or_else(|| Value::from(BEFORE_ALL_IDS), Value::from))
                .bind(limit);
        self.fetch(select).await
    }

    async fn change(
        &self,
        sale_id: SaleId,
        change: &SaleChange,
        action: &AdminAction,
    ) -> Stored<SaleChanged> {
        let (change, action) = (change.clone(), action.clone());
        self.transact(ChangeSale { sale_id, change, action }).await
    }

    async fn raise_epoch(&self, sale_id: SaleId) -> Stored<Option<u64>> {
        self.transact(RaiseEpoch { sale_id }).await
    }
}

/// See [`Sales::create`].
struct CreateSale {
    sale: Sale,
}

impl Work for CreateSale {
    type Output = ();

    async fn run<S: Transaction>(&self, transaction: &mut S) -> Result<(), Failure> {
        insert(transaction, &self.sale, None).await
    }
}

/// See [`Sales::create_once`].
struct CreateSaleOnce {
    sale: Sale,
    once: CreationKey,
    action: AdminAction,
}

impl Work for CreateSaleOnce {
    type Output = SaleCreated;

    async fn run<S: Transaction>(&self, transaction: &mut S) -> Result<SaleCreated, Failure> {
        insert(transaction, &self.sale, Some(&self.once)).await?;
        // The first insert won; a concurrent one waited for it.
        let select = Statement::new(
            "SELECT sale_id, created_at_ms, creation_request FROM sales WHERE creation_key = ?",
        )
        .bind(self.once.key.as_str())
        .sql(S::DIALECT.for_update());
        let Some(found) = transaction.fetch::<ByKey>(&select).await?.pop() else {
            return Err(Failure::Corrupt(format!(
                "sale {} is there without its key",
                self.sale.sale_id
            )));
        };
        if found.request != self.once.request {
            return Ok(SaleCreated::OtherRequest);
        }
        // Another id is that of an earlier request, which has noted its own action.
        if found.sale_id == self.sale.sale_id {
            note_with(transaction, &self.action, differences(None, &self.sale)?).await?;
        }
        Ok(SaleCreated::Created { sale_id: found.sale_id, created_at: found.created_at })
    }
}

struct ByKey {
    sale_id: SaleId,
    created_at: Timestamp,
    request: String,
}

impl FromRow for ByKey {
    fn from_row(row: &impl Row) -> Result<Self, Failure> {
        Ok(Self {
            sale_id: row.parsed("sale_id")?,
            created_at: row.time("created_at_ms")?,
            request: row.text("creation_request")?,
        })
    }
}

/// Inserts a sale unless its id or its key exists already.
async fn insert<S: Transaction>(
    transaction: &mut S,
    sale: &Sale,
    once: Option<&CreationKey>,
) -> Result<(), Failure> {
    let row = [
        sale.sale_id.into(),
        sale.title.as_str().into(),
        sale.description.as_str().into(),
        sale.image_url.as_str().into(),
        sale.price.into(),
        sale.original_price.into(),
        sale.currency.as_str().into(),
        sale.stock.into(),
        // A new sale has no orders, whatever `sold` the caller passes.
        Value::Int(0),
        sale.per_user_limit.into(),
        sale.starts_at.into(),
        sale.ends_at.into(),
        signed("epoch", sale.epoch)?,
        signed("version", sale.version)?,
        sale.created_at.into(),
        sale.draw.as_ref().map(|draw| draw.entries_open_at).into(),
        sale.draw.as_ref().map(|draw| draw.invite_seconds).into(),
        sale.draw.as_ref().map(|draw| draw.seed_hash.to_string()).as_deref().into(),
        sale.draw.as_ref().and_then(|draw| draw.beacon.as_deref()).into(),
        sale.eligible_registered_before.into(),
        sale.units_per_prefix.into(),
        once.map(|once| once.key.as_str()).into(),
        once.map(|once| once.request.as_str()).into(),
    ];
    let insert = Statement::new(format!(
        "INSERT INTO sales ({SALE_COLUMNS}, creation_key, creation_request) VALUES "
    ))
    .rows([row])
    .sql(S::DIALECT.skip_duplicates("sale_id"));
    transaction.execute(&insert).await?;
    keep_price(transaction, sale.sale_id).await
}

/// Stores the price in the sale's row, so that orders admitted at it can still be recorded after it
/// changes.
async fn keep_price<S: Transaction>(transaction: &mut S, sale_id: SaleId) -> Result<(), Failure> {
    let insert = Statement::new(
        "INSERT INTO sale_prices (sale_id, price) SELECT sales.sale_id, sales.price FROM sales WHERE sales.sale_id = ? AND NOT EXISTS \
         (SELECT 1 FROM sale_prices AS kept WHERE kept.sale_id = sales.sale_id AND kept.price = sales.price)",
    )
    .bind(sale_id);
    transaction.execute(&insert).await.map(drop)
}

/// See [`Sales::change`].
struct ChangeSale {
    sale_id: SaleId,
    change: SaleChange,
    action: AdminAction,
}

impl Work for ChangeSale {
    type Output = SaleChanged;

    async fn run<S: Transaction>(&self, transaction: &mut S) -> Result<SaleChanged, Failure> {
        let select = Statement::new(format!("SELECT {SALE_COLUMNS} FROM sales WHERE sale_id = ?"))
            .bind(self.sale_id)
            .sql(S::DIALECT.for_update());
        let Some(before) = transaction.fetch::<Sale>(&select).await?.pop() else {
            return Ok(SaleChanged::NotFound);
        };
        let sale = match before.changed(&self.change) {
            Ok(sale) => sale,
            Err(error) => return Ok(SaleChanged::Refused(error)),
        };
        let differences = differences(Some(&before), &sale)?;
        if differences.is_empty() {
            return Ok(SaleChanged::Changed(before));
        }
        let price_changes = sale.price != before.price;
        if price_changes {
            // The current price may come from a process of an earlier version, which stores no
            // prices.
            keep_price(transaction, sale.sale_id).await?;
        }
        let update = Statement::new(
            "UPDATE sales SET title = ?, description = ?, image_url = ?, price = ?, original_price = ?, stock = ?, \
             per_user_limit = ?, starts_at_ms = ?, ends_at_ms = ?, version = ?, eligible_registered_before_ms = ?, units_per_prefix = ? WHERE sale_id = ?",
        )
        .bind(sale.title.as_str())
        .bind(sale.description.as_str())
        .bind(sale.image_url.as_str())
        .bind(sale.price)
        .bind(sale.original_price)
        .bind(sale.stock)
        .bind(sale.per_user_limit)
        .bind(sale.starts_at)
        .bind(sale.ends_at)
        .bind(signed("version", sale.version)?)
        .bind(sale.eligible_registered_before)
        .bind(sale.units_per_prefix)
        .bind(sale.sale_id);
        transaction.execute(&update).await?;
        if price_changes {
            keep_price(transaction, sale.sale_id).await?;
        }
        note_with(transaction, &self.action, differences).await?;
        Ok(SaleChanged::Changed(sale))
    }
}

/// See [`Sales::raise_epoch`].
struct RaiseEpoch {
    sale_id: SaleId,
}

impl Work for RaiseEpoch {
    type Output = Option<u64>;

    async fn run<S: Transaction>(&self, transaction: &mut S) -> Result<Option<u64>, Failure> {
        // The update locks the row, so the read returns this epoch and no later one.
        let update = Statement::new("UPDATE sales SET epoch = epoch + 1 WHERE sale_id = ?")
            .bind(self.sale_id);
        if transaction.execute(&update).await? == 0 {
            return Ok(None);
        }
        let select = Statement::new("SELECT epoch FROM sales WHERE sale_id = ?").bind(self.sale_id);
        Ok(transaction.fetch::<Epoch>(&select).await?.pop().map(|Epoch(epoch)| epoch))
    }
}

struct Epoch(u64);

impl FromRow for Epoch {
    fn from_row(row: &impl Row) -> Result<Self, Failure> {
        row.number("epoch").map(Self)
    }
}
