//! Turns messages of the order queue into batches for the order worker, as Lambda's event source mapping for Amazon MQ does:
//! a batch is as large as messages are there, or come within the batching window; it is acknowledged when the function has
//! succeeded, and given again when it has failed. What is given again too often is parked by the queue.

use std::{collections::HashMap, time::Duration};

use aws_lambda_events::event::rabbitmq::{RabbitMqBasicProperties, RabbitMqEvent, RabbitMqMessage};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use flashsale::ports::{Delivery, Stored};
use tokio::{sync::watch, time::Instant};

use crate::{host::Host, lambda::PAYLOAD_BYTES_MAX};

/// Pauses between tries of one batch: doubled from the first to the last.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_LAST: Duration = Duration::from_secs(2);
/// After so long a batch is handed back, for another instance to try.
const HAND_BACK_AFTER: Duration = Duration::from_secs(60);

/// Polls until `stop` turns true; the batch under way is finished or handed back.
pub async fn run(host: Host, mut stop: watch::Receiver<bool>) {
    let mut pause = PAUSE_FIRST;
    while !*stop.borrow() {
        let received = tokio::select! {
            received = gather(&host) => received,
            // A message taken but not seen here is handed back when the source is closed.
            _ = stop.wait_for(|stop| *stop) => break,
        };
        match received {
            Ok(batch) if batch.is_empty() => {}
            Ok(batch) => {
                let mut settled = true;
                for batch in within_payload(&batch) {
                    settled &= deliver(&host, batch, &stop).await;
                }
                // What could not be acknowledged comes again at once (a full disk, say): not to be met without a pause.
                if settled { pause = PAUSE_FIRST } else { back_off(&mut pause).await }
            }
            Err(error) => {
                tracing::warn!(%error, "the order queue can't be read");
                back_off(&mut pause).await;
            }
        }
    }
}

/// Sleeps, and makes the next pause longer.
async fn back_off(pause: &mut Duration) {
    tokio::time::sleep(*pause).await;
    *pause = (*pause * 2).min(PAUSE_LAST);
}

/// One batch: what is there when the first message comes, and what comes within the batching window after that.
async fn gather(host: &Host) -> Stored<Vec<Delivery>> {
    let (source, worker) = (&host.app().ports.source, host.app().config.worker);
    let mut batch = source.receive(worker.batch_messages_max, worker.batch_wait_ms).await?;
    let window = Duration::from_millis(worker.batch_window_ms);
    let begun = Instant::now();
    while !batch.is_empty() && batch.len() < worker.batch_messages_max as usize && begun.elapsed() < window {
        let left = window.saturating_sub(begun.elapsed());
        let room = worker.batch_messages_max - batch.len() as u32;
        match source.receive(room, u64::try_from(left.as_millis()).unwrap_or(0).max(1)).await {
            Ok(more) => batch.extend(more),
            // What was gathered is not to wait for the queue to come back.
            Err(_) => break,
        }
    }
    Ok(batch)
}

/// Gives one batch to the function until it succeeds; says whether the queue knows what came of it.
async fn deliver(host: &Host, batch: &[Delivery], stop: &watch::Receiver<bool>) -> bool {
    let tags: Vec<u64> = batch.iter().map(|delivery| delivery.tag).collect();
    let source = &host.app().ports.source;
    let config = &host.app().config;
    let event = event(&config.amqp_queue, &config.amqp_vhost(), batch);
    let started = Instant::now();
    let mut pause = PAUSE_FIRST;
    loop {
        let Err(problem) = host.work_off(&event).await else {
            break settle("ack", source.ack(&tags).await);
        };
        tracing::warn!(error = problem, messages = batch.len(), "order-worker failed; the batch is given again");
        if *stop.borrow() || started.elapsed() > HAND_BACK_AFTER {
            break settle("hand back", source.hand_back(&tags).await);
        }
        back_off(&mut pause).await;
    }
}

/// An acknowledgement that is lost costs only a second delivery, which finds the work done.
fn settle(what: &str, outcome: Stored<()>) -> bool {
    if let Err(error) = &outcome {
        tracing::warn!(%error, what, "the messages will come again");
    }
    outcome.is_ok()
}

