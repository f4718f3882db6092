//! `POST /api/admin/sales`, `PATCH /api/admin/sales/{sale_id}`, `GET /api/admin/sales/{sale_id}/stats`,
//! `GET /api/admin/sales/{sale_id}/books`, `GET|POST|DELETE /api/admin/blacklist`, `GET /api/admin/parked`,
//! `DELETE /api/admin/parked/{parked_id}`, `POST /api/admin/parked/{parked_id}/retry`.

#[cfg(feature = "openapi")]
pub mod docs;

use flashsale::{
    app::{Admin, App, BanView, NewBan, NewSale, ParkedView, SaleBooks, SaleStats},
    domain::{Sale, SaleChange, SaleId},
    http::{
        Answer, Body, Idempotency, PageQuery, Params,
        axum::{
            Json, Router,
            extract::{Query, State, rejection::QueryRejection},
            http::{StatusCode, header},
            response::IntoResponse,
            routing::{delete, get, patch, post},
        },
    },
    problem::Problem,
};
use serde::{Deserialize, Serialize};

/// The function's routes.
pub fn router(app: App) -> Router {
    Router::new()
        .route("/api/admin/sales", post(create_sale))
        .route("/api/admin/sales/{sale_id}", patch(change_sale))
        .route("/api/admin/sales/{sale_id}/stats", get(stats))
        .route("/api/admin/sales/{sale_id}/books", get(books))
        .route("/api/admin/parked", get(parked))
        .route("/api/admin/parked/{parked_id}", delete(discard_parked))
        .route("/api/admin/parked/{parked_id}/retry", post(retry_parked))
        .route("/api/admin/blacklist", get(bans).post(ban).delete(lift))
        .with_state(app)
}

async fn create_sale(
    State(app): State<App>,
    admin: Admin,
    Idempotency(key): Idempotency,
    Body(new): Body<NewSale>,
) -> Answer<impl IntoResponse> {
    let sale = app.create_sale_as(&admin, new, key.as_ref()).await?;
    let location = format!("/api/sales/{}", sale.sale_id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(sale)))
}

async fn change_sale(
    State(app): State<App>,
    admin: Admin,
    Params(sale_id): Params<SaleId>,
    Body(change): Body<SaleChange>,
) -> Answer<Json<Sale>> {
    Ok(Json(app.change_sale(&admin, sale_id, &change).await?))
}

async fn stats(
    State(app): State<App>,
    admin: Admin,
    Params(sale_id): Params<SaleId>,
) -> Answer<Json<SaleStats>> {
    Ok(Json(app.sale_stats(&admin, sale_id).await?))
}

async fn books(
    State(app): State<App>,
    admin: Admin,
    Params(sale_id): Params<SaleId>,
) -> Answer<Json<SaleBooks>> {
    Ok(Json(app.sale_books(&admin, sale_id).await?))
}

/// The parked messages. The list is bounded and not paged: it is short, or something is very wrong.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
struct ParkedList {
    parked: Vec<ParkedView>,
}

async fn parked(State(app): State<App>, admin: Admin) -> Answer<Json<ParkedList>> {
    const PARKED_MAX: u32 = 50;
    Ok(Json(ParkedList { parked: app.parked(&admin, PARKED_MAX).await? }))
}

