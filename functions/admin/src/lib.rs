//! The operator's endpoints: sales, their orders, parked messages, the blacklist, the challenge level
//! and the trail.

mod actions;
mod bans;
mod orders;

use flashsale::{
    api::{
        BeaconValue, ChallengeLevelChange, ChallengeLevelView, NewSale, ParkedList, SaleBooks,
        SaleStats,
    },
    app::{Admin, App},
    domain::{IdempotencyKey, Sale, SaleChange, SaleId},
    http::{
        Body, HandlerResult, Idempotency, Params,
        axum::{
            Json,
            extract::State,
            http::{StatusCode, header},
            response::IntoResponse,
        },
        endpoints::{Endpoint, Endpoints, delete, get, patch, post, put},
    },
};

/// The function's endpoints.
pub fn endpoints() -> Endpoints {
    Endpoints::new(
        "Administration",
        "For users with the role `admin`.",
        [
            post_sales(),
            patch_sale(),
            get_stats(),
            put_beacon(),
            get_books(),
            orders::get_orders(),
            orders::get_orders_csv(),
            orders::post_cancellation(),
            get_parked(),
            post_retry(),
            delete_parked(),
            bans::get_blacklist(),
            bans::post_blacklist(),
            bans::delete_blacklist(),
            bans::get_preview(),
            actions::get_actions(),
            get_challenge_level(),
            put_challenge_level(),
        ],
    )
}

fn post_sales() -> Endpoint {
    post("/api/admin/sales", create_sale)
        .called("create_sale", "Creates a sale.")
        .about(
            "A request with an `Idempotency-Key` may be sent again when its answer did not come: the same administrator's \
             same key gives the sale that the first request has created, with the first answer. The key is kept with the sale. \
             With another body it is refused as `invalid`.",
        )
        .admin()
        .header::<IdempotencyKey>(
            IdempotencyKey::HEADER,
            "Names the request: visible ASCII characters.",
        )
        .body::<NewSale>()
        .gives::<Sale>(201, "The sale as the ledger has it.")
        .with_header("Location", "The sale's page.")
}

async fn create_sale(
    State(app): State<App>,
    admin: Admin,
    Idempotency(key): Idempotency,
    Body(new): Body<NewSale>,
) -> HandlerResult<impl IntoResponse> {
    let sale = app.create_sale_as(&admin, new, key.as_ref()).await?;
    let location = format!("/api/sales/{}", sale.sale_id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(sale)))
}

fn patch_sale() -> Endpoint {
    patch("/api/admin/sales/{sale_id}", change_sale)
        .called("change_sale", "Changes a sale, also while it runs.")
        .about("What is left out stays, and `null` removes `eligible_registered_before` and `units_per_prefix`. `stock` can't fall below `sold`, nor `per_user_limit` at all once units are sold.")
        .admin()
        .body::<SaleChange>()
        .gives::<Sale>(200, "The sale as it is now.")
}

async fn change_sale(
    State(app): State<App>,
    admin: Admin,
    Params(sale_id): Params<SaleId>,
    Body(change): Body<SaleChange>,
) -> HandlerResult<Json<Sale>> {
    Ok(Json(app.change_sale(&admin, sale_id, &change).await?))
}

fn get_stats() -> Endpoint {
    get("/api/admin/sales/{sale_id}/stats", stats)
        .called("sale_stats", "The figures of a sale. The numbers of orders are up to 30 seconds old where counting takes long.")
        .admin()
        .gives::<SaleStats>(200, "The figures.")
}

async fn stats(
    State(app): State<App>,
    admin: Admin,
    Params(sale_id): Params<SaleId>,
) -> HandlerResult<Json<SaleStats>> {
    Ok(Json(app.sale_stats(&admin, sale_id).await?))
}

fn put_beacon() -> Endpoint {
    put("/api/admin/sales/{sale_id}/beacon", beacon)
        .called("set_beacon", "Stores the value of the beacon that a sale by draw has named.")
        .about("Once entries are closed; the draw waits for it. It can't be changed.")
        .admin()
        .body::<BeaconValue>()
        .gives_nothing("It is stored.")
}

