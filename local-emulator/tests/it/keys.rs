//! Changes the signing keys of two instances during a sale, in the order of infra/OPERATE.md: until
//! the old key is removed, no user is signed out and no ticket is refused.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::json;

use crate::{
    client::Client,
    emulator::{Emulator, Place},
    shop::follow,
};

const PASSWORD: &str = "correct horse";

/// One instance with these keys, the first of which signs.
fn start(place: &Place, keys: &[&str]) -> Emulator {
    let list = keys.iter().map(|key| format!("\"{key}\"")).collect::<Vec<_>>().join(", ");
    let file = place
        .path()
        .join(format!("{}.toml", keys.iter().map(|key| &key[..3]).collect::<Vec<_>>().join("-")));
    std::fs::write(&file, format!("session_keys = [{list}]\nticket_keys = [{list}]\n")).unwrap();
    place.start(&["--no-demo", "--config", file.to_str().unwrap()])
}

async fn sign_up(client: &Client, phone: &str) -> String {
    let account = json!({ "phone": phone, "password": PASSWORD });
    client.post("/api/users", None, account.clone()).await.expect(201);
    client.post("/api/sessions", None, account).await.expect(201).text("token")
}

async fn ticket(client: &Client, sale: &str, token: &str) -> String {
    client
        .post(&format!("/api/sales/{sale}/tickets"), Some(token), json!({}))
        .await
        .expect(201)
        .text("ticket")
}

async fn knows(client: &Client, token: &str) -> bool {
    client.get("/api/sessions/current", Some(token)).await.status == 200
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn keys_are_changed_while_a_sale_runs() {
    let place = Place::servers();
    let sale = place.sale(10);
    let (old, new) =
        (format!("old:{}", STANDARD.encode([1; 32])), format!("new:{}", STANDARD.encode([2; 32])));
    let (old, new) = (old.as_str(), new.as_str());
    let orders = format!("/api/sales/{sale}/orders");

    // Before: both sign with the old key.
    let (mut a, mut b) = (start(&place, &[old]), start(&place, &[old]));
    let early = sign_up(&a.client, "+12015550101").await;
    let early_ticket = ticket(&b.client, &sale, &early).await;

    // 1: one instance after the other gets the new key for verification.
    a.stop();
    a = start(&place, &[old, new]);
    assert!(knows(&a.client, &early).await && knows(&b.client, &early).await);
    // This is a separate step because an instance without the new key refuses what another signs
    // with it.
    let hasty = start(&place, &[new, old]);
    let too_early = sign_up(&hasty.client, "+12015550102").await;
    assert!(!knows(&b.client, &too_early).await, "an instance took a key that it does not have");
    hasty.stop();
    b.stop();
    b = start(&place, &[old, new]);

    // 2: one instance after the other signs with it; in between they sign with different keys, and
    // both verify both.
    a.stop();
    a = start(&place, &[new, old]);
    let late = sign_up(&a.client, "+12015550103").await;
    for token in [&early, &late, &too_early] {
        assert!(knows(&a.client, token).await && knows(&b.client, token).await);
    }
    let by_new = ticket(&a.client, &sale, &late).await;
    b.client.post(&orders, Some(&late), json!({ "ticket": by_new })).await.expect(202);
    let accepted = a.client.post(&orders, Some(&early), json!({ "ticket": early_ticket })).await;
    b.stop();
    b = start(&place, &[new, old]);
    assert!(knows(&b.client, &early).await);
    let order_id = accepted.expect(202).text("order_id");
    follow(std::slice::from_ref(&b.client), &order_id, &early).await;
    let of_early = b.client.get("/api/orders", Some(&early)).await.expect(200);
    assert_eq!(of_early.json()["orders"].as_array().unwrap().len(), 1);

    // 3: after the old key is removed, only what it signed is refused.
    a.stop();
    b.stop();
    a = start(&place, &[new]);
    assert!(!knows(&a.client, &early).await, "the old key still counts");
    assert!(knows(&a.client, &late).await);
    a.client
        .post(&orders, Some(&late), json!({ "ticket": early_ticket }))
        .await
        .expect_problem(403, "bad-ticket");
    // A user that was signed out signs in again and finds the order.
    let back = a
        .client
        .post("/api/sessions", None, json!({ "phone": "+12015550101", "password": PASSWORD }))
        .await
        .expect(201)
        .text("token");
    assert_eq!(
        a.client.get("/api/orders", Some(&back)).await.expect(200).json()["orders"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    a.stop();
}
