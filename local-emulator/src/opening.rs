//! Fills the embedded admission store, which is empty at each start. Before buyers are served, the
//! order worker records the orders that an earlier process left in the queue, and then every sale
//! is loaded from the ledger.

use std::time::Duration;

use flashsale::app::App;
use tokio::time::{Instant, sleep};

/// The longest that a start waits for the queue. The sweeper opens sales that are still closed
/// then; until it does, their buyers are told to retry.
const WAIT_MAX: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(5);

/// Waits until every sale that the sweeper maintains is open. A poller must be running. Returns at
/// once with real servers.
pub async fn wait(app: &App) {
    let begun = Instant::now();
    loop {
        match app.open_admission().await {
            Ok(0) => return,
            Ok(closed) if begun.elapsed() >= WAIT_MAX => {
                tracing::warn!(closed, "some sales open only after the queued orders are recorded");
                return;
            }
            Ok(_) => sleep(PAUSE).await,
            Err(error) => {
                tracing::warn!(%error, "sales are not open yet; the sweeper goes on");
                return;
            }
        }
    }
}
