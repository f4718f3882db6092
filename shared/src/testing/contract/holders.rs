//! Suite of [`Holders`]. It wants a store that nobody else reports to.

use crate::testing::START;
use crate::{
    domain::{Held, HolderReport},
    ports::Holders,
};

/// Each process's last report is there, and a process that has gone is forgotten in the end.
///
/// # Panics
/// When the store does not keep the contract.
pub async fn suite(port: &dyn Holders) {
    let all = async || {
        let mut reports = port.reports().await.expect("store");
        reports.sort_by_key(|report| report.holder);
        reports
    };
    assert_eq!(all().await, []);
    let held = Held { session: 3, handed_back: 1, received: u64::MAX >> 8, done: 7 };
    let one = HolderReport { holder: 1, beat: 1, held };
    let other = HolderReport { holder: u128::MAX, beat: 9, held: Held { done: 8, ..held } };
    for report in [one, other] {
        port.report(&report, START).await.expect("store");
    }
    assert_eq!(all().await, [one, other]);
    let later = HolderReport {
        beat: 2,
        held: Held { session: 4, handed_back: 0, received: 1, done: 0 },
        ..one
    };
    port.report(&later, START.plus_ms(500)).await.expect("store");
    assert_eq!(all().await, [later, other], "in place of the earlier one");
    // The other one is silent for more than a minute.
    let mut last = later;
    for beat in 3..=110 {
        last = HolderReport { beat, ..later };
        port.report(&last, START.plus_ms(61_000 + beat)).await.expect("store");
    }
    assert_eq!(all().await, [last]);
}
