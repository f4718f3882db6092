//! The metrics of calls.

use std::sync::LazyLock;

use metrics::{Counter, Histogram};
use tokio::time::Instant;

use crate::{
    metrics::{CONNECTS, REDIS_FAILURES, REDIS_SECONDS, elapsed},
    ports::Stored,
};

/// Calls that run no script.
pub(super) static COMMANDS: LazyLock<Calls> = LazyLock::new(|| Calls::new("command"));
/// Attempts to connect, by outcome.
pub(super) static CONNECTED: LazyLock<[Counter; 2]> =
    LazyLock::new(|| ["connected", "failed"].map(|outcome| CONNECTS.counter(&["redis", outcome])));

/// The metrics of one kind of call.
pub(super) struct Calls {
    seconds: Histogram,
    failures: Counter,
}

impl Calls {
    pub(super) fn new(name: &'static str) -> Self {
        Self {
            seconds: REDIS_SECONDS.histogram(&[name]),
            failures: REDIS_FAILURES.counter(&[name]),
        }
    }

    /// Measures one call.
    pub(super) async fn measure<T>(&self, call: impl Future<Output = Stored<T>>) -> Stored<T> {
        let begun = Instant::now();
        let outcome = call.await;
        self.seconds.record(elapsed(begun.elapsed()));
        self.failures.increment(u64::from(outcome.is_err()));
        outcome
    }
}
