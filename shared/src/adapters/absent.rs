//! A queue for functions that need none. They are given no address of one and can't reach it by mistake.

use async_trait::async_trait;

use crate::{
    domain::OrderRequest,
    ports::{
        Backlog, Delivery, Depth, Held, OrderQueue, OrderSource, Parked, ParkedMessages,
        StoreError, Stored,
    },
};

/// Refuses every call.
pub struct NoQueue;

fn absent<T>() -> Stored<T> {
    let cause = "this function is not connected to it".to_owned();
    Err(StoreError::Unavailable { store: "RabbitMQ", cause })
}

#[async_trait]
impl OrderQueue for NoQueue {
    async fn publish(&self, _: &[OrderRequest]) -> Stored<()> {
        absent()
    }

    async fn park(&self, _: &[u8], _: &str) -> Stored<()> {
        absent()
    }

    async fn depth(&self) -> Stored<Depth> {
        absent()
    }

    async fn backlog(&self) -> Stored<Backlog> {
        absent()
    }

    async fn inherited(&self) -> Stored<Option<u64>> {
        Ok(None)
    }
}

#[async_trait]
impl OrderSource for NoQueue {
    fn held(&self) -> Option<Held> {
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
impl ParkedMessages for NoQueue {
    async fn list(&self, _: u32) -> Stored<Vec<Parked>> {
        absent()
    }

    async fn retry(&self, _: &str) -> Stored<bool> {
        absent()
    }

    async fn discard(&self, _: &str) -> Stored<bool> {
        absent()
    }
}
