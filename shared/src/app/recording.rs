//! The order worker's work: messages from the queue become rows of the ledger, and the admission store is told.

use std::collections::BTreeMap;

use futures_util::future::join_all;

use super::App;
use crate::{
    domain::{OrderId, OrderRequest, QueueMessage, SaleId},
    ports::{Recorded, StoreError, Stored},
};

impl App {
    /// Records the orders of a batch of messages. When this returns `Ok` every order in them is in the ledger, or was
    /// parked, and the messages can be acknowledged. After an error the whole batch is to be given again.
    ///
    /// # Errors
    /// When the ledger, the admission store or the queue does not answer.
    pub async fn record_messages(&self, bodies: &[Vec<u8>]) -> Stored<()> {
        let mut requests = Vec::new();
        for body in bodies {
            match read(body) {
                Ok(message) => requests.extend(message.orders),
                Err(reason) => {
                    tracing::error!(reason, bytes = body.len(), "a message can't be used and is parked");
                    self.ports.queue.park(body, &reason).await?;
                }
            }
        }
        for chunk in requests.chunks(self.config.worker.record_orders_max) {
            self.record_or_park(chunk).await?;
        }
        Ok(())
    }

    /// Records the orders; when one of them can never be recorded, halves the batch until it stands alone, and parks it.
    async fn record_or_park(&self, requests: &[OrderRequest]) -> Stored<()> {
        let mut work = vec![requests];
        while let Some(batch) = work.pop() {
            match (self.ports.orders.record(batch, self.now(), self.config.orders.pay_within_seconds * 1_000).await, batch) {
                (Ok(recorded), _) => self.tell(&recorded, batch).await?,
                (Err(StoreError::Corrupt { cause, .. }), [alone]) => {
                    tracing::error!(cause, order_id = %alone.order_id, "an order can't be recorded and is parked");
                    let message = QueueMessage { v: QueueMessage::VERSION, orders: vec![alone.clone()] };
                    let body = serde_json::to_vec(&message).expect("a message can be written as JSON");
                    self.ports.queue.park(&body, &cause).await?;
                }
                (Err(StoreError::Corrupt { .. }), _) => {
                    let (first, second) = batch.split_at(batch.len() / 2);
                    work.extend([second, first]);
                }
                (Err(error), _) => return Err(error),
            }
        }
        Ok(())
    }

    /// Tells the admission store and the cache what the ledger has said. Idempotent: a redelivery does it again.
    async fn tell(&self, recorded: &[Recorded], requests: &[OrderRequest]) -> Stored<()> {
        let mut sales: BTreeMap<SaleId, (Vec<OrderRequest>, Vec<OrderId>)> = BTreeMap::new();
        for (outcome, request) in recorded.iter().zip(requests) {
            let (active, ended) = sales.entry(outcome.order.sale_id).or_default();
            if outcome.order.status.is_active() {
                active.push(request.clone());
            } else {
                ended.push(outcome.order.order_id);
            }
        }
        for (sale_id, (active, ended)) in sales {
            if !active.is_empty() {
                self.ports.admission.settle(sale_id, &active).await?;
            }
            if !ended.is_empty() {
                self.ports.admission.release(sale_id, &ended).await?;
            }
        }
        join_all(recorded.iter().map(|outcome| self.share_order(&outcome.order))).await;
        Ok(())
    }
}

/// What a message says, or why it can't be used.
fn read(body: &[u8]) -> Result<QueueMessage, String> {
    #[derive(serde::Deserialize)]
    struct Version {
        v: u32,
    }
    let version: Version = serde_json::from_slice(body).map_err(|error| format!("not a message of ours: {error}"))?;
    if version.v != QueueMessage::VERSION {
        return Err(format!("message version {} is unknown; this worker reads version {}", version.v, QueueMessage::VERSION));
    }
    serde_json::from_slice(body).map_err(|error| format!("not a version 1 message: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract;

    #[test]
    fn only_messages_of_version_1_are_read() {
        let sale = contract::sale(1);
        let message = QueueMessage { v: 1, orders: vec![contract::request(&sale, contract::user_id())] };
        let body = serde_json::to_vec(&message).unwrap();
        assert_eq!(read(&body), Ok(message));
        assert!(read(br#"{"v":2,"orders":[],"new":1}"#).unwrap_err().contains("version 2"));
        assert!(read(br#"{"v":1,"orders":[{}]}"#).unwrap_err().starts_with("not a version 1"));
        assert!(read(b"hello").unwrap_err().starts_with("not a message"));
        let text = String::from_utf8(body).unwrap().replace("\"price\"", "\"prize\"");
        assert!(read(text.as_bytes()).is_err());
    }
}
