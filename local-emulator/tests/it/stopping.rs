//! SIGTERM: a graceful stop logs no warnings or errors.

use crate::{
    emulator::Place,
    shop::{Bought, buy, follow},
};

/// The emulator stops during a sale while the servers keep running, and its log has no warning or
/// error.
async fn an_end_in_good_order_is_quiet(place: Place) {
    const SHOPPERS: usize = 5;
    let place = place.with_log("info");
    let mut read = 0;
    for _ in 0..3 {
        let (tokens, sale) = (place.seed(SHOPPERS), place.sale(SHOPPERS as u32));
        let emulator = place.start(&["--no-demo"]);
        let clients = [emulator.client.clone()];
        for (number, token) in tokens.iter().enumerate() {
            let Bought::Order(order) = buy(&clients, &sale, token, false, number).await else {
                panic!("there is one for each")
            };
            assert_eq!(follow(&clients, &order, token).await, "confirmed");
        }
        emulator.stop();
        let log = place.log();
        // Ignore warnings at the start, for example about captchas that are off.
        let (_, end) = log[read..].split_once("stopping").expect("it says that it stops");
        let loud: Vec<_> =
            end.lines().filter(|line| line.contains("ERROR") || line.contains("WARN")).collect();
        assert!(loud.is_empty(), "{loud:#?}");
        read = log.len();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_in_good_order_is_quiet_embedded() {
    an_end_in_good_order_is_quiet(Place::embedded()).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn an_end_in_good_order_is_quiet_on_servers() {
    an_end_in_good_order_is_quiet(Place::servers()).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn an_end_in_good_order_is_quiet_in_processes() {
    an_end_in_good_order_is_quiet(Place::processes()).await;
}
