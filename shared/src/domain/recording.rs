//! Recording: decides from locked rows, without I/O, whether admitted orders become confirmed or
//! rejected.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::{
    AdmittedOrder, Currency, Order, OrderId, OrderOrigin, OrderStatus, RejectReason, SaleId,
    Timestamp, UserId,
};

/// Why an order can never be recorded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unrecordable(pub String);

/// An order that recording found in the ledger or inserted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// The order as the ledger holds it now: its status is never `Queued`.
    pub order: Order,
    /// Whether this call inserted it; `false` when it was already there, in any status.
    pub fresh: bool,
}

/// What recording reads of a sale, from its locked row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LedgerSale {
    /// Which sale.
    pub sale_id: SaleId,
    /// Units for sale.
    pub stock: u32,
    /// Units held by active orders.
    pub sold: u32,
    /// Active orders one user may hold.
    pub per_user_limit: u32,
    /// Its current price in minor units.
    pub price: i64,
    /// Its currency.
    pub currency: Currency,
    /// When it opens.
    pub starts_at: Timestamp,
}

/// The slot of an active order: a user has as many slots in a sale as the limit allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LedgerSlot {
    /// The sale.
    pub sale_id: SaleId,
    /// The user who holds it.
    pub user_id: UserId,
    /// Its number, from 1.
    pub slot: u32,
}

/// A row to insert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewOrder {
    /// The order.
    pub order: Order,
    /// Set exactly when the order is active.
    pub slot: Option<u32>,
    /// Where it came from.
    pub origin: OrderOrigin,
}

/// The contents of the locked rows, updated after each order of the batch.
#[derive(Debug)]
pub struct RecordingView {
    sales: HashMap<SaleId, LedgerSale>,
    /// Other prices that sales have had.
    earlier_prices: HashSet<(SaleId, i64)>,
    slots: HashMap<(SaleId, UserId), BTreeSet<u32>>,
    existing: HashMap<OrderId, Order>,
}

/// The rows to write, and the outcomes to return after they are written.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct RecordingDecision {
    /// One per request, in their order.
    pub outcomes: Vec<Result<Recorded, Unrecordable>>,
    /// Rows to be inserted.
    pub inserts: Vec<NewOrder>,
    /// Units newly held, by sale.
    pub taken: BTreeMap<SaleId, u32>,
}

impl RecordingView {
    /// The contents of the rows that were locked for a batch. `earlier_prices` is needed only for
    /// sales whose price differs from a request's.
    #[must_use]
    pub fn new(
        sales: HashMap<SaleId, LedgerSale>,
        earlier_prices: HashSet<(SaleId, i64)>,
        slots: Vec<LedgerSlot>,
        existing: HashMap<OrderId, Order>,
    ) -> Self {
        let mut held = HashMap::<_, BTreeSet<u32>>::new();
        for slot in slots {
            held.entry((slot.sale_id, slot.user_id)).or_default().insert(slot.slot);
        }
        Self { sales, earlier_prices, slots: held, existing }
    }

    /// Decides a batch in the given order: the first request gets the unit. Each request is,
    /// checked in this order, already recorded, unrecordable, rejected or confirmed.
    #[must_use]
    pub fn decide(
        mut self,
        requests: &[AdmittedOrder],
        now: Timestamp,
        pay_by: Timestamp,
    ) -> RecordingDecision {
        let mut decided = RecordingDecision::default();
        for request in requests {
            if let Some(order) = self.existing.get(&request.order_id) {
                decided.outcomes.push(Ok(Recorded { order: order.clone(), fresh: false }));
                continue;
            }
            if let Err(wrong) = request.storable().and_then(|()| self.priced(request)) {
                decided.outcomes.push(Err(wrong));
                continue;
            }
            let origin = OrderOrigin {
                address_prefix: request.address_prefix,
                opened_at: self.sales.get(&request.sale_id).map(|sale| sale.starts_at),
            };
            let new = match self.take(request.sale_id, request.user_id) {
                Ok(slot) => {
                    *decided.taken.entry(request.sale_id).or_default() += 1;
                    let order = Order::recorded(request, OrderStatus::Confirmed, now);
                    let order = Order { pay_by: Some(pay_by), ..order };
                    NewOrder { order, slot: Some(slot), origin }
                }
                Err(reason) => {
                    let order = Order::recorded(request, OrderStatus::Rejected, now);
                    let order = Order { reason: Some(reason), ..order };
                    NewOrder { order, slot: None, origin }
                }
            };
            // A repeated id in this batch finds the order here.
            self.existing.insert(request.order_id, new.order.clone());
            decided.outcomes.push(Ok(Recorded { order: new.order.clone(), fresh: true }));
            decided.inserts.push(new);
        }
        decided
    }

