//! A batch of the order queue (`RabbitMqEvent`) -> the ledger.
//!
//! Amazon MQ gives a whole batch again when the function fails, so one message that can't be used must not fail it:
//! such messages are parked, and the batch succeeds.

use aws_lambda_events::event::rabbitmq::RabbitMqEvent;
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use flashsale::{app::App, lambda::Error};

/// Handles one batch. After an error the whole batch is to be given again.
///
/// # Errors
/// When a store does not answer, or the event is none of a queue.
pub async fn handle(app: App, event: RabbitMqEvent) -> Result<(), Error> {
    if event.messages_by_queue.is_empty() {
        // Every field of the event has a default, so any JSON object would pass for an empty batch.
        return Err("the event holds no messages: it is not one of an Amazon MQ queue".into());
    }
    let messages = event.messages_by_queue.into_values().flatten();
    // What is no base64 is handed on as it is: it will be parked with its own text.
    let bodies: Vec<Vec<u8>> = messages
        .map(|message| {
            let data = message.data.unwrap_or_default();
            BASE64.decode(&data).unwrap_or_else(|_| data.into_bytes())
        })
        .collect();
    Ok(app.record_messages(&bodies).await?)
}
