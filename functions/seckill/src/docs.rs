//! What the OpenAPI document says of this function.

use flashsale::{
    app::{OrderAccepted, Ticket},
    http::openapi::{Operation, post},
};

use super::{OrderRequest, TicketRequest};

/// The group these operations are shown in, and what it is about.
pub const GROUP: (&str, &str) = (
    "Buying",
    "A ticket, then an order of it. The same ticket gives the same order, however often it is sent.",
);

/// The function's operations.
pub fn operations() -> Vec<Operation> {
    let gone = ["sale-not-open", "sale-ended", "sold-out", "already-bought"];
    vec![
        post(
            "/api/sales/{sale_id}/tickets",
            "issue_ticket",
            "Issues a ticket, good for 60 seconds. It reserves nothing.",
        )
        .about("A captcha of purpose `purchase` is needed unless captchas are off.")
        .signed()
        .body::<TicketRequest>()
        .gives::<Ticket>(201, "The ticket, and the id of the order that it will make.")
        .refuses(&gone)
        .refuses(&["captcha-required", "captcha-gone", "captcha-wrong"]),
        post(
            "/api/sales/{sale_id}/orders",
            "place_order",
            "Makes the ticket's order, and answers when it is durable.",
        )
        .about("After a timeout, a 429 or a 503 send the same ticket again.")
        .signed()
        .body::<OrderRequest>()
        .gives::<OrderAccepted>(202, "The order is durable and will be recorded.")
        .with_header("Location", "Where to follow the order.")
        .refuses(&gone)
        .refuses(&["bad-ticket", "ticket-expired", "not-durable-yet"]),
    ]
}
