//! `GET /api/orders`, `GET /api/orders/{order_id}`, `POST /api/orders/{order_id}/payment|cancellation`.

use flashsale::{
    app::App,
    domain::{Order, OrderId},
    http::{
        Answer, ClientAddress, PageQuery, Params, Signed, SignedWriter,
        axum::{
            Json, Router,
            extract::State,
            routing::{get, post},
        },
    },
};
use serde::Serialize;
use serde_json::{Value, json};

/// The function's routes.
pub fn router(app: App) -> Router {
    Router::new()
        .route("/api/orders", get(list))
        .route("/api/orders/{order_id}", get(one))
        .route("/api/orders/{order_id}/payment", post(pay))
        .route("/api/orders/{order_id}/cancellation", post(cancel))
        .with_state(app)
}

/// An order as its owner sees it.
#[derive(Serialize)]
struct OrderView {
    order_id: OrderId,
    sale_id: flashsale::domain::SaleId,
    status: flashsale::domain::OrderStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<flashsale::domain::RejectReason>,
    price: i64,
    currency: flashsale::domain::Currency,
    created_at: flashsale::domain::Timestamp,
    pay_by: Option<flashsale::domain::Timestamp>,
    updated_at: flashsale::domain::Timestamp,
}

impl From<Order> for OrderView {
    fn from(order: Order) -> Self {
        let Order { order_id, sale_id, status, reason, price, currency, created_at, pay_by, updated_at, .. } = order;
        Self { order_id, sale_id, status, reason, price, currency, created_at, pay_by, updated_at }
    }
}

async fn list(
    State(app): State<App>,
    Signed(who): Signed,
    ClientAddress(client): ClientAddress,
    page: PageQuery<OrderId>,
) -> Answer<Json<Value>> {
    let (orders, next) = app.order_list(&who, &client, page.cursor, page.limit).await?;
    let orders: Vec<OrderView> = orders.into_iter().map(OrderView::from).collect();
    Ok(Json(json!({ "orders": orders, "next_cursor": next })))
}

async fn one(
    State(app): State<App>,
    Signed(who): Signed,
    ClientAddress(client): ClientAddress,
    Params(order_id): Params<OrderId>,
) -> Answer<Json<OrderView>> {
    Ok(Json(app.order(&who, &client, order_id).await?.into()))
}

async fn pay(
    State(app): State<App>,
    SignedWriter(who): SignedWriter,
    ClientAddress(client): ClientAddress,
    Params(order_id): Params<OrderId>,
) -> Answer<Json<OrderView>> {
    Ok(Json(app.pay_order(&who, &client, order_id).await?.into()))
}

async fn cancel(
    State(app): State<App>,
    SignedWriter(who): SignedWriter,
    ClientAddress(client): ClientAddress,
    Params(order_id): Params<OrderId>,
) -> Answer<Json<OrderView>> {
    Ok(Json(app.cancel_order(&who, &client, order_id).await?.into()))
}
