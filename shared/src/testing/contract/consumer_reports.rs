//! Suite of [`ConsumerReports`]. It needs a store without other reporters.

use std::sync::Arc;

use crate::testing::START;
use crate::{
    domain::{ConsumerProgress, ConsumerReport},
    ports::ConsumerReports,
};

/// The store returns each process's last report, and eventually removes a process that has gone.
///
/// # Panics
/// When the store does not keep the contract.
pub async fn last_report_of_each(port: &Arc<dyn ConsumerReports>) {
    let all = async || {
        let mut reports = port.reports().await.expect("store");
        reports.sort_by_key(|report| report.consumer);
        reports
    };
    assert_eq!(all().await, []);
    let progress =
        ConsumerProgress { session: 3, handed_back: 1, received: u64::MAX >> 8, done: 7 };
    let one = ConsumerReport { consumer: 1, beat: 1, progress };
    let other = ConsumerReport {
        consumer: u128::MAX,
        beat: 9,
        progress: ConsumerProgress { done: 8, ..progress },
    };
    for report in [one, other] {
        port.report(&report, START).await.expect("store");
    }
    assert_eq!(all().await, [one, other]);
    let later = ConsumerReport {
        beat: 2,
        progress: ConsumerProgress { session: 4, handed_back: 0, received: 1, done: 0 },
        ..one
    };
    port.report(&later, START.plus_ms(500)).await.expect("store");
    assert_eq!(all().await, [later, other], "in place of the earlier one");
    // The other process is silent for more than a minute.
    let mut last = later;
    for beat in 3..=110 {
        last = ConsumerReport { beat, ..later };
        port.report(&last, START.plus_ms(61_000 + beat)).await.expect("store");
    }
    assert_eq!(all().await, [last]);
}
