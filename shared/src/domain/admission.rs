//! Admission: who gets a unit.

use super::{AdmittedOrder, OrderId, SaleId, Timestamp, UserId};

/// A unit held in the admission store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// The order that holds it; its `price`, `currency` and `admitted_at` are those of the first admission.
    pub order: AdmittedOrder,
    /// Whether the ledger has said `confirmed`; before that the reservation is watched by the overdue index.
    pub settled: bool,
}

/// What a buyer asks of the admission store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Which sale.
    pub sale_id: SaleId,
    /// The order, from the ticket.
    pub order_id: OrderId,
    /// The buyer, from the session.
    pub user_id: UserId,
    /// Whether the ticket's life is over: then only an order that was admitted before is found again.
    pub ticket_expired: bool,
    /// Now.
    pub now: Timestamp,
}

/// The answer to a [`Claim`]: the first that applies, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdmissionDecision {
    /// The order holds a unit since an earlier call.
    Again(Reservation),
    /// The order held a unit and has given it back (cancelled, expired or rejected).
    Ended,
    /// The sale is not loaded, or is being rebuilt: ask again soon.
    Closed,
    /// The ticket's life is over and its order never got a unit.
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
    /// No unit is left.
    SoldOut,
    /// The order holds a unit now.
    Reserved(Reservation),
}

/// What a ticket request needs to know of a sale.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Availability {
    /// Units that can be reserved now.
    pub available: u32,
    /// An order of the user, when the user holds as many units as the limit allows.
    pub already_bought: Option<OrderId>,
    /// Grows with every order that gets a unit. While it stays the same and the store keeps its data, nobody has bought.
    pub admissions: u64,
}

/// Where the admission store stands with a sale.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdmissionState {
    /// It knows nothing of the sale: never loaded, or lost.
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

/// A page of reservations and where the next one begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReservationPage {
    /// Some reservations; an id may come more than once in a whole reading, and one that is there all the time comes
    /// at least once.
    pub reservations: Vec<Reservation>,
    /// To be given for the next page; `None` after the last.
    pub next: Option<u64>,
}
