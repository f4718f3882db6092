//! Suites of the admission ports on the embedded adapters.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../property/admission/mod.rs"]
mod property;

use std::{sync::Arc, time::Duration};

use flashsale::{
    adapters::memory::MemoryAdmission, domain::SaleId, ports::Admission,
    testing::contract::admission,
};
use futures_util::future::BoxFuture;
use sqlx::{SqlitePool, sqlite::SqliteConnectOptions};
use tokio::runtime::Runtime;

use flashsale::testing::TempDir;
use property::Subject;

#[tokio::test]
async fn memory_reserves() {
    admission::reserve(&MemoryAdmission::default()).await;
}

#[tokio::test]
async fn memory_keeps_orders() {
    admission::orders(&MemoryAdmission::default()).await;
}

#[tokio::test]
async fn memory_is_rebuilt() {
    admission::rebuild(&MemoryAdmission::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_bears_a_crowd() {
    let port: Arc<dyn Admission> = Arc::new(MemoryAdmission::default());
    admission::crowd(&port).await;
}

#[tokio::test]
async fn sqlite_reserves() {
    let dir = TempDir::new();
    admission::reserve(&dir.sqlite().await).await;
}

#[tokio::test]
async fn sqlite_keeps_orders() {
    let dir = TempDir::new();
    admission::orders(&dir.sqlite().await).await;
}

#[tokio::test]
async fn sqlite_is_rebuilt() {
    let dir = TempDir::new();
    admission::rebuild(&dir.sqlite().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_bears_a_crowd() {
    let dir = TempDir::new();
    let port: Arc<dyn Admission> = Arc::new(dir.sqlite().await);
    admission::crowd(&port).await;
}

fn memory() -> Subject {
    let port = Arc::new(MemoryAdmission::default());
    let lost = Arc::clone(&port);
    let lose = Box::new(move |_| -> BoxFuture<'static, ()> {
        lost.lose_everything();
        Box::pin(async {})
    });
    Subject { port, lose }
}

async fn sqlite(dir: &TempDir) -> Subject {
    let port = Arc::new(dir.sqlite().await);
    // The port has no way to lose anything, so it is done behind its back.
    let options = SqliteConnectOptions::new()
        .filename(dir.path().join("flashsale.sqlite"))
        .busy_timeout(Duration::from_secs(5));
    let pool = SqlitePool::connect_lazy_with(options);
    let lose = Box::new(move |sale_id: SaleId| -> BoxFuture<'static, ()> {
        let pool = pool.clone();
        Box::pin(async move {
            for sql in [
                "DELETE FROM admission_orders WHERE sale_id = ?",
                "DELETE FROM admission_ended WHERE sale_id = ?",
                "DELETE FROM admission_sales WHERE sale_id = ?",
            ] {
                sqlx::query(sql).bind(sale_id.to_string()).execute(&pool).await.unwrap();
            }
        })
    });
    Subject { port, lose }
}

#[test]
fn memory_agrees_with_the_model() {
    property::against_model(&Runtime::new().unwrap(), &memory(), 1_000);
}

#[test]
fn memory_holds_when_tasks_interleave() {
    property::at_once(&Runtime::new().unwrap(), &memory(), 500);
}

#[test]
fn sqlite_agrees_with_the_model() {
    let (runtime, dir) = (Runtime::new().unwrap(), TempDir::new());
    let subject = runtime.block_on(sqlite(&dir));
    property::against_model(&runtime, &subject, 64);
}

#[test]
fn sqlite_holds_when_tasks_interleave() {
    let (runtime, dir) = (Runtime::new().unwrap(), TempDir::new());
    let subject = runtime.block_on(sqlite(&dir));
    property::at_once(&runtime, &subject, 64);
}
