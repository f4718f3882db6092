//! The two queues, declared whenever a connection is made.

use lapin::{
    Connection,
    options::QueueDeclareOptions,
    protocol::{AMQPErrorKind, AMQPSoftError},
    types::{AMQPValue, FieldTable, ShortString},
};

/// How many times a message may be handed back before it is parked.
const DELIVERY_LIMIT: i32 = 50;

/// Declares the queues where they are missing. Before RabbitMQ 3.8.10 quorum queues do not accept
/// this overflow setting, and before 3.10 they ignore the dead-letter strategy.
pub(super) async fn declare(
    connection: &Connection,
    queue: &ShortString,
    parked: &ShortString,
) -> Result<(), String> {
    let mut quorum = FieldTable::default();
    quorum.insert("x-queue-type".into(), text("quorum"));
    let mut orders = quorum.clone();
    orders.insert("x-delivery-limit".into(), AMQPValue::LongInt(DELIVERY_LIMIT));
    // The default exchange routes by queue name.
    orders.insert("x-dead-letter-exchange".into(), text(""));
    orders.insert("x-dead-letter-routing-key".into(), text(parked.as_str()));
    let before_3_8_10 = orders.clone();
    // A message leaves this queue only once the parking queue has confirmed it; for that the server
    // requires this overflow setting.
    orders.insert("x-dead-letter-strategy".into(), text("at-least-once"));
    orders.insert("x-overflow".into(), text("reject-publish"));

    declare_queue(connection, parked, quorum).await.map_err(|error| explain(parked, &error))?;
    match declare_queue(connection, queue, orders).await {
        // This also matches a queue that such a server declared before it was upgraded.
        Err(error) if is_refused(&error) => {
            declare_queue(connection, queue, before_3_8_10)
                .await
                .map_err(|_| explain(queue, &error))?;
            tracing::warn!(
                %queue,
                "the queue is one of RabbitMQ before 3.8.10: the parking queue does not confirm what it takes over. After an \
                 upgrade of the server work it off and delete it; it is made again"
            );
            Ok(())
        }
        declared => declared.map_err(|error| explain(queue, &error)),
    }
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

/// Uses its own channel, because the server closes the channel when it refuses.
async fn declare_queue(
    connection: &Connection,
    name: &ShortString,
    arguments: FieldTable,
) -> lapin::Result<()> {
    let channel = connection.create_channel().await?;
    channel.queue_declare(name.clone(), QueueDeclareOptions::durable(), arguments).await?;
    channel.close(200, "OK".into()).await
}

/// The server has this queue with other arguments, or does not support one of these.
fn is_refused(error: &lapin::Error) -> bool {
    matches!(
        error.kind(),
        lapin::ErrorKind::ProtocolError(reply) if matches!(reply.kind(), AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED))
    )
}

fn explain(name: &ShortString, error: &lapin::Error) -> String {
    if is_refused(error) {
        format!(
            "queue {name} exists with other settings than flashsale needs; work it off and delete it, or use another name: {error}"
        )
    } else {
        format!("queue {name} can't be declared: {error}")
    }
}
