//! A Lambda function that does what its event says, good or bad, for the tests of the emulator's Lambda service.
//!
//! Events: `{"echo": …}`, `{"sleep_ms": 5}`, `{"exit": 3}`, `{"kill": true}`, `{"panic": "…"}`, `{"error": "…"}`,
//! `{"allocate_mb": 9}`, `{"print": "…"}`, `{"touch": "file"}`, `{"bytes": 9}`, `{"context": true}`. An HTTP event is echoed as the body of a 200;
//! with the query `answer=…` that JSON is the answer, with `do=…` that JSON is the event.

use std::{io::Write as _, process, time::Duration};

use lambda_runtime::{Error, LambdaEvent, run_concurrent, service_fn};
use serde_json::{Value, json};

#[tokio::main]
async fn main() -> Result<(), Error> {
    match std::env::var("PUPPET_START").as_deref() {
        Ok("exit") => process::exit(7),
        Ok("hang") => tokio::time::sleep(Duration::from_secs(3_600)).await,
        // Can't start until the file is there.
        Ok(file) if !std::path::Path::new(file).exists() => process::exit(8),
        _ => {}
    }
    run_concurrent(service_fn(handle)).await
}

async fn handle(event: LambdaEvent<Value>) -> Result<Value, Error> {
    let LambdaEvent { payload, context } = event;
    if !payload["requestContext"].is_null() {
        let parameter = |name: &str| {
            payload["queryStringParameters"][name].as_str().map(serde_json::from_str::<Value>)
        };
        return match (parameter("answer"), parameter("do")) {
            (Some(answer), _) => Ok(answer?),
            (None, Some(order)) => obey(&order?)
                .await
                .map(|done| json!({ "statusCode": 200, "body": done.to_string() })),
            (None, None) => Ok(
                json!({ "statusCode": 200, "cookies": ["a=1; Path=/", "b=2"], "body": payload.to_string() }),
            ),
        };
    }
    if payload["context"] == true {
        return Ok(json!({
            "request_id": context.request_id, "deadline_ms": context.deadline, "arn": context.invoked_function_arn,
            "trace": context.xray_trace_id, "client_context": context.client_context,
            "function": context.env_config.function_name, "memory": context.env_config.memory, "pid": process::id(),
            "of_the_product": std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("FLASHSALE_")).count(),
            "runtime_api": std::env::var("AWS_LAMBDA_RUNTIME_API").ok(),
            "colour": std::env::var("PUPPET_COLOUR").ok(), "path": std::env::var("CARGO_MANIFEST_DIR").ok(),
        }));
    }
    obey(&payload).await
}

async fn obey(order: &Value) -> Result<Value, Error> {
    if let Some(line) = order["print"].as_str() {
        // Standard output is one of the two places that a function's log comes from.
        let mut out = std::io::stdout().lock();
        out.write_all(format!("{line}\n").as_bytes())?;
        out.flush()?;
    }
    if let Some(file) = order["touch"].as_str() {
        std::fs::OpenOptions::new().create(true).append(true).open(file)?.write_all(b"x")?;
    }
    if let Some(ms) = order["sleep_ms"].as_u64() {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
    if let Some(code) = order["exit"].as_i64() {
        process::exit(code.try_into()?);
    }
    if order["kill"] == true {
        process::abort();
    }
    if let Some(megabytes) = order["allocate_mb"].as_u64() {
        let mut memory = Vec::<u8>::new();
        memory.try_reserve_exact(usize::try_from(megabytes)? * 1024 * 1024)?;
        memory.resize(memory.capacity(), 1);
        return Ok(json!(memory.iter().map(|byte| u64::from(*byte)).sum::<u64>()));
    }
    if let Some(message) = order["error"].as_str() {
        return Err(message.into());
    }
    assert!(order["panic"].is_null(), "told to panic");
    if let Some(bytes) = order["bytes"].as_u64() {
        return Ok(Value::from("x".repeat(usize::try_from(bytes)?)));
    }
    Ok(order["echo"].clone())
}
