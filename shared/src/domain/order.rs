//! An order, from the admitted request to its final status.

use serde::{Deserialize, Serialize};
use std::str::FromStr;
use utoipa::ToSchema;

use super::{AddressPrefix, Currency, OrderId, SaleId, Timestamp, UserId};

/// An order's status. `Queued` exists only in the admission store and the queue; the ledger stores
/// the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(description = "Where an order stands.")]
pub enum OrderStatus {
    /// Durable in the queue, not yet in the ledger.
    Queued,
    /// In the ledger, holds a unit, must be paid before `pay_by`.
    Confirmed,
    /// Paid, holds a unit permanently.
    Paid,
    /// Cancelled by its owner, or by an administrator.
    Cancelled,
    /// Not paid in time.
    Expired,
    /// Refused by the ledger.
    Rejected,
}

impl OrderStatus {
    /// Every status, in the order in which an order reaches them.
    pub const ALL: [Self; 6] =
        [Self::Queued, Self::Confirmed, Self::Paid, Self::Cancelled, Self::Expired, Self::Rejected];

    /// The name in the API and in the ledger.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Confirmed => "confirmed",
            Self::Paid => "paid",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
            Self::Rejected => "rejected",
        }
    }

    /// Whether the order holds a unit of the sale in the ledger.
    #[must_use]
    pub const fn is_active(self) -> bool {
        matches!(self, Self::Confirmed | Self::Paid)
    }
}

impl FromStr for OrderStatus {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or_else(|| format!("unknown order status {text:?}"))
    }
}

/// Why the ledger refused an order that had been admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RejectReason {
    /// Every unit is held by another order.
    SoldOut,
    /// The user holds as many active orders of the sale as its limit allows.
    AlreadyBought,
    /// The ledger knows no such sale.
    UnknownSale,
}

impl RejectReason {
    /// The name in the API and in the ledger.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SoldOut => "sold-out",
            Self::AlreadyBought => "already-bought",
            Self::UnknownSale => "unknown-sale",
        }
    }
}

impl FromStr for RejectReason {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::SoldOut, Self::AlreadyBought, Self::UnknownSale]
            .into_iter()
            .find(|reason| reason.as_str() == text)
            .ok_or_else(|| format!("unknown reason {text:?}"))
    }
}

/// An admitted order on its way to the ledger: what the queue carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdmittedOrder {
    /// The idempotency key.
    pub order_id: OrderId,
    /// Which sale.
    pub sale_id: SaleId,
    /// Who buys.
    pub user_id: UserId,
    /// Price in minor units, as it stood when the order was admitted.
    pub price: i64,
    /// Its currency.
    pub currency: Currency,
    /// When the admission store gave it a unit.
    pub admitted_at: Timestamp,
    /// W3C trace context of the request, if it had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// The network from which it was placed, for the sale's limit per network and for the
    /// operator's report. `None`: admitted by an earlier release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address_prefix: Option<AddressPrefix>,
}

/// An order as the ledger keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Its id.
    pub order_id: OrderId,
    /// Which sale.
    pub sale_id: SaleId,
    /// Whose order.
    pub user_id: UserId,
    /// Its status.
    pub status: OrderStatus,
    /// Why it was rejected; set exactly when `status` is `Rejected`.
    pub reason: Option<RejectReason>,
    /// Why an administrator has cancelled it, as its buyer reads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancellation_reason: Option<String>,
    /// Price in minor units.
    pub price: i64,
    /// Its currency.
    pub currency: Currency,
    /// When it was admitted.
    pub created_at: Timestamp,
    /// Payment deadline; set when `status` becomes `Confirmed` and kept afterwards.
    pub pay_by: Option<Timestamp>,
    /// When `status` last changed.
    pub updated_at: Timestamp,
    /// 1 when recorded, raised with every change of `status`; 0 for a queued order.
    pub version: u64,
}

impl Order {
    /// The order as a shopper sees it while it waits in the queue.
    #[must_use]
    pub fn queued(request: &AdmittedOrder) -> Self {
        Self {
            order_id: request.order_id,
            sale_id: request.sale_id,
            user_id: request.user_id,
            status: OrderStatus::Queued,
            reason: None,
            cancellation_reason: None,
            price: request.price,
            currency: request.currency,
            created_at: request.admitted_at,
            pay_by: None,
            updated_at: request.admitted_at,
            version: 0,
        }
    }

    /// The new row of an admitted order that the ledger does not have yet.
    #[must_use]
    pub fn recorded(request: &AdmittedOrder, status: OrderStatus, now: Timestamp) -> Self {
        Self { status, updated_at: now, version: 1, ..Self::queued(request) }
    }

    /// Whether the order counts as an attempt of its user: the user cancelled it, or did not pay it
    /// in time. An administrator's cancellation, which has a reason, does not count, and neither
    /// does the ledger's refusal.
    #[must_use]
    pub fn given_up(&self) -> bool {
        match self.status {
            OrderStatus::Expired => true,
            OrderStatus::Cancelled => self.cancellation_reason.is_none(),
            _ => false,
        }
    }

    /// The order after a change of its status.
    #[must_use]
    pub fn turned(self, status: OrderStatus, now: Timestamp) -> Self {
        Self { status, updated_at: now, version: self.version + 1, ..self }
    }
}

/// The outcome of paying or cancelling an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transition {
    /// The order now has the requested status, by this call or by an earlier identical one.
    Done(Order),
    /// The order has another final status (or, to be paid, `pay_by` has passed); nothing changed.
    Refused(Order),
    /// The ledger has no such order of this user.
    NotFound,
}

/// A sale's totals, computed from its order rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SaleTally {
    /// Orders that are confirmed or paid, counted row by row.
    pub active: u64,
    /// Users holding more active orders than the sale's limit.
    pub users_over_limit: Vec<UserId>,
    /// Networks whose active orders exceed the sale's limit per network. Empty if the sale was
    /// changed since it was created, because the limit may have been higher or absent before, and
    /// if the admission store has lost the sale's data, because only that store keeps the limit.
    pub networks_over_limit: Vec<AddressPrefix>,
    /// The number of orders by the name of their status.
    pub by_status: Vec<(String, u64)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_user_s_own_doing_counts_as_an_attempt() {
        let sale = crate::testing::sale(1);
        let order = Order::queued(&crate::testing::request(&sale, crate::testing::user_id()));
        for status in OrderStatus::ALL {
            let order = Order { status, ..order.clone() };
            let counts = matches!(status, OrderStatus::Cancelled | OrderStatus::Expired);
            assert_eq!(order.given_up(), counts, "{status:?}");
        }
        let by_admin = Order {
            status: OrderStatus::Cancelled,
            cancellation_reason: Some("a bot".to_owned()),
            ..order
        };
        assert!(!by_admin.given_up());
    }

    #[test]
    fn words_are_read_back() {
        for status in OrderStatus::ALL {
            assert_eq!(status.as_str().parse(), Ok(status));
            assert_eq!(serde_json::to_value(status).unwrap(), status.as_str());
        }
        for reason in
            [RejectReason::SoldOut, RejectReason::AlreadyBought, RejectReason::UnknownSale]
        {
            assert_eq!(reason.as_str().parse(), Ok(reason));
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
    }
}
