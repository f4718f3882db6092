//! Admission: the decision on a ticket and the order of its checks.
//!
//! The rules are here. The memory adapter calls them. Redis' script `admission_reserve.lua` is
//! their only other copy; a property test compares it with [`AdmissionView::decide`] on random
//! states.

use super::{AdmittedOrder, OrderId, SaleTerms, TicketClaims, Timestamp};

/// A unit held in the admission store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// The order that holds it; its `price`, `currency` and `admitted_at` are those of the first
    /// admission.
    pub order: AdmittedOrder,
    /// Whether the ledger has confirmed the order; until then the reservation is in the overdue
    /// index.
    pub settled: bool,
}

/// The answer to a ticket that asks for a unit: the first variant that applies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdmissionDecision {
    /// The order already holds a unit from an earlier call.
    Again(Reservation),
    /// The order has ended (cancelled, expired or rejected) and its unit was returned.
    Ended,
    /// The sale is not loaded, or is being rebuilt: ask again soon.
    Closed,
    /// The ticket has expired and its order never got a unit.
    TicketExpired,
    /// Before the window.
    NotOpen {
        /// When it opens.
        starts_at: Timestamp,
    },
    /// After the window.
    SaleEnded,
    /// The user holds as many units as the limit allows.
    AlreadyBought {
        /// One of the orders that hold them.
        order_id: OrderId,
    },
    /// The sale is by draw, and the user is not invited, or no longer.
    NotInvited,
    /// No unit is left.
    SoldOut,
    /// The order now holds a unit.
    Reserved(AdmittedOrder),
}

/// The part of the admission store's state that one ticket depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdmissionView<'a> {
    /// The reservation of the ticket's order.
    pub own: Option<Reservation>,
    /// Whether the ticket's order has ended.
    pub ended: bool,
    /// The sale's terms, while admission is open.
    pub open: Option<&'a SaleTerms>,
    /// The user's orders that hold units of the sale.
    pub of_user: &'a [OrderId],
    /// When the user's invitation ends, if there is one. Counts only in a sale by draw.
    pub invited_until: Option<Timestamp>,
    /// Units held by all orders of the sale.
    pub held: u32,
}

impl AdmissionView<'_> {
    /// Decides the answer to the ticket. The order's own reservation is checked first, so that a
    /// successful buyer's retry finds the order whatever has happened to the sale since. The stock
    /// is checked last, because most tickets fail that check.
    #[must_use]
    pub fn decide(self, ticket: &TicketClaims, now: Timestamp) -> AdmissionDecision {
        if let Some(own) = self.own {
            return AdmissionDecision::Again(own);
        }
        if self.ended {
            return AdmissionDecision::Ended;
        }
        let Some(terms) = self.open else {
            return AdmissionDecision::Closed;
        };
        if ticket.expired(now) {
            return AdmissionDecision::TicketExpired;
        }
        if now < terms.starts_at {
            return AdmissionDecision::NotOpen { starts_at: terms.starts_at };
        }
        if now >= terms.ends_at {
            return AdmissionDecision::SaleEnded;
        }
        if let Some(order_id) = terms.already_bought(self.of_user) {
            return AdmissionDecision::AlreadyBought { order_id };
        }
        if terms.draw && self.invited_until.is_none_or(|until| until <= now) {
            return AdmissionDecision::NotInvited;
        }
        if terms.available(self.held) == 0 {
            return AdmissionDecision::SoldOut;
        }
        AdmissionDecision::Reserved(AdmittedOrder {
            order_id: ticket.order_id,
            sale_id: ticket.sale_id,
            user_id: ticket.user_id,
            price: terms.price,
            currency: terms.currency,
            admitted_at: now,
            traceparent: None,
            address_prefix: None,
        })
    }
}

impl SaleTerms {
    /// Units that can be reserved while `held` units are held; 0 when the stock was lowered below
    /// that.
    #[must_use]
    pub const fn available(&self, held: u32) -> u32 {
        self.stock.saturating_sub(held)
    }

    /// One of the user's orders, when the user holds as many as the limit allows.
    #[must_use]
    pub fn already_bought(&self, of_user: &[OrderId]) -> Option<OrderId> {
        let first = *of_user.first()?;
        (of_user.len() >= self.per_user_limit as usize).then_some(first)
    }
}

/// What a ticket request needs to know of a sale.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Availability {
    /// Units that can be reserved now.
    pub available: u32,
    /// An order of the user, when the user holds as many units as the limit allows.
    pub already_bought: Option<OrderId>,
    /// Grows with every order that gets a unit.
    pub admissions: u64,
    /// The epoch under which admission was opened. While this and `admissions` are unchanged, no
    /// unit was reserved: a store that lost its data counts anew, under a new epoch.
    pub epoch: u64,
    /// When the user's invitation ends, in a sale by draw. It may have ended already.
    pub invited_until: Option<Timestamp>,
}

/// The state of a sale in the admission store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdmissionState {
    /// The sale was never loaded, or its data was lost.
    Missing,
    /// It is being rebuilt under `epoch` since `since`.
    Rebuilding {
        /// Fencing token of the rebuild.
        epoch: u64,
        /// When the rebuild began.
        since: Timestamp,
    },
    /// It takes orders.
    Open {
        /// Fencing token of the last rebuild.
        epoch: u64,
        /// The sale's version that its terms have.
        version: u64,
        /// Units for sale.
        stock: u32,
        /// Units held by orders that are not settled.
        reserved: u32,
        /// Units held by settled orders.
        settled: u32,
    },
}

