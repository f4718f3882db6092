//! `GET /api/sales`, `GET /api/sales/{sale_id}`.

#[cfg(feature = "openapi")]
pub mod docs;

use flashsale::{
    app::{App, SaleView},
    domain::SaleId,
    http::{
        Answer, ClientAddress, PageQuery, Params,
        axum::{Json, Router, extract::State, routing::get},
    },
};
use serde::Serialize;

/// The function's routes.
pub fn router(app: App) -> Router {
    Router::new().route("/api/sales", get(list)).route("/api/sales/{sale_id}", get(one)).with_state(app)
}

/// A page of the list of sales.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
struct SalePage {
    sales: Vec<SaleView>,
    #[cfg_attr(feature = "openapi", schema(required))]
    next_cursor: Option<SaleId>,
}

async fn list(State(app): State<App>, ClientAddress(client): ClientAddress, page: PageQuery<SaleId>) -> Answer<Json<SalePage>> {
    let (sales, next_cursor) = app.sale_list(&client, page.cursor, page.limit).await?;
    Ok(Json(SalePage { sales, next_cursor }))
}

async fn one(State(app): State<App>, ClientAddress(client): ClientAddress, Params(sale_id): Params<SaleId>) -> Answer<Json<SaleView>> {
    Ok(Json(app.sale_page(&client, sale_id).await?))
}
