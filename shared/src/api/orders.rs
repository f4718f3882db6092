//! Orders.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::{Currency, Order, OrderId, OrderStatus, RejectReason, SaleId, Timestamp};

/// Creates the order of a ticket.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = OrderRequest)]
#[expect(missing_docs, reason = "the fields of the API, see API.md")]
pub struct PlaceOrder {
    pub ticket: String,
}

/// The answer once an order is durable.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct OrderAccepted {
    /// Its id.
    pub order_id: OrderId,
    /// Always `queued`; GET the order to follow it.
    pub status: OrderStatus,
}

/// An order as its owner sees it.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the fields of the API, see API.md")]
pub struct OrderView {
    pub order_id: OrderId,
    pub sale_id: SaleId,
    pub status: OrderStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub reason: Option<RejectReason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub cancellation_reason: Option<String>,
    pub price: i64,
    pub currency: Currency,
    pub created_at: Timestamp,
    #[schema(required)]
    pub pay_by: Option<Timestamp>,
    pub updated_at: Timestamp,
}

impl From<Order> for OrderView {
    fn from(order: Order) -> Self {
        let Order {
            order_id,
            sale_id,
            status,
            reason,
            cancellation_reason,
            price,
            currency,
            created_at,
            pay_by,
            updated_at,
            ..
        } = order;
        Self {
            order_id,
            sale_id,
            status,
            reason,
            cancellation_reason,
            price,
            currency,
            created_at,
            pay_by,
            updated_at,
        }
    }
}

/// A page of the user's orders.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the fields of the API, see API.md")]
pub struct OrderPage {
    pub orders: Vec<OrderView>,
    #[schema(required)]
    pub next_cursor: Option<OrderId>,
}
