//! Suites of the admission ports on the embedded adapters.

use std::sync::Arc;

use flashsale::{adapters::memory::MemoryAdmission, contract::admission, ports::Admission};

use crate::support::TempDir;

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