async fn retry_parked(
    State(app): State<App>,
    admin: Admin,
    Params(parked_id): Params<String>,
) -> Answer<StatusCode> {
    app.retry_parked(&admin, &parked_id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn discard_parked(
    State(app): State<App>,
    admin: Admin,
    Params(parked_id): Params<String>,
) -> Answer<StatusCode> {
    app.discard_parked(&admin, &parked_id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A page of the blacklist.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
struct BanPage {
    bans: Vec<BanView>,
    #[cfg_attr(feature = "openapi", schema(required))]
    next_cursor: Option<String>,
}

async fn bans(
    State(app): State<App>,
    admin: Admin,
    page: PageQuery<Offset>,
) -> Answer<Json<BanPage>> {
    let offset = page.cursor.map_or(0, |Offset(offset)| offset);
    let bans = app.bans(&admin, offset, page.limit).await?;
    let full = bans.len() == page.limit as usize;
    let next_cursor = full.then(|| (offset + page.limit).to_string());
    Ok(Json(BanPage { bans, next_cursor }))
}

async fn ban(
    State(app): State<App>,
    admin: Admin,
    Body(new): Body<NewBan>,
) -> Answer<(StatusCode, Json<BanView>)> {
    Ok((StatusCode::CREATED, Json(app.put_ban(&admin, new).await?)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Lift {
    kind: String,
    value: String,
}

/// A cursor of the blacklist: how many bans were seen.
#[derive(Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(format = Int64, maximum = 4294967295i64))]
struct Offset(u32);

async fn lift(
    State(app): State<App>,
    admin: Admin,
    query: Result<Query<Lift>, QueryRejection>,
) -> Answer<StatusCode> {
    let Ok(Query(Lift { kind, value })) = query else {
        let expected = "?kind=user|address|phone&value=...".to_owned();
        return Err(Problem::Invalid { field: "query".to_owned(), expected });
    };
    app.lift_ban(&admin, &kind, &value).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use flashsale::{
        http::axum::{body::Body as RequestBody, http::Request},
        testing::{self, Reply, START, Shop, Site},
    };
    use serde_json::{Value, json};

    use super::*;

    const ROUTES: [(&str, &str); 10] = [
        ("POST", "/api/admin/sales"),
        ("PATCH", "/api/admin/sales/{sale_id}"),
        ("GET", "/api/admin/sales/{sale_id}/stats"),
        ("GET", "/api/admin/sales/{sale_id}/books"),
        ("GET", "/api/admin/parked"),
        ("DELETE", "/api/admin/parked/{parked_id}"),
        ("POST", "/api/admin/parked/{parked_id}/retry"),
        ("GET", "/api/admin/blacklist"),
        ("POST", "/api/admin/blacklist"),
        ("DELETE", "/api/admin/blacklist"),
    ];

    fn filled(path: &str, id: &str) -> String {
        path.replace("{sale_id}", id).replace("{parked_id}", id)
    }

    fn new_sale() -> Value {
        json!({ "title": "Watch", "price": 500, "stock": 3, "per_user_limit": 2, "starts_at": START, "ends_at": START.plus_ms(1_000) })
    }

    fn new_ban() -> Value {
        json!({ "kind": "address", "value": "198.51.100.1", "reason": "resells" })
    }

    /// A right body of every route that has one, and what no route reads.
    fn bodies() -> Vec<Option<String>> {
        let right = [new_sale(), json!({ "stock": 5 }), new_ban()].map(|json| json.to_string());
        let wrong = ["{", "[]", "{\"colour\":\"red\"}"].map(str::to_owned);
        let too_large = format!("{{\"title\":\"{}\"}}", "x".repeat(20_000));
        [None]
            .into_iter()
            .chain(right.into_iter().chain(wrong).chain([too_large]).map(Some))
            .collect()
    }

    #[tokio::test]
    async fn the_routes_are_those_of_the_router() {
        let code = include_str!("lib.rs").split("#[cfg(test)]").next().unwrap();
        let code: BTreeSet<&str> =
            code.split('"').filter(|text| text.starts_with("/api/admin/")).collect();
        assert_eq!(code, ROUTES.iter().map(|(_, path)| *path).collect());
        let site = Shop::without_captchas().await.serve(router);
        for path in code {
            for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
                let reply = site.call(method, &filled(path, "x"), None, Value::Null).await;
                match ROUTES.contains(&(method, path)) {
                    true => reply.refused(401, "unauthenticated"),
                    false => reply.refused(405, "method-not-allowed"),
                };
            }
        }
    }

    #[tokio::test]
    async fn every_route_refuses_shoppers_and_strangers_whatever_they_send() {
        let shop = Shop::without_captchas().await;
        let (site, sale) = (shop.serve(router), shop.sale(1).await.to_string());
        let shopper = shop.token().await;
        for (method, path) in ROUTES {
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
        let (site, token) = (shop.serve(router), shop.admin_token().await);
        for (method, path) in ROUTES {
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
        let (site, token) = (shop.serve(router), shop.admin_token().await);
        let all = async |site: &Site, status: u16, slug: &str| {
            for (method, path) in ROUTES {
                let reply = site.call(method, &filled(path, "x"), Some(&token), Value::Null).await;
                reply.refused(status, slug);
            }
        };
        site.get("/api/admin/blacklist", Some(&token)).await.expect(200);
        all(&site.at("198.51.100.1"), 403, "forbidden").await;
        let caller = shop.caller(&token);
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
        let (site, token) = (shop.serve(router), shop.admin_token().await);
        site.get("/api/admin/parked", Some(&token)).await.expect(200);
        for (method, path) in ROUTES {
            let reply = site.call(method, &filled(path, "x"), Some(&token), Value::Null).await;
            reply.limited("admin", "q=1;w=1");
        }
    }

    #[track_caller]
    fn invalid(reply: Reply, field: &str) {
        assert_eq!(reply.refused(422, "invalid").json()["field"], field);
    }

    #[tokio::test]
    async fn a_sale_that_can_not_be_is_refused() {
        let shop = Shop::without_captchas().await;
        let (site, token) = (shop.serve(router), shop.admin_token().await);
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
        // While nobody has used what a limit allows it may go up; once units are sold, never down.
        change(json!({ "per_user_limit": 3 })).await.expect(200);
        invalid(change(json!({ "per_user_limit": 1 })).await, "per_user_limit");
        invalid(change(json!({ "stock": 0 })).await, "stock");
    }

    #[tokio::test]
    async fn a_key_creates_one_sale() {
        let shop = Shop::without_captchas().await;
        let (site, token) = (shop.serve(router), shop.admin_token().await);
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
        let (site, token) = (shop.serve(router), shop.admin_token().await);
        for id in [testing::sale_id().to_string().as_str(), "not-an-id"] {
            for (method, path) in ROUTES.into_iter().filter(|(_, path)| path.contains('{')) {
                let reply = site.call(method, &filled(path, id), Some(&token), json!({})).await;
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

    #[tokio::test]
    async fn a_ban_that_can_not_be_is_refused() {
        let shop = Shop::without_captchas().await;
        let (site, token) = (shop.serve(router), shop.admin_token().await);
        let list = "/api/admin/blacklist";
        for (change, field) in [
            (json!({ "kind": "group" }), "kind"),
            (json!({ "kind": "user", "value": "x" }), "value"),
            (json!({ "kind": "phone" }), "value"),
            (json!({ "value": "300.1.2.3" }), "value"),
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
}
