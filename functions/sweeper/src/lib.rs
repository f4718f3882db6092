//! Every second: expire the unpaid, return stock, settle or republish what is overdue, reconcile, rebuild.

use aws_lambda_events::event::eventbridge::EventBridgeEvent;
use flashsale::{app::App, lambda::Error};
use serde_json::Value;

/// Handles one tick; the event itself says nothing that matters.
///
/// # Errors
/// When the lock store does not answer.
pub async fn handle(app: App, _tick: EventBridgeEvent<Value>) -> Result<(), Error> {
    let swept = app.sweep().await?;
    tracing::debug!(?swept, "swept");
    Ok(())
}
