//! Orders as an operator judges them after a sale: with the signals that tell people from programs.

use super::{AddressPrefix, Order, OrderId, OrderStatus, Timestamp, UserId};

/// What the ledger keeps of an order's origin, beside the order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OrderOrigin {
    /// The network from which the order was placed, never the whole address. `None`: recorded by an
    /// earlier release.
    pub address_prefix: Option<AddressPrefix>,
    /// The sale's `starts_at` when the order was recorded. `None`: recorded by an earlier release, or
    /// of a sale that the ledger does not know.
    pub opened_at: Option<Timestamp>,
}

/// Signals about an order. Most are derived: the ids of an order and of a user hold the time at
/// which they were made, the one with the ticket, the other at registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrderSignals {
    /// The /24 (IPv4) or /48 (IPv6) from which the order was placed.
    pub address_prefix: Option<AddressPrefix>,
    /// Age of the buyer's account when the order was placed.
    pub account_age_ms: u64,
    /// From the sale's opening to the ticket; below zero when clocks differ.
    pub ticket_after_ms: Option<i64>,
    /// From the sale's opening to the order.
    pub order_after_ms: Option<i64>,
}

/// An order with its origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportedOrder {
    /// The order.
    pub order: Order,
    /// Its origin.
    pub origin: OrderOrigin,
}

impl ReportedOrder {
    /// The signals about the order.
    #[must_use]
    pub fn signals(&self) -> OrderSignals {
        let Self { order, origin } = self;
        let after = |time: Timestamp| {
            origin.opened_at.map(|opened_at| time.epoch_ms() - opened_at.epoch_ms())
        };
        OrderSignals {
            address_prefix: origin.address_prefix,
            account_age_ms: order.created_at.since_ms(order.user_id.made_at()),
            ticket_after_ms: after(order.order_id.made_at()),
            order_after_ms: after(order.created_at),
        }
    }
}

/// The order in which a report lists.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ReportSort {
    /// By descending id.
    #[default]
    Newest,
    /// By ascending id.
    Oldest,
}

/// Which orders of a sale a report lists: those that meet every condition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReportFilter {
    /// Only orders with this status.
    pub status: Option<OrderStatus>,
    /// Only this order.
    pub order_id: Option<OrderId>,
    /// Only orders of this user.
    pub user_id: Option<UserId>,
    /// Only orders that were placed from this network.
    pub address_prefix: Option<AddressPrefix>,
}

/// A page of a report.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReportPage {
    /// The orders.
    pub orders: Vec<ReportedOrder>,
    /// The next page begins behind this order; `None` after the last page.
    pub next: Option<OrderId>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{AdmittedOrder, Currency, SaleId};

    #[test]
    fn signals_come_from_the_ids_and_the_opening() {
        let at = Timestamp::from_epoch_ms;
        let sale_id = SaleId::new(at(1), &[1; 10]);
        let order = Order::queued(&AdmittedOrder {
            order_id: OrderId::for_sale(at(5_250), sale_id, &[2; 10]),
            sale_id,
            user_id: UserId::new(at(2_000), &[3; 10]),
            price: 1,
            currency: Currency::USD,
            admitted_at: at(5_900),
            traceparent: None,
            address_prefix: None,
        });
        let mut reported = ReportedOrder { order, origin: OrderOrigin::default() };
        let unknown = OrderSignals {
            address_prefix: None,
            account_age_ms: 3_900,
            ticket_after_ms: None,
            order_after_ms: None,
        };
        assert_eq!(reported.signals(), unknown);
        let address_prefix = "192.0.2.0/24".parse().ok();
        reported.origin = OrderOrigin { address_prefix, opened_at: Some(at(5_300)) };
        let known = OrderSignals {
            address_prefix,
            ticket_after_ms: Some(-50),
            order_after_ms: Some(600),
            ..unknown
        };
        assert_eq!(reported.signals(), known);
    }
}
