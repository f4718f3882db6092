//! The trail of administrators' actions.

use flashsale::{
    api::{AdminActionPage, AdminActionView},
    app::{Admin, App},
    domain::ActionId,
    http::{
        HandlerResult, PageQuery,
        axum::{Json, extract::State},
        endpoints::{Endpoint, get},
    },
};

pub(super) fn get_actions() -> Endpoint {
    get("/api/admin/actions", list)
        .called("list_actions", "Who changed what, and when; newest first.")
        .about("An action is stored in the same transaction as its change.")
        .admin()
        .paged::<ActionId>()
        .gives::<AdminActionPage>(200, "A page of them.")
}

async fn list(
    State(app): State<App>,
    admin: Admin,
    page: PageQuery<ActionId>,
) -> HandlerResult<Json<AdminActionPage>> {
    let actions = app.admin_actions(&admin, page.cursor, page.limit).await?;
    let full = actions.len() == page.limit as usize;
    let next_cursor = actions.last().filter(|_| full).map(|last| last.action_id);
    Ok(Json(AdminActionPage {
        actions: actions.into_iter().map(AdminActionView::from).collect(),
        next_cursor,
    }))
}

#[cfg(test)]
mod tests {
    use flashsale::{
        domain::ActionKind,
        testing::{START, Shop},
    };
    use serde_json::{Value, json};

    use crate::endpoints;

    /// Each kind is listed here, so that a new one must be tried.
    #[tokio::test]
    async fn every_kind_of_action_leaves_a_trail() {
        let shop = Shop::without_captchas().await;
        let (site, token) = (shop.serve(endpoints()), shop.admin_token().await);
        let call = async |method: &str, path: &str, body: Value| {
            shop.clock.advance_ms(1);
            site.call(method, path, Some(&token), body).await
        };
        let new = json!({ "title": "Watch", "price": 500, "stock": 3, "starts_at": START, "ends_at": START.plus_ms(60_000) });
        let sale =
            call("POST", "/api/admin/sales", new).await.expect(201).json()["sale_id"].clone();
        let sale = sale.as_str().unwrap();
        let change = json!({ "stock": 5, "title": "Watch" });
        call("PATCH", &format!("/api/admin/sales/{sale}"), change).await.expect(200);
        call("PATCH", &format!("/api/admin/sales/{sale}"), json!({ "stock": 0 })).await.expect(422);
        // Made by a command, which leaves no trail.
        let draw = shop.draw(1, |new| new.beacon = Some("drand round 7".to_owned())).await;
        let beacon = format!("/api/admin/sales/{draw}/beacon");
        call("PUT", &beacon, json!({ "value": "b9c3" })).await.expect(422);
        shop.app.ports.draws.close_entries(draw, shop.app.now()).await.unwrap();
        call("PUT", &beacon, json!({ "value": "b9c3" })).await.expect(204);
        let level = json!({ "level": "under_attack" });
        call("PUT", "/api/admin/challenge-level", level).await.expect(200);
        let ban = json!({ "kind": "address", "value": "198.51.100.1", "reason": "resells" });
        call("POST", "/api/admin/blacklist", ban).await.expect(201);
        let lift = "/api/admin/blacklist?kind=address&value=198.51.100.1";
        call("DELETE", lift, Value::Null).await.expect(204);
        call("DELETE", lift, Value::Null).await.expect(404);
        let order = shop.buy(&shop.shoppers(1).await[0], sale.parse().unwrap()).await;
        shop.work().await;
        let path = format!("/api/admin/orders/{order}/cancellation");
        call("POST", &path, json!({ "reason": "a test" })).await.expect(200);
        for (method, end) in [("POST", "/retry"), ("DELETE", "")] {
            shop.app.ports.queue.park(b"nonsense", "a test").await.unwrap();
            let parked = call("GET", "/api/admin/parked", Value::Null).await.json();
            let id = parked["parked"][0]["parked_id"].as_str().unwrap().to_owned();
            call(method, &format!("/api/admin/parked/{id}{end}"), Value::Null).await.expect(204);
        }

        let page = call("GET", "/api/admin/actions", Value::Null).await.expect(200).json();
        let actions = page["actions"].as_array().unwrap();
        let mut kinds: Vec<&str> =
            actions.iter().map(|action| action["action"].as_str().unwrap()).collect();
        kinds.reverse();
        assert_eq!(
            kinds,
            ActionKind::ALL.map(ActionKind::as_str),
            "each once, and nothing refused"
        );
        let created = actions.last().unwrap();
        assert_eq!(created["object"], sale);
        assert_eq!(created["address_prefix"], "192.0.2.0/24");
        let changed = &actions[actions.len() - 2];
        assert_eq!(changed["changes"], json!([{ "field": "stock", "from": "3", "to": "5" }]));
        assert!(!page.to_string().contains("198.51.100.1"), "a network, not an address");

        let first = call("GET", "/api/admin/actions?limit=5", Value::Null).await.json();
        let cursor = first["next_cursor"].as_str().unwrap();
        let path = format!("/api/admin/actions?limit=5&cursor={cursor}");
        let rest = call("GET", &path, Value::Null).await.json();
        assert_eq!((&rest["actions"][0], &rest["next_cursor"]), (&actions[5], &Value::Null));
        assert_eq!(rest["actions"].as_array().unwrap().len(), 4);
    }
}
