//! Admission: the decision on a ticket and the order of its checks.
//!
//! The rules are here. The memory adapter calls them. Redis' script `admission_reserve.lua` is
//! their only other copy; a property test compares it with [`AdmissionView::decide`] on random
//! states.

use super::{
    AddressPrefix, AdmittedOrder, Order, OrderId, SaleTerms, TicketClaims, Timestamp, UserId,
};

/// A ticket that is used: asks for a unit for its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReserveRequest {
    /// The ticket.
    pub ticket: TicketClaims,
    /// The network that the request comes from. It is kept with the reservation.
    pub address_prefix: AddressPrefix,
    /// How many orders of the sale the user may give up before further ones are refused; 0: any
    /// number.
    pub attempts_max: u32,
}

/// An order that has ended, as the admission store needs to know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndedOrder {
    /// Which order.
    pub order_id: OrderId,
    /// The user, if the order counts as an attempt: see [`Order::given_up`].
    pub given_up_by: Option<UserId>,
}

impl From<&Order> for EndedOrder {
    fn from(order: &Order) -> Self {
        let given_up_by = order.given_up().then_some(order.user_id);
        Self { order_id: order.order_id, given_up_by }
    }
}

/// Whether a user who gave up this many orders of a sale gets no further one.
#[must_use]
pub const fn too_many_attempts(given_up: u32, attempts_max: u32) -> bool {
    attempts_max > 0 && given_up >= attempts_max
}

/// A unit held in the admission store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// The order that holds it; its `price`, `currency`, `admitted_at` and `address_prefix` are
    /// those of the first admission.
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
    /// The user has given up as many orders of the sale as the limit allows.
    TooManyAttempts,
    /// The sale is by draw, and the user is not invited, or no longer.
    NotInvited,
    /// No unit is left.
    SoldOut,
    /// Orders from the request's network hold as many units as the sale allows one network.
    NetworkSoldOut,
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
    /// The user's orders of the sale that were given up.
    pub given_up: u32,
    /// Units held by all orders of the sale.
    pub held: u32,
    /// Units held by orders from the request's network.
    pub of_network: u32,
}

