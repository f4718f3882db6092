//! The embedded admission store is new with each process. Buyers are served once it knows again which units are sold: every
//! sale is loaded from the ledger, after the order worker has recorded what an earlier process left in the queue.

use std::time::Duration;

use flashsale::app::App;
use tokio::time::{Instant, sleep};

/// A start does not wait longer for what an earlier process left. Sales that are still closed then are opened by the
/// sweeper; until then their buyers are told to retry.
const WAIT_MAX: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(5);

/// Waits until every sale is open that is looked after. A poller must be running. Returns at once with real servers.
pub async fn wait(app: &App) {
    let begun = Instant::now();
    loop {
        match app.open_admission().await {
            Ok(0) => return,
            Ok(closed) if begun.elapsed() >= WAIT_MAX => {
                tracing::warn!(closed, "some sales open when the queue is worked off");
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
