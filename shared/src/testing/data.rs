//! Test data. Ids are random, so that suites can share a server without interfering.

use crate::{
    adapters::system::SystemRandom,
    domain::{
        ActionId, ActionKind, AddressPrefix, AdminAction, AdmittedOrder, CaptchaId, Currency,
        EndedOrder, OrderId, Phone, ReserveRequest, Role, Sale, SaleId, SessionId, TicketClaims,
        Timestamp, User, UserId,
    },
    ports::Random as _,
};

/// The instant at which suites begin: 2026-11-11T20:00:00Z.
pub const START: Timestamp = Timestamp::from_epoch_ms(1_794_427_200_000);

fn ten() -> [u8; 10] {
    let mut bytes = [0; 10];
    SystemRandom.fill(&mut bytes);
    bytes
}

/// A new order id.
#[must_use]
pub fn order_id() -> OrderId {
    OrderId::new(START, &ten())
}

/// A new user id.
#[must_use]
pub fn user_id() -> UserId {
    UserId::new(START, &ten())
}

/// A new sale id.
#[must_use]
pub fn sale_id() -> SaleId {
    SaleId::new(START, &ten())
}

/// A new session id.
#[must_use]
pub fn session_id() -> SessionId {
    SessionId::new(START, &ten())
}

/// A new captcha id.
#[must_use]
pub fn captcha_id() -> CaptchaId {
    CaptchaId::new(START, &ten())
}

/// A phone that no user has.
#[must_use]
pub fn phone() -> Phone {
    let bytes = ten();
    let digits =
        u64::from_be_bytes(bytes[..8].try_into().expect("eight of ten bytes")) % 1_000_000_000;
    Phone::from_e164(&format!("+861{digits:09}0")).expect("the shape is right")
}

/// A new action of a new administrator.
#[must_use]
pub fn action(kind: ActionKind) -> AdminAction {
    AdminAction {
        action_id: ActionId::new(START, &ten()),
        at: START,
        admin_id: user_id(),
        address_prefix: AddressPrefix::of([192, 0, 2, 7].into()),
        kind,
        object: "a test".to_owned(),
        changes: Vec::new(),
    }
}

/// A user with a new id and phone.
#[must_use]
pub fn user() -> User {
    User {
        user_id: user_id(),
        phone: phone(),
        password_hash: "!".to_owned(),
        role: Role::Shopper,
        created_at: START,
        generation: 0,
        phone_verified_at: None,
    }
}

/// A sale that opened one second before [`START`] and lasts an hour.
#[must_use]
pub fn sale(stock: u32) -> Sale {
    Sale {
        sale_id: sale_id(),
        title: "Phone".to_owned(),
        description: "A phone for the price of its case".to_owned(),
        image_url: String::new(),
        price: 1_999,
        original_price: 49_900,
        currency: Currency::USD,
        stock,
        sold: 0,
        per_user_limit: 1,
        starts_at: START.minus_ms(1_000),
        ends_at: START.plus_ms(3_600_000),
        epoch: 0,
        version: 1,
        created_at: START,
        draw: None,
        eligible_registered_before: None,
        units_per_prefix: None,
    }
}

/// A request of a user for a unit of the sale, admitted at [`START`].
#[must_use]
pub fn request(sale: &Sale, user_id: UserId) -> AdmittedOrder {
    AdmittedOrder {
        order_id: order_id(),
        sale_id: sale.sale_id,
        user_id,
        price: sale.price,
        currency: sale.currency,
        admitted_at: START,
        traceparent: None,
        address_prefix: None,
    }
}

/// The network of an address.
///
/// # Panics
/// When the text is no address.
#[must_use]
pub fn network(address: &str) -> AddressPrefix {
    AddressPrefix::of(address.parse().expect("a test's address"))
}

/// An order that has ended and does not count as an attempt of its user.
#[must_use]
pub const fn ended(order_id: OrderId) -> EndedOrder {
    EndedOrder { order_id, given_up_by: None }
}

/// A test's request to the admission store: a ticket and the time at which it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Which sale.
    pub sale_id: SaleId,
    /// Which order.
    pub order_id: OrderId,
    /// The ticket's user.
    pub user_id: UserId,
    /// Whether the ticket has expired.
    pub ticket_expired: bool,
    /// The network that the request comes from.
    pub address_prefix: AddressPrefix,
    /// How many orders of the sale the user may give up; 0: any number.
    pub attempts_max: u32,
    /// Now.
    pub now: Timestamp,
}

impl Claim {
    /// A claim with a valid ticket, from a fixed network, by the default number of attempts.
    #[must_use]
    pub fn new(sale_id: SaleId, order_id: OrderId, user_id: UserId, now: Timestamp) -> Self {
        Self {
            sale_id,
            order_id,
            user_id,
            ticket_expired: false,
            address_prefix: network("192.0.2.7"),
            attempts_max: 3,
            now,
        }
    }

    /// The ticket, which expires either now or right afterwards.
    #[must_use]
    pub fn ticket(&self) -> TicketClaims {
        TicketClaims {
            order_id: self.order_id,
            user_id: self.user_id,
            session_id: session_id(),
            sale_id: self.sale_id,
            exp_ms: self.now.epoch_ms() + i64::from(!self.ticket_expired),
        }
    }

    /// The request with the ticket.
    #[must_use]
    pub fn request(&self) -> ReserveRequest {
        ReserveRequest {
            ticket: self.ticket(),
            address_prefix: self.address_prefix,
            attempts_max: self.attempts_max,
        }
    }
}
