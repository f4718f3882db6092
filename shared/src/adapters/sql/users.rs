//! The port `Users`.

use std::collections::HashSet;

use async_trait::async_trait;

use super::{
    CHUNK, Failure, FromRow, Row, Statement, Store, Transaction, Work,
    rows::{USER_COLUMNS, signed},
    sessions::end_all,
};
use crate::{
    domain::{Phone, Timestamp, User, UserChange, UserCreated, UserId},
    ports::{StoreError, Stored, Users},
};

/// As many as one transaction stores well within its time limit.
const USERS_PER_TRANSACTION: usize = 10 * CHUNK;

#[async_trait]
impl<S: Store> Users for S {
    async fn create(&self, user: &User) -> Stored<UserCreated> {
        let stored = self.create_many(std::slice::from_ref(user)).await?;
        Ok(if stored.is_empty() { UserCreated::PhoneTaken } else { UserCreated::Created })
    }

    async fn create_many(&self, users: &[User]) -> Stored<Vec<UserId>> {
        let mut stored = Vec::with_capacity(users.len());
        for users in users.chunks(USERS_PER_TRANSACTION) {
            let ids = self
                .transact(CreateUsers { users: users.to_vec() })
                .await
                .map_err(|error| partly(error, &stored))?;
            stored.extend(ids);
        }
        Ok(stored)
    }

    async fn by_phone(&self, phone: &Phone) -> Stored<Option<User>> {
        let select = Statement::new(format!("SELECT {USER_COLUMNS} FROM users WHERE phone = ?"))
            .bind(phone.as_str());
        Ok(self.fetch(select).await?.pop())
    }

    async fn by_id(&self, user_id: UserId) -> Stored<Option<User>> {
        let select = Statement::new(format!("SELECT {USER_COLUMNS} FROM users WHERE user_id = ?"))
            .bind(user_id);
        Ok(self.fetch(select).await?.pop())
    }

    async fn change(&self, user_id: UserId, change: &UserChange, now: Timestamp) -> Stored<bool> {
        self.transact(Change { user_id, change: change.clone(), now }).await
    }
}

/// Once some users are stored, `Unavailable` would be untrue: report `Unknown`.
fn partly(error: StoreError, done: &[UserId]) -> StoreError {
    match error {
        StoreError::Unavailable { store, cause } if !done.is_empty() => {
            StoreError::Unknown { store, cause }
        }
        error => error,
    }
}

/// See [`Users::create_many`].
struct CreateUsers {
    users: Vec<User>,
}

impl Work for CreateUsers {
    type Output = Vec<UserId>;

    async fn run<S: Transaction>(&self, transaction: &mut S) -> Result<Vec<UserId>, Failure> {
        let mut stored = HashSet::with_capacity(self.users.len());
        for chunk in self.users.chunks(CHUNK) {
            let rows = chunk.iter().map(|user| {
                Ok([
                    user.user_id.into(),
                    user.phone.as_str().into(),
                    user.password_hash.as_str().into(),
                    user.role.as_str().into(),
                    user.created_at.into(),
                    signed("generation", user.generation)?,
                    user.phone_verified_at.into(),
                ])
            });
            let insert = Statement::new(format!("INSERT INTO users ({USER_COLUMNS}) VALUES "))
                .rows(rows.collect::<Result<Vec<_>, Failure>>()?)
                .sql(S::DIALECT.skip_duplicates("user_id"));
            transaction.execute(&insert).await?;
            let select = Statement::new(format!(
                "SELECT user_id FROM users{} WHERE user_id IN ",
                S::DIALECT.through("PRIMARY")
            ))
            .list(chunk.iter().map(|user| user.user_id));
            stored.extend(
                transaction
                    .fetch::<StoredId>(&select)
                    .await?
                    .into_iter()
                    .map(|StoredId(user_id)| user_id),
            );
        }
        Ok(self
            .users
            .iter()
            .map(|user| user.user_id)
            .filter(|user_id| stored.contains(user_id))
            .collect())
    }
}

struct StoredId(UserId);

impl FromRow for StoredId {
    fn from_row(row: &impl Row) -> Result<Self, Failure> {
        row.parsed("user_id").map(Self)
    }
}

/// See [`Users::change`].
struct Change {
    user_id: UserId,
    change: UserChange,
    now: Timestamp,
}

impl Work for Change {
    type Output = bool;

    async fn run<S: Transaction>(&self, transaction: &mut S) -> Result<bool, Failure> {
        let UserChange { only_generation, password_hash, role, phone_verified_at, keep } =
            &self.change;
        let mut update = Statement::new("UPDATE users SET generation = generation + 1");
        if let Some(hash) = password_hash {
            update = update.sql(", password_hash = ?").bind(hash.as_str());
        }
        if let Some(role) = role {
            update = update.sql(", role = ?").bind(role.as_str());
        }
        if let Some(at) = phone_verified_at {
            update =
                update.sql(", phone_verified_at_ms = COALESCE(phone_verified_at_ms, ?)").bind(*at);
        }
        update = update.sql(" WHERE user_id = ?").bind(self.user_id);
        if let Some(generation) = only_generation {
            update = update.sql(" AND generation = ?").bind(signed("generation", *generation)?);
        }
        if transaction.execute(&update).await? == 0 {
            return Ok(false);
        }
        // The user's row is locked: a session that is being opened either is seen here or finds the
        // generation raised.
        end_all(transaction, self.user_id, *keep, self.now).await?;
        Ok(true)
    }
}