async fn beacon(
    State(app): State<App>,
    admin: Admin,
    Params(sale_id): Params<SaleId>,
    Body(beacon): Body<BeaconValue>,
) -> HandlerResult<StatusCode> {
    app.set_beacon_value(&admin, sale_id, &beacon.value).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn get_books() -> Endpoint {
    get("/api/admin/sales/{sale_id}/books", books)
        .called("sale_books", "Whether the books of a sale balance.")
        .admin()
        .gives::<SaleBooks>(200, "The books; `findings` is empty when every promise holds.")
}

async fn books(
    State(app): State<App>,
    admin: Admin,
    Params(sale_id): Params<SaleId>,
) -> HandlerResult<Json<SaleBooks>> {
    Ok(Json(app.sale_books(&admin, sale_id).await?))
}

fn get_parked() -> Endpoint {
    get("/api/admin/parked", parked)
        .called("list_parked", "The messages of the order queue that could not be used.")
        .admin()
        .gives::<ParkedList>(200, "At most 50 of them.")
}

async fn parked(State(app): State<App>, admin: Admin) -> HandlerResult<Json<ParkedList>> {
    const PARKED_MAX: u32 = 50;
    Ok(Json(ParkedList { parked: app.parked(&admin, PARKED_MAX).await? }))
}

fn post_retry() -> Endpoint {
    post("/api/admin/parked/{parked_id}/retry", retry_parked)
        .called("retry_parked", "Puts a parked message back into the queue.")
        .admin()
        .gives_nothing("It is in the queue again.")
}

async fn retry_parked(
    State(app): State<App>,
    admin: Admin,
    Params(parked_id): Params<String>,
) -> HandlerResult<StatusCode> {
    app.retry_parked(&admin, &parked_id).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn delete_parked() -> Endpoint {
    delete("/api/admin/parked/{parked_id}", discard_parked)
        .called("discard_parked", "Throws a parked message away.")
        .admin()
        .gives_nothing("It is gone.")
}

async fn discard_parked(
    State(app): State<App>,
    admin: Admin,
    Params(parked_id): Params<String>,
) -> HandlerResult<StatusCode> {
    app.discard_parked(&admin, &parked_id).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn get_challenge_level() -> Endpoint {
    get("/api/admin/challenge-level", challenge_level)
        .called("challenge_level", "How hard proofs of work are.")
        .admin()
        .gives::<ChallengeLevelView>(200, "The level.")
}

async fn challenge_level(
    State(app): State<App>,
    admin: Admin,
) -> HandlerResult<Json<ChallengeLevelView>> {
    Ok(Json(app.challenge_level(&admin).await?))
}

fn put_challenge_level() -> Endpoint {
    put("/api/admin/challenge-level", set_challenge_level)
        .called("set_challenge_level", "Makes proofs of work harder, or as hard as usual again.")
        .about("All instances follow within a second. With other captchas than `work` it changes nothing.")
        .admin()
        .body::<ChallengeLevelChange>()
        .gives::<ChallengeLevelView>(200, "The level as it is now.")
}

async fn set_challenge_level(
    State(app): State<App>,
    admin: Admin,
    Body(change): Body<ChallengeLevelChange>,
) -> HandlerResult<Json<ChallengeLevelView>> {
    Ok(Json(app.set_challenge_level(&admin, change.level).await?))
}

#[cfg(test)]
mod tests {
    use flashsale::{
        http::{
            axum::{body::Body as RequestBody, http::Request},
            endpoints::Access,
        },
        testing::{self, Reply, START, Shop, Site},
    };
    use serde_json::{Value, json};

    use super::*;

    /// Every route: its method and its path with `{parameters}`.
    fn routes() -> Vec<(&'static str, &'static str)> {
        endpoints().iter().map(|endpoint| (endpoint.method(), endpoint.path())).collect()
    }

    fn filled(path: &str, id: &str) -> String {
        path.replace("{sale_id}", id).replace("{parked_id}", id).replace("{order_id}", id)
    }

    fn new_sale() -> Value {
        json!({ "title": "Watch", "price": 500, "stock": 3, "per_user_limit": 2, "starts_at": START, "ends_at": START.plus_ms(1_000) })
    }

    pub(crate) fn new_ban() -> Value {
        json!({ "kind": "address", "value": "198.51.100.1", "reason": "resells" })
    }

    /// A valid body for every route that takes one, with a field that no route reads.
    fn bodies() -> Vec<Option<String>> {
        let reason = json!({ "reason": "a test" });
        let right =
            [new_sale(), json!({ "stock": 5 }), new_ban(), reason].map(|json| json.to_string());
        let wrong = ["{", "[]", "{\"colour\":\"red\"}"].map(str::to_owned);
        let too_large = format!("{{\"title\":\"{}\"}}", "x".repeat(20_000));
        [None]
            .into_iter()
            .chain(right.into_iter().chain(wrong).chain([too_large]).map(Some))
            .collect()
    }

    #[tokio::test]
    async fn every_route_is_an_administrator_s_and_no_other_method_is_answered() {
        for endpoint in endpoints().iter() {
            assert_eq!(endpoint.access(), Access::Admin, "{}", endpoint.path());
        }
        let (site, routes) = (Shop::without_captchas().await.serve(endpoints()), routes());
        for path in endpoints().paths() {
            for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
                let reply = site.call(method, &filled(path, "x"), None, Value::Null).await;
                match routes.contains(&(method, path)) {
                    true => reply.refused(401, "unauthenticated"),
                    false => reply.refused(405, "method-not-allowed"),
                };
            }
        }
    }

    #[tokio::test]
    async fn every_route_refuses_shoppers_and_strangers_whatever_they_send() {
        let shop = Shop::without_captchas().await;
        let (site, sale) = (shop.serve(endpoints()), shop.sale(1).await.to_string());
        let shopper = shop.token().await;
        for (method, path) in routes() {
            for id in [sale.as_str(), "not-an-id"] {
                for query in ["", "?limit=0", "?kind=address&value=192.0.2.1"] {
                    for body in bodies() {
                        let send = async |token: Option<&str>| {
                            let uri = format!("{}{query}", filled(path, id));
                            let mut request = Request::builder().method(method).uri(uri);
                            if let Some(token) = token {
                                request =
                                    request.header("authorization", format!("Bearer {token}"));
                            }
                            let body = body.clone().map_or_else(RequestBody::empty, Into::into);
                            site.send(request.body(body).unwrap()).await
                        };
                        send(None).await.refused(401, "unauthenticated");
                        send(Some("garbage")).await.refused(401, "unauthenticated");
                        send(Some(&shopper)).await.refused(403, "forbidden");
                    }
                }
            }
        }
    }

    #[tokio::test]
    async fn an_administrator_with_only_a_cookie_reads_everywhere_and_writes_from_our_own_pages() {
        let shop = Shop::without_captchas().await;
        let (site, token) = (shop.serve(endpoints()), shop.admin_token().await);
        for (method, path) in routes() {
            for own_page in [false, true] {
                let request = Request::builder()
                    .method(method)
                    .uri(filled(path, "00000000-0000-0000-0000-000000000000"))
                    .header("host", "localhost")
                    .header("cookie", format!("session={token}"));
                let request = match own_page {
                    true => request.header("origin", "http://localhost"),
                    false => request,
                };
                let reply = site.send(request.body(RequestBody::empty()).unwrap()).await;
                let refused = reply.status == StatusCode::FORBIDDEN;
                assert_eq!(refused, method != "GET" && !own_page, "{method} {path}: {reply:?}");
            }
        }
    }

    #[tokio::test]
    async fn an_administrator_is_refused_elsewhere_and_once_signed_out_or_banned() {
        let shop = Shop::open(&[("ADMIN_NETWORKS", "192.0.2.0/24")]).await;
        let (site, token) = (shop.serve(endpoints()), shop.admin_token().await);
        let all = async |site: &Site, status: u16, slug: &str| {
            for (method, path) in routes() {
                let reply = site.call(method, &filled(path, "x"), Some(&token), Value::Null).await;
                reply.refused(status, slug);
            }
        };
        site.get("/api/admin/blacklist", Some(&token)).await.expect(200);
        all(&site.at("198.51.100.1"), 403, "forbidden").await;
        let caller = shop.caller(&token).await;
        shop.ban("user", &caller.session.user_id.to_string()).await;
        all(&site, 403, "banned").await;
        let lifter = shop.admin().await;
        shop.app.lift_ban(&lifter, "user", &caller.session.user_id.to_string()).await.unwrap();
        shop.app.sign_out(&caller, false).await.unwrap();
        all(&site, 401, "unauthenticated").await;
    }

    #[tokio::test]
    async fn one_administrator_asks_so_often() {
        let shop =
            Shop::open(&[("LIMITS__ADMIN__LIMIT", "1"), ("LIMITS__ADMIN__BURST", "1")]).await;
        let (site, token) = (shop.serve(endpoints()), shop.admin_token().await);
        site.get("/api/admin/parked", Some(&token)).await.expect(200);
        for (method, path) in routes() {
            let reply = site.call(method, &filled(path, "x"), Some(&token), Value::Null).await;
            reply.limited("admin", "q=1;w=1");
        }
    }

    #[track_caller]
    pub(crate) fn invalid(reply: Reply, field: &str) {
        assert_eq!(reply.refused(422, "invalid").json()["field"], field);
    }

    #[tokio::test]
    async fn a_sale_that_can_not_be_is_refused() {
        let shop = Shop::without_captchas().await;
        let (site, token) = (shop.serve(endpoints()), shop.admin_token().await);
        let create = async |change: Value| {
            let mut new = new_sale();
            new.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            site.post("/api/admin/sales", Some(&token), new).await
        };
        for (change, field) in [
            (json!({ "stock": 0 }), "stock"),
            (json!({ "price": -1 }), "price"),
            (json!({ "title": "" }), "title"),
            (json!({ "ends_at": START }), "ends_at"),
            (json!({ "colour": "red" }), "colour"),
        ] {
            invalid(create(change).await, field);
        }
        let created = create(json!({})).await.expect(201);
        let sale = created.json()["sale_id"].as_str().unwrap().to_owned();
        assert_eq!(created.header("location"), format!("/api/sales/{sale}"));

        let change = async |change: Value| {
            site.call("PATCH", &format!("/api/admin/sales/{sale}"), Some(&token), change).await
        };
        invalid(change(json!({ "ends_at": "2019-01-01T00:00:00Z" })).await, "ends_at");
        invalid(change(json!({ "sold": 0 })).await, "sold");
        let sale_id: SaleId = sale.parse().unwrap();
        shop.buy(&shop.shoppers(1).await[0], sale_id).await;
        shop.work().await;
        // Once units are sold, the limit may be raised but not lowered.
        change(json!({ "per_user_limit": 3 })).await.expect(200);
        invalid(change(json!({ "per_user_limit": 1 })).await, "per_user_limit");
        invalid(change(json!({ "stock": 0 })).await, "stock");
        for limit in [0, 1_000_001] {
            invalid(change(json!({ "units_per_prefix": limit })).await, "units_per_prefix");
        }
        let limited = change(json!({ "units_per_prefix": 2 })).await.expect(200).json();
        assert_eq!(limited["units_per_prefix"], 2);
        assert_eq!(change(json!({ "stock": 4 })).await.expect(200).json()["units_per_prefix"], 2);
    }

    #[tokio::test]
    async fn null_removes_the_two_rules_of_a_sale_and_nothing_else() {
        let shop = Shop::without_captchas().await;
        let (site, token) = (shop.serve(endpoints()), shop.admin_token().await);
        let path = format!("/api/admin/sales/{}", shop.sale(1).await);
        let change = async |change: Value| site.call("PATCH", &path, Some(&token), change).await;
        let rules = json!({ "units_per_prefix": 2, "eligible_registered_before": START });
        let sale = change(rules.clone()).await.expect(200).json();
        for (field, value) in rules.as_object().unwrap() {
            assert_eq!(&sale[field], value);
            let removed = change(json!({ field: null })).await.expect(200).json();
            assert_eq!(removed.get(field), None, "{removed}");
        }
        let always = [
            "title",
            "description",
            "image_url",
            "price",
            "original_price",
            "stock",
            "per_user_limit",
            "starts_at",
            "ends_at",
        ];
        for field in always {
            let refused = change(json!({ field: null, "units_per_prefix": 3 })).await;
            assert!(refused.json()["detail"].as_str().unwrap().contains("not null"), "{refused:?}");
            invalid(refused, field);
        }
        assert_eq!(change(json!({})).await.expect(200).json().get("units_per_prefix"), None);
    }

    #[tokio::test]
    async fn the_challenge_level_is_read_and_set() {
        let shop = Shop::without_captchas().await;
        let (site, token) = (shop.serve(endpoints()), shop.admin_token().await);
        let path = "/api/admin/challenge-level";
        let level = async || site.get(path, Some(&token)).await.expect(200).json();
        assert_eq!(level().await, json!({ "level": "normal", "changed_at": null }));
        let set = async |body: Value| site.call("PUT", path, Some(&token), body).await;
        for word in ["under_attack", "normal"] {
            let now = json!({ "level": word, "changed_at": shop.app.now() });
            assert_eq!(set(json!({ "level": word })).await.expect(200).json(), now);
            assert_eq!(level().await, now);
        }
        for wrong in [json!({}), json!({ "level": "high" }), json!({ "level": 1 })] {
            invalid(set(wrong).await, "level");
        }
    }

    #[tokio::test]
    async fn a_key_creates_one_sale() {
        let shop = Shop::without_captchas().await;
        let (site, token) = (shop.serve(endpoints()), shop.admin_token().await);
        let create = async |key: &str, new: Value| {
            let request = Request::post("/api/admin/sales")
                .header("authorization", format!("Bearer {token}"))
                .header("idempotency-key", key)
                .body(RequestBody::from(new.to_string()));
            site.send(request.unwrap()).await
        };
        let first = create("one", new_sale()).await.expect(201).json();
        assert_eq!(create("one", new_sale()).await.expect(201).json(), first);
        let mut other = new_sale();
        other["stock"] = json!(4);
        invalid(create("one", other).await, "Idempotency-Key");
        invalid(create("", new_sale()).await, "Idempotency-Key");
        invalid(create(&"x".repeat(300), new_sale()).await, "Idempotency-Key");
    }

    #[tokio::test]
    async fn what_is_not_there_is_not_found() {
        let shop = Shop::without_captchas().await;
        let (site, token) = (shop.serve(endpoints()), shop.admin_token().await);
        for id in [testing::sale_id().to_string().as_str(), "not-an-id"] {
            for (method, path) in routes().into_iter().filter(|(_, path)| path.contains('{')) {
                let body = match path.rsplit('/').next() {
                    Some("cancellation") => json!({ "reason": "a test" }),
                    Some("beacon") => json!({ "value": "b9c3" }),
                    _ => json!({}),
                };
                let reply = site.call(method, &filled(path, id), Some(&token), body).await;
                reply.refused(404, "not-found");
            }
        }
        let lift = "/api/admin/blacklist?kind=address&value=198.51.100.1";
        let lift = async || site.call("DELETE", lift, Some(&token), Value::Null).await;
        lift().await.refused(404, "not-found");
        site.post("/api/admin/blacklist", Some(&token), new_ban()).await.expect(201);
        lift().await.expect(204);
        lift().await.refused(404, "not-found");
    }
}
