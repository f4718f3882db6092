//! `invoke`: one function, once, with an event as Lambda gives it; prints the answer as Lambda returns it.

use std::{io::Read as _, process::ExitCode};

use anyhow::Context as _;
use axum::{Router, body::Body};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use flashsale::{app::App, http};
use lambda_http::request;
use serde_json::{Map, Value, json};
use tower::ServiceExt as _;

use crate::cli;

pub async fn run(app: &App, function: &str, file: &str) -> anyhow::Result<ExitCode> {
    let text = read(file)?;
    let router = match function {
        "captcha" => captcha_function::router(app.clone()),
        "login" => login::router(app.clone()),
        "sales" => sales::router(app.clone()),
        "seckill" => seckill::router(app.clone()),
        "order-status" => order_status::router(app.clone()),
        "admin" => admin::router(app.clone()),
        "order-worker" => {
            let event = serde_json::from_str(&text).context("--event: not a RabbitMqEvent")?;
            return finished(order_worker::handle(app.clone(), event).await);
        }
        "sweeper" => {
            let event = serde_json::from_str(&text).context("--event: not an EventBridge event")?;
            return finished(sweeper::handle(app.clone(), event).await);
        }
        other => {
            anyhow::bail!("no function {other:?}: expected captcha, login, sales, seckill, order-status, admin, order-worker or sweeper")
        }
    };
    let answer = http_event(router, &text).await?;
    cli::say(&serde_json::to_string(&answer)?)?;
    Ok(ExitCode::SUCCESS)
}

fn read(file: &str) -> anyhow::Result<String> {
    if file == "-" {
        let mut text = String::new();
        std::io::stdin().lock().read_to_string(&mut text).context("--event -")?;
        return Ok(text);
    }
    std::fs::read_to_string(file).with_context(|| format!("--event {file}"))
}

fn finished(outcome: Result<(), flashsale::lambda::Error>) -> anyhow::Result<ExitCode> {
    outcome.map_err(|error| anyhow::anyhow!("the function failed: {error}"))?;
    cli::say("null")?;
    Ok(ExitCode::SUCCESS)
}

async fn http_event(router: Router, text: &str) -> anyhow::Result<Value> {
    let request = request::from_str(text).context("--event: not an event of an API Gateway HTTP API (payload version 2)")?;
    let request = request.map(|body| Body::from(body.to_vec()));
    let Ok(response) = http::finish(router).oneshot(request).await;
    let (parts, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, usize::MAX).await?;
    let (body, encoded) = match std::str::from_utf8(&bytes) {
        Ok(text) => (text.to_owned(), false),
        Err(_) => (BASE64.encode(&bytes), true),
    };
    let mut headers = Map::new();
    let mut cookies = Vec::new();
    for (name, value) in &parts.headers {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        if name == "set-cookie" {
            cookies.push(value);
        } else {
            headers.insert(name.to_string(), Value::String(value));
        }
    }
    Ok(json!({ "statusCode": parts.status.as_u16(), "headers": headers, "cookies": cookies, "body": body, "isBase64Encoded": encoded }))
}