/// A page of reservations and the cursor of the next one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReservationPage {
    /// Some reservations. Over all pages an id may appear more than once; an id that is present
    /// throughout appears at least once.
    pub reservations: Vec<Reservation>,
    /// The cursor of the next page; `None` after the last.
    pub next: Option<u64>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::{Currency, SaleId, SessionId, UserId};

    const STARTS: Timestamp = Timestamp::from_epoch_ms(10_000);
    const ENDS: Timestamp = Timestamp::from_epoch_ms(20_000);

    fn order_id(n: u8) -> OrderId {
        OrderId::new(STARTS, &[n; 10])
    }

    fn terms(stock: u32, per_user_limit: u32) -> SaleTerms {
        SaleTerms {
            sale_id: SaleId::new(STARTS, &[1; 10]),
            stock,
            per_user_limit,
            price: 7,
            currency: Currency::CNY,
            starts_at: STARTS,
            ends_at: ENDS,
            version: 1,
            draw: false,
        }
    }

    fn ticket() -> TicketClaims {
        TicketClaims {
            order_id: order_id(0),
            user_id: UserId::new(STARTS, &[2; 10]),
            session_id: SessionId::new(STARTS, &[3; 10]),
            sale_id: SaleId::new(STARTS, &[1; 10]),
            exp_ms: 18_000,
        }
    }

    fn own(settled: bool) -> Reservation {
        let terms = terms(1, 1);
        let view = AdmissionView {
            own: None,
            ended: false,
            open: Some(&terms),
            of_user: &[],
            invited_until: None,
            held: 0,
        };
        let AdmissionDecision::Reserved(order) = view.decide(&ticket(), STARTS) else {
            panic!("nothing stands against the ticket");
        };
        Reservation { order, settled }
    }

    /// At first every check fails; each step removes the first cause of refusal.
    #[test]
    fn the_first_answer_that_applies_is_given() {
        let terms = terms(1, 1);
        let mine = [order_id(9)];
        let mut view = AdmissionView {
            own: Some(own(true)),
            ended: true,
            open: None,
            of_user: &mine,
            invited_until: None,
            held: 1,
        };
        let mut ticket = TicketClaims { exp_ms: 0, ..ticket() };
        let early = STARTS.minus_ms(1);
        let asked =
            |view: &AdmissionView<'_>, ticket: &TicketClaims, now| view.clone().decide(ticket, now);

        assert_eq!(asked(&view, &ticket, early), AdmissionDecision::Again(own(true)));
        view.own = None;
        assert_eq!(asked(&view, &ticket, early), AdmissionDecision::Ended);
        view.ended = false;
        assert_eq!(asked(&view, &ticket, early), AdmissionDecision::Closed);
        view.open = Some(&terms);
        assert_eq!(asked(&view, &ticket, early), AdmissionDecision::TicketExpired);
        ticket.exp_ms = i64::MAX;
        assert_eq!(asked(&view, &ticket, early), AdmissionDecision::NotOpen { starts_at: STARTS });
        assert_eq!(asked(&view, &ticket, ENDS), AdmissionDecision::SaleEnded);
        let last = ENDS.minus_ms(1);
        assert_eq!(
            asked(&view, &ticket, last),
            AdmissionDecision::AlreadyBought { order_id: order_id(9) }
        );
        view.of_user = &[];
        let by_draw = SaleTerms { draw: true, ..terms.clone() };
        view.open = Some(&by_draw);
        for until in [None, Some(last.minus_ms(1)), Some(last)] {
            view.invited_until = until;
            assert_eq!(asked(&view, &ticket, last), AdmissionDecision::NotInvited);
        }
        view.invited_until = Some(last.plus_ms(1));
        assert_eq!(asked(&view, &ticket, last), AdmissionDecision::SoldOut);
        (view.open, view.invited_until) = (Some(&terms), None);
        assert_eq!(asked(&view, &ticket, last), AdmissionDecision::SoldOut);
        view.held = 0;
        let AdmissionDecision::Reserved(order) = asked(&view, &ticket, last) else {
            panic!("nothing stands against the ticket any more");
        };
        assert_eq!((order.price, order.currency), (7, Currency::CNY));
        assert_eq!(order.admitted_at, last);
    }

    proptest! {
        /// A unit is given exactly when no check fails.
        #[test]
        fn a_unit_is_given_only_within_the_terms(
            stock in 0_u32..4,
            held in 0_u32..6,
            limit in 1_u32..3,
            mine in 0_u8..4,
            now in 9_000_u64..21_000,
            (known, ended, open) in any::<(bool, bool, bool)>(),
        ) {
            let (terms, mine) = (terms(stock, limit), (1..=mine).map(order_id).collect::<Vec<_>>());
            let view = AdmissionView {
                own: known.then(|| own(false)),
                ended,
                open: open.then_some(&terms),
                of_user: &mine,
                invited_until: None,
                held,
            };
            // The ticket expires before the sale ends.
            let free = !known && !ended && open
                && (10_000..18_000).contains(&now)
                && mine.len() < limit as usize
                && held < stock;
            let decision = view.decide(&ticket(), Timestamp::from_epoch_ms(0).plus_ms(now));
            prop_assert_eq!(matches!(decision, AdmissionDecision::Reserved(_)), free, "{:?}", decision);
            if let AdmissionDecision::AlreadyBought { order_id } = decision {
                prop_assert!(mine.contains(&order_id));
            }
        }
    }
}
