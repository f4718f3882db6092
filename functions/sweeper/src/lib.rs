//! Every second: expires unpaid orders, returns stock, settles or republishes overdue reservations,
//! reconciles and rebuilds.
//!
//! The emulator ticks every second, but EventBridge at most once a minute. So an event may ask for
//! a minute of sweeps: `"detail": {"sweep_for_seconds": 55}`.

use std::time::Duration;

use aws_lambda_events::event::eventbridge::EventBridgeEvent;
use flashsale::{
    app::{App, Swept},
    lambda::Error,
};
use serde_json::Value;
use tokio::time::{Instant, sleep_until};

/// Lambda stops a function after 900 seconds; the last sweep needs time to finish before that.
const SWEEP_FOR_SECONDS_MAX: u64 = 840;

/// Handles one tick: sweeps once, then again every period for the time that the event asks for. The
/// next sweep makes up for a failed one, so only an error of the last sweep is returned. Returns
/// the sum of all sweeps' work and the state after the last.
///
/// # Errors
/// When the event is invalid, or the lock store did not answer the last sweep.
pub async fn handle(app: App, tick: EventBridgeEvent<Value>) -> Result<Swept, Error> {
    let app = app.background();
    let period = Duration::from_millis(app.config.sweeper.period_ms);
    let mut next = Instant::now();
    let end = next + sweep_for(&tick.detail)?;
    let mut before = Swept::default();
    loop {
        sleep_until(next).await;
        let outcome = app.sweep().await;
        // After a sweep that took longer than a period the next one begins at once, and the periods
        // count from there.
        next = Instant::now().max(next + period);
        match outcome {
            Ok(mut swept) => {
                tracing::debug!(?swept, "swept");
                let (overdue, rebuilding) = (swept.overdue, swept.rebuilding);
                swept.add(&before);
                if next >= end {
                    return Ok(Swept { overdue, rebuilding, ..swept });
                }
                before = swept;
            }
            Err(error) if next < end => tracing::warn!(%error, "a sweep failed"),
            Err(error) => return Err(error.into()),
        }
    }
}

fn sweep_for(detail: &Value) -> Result<Duration, Error> {
    match detail.get("sweep_for_seconds") {
        None => Ok(Duration::ZERO),
        Some(given) => {
            let seconds = given.as_u64().filter(|seconds| *seconds <= SWEEP_FOR_SECONDS_MAX);
            seconds.map(Duration::from_secs).ok_or_else(|| {
                format!("detail.sweep_for_seconds: expected a whole number of 0 to {SWEEP_FOR_SECONDS_MAX}, got {given}").into()
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use flashsale::{
        config::Config,
        domain::{Lease, Timestamp},
        ports::{Locks, StoreError, Stored},
        testing::order_id,
        wire,
    };
    use serde_json::json;

    use super::*;

    /// A lock store that is called once per sweep. It grants no lock, and returns an error for the
    /// sweeps in `fails`.
    struct Counted {
        sweeps: AtomicUsize,
        fails: std::ops::Range<usize>,
    }

    #[async_trait::async_trait]
    impl Locks for Counted {
        async fn acquire(&self, _: &str, _: u128, _: u64, _: Timestamp) -> Stored<Option<Lease>> {
            let number = self.sweeps.fetch_add(1, Ordering::SeqCst);
            if self.fails.contains(&number) {
                return Err(StoreError::Unavailable {
                    store: "locks",
                    cause: "a test's fault".to_owned(),
                });
            }
            Ok(None)
        }

        async fn renew(&self, _: &Lease, _: u64, _: Timestamp) -> Stored<bool> {
            Ok(false)
        }

        async fn release(&self, _: &Lease) -> Stored<()> {
            Ok(())
        }
    }

    /// Sweeps every 200 ms as `detail` asks. Returns the number of sweeps and the function's
    /// result.
    async fn swept(detail: Value, fails: std::ops::Range<usize>) -> (usize, Result<(), String>) {
        let dir = std::env::temp_dir().join(format!("flashsale-sweeper-{}", order_id()));
        let settings = [
            ("FLASHSALE_DATA_DIR", dir.display().to_string()),
            ("FLASHSALE_SWEEPER__PERIOD_MS", "200".to_owned()),
        ];
        let config =
            Config::load(None, settings.map(|(name, value)| (name.to_owned(), value)), []).unwrap();
        let mut ports = wire::connect(&config).await.unwrap();
        let locks = Arc::new(Counted { sweeps: AtomicUsize::new(0), fails });
        ports.locks = Arc::clone(&locks) as Arc<dyn Locks>;
        let app = App::new(config, ports).unwrap();
        let mut tick = EventBridgeEvent::default();
        tick.detail = detail;
        let ended = handle(app, tick).await.map(drop).map_err(|error| error.to_string());
        std::fs::remove_dir_all(dir).unwrap();
        (locks.sweeps.load(Ordering::SeqCst), ended)
    }

    #[tokio::test]
    async fn a_plain_tick_is_one_sweep() {
        for detail in [Value::Null, json!({}), json!({ "sweep_for_seconds": 0 })] {
            assert_eq!(swept(detail, 0..0).await, (1, Ok(())));
        }
        let (sweeps, ended) = swept(json!({}), 0..1).await;
        assert!(sweeps == 1 && ended.unwrap_err().contains("a test's fault"));
    }

    #[tokio::test]
    async fn a_long_tick_sweeps_every_period_past_failures() {
        // Five sweeps are expected; a slow machine makes fewer, but at least two.
        let (sweeps, ended) = swept(json!({ "sweep_for_seconds": 1 }), 0..1).await;
        assert!((2..=5).contains(&sweeps), "{sweeps}");
        assert_eq!(ended, Ok(()));
        let (sweeps, ended) = swept(json!({ "sweep_for_seconds": 1 }), 0..usize::MAX).await;
        assert!((2..=5).contains(&sweeps), "{sweeps}");
        assert!(ended.is_err());
    }

    #[tokio::test]
    async fn a_bad_time_is_named() {
        for bad in [json!(841), json!(-1), json!(1.5), json!("55"), Value::Null] {
            let (sweeps, ended) = swept(json!({ "sweep_for_seconds": bad }), 0..0).await;
            assert_eq!(sweeps, 0);
            assert!(
                ended.unwrap_err().starts_with(
                    "detail.sweep_for_seconds: expected a whole number of 0 to 840, got "
                ),
                "{bad}"
            );
        }
    }
}
