//! HTTP for functions that run as processes: requests become events, and answers responses.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{ConnectInfo, Request},
    response::{IntoResponse as _, Response},
};
use flashsale::{
    http::{BODY_BYTES_MAX, Matched, RequestId, Routes},
    logging::OncePerSecond,
    problem::Problem,
};
use hyper::{
    body::Bytes,
    header::{HOST, HeaderMap},
    http::{request::Parts, uri::Authority},
};

use super::Host;
use crate::lambda::{
    Fleet, HttpEvent, Invocation, PAYLOAD_BYTES_MAX, Refusal, Reply, answer_to_response,
    http_function, routes,
};

/// Largest body for a function that is not the product's: as base64 and with the rest of the event,
/// it still fits into a payload.
const FOREIGN_BODY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Timeout for receiving a whole body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Limits log lines: a failing function fails for many callers at once.
static LINES: OncePerSecond = OncePerSecond::new();
/// How long a throttled caller must wait before a retry.
const THROTTLED_MS: u64 = 1_000;

/// The routes of all HTTP functions, the product's and those of the configuration.
pub fn http_routes(host: &Host, fleet: &Fleet) -> Routes {
    let all = routes().chain(fleet.foreign_routes());
    all.fold(Routes::default(), |routes, (function, path)| {
        let (host, function): (Host, Arc<str>) = (host.clone(), function.into());
        routes.with_any(path, move |request| {
            let (host, function) = (host.clone(), Arc::clone(&function));
            Box::pin(async move { routed(&host, &function, request).await })
        })
    })
}

/// Calls the function of a route.
async fn routed(host: &Host, function: &str, mut request: Request) -> Response {
    let Some(matched) = request.extensions_mut().remove::<Matched>() else {
        return Problem::NotFound.into_response();
    };
    let path = request.uri().path().to_owned();
    let Some(parameters) = matched.parameters(&path) else {
        return Problem::NotFound.into_response();
    };
    let parameters = parameters.into_iter().map(|(name, value)| (name.to_owned(), value));
    let call = Http {
        function,
        path: &path,
        route: Some(matched.pattern()),
        path_parameters: parameters.collect(),
        request,
    };
    http(host, call).await
}

/// A request for a function.
pub struct Http<'a> {
    pub function: &'a str,
    pub path: &'a str,
    pub route: Option<&'a str>,
    pub path_parameters: BTreeMap<String, String>,
    pub request: Request,
}

/// Calls a function with a request and returns its answer as a response.
pub async fn http(host: &Host, call: Http<'_>) -> Response {
    let function = call.function;
    match answer(host, call).await {
        Ok(response) => response,
        Err(problem) => {
            tracing::debug!(function, slug = problem.slug(), "no answer");
            problem.into_response()
        }
    }
}

async fn answer(host: &Host, call: Http<'_>) -> Result<Response, Problem> {
    let Http { function, path, route, path_parameters, request } = call;
    let (parts, body) = request.into_parts();
    let (peer, id) =
        (parts.extensions.get::<ConnectInfo<SocketAddr>>(), parts.extensions.get::<RequestId>());
    let (Some(ConnectInfo(peer)), Some(RequestId(id))) = (peer.copied(), id.cloned()) else {
        tracing::error!("a request came without the address of its sender, or without its id");
        return Err(Problem::Internal);
    };
    let trace_id = trace(&parts.headers);
    let authority = authority(&parts)?;
    // The product's functions refuse bodies over `BODY_BYTES_MAX` themselves; here they are refused
    // before all is read.
    let bytes_max =
        if http_function(function).is_some() { BODY_BYTES_MAX } else { FOREIGN_BODY_BYTES_MAX };
    let body = tokio::time::timeout(BODY_TIMEOUT, axum::body::to_bytes(body, bytes_max))
        .await
        .map_err(|_| Problem::Invalid {
            field: "body".to_owned(),
            expected: "all of it within 10 seconds".to_owned(),
        })?
        .map_err(|_| Problem::BodyTooLarge)?;
    let request = Request::from_parts(parts, body);
    let event = HttpEvent {
        request: &request,
        path,
        route,
        path_parameters,
        host: &authority,
        source: peer.ip(),
        request_id: id.to_str().unwrap_or_default(),
        trace: request.extensions().get().copied(),
        now: host.app().now(),
    };
    let payload = event.to_json().map_err(|error| {
        tracing::error!(%error, function, "a request can't be made into an event");
        Problem::Internal
    })?;
    drop(request);
    if payload.len() > PAYLOAD_BYTES_MAX {
        return Err(Problem::BodyTooLarge);
    }
    let reply = host
        .invoke(function, Invocation { payload, trace_id, ..Invocation::default() })
        .await
        .map_err(refused)?;
    let payload = answered(function, reply)?;
    answer_to_response(&payload).map(|response| response.map(Body::from)).map_err(|error| {
        if let Some(left_out) = LINES.pass() {
            tracing::warn!(function, error, left_out, "the function's answer is invalid");
        }
        Problem::FunctionFailed
    })
}

fn answered(function: &str, reply: Reply) -> Result<Bytes, Problem> {
    reply.result.map_err(|error| {
        if let Some(left_out) = LINES.pass() {
            tracing::warn!(function, error = error.brief(), left_out, "failed");
        }
        if error.timed_out { Problem::FunctionTimeout } else { Problem::FunctionFailed }
    })
}

fn refused(refusal: Refusal) -> Problem {
    match refusal {
        Refusal::NoSuchFunction => Problem::NotFound,
        Refusal::Throttled => {
            Problem::RateLimited { name: "concurrency", quota: None, retry_after_ms: THROTTLED_MS }
        }
        Refusal::Stopping => Problem::Unavailable { retry_after_ms: THROTTLED_MS },
    }
}

/// The authority in the request's address, or in `Host`. It must be valid, because functions build
/// urls from it.
fn authority(parts: &Parts) -> Result<Authority, Problem> {
    let given = match (parts.uri.authority(), parts.headers.get(HOST)) {
        (Some(authority), _) => return Ok(authority.clone()),
        (None, Some(host)) => Authority::try_from(host.as_bytes())
            .ok()
            .filter(|authority| !authority.host().is_empty()),
        (None, None) => Some(Authority::from_static("localhost")),
    };
    given.ok_or_else(|| Problem::Invalid {
        field: "Host".to_owned(),
        expected: "a name or an address, and a port".to_owned(),
    })
}

fn trace(headers: &HeaderMap) -> Option<String> {
    headers.get("x-amzn-trace-id").and_then(|value| value.to_str().ok()).map(str::to_owned)
}
