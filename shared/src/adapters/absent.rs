//! A queue and a sender of text messages for programs that need none: they receive no address, so
//! they can't reach one by mistake.

use async_trait::async_trait;

use crate::{
    domain::{
        AdmittedOrder, ConsumerProgress, DeadLetter, Delivery, Entry, QueueBacklog, QueueDepth, Sms,
    },
    ports::{DeadLetters, OrderQueue, OrderSource, SmsSender, StoreError, Stored},
};

/// Refuses every call.
pub struct NoQueue;

fn absent<T>() -> Stored<T> {
    let cause = "this function is not connected to it".to_owned();
    Err(StoreError::Unavailable { store: "RabbitMQ", cause })
}

#[async_trait]
impl OrderQueue for NoQueue {
    fn publishes_at_once(&self) -> usize {
        1
    }

    async fn publish(&self, _: &[AdmittedOrder]) -> Stored<()> {
        absent()
    }

    async fn publish_entries(&self, _: &[Entry]) -> Stored<()> {
        absent()
    }

    async fn park(&self, _: &[u8], _: &str) -> Stored<()> {
        absent()
    }

    async fn depth(&self) -> Stored<QueueDepth> {
        absent()
    }

    async fn backlog(&self) -> Stored<QueueBacklog> {
        absent()
    }

    async fn inherited(&self) -> Stored<Option<u64>> {
        Ok(None)
    }
}

#[async_trait]
impl OrderSource for NoQueue {
    fn progress(&self) -> Option<ConsumerProgress> {
        None
    }

    async fn receive(&self, _: u32, _: u64) -> Stored<Vec<Delivery>> {
        absent()
    }

    async fn ack(&self, _: &[u64]) -> Stored<()> {
        absent()
    }

    async fn hand_back(&self, _: &[u64]) -> Stored<()> {
        absent()
    }

    async fn close(&self) {}
}

#[async_trait]
impl DeadLetters for NoQueue {
    async fn list(&self, _: u32) -> Stored<Vec<DeadLetter>> {
        absent()
    }

    async fn retry(&self, _: &str) -> Stored<bool> {
        absent()
    }

    async fn discard(&self, _: &str) -> Stored<bool> {
        absent()
    }
}

/// A sender for programs that send no text messages, and where phone numbers are not verified.
pub struct NoSms;

#[async_trait]
impl SmsSender for NoSms {
    async fn send(&self, _: &Sms) -> Stored<()> {
        let cause = "phone numbers are not verified here (phone_verification)".to_owned();
        Err(StoreError::Unavailable { store: "SMS gateway", cause })
    }
}
