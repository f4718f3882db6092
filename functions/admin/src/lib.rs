//! `POST /api/admin/sales`, `PATCH /api/admin/sales/{sale_id}`, `GET /api/admin/sales/{sale_id}/stats`,
//! `GET /api/admin/sales/{sale_id}/books`, `GET|POST|DELETE /api/admin/blacklist`, `GET /api/admin/parked`,
//! `DELETE /api/admin/parked/{parked_id}`, `POST /api/admin/parked/{parked_id}/retry`.

#[cfg(feature = "openapi")]
pub mod docs;

use flashsale::{
    app::{App, BanView, NewBan, NewSale, ParkedView, SaleBooks, SaleStats},
    domain::{Sale, SaleChange, SaleId},
    http::{
        Answer, Body, ClientAddress, Idempotency, PageQuery, Params, Signed, SignedWriter,
        axum::{
            Json, Router,
            extract::{Query, State, rejection::QueryRejection},
            http::{StatusCode, header},
            response::IntoResponse,
            routing::{delete, get, patch, post},
        },
    },
    problem::Problem,
};
use serde::{Deserialize, Serialize};

/// The function's routes.
pub fn router(app: App) -> Router {
    Router::new()
        .route("/api/admin/sales", post(create_sale))
        .route("/api/admin/sales/{sale_id}", patch(change_sale))
        .route("/api/admin/sales/{sale_id}/stats", get(stats))
        .route("/api/admin/sales/{sale_id}/books", get(books))
        .route("/api/admin/parked", get(parked))
        .route("/api/admin/parked/{parked_id}", delete(discard_parked))
        .route("/api/admin/parked/{parked_id}/retry", post(retry_parked))
        .route("/api/admin/blacklist", get(bans).post(ban).delete(lift))
        .with_state(app)
}

async fn create_sale(
    State(app): State<App>,
    SignedWriter(who): SignedWriter,
    ClientAddress(client): ClientAddress,
    Idempotency(key): Idempotency,
    Body(new): Body<NewSale>,
) -> Answer<impl IntoResponse> {
    let admin = app.enter_admin(&who, &client).await?;
    let sale = app.create_sale_as(admin, new, key.as_ref()).await?;
    let location = format!("/api/sales/{}", sale.sale_id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(sale)))
}

async fn change_sale(
    State(app): State<App>,
    SignedWriter(who): SignedWriter,
    ClientAddress(client): ClientAddress,
    Params(sale_id): Params<SaleId>,
    Body(change): Body<SaleChange>,
) -> Answer<Json<Sale>> {
    let admin = app.enter_admin(&who, &client).await?;
    Ok(Json(app.change_sale(admin, sale_id, &change).await?))
}

async fn stats(
    State(app): State<App>,
    Signed(who): Signed,
    ClientAddress(client): ClientAddress,
    Params(sale_id): Params<SaleId>,
) -> Answer<Json<SaleStats>> {
    app.enter_admin(&who, &client).await?;
    Ok(Json(app.sale_stats(sale_id).await?))
}

async fn books(
    State(app): State<App>,
    Signed(who): Signed,
    ClientAddress(client): ClientAddress,
    Params(sale_id): Params<SaleId>,
) -> Answer<Json<SaleBooks>> {
    app.enter_admin(&who, &client).await?;
    Ok(Json(app.sale_books(sale_id).await?))
}

/// The parked messages. The list is bounded and not paged: it is short, or something is very wrong.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
struct ParkedList {
    parked: Vec<ParkedView>,
}

async fn parked(
    State(app): State<App>,
    Signed(who): Signed,
    ClientAddress(client): ClientAddress,
) -> Answer<Json<ParkedList>> {
    const PARKED_MAX: u32 = 50;
    app.enter_admin(&who, &client).await?;
    Ok(Json(ParkedList { parked: app.parked(PARKED_MAX).await? }))
}

async fn retry_parked(
    State(app): State<App>,
    SignedWriter(who): SignedWriter,
    ClientAddress(client): ClientAddress,
    Params(parked_id): Params<String>,
) -> Answer<StatusCode> {
    let admin = app.enter_admin(&who, &client).await?;
    app.retry_parked(admin, &parked_id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn discard_parked(
    State(app): State<App>,
    SignedWriter(who): SignedWriter,
    ClientAddress(client): ClientAddress,
    Params(parked_id): Params<String>,
) -> Answer<StatusCode> {
    let admin = app.enter_admin(&who, &client).await?;
    app.discard_parked(admin, &parked_id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A page of the blacklist.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
struct BanPage {
    bans: Vec<BanView>,
    #[cfg_attr(feature = "openapi", schema(required))]
    next_cursor: Option<String>,
}

async fn bans(
    State(app): State<App>,
    Signed(who): Signed,
    ClientAddress(client): ClientAddress,
    page: PageQuery<Offset>,
) -> Answer<Json<BanPage>> {
    app.enter_admin(&who, &client).await?;
    let offset = page.cursor.map_or(0, |Offset(offset)| offset);
    let bans = app.bans(offset, page.limit).await?;
    let full = bans.len() == page.limit as usize;
    let next_cursor = full.then(|| (offset + page.limit).to_string());
    Ok(Json(BanPage { bans, next_cursor }))
}

async fn ban(
    State(app): State<App>,
    SignedWriter(who): SignedWriter,
    ClientAddress(client): ClientAddress,
    Body(new): Body<NewBan>,
) -> Answer<(StatusCode, Json<BanView>)> {
    let admin = app.enter_admin(&who, &client).await?;
    Ok((StatusCode::CREATED, Json(app.put_ban(admin, new).await?)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Lift {
    kind: String,
    value: String,
}

/// A cursor of the blacklist: how many bans were seen.
#[derive(Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(format = Int64, maximum = 4294967295i64))]
struct Offset(u32);

async fn lift(
    State(app): State<App>,
    SignedWriter(who): SignedWriter,
    ClientAddress(client): ClientAddress,
    query: Result<Query<Lift>, QueryRejection>,
) -> Answer<StatusCode> {
    let admin = app.enter_admin(&who, &client).await?;
    let Ok(Query(Lift { kind, value })) = query else {
        let expected = "?kind=user|address|phone&value=...".to_owned();
        return Err(Problem::Invalid { field: "query".to_owned(), expected });
    };
    app.lift_ban(admin, &kind, &value).await?;
    Ok(StatusCode::NO_CONTENT)
}
