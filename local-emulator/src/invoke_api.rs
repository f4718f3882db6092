//! Lambda's Invoke API and function URLs, for the AWS CLI, the SDKs and `cargo lambda invoke`, on
//! their own listener (`--invoke-listen`), which must have a loopback address and is refused in the
//! production profile. They are not served by the gateway: behind a proxy every request there seems
//! to come from this machine, and a caller of the Invoke API can do everything that the functions
//! can do.
//!
//! Signatures of requests are not checked: there are no AWS accounts here.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, Path, Query, Request},
    middleware::{Next, from_fn},
    response::{IntoResponse as _, Response},
    routing::{any, post},
};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use hyper::{
    HeaderMap, StatusCode,
    body::Bytes,
    header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER},
};
use serde_json::{Map, Value, json};
use tokio::{sync::Semaphore, time::Instant};

use crate::{
    host::{Host, Http, http},
    lambda::{Invocation, PAYLOAD_BYTES_MAX, Refusal, Reply, new_id, reference},
    loopback::names_listener,
};

/// Largest payload of an asynchronous invocation, as with Lambda.
const EVENT_BYTES_MAX: usize = 1024 * 1024;
/// Concurrent asynchronous invocations of one function, including those waiting for a retry.
const EVENTS_MAX: usize = 200;
/// An asynchronous invocation that is older than this is not retried, as with Lambda.
const EVENT_AGE_MAX: Duration = Duration::from_secs(6 * 3_600);
/// Pauses before the two retries of a failed asynchronous invocation.
const EVENT_PAUSES: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(120)];
/// Pauses before retries of a throttled one: doubled from the first to the last.
const THROTTLED_PAUSE_FIRST: Duration = Duration::from_secs(1);
const THROTTLED_PAUSE_LAST: Duration = Duration::from_secs(300);

/// The permits for asynchronous invocations, by function: each function has its own.
type Permits = Arc<Mutex<HashMap<String, Arc<Semaphore>>>>;

/// The routes, for a listener at this address.
pub fn router(host: &Host, address: SocketAddr) -> Router {
    let (invoking, permits) = (host.clone(), Permits::default());
    let invoke = move |Path(function): Path<String>,
                       Query(query): Query<HashMap<String, String>>,
                       headers: HeaderMap,
                       request: Request| {
        let (host, permits) = (invoking.clone(), Arc::clone(&permits));
        async move {
            let (name, qualifier) = reference(&function);
            let qualifier = query.get("Qualifier").map(String::as_str).or(qualifier);
            let known = host.has(name) && qualifier.is_none_or(|qualifier| qualifier == "$LATEST");
            let outcome = match known {
                true => invoke(host, &permits, name, &headers, request).await,
                false => Err(Failure::of(&Refusal::NoSuchFunction, &function)),
            };
            outcome.unwrap_or_else(Failure::into_response)
        }
    };
    let calling = host.clone();
    let url = move |request: Request| call_url(calling.clone(), request);
    Router::new()
        .route("/2015-03-31/functions/{function}/invocations", post(invoke))
        .route("/lambda-url/{function}", any(url.clone()))
        .route("/lambda-url/{function}/{*path}", any(url))
        .layer(from_fn(move |request: Request, next: Next| only_from_here(address, request, next)))
}

/// Passes on requests from this machine, unless they came through a proxy or from a page in a
/// browser. `Host` must name this listener, because another name there may be one that a page's
/// owner resolves to this machine (DNS rebinding).
async fn only_from_here(address: SocketAddr, request: Request, next: Next) -> Response {
    let peer = request
        .extensions()
        .get::<ConnectInfo<SocketAddr>>()
        .map(|ConnectInfo(peer)| peer.ip().to_canonical());
    let headers = request.headers();
    let from_elsewhere = ["forwarded", "x-forwarded-for", "x-real-ip", "via"]
        .iter()
        .any(|name| headers.contains_key(*name));
    let url = request.uri().path().starts_with("/lambda-url/");
    // Pages may call a function URL like any other address: the function checks its callers itself.
    let from_page =
        !url && ["origin", "sec-fetch-site"].iter().any(|name| headers.contains_key(*name));
    let by_address = names_listener(headers, request.uri(), address);
    if peer.is_some_and(|peer| peer.is_loopback()) && by_address && !from_elsewhere && !from_page {
        return next.run(request).await;
    }
    let why = "only callers on this machine may invoke functions, by the listener's address, neither through a proxy nor from a browser";
    Failure {
        status: StatusCode::FORBIDDEN,
        kind: "AccessDeniedException",
        message: why.to_owned(),
    }
    .into_response()
}

