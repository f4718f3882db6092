//! The last layer of every router: a request id, the trace, security headers, the refusal of
//! changes requested by pages of other sites, and problems for requests that match no route.

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering},
};

use axum::{
    Router,
    extract::{Request, State},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse as _, Response},
};
use lambda_http::http::{HeaderName, HeaderValue, StatusCode, header};
use ring::rand::{SecureRandom as _, SystemRandom};

use tracing::Instrument as _;

use super::{
    session::is_from_another_site,
    traced::{RequestSpan, TraceSource},
};
use crate::{
    problem::Problem,
    request_context::RequestContext,
    trace::{Answered, Route},
};

/// The header with the id of a request in the logs: a proxy's id, or one made here.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The request's id, in the request's extensions.
#[derive(Debug, Clone)]
pub struct RequestId(pub HeaderValue);

/// Adds the last layer to a router. `source` says whose trace context is trusted.
pub fn finish(router: Router, source: TraceSource) -> Router {
    let layer = async |State(source): State<TraceSource>, request: Request, next: Next| {
        answer(&source, request, |request| next.run(request)).await
    };
    problems(router).layer(from_fn_with_state(source, layer))
}

/// A router whose requests without a route are answered with problems.
pub fn problems(router: Router) -> Router {
    router
        .fallback(|| async { Problem::NotFound })
        .method_not_allowed_fallback(|| async { Problem::MethodNotAllowed })
}

/// The last layer as a function: answers a request with `next`. `source` says whose trace context
/// is trusted.
pub async fn answer<F: Future<Output = Response> + Send>(
    source: &TraceSource,
    mut request: Request,
    next: impl FnOnce(Request) -> F + Send,
) -> Response {
    let id = request
        .headers()
        .get(&REQUEST_ID)
        .filter(|id| is_usable(id))
        .cloned()
        .unwrap_or_else(new_id);
    request.extensions_mut().insert(RequestId(id.clone()));
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let RequestSpan { span, context, exporter } =
        RequestSpan::begin(&request, id.to_str().unwrap_or_default(), source);
    if let Some(context) = context {
        request.extensions_mut().insert(context);
    }
    // Also without a session: a page of another site must not sign its visitor in to another
    // account.
    let foreign = uri.path().starts_with("/api/")
        && !method.is_safe()
        && is_from_another_site(request.headers());
    let answering = async {
        if foreign {
            let why = "a request that changes something must not come from a page of another site";
            return Problem::Forbidden(why).into_response();
        }
        next(request).await
    };
    let unexported = exporter.is_none().then(|| RequestContext { id: id.clone(), trace: context });
    let mut response = match unexported.clone() {
        Some(context) => context.scope(answering).await,
        None => answering.instrument(span.clone()).await,
    };
    let status = response.status();
    if let Some(exporter) = exporter {
        let route = response.extensions_mut().remove::<Route>();
        exporter.answered(
            &span,
            &Answered { method: &method, status: status.as_u16(), route: route.as_ref() },
        );
    }
    let log = || {
        // An outage causes thousands of 503s; the code that meets it logs it once a second.
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::warn!(%method, path = uri.path(), status = status.as_u16(), "answered");
        } else {
            tracing::debug!(%method, path = uri.path(), status = status.as_u16(), "answered");
        }
    };
    match unexported {
        Some(context) => context.enter(log),
        None => span.in_scope(log),
    }
    let headers = response.headers_mut();
    headers.reserve(8);
    headers.insert(REQUEST_ID, id);
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // Pages set their own headers. API answers render nothing and must not be cached.
    headers
        .entry(header::CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

fn is_usable(id: &HeaderValue) -> bool {
    const BYTES_MAX: usize = 64;
    !id.is_empty()
        && id.len() <= BYTES_MAX
        && id.as_bytes().iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
}

/// The process's random bytes and a counter: unique, without a system call per request.
fn new_id() -> HeaderValue {
    static PROCESS: OnceLock<u64> = OnceLock::new();
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let process = PROCESS.get_or_init(|| {
        let mut bytes = [0; 8];
        SystemRandom::new()
            .fill(&mut bytes)
            .expect("the kernel's generator does not fail once the machine has started");
        u64::from_ne_bytes(bytes)
    });
    let text = format!("{process:016x}-{:x}", NUMBER.fetch_add(1, Ordering::Relaxed));
    HeaderValue::try_from(text).expect("hexadecimal digits and a hyphen make a header value")
}
