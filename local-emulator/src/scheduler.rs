//! Gives the sweeper its tick, as an EventBridge rule does.

use std::time::Duration;

use aws_lambda_events::event::eventbridge::EventBridgeEvent;
use flashsale::app::App;
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use crate::{host::Host, lambda::new_id};

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
        if let Err(error) = host.tick(&event(app)).await {
            tracing::warn!(error, "sweeper");
        }
    }
    // A sweeper in a process of its own leads by itself, and its lease ends with its time.
    if let Err(error) = app.stop_sweeping().await {
        tracing::debug!(%error, "leadership ends with its lease");
    }
}

/// What an EventBridge rule sends.
fn event(app: &App) -> EventBridgeEvent<Value> {
    let event = json!({
        "version": "0",
        "id": new_id(app.ports.random.as_ref()),
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "account": "000000000000",
        "time": app.now(),
        "region": "us-east-1",
        "resources": ["arn:aws:events:us-east-1:000000000000:rule/flashsale-sweeper"],
        "detail": {},
    });
    serde_json::from_value(event).expect("it has the fields of a scheduled event")
}
