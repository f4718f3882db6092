//! Reports the poller's progress to other processes: a rebuild of the admission store waits for the
//! orders that it holds.

use std::time::Duration;

use flashsale::{app::App, logging::OncePerSecond};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

/// The period of reports. A rebuild waits for several of them even when the queue is idle.
const PERIOD: Duration = Duration::from_millis(500);

/// Reports until `stop` turns true.
pub async fn run(app: App, mut stop: watch::Receiver<bool>) {
    static LINES: OncePerSecond = OncePerSecond::new();
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = stop.wait_for(|stop| *stop) => break,
        }
        // Without the report a rebuild waits until its timeout.
        if let Err(error) = app.report_held().await
            && let Some(left_out) = LINES.pass()
        {
            tracing::warn!(%error, left_out, "the poller's progress could not be reported");
        }
    }
}
