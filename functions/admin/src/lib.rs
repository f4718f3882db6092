//! The operator's side: sales, parked messages and the blacklist.

use flashsale::{
    api::{
        BanOffset, BanPage, BanView, LiftBan, NewBan, NewSale, ParkedList, SaleBooks, SaleStats,
    },
    app::App,
    domain::{IdempotencyKey, Sale, SaleChange, SaleId},
    http::{
        Body, ClientAddress, HandlerResult, Idempotency, PageQuery, Params, Signed, SignedWriter,
        axum::{
            Json,
            extract::{Query, State, rejection::QueryRejection},
            http::{StatusCode, header},
            response::IntoResponse,
        },
        endpoints::{Endpoint, Endpoints, delete, get, patch, post},
    },
    problem::{Problem, ProblemKind},
};

/// The function's endpoints.
pub fn endpoints() -> Endpoints {
    Endpoints::new(
        "Administration",
        "For users with the role `admin`.",
        [
            post_sales(),
            patch_sale(),
            get_stats(),
            get_books(),
            get_parked(),
            post_retry(),
            delete_parked(),
            get_blacklist(),
            post_blacklist(),
            delete_blacklist(),
        ],
    )
}

fn post_sales() -> Endpoint {
    post("/api/admin/sales", create_sale)
        .called("create_sale", "Creates a sale.")
        .about(
            "A request with an `Idempotency-Key` may be sent again when its answer did not come: the same administrator's \
             same key gives the sale that the first request has created, with the first answer. The key is kept with the sale. \
             With another body it is refused as `invalid`.",
        )
        .admin()
        .header::<IdempotencyKey>(
            IdempotencyKey::HEADER,
            "Names the request: visible ASCII characters.",
        )
        .body::<NewSale>()
        .gives::<Sale>(201, "The sale as the ledger has it.")
        .with_header("Location", "The sale's page.")
}

async fn create_sale(
    State(app): State<App>,
    SignedWriter(who): SignedWriter,
    ClientAddress(client): ClientAddress,
    Idempotency(key): Idempotency,
    Body(new): Body<NewSale>,
) -> HandlerResult<impl IntoResponse> {
    let admin = app.enter_admin(&who, &client).await?;
    let sale = app.create_sale_as(admin, new, key.as_ref()).await?;
    let location = format!("/api/sales/{}", sale.sale_id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(sale)))
}

fn patch_sale() -> Endpoint {
    patch("/api/admin/sales/{sale_id}", change_sale)
        .called("change_sale", "Changes a sale, also while it runs.")
        .about("What is left out stays. `stock` can't fall below `sold`, nor `per_user_limit` at all once units are sold.")
        .admin()
        .body::<SaleChange>()
        .gives::<Sale>(200, "The sale as it is now.")
}

async fn change_sale(
    State(app): State<App>,
    SignedWriter(who): SignedWriter,
    ClientAddress(client): ClientAddress,
    Params(sale_id): Params<SaleId>,
    Body(change): Body<SaleChange>,
) -> HandlerResult<Json<Sale>> {
    let admin = app.enter_admin(&who, &client).await?;
    Ok(Json(app.change_sale(admin, sale_id, &change).await?))
}

fn get_stats() -> Endpoint {
    get("/api/admin/sales/{sale_id}/stats", stats)
        .called("sale_stats", "The figures of a sale, uncached.")
        .admin()
        .gives::<SaleStats>(200, "The figures.")
}

async fn stats(
    State(app): State<App>,
    Signed(who): Signed,
    ClientAddress(client): ClientAddress,
    Params(sale_id): Params<SaleId>,
) -> HandlerResult<Json<SaleStats>> {
    app.enter_admin(&who, &client).await?;
    Ok(Json(app.sale_stats(sale_id).await?))
}

fn get_books() -> Endpoint {
    get("/api/admin/sales/{sale_id}/books", books)
        .called("sale_books", "Whether the books of a sale balance.")
        .admin()
        .gives::<SaleBooks>(200, "The books; `findings` is empty when every promise holds.")
}

async fn books(
    State(app): State<App>,
    Signed(who): Signed,
    ClientAddress(client): ClientAddress,
    Params(sale_id): Params<SaleId>,
) -> HandlerResult<Json<SaleBooks>> {
    app.enter_admin(&who, &client).await?;
    Ok(Json(app.sale_books(sale_id).await?))
}

