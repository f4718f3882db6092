//! `GET /api/sales`, `GET /api/sales/{sale_id}`.

use flashsale::{
    app::{App, SaleView},
    domain::SaleId,
    http::{
        Answer, ClientAddress, PageQuery, Params,
        axum::{Json, Router, extract::State, routing::get},
    },
};
use serde_json::{Value, json};

/// The function's routes.
pub fn router(app: App) -> Router {
    Router::new().route("/api/sales", get(list)).route("/api/sales/{sale_id}", get(one)).with_state(app)
}

async fn list(State(app): State<App>, ClientAddress(client): ClientAddress, page: PageQuery<SaleId>) -> Answer<Json<Value>> {
    let (sales, next) = app.sale_list(&client, page.cursor, page.limit).await?;
    Ok(Json(json!({ "sales": sales, "next_cursor": next })))
}

async fn one(State(app): State<App>, ClientAddress(client): ClientAddress, Params(sale_id): Params<SaleId>) -> Answer<Json<SaleView>> {
    Ok(Json(app.sale_page(&client, sale_id).await?))
}
