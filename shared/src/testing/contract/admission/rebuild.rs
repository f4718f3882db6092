//! The rebuild: the sale is closed while it runs, and its epoch fences off older rebuilds.

use super::*;
use crate::testing;

/// The protocol of a rebuild, and concurrent rebuilders.
pub async fn suite(port: &Arc<dyn Admission>) {
    let port = &**port;
    a_rebuild_closes_and_opens(port).await;
    an_open_sale_stays_open(port).await;
    what_is_there_stays(port).await;
    an_older_rebuilder_is_fenced_off(port).await;
    rebuilders_in_turn_leave_everything_restored(port).await;
    epochs_compare_as_numbers(port).await;
}

async fn a_rebuild_closes_and_opens(port: &dyn Admission) {
    let sale = sale(3);
    let order = request(&sale, user_id());
    assert!(port.begin_rebuild(&sale.terms(), 4, at(9)).await.expect("store"));
    let rebuilding = AdmissionState::Rebuilding { epoch: 4, since: at(9) };
    assert_eq!(port.state(sale.sale_id).await.expect("store"), rebuilding);
    assert_eq!(ask(port, &claim(&sale, user_id())).await, AdmissionDecision::Closed);
    assert_eq!(look(port, sale.sale_id, order.user_id).await, None);
    assert!(
        !port.begin_rebuild(&sale.terms(), 4, at(10)).await.expect("store"),
        "the store has this epoch"
    );
    assert_eq!(
        port.state(sale.sale_id).await.expect("store"),
        rebuilding,
        "still since the first call"
    );
    for _ in 0..2 {
        assert!(port.restore(sale.sale_id, 4, std::slice::from_ref(&order)).await.expect("store"));
    }
    assert!(port.restore(sale.sale_id, 4, &[]).await.expect("store"));
    assert_eq!(find(port, &order).await, Some(Reservation { order: order.clone(), settled: true }));
    for _ in 0..2 {
        assert!(
            port.finish_rebuild(sale.sale_id, 4).await.expect("store"),
            "also when it is open under this epoch already"
        );
        let open = AdmissionState::Open { epoch: 4, version: 1, stock: 3, reserved: 0, settled: 1 };
        assert_eq!(port.state(sale.sale_id).await.expect("store"), open);
    }
    assert!(
        !port.restore(sale.sale_id, 4, &[request(&sale, user_id())]).await.expect("store"),
        "the rebuild has finished"
    );
    assert!(!port.restore(sale.sale_id, 4, &[]).await.expect("store"));
    assert_held(port, sale.sale_id, 0, 1).await;
    assert_eq!(look(port, sale.sale_id, order.user_id).await, Some((2, Some(order.order_id))));
    let seen = port.look(sale.sale_id, user_id(), None).await.expect("store").expect("open");
    assert_eq!(seen.epoch, 4, "a rebuilt store shows that it counts anew");
    assert!(!port.begin_rebuild(&sale.terms(), 4, at(11)).await.expect("store"));
    assert_eq!(available(port, &sale).await, 2, "a refused rebuild closes nothing");
}

/// Another rebuilder may finish between a rebuilder's look at the state and its call: the call must
/// not close an open sale.
async fn an_open_sale_stays_open(port: &dyn Admission) {
    let sale = sale(5);
    assert!(port.begin_rebuild(&sale.terms(), 7, START).await.expect("store"));
    assert!(port.finish_rebuild(sale.sale_id, 7).await.expect("store"));
    let reserved = take(port, &sale).await;
    let open = AdmissionState::Open { epoch: 7, version: 1, stock: 5, reserved: 1, settled: 0 };
    for epoch in [6, 7, 8, 100] {
        assert!(
            !port.begin_rebuild(&sale.terms(), epoch, at(1)).await.expect("store"),
            "epoch {epoch}"
        );
        assert!(
            !port.restore(sale.sale_id, epoch, &[request(&sale, user_id())]).await.expect("store"),
            "epoch {epoch}"
        );
        assert_eq!(
            port.finish_rebuild(sale.sale_id, epoch).await.expect("store"),
            epoch == 7,
            "epoch {epoch}"
        );
        assert_eq!(port.state(sale.sale_id).await.expect("store"), open, "epoch {epoch}");
    }
    assert_eq!(find(port, &reserved).await, Some(Reservation { order: reserved, settled: false }));
}

