//! The port `SigningKeys`.

use async_trait::async_trait;

use super::{Failure, FromRow, Row, Statement, Store, Transaction, Work};
use crate::ports::{SigningKeys, Stored};

#[async_trait]
impl<S: Store> SigningKeys for S {
    async fn get_or_create(&self, name: &str, candidate: &[u8]) -> Stored<Vec<u8>> {
        let Secret(secret) = self
            .transact(GetOrCreate { name: name.to_owned(), candidate: candidate.to_vec() })
            .await?;
        Ok(secret)
    }
}

struct GetOrCreate {
    name: String,
    candidate: Vec<u8>,
}

impl Work for GetOrCreate {
    type Output = Secret;

    async fn run<S: Transaction>(&self, transaction: &mut S) -> Result<Secret, Failure> {
        // The unique name lets one caller win; the read returns the winner's secret, which never
        // changes.
        let insert = Statement::new("INSERT INTO signing_keys (name, secret) VALUES ")
            .rows([[self.name.as_str().into(), self.candidate.as_slice().into()]])
            .sql(S::DIALECT.skip_duplicates("name"));
        transaction.execute(&insert).await?;
        let select = Statement::new("SELECT secret FROM signing_keys WHERE name = ?")
            .bind(self.name.as_str());
        transaction.fetch(&select).await?.pop().ok_or_else(|| {
            Failure::Corrupt(format!("signing key {:?} was stored but is not there", self.name))
        })
    }
}

struct Secret(Vec<u8>);

impl FromRow for Secret {
    fn from_row(row: &impl Row) -> Result<Self, Failure> {
        row.bytes("secret").map(Self)
    }
}
