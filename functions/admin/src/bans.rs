//! The blacklist: bans of users, phones, addresses and networks.

use flashsale::{
    api::{BanOffset, BanPage, BanPreview, BanView, LiftBan, NewBan},
    app::{Admin, App},
    http::{
        Body, HandlerResult, PageQuery,
        axum::{
            Json,
            extract::{Query, State, rejection::QueryRejection},
            http::StatusCode,
        },
        endpoints::{Endpoint, delete, get, post},
    },
    problem::{Problem, ProblemKind},
};

pub(super) fn get_blacklist() -> Endpoint {
    get("/api/admin/blacklist", bans)
        .called("list_bans", "The bans that hold, newest first.")
        .admin()
        .paged::<BanOffset>()
        .gives::<BanPage>(200, "A page of them.")
}

async fn bans(
    State(app): State<App>,
    admin: Admin,
    page: PageQuery<BanOffset>,
) -> HandlerResult<Json<BanPage>> {
    let offset = page.cursor.map_or(0, |BanOffset(offset)| offset);
    let bans = app.bans(&admin, offset, page.limit).await?;
    let full = bans.len() == page.limit as usize;
    let next_cursor = full.then(|| (offset + page.limit).to_string());
    Ok(Json(BanPage { bans, next_cursor }))
}

pub(super) fn post_blacklist() -> Endpoint {
    post("/api/admin/blacklist", ban)
        .called("ban", "Bans a user, a phone number, an address or a network.")
        .about("A ban of the same again replaces the first.")
        .admin()
        .body::<NewBan>()
        .gives::<BanView>(201, "The ban, `value` in its normal form.")
}

async fn ban(
    State(app): State<App>,
    admin: Admin,
    Body(new): Body<NewBan>,
) -> HandlerResult<(StatusCode, Json<BanView>)> {
    Ok((StatusCode::CREATED, Json(app.put_ban(&admin, new).await?)))
}

/// What can be banned.
const KINDS: &[&str] = &["user", "address", "network", "phone"];

pub(super) fn get_preview() -> Endpoint {
    get("/api/admin/blacklist/preview", preview)
        .called("preview_ban", "Whom a ban would hit, as far as the ledger knows.")
        .admin()
        .query("kind", "What would be banned.", KINDS)
        .query("value", "The id, the address, the prefix or the phone number.", &[])
        .gives::<BanPreview>(200, "The numbers of users, orders and sessions.")
}

async fn preview(
    State(app): State<App>,
    admin: Admin,
    query: Result<Query<LiftBan>, QueryRejection>,
) -> HandlerResult<Json<BanPreview>> {
    let LiftBan { kind, value } = subject(query)?;
    Ok(Json(app.preview_ban(&admin, &kind, &value).await?))
}

/// Reads the subject of a ban from the query.
fn subject(query: Result<Query<LiftBan>, QueryRejection>) -> Result<LiftBan, Problem> {
    query.map(|Query(named)| named).map_err(|_| {
        let expected = format!("?kind={}&value=...", KINDS.join("|"));
        Problem::Invalid { field: "query".to_owned(), expected }
    })
}

pub(super) fn delete_blacklist() -> Endpoint {
    delete("/api/admin/blacklist", lift)
        .called("lift_ban", "Lifts a ban.")
        .admin()
        .query("kind", "What is banned.", KINDS)
        .query("value", "The id, the address, the prefix or the phone number.", &[])
        .gives_nothing("The ban holds no more.")
        .refuses(&[ProblemKind::NotFound])
}