/// An error as Lambda's API answers it.
struct Failure {
    status: StatusCode,
    kind: &'static str,
    message: String,
}

impl Failure {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self { status, kind, message: message.into() }
    }

    fn of(refusal: &Refusal, function: &str) -> Self {
        match refusal {
            Refusal::NoSuchFunction => Self::new(
                StatusCode::NOT_FOUND,
                "ResourceNotFoundException",
                format!("Function not found: {function}"),
            ),
            Refusal::Throttled => Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                "TooManyRequestsException",
                "Rate Exceeded.",
            ),
            Refusal::Stopping => Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "ServiceException",
                "The emulator is about to end.",
            ),
        }
    }

    fn into_response(self) -> Response {
        let throttled = self.status == StatusCode::TOO_MANY_REQUESTS;
        let at_fault = if self.status.is_server_error() { "Service" } else { "User" };
        let mut body =
            json!({ "Type": at_fault, "Message": self.message, "message": self.message });
        if throttled {
            body["Reason"] = Value::from("ConcurrentInvocationLimitExceeded");
        }
        let mut response = (self.status, body.to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert("x-amzn-errortype", HeaderValue::from_static(self.kind));
        if throttled {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

async fn invoke(
    host: Host,
    permits: &Permits,
    function: &str,
    headers: &HeaderMap,
    request: Request,
) -> Result<Response, Failure> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let kind = header("x-amz-invocation-type").unwrap_or("RequestResponse");
    let payload = axum::body::to_bytes(request.into_body(), PAYLOAD_BYTES_MAX)
        .await
        .map_err(|_| too_large(PAYLOAD_BYTES_MAX))?;
    let payload = if payload.is_empty() { Bytes::from_static(b"{}") } else { payload };
    if let Err(error) = serde_json::from_slice::<serde::de::IgnoredAny>(&payload) {
        let message = format!("Could not parse request body into json: {error}");
        return Err(Failure::new(
            StatusCode::BAD_REQUEST,
            "InvalidRequestContentException",
            message,
        ));
    }
    let invocation = Invocation {
        payload,
        client_context: header("x-amz-client-context").map(client_context).transpose()?,
        trace_id: header("x-amzn-trace-id").map(str::to_owned),
        log_tail: header("x-amz-log-type") == Some("Tail"),
    };
    match kind {
        "RequestResponse" => {
            let reply = host
                .invoke(function, invocation)
                .await
                .map_err(|refusal| Failure::of(&refusal, function))?;
            Ok(replied(reply))
        }
        "Event" if invocation.payload.len() > EVENT_BYTES_MAX => Err(too_large(EVENT_BYTES_MAX)),
        "Event" => {
            let events = Arc::clone(
                permits
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .entry(function.to_owned())
                    .or_insert_with(|| Arc::new(Semaphore::new(EVENTS_MAX))),
            );
            let permit = events
                .try_acquire_owned()
                .map_err(|_| Failure::of(&Refusal::Throttled, function))?;
            let function = function.to_owned();
            let request_id = new_id(host.app().ports.random.as_ref());
            // Lambda passes the client context on in synchronous invocations only.
            let invocation = Invocation { client_context: None, ..invocation };
            tokio::spawn(async move {
                invoke_later(&host, &function, &invocation).await;
                drop(permit);
            });
            Ok(identified(StatusCode::ACCEPTED.into_response(), &request_id))
        }
        "DryRun" => Ok(StatusCode::NO_CONTENT.into_response()),
        _ => {
            let message = "X-Amz-Invocation-Type: expected RequestResponse, Event or DryRun";
            Err(Failure::new(StatusCode::BAD_REQUEST, "InvalidParameterValueException", message))
        }
    }
}

fn too_large(bytes_max: usize) -> Failure {
    let message =
        format!("Request must be smaller than {bytes_max} bytes for the InvokeFunction operation");
    Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestTooLargeException", message)
}

/// The client context from its header, base64 of a JSON object. It is passed on in a header too, so
/// it becomes one line, escaped to ASCII.
fn client_context(header: &str) -> Result<String, Failure> {
    let object = BASE64
        .decode(header)
        .ok()
        .and_then(|bytes| serde_json::from_slice::<Map<String, Value>>(&bytes).ok());
    let object = object.ok_or_else(|| {
        let message = "X-Amz-Client-Context: expected base64 of a JSON object";
        Failure::new(StatusCode::BAD_REQUEST, "InvalidRequestContentException", message)
    })?;
    let mut line = String::new();
    for char in Value::Object(object).to_string().chars() {
        if char.is_ascii() {
            line.push(char);
        } else {
            for unit in char.encode_utf16(&mut [0; 2]) {
                write!(line, "\\u{unit:04x}").expect("a String takes everything");
            }
        }
    }
    Ok(line)
}

fn identified(mut response: Response, request_id: &str) -> Response {
    let id = HeaderValue::try_from(request_id).expect("a UUID makes a header value");
    response.headers_mut().insert("x-amzn-requestid", id);
    response
}

fn replied(reply: Reply) -> Response {
    let failed = reply.result.is_err();
    let payload = reply.result.unwrap_or_else(|error| error.payload);
    let mut response = identified(Body::from(payload).into_response(), &reply.request_id);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert("x-amz-executed-version", HeaderValue::from_static("$LATEST"));
    if failed {
        headers.insert("x-amz-function-error", HeaderValue::from_static("Unhandled"));
    }
    if let Some(log) = reply.log {
        let log = HeaderValue::try_from(BASE64.encode(log)).expect("base64 makes a header value");
        headers.insert(HeaderName::from_static("x-amz-log-result"), log);
    }
    response
}

/// An asynchronous invocation: retried as Lambda does, then given up with a line in the log.
async fn invoke_later(host: &Host, function: &str, invocation: &Invocation) {
    let began = Instant::now();
    let mut pauses = EVENT_PAUSES.into_iter();
    let mut throttled = THROTTLED_PAUSE_FIRST;
    loop {
        let pause = match host.invoke(function, invocation.clone()).await {
            Ok(Reply { result: Ok(_), .. }) => return,
            Ok(Reply { result: Err(error), .. }) => match pauses.next() {
                Some(pause) => {
                    tracing::warn!(
                        function,
                        error = error.brief(),
                        "an event failed; it is retried in {} s",
                        pause.as_secs()
                    );
                    pause
                }
                None => {
                    return tracing::error!(
                        function,
                        error = error.brief(),
                        "an event failed for the last time and is given up"
                    );
                }
            },
            Err(Refusal::Throttled) if began.elapsed() < EVENT_AGE_MAX => {
                let pause = throttled;
                throttled = (throttled * 2).min(THROTTLED_PAUSE_LAST);
                pause
            }
            Err(refusal) => return tracing::error!(function, %refusal, "an event is given up"),
        };
        tokio::time::sleep(pause).await;
    }
}

/// `/lambda-url/NAME/rest`: the function sees `/rest`.
async fn call_url(host: Host, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let rest = path.strip_prefix("/lambda-url/").unwrap_or_default();
    let (function, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    let path_parameters = BTreeMap::new();
    http(&host, Http { function, path, route: None, path_parameters, request }).await
}
