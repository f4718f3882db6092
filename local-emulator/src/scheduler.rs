//! Gives the sweeper its tick, as an EventBridge rule does.

use std::time::Duration;

use aws_lambda_events::event::eventbridge::EventBridgeEvent;
use flashsale::app::App;
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

/// Ticks until `stop` turns true, then gives up leadership.
pub async fn run(app: App, mut stop: watch::Receiver<bool>) {
    let mut ticks = interval(Duration::from_millis(app.config.sweeper.period_ms));
    // After a long tick the next one comes a period later, not many at once.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = stop.wait_for(|stop| *stop) => break,
        }
        // A task of its own, so that a panic costs one tick.
        match tokio::spawn(sweeper::handle(app.clone(), event())).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "sweeper"),
            Err(error) => tracing::error!(%error, "sweeper"),
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
