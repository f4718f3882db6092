//! A Lambda Runtime API that passes one event to a function and receives its answer: enough to test
//! that a function's binary runs as a Lambda function.

use std::{path::Path, process::Stdio, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Bytes,
    extract::Path as UrlPath,
    http::{HeaderMap, StatusCode},
    routing::{get, post},
};
use serde_json::Value;
use tokio::{net::TcpListener, process::Command, sync::Mutex, sync::mpsc};

/// Longest wait for a function to start and answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Starts the function's binary with embedded state in `data_dir`, passes it `event` and returns
/// its answer: `Ok(response)` or `Err(error)`, as posted. Kills the process afterwards.
///
/// # Panics
/// When the function can't be started, or does not answer in time.
pub async fn invoke(binary: &str, data_dir: &Path, event: &Value) -> Result<Value, Value> {
    let data_dir = data_dir.display().to_string();
    invoke_with(Path::new(binary), &[("FLASHSALE_DATA_DIR".to_owned(), data_dir)], event).await
}

/// As [`invoke`], with these environment variables.
///
/// # Panics
/// As [`invoke`].
pub async fn invoke_with(
    binary: &Path,
    variables: &[(String, String)],
    event: &Value,
) -> Result<Value, Value> {
    let (answered, mut answers) = mpsc::channel::<Result<Value, Value>>(2);
    let event = Arc::new(Mutex::new(Some(event.to_string())));
    let next = move || {
        let event = Arc::clone(&event);
        async move {
            let Some(event) = event.lock().await.take() else {
                // There is no second event: the call waits, as in Lambda.
                return std::future::pending().await;
            };
            let headers = HeaderMap::from_iter(
                [
                    ("lambda-runtime-aws-request-id", "8476a536-e9f4-11e8-9739-2dfe598c3fcd"),
                    // Absolute, in milliseconds since 1970: the end of the year 9999.
                    ("lambda-runtime-deadline-ms", "253402300799999"),
                    (
                        "lambda-runtime-invoked-function-arn",
                        "arn:aws:lambda:us-east-1:000000000000:function:test",
                    ),
                ]
                .map(|(name, value)| {
                    (name.parse().expect("a header name"), value.parse().expect("a header value"))
                }),
            );
            (headers, event)
        }
    };
    let answer = move |UrlPath((_, kind)): UrlPath<(String, String)>, body: Bytes| {
        let answered = answered.clone();
        async move {
            let json: Value = serde_json::from_slice(&body).expect("a function answers in JSON");
            let answer = if kind == "response" { Ok(json) } else { Err(json) };
            answered.send(answer).await.expect("the test waits for the answer");
            StatusCode::ACCEPTED
        }
    };
    let router = Router::new()
        .route("/2018-06-01/runtime/invocation/next", get(next))
        .route("/2018-06-01/runtime/invocation/{id}/{kind}", post(answer));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("a bound listener has an address");
    let server = tokio::spawn(axum::serve(listener, router).into_future());
    let mut child = Command::new(binary)
        .env("AWS_LAMBDA_RUNTIME_API", address.to_string())
        .env("AWS_LAMBDA_FUNCTION_NAME", "test")
        .env("AWS_LAMBDA_FUNCTION_VERSION", "1")
        .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128")
        .env("FLASHSALE_LOG", "error")
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("the function's binary starts");
    let answer = tokio::time::timeout(TIMEOUT, answers.recv())
        .await
        .expect("the function answers in time")
        .expect("the server is running");
    child.kill().await.expect("a child process can be killed");
    server.abort();
    answer
}
