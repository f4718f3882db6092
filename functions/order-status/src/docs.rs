//! What the OpenAPI document says of this function.

use flashsale::{
    domain::OrderId,
    http::openapi::{Operation, get, post},
};

use super::{OrderPage, OrderView};

/// The group these operations are shown in, and what it is about.
pub const GROUP: (&str, &str) = ("Orders", "Following, paying and giving up an order.");

/// The function's operations.
pub fn operations() -> Vec<Operation> {
    vec![
        get("/api/orders", "list_orders", "The user's recorded orders, newest first.")
            .signed()
            .paged::<OrderId>()
            .gives::<OrderPage>(200, "A page of them."),
        get("/api/orders/{order_id}", "get_order", "One order of the user.")
            .signed()
            .gives::<OrderView>(200, "The order."),
        post(
            "/api/orders/{order_id}/payment",
            "pay_order",
            "Pays a confirmed order. The payment is simulated.",
        )
        .signed()
        .gives::<OrderView>(200, "The order, paid.")
        .refuses(&["order-queued", "order-final"]),
        post(
            "/api/orders/{order_id}/cancellation",
            "cancel_order",
            "Gives up an order that is queued or confirmed.",
        )
        .signed()
        .gives::<OrderView>(200, "The order, cancelled.")
        .refuses(&["order-final"]),
    ]
}
