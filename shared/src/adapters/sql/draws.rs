//! The port `DrawLedger`.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use async_trait::async_trait;

use super::{
    BEFORE_ALL_IDS, CHUNK, Failure, FromRow, Row, Statement, Store, Transaction, Value, Work,
    actions::note, rows::signed,
};
use crate::{
    domain::{
        AdminAction, Draw, Entry, Invitation, NoDraw, RecordedEntry, SaleId, Seed, Timestamp,
        UserId,
    },
    ports::{DrawLedger, Stored},
};

const DRAW_COLUMNS: &str = "seed, beacon_value, closed_at_ms, in_time, late, invited";
const ENTRY_COLUMNS: &str = "sale_id, user_id, entered_at_ms, arrival";
const INVITATION_COLUMNS: &str = "place, user_id, invited_at_ms, until_ms";

#[async_trait]
impl<S: Store> DrawLedger for S {
    async fn prepare(&self, sale_id: SaleId, seed: &Seed) -> Stored<()> {
        self.transact(Prepare { sale_id, draw: Draw::new(seed.clone()) }).await
    }

    async fn draw(&self, sale_id: SaleId) -> Stored<Option<Draw>> {
        Ok(self.fetch(select_draw(sale_id)).await?.pop())
    }

    async fn set_beacon_value(
        &self,
        sale_id: SaleId,
        value: &str,
        action: &AdminAction,
    ) -> Stored<bool> {
        let (value, action) = (value.to_owned(), action.clone());
        self.transact(SetBeaconValue { sale_id, value, action }).await
    }

    async fn enter(&self, entries: &[Entry]) -> Stored<Vec<Result<RecordedEntry, NoDraw>>> {
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        self.transact(Enter { entries: entries.to_vec() }).await
    }

    async fn entry(&self, sale_id: SaleId, user_id: UserId) -> Stored<Option<RecordedEntry>> {
        let select = Statement::new(format!(
            "SELECT {ENTRY_COLUMNS} FROM entries WHERE sale_id = ? AND user_id = ?"
        ))
        .bind(sale_id)
        .bind(user_id);
        Ok(self.fetch(select).await?.pop())
    }

    async fn entries(
        &self,
        sale_id: SaleId,
        after: Option<UserId>,
        limit: u32,
    ) -> Stored<Vec<RecordedEntry>> {
        let select = Statement::new(format!(
            "SELECT {ENTRY_COLUMNS} FROM entries{} WHERE sale_id = ? AND user_id > ? ORDER BY user_id LIMIT ?",
            S::DIALECT.through("PRIMARY")
        ))
        .bind(sale_id)
        .bind(after.map_or_else(|| Value::from(BEFORE_ALL_IDS), Value::from))
        .bind(limit);
        self.fetch(select).await
    }

    async fn close_entries(&self, sale_id: SaleId, now: Timestamp) -> Stored<Option<Draw>> {
        self.transact(CloseEntries { sale_id, now }).await
    }

    async fn invite(&self, sale_id: SaleId, next: &[Invitation]) -> Stored<bool> {
        self.transact(Invite { sale_id, next: next.to_vec() }).await
    }

    async fn invitations(&self, sale_id: SaleId, from: u64, limit: u32) -> Stored<Vec<Invitation>> {
        let select = Statement::new(format!(
            "SELECT {INVITATION_COLUMNS} FROM invitations{} WHERE sale_id = ? AND place >= ? ORDER BY place LIMIT ?",
            S::DIALECT.through("PRIMARY")
        ))
        .bind(sale_id)
        .bind(i64::try_from(from).unwrap_or(i64::MAX))
        .bind(limit);
        self.fetch(select).await
    }

    async fn unused_invitations(
        &self,
        sale_id: SaleId,
        now: Timestamp,
        from: u64,
        limit: u32,
    ) -> Stored<Vec<Invitation>> {
        let select = Statement::new(format!(
            "SELECT {INVITATION_COLUMNS} FROM invitations{} WHERE sale_id = ? AND place >= ? AND until_ms > ? \
             AND NOT EXISTS (SELECT 1 FROM orders{} WHERE orders.sale_id = invitations.sale_id \
             AND orders.user_id = invitations.user_id) ORDER BY place LIMIT ?",
            S::DIALECT.through("PRIMARY"),
            S::DIALECT.through("orders_slot_held_once"),
        ))
        .bind(sale_id)
        .bind(i64::try_from(from).unwrap_or(i64::MAX))
        .bind(now)
        .bind(limit);
        self.fetch(select).await
    }
}

impl FromRow for Draw {
    fn from_row(row: &impl Row) -> Result<Self, Failure> {
        let seed: [u8; 32] = row
            .bytes("seed")?
            .try_into()
            .map_err(|_| Failure::Corrupt("column seed does not hold 32 bytes".to_owned()))?;
        Ok(Self {
            seed: seed.into(),
            beacon_value: row.text_or_null("beacon_value")?,
            closed_at: row.int_or_null("closed_at_ms")?.map(Timestamp::from_epoch_ms),
            in_time: row.number("in_time")?,
            late: row.number("late")?,
            invited: row.number("invited")?,
        })
    }
}