/// The batch in parts whose events are small enough to be payloads. A message that alone is too large goes alone.
fn within_payload(batch: &[Delivery]) -> impl Iterator<Item = &[Delivery]> {
    /// What stands around one message's data, generously.
    const ENVELOPE_BYTES: usize = 1_024;
    let mut rest = batch;
    std::iter::from_fn(move || {
        let mut bytes = ENVELOPE_BYTES;
        let fitting = rest.iter().take_while(|delivery| {
            bytes += delivery.body.len().div_ceil(3) * 4 + ENVELOPE_BYTES;
            bytes <= PAYLOAD_BYTES_MAX
        });
        let count = fitting.count().max(1).min(rest.len());
        let (part, others) = rest.split_at(count);
        rest = others;
        (!part.is_empty()).then_some(part)
    })
}

/// The batch in the shape that Lambda gives to functions.
fn event(queue: &str, vhost: &str, batch: &[Delivery]) -> RabbitMqEvent {
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
    event.messages_by_queue = HashMap::from([(format!("{queue}::{vhost}"), messages)]);
    event
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use async_trait::async_trait;
    use flashsale::{
        app::App,
        config::Config,
        contract,
        ports::{Held, OrderSource, StoreError},
        wire,
    };

    use super::*;

    /// Gives out the same message as often as it is asked, because it can't note that it is done: its disk is full.
    struct Full(AtomicUsize);

    #[async_trait]
    impl OrderSource for Full {
        fn held(&self) -> Option<Held> {
            None
        }

        async fn receive(&self, _: u32, _: u64) -> Stored<Vec<Delivery>> {
            let given = self.0.fetch_add(1, Ordering::SeqCst);
            Ok(vec![Delivery { tag: given as u64, body: br#"{"v":1,"orders":[]}"#.to_vec(), redelivered: given > 0 }])
        }

        async fn ack(&self, _: &[u64]) -> Stored<()> {
            Err(StoreError::Unavailable { store: "test", cause: "the disk is full".to_owned() })
        }

        async fn hand_back(&self, tags: &[u64]) -> Stored<()> {
            self.ack(tags).await
        }

        async fn close(&self) {}
    }

    #[tokio::test]
    async fn what_cannot_be_acknowledged_is_not_given_again_without_a_pause() {
        let dir = std::env::temp_dir().join(format!("flashsale-poller-{}", contract::order_id()));
        let config = Config::load(None, [("FLASHSALE_DATA_DIR".to_owned(), dir.display().to_string())], []).unwrap();
        let mut ports = wire::connect(&config).await.unwrap();
        let full = Arc::new(Full(AtomicUsize::new(0)));
        ports.source = full.clone();
        let host = Host::InProcess(App::new(config, ports).await.unwrap());
        let (stop, stopping) = watch::channel(false);
        let polling = tokio::spawn(run(host, stopping));
        tokio::time::sleep(Duration::from_secs(1)).await;
        stop.send_replace(true);
        polling.await.unwrap();
        // Pauses of 50, 100, 200, 400, 800 ms: a slow machine makes fewer, one that spins makes thousands.
        assert!((1..=6).contains(&full.0.load(Ordering::SeqCst)), "{:?}", full.0);
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_batch_is_cut_to_fit_payloads() {
        let batch = |sizes: &[usize]| -> Vec<Delivery> {
            sizes.iter().map(|size| Delivery { tag: 0, body: vec![b'x'; *size], redelivered: false }).collect()
        };
        let parts = |sizes: &[usize]| within_payload(&batch(sizes)).map(<[Delivery]>::len).collect::<Vec<_>>();
        assert_eq!(parts(&[]), [0; 0]);
        assert_eq!(parts(&[100; 50]), [50]);
        const MIB: usize = 1024 * 1024;
        assert_eq!(parts(&[2 * MIB, 2 * MIB, 2 * MIB, 5 * MIB, 1]), [2, 1, 1, 1]);
        for part in within_payload(&batch(&[150_000; 50])) {
            let payload = serde_json::to_vec(&event("flashsale.orders", "/", part)).unwrap();
            assert!(payload.len() <= PAYLOAD_BYTES_MAX, "{}", payload.len());
        }
    }
}
