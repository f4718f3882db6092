//! A sale's orders as an administrator sees them, and the trail of administrators' actions.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::{
    ActionId, ActionKind, AddressPrefix, AdminAction, Currency, FieldChange, OrderId, OrderSignals,
    OrderStatus, RejectReason, ReportedOrder, SaleId, Timestamp, UserId,
};

/// An order with its buyer and the signals about it.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the fields of the API, see API.md")]
pub struct ReportedOrderView {
    pub order_id: OrderId,
    pub sale_id: SaleId,
    pub user_id: UserId,
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
    /// The /24 (IPv4) or /48 (IPv6) from which the order was placed.
    #[schema(required)]
    pub address_prefix: Option<AddressPrefix>,
    /// Age of the buyer's account when the order was placed.
    pub account_age_ms: u64,
    /// From the sale's opening to the ticket; below zero when clocks differ.
    #[schema(required)]
    pub ticket_after_ms: Option<i64>,
    /// From the sale's opening to the order.
    #[schema(required)]
    pub order_after_ms: Option<i64>,
}

impl From<ReportedOrder> for ReportedOrderView {
    fn from(reported: ReportedOrder) -> Self {
        let OrderSignals { address_prefix, account_age_ms, ticket_after_ms, order_after_ms } =
            reported.signals();
        let order = reported.order;
        Self {
            order_id: order.order_id,
            sale_id: order.sale_id,
            user_id: order.user_id,
            status: order.status,
            reason: order.reason,
            cancellation_reason: order.cancellation_reason,
            price: order.price,
            currency: order.currency,
            created_at: order.created_at,
            pay_by: order.pay_by,
            updated_at: order.updated_at,
            address_prefix,
            account_age_ms,
            ticket_after_ms,
            order_after_ms,
        }
    }
}

/// A page of a sale's orders.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ReportedOrderPage {
    /// The orders; a page may be short, or empty, although another follows.
    pub orders: Vec<ReportedOrderView>,
    /// The cursor of the next page, if there is one.
    #[schema(required)]
    pub next_cursor: Option<OrderId>,
}

/// Cancels a buyer's order.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "reason": "bought by a program" }))]
pub struct AdminCancellation {
    /// Why; the buyer reads it.
    #[schema(min_length = 1, max_length = 500)]
    pub reason: String,
}

/// An administrator's action.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct AdminActionView {
    /// Its id.
    pub action_id: ActionId,
    /// When.
    pub at: Timestamp,
    /// Who.
    pub admin_id: UserId,
    /// From which network.
    pub address_prefix: AddressPrefix,
    /// What was done.
    pub action: ActionKind,
    /// To what.
    pub object: String,
    /// The fields that were set.
    pub changes: Vec<FieldChange>,
}

impl From<AdminAction> for AdminActionView {
    fn from(done: AdminAction) -> Self {
        let AdminAction { action_id, at, admin_id, address_prefix, kind, object, changes } = done;
        Self { action_id, at, admin_id, address_prefix, action: kind, object, changes }
    }
}

/// A page of the trail.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the fields of the API, see API.md")]
pub struct AdminActionPage {
    pub actions: Vec<AdminActionView>,
    #[schema(required)]
    pub next_cursor: Option<ActionId>,
}
