//! Suites of the admission port on the memory adapter.

#[path = "../property/admission/mod.rs"]
mod property;

use std::sync::Arc;

use flashsale::{
    adapters::memory::MemoryAdmission, ports::Admission, testing::contract::admission,
};
use futures_util::future::BoxFuture;
use tokio::runtime::Runtime;

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

fn memory() -> Subject {
    let port = Arc::new(MemoryAdmission::default());
    let lost = Arc::clone(&port);
    let lose = Box::new(move |_| -> BoxFuture<'static, ()> {
        lost.lose_everything();
        Box::pin(async {})
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
