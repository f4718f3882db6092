//! The event of a batch, in Lambda's format for functions that read a RabbitMQ queue.

use std::collections::HashMap;

use aws_lambda_events::event::rabbitmq::{RabbitMqBasicProperties, RabbitMqEvent, RabbitMqMessage};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};

use crate::lambda::PAYLOAD_BYTES_MAX;
use flashsale::domain::Delivery;

/// Splits the batch into parts whose events fit into a payload. A message that is too large by
/// itself becomes its own part.
pub fn payload_sized(batch: &[Delivery]) -> impl Iterator<Item = &[Delivery]> {
    /// Upper bound of the size of one message's fields other than its data.
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

/// The batch in Lambda's format.
pub fn event(queue: &str, vhost: &str, batch: &[Delivery]) -> RabbitMqEvent {
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
    event.event_source_arn = Some(
        "arn:aws:mq:us-east-1:000000000000:broker:local:b-00000000-0000-0000-0000-000000000000"
            .to_owned(),
    );
    event.messages_by_queue = HashMap::from([(format!("{queue}::{vhost}"), messages)]);
    event
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_cut_to_fit_payloads() {
        let batch = |sizes: &[usize]| -> Vec<Delivery> {
            sizes
                .iter()
                .map(|size| Delivery { tag: 0, body: vec![b'x'; *size], redelivered: false })
                .collect()
        };
        let parts = |sizes: &[usize]| {
            payload_sized(&batch(sizes)).map(<[Delivery]>::len).collect::<Vec<_>>()
        };
        assert_eq!(parts(&[]), [0; 0]);
        assert_eq!(parts(&[100; 50]), [50]);
        const MIB: usize = 1024 * 1024;
        assert_eq!(parts(&[2 * MIB, 2 * MIB, 2 * MIB, 5 * MIB, 1]), [2, 1, 1, 1]);
        for part in payload_sized(&batch(&[150_000; 50])) {
            let payload = serde_json::to_vec(&event("flashsale.orders", "/", part)).unwrap();
            assert!(payload.len() <= PAYLOAD_BYTES_MAX, "{}", payload.len());
        }
    }
}
