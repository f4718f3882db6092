//! Tells a reverse proxy without active health checks (nginx) that this instance is about to stop.
//!
//! While the instance drains, every answer closes its connection, so that the proxy keeps none
//! open. A proxy that can send a request to another instance adds the header
//! `Flashsale-Retry: 502`. Such a request is refused with 502 before it has any effect; the proxy
//! repeats it elsewhere and treats this instance as failed for a while. All other requests are
//! served.

use axum::{
    extract::Request,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use tokio::sync::watch;

/// The header of a proxy that repeats requests answered with the status in its value. Only 502 is
/// supported.
const RETRY: &str = "flashsale-retry";

/// Answers a request with `next`; the answer closes its connection once `draining` is true.
pub async fn answer<F: Future<Output = Response>>(
    draining: &watch::Receiver<bool>,
    request: Request,
    next: impl FnOnce(Request) -> F,
) -> Response {
    let repeatable = request.headers().get(RETRY).is_some_and(|status| status == "502");
    let mut response = if repeatable && *draining.borrow() {
        StatusCode::BAD_GATEWAY.into_response()
    } else {
        next(request).await
    };
    // Checked after the answer, so that it includes requests that began before the drain.
    if *draining.borrow() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
