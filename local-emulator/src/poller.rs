//! Turns messages of the order queue into batches for the order worker, as Lambda's event source
//! mapping for Amazon MQ does: a batch has the messages that are ready, and those that arrive
//! within the batching window; it is acknowledged when the function has succeeded, and retried when
//! it has failed. The source mapping would always retry a failing batch as a whole; the poller
//! instead finds the messages that fail and hands those back. The queue parks messages that are
//! handed back too often.

mod event;
mod metrics;

use std::time::Duration;

use flashsale::domain::Delivery;
use flashsale::ports::Stored;
use tokio::{sync::watch, time::Instant};

use self::{
    event::{event, payload_sized},
    metrics::PollerMetrics,
};
use crate::{host::Host, metrics::Oldest};

/// Pauses between tries of one batch: doubled from the first to the last.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_LAST: Duration = Duration::from_secs(2);
/// Tries with the whole batch before each message is tried alone.
const TRIES_TOGETHER: u32 = 2;
/// A batch that has been tried for this long is handed back, so that another instance can try it.
const HAND_BACK_AFTER: Duration = Duration::from_secs(60);

/// Polls until `stop` turns true; the current batch is finished or handed back.
pub async fn run(host: Host, oldest: Oldest, mut stop: watch::Receiver<bool>) {
    let metrics = PollerMetrics::new(oldest);
    let mut pause = PAUSE_FIRST;
    while !*stop.borrow() {
        let received = tokio::select! {
            received = gather(&host) => received,
            // Closing the source hands back a message that was received but is dropped here.
            _ = stop.wait_for(|stop| *stop) => break,
        };
        match received {
            Ok(batch) if batch.is_empty() => {}
            Ok(batch) => {
                let settled = deliver(&host, batch, &metrics, &stop).await;
                // A message that could not be acknowledged (for example because the disk is full)
                // is redelivered at once; a pause avoids a busy loop.
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

/// One batch: the messages that are ready when the first arrives, and those that arrive within the
/// batching window after that.
async fn gather(host: &Host) -> Stored<Vec<Delivery>> {
    let (source, worker) = (&host.app().ports.source, host.app().config.worker);
    let mut batch = source.receive(worker.batch_messages_max, worker.batch_wait_ms).await?;
    let window = Duration::from_millis(worker.batch_window_ms);
    let begun = Instant::now();
    while !batch.is_empty()
        && batch.len() < worker.batch_messages_max as usize
        && begun.elapsed() < window
    {
        let left = window.saturating_sub(begun.elapsed());
        let room = worker.batch_messages_max - batch.len() as u32;
        match source.receive(room, u64::try_from(left.as_millis()).unwrap_or(0).max(1)).await {
            Ok(more) => batch.extend(more),
            // Deliver the messages gathered so far instead of waiting until the queue can be read
            // again.
            Err(_) => break,
        }
    }
    Ok(batch)
}

/// Gives the messages to the function until each is acknowledged or handed back; returns whether
/// the queue has accepted that.
///
/// A batch fails as a whole, whichever of its messages is the cause. So after [`TRIES_TOGETHER`]
/// tries each message is given alone, and a message that still fails after others have succeeded is
/// handed back: it does not delay the rest, and the queue parks it after too many deliveries. While
/// all messages fail (for example because the ledger is down) none is handed back, because that
/// would use up the deliveries of valid messages. New messages are added meanwhile: if one of them
/// succeeds, the failing messages are the cause.
async fn deliver(
    host: &Host,
    mut batch: Vec<Delivery>,
    metrics: &PollerMetrics,
    stop: &watch::Receiver<bool>,
) -> bool {
    let app = host.app();
    let (source, config) = (&app.ports.source, &app.config);
    let (queue, vhost) = (&config.amqp_queue, config.amqp_vhost());
    let (started, mut pause) = (Instant::now(), PAUSE_FIRST);
    let _in_flight = metrics.batch(started);
    let over = || *stop.borrow() || started.elapsed() > HAND_BACK_AFTER;
    // `acked`: the queue accepted every acknowledgement. `others_succeed`: some message succeeded
    // in an earlier try.
    let (mut acked, mut others_succeed) = (true, false);
    for tries in 1_u32.. {
        metrics.note_age(&batch);
        let singly = tries > TRIES_TOGETHER;
        let parts: Vec<&[Delivery]> =
            if singly { batch.chunks(1).collect() } else { payload_sized(&batch).collect() };
        let (mut done, mut problem) = (Vec::new(), None);
        for part in parts {
            match host.work_off(&event(queue, &vhost, part)).await {
                Ok(()) => done.extend(tags(part)),
                Err(error) => problem = Some(error),
            }
            // Messages not tried yet are handed back below.
            if singly && over() {
                break;
            }
        }
        if !done.is_empty() {
            acked &= settle("ack", source.ack(&done).await);
        }
        batch.retain(|delivery| !done.contains(&delivery.tag));
        if batch.is_empty() {
            break;
        }
        tracing::warn!(
            error = problem,
            messages = batch.len(),
            singly,
            "order-worker failed; the messages are retried"
        );
        if over() || (singly && others_succeed) {
            metrics.handed_back.increment(batch.len() as u64);
            return settle("hand back", source.hand_back(&tags(&batch).collect::<Vec<_>>()).await)
                && acked;
        }
        others_succeed |= !done.is_empty();
        back_off(&mut pause).await;
        let room = config
            .worker
            .batch_messages_max
            .saturating_sub(u32::try_from(batch.len()).unwrap_or(u32::MAX));
        if singly && room > 0 {
            // If the queue can't be read, the messages at hand are retried without new ones.
            batch.extend(source.receive(room, 1).await.unwrap_or_default());
        }
    }
    acked
}

fn tags(batch: &[Delivery]) -> impl Iterator<Item = u64> {
    batch.iter().map(|delivery| delivery.tag)
}

/// Logs a lost acknowledgement. It costs only a second delivery, which finds the order already
/// recorded.
fn settle(what: &str, outcome: Stored<()>) -> bool {
    if let Err(error) = &outcome {
        tracing::warn!(%error, what, "the messages will be redelivered");
    }
    outcome.is_ok()
}

#[cfg(test)]
mod tests;
