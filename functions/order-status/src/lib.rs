//! A user's orders: list, status, payment and cancellation.

use flashsale::{
    api::{OrderPage, OrderView},
    app::{App, Caller},
    domain::OrderId,
    http::{
        HandlerResult, PageQuery, Params,
        axum::{Json, extract::State},
        endpoints::{Endpoint, Endpoints, get, post},
    },
    problem::ProblemKind,
};

/// The function's endpoints.
pub fn endpoints() -> Endpoints {
    Endpoints::new(
        "Orders",
        "Following, paying and giving up an order.",
        [get_orders(), get_order(), post_payment(), post_cancellation()],
    )
}

fn get_orders() -> Endpoint {
    get("/api/orders", list)
        .called("list_orders", "The user's recorded orders, newest first.")
        .signed_in()
        .paged::<OrderId>()
        .gives::<OrderPage>(200, "A page of them.")
}

async fn list(
    State(app): State<App>,
    caller: Caller,
    page: PageQuery<OrderId>,
) -> HandlerResult<Json<OrderPage>> {
    let (orders, next_cursor) = app.order_list(&caller, page.cursor, page.limit).await?;
    Ok(Json(OrderPage { orders: orders.into_iter().map(OrderView::from).collect(), next_cursor }))
}

fn get_order() -> Endpoint {
    get("/api/orders/{order_id}", one)
        .called("get_order", "One order of the user.")
        .signed_in()
        .gives::<OrderView>(200, "The order.")
}

async fn one(
    State(app): State<App>,
    caller: Caller,
    Params(order_id): Params<OrderId>,
) -> HandlerResult<Json<OrderView>> {
    Ok(Json(app.order(&caller, order_id).await?.into()))
}

fn post_payment() -> Endpoint {
    post("/api/orders/{order_id}/payment", pay)
        .called("pay_order", "Pays a confirmed order. The payment is simulated.")
        .signed_in()
        .gives::<OrderView>(200, "The order, paid.")
        .refuses(&[ProblemKind::OrderQueued, ProblemKind::OrderFinal])
}

async fn pay(
    State(app): State<App>,
    caller: Caller,
    Params(order_id): Params<OrderId>,
) -> HandlerResult<Json<OrderView>> {
    Ok(Json(app.pay_order(&caller, order_id).await?.into()))
}

fn post_cancellation() -> Endpoint {
    post("/api/orders/{order_id}/cancellation", cancel)
        .called("cancel_order", "Gives up an order that is queued or confirmed.")
        .signed_in()
        .gives::<OrderView>(200, "The order, cancelled.")
        .refuses(&[ProblemKind::OrderFinal])
}

async fn cancel(
    State(app): State<App>,
    caller: Caller,
    Params(order_id): Params<OrderId>,
) -> HandlerResult<Json<OrderView>> {
    Ok(Json(app.cancel_order(&caller, order_id).await?.into()))
}

#[cfg(test)]
mod tests {
    use flashsale::{
        http::axum::{body::Body, http::Request},
        testing::{self, Shop},
    };
    use serde_json::{Value, json};

    use super::*;