async fn lift(
    State(app): State<App>,
    admin: Admin,
    query: Result<Query<LiftBan>, QueryRejection>,
) -> HandlerResult<StatusCode> {
    let LiftBan { kind, value } = subject(query)?;
    app.lift_ban(&admin, &kind, &value).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    use flashsale::{
        app::Caller,
        testing::{self, START, Shop},
    };
    use serde_json::{Value, json};

    use crate::{
        endpoints,
        tests::{invalid, new_ban},
    };

    #[tokio::test]
    async fn a_ban_that_can_not_be_is_refused() {
        let shop = Shop::without_captchas().await;
        let (site, token) = (shop.serve(endpoints()), shop.admin_token().await);
        let list = "/api/admin/blacklist";
        for (change, field) in [
            (json!({ "kind": "group" }), "kind"),
            (json!({ "kind": "user", "value": "x" }), "value"),
            (json!({ "kind": "phone" }), "value"),
            (json!({ "value": "300.1.2.3" }), "value"),
            (json!({ "kind": "network" }), "value"),
            (json!({ "kind": "network", "value": "198.51.0.0/16" }), "value"),
            (json!({ "reason": " " }), "reason"),
            (json!({ "reason": "x".repeat(501) }), "reason"),
            (json!({ "expires_at": START }), "expires_at"),
            (json!({ "until": START }), "until"),
        ] {
            let mut new = new_ban();
            new.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            invalid(site.post(list, Some(&token), new).await, field);
        }
        for query in ["", "?kind=user", "?kind=user&value=x&reason=y"] {
            let path = format!("{list}{query}");
            invalid(site.call("DELETE", &path, Some(&token), Value::Null).await, "query");
        }
        let path = format!("{list}?kind=user&value=x");
        invalid(site.call("DELETE", &path, Some(&token), Value::Null).await, "value");
        for (query, field) in [("limit=0", "limit"), ("limit=101", "limit"), ("cursor=-1", "query")]
        {
            invalid(site.get(&format!("{list}?{query}"), Some(&token)).await, field);
        }
    }

    #[tokio::test]
    async fn a_banned_network_is_refused_at_each_of_its_addresses_until_the_ban_is_lifted() {
        let shop = Shop::without_captchas().await;
        let (site, token) = (shop.serve(endpoints()), shop.admin_token().await);
        let sale = shop.sale(5).await;
        let who = |address: &str, caller: &Caller| Caller {
            client: testing::client_at(address),
            ..caller.clone()
        };
        let shopper = shop.shoppers(1).await.remove(0);
        for (network, inside, outside) in [
            ("203.0.113.0/24", "203.0.113.200", "203.0.112.200"),
            ("2001:db8:1:200::/56", "2001:db8:1:2ff::1", "2001:db8:1:300::1"),
            ("2001:db8:7::/48", "2001:db8:7:ffff::1", "2001:db8:8::1"),
            ("203.0.114.7/32", "203.0.114.7", "203.0.114.8"),
        ] {
            let new = json!({ "kind": "network", "value": network, "reason": "rented" });
            let put = site.post("/api/admin/blacklist", Some(&token), new).await.expect(201).json();
            let enters =
                async |address: &str| shop.app.order_list(&who(address, &shopper), None, 1).await;
            assert_eq!(enters(inside).await.unwrap_err().slug(), "banned", "{network}");
            assert!(enters(outside).await.is_ok(), "{network}");
            let stranger = testing::client_at(inside);
            let anonymous = shop.app.draw_login_captcha(&stranger);
            assert_eq!(anonymous.await.unwrap_err().slug(), "banned", "{network}");
            let (kind, value) = (put["kind"].as_str().unwrap(), put["value"].as_str().unwrap());
            let path =
                format!("/api/admin/blacklist?kind={kind}&value={}", value.replace('/', "%2F"));
            site.call("DELETE", &path, Some(&token), Value::Null).await.expect(204);
            assert!(enters(inside).await.is_ok(), "undone: {network}");
        }
        shop.buy(&who("203.0.113.200", &shopper), sale).await;
        shop.work().await;
        let preview = "/api/admin/blacklist/preview?kind=network&value=203.0.113.0%2F24";
        let preview = site.get(preview, Some(&token)).await.expect(200).json();
        assert_eq!(
            preview,
            json!({
                "kind": "network", "value": "203.0.113.0/24", "address_prefix": "203.0.113.0/24",
                "users": 1, "orders": 1, "active_orders": 1, "sessions": null, "searched_orders": 1
            })
        );
        let user = shopper.session.user_id;
        let preview = format!("/api/admin/blacklist/preview?kind=user&value={user}");
        let preview = site.get(&preview, Some(&token)).await.expect(200).json();
        assert_eq!((&preview["orders"], &preview["sessions"]), (&json!(1), &json!(1)));
    }
}
