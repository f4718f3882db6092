//! The buy path: issues a ticket, then places its order.

use flashsale::{
    api::{OrderAccepted, PlaceOrder, Ticket, TicketRequest},
    app::{App, Caller, CaptchaAnswer},
    domain::SaleId,
    http::{
        Body, HandlerResult, Params,
        axum::{
            Json,
            extract::{Extension, State},
            http::{StatusCode, header},
            response::IntoResponse,
        },
        endpoints::{Endpoint, Endpoints, post},
    },
    problem::ProblemKind,
    trace::TraceContext,
};

/// The function's endpoints.
pub fn endpoints() -> Endpoints {
    Endpoints::new(
        "Buying",
        "A ticket, then an order of it. The same ticket gives the same order, however often it is sent.",
        [post_tickets(), post_orders()],
    )
}

/// The problems with which a sale refuses buyers.
const NOTHING_TO_BUY: [ProblemKind; 7] = [
    ProblemKind::SaleNotOpen,
    ProblemKind::SaleEnded,
    ProblemKind::NotInvited,
    ProblemKind::SoldOut,
    ProblemKind::NetworkSoldOut,
    ProblemKind::AlreadyBought,
    ProblemKind::TooManyAttempts,
];

fn post_tickets() -> Endpoint {
    post("/api/sales/{sale_id}/tickets", ticket)
        .called("issue_ticket", "Issues a ticket, good for 60 seconds. It reserves nothing.")
        .about("A captcha of purpose `purchase` is needed unless captchas are off.")
        .signed_in()
        .body::<TicketRequest>()
        .gives::<Ticket>(201, "The ticket, and the id of the order that it will make.")
        .refuses(&NOTHING_TO_BUY)
        .refuses(&[
            ProblemKind::NotEligible,
            ProblemKind::CaptchaRequired,
            ProblemKind::CaptchaGone,
            ProblemKind::CaptchaWrong,
        ])
}

async fn ticket(
    State(app): State<App>,
    caller: Caller,
    Params(sale_id): Params<SaleId>,
    Body(request): Body<TicketRequest>,
) -> HandlerResult<(StatusCode, Json<Ticket>)> {
    let captcha = CaptchaAnswer::given(request.captcha_id, request.captcha_answer);
    Ok((StatusCode::CREATED, Json(app.issue_ticket(&caller, sale_id, captcha).await?)))
}

fn post_orders() -> Endpoint {
    post("/api/sales/{sale_id}/orders", order)
        .called("place_order", "Makes the ticket's order, and answers when it is durable.")
        .about("After a timeout, a 429 or a 503 send the same ticket again.")
        .signed_in()
        .body::<PlaceOrder>()
        .gives::<OrderAccepted>(202, "The order is durable and will be recorded.")
        .with_header("Location", "Where to follow the order.")
        .refuses(&NOTHING_TO_BUY)
        .refuses(&[ProblemKind::BadTicket, ProblemKind::TicketExpired, ProblemKind::NotDurableYet])
}

