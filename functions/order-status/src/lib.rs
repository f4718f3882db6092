//! A user's orders: followed, paid, given up.

use flashsale::{
    api::{OrderPage, OrderView},
    app::App,
    domain::OrderId,
    http::{
        ClientAddress, HandlerResult, PageQuery, Params, Signed, SignedWriter,
        axum::{Json, extract::State},
        endpoints::{Endpoint, Endpoints, get, post},
    },
    problem::ProblemKind,
};

/// The function's endpoints.
pub fn endpoints() -> Endpoints {
    Endpoints::new(
        "Orders",
        "Following, paying and giving up an order.",
        [get_orders(), get_order(), post_payment(), post_cancellation()],
    )
}

fn get_orders() -> Endpoint {
    get("/api/orders", list)
        .called("list_orders", "The user's recorded orders, newest first.")
        .signed_in()
        .paged::<OrderId>()
        .gives::<OrderPage>(200, "A page of them.")
}

async fn list(
    State(app): State<App>,
    Signed(who): Signed,
    ClientAddress(client): ClientAddress,
    page: PageQuery<OrderId>,
) -> HandlerResult<Json<OrderPage>> {
    let (orders, next_cursor) = app.order_list(&who, &client, page.cursor, page.limit).await?;
    Ok(Json(OrderPage { orders: orders.into_iter().map(OrderView::from).collect(), next_cursor }))
}

fn get_order() -> Endpoint {
    get("/api/orders/{order_id}", one)
        .called("get_order", "One order of the user.")
        .signed_in()
        .gives::<OrderView>(200, "The order.")
}

async fn one(
    State(app): State<App>,
    Signed(who): Signed,
    ClientAddress(client): ClientAddress,
    Params(order_id): Params<OrderId>,
) -> HandlerResult<Json<OrderView>> {
    Ok(Json(app.order(&who, &client, order_id).await?.into()))
}

fn post_payment() -> Endpoint {
    post("/api/orders/{order_id}/payment", pay)
        .called("pay_order", "Pays a confirmed order. The payment is simulated.")
        .signed_in()
        .gives::<OrderView>(200, "The order, paid.")
        .refuses(&[ProblemKind::OrderQueued, ProblemKind::OrderFinal])
}

async fn pay(
    State(app): State<App>,
    SignedWriter(who): SignedWriter,
    ClientAddress(client): ClientAddress,
    Params(order_id): Params<OrderId>,
) -> HandlerResult<Json<OrderView>> {
    Ok(Json(app.pay_order(&who, &client, order_id).await?.into()))
}

fn post_cancellation() -> Endpoint {
    post("/api/orders/{order_id}/cancellation", cancel)
        .called("cancel_order", "Gives up an order that is queued or confirmed.")
        .signed_in()
        .gives::<OrderView>(200, "The order, cancelled.")
        .refuses(&[ProblemKind::OrderFinal])
}

async fn cancel(
    State(app): State<App>,
    SignedWriter(who): SignedWriter,
    ClientAddress(client): ClientAddress,
    Params(order_id): Params<OrderId>,
) -> HandlerResult<Json<OrderView>> {
    Ok(Json(app.cancel_order(&who, &client, order_id).await?.into()))
}