impl AdmissionView<'_> {
    /// Decides the answer to the ticket. The order's own reservation is checked first, so that a
    /// successful buyer's retry finds the order whatever has happened to the sale since. The stock
    /// and then the network are checked last, because most tickets fail at the stock.
    #[must_use]
    pub fn decide(self, request: &ReserveRequest, now: Timestamp) -> AdmissionDecision {
        let ReserveRequest { ticket, address_prefix, attempts_max } = request;
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
        if too_many_attempts(self.given_up, *attempts_max) {
            return AdmissionDecision::TooManyAttempts;
        }
        if terms.draw && self.invited_until.is_none_or(|until| until <= now) {
            return AdmissionDecision::NotInvited;
        }
        if terms.available(self.held) == 0 {
            return AdmissionDecision::SoldOut;
        }
        if terms.network_sold_out(self.of_network) {
            return AdmissionDecision::NetworkSoldOut;
        }
        AdmissionDecision::Reserved(AdmittedOrder {
            order_id: ticket.order_id,
            sale_id: ticket.sale_id,
            user_id: ticket.user_id,
            price: terms.price,
            currency: terms.currency,
            admitted_at: now,
            traceparent: None,
            address_prefix: Some(*address_prefix),
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

    /// Whether a network whose orders hold `of_network` units gets no further one.
    #[must_use]
    pub fn network_sold_out(&self, of_network: u32) -> bool {
        self.units_per_prefix.is_some_and(|limit| of_network >= limit)
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
    /// The user's orders of the sale that were given up.
    pub given_up: u32,
    /// Whether orders from the network asked about hold as many units as the sale allows one
    /// network.
    pub network_sold_out: bool,
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
            units_per_prefix: None,
        }
    }

    fn network() -> AddressPrefix {
        AddressPrefix::of([192, 0, 2, 7].into())
    }

    fn request() -> ReserveRequest {
        let ticket = TicketClaims {
            order_id: order_id(0),
            user_id: UserId::new(STARTS, &[2; 10]),
            session_id: SessionId::new(STARTS, &[3; 10]),
            sale_id: SaleId::new(STARTS, &[1; 10]),
            exp_ms: 18_000,
        };
        ReserveRequest { ticket, address_prefix: network(), attempts_max: 3 }
    }

    /// The state of an empty sale.
    fn empty(open: Option<&SaleTerms>) -> AdmissionView<'_> {
        AdmissionView {
            own: None,
            ended: false,
            open,
            of_user: &[],
            invited_until: None,
            given_up: 0,
            held: 0,
            of_network: 0,
        }
    }

    fn own(settled: bool) -> Reservation {
        let terms = terms(1, 1);
        let AdmissionDecision::Reserved(order) = empty(Some(&terms)).decide(&request(), STARTS)
        else {
            panic!("nothing stands against the ticket");
        };
        Reservation { order, settled }
    }

    /// At first every check fails; each step removes the first cause of refusal.
    #[test]
    fn the_first_answer_that_applies_is_given() {
        let terms = SaleTerms { units_per_prefix: Some(2), ..terms(1, 1) };
        let mine = [order_id(9)];
        let mut view = AdmissionView {
            own: Some(own(true)),
            ended: true,
            open: None,
            of_user: &mine,
            invited_until: None,
            given_up: 3,
            held: 1,
            of_network: 2,
        };
        let mut ticket = request();
        ticket.ticket.exp_ms = 0;
        let early = STARTS.minus_ms(1);
        let asked = |view: &AdmissionView<'_>, request: &ReserveRequest, now| {
            view.clone().decide(request, now)
        };

        assert_eq!(asked(&view, &ticket, early), AdmissionDecision::Again(own(true)));
        view.own = None;
        assert_eq!(asked(&view, &ticket, early), AdmissionDecision::Ended);
        view.ended = false;
        assert_eq!(asked(&view, &ticket, early), AdmissionDecision::Closed);
        view.open = Some(&terms);
        assert_eq!(asked(&view, &ticket, early), AdmissionDecision::TicketExpired);
        ticket.ticket.exp_ms = i64::MAX;
        assert_eq!(asked(&view, &ticket, early), AdmissionDecision::NotOpen { starts_at: STARTS });
        assert_eq!(asked(&view, &ticket, ENDS), AdmissionDecision::SaleEnded);
        let last = ENDS.minus_ms(1);
        assert_eq!(
            asked(&view, &ticket, last),
            AdmissionDecision::AlreadyBought { order_id: order_id(9) }
        );
        view.of_user = &[];
        assert_eq!(asked(&view, &ticket, last), AdmissionDecision::TooManyAttempts);
        let unlimited = ReserveRequest { attempts_max: 0, ..ticket.clone() };
        assert_eq!(asked(&view, &unlimited, last), AdmissionDecision::SoldOut);
        view.given_up = 2;
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
        assert_eq!(asked(&view, &ticket, last), AdmissionDecision::NetworkSoldOut);
        view.of_network = 1;
        let AdmissionDecision::Reserved(order) = asked(&view, &ticket, last) else {
            panic!("nothing stands against the ticket any more");
        };
        assert_eq!((order.price, order.currency), (7, Currency::CNY));
        assert_eq!((order.admitted_at, order.address_prefix), (last, Some(network())));
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
            (given_up, attempts_max) in (0_u32..5, 0_u32..4),
            (of_network, units_per_prefix) in (0_u32..4, prop::option::of(1_u32..4)),
        ) {
            let mine = (1..=mine).map(order_id).collect::<Vec<_>>();
            let terms = SaleTerms { units_per_prefix, ..terms(stock, limit) };
            let view = AdmissionView {
                own: known.then(|| own(false)),
                ended,
                of_user: &mine,
                given_up,
                held,
                of_network,
                ..empty(open.then_some(&terms))
            };
            // The ticket expires before the sale ends.
            let free = !known && !ended && open
                && (10_000..18_000).contains(&now)
                && mine.len() < limit as usize
                && held < stock
                && (attempts_max == 0 || given_up < attempts_max)
                && units_per_prefix.is_none_or(|limit| of_network < limit);
            let request = ReserveRequest { attempts_max, ..request() };
            let decision = view.decide(&request, Timestamp::from_epoch_ms(0).plus_ms(now));
            prop_assert_eq!(matches!(decision, AdmissionDecision::Reserved(_)), free, "{:?}", decision);
            if let AdmissionDecision::AlreadyBought { order_id } = decision {
                prop_assert!(mine.contains(&order_id));
            }
        }
    }
}
