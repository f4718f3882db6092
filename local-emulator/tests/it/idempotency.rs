//! `Idempotency-Key`: a request that is repeated because its answer was lost has its effect only
//! once.

use axum::body::Body;
use hyper::{Request, header};
use serde_json::{Value, json};

use crate::{
    api::{ADMIN, Shop},
    client::Answer,
    emulator::Place,
};

async fn create(shop: &Shop, token: &str, key: &str, sale: &Value) -> Answer {
    let request = Request::post(format!("{}/api/admin/sales", shop.client().base))
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .header(header::CONTENT_TYPE, "application/json")
        .header("Idempotency-Key", key)
        .body(Body::from(sale.to_string()))
        .unwrap();
    shop.client().raw(request).await.unwrap()
}

async fn a_sale_is_created_once_for_a_key(place: Place) {
    let shop = Shop::open(place);
    let (client, admin) = (shop.client(), shop.sign_in(ADMIN).await);
    let sale = json!({
        "title": "Watch", "price": 500, "currency": "CNY", "stock": 3,
        "starts_at": "2090-01-01T00:00:00Z", "ends_at": "2091-01-01T00:00:00Z",
    });
    let key = "8e03978e-40d5-43dd-bc93-6894a57f9324";
    let first = create(&shop, &admin, key, &sale).await.expect(201);
    let path = format!("/api/admin/sales/{}", first.text("sale_id"));
    client.call("PATCH", &path, Some(&admin), json!({ "stock": 7 })).await.expect(200);
    // Also with the fields in another order and explicit defaults, and after a change of the sale.
    let mut same = json!({ "description": "", "original_price": null });
    same.as_object_mut().unwrap().extend(sale.as_object().unwrap().clone());
    for body in [&sale, &same] {
        let again = create(&shop, &admin, key, body).await.expect(201);
        assert_eq!(
            (again.json(), &again.headers["location"]),
            (first.json(), &first.headers["location"])
        );
    }
    assert_eq!(
        client.get(&format!("/api/sales/{}", first.text("sale_id")), None).await.expect(200).json()
            ["stock"],
        7
    );

    let mut other = sale.clone();
    other["stock"] = json!(4);
    let refused = create(&shop, &admin, key, &other).await.expect_problem(422, "invalid");
    assert_eq!(refused.text("field"), "Idempotency-Key");
    assert_ne!(
        create(&shop, &admin, "another", &sale).await.expect(201).text("sale_id"),
        first.text("sale_id")
    );
    for bad in ["", "two words", &"k".repeat(65)] {
        assert_eq!(
            create(&shop, &admin, bad, &sale).await.expect_problem(422, "invalid").text("field"),
            "Idempotency-Key"
        );
    }
    let watches = client.get("/api/sales", None).await.expect(200).json()["sales"]
        .as_array()
        .unwrap()
        .clone();
    assert_eq!(watches.iter().filter(|sale| sale["title"] == "Watch").count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sale_is_created_once_for_a_key_embedded() {
    a_sale_is_created_once_for_a_key(Place::embedded()).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn a_sale_is_created_once_for_a_key_in_processes() {
    a_sale_is_created_once_for_a_key(Place::processes()).await;
}
