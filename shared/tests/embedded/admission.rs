//! Suites of the admission port on the memory adapter.

#[path = "../property/admission/mod.rs"]
mod property;

use std::sync::Arc;

use flashsale::{adapters::memory::MemoryAdmission, contract_tests, ports::Admission};
use futures_util::future::BoxFuture;
use tokio::runtime::Runtime;

use property::Subject;

async fn admission() -> ((), Arc<dyn Admission>) {
    ((), Arc::new(MemoryAdmission::default()))
}

contract_tests! { admission [] admission() }

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