    /// Whether the sale has, or once had, the price of the request. No order is admitted at another
    /// price, so a message with one was not published by this product.
    fn priced(&self, request: &AdmittedOrder) -> Result<(), Unrecordable> {
        let AdmittedOrder { order_id, sale_id, price, currency, .. } = request;
        let Some(sale) = self.sales.get(sale_id) else {
            return Ok(());
        };
        if *currency == sale.currency
            && (*price == sale.price || self.earlier_prices.contains(&(*sale_id, *price)))
        {
            return Ok(());
        }
        Err(Unrecordable(format!(
            "order {order_id} has the price {price} {}, which its sale never had",
            currency.as_str()
        )))
    }

    /// Takes a unit for the user and returns its slot. The reasons for rejection are checked in the
    /// admission store's order.
    fn take(&mut self, sale_id: SaleId, user_id: UserId) -> Result<u32, RejectReason> {
        let sale = self.sales.get_mut(&sale_id).ok_or(RejectReason::UnknownSale)?;
        let slots = self.slots.entry((sale_id, user_id)).or_default();
        if slots.len() >= sale.per_user_limit as usize {
            return Err(RejectReason::AlreadyBought);
        }
        if sale.sold >= sale.stock {
            return Err(RejectReason::SoldOut);
        }
        // Take the smallest free slot; the unique key refuses a slot that was assigned twice by
        // mistake.
        let slot = (1..)
            .find(|slot| !slots.contains(slot))
            .expect("a user holds fewer slots than there are numbers");
        slots.insert(slot);
        sale.sold += 1;
        Ok(slot)
    }
}