impl FromRow for RecordedEntry {
    fn from_row(row: &impl Row) -> Result<Self, Failure> {
        let arrival = row.int_or_null("arrival")?.map(u64::try_from).transpose();
        Ok(Self {
            entry: Entry {
                sale_id: row.parsed("sale_id")?,
                user_id: row.parsed("user_id")?,
                entered_at: row.time("entered_at_ms")?,
            },
            arrival: arrival
                .map_err(|_| Failure::Corrupt("column arrival is negative".to_owned()))?,
        })
    }
}

impl FromRow for Invitation {
    fn from_row(row: &impl Row) -> Result<Self, Failure> {
        Ok(Self {
            place: row.number("place")?,
            user_id: row.parsed("user_id")?,
            invited_at: row.time("invited_at_ms")?,
            until: row.time("until_ms")?,
        })
    }
}

fn select_draw(sale_id: SaleId) -> Statement {
    Statement::new(format!("SELECT {DRAW_COLUMNS} FROM draws WHERE sale_id = ?")).bind(sale_id)
}

async fn lock_draw<S: Transaction>(
    transaction: &mut S,
    sale_id: SaleId,
) -> Result<Option<Draw>, Failure> {
    let select = select_draw(sale_id).sql(S::DIALECT.for_update());
    Ok(transaction.fetch(&select).await?.pop())
}

/// Stores the numbers of a locked draw. The row's constraints are the last safeguard.
async fn put_numbers<S: Transaction>(
    transaction: &mut S,
    sale_id: SaleId,
    draw: &Draw,
) -> Result<(), Failure> {
    let update = Statement::new(
        "UPDATE draws SET closed_at_ms = ?, in_time = ?, late = ?, invited = ? WHERE sale_id = ?",
    )
    .bind(draw.closed_at)
    .bind(signed("in_time", draw.in_time)?)
    .bind(signed("late", draw.late)?)
    .bind(signed("invited", draw.invited)?)
    .bind(sale_id);
    transaction.execute(&update).await.map(drop)
}

/// See [`DrawLedger::prepare`].
struct Prepare {
    sale_id: SaleId,
    draw: Draw,
}

impl Work for Prepare {
    type Output = ();

    async fn run<S: Transaction>(&self, transaction: &mut S) -> Result<(), Failure> {
        let insert =
            Statement::new("INSERT INTO draws (sale_id, seed, in_time, late, invited) VALUES ")
                .rows([[
                    self.sale_id.into(),
                    self.draw.seed.as_bytes().as_slice().into(),
                    signed("in_time", self.draw.in_time)?,
                    signed("late", self.draw.late)?,
                    signed("invited", self.draw.invited)?,
                ]])
                .sql(S::DIALECT.skip_duplicates("sale_id"));
        transaction.execute(&insert).await.map(drop)
    }
}

/// See [`DrawLedger::set_beacon_value`].
struct SetBeaconValue {
    sale_id: SaleId,
    value: String,
    action: AdminAction,
}

impl Work for SetBeaconValue {
    type Output = bool;

    async fn run<S: Transaction>(&self, transaction: &mut S) -> Result<bool, Failure> {
        let Some(draw) = lock_draw(transaction, self.sale_id).await? else { return Ok(false) };
        if let Some(value) = draw.beacon_value {
            return Ok(value == self.value);
        }
        if draw.closed_at.is_none() {
            return Ok(false);
        }
        let update = Statement::new("UPDATE draws SET beacon_value = ? WHERE sale_id = ?")
            .bind(self.value.as_str())
            .bind(self.sale_id);
        transaction.execute(&update).await?;
        note(transaction, &self.action).await?;
        Ok(true)
    }
}

/// See [`DrawLedger::close_entries`].
struct CloseEntries {
    sale_id: SaleId,
    now: Timestamp,
}

impl Work for CloseEntries {
    type Output = Option<Draw>;

    async fn run<S: Transaction>(&self, transaction: &mut S) -> Result<Option<Draw>, Failure> {
        let Some(mut draw) = lock_draw(transaction, self.sale_id).await? else { return Ok(None) };
        if draw.closed_at.is_none() {
            draw.closed_at = Some(self.now);
            put_numbers(transaction, self.sale_id, &draw).await?;
        }
        Ok(Some(draw))
    }
}

/// See [`DrawLedger::enter`].
struct Enter {
    entries: Vec<Entry>,
}

impl Work for Enter {
    type Output = Vec<Result<RecordedEntry, NoDraw>>;

