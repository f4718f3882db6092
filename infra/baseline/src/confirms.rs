//! Single confirmed publishes to a quorum queue, without a batch, on one channel.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties,
    options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions},
    types::{AMQPValue, FieldTable},
};
use tokio::task::JoinSet;

const QUEUE: &str = "flashsale.baseline";
/// A message with one order, as the product sends it.
const ORDER: &str = r#"{"v":1,"orders":[{"order_id":"01a00000-0000-7000-8000-000000000001","sale_id":"01a00000-0000-7000-8000-000000000002","user_id":"01a00000-0000-7000-8000-000000000003","price":1999,"currency":"USD","admitted_at":1900000000000}]}"#;

/// How many are confirmed per second.
pub async fn rate(url: &str, seconds: f64, in_flight: usize) -> anyhow::Result<f64> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    let mut quorum = FieldTable::default();
    quorum.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    channel.queue_declare(QUEUE.into(), QueueDeclareOptions::durable(), quorum).await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;

    let begun = Instant::now();
    let end = begun + Duration::from_secs_f64(seconds);
    let mut publishers = JoinSet::new();
    for _ in 0..in_flight {
        publishers.spawn(publish(channel.clone(), end));
    }
    let mut confirmed = 0;
    while let Some(publisher) = publishers.join_next().await {
        confirmed += publisher??;
    }
    let rate = f64::from(confirmed) / begun.elapsed().as_secs_f64();

    channel.queue_delete(QUEUE.into(), QueueDeleteOptions::default()).await?;
    connection.close(200, "OK".into()).await?;
    Ok(rate)
}

/// Publishes one message after the other until `end`.
async fn publish(channel: Channel, end: Instant) -> anyhow::Result<u32> {
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    // 2: the message survives a restart of the server.
    let properties = BasicProperties::default().with_delivery_mode(2);
    let mut confirmed = 0;
    while Instant::now() < end {
        let confirmation = channel
            .basic_publish("".into(), QUEUE.into(), options, ORDER.as_bytes(), properties.clone())
            .await?
            .await
            .context("the publish was not confirmed")?;
        anyhow::ensure!(matches!(confirmation, Confirmation::Ack(None)), "{confirmation:?}");
        confirmed += 1;
    }
    Ok(confirmed)
}
