//! The functions called in this process.

use axum::body::Body;
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use flashsale::{
    app::App,
    http::{self, Routes, TraceSource},
    lambda::Error,
};
use hyper::{HeaderMap, body::Bytes};
use lambda_http::request;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

use crate::lambda::{FunctionError, HTTP_FUNCTIONS, Refusal, http_function};

/// The routes of all HTTP functions.
pub fn http_routes(app: &App) -> Routes {
    let endpoints = HTTP_FUNCTIONS.iter().map(|function| (function.endpoints)());
    endpoints.fold(Routes::default(), |routes, endpoints| routes.with(endpoints, app))
}

/// Runs a function's work in its own task, so that a panic fails the function and not the emulator.
pub async fn guarded<T: Send + 'static>(
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, String> {
    match tokio::spawn(work).await {
        Ok(outcome) => outcome.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

/// Calls a function with an event.
pub async fn invoke(
    app: &App,
    name: &str,
    payload: Bytes,
) -> Result<Result<Bytes, FunctionError>, Refusal> {
    let app = app.clone();
    Ok(match name {
        "order-worker" => match read(&payload) {
            Ok(event) => outcome(guarded(order_worker::handle(app, event)).await),
            Err(error) => Err(error),
        },
        "sweeper" => match read(&payload) {
            Ok(event) => outcome(guarded(sweeper::handle(app, event)).await),
            Err(error) => Err(error),
        },
        _ => {
            let function = http_function(name).ok_or(Refusal::NoSuchFunction)?;
            http_event((function.endpoints)().routes(&app), &payload).await
        }
    })
}

fn read<E: DeserializeOwned>(payload: &[u8]) -> Result<E, FunctionError> {
    serde_json::from_slice(payload).map_err(|error| failed("event", &error.to_string()))
}

fn outcome(outcome: Result<impl Serialize, String>) -> Result<Bytes, FunctionError> {
    let outcome =
        outcome.and_then(|done| serde_json::to_vec(&done).map_err(|error| error.to_string()));
    outcome.map(Bytes::from).map_err(|error| failed("function", &error))
}

fn failed(kind: &str, message: &str) -> FunctionError {
    FunctionError::reported(Bytes::from(
        json!({ "errorType": kind, "errorMessage": message }).to_string(),
    ))
}

async fn http_event(routes: Routes, payload: &[u8]) -> Result<Bytes, FunctionError> {
    let text = String::from_utf8_lossy(payload).into_owned();
    // In its own task, as above: an event may make even the code that reads it panic.
    let answering = tokio::spawn(async move {
        let request = request::from_str(&text).map_err(|error| {
            failed(
                "event",
                &format!("not an event of an API Gateway HTTP API (payload version 2): {error}"),
            )
        })?;
        let request = request.map(|body| Body::from(body.to_vec()));
        let next = |request| routes.answer(request);
        let response = http::answer(&TraceSource::Gateway, request, next).await;
        let (parts, body) = response.into_parts();
        Ok((parts, axum::body::to_bytes(body, usize::MAX).await))
    });
    let (parts, body) = answering.await.map_err(|error| failed("panic", &error.to_string()))??;
    let bytes = body.map_err(|error| failed("body", &error.to_string()))?;
    let (body, encoded) = match std::str::from_utf8(&bytes) {
        Ok(text) => (text.to_owned(), false),
        Err(_) => (BASE64.encode(&bytes), true),
    };
    let mut headers = Map::new();
    for name in parts.headers.keys().filter(|name| *name != "set-cookie") {
        headers.insert(
            name.to_string(),
            Value::String(values(&parts.headers, name.as_str()).join(",")),
        );
    }
    let cookies = values(&parts.headers, "set-cookie");
    let answer = json!({ "statusCode": parts.status.as_u16(), "headers": headers, "cookies": cookies, "body": body, "isBase64Encoded": encoded });
    Ok(Bytes::from(answer.to_string()))
}

fn values(headers: &HeaderMap, name: &str) -> Vec<String> {
    headers
        .get_all(name)
        .iter()
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        .collect()
}
