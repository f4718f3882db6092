//! Suites of the admission port on the memory adapter.

#[path = "../property/admission/mod.rs"]
mod property;

use std::sync::Arc;

use flashsale::{
    adapters::memory::MemoryAdmission,
    contract_tests,
    ports::Admission,
    testing::{
        Shop,
        contract::{checkout::CheckoutPorts, line::LinePorts},
    },
};
use futures_util::future::BoxFuture;
use tokio::runtime::Runtime;

use property::Subject;

async fn admission() -> ((), Arc<dyn Admission>) {
    ((), Arc::new(MemoryAdmission::default()))
}

async fn checkout() -> (Shop, Arc<CheckoutPorts>) {
    let shop = Shop::without_captchas().await;
    let ports = Arc::new(shop.app.ports.clone().into());
    (shop, ports)
}

contract_tests! { admission [] admission() }

mod checkout_memory {
    use super::*;
    contract_tests! { checkout [] checkout() }
}

mod line {
    use super::*;

    async fn line() -> ((), LinePorts) {
        ((), LinePorts::of(Arc::new(MemoryAdmission::default())))
    }

    contract_tests! { line [] line() }
}

fn memory() -> Subject {
    let port = Arc::new(MemoryAdmission::default());
    let lost = Arc::clone(&port);
    let lose = Box::new(move |_| -> BoxFuture<'static, ()> {
        lost.lose_everything();
        Box::pin(async {})
    });
    Subject { line: port.clone(), port, lose }
}

#[test]
fn memory_agrees_with_the_model() {
    property::against_model(&Runtime::new().unwrap(), &memory(), 1_000);
}

#[test]
fn memory_holds_when_tasks_interleave() {
    property::at_once(&Runtime::new().unwrap(), &memory(), 500);
}
