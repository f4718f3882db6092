//! The two queues, declared whenever a connection is made.

use lapin::{
    options::QueueDeclareOptions,
    protocol::{AMQPErrorKind, AMQPSoftError},
    types::{AMQPValue, FieldTable, ShortString},
};

use super::{DELIVERY_LIMIT, connection::Live};

/// Makes the queues where they are missing. Every server from 3.8 on takes these arguments; those before 3.10 ignore
/// the dead-letter strategy.
pub(super) async fn declare(live: &Live, queue: &ShortString, parked: &ShortString) -> Result<(), String> {
    let text = |text: &str| AMQPValue::LongString(text.into());
    let mut aside = FieldTable::default();
    aside.insert("x-queue-type".into(), text("quorum"));
    let mut orders = aside.clone();
    orders.insert("x-delivery-limit".into(), AMQPValue::LongInt(DELIVERY_LIMIT));
    // The default exchange routes by the name of the queue.
    orders.insert("x-dead-letter-exchange".into(), text(""));
    orders.insert("x-dead-letter-routing-key".into(), text(parked.as_str()));
    // A message leaves this queue only once the parking queue has confirmed it; the server wants this overflow for it.
    orders.insert("x-dead-letter-strategy".into(), text("at-least-once"));
    orders.insert("x-overflow".into(), text("reject-publish"));
    let channel = live.channel().await.map_err(|error| error.to_string())?;
    for (name, arguments) in [(parked, aside), (queue, orders)] {
        channel.queue_declare(name.clone(), QueueDeclareOptions::durable(), arguments).await.map_err(|error| explain(name, &error))?;
    }
    channel.close(200, "OK".into()).await.map_err(|error| error.to_string())
}

fn explain(name: &ShortString, error: &lapin::Error) -> String {
    let differs = matches!(
        error.kind(),
        lapin::ErrorKind::ProtocolError(reply) if matches!(reply.kind(), AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED))
    );
    if differs {
        format!("queue {name} exists with other settings than flashsale needs; work it off and delete it, or use another name: {error}")
    } else {
        format!("queue {name} can't be declared: {error}")
    }
}