async fn order(
    State(app): State<App>,
    caller: Caller,
    Params(sale_id): Params<SaleId>,
    trace: Option<Extension<TraceContext>>,
    Body(request): Body<PlaceOrder>,
) -> HandlerResult<impl IntoResponse> {
    let accepted = app
        .place_order(&caller, sale_id, &request.ticket, trace.map(|Extension(context)| context))
        .await?;
    let location = format!("/api/orders/{}", accepted.order_id);
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, location)], Json(accepted)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use flashsale::{
        adapters::memory::MemoryAdmission,
        api::NewSale,
        app::SessionClaims,
        domain::{CaptchaPurpose, Role},
        http::axum::{body::Body as RequestBody, http::Request},
        ports::Admission as _,
        testing::{self, PASSWORD, Reply, START, Shop, Site},
    };
    use serde_json::{Value, json};

    use super::*;

    fn tickets(sale: SaleId) -> String {
        format!("/api/sales/{sale}/tickets")
    }

    fn orders(sale: SaleId) -> String {
        format!("/api/sales/{sale}/orders")
    }

    async fn ask(site: &Site, token: &str, sale: SaleId) -> Reply {
        site.post(&tickets(sale), Some(token), json!({})).await
    }

    async fn order(site: &Site, token: &str, sale: SaleId, ticket: &str) -> Reply {
        site.post(&orders(sale), Some(token), json!({ "ticket": ticket })).await
    }

    async fn ticket(site: &Site, token: &str, sale: SaleId) -> String {
        ask(site, token, sale).await.expect(201).json()["ticket"].as_str().unwrap().to_owned()
    }

    #[tokio::test]
    async fn only_a_live_session_buys() {
        let shop = Shop::without_captchas().await;
        let (site, sale, tokens) =
            (shop.serve(endpoints()), shop.sale(5).await, shop.tokens(3).await);
        let good = ticket(&site, &tokens[0], sale).await;
        for (path, body) in [(tickets(sale), json!({})), (orders(sale), json!({ "ticket": good }))]
        {
            for token in [None, Some("garbage")] {
                site.post(&path, token, body.clone()).await.refused(401, "unauthenticated");
            }
        }
        shop.app.sign_out(&shop.caller(&tokens[0]).await, false).await.unwrap();
        ask(&site, &tokens[0], sale).await.refused(401, "unauthenticated");
        order(&site, &tokens[0], sale, &good).await.refused(401, "unauthenticated");

        let good = ticket(&site, &tokens[1], sale).await;
        let Caller { session, .. } = shop.caller(&tokens[1]).await;
        shop.ban("user", &session.user_id.to_string()).await;
        let banned = ask(&site, &tokens[1], sale).await.refused(403, "banned");
        assert_eq!(banned.json()["until"], json!(START.plus_ms(3_600_000)));
        order(&site, &tokens[1], sale, &good).await.refused(403, "banned");

        shop.clock.advance_ms(43_200_000);
        ask(&site, &tokens[2], sale).await.refused(401, "unauthenticated");
    }

    #[tokio::test]
    async fn a_cookie_writes_only_from_our_own_pages() {
        let shop = Shop::without_captchas().await;
        let (site, sale, token) = (shop.serve(endpoints()), shop.sale(5).await, shop.token().await);
        let send = async |headers: &[(&str, &str)]| {
            let mut request = Request::post(tickets(sale))
                .header("host", "localhost:8080")
                .header("cookie", format!("session={token}"));
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            site.send(request.body(RequestBody::empty()).unwrap()).await
        };
        for headers in [
            [].as_slice(),
            &[("origin", "https://evil.example")],
            &[("sec-fetch-site", "cross-site")],
        ] {
            send(headers).await.refused(403, "forbidden");
        }
        send(&[("origin", "http://localhost:8080")]).await.expect(201);
        send(&[("sec-fetch-site", "same-origin")]).await.expect(201);
    }

    #[tokio::test]
    async fn what_can_not_be_read_is_refused() {
        let shop = Shop::without_captchas().await;
        let (site, sale, token) = (shop.serve(endpoints()), shop.sale(5).await, shop.token().await);
        for path in ["/api/sales/x/tickets", &tickets(testing::sale_id())] {
            site.post(path, Some(&token), json!({})).await.refused(404, "not-found");
        }
        for path in ["/api/sales/x/orders", "/api/sales/x/orders/"] {
            site.post(path, Some(&token), json!({ "ticket": "x" })).await.refused(404, "not-found");
        }
        for (path, body, field) in [
            (tickets(sale), json!({ "ticket": "x" }), "ticket"),
            (tickets(sale), json!({ "captcha_id": "x" }), "captcha_id"),
            (orders(sale), Value::Null, "ticket"),
            (orders(sale), json!({ "ticket": 1 }), "ticket"),
            (orders(sale), json!({ "ticket": "x", "units": 2 }), "units"),
        ] {
            let reply = site.post(&path, Some(&token), body).await.refused(422, "invalid");
            assert_eq!(reply.json()["field"], field);
        }
        let long = json!({ "ticket": "x".repeat(20_000) });
        site.post(&orders(sale), Some(&token), long).await.refused(413, "body-too-large");
        let reply = site.get(&tickets(sale), Some(&token)).await.refused(405, "method-not-allowed");
        assert_eq!(reply.header("allow"), "POST");
    }

    #[tokio::test]
    async fn nothing_is_sold_outside_of_the_sale_s_time() {
        let shop = Shop::without_captchas().await;
        let (site, token) = (shop.serve(endpoints()), shop.token().await);
        let (starts_at, ends_at) = (START.plus_ms(1_000), START.plus_ms(2_000));
        let sale = shop.sale_between(5, starts_at, ends_at).await;
        let reply = ask(&site, &token, sale).await.refused(409, "sale-not-open");
        assert_eq!(reply.json()["starts_at"], json!(starts_at));
        shop.clock.advance_ms(1_000);
        let good = ticket(&site, &token, sale).await;
        // The instance that places the order may have a slower clock than the one that issued the
        // ticket.
        shop.clock.set_by_ms(-1);
        let reply = order(&site, &token, sale, &good).await.refused(409, "sale-not-open");
        assert_eq!(reply.json()["starts_at"], json!(starts_at));
        shop.clock.advance_ms(1_001);
        ask(&site, &token, sale).await.refused(410, "sale-ended");
        order(&site, &token, sale, &good).await.refused(410, "sale-ended");
    }

    #[tokio::test]
    async fn late_comers_are_told_that_it_is_sold_out_and_buyers_that_they_have_bought() {
        let shop = Shop::without_captchas().await;
        let (site, sale, tokens) =
            (shop.serve(endpoints()), shop.sale(1).await, shop.tokens(2).await);
        let [first, second, late] = [
            ticket(&site, &tokens[0], sale).await,
            ticket(&site, &tokens[0], sale).await,
            ticket(&site, &tokens[1], sale).await,
        ];
        let accepted = order(&site, &tokens[0], sale, &first).await.expect(202);
        let order_id = accepted.json()["order_id"].clone();
        assert_eq!(accepted.json(), json!({ "order_id": order_id, "status": "queued" }));
        assert_eq!(
            accepted.header("location"),
            format!("/api/orders/{}", order_id.as_str().unwrap())
        );
        order(&site, &tokens[1], sale, &late).await.refused(409, "sold-out");
        ask(&site, &tokens[1], sale).await.refused(409, "sold-out");
        for reply in
            [order(&site, &tokens[0], sale, &second).await, ask(&site, &tokens[0], sale).await]
        {
            assert_eq!(reply.refused(409, "already-bought").json()["order_id"], order_id);
        }
        order(&site, &tokens[0], sale, &first).await.expect(202);
    }

    #[tokio::test]
    async fn who_gives_up_too_often_gets_neither_ticket_nor_order() {
        let shop = Shop::open(&[("ORDERS__ATTEMPTS_MAX", "1")]).await;
        let (site, sale, token) = (shop.serve(endpoints()), shop.sale(5).await, shop.token().await);
        let caller = shop.caller(&token).await;
        let bought = async || {
            let captcha = shop.purchase_captcha(&caller, sale).await;
            shop.app.issue_ticket(&caller, sale, Some(captcha)).await.unwrap()
        };
        let (used, kept) = (bought().await, bought().await);
        order(&site, &token, sale, &used.ticket).await.expect(202);
        shop.app.cancel_order(&caller, used.order_id).await.unwrap();
        // The captcha is not even asked for.
        let reply = ask(&site, &token, sale).await.refused(409, "too-many-attempts");
        assert_eq!(reply.json()["title"], "Too many attempts");
        order(&site, &token, sale, &kept.ticket).await.refused(409, "too-many-attempts");
        let again = order(&site, &token, sale, &used.ticket).await.expect(202);
        assert_eq!(again.json()["order_id"], json!(used.order_id));
    }

    #[tokio::test]
    async fn a_network_gets_only_what_the_sale_allows_it() {
        let shop = Shop::without_captchas().await;
        let new = NewSale {
            units_per_prefix: Some(1),
            ..NewSale::new("Watch", 500, 5, START..START.plus_ms(60_000))
        };
        let sale = shop.app.create_sale(new).await.unwrap().sale_id;
        let (site, tokens) = (shop.serve(endpoints()), shop.tokens(3).await);
        let near = [site.at("198.51.100.1"), site.at("198.51.100.200"), site.at("198.51.101.1")];
        let late = ticket(&near[1], &tokens[1], sale).await;
        let first = ticket(&near[0], &tokens[0], sale).await;
        order(&near[0], &tokens[0], sale, &first).await.expect(202);
        ask(&near[1], &tokens[2], sale).await.refused(409, "network-sold-out");
        let reply = order(&near[1], &tokens[1], sale, &late).await;
        let detail = reply.refused(409, "network-sold-out").json()["detail"].to_string();
        assert!(detail.contains("`units_per_prefix`"), "{detail}");
        order(&near[2], &tokens[1], sale, &late).await.expect(202);
        order(&near[2], &tokens[0], sale, &first).await.expect(202);
    }

    #[tokio::test]
    async fn a_ticket_is_bound_to_its_user_session_and_sale() {
        let shop = Shop::without_captchas().await;
        let site = shop.serve(endpoints());
        let (sale, elsewhere) = (shop.sale(5).await, shop.sale(5).await);
        let phone = "+12015550123";
        shop.app
            .add_user(phone.parse().unwrap(), PASSWORD.to_owned(), Role::Shopper)
            .await
            .unwrap();
        let own = shop.sign_in(phone, PASSWORD).await.unwrap().token;
        let other_session = shop.sign_in(phone, PASSWORD).await.unwrap().token;
        let other_user = shop.token().await;
        let good = ticket(&site, &own, sale).await;
        let forged = format!("{}x", &good[..good.len() - 1]);
        for (token, sale, ticket) in [
            (&other_user, sale, &good),
            (&other_session, sale, &good),
            (&own, elsewhere, &good),
            (&own, sale, &forged),
            // A token signed here that is not a ticket.
            (&own, sale, &own),
        ] {
            order(&site, token, sale, ticket).await.refused(403, "bad-ticket");
        }
        order(&site, &own, sale, &good).await.expect(202);
    }

    #[tokio::test]
    async fn a_ticket_ends_unused() {
        let shop = Shop::without_captchas().await;
        let (site, sale, token) = (shop.serve(endpoints()), shop.sale(1).await, shop.token().await);
        let good = ticket(&site, &token, sale).await;
        shop.clock.advance_ms(60_000);
        order(&site, &token, sale, &good).await.refused(410, "ticket-expired");
        let good = ticket(&site, &token, sale).await;
        shop.clock.advance_ms(59_999);
        order(&site, &token, sale, &good).await.expect(202);
    }

    #[tokio::test]
    async fn while_admission_is_rebuilt_the_same_ticket_may_be_sent_again() {
        let admission = Arc::new(MemoryAdmission::default());
        let shop = Shop::open_with(&[("CAPTCHA", "off")], |ports| {
            ports.admission = admission.clone();
        })
        .await;
        let (site, sale, token) = (shop.serve(endpoints()), shop.sale(1).await, shop.token().await);
        let good = ticket(&site, &token, sale).await;
        admission.lose_everything();
        let terms = shop.app.ports.sales.get(sale).await.unwrap().unwrap().terms();
        assert!(admission.begin_rebuild(&terms, 2, shop.app.now()).await.unwrap());
        let reply = order(&site, &token, sale, &good).await.refused(503, "not-durable-yet");
        assert_eq!(reply.header("retry-after"), "1");
        let reply = ask(&site, &token, sale).await.refused(503, "unavailable");
        assert_eq!(reply.header("retry-after"), "1");
        assert!(admission.finish_rebuild(sale, 2).await.unwrap());
        order(&site, &token, sale, &good).await.expect(202);
    }

    #[tokio::test]
    async fn a_captcha_is_good_for_one_answer_and_one_purpose() {
        let shop = Shop::open(&[]).await;
        let (site, sale, token) = (shop.serve(endpoints()), shop.sale(5).await, shop.token().await);
        let caller = shop.caller(&token).await;
        let ask = async |captcha: &CaptchaAnswer, text: &str| {
            let body = json!({ "captcha_id": captcha.captcha_id, "captcha_answer": text });
            site.post(&tickets(sale), Some(&token), body).await
        };
        let none = site.post(&tickets(sale), Some(&token), json!({})).await;
        none.refused(403, "captcha-required");
        let captcha = shop.purchase_captcha(&caller, sale).await;
        ask(&captcha, "wrong").await.refused(422, "captcha-wrong");
        ask(&captcha, &captcha.answer).await.refused(410, "captcha-gone");
        let captcha = shop.login_captcha().await;
        ask(&captcha, &captcha.answer).await.refused(410, "captcha-gone");
        let captcha = shop.purchase_captcha(&caller, sale).await;
        shop.clock.advance_ms(120_000);
        ask(&captcha, &captcha.answer).await.refused(410, "captcha-gone");
        let captcha = shop.purchase_captcha(&caller, sale).await;
        ask(&captcha, " KPT 4x ").await.expect(201);
        ask(&captcha, &captcha.answer).await.refused(410, "captcha-gone");
    }

    #[tokio::test]
    async fn a_captcha_is_good_for_one_user_one_session_and_one_sale() {
        let shop = Shop::open(&[]).await;
        let site = shop.serve(endpoints());
        let (sale, other_sale) = (shop.sale(5).await, shop.sale(5).await);
        let (token, other_token) = (shop.token().await, shop.token().await);
        let own = shop.caller(&token).await;
        let other_session = {
            let session_id = testing::session_id();
            let session = SessionClaims { session_id, ..own.session.clone() };
            Caller { session, ..own.clone() }
        };
        let buys = async |captcha: &CaptchaAnswer| {
            let body =
                json!({ "captcha_id": captcha.captcha_id, "captcha_answer": captcha.answer });
            site.post(&tickets(sale), Some(&token), body).await
        };
        let other = shop.caller(&other_token).await;
        let other_user = {
            let session = SessionClaims { user_id: other.session.user_id, ..own.session.clone() };
            Caller { session, ..own.clone() }
        };
        for purpose in [
            CaptchaPurpose::of(&other, sale),
            CaptchaPurpose::of(&other_user, sale),
            CaptchaPurpose::of(&other_session, sale),
            CaptchaPurpose::of(&own, other_sale),
        ] {
            buys(&shop.captcha_for(purpose).await).await.refused(410, "captcha-gone");
        }
        buys(&shop.captcha_for(CaptchaPurpose::of(&own, sale)).await).await.expect(201);
    }

    #[tokio::test]
    async fn limits_say_when_to_come_back_and_repeated_abuse_is_banned_for_a_while() {
        let shop = Shop::open(&[("CAPTCHA", "off"), ("ABUSE__REFUSALS_MAX", "5")]).await;
        let (site, sale, token) =
            (shop.serve(endpoints()), shop.sale(100).await, shop.token().await);
        for _ in 0..10 {
            ask(&site, &token, sale).await.expect(201);
        }
        for _ in 0..6 {
            let reply = ask(&site, &token, sale).await.limited("ticket", "q=10;w=10");
            assert_eq!(reply.header("retry-after"), "1");
        }
        ask(&site, &token, sale).await.refused(403, "banned");
        shop.clock.advance_ms(300_000);
        ask(&site, &token, sale).await.expect(201);
    }

    #[tokio::test]
    async fn orders_and_sold_out_tickets_are_limited_too() {
        let settings = ["TICKET", "ORDER"].map(|name| {
            [(format!("LIMITS__{name}__LIMIT"), "1"), (format!("LIMITS__{name}__BURST"), "2")]
        });
        let settings: Vec<(&str, &str)> = [("CAPTCHA", "off")]
            .into_iter()
            .chain(settings.iter().flatten().map(|(name, value)| (name.as_str(), *value)))
            .collect();
        let shop = Shop::open(&settings).await;
        let (site, sale, tokens) =
            (shop.serve(endpoints()), shop.sale(1).await, shop.tokens(2).await);
        let good = ticket(&site, &tokens[0], sale).await;
        for _ in 0..2 {
            order(&site, &tokens[0], sale, &good).await.expect(202);
        }
        order(&site, &tokens[0], sale, &good).await.limited("order", "q=1;w=10");
        // The store refuses the first request; memory refuses the others.
        for _ in 0..3 {
            ask(&site, &tokens[1], sale).await.refused(409, "sold-out");
        }
        ask(&site, &tokens[1], sale).await.limited("ticket", "q=1;w=10");
    }
}
