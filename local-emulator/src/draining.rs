//! How a reverse proxy learns that this instance is about to stop, without a health check of its own (nginx has none).
//!
//! While the instance drains, every answer closes its connection, so that the proxy keeps none to it. A proxy that can
//! repeat a request elsewhere says so with `Flashsale-Retry: 502`: then the request is refused with 502 before anything is
//! done, the proxy sends it to another instance, and counts this one as failed for a while. All other requests are served.

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse as _, Response},
};
use tokio::sync::watch;

/// The proxy's word that it repeats what is answered with the status in the value. Only 502 is known.
const RETRY: &str = "flashsale-retry";

/// The router, with answers that send clients away once `draining` is true.
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
    // Also for a request that came before.
    if *draining.borrow() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