async fn what_is_there_stays(port: &dyn Admission) {
    let sale = sale(5);
    let [first, settled, ended, restored] = std::array::from_fn(|_| request(&sale, user_id()));
    assert!(port.begin_rebuild(&sale.terms(), 1, START).await.expect("store"));
    assert!(
        port.restore(sale.sale_id, 1, &[first.clone(), ended.clone(), restored.clone()])
            .await
            .expect("store")
    );
    port.settle(sale.sale_id, std::slice::from_ref(&settled)).await.expect("store");
    port.release(sale.sale_id, &[ended.order_id].map(testing::ended)).await.expect("store");
    assert!(port.begin_rebuild(&sale.terms(), 2, at(1)).await.expect("store"));
    assert_eq!(read_all(port, sale.sale_id, 2).await.len(), 3);
    // During the rebuild, a released order is removed and a settled order is settled.
    let late = request(&sale, user_id());
    port.release(sale.sale_id, &[late.order_id].map(testing::ended)).await.expect("store");
    let forgotten = request(&sale, user_id());
    let active = [restored.clone(), late.clone(), forgotten.clone()];
    assert!(port.restore(sale.sale_id, 2, &active).await.expect("store"));
    assert!(port.finish_rebuild(sale.sale_id, 2).await.expect("store"));
    assert_held(port, sale.sale_id, 0, 4).await;
    for (order, is_settled) in [
        (&first, Some(true)),
        (&settled, Some(true)),
        (&restored, Some(true)),
        (&late, None),
        (&ended, None),
    ] {
        assert_eq!(find(port, order).await.map(|reservation| reservation.settled), is_settled);
    }
    assert_eq!(available(port, &sale).await, 1);
}

async fn an_older_rebuilder_is_fenced_off(port: &dyn Admission) {
    let sale = sale(9);
    let [by_old, by_new, too_late] = std::array::from_fn(|_| request(&sale, user_id()));
    assert!(port.begin_rebuild(&sale.terms(), 5, at(1)).await.expect("store"));
    assert!(port.restore(sale.sale_id, 5, std::slice::from_ref(&by_old)).await.expect("store"));
    assert!(
        port.begin_rebuild(&sale.terms(), 6, at(2)).await.expect("store"),
        "a newer one takes over at any time"
    );
    let rebuilding = AdmissionState::Rebuilding { epoch: 6, since: at(2) };
    let fenced_off = async |expected: &AdmissionState| {
        for epoch in [1, 5, 7] {
            assert!(
                !port
                    .restore(sale.sale_id, epoch, std::slice::from_ref(&too_late))
                    .await
                    .expect("store")
            );
            assert!(!port.restore(sale.sale_id, epoch, &[]).await.expect("store"));
            assert!(!port.finish_rebuild(sale.sale_id, epoch).await.expect("store"));
        }
        assert!(!port.begin_rebuild(&sale.terms(), 5, at(3)).await.expect("store"));
        assert_eq!(&port.state(sale.sale_id).await.expect("store"), expected);
        assert_eq!(find(port, &too_late).await, None);
    };
    fenced_off(&rebuilding).await;
    assert!(port.restore(sale.sale_id, 6, std::slice::from_ref(&by_new)).await.expect("store"));
    assert!(port.finish_rebuild(sale.sale_id, 6).await.expect("store"));
    fenced_off(&AdmissionState::Open { epoch: 6, version: 1, stock: 9, reserved: 0, settled: 2 })
        .await;
}

async fn rebuilders_in_turn_leave_everything_restored(port: &dyn Admission) {
    let sale = sale(9);
    let orders: Vec<_> = (0..4).map(|_| request(&sale, user_id())).collect();
    // The second rebuild begins after the first has restored half. The first notices and stops; the
    // second restores all orders.
    assert!(port.begin_rebuild(&sale.terms(), 1, at(1)).await.expect("store"));
    assert!(port.restore(sale.sale_id, 1, &orders[..2]).await.expect("store"));
    assert!(port.begin_rebuild(&sale.terms(), 2, at(2)).await.expect("store"));
    assert!(!port.restore(sale.sale_id, 1, &orders[2..]).await.expect("store"));
    assert!(port.restore(sale.sale_id, 2, &orders).await.expect("store"));
    assert!(!port.finish_rebuild(sale.sale_id, 1).await.expect("store"));
    assert_eq!(ask(port, &claim(&sale, user_id())).await, AdmissionDecision::Closed);
    assert!(port.finish_rebuild(sale.sale_id, 2).await.expect("store"));
    assert_held(port, sale.sale_id, 0, 4).await;
    assert_eq!(available(port, &sale).await, 5);
}

async fn epochs_compare_as_numbers(port: &dyn Admission) {
    let sale = sale(1);
    for epoch in [9, 10, 99, 100, 9_007_199_254_740_992, 9_007_199_254_740_993] {
        assert!(port.begin_rebuild(&sale.terms(), epoch, START).await.expect("store"), "{epoch}");
        assert!(
            !port.begin_rebuild(&sale.terms(), epoch - 1, START).await.expect("store"),
            "{epoch}"
        );
        assert!(!port.finish_rebuild(sale.sale_id, epoch - 1).await.expect("store"), "{epoch}");
        assert_eq!(
            port.state(sale.sale_id).await.expect("store"),
            AdmissionState::Rebuilding { epoch, since: START }
        );
    }
}
