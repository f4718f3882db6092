//! Runs the binary as Lambda does.

use flashsale::testing::{order_id, runtime_api::invoke};
use serde_json::{Value, json};

#[tokio::test]
async fn an_api_gateway_event_is_answered() {
    let dir = std::env::temp_dir().join(format!("flashsale-sales-{}", order_id()));
    let event = json!({
        "version": "2.0", "routeKey": "$default", "rawPath": "/api/sales", "rawQueryString": "limit=5",
        "headers": { "host": "shop.example", "x-request-id": "abc-1" }, "isBase64Encoded": false,
        "requestContext": {
            "accountId": "0", "apiId": "a", "domainName": "shop.example", "domainPrefix": "shop", "requestId": "r", "routeKey": "$default",
            "stage": "$default", "time": "22/Nov/2026:00:00:00 +0000", "timeEpoch": 1_795_305_600_000_u64,
            "http": { "method": "GET", "path": "/api/sales", "protocol": "HTTP/1.1", "sourceIp": "192.0.2.1", "userAgent": "test" },
        },
    });
    let answer = invoke(env!("CARGO_BIN_EXE_sales"), &dir, &event).await.expect("no error");
    assert_eq!(answer["statusCode"], 200);
    assert_eq!(answer["headers"]["x-request-id"], "abc-1");
    let body: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
    assert_eq!(body, json!({ "sales": [], "next_cursor": null }));
    std::fs::remove_dir_all(dir).unwrap();
}