impl AdmittedOrder {
    /// Checks that the order can be stored.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn storable(&self) -> Result<(), Unrecordable> {
        if self.price < 0 {
            return Err(Unrecordable(format!("order {} has a price below zero", self.order_id)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_epoch_ms(1_000);
    const PAY_BY: Timestamp = Timestamp::from_epoch_ms(2_000);

    fn nth(n: u8) -> [u8; 10] {
        [n; 10]
    }

    fn sale(n: u8) -> SaleId {
        SaleId::new(NOW, &nth(n))
    }

    fn user(n: u8) -> UserId {
        UserId::new(NOW, &nth(n))
    }

    fn request(order: u8, sale_n: u8, user_n: u8) -> AdmittedOrder {
        AdmittedOrder {
            order_id: OrderId::new(NOW, &nth(order)),
            sale_id: sale(sale_n),
            user_id: user(user_n),
            price: 1,
            currency: Currency::USD,
            admitted_at: NOW,
            traceparent: None,
            address_prefix: None,
        }
    }

    fn held(n: u8, stock: u32, sold: u32, per_user_limit: u32) -> (SaleId, LedgerSale) {
        (
            sale(n),
            LedgerSale {
                sale_id: sale(n),
                stock,
                sold,
                per_user_limit,
                price: 1,
                currency: Currency::USD,
                starts_at: NOW,
            },
        )
    }

    fn book<const N: usize>(
        sales: [(SaleId, LedgerSale); N],
        slots: Vec<LedgerSlot>,
    ) -> RecordingView {
        RecordingView::new(HashMap::from(sales), HashSet::new(), slots, HashMap::new())
    }

    fn verdicts(decided: &RecordingDecision) -> Vec<(Option<RejectReason>, bool)> {
        decided
            .outcomes
            .iter()
            .map(|outcome| {
                outcome.as_ref().map(|recorded| (recorded.order.reason, recorded.fresh)).unwrap()
            })
            .collect()
    }

    #[test]
    fn reasons_come_in_order() {
        use RejectReason::{AlreadyBought, SoldOut, UnknownSale};
        let slots = vec![LedgerSlot { sale_id: sale(1), user_id: user(1), slot: 1 }];
        let book = book([held(1, 2, 1, 1)], slots);
        let batch = [
            request(1, 1, 1),
            request(2, 1, 2),
            request(3, 1, 3),
            request(2, 1, 2),
            request(4, 9, 1),
            request(5, 1, 2),
        ];
        let decided = book.decide(&batch, NOW, PAY_BY);
        assert_eq!(
            verdicts(&decided),
            [
                (Some(AlreadyBought), true),
                (None, true),
                (Some(SoldOut), true),
                (None, false),
                (Some(UnknownSale), true),
                (Some(AlreadyBought), true)
            ]
        );
        assert_eq!(decided.taken, BTreeMap::from([(sale(1), 1)]));
        assert_eq!(decided.inserts.len(), 5);
    }

    #[test]
    fn only_prices_that_the_sale_had_are_recorded() {
        let earlier = HashSet::from([(sale(1), 7), (sale(2), 9)]);
        let book = RecordingView::new(
            HashMap::from([held(1, 9, 0, 9)]),
            earlier,
            Vec::new(),
            HashMap::new(),
        );
        let at = |order, price, currency| AdmittedOrder { price, currency, ..request(order, 1, 1) };
        let batch = [
            at(1, 1, Currency::USD),
            at(2, 7, Currency::USD),
            at(3, 0, Currency::USD),
            at(4, 1, Currency::CNY),
            at(5, 9, Currency::USD),
            AdmittedOrder { price: 0, ..request(6, 9, 1) },
        ];
        let decided = book.decide(&batch, NOW, PAY_BY);
        let told: Vec<_> = decided
            .outcomes
            .iter()
            .map(|outcome| outcome.as_ref().map(|recorded| recorded.order.reason))
            .collect();
        assert!(
            matches!(
                told[..],
                [Ok(None), Ok(None), Err(_), Err(_), Err(_), Ok(Some(RejectReason::UnknownSale))]
            ),
            "{told:?}"
        );
        assert!(told[2].unwrap_err().0.contains("the price 0 USD"), "{told:?}");
        assert_eq!(
            (decided.inserts.len(), &decided.taken),
            (3, &BTreeMap::from([(sale(1), 2)])),
            "they hold no unit"
        );
    }

    #[test]
    fn the_smallest_free_slot_is_given() {
        let slots =
            [1, 3].map(|slot| LedgerSlot { sale_id: sale(1), user_id: user(1), slot }).to_vec();
        let decided = book([held(1, 9, 2, 4)], slots).decide(
            &[request(1, 1, 1), request(2, 1, 1), request(3, 1, 1)],
            NOW,
            PAY_BY,
        );
        assert_eq!(
            decided.inserts.iter().map(|new| new.slot).collect::<Vec<_>>(),
            [Some(2), Some(4), None]
        );
    }

    proptest! {
        #[test]
        fn neither_stock_nor_limit_is_ever_passed(
            batch in prop::collection::vec((0_u8..40, 0_u8..3, 0_u8..5), 0..60),
            stock in 0_u32..12,
            sold in 0_u32..12,
            limit in 1_u32..4,
        ) {
            let sold = sold.min(stock);
            let sales = [held(0, stock, sold, limit), held(1, 3, 0, 1)];
            let requests: Vec<_> = batch.iter().map(|&(order, sale, user)| request(order, sale, user)).collect();
            let decided = book(sales, Vec::new()).decide(&requests, NOW, PAY_BY);

            prop_assert_eq!(decided.outcomes.len(), requests.len());
            for (request, outcome) in requests.iter().zip(&decided.outcomes) {
                prop_assert_eq!(request.order_id, outcome.as_ref().unwrap().order.order_id);
            }
            let ids: BTreeSet<_> = decided.inserts.iter().map(|new| new.order.order_id).collect();
            prop_assert_eq!(ids.len(), decided.inserts.len());
            prop_assert_eq!(decided.outcomes.iter().filter(|outcome| outcome.as_ref().unwrap().fresh).count(), ids.len());

            let active: Vec<_> = decided.inserts.iter().filter(|new| new.order.status.is_active()).collect();
            prop_assert!(active.iter().filter(|new| new.order.sale_id == sale(0)).count() <= (stock - sold) as usize);
            let slots: BTreeSet<_> = active.iter().map(|new| (new.order.sale_id, new.order.user_id, new.slot)).collect();
            prop_assert_eq!(slots.len(), active.len());
            for user_n in 0..5 {
                let count = active.iter().filter(|new| new.order.sale_id == sale(0) && new.order.user_id == user(user_n)).count();
                prop_assert!(count <= limit as usize);
            }
            for new in &decided.inserts {
                prop_assert_eq!(new.slot.is_some(), new.order.status.is_active());
                prop_assert_eq!(new.order.reason.is_some(), new.order.status == OrderStatus::Rejected);
                prop_assert_eq!(new.order.pay_by.is_some(), new.order.status.is_active());
            }
            for (&sale_id, &taken) in &decided.taken {
                prop_assert_eq!(taken as usize, active.iter().filter(|new| new.order.sale_id == sale_id).count());
            }
        }
    }
}