fn get_parked() -> Endpoint {
    get("/api/admin/parked", parked)
        .called("list_parked", "The messages of the order queue that could not be used.")
        .admin()
        .gives::<ParkedList>(200, "At most 50 of them.")
}

async fn parked(
    State(app): State<App>,
    Signed(who): Signed,
    ClientAddress(client): ClientAddress,
) -> HandlerResult<Json<ParkedList>> {
    const PARKED_MAX: u32 = 50;
    app.enter_admin(&who, &client).await?;
    Ok(Json(ParkedList { parked: app.parked(PARKED_MAX).await? }))
}

fn post_retry() -> Endpoint {
    post("/api/admin/parked/{parked_id}/retry", retry_parked)
        .called("retry_parked", "Puts a parked message back into the queue.")
        .admin()
        .gives_nothing("It is in the queue again.")
}

async fn retry_parked(
    State(app): State<App>,
    SignedWriter(who): SignedWriter,
    ClientAddress(client): ClientAddress,
    Params(parked_id): Params<String>,
) -> HandlerResult<StatusCode> {
    let admin = app.enter_admin(&who, &client).await?;
    app.retry_parked(admin, &parked_id).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn delete_parked() -> Endpoint {
    delete("/api/admin/parked/{parked_id}", discard_parked)
        .called("discard_parked", "Throws a parked message away.")
        .admin()
        .gives_nothing("It is gone.")
}

async fn discard_parked(
    State(app): State<App>,
    SignedWriter(who): SignedWriter,
    ClientAddress(client): ClientAddress,
    Params(parked_id): Params<String>,
) -> HandlerResult<StatusCode> {
    let admin = app.enter_admin(&who, &client).await?;
    app.discard_parked(admin, &parked_id).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn get_blacklist() -> Endpoint {
    get("/api/admin/blacklist", bans)
        .called("list_bans", "The bans that hold, newest first.")
        .admin()
        .paged::<BanOffset>()
        .gives::<BanPage>(200, "A page of them.")
}

async fn bans(
    State(app): State<App>,
    Signed(who): Signed,
    ClientAddress(client): ClientAddress,
    page: PageQuery<BanOffset>,
) -> HandlerResult<Json<BanPage>> {
    app.enter_admin(&who, &client).await?;
    let offset = page.cursor.map_or(0, |BanOffset(offset)| offset);
    let bans = app.bans(offset, page.limit).await?;
    let full = bans.len() == page.limit as usize;
    let next_cursor = full.then(|| (offset + page.limit).to_string());
    Ok(Json(BanPage { bans, next_cursor }))
}

fn post_blacklist() -> Endpoint {
    post("/api/admin/blacklist", ban)
        .called("ban", "Bans a user, a phone number or an address.")
        .about("A ban of the same again replaces the first.")
        .admin()
        .body::<NewBan>()
        .gives::<BanView>(201, "The ban, `value` in its normal form.")
}

async fn ban(
    State(app): State<App>,
    SignedWriter(who): SignedWriter,
    ClientAddress(client): ClientAddress,
    Body(new): Body<NewBan>,
) -> HandlerResult<(StatusCode, Json<BanView>)> {
    let admin = app.enter_admin(&who, &client).await?;
    Ok((StatusCode::CREATED, Json(app.put_ban(admin, new).await?)))
}

fn delete_blacklist() -> Endpoint {
    delete("/api/admin/blacklist", lift)
        .called("lift_ban", "Lifts a ban.")
        .admin()
        .query("kind", "What is banned.", &["user", "address", "phone"])
        .query("value", "The id, the address or the phone number.", &[])
        .gives_nothing("The ban holds no more.")
        .refuses(&[ProblemKind::NotFound])
}

async fn lift(
    State(app): State<App>,
    SignedWriter(who): SignedWriter,
    ClientAddress(client): ClientAddress,
    query: Result<Query<LiftBan>, QueryRejection>,
) -> HandlerResult<StatusCode> {
    let admin = app.enter_admin(&who, &client).await?;
    let Ok(Query(LiftBan { kind, value })) = query else {
        let expected = "?kind=user|address|phone&value=...".to_owned();
        return Err(Problem::Invalid { field: "query".to_owned(), expected });
    };
    app.lift_ban(admin, &kind, &value).await?;
    Ok(StatusCode::NO_CONTENT)
}
