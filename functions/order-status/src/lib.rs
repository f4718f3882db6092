//! `GET /api/orders`, `GET /api/orders/{order_id}`, `POST /api/orders/{order_id}/payment|cancellation`.

#[cfg(feature = "openapi")]
pub mod docs;

use flashsale::{
    app::App,
    domain::{Currency, Order, OrderId, OrderStatus, RejectReason, SaleId, Timestamp},
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
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
struct OrderView {
    order_id: OrderId,
    sale_id: SaleId,
    status: OrderStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    reason: Option<RejectReason>,
    price: i64,
    currency: Currency,
    created_at: Timestamp,
    #[cfg_attr(feature = "openapi", schema(required))]
    pay_by: Option<Timestamp>,
    updated_at: Timestamp,
}

impl From<Order> for OrderView {
    fn from(order: Order) -> Self {
        let Order {
            order_id,
            sale_id,
            status,
            reason,
            price,
            currency,
            created_at,
            pay_by,
            updated_at,
            ..
        } = order;
        Self { order_id, sale_id, status, reason, price, currency, created_at, pay_by, updated_at }
    }
}

/// A page of the user's orders.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
struct OrderPage {
    orders: Vec<OrderView>,
    #[cfg_attr(feature = "openapi", schema(required))]
    next_cursor: Option<OrderId>,
}

async fn list(
    State(app): State<App>,
    Signed(who): Signed,
    ClientAddress(client): ClientAddress,
    page: PageQuery<OrderId>,
) -> Answer<Json<OrderPage>> {
    let (orders, next_cursor) = app.order_list(&who, &client, page.cursor, page.limit).await?;
    Ok(Json(OrderPage { orders: orders.into_iter().map(OrderView::from).collect(), next_cursor }))
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