    /// Every route, with an order's id filled in.
    fn routes(order_id: OrderId) -> [(&'static str, String); 4] {
        let one = format!("/api/orders/{order_id}");
        [
            ("GET", "/api/orders".to_owned()),
            ("POST", format!("{one}/payment")),
            ("POST", format!("{one}/cancellation")),
            ("GET", one),
        ]
    }

    #[tokio::test]
    async fn only_a_live_session_sees_orders() {
        let shop = Shop::without_captchas().await;
        let (site, tokens) = (shop.serve(endpoints()), shop.tokens(3).await);
        shop.app.sign_out(&shop.caller(&tokens[0]).await, false).await.unwrap();
        shop.ban("user", &shop.caller(&tokens[1]).await.session.user_id.to_string()).await;
        for (method, path) in routes(testing::order_id()) {
            for token in [None, Some("garbage"), Some(tokens[0].as_str())] {
                let reply = site.call(method, &path, token, Value::Null).await;
                reply.refused(401, "unauthenticated");
            }
            let reply = site.call(method, &path, Some(&tokens[1]), Value::Null).await;
            reply.refused(403, "banned");
        }
        shop.clock.advance_ms(43_200_000);
        site.get("/api/orders", Some(&tokens[2])).await.refused(401, "unauthenticated");
    }

    #[tokio::test]
    async fn a_cookie_alone_reads_everywhere_and_writes_only_from_our_own_pages() {
        let shop = Shop::without_captchas().await;
        let (site, token) = (shop.serve(endpoints()), shop.token().await);
        for (method, path) in routes(testing::order_id()) {
            let request = Request::builder().method(method).uri(&path);
            let request = request.header("cookie", format!("__Host-session={token}"));
            let reply = site.send(request.body(Body::empty()).unwrap()).await;
            match (method, path.as_str()) {
                ("POST", _) => reply.refused(403, "forbidden"),
                (_, "/api/orders") => reply.expect(200),
                _ => reply.refused(404, "not-found"),
            };
        }
    }

    #[tokio::test]
    async fn an_order_that_is_not_the_caller_s_is_not_there() {
        let shop = Shop::without_captchas().await;
        let (site, sale, tokens) =
            (shop.serve(endpoints()), shop.sale(2).await, shop.tokens(2).await);
        let owner = shop.caller(&tokens[0]).await;
        let recorded = shop.buy(&owner, sale).await;
        shop.work().await;
        let queued = shop.buy(&owner, shop.sale(1).await).await;
        for order_id in [recorded, queued, testing::order_id()] {
            for (method, path) in routes(order_id).into_iter().skip(1) {
                let reply = site.call(method, &path, Some(&tokens[1]), Value::Null).await;
                reply.refused(404, "not-found");
            }
        }
        let none = site.get("/api/orders", Some(&tokens[1])).await.expect(200).json();
        assert_eq!(none, json!({ "orders": [], "next_cursor": null }));
        for path in ["/api/orders/x", "/api/orders/x/", "/api/orders"] {
            let reply = site.call("DELETE", path, Some(&tokens[1]), Value::Null).await;
            assert!([404, 405].contains(&reply.status.as_u16()), "{path}");
        }
        site.get("/api/orders/x", Some(&tokens[1])).await.refused(404, "not-found");
        for (query, field) in [("limit=0", "limit"), ("limit=101", "limit"), ("page=2", "query")] {
            let reply = site.get(&format!("/api/orders?{query}"), Some(&tokens[1])).await;
            assert_eq!(reply.refused(422, "invalid").json()["field"], field);
        }
    }

    #[tokio::test]
    async fn a_queued_order_can_not_be_paid_yet() {
        let shop = Shop::without_captchas().await;
        let (site, sale, token) = (shop.serve(endpoints()), shop.sale(1).await, shop.token().await);
        let order_id = shop.buy(&shop.caller(&token).await, sale).await;
        let [_, (_, payment), ..] = routes(order_id);
        let reply = site.post(&payment, Some(&token), json!({})).await.refused(409, "order-queued");
        assert_eq!(reply.header("retry-after"), "1");
        shop.work().await;
        site.post(&payment, Some(&token), json!({})).await.expect(200);
    }

    #[tokio::test]
    async fn a_final_order_changes_no_more() {
        let shop = Shop::without_captchas().await;
        let (site, tokens) = (shop.serve(endpoints()), shop.tokens(3).await);
        let sale = shop.sale(3).await;
        let mut orders = Vec::new();
        for token in &tokens {
            orders.push(routes(shop.buy(&shop.caller(token).await, sale).await));
        }
        shop.work().await;
        let send = async |n: usize, route: usize| {
            site.post(&orders[n][route].1, Some(&tokens[n]), json!({})).await
        };
        let (payment, cancellation) = (1, 2);
        send(0, payment).await.expect(200);
        send(0, payment).await.expect(200);
        let paid = send(0, cancellation).await.refused(409, "order-final");
        assert_eq!(paid.json()["order_status"], "paid");
        send(1, cancellation).await.expect(200);
        let cancelled = send(1, payment).await.refused(409, "order-final");
        assert_eq!(cancelled.json()["order_status"], "cancelled");
        // Before and after the sweeper has expired it.
        shop.clock.advance_ms(900_000);
        for _ in 0..2 {
            let expired = send(2, payment).await.refused(409, "order-final");
            assert_eq!(expired.json()["order_status"], "expired");
            shop.sweep().await;
        }
        let expired = send(2, cancellation).await.refused(409, "order-final");
        assert_eq!(expired.json()["order_status"], "expired");
    }

    #[tokio::test]
    async fn one_user_asks_so_often() {
        let limit = [("LIMITS__ORDER_STATUS__LIMIT", "1"), ("LIMITS__ORDER_STATUS__BURST", "1")];
        let shop = Shop::open(&limit).await;
        let (site, token) = (shop.serve(endpoints()), shop.token().await);
        site.get("/api/orders", Some(&token)).await.expect(200);
        for (method, path) in routes(testing::order_id()) {
            let reply = site.call(method, &path, Some(&token), Value::Null).await;
            reply.limited("order-status", "q=1;w=1");
        }
    }
}
