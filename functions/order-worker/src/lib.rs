//! Records a batch of the order queue (`RabbitMqEvent`) in the ledger.
//!
//! Amazon MQ redelivers a whole batch when the function fails, so one unusable message must not
//! fail the batch: such messages are parked, and the batch succeeds.

use aws_lambda_events::event::rabbitmq::RabbitMqEvent;
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use flashsale::{app::App, lambda::Error};

/// Handles one batch. After an error the whole batch must be redelivered.
///
/// # Errors
/// When a store does not answer, or the event is not one of a queue.
pub async fn handle(app: App, event: RabbitMqEvent) -> Result<(), Error> {
    if event.messages_by_queue.is_empty() {
        // Every field of the event has a default, so any JSON object would pass for an empty batch.
        return Err("the event holds no messages: it is not one of an Amazon MQ queue".into());
    }
    let messages = event.messages_by_queue.into_values().flatten();
    // Text that is not base64 is passed on unchanged, so that it is parked as it arrived.
    let bodies: Vec<Vec<u8>> = messages
        .map(|message| {
            let data = message.data.unwrap_or_default();
            BASE64.decode(&data).unwrap_or_else(|_| data.into_bytes())
        })
        .collect();
    Ok(app.background().record_messages(&bodies).await?)
}

#[cfg(test)]
mod tests {
    use aws_lambda_events::event::rabbitmq::RabbitMqMessage;
    use flashsale::{
        config::Config,
        domain::QueueMessage,
        ports::{Background, Ports},
        testing::{order_id, request, sale, user_id},
        wire,
    };

    use super::*;

    async fn store() -> (Config, Ports) {
        let dir = std::env::temp_dir().join(format!("flashsale-order-worker-{}", order_id()));
        let setting = ("FLASHSALE_DATA_DIR".to_owned(), dir.display().to_string());
        let config = Config::load(None, [setting], []).unwrap();
        let ports = wire::connect(&config).await.unwrap();
        (config, ports)
    }

    /// Two ledgers, to see which ports recorded the order.
    #[tokio::test]
    async fn orders_are_recorded_through_connections_that_no_request_holds() {
        let ((config, mut requests), (other, own)) = (store().await, store().await);
        requests.background = Some(Background {
            ledger_clock: own.ledger_clock,
            session_ledger: own.session_ledger,
            ban_ledger: own.ban_ledger,
            sales: own.sales,
            orders: own.orders.clone(),
            draws: own.draws,
        });
        let dirs = [config.data_dir.clone(), other.data_dir];
        let app = App::new(config, requests.clone()).unwrap();
        let order = request(&sale(1), user_id());
        let message = QueueMessage { v: QueueMessage::VERSION, orders: vec![order.clone()] };
        let data = BASE64.encode(serde_json::to_vec(&message).unwrap());
        let mut event = RabbitMqEvent::default();
        let mut message = RabbitMqMessage::default();
        message.data = Some(data);
        event.messages_by_queue.insert("flashsale.orders::/".to_owned(), vec![message]);
        handle(app, event).await.unwrap();
        assert!(own.orders.get(order.order_id).await.unwrap().is_some());
        assert!(requests.orders.get(order.order_id).await.unwrap().is_none());
        for dir in dirs {
            std::fs::remove_dir_all(dir).unwrap();
        }
    }
}
