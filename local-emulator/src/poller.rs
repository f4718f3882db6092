//! Turns messages of the order queue into batches for the order worker, as Lambda's event source for Amazon MQ does: a
//! batch is acknowledged when the function has succeeded, and given again when it has failed.

use std::{collections::HashMap, time::Duration};

use aws_lambda_events::event::rabbitmq::{RabbitMqBasicProperties, RabbitMqEvent, RabbitMqMessage};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use flashsale::{app::App, ports::Delivery};
use tokio::{sync::watch, time::Instant};

/// Pauses between tries of one batch: doubled from the first to the last.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_LAST: Duration = Duration::from_secs(2);
/// After so long a batch is handed back, for another instance to try.
const HAND_BACK_AFTER: Duration = Duration::from_secs(60);

/// Polls until `stop` turns true; the batch under way is finished or handed back.
pub async fn run(app: App, mut stop: watch::Receiver<bool>) {
    let worker = app.config.worker;
    let mut pause = PAUSE_FIRST;
    while !*stop.borrow() {
        let received = tokio::select! {
            received = app.ports.source.receive(worker.batch_messages_max, worker.batch_wait_ms) => received,
            // A message taken but not seen here is handed back when the source is closed.
            _ = stop.wait_for(|stop| *stop) => break,
        };
        match received {
            Ok(batch) if batch.is_empty() => {}
            Ok(batch) => {
                deliver(&app, &batch, &stop).await;
                pause = PAUSE_FIRST;
            }
            Err(error) => {
                tracing::warn!(%error, "the order queue can't be read");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_LAST);
            }
        }
    }
}

/// Gives one batch to the function until it succeeds.
async fn deliver(app: &App, batch: &[Delivery], stop: &watch::Receiver<bool>) {
    let tags: Vec<u64> = batch.iter().map(|delivery| delivery.tag).collect();
    let event = event(&app.config.amqp_queue, batch);
    let started = Instant::now();
    let mut pause = PAUSE_FIRST;
    loop {
        // A task of its own, so that a panic in the function is a failure of this batch and not the poller's end.
        let outcome = tokio::spawn(order_worker::handle(app.clone(), event.clone())).await;
        let problem = match outcome {
            Ok(Ok(())) => break settle("ack", app.ports.source.ack(&tags).await),
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        tracing::warn!(error = problem, messages = batch.len(), "order-worker failed; the batch is given again");
        if *stop.borrow() || started.elapsed() > HAND_BACK_AFTER {
            break settle("hand back", app.ports.source.hand_back(&tags).await);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_LAST);
    }
}

/// An acknowledgement that is lost costs only a second delivery, which finds the work done.
fn settle(what: &str, outcome: flashsale::ports::Stored<()>) {
    if let Err(error) = outcome {
        tracing::warn!(%error, what, "the messages will come again");
    }
}

/// The batch in the shape that Lambda gives to functions.
pub fn event(queue: &str, batch: &[Delivery]) -> RabbitMqEvent {
    let messages = batch
        .iter()
        .map(|delivery| {
            let mut properties = RabbitMqBasicProperties::default();
            properties.content_type = Some("application/json".to_owned());
            properties.delivery_mode = 2;
            properties.body_size = delivery.body.len() as u64;
            let mut message = RabbitMqMessage::default();
            message.basic_properties = properties;
            message.data = Some(BASE64.encode(&delivery.body));
            message.redelivered = delivery.redelivered;
            message
        })
        .collect();
    let mut event = RabbitMqEvent::default();
    event.event_source = Some("aws:rmq".to_owned());
    event.event_source_arn = Some("arn:aws:mq:us-east-1:000000000000:broker:local:b-00000000-0000-0000-0000-000000000000".to_owned());
    event.messages_by_queue = HashMap::from([(format!("{queue}::/"), messages)]);
    event
}
