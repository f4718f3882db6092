//! Runs the binary as Lambda does.

use flashsale::testing::{order_id, runtime_api::invoke};
use serde_json::{Value, json};

#[tokio::test]
async fn a_batch_of_amazon_mq_is_worked_off() {
    let dir = std::env::temp_dir().join(format!("flashsale-order-worker-{}", order_id()));
    // The order's sale does not exist, so the order is recorded as rejected, and the invocation
    // succeeds.
    let message = "eyJ2IjoxLCJvcmRlcnMiOlt7Im9yZGVyX2lkIjoiMDFhMjA0MGYtYmM3Yy03NzAxLTgyODktMjBmNzAzODJhYzM0Iiwic2FsZV9pZCI6IjAxYT\
                   IwNDBmLWFmNjMtN2I5MC04YzY2LWMyNTJjNDk2ODEwMSIsInVzZXJfaWQiOiIwMWEyMDQwZi1hOGQzLTdhYzQtYTgyYy1kYWRmMTBiZjY0YWMi\
                   LCJwcmljZSI6MTk5OSwiY3VycmVuY3kiOiJVU0QiLCJhZG1pdHRlZF9hdCI6IjIwMjYtMTEtMjJUMTY6MjE6MTEuMDQ0WiJ9XX0=";
    let event = json!({
        "eventSource": "aws:rmq",
        "eventSourceArn": "arn:aws:mq:us-east-1:000000000000:broker:local:b-1",
        "rmqMessagesByQueue": { "flashsale.orders::/": [{
            "basicProperties": { "bodySize": 256, "deliveryMode": 2, "priority": 0 }, "data": message, "redelivered": false,
        }] },
    });
    let answer = invoke(env!("CARGO_BIN_EXE_order-worker"), &dir, &event).await.expect("no error");
    assert_eq!(answer, Value::Null);
    std::fs::remove_dir_all(dir).unwrap();
}