    async fn run<S: Transaction>(&self, transaction: &mut S) -> Result<Self::Output, Failure> {
        let sales: BTreeSet<SaleId> = self.entries.iter().map(|entry| entry.sale_id).collect();
        // All locks come before the first plain read: MySQL reads the state at the time of the first
        // one, and what a lock protects must not have changed since.
        let mut draws = Vec::with_capacity(sales.len());
        for sale_id in sales {
            draws.extend(lock_draw(transaction, sale_id).await?.map(|draw| (sale_id, draw)));
        }
        let mut recorded: BTreeMap<SaleId, HashMap<UserId, RecordedEntry>> = BTreeMap::new();
        for (sale_id, draw) in draws {
            let of_sale: Vec<_> =
                self.entries.iter().filter(|entry| entry.sale_id == sale_id).collect();
            if let Some(known) = enter_sale(transaction, sale_id, draw, &of_sale).await? {
                recorded.insert(sale_id, known);
            }
        }
        let outcome = |entry: &Entry| recorded.get(&entry.sale_id)?.get(&entry.user_id).cloned();
        Ok(self.entries.iter().map(|entry| outcome(entry).ok_or(NoDraw)).collect())
    }
}

/// Records the entries of one sale, whose draw is locked. `None`: there is no such sale.
async fn enter_sale<S: Transaction>(
    transaction: &mut S,
    sale_id: SaleId,
    mut draw: Draw,
    entries: &[&Entry],
) -> Result<Option<HashMap<UserId, RecordedEntry>>, Failure> {
    let select = Statement::new("SELECT starts_at_ms FROM sales WHERE sale_id = ?").bind(sale_id);
    let Some(Start(starts_at)) = transaction.fetch::<Start>(&select).await?.pop() else {
        return Ok(None);
    };
    let users: BTreeSet<UserId> = entries.iter().map(|entry| entry.user_id).collect();
    let mut known: HashMap<UserId, RecordedEntry> = HashMap::new();
    for chunk in users.into_iter().collect::<Vec<_>>().chunks(CHUNK) {
        // The draw's lock protects its entries. Locking reads would also lock the gaps where the new
        // rows go, against the entries of other sales.
        let select = Statement::new(format!(
            "SELECT {ENTRY_COLUMNS} FROM entries{} WHERE sale_id = ? AND user_id IN ",
            S::DIALECT.through("PRIMARY")
        ))
        .bind(sale_id)
        .list(chunk.iter().copied());
        for recorded in transaction.fetch::<RecordedEntry>(&select).await? {
            known.insert(recorded.entry.user_id, recorded);
        }
    }
    let mut rows = Vec::new();
    for entry in entries {
        if known.contains_key(&entry.user_id) {
            continue;
        }
        let late = draw.closed_at.is_some() || entry.entered_at >= starts_at;
        let arrival = late.then_some(draw.late);
        if late {
            draw.late += 1;
        } else {
            draw.in_time += 1;
        }
        rows.push([
            sale_id.into(),
            entry.user_id.into(),
            entry.entered_at.into(),
            arrival.map(|arrival| signed("arrival", arrival)).transpose()?.into(),
        ]);
        known.insert(entry.user_id, RecordedEntry { entry: (*entry).clone(), arrival });
    }
    if !rows.is_empty() {
        for chunk in rows.chunks(CHUNK) {
            let insert = Statement::new(format!("INSERT INTO entries ({ENTRY_COLUMNS}) VALUES "))
                .rows(chunk.iter().cloned());
            transaction.execute(&insert).await?;
        }
        put_numbers(transaction, sale_id, &draw).await?;
    }
    Ok(Some(known))
}

struct Start(Timestamp);

impl FromRow for Start {
    fn from_row(row: &impl Row) -> Result<Self, Failure> {
        row.time("starts_at_ms").map(Self)
    }
}

/// See [`DrawLedger::invite`].
struct Invite {
    sale_id: SaleId,
    next: Vec<Invitation>,
}

impl Work for Invite {
    type Output = bool;

    async fn run<S: Transaction>(&self, transaction: &mut S) -> Result<bool, Failure> {
        let Some(mut draw) = lock_draw(transaction, self.sale_id).await? else { return Ok(false) };
        let in_turn = (draw.invited..).zip(&self.next).all(|(place, next)| next.place == place);
        if !in_turn {
            return Ok(false);
        }
        for chunk in self.next.chunks(CHUNK) {
            let mut rows = Vec::with_capacity(chunk.len());
            for next in chunk {
                rows.push([
                    self.sale_id.into(),
                    signed("place", next.place)?,
                    next.user_id.into(),
                    next.invited_at.into(),
                    next.until.into(),
                ]);
            }
            let insert = Statement::new(format!(
                "INSERT INTO invitations (sale_id, {INVITATION_COLUMNS}) VALUES "
            ))
            .rows(rows);
            transaction.execute(&insert).await?;
        }
        draw.invited += self.next.len() as u64;
        put_numbers(transaction, self.sale_id, &draw).await?;
        Ok(true)
    }
}
