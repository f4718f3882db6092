//! Gives the sweeper its tick, as an EventBridge rule does.

use std::time::Duration;

use aws_lambda_events::event::eventbridge::EventBridgeEvent;
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use crate::host::Host;

/// Ticks until `stop` turns true, then gives up leadership.
pub async fn run(host: Host, mut stop: watch::Receiver<bool>) {
    let app = host.app();
    let mut ticks = interval(Duration::from_millis(app.config.sweeper.period_ms));
    // After a long tick the next one comes a period later, not many at once.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = stop.wait_for(|stop| *stop) => break,
        }
        if let Err(error) = host.tick(&event()).await {
            tracing::warn!(error, "sweeper");
        }
    }
    if let Err(error) = app.stop_sweeping().await {
        tracing::debug!(%error, "leadership ends with its lease");
    }
}

fn event() -> EventBridgeEvent<Value> {
    let mut event = EventBridgeEvent::default();
    event.detail_type = "Scheduled Event".to_owned();
    event.source = "aws.events".to_owned();
    event.detail = json!({});
    event
}
