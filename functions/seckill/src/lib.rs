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
            extract::State,
            http::{HeaderMap, StatusCode, header},
            response::IntoResponse,
            routing::post,
        },
    },
};
use serde::Deserialize;

/// The function's routes.
pub fn router(app: App) -> Router {
    Router::new().route("/api/sales/{sale_id}/tickets", post(ticket)).route("/api/sales/{sale_id}/orders", post(order)).with_state(app)
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
    let captcha = request.captcha_id.zip(request.captcha_answer).map(|(captcha_id, answer)| CaptchaAnswer { captcha_id, answer });
    Ok((StatusCode::CREATED, Json(app.issue_ticket(&who, &client, sale_id, captcha).await?)))
}

async fn order(
    State(app): State<App>,
    SignedWriter(who): SignedWriter,
    ClientAddress(client): ClientAddress,
    Params(sale_id): Params<SaleId>,
    headers: HeaderMap,
    Body(request): Body<OrderRequest>,
) -> Answer<impl IntoResponse> {
    let accepted = app.place_order(&who, &client, sale_id, &request.ticket, traceparent(&headers)).await?;
    let location = format!("/api/orders/{}", accepted.order_id);
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, location)], Json(accepted)))
}

/// The W3C trace context, when it has its one possible shape.
fn traceparent(headers: &HeaderMap) -> Option<String> {
    const BYTES: usize = 55;
    let value = headers.get("traceparent")?.to_str().ok()?;
    let usable = value.len() == BYTES && value.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit());
    usable.then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_traceparent_is_taken_along() {
        let given =
            |value: &str| traceparent(&HeaderMap::from_iter([(header::HeaderName::from_static("traceparent"), value.parse().unwrap())]));
        let whole = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(given(whole).as_deref(), Some(whole));
        assert_eq!(given("00-4bf9"), None);
        assert_eq!(given(&"x".repeat(55)), None);
    }
}
