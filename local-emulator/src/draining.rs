//! Tells a reverse proxy without active health checks (nginx) that this instance is about to stop.
//!
//! While the instance drains, every answer closes its connection, so that the proxy keeps none
//! open. A proxy that can send a request to another instance adds the header
//! `Flashsale-Retry: 502`. Such a request is refused with 502 before it has any effect; the proxy
//! repeats it elsewhere and treats this instance as failed for a while. All other requests are
//! served.

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse as _, Response},
};
use tokio::sync::watch;

/// The header of a proxy that repeats requests answered with the status in its value. Only 502 is
/// supported.
const RETRY: &str = "flashsale-retry";

/// The router, whose answers close their connections once `draining` is true.
pub fn watched(router: Router, draining: &watch::Receiver<bool>) -> Router {
    router.layer(from_fn_with_state(draining.clone(), leave))
}

async fn leave(
    State(draining): State<watch::Receiver<bool>>,
    request: Request,
    next: Next,
) -> Response {
    let repeatable = request.headers().get(RETRY).is_some_and(|status| status == "502");
    let mut response = if repeatable && *draining.borrow() {
        StatusCode::BAD_GATEWAY.into_response()
    } else {
        next.run(request).await
    };
    // Checked after the answer, so that it includes requests that began before the drain.
    if *draining.borrow() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
