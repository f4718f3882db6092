//! `POST /api/sales/{sale_id}/tickets`, `POST /api/sales/{sale_id}/orders`: the buy path.

#[cfg(feature = "openapi")]
pub mod docs;

use flashsale::{
    app::{App, CaptchaAnswer, Ticket},
    domain::{CaptchaId, SaleId},
    http::{
        Answer, Body, ClientAddress, Params, SignedWriter,
        axum::{
            Json, Router,
            extract::{Extension, State},
            http::{StatusCode, header},
            response::IntoResponse,
            routing::post,
        },
    },
    trace::TraceContext,
};
use serde::Deserialize;

/// The function's routes.
pub fn router(app: App) -> Router {
    Router::new()
        .route("/api/sales/{sale_id}/tickets", post(ticket))
        .route("/api/sales/{sale_id}/orders", post(order))
        .with_state(app)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(example = json!({})))]
struct TicketRequest {
    captcha_id: Option<CaptchaId>,
    captcha_answer: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
struct OrderRequest {
    ticket: String,
}

async fn ticket(
    State(app): State<App>,
    SignedWriter(who): SignedWriter,
    ClientAddress(client): ClientAddress,
    Params(sale_id): Params<SaleId>,
    Body(request): Body<TicketRequest>,
) -> Answer<(StatusCode, Json<Ticket>)> {
    let captcha = request
        .captcha_id
        .zip(request.captcha_answer)
        .map(|(captcha_id, answer)| CaptchaAnswer { captcha_id, answer });
    Ok((StatusCode::CREATED, Json(app.issue_ticket(&who, &client, sale_id, captcha).await?)))
}

async fn order(
    State(app): State<App>,
    SignedWriter(who): SignedWriter,
    ClientAddress(client): ClientAddress,
    Params(sale_id): Params<SaleId>,
    trace: Option<Extension<TraceContext>>,
    Body(request): Body<OrderRequest>,
) -> Answer<impl IntoResponse> {
    let accepted = app
        .place_order(
            &who,
            &client,
            sale_id,
            &request.ticket,
            trace.map(|Extension(context)| context),
        )
        .await?;
    let location = format!("/api/orders/{}", accepted.order_id);
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, location)], Json(accepted)))
}
