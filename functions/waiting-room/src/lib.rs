//! Sales by draw: entering, following the line, and the result.

use flashsale::{
    api::{DrawResult, EntryAccepted, EntryRequest, EntryView},
    app::{App, Caller, CaptchaAnswer},
    domain::SaleId,
    http::{
        Body, HandlerResult, Params,
        axum::{
            Json,
            extract::State,
            http::{HeaderMap, StatusCode},
        },
        endpoints::{Endpoint, Endpoints, get, post},
    },
    problem::ProblemKind,
};

/// The header that carries the signed entry with a poll.
const ENTRY: &str = "entry";

/// The function's endpoints.
pub fn endpoints() -> Endpoints {
    Endpoints::new(
        "Draws",
        "Entering a sale by draw, following the line, and the result.",
        [post_entries(), get_current(), get_draw()],
    )
}

fn post_entries() -> Endpoint {
    post("/api/sales/{sale_id}/entries", enter)
        .called("enter_draw", "Enters the draw of a sale, and answers when the entry is durable.")
        .about(
            "The time of an entry does not matter as long as it is before `starts_at`. A repeated request gives the same \
             entry. A captcha of purpose `purchase` is needed for the first one unless captchas are off.",
        )
        .signed_in()
        .body::<EntryRequest>()
        .gives::<EntryAccepted>(201, "The entry.")
        .refuses(&[
            ProblemKind::EntriesNotOpen,
            ProblemKind::SaleEnded,
            ProblemKind::NotEligible,
            ProblemKind::CaptchaRequired,
            ProblemKind::CaptchaGone,
            ProblemKind::CaptchaWrong,
            ProblemKind::NotDurableYet,
        ])
}

async fn enter(
    State(app): State<App>,
    caller: Caller,
    Params(sale_id): Params<SaleId>,
    Body(request): Body<EntryRequest>,
) -> HandlerResult<(StatusCode, Json<EntryAccepted>)> {
    let captcha = CaptchaAnswer::given(request.captcha_id, request.captcha_answer);
    Ok((StatusCode::CREATED, Json(app.enter_draw(&caller, sale_id, captcha).await?)))
}

fn get_current() -> Endpoint {
    get("/api/sales/{sale_id}/entries/current", current)
        .called("get_entry", "Where the user's entry stands.")
        .about("Ask again after `poll_after_ms`.")
        .signed_in()
        .header::<String>(ENTRY, "The `entry` that the entry's answer gave.")
        .gives::<EntryView>(200, "Its state.")
}

async fn current(
    State(app): State<App>,
    caller: Caller,
    Params(sale_id): Params<SaleId>,
    headers: HeaderMap,
) -> HandlerResult<Json<EntryView>> {
    let entry = headers.get(ENTRY).and_then(|value| value.to_str().ok());
    Ok(Json(app.entry_state(&caller, sale_id, entry).await?))
}

fn get_draw() -> Endpoint {
    get("/api/sales/{sale_id}/draw", draw)
        .called("get_draw", "The seed and the result of a draw, once the sale has ended.")
        .signed_in()
        .gives::<DrawResult>(200, "The result, and the user's own score and place.")
        .refuses(&[ProblemKind::DrawNotOver])
}

async fn draw(
    State(app): State<App>,
    caller: Caller,
    Params(sale_id): Params<SaleId>,
) -> HandlerResult<Json<DrawResult>> {
    Ok(Json(app.draw_result(&caller, sale_id).await?))
}

#[cfg(test)]
mod tests {
    use flashsale::testing::{KnownAnswer, Shop};
    use serde_json::{Value, json};

    use super::*;

    const HOUR_MS: u64 = 3_600_000;

    fn entries(sale: SaleId) -> String {
        format!("/api/sales/{sale}/entries")
    }

    fn current(sale: SaleId) -> String {
        format!("/api/sales/{sale}/entries/current")
    }

    fn result(sale: SaleId) -> String {
        format!("/api/sales/{sale}/draw")
    }

    #[tokio::test]
    async fn only_a_live_session_takes_part() {
        let shop = Shop::without_captchas().await;
        let (site, sale) = (shop.serve(endpoints()), shop.draw(1, |_| {}).await);
        let tokens = shop.tokens(2).await;
        shop.app.sign_out(&shop.caller(&tokens[0]).await, false).await.unwrap();
        let banned = shop.caller(&tokens[1]).await.session.user_id;
        shop.ban("user", &banned.to_string()).await;
        for (method, path) in
            [("POST", entries(sale)), ("GET", current(sale)), ("GET", result(sale))]
        {
            for token in [None, Some("garbage")] {
                let reply = site.call(method, &path, token, Value::Null).await;
                reply.refused(401, "unauthenticated");
            }
        }
        site.post(&entries(sale), Some(&tokens[0]), json!({}))
            .await
            .refused(401, "unauthenticated");
        site.post(&entries(sale), Some(&tokens[1]), json!({})).await.refused(403, "banned");
    }

    #[tokio::test]
    async fn an_entry_is_given_once_and_followed() {
        let shop = Shop::without_captchas().await;
        let (site, sale) = (shop.serve(endpoints()), shop.draw(1, |_| {}).await);
        let token = shop.token().await;
        site.get(&current(sale), Some(&token)).await.refused(404, "not-found");
        let given = site.post(&entries(sale), Some(&token), json!({})).await.expect(201).json();
        assert_eq!(given["entered_at"], json!(shop.app.now()));
        shop.clock.advance_ms(5);
        let again = site.post(&entries(sale), Some(&token), json!({})).await.expect(201).json();
        assert_eq!(again, given, "the same entry, also while it is on its way");
        while shop.work().await > 0 {}
        let again = site.post(&entries(sale), Some(&token), json!({})).await.expect(201).json();
        assert_eq!(again, given);
        let state = site.get(&current(sale), Some(&token)).await.expect(200).json();
        assert_eq!(state["state"], "waiting");
        assert!(state["poll_after_ms"].as_u64().is_some_and(|ms| ms > 0), "{state}");
        assert_eq!(state.as_object().unwrap().len(), 2, "{state}");
        let early = site.get(&result(sale), Some(&token)).await.refused(409, "draw-not-over");
        assert!(early.json()["ends_at"].is_string());
    }

    #[tokio::test]
    async fn refusals_say_what_would_be_right() {
        let shop = Shop::without_captchas().await;
        let site = shop.serve(endpoints());
        let token = shop.token().await;
        let soon = shop.draw(1, |new| new.entries_open_at = Some(new.starts_at.minus_ms(1))).await;
        let reply = site.post(&entries(soon), Some(&token), json!({})).await;
        let reply = reply.refused(409, "entries-not-open").json();
        assert_eq!(reply["entries_open_at"], json!(shop.app.now().plus_ms(HOUR_MS - 1)));
        let before = shop.app.now().minus_ms(1);
        let old = shop.draw(1, |new| new.eligible_registered_before = Some(before)).await;
        let reply = site.post(&entries(old), Some(&token), json!({})).await;
        assert_eq!(reply.refused(403, "not-eligible").json()["registered_before"], json!(before));
        let first_come = shop.sale(1).await;
        site.post(&entries(first_come), Some(&token), json!({})).await.refused(404, "not-found");
        let extra = json!({ "place": 1 });
        site.post(&entries(old), Some(&token), extra).await.refused(422, "invalid");
        let over = shop.draw(1, |_| {}).await;
        shop.clock.advance_ms(40 * HOUR_MS);
        let token = shop.token().await;
        site.post(&entries(over), Some(&token), json!({})).await.refused(410, "sale-ended");
    }

    #[tokio::test]
    async fn the_first_entry_needs_a_captcha() {
        let shop = Shop::open(&[]).await;
        let (site, sale, token) =
            (shop.serve(endpoints()), shop.draw(1, |_| {}).await, shop.token().await);
        let enter = async |body: Value| site.post(&entries(sale), Some(&token), body).await;
        enter(json!({})).await.refused(403, "captcha-required");
        let who = shop.caller(&token).await;
        let captcha = shop.purchase_captcha(&who, sale).await;
        let answer =
            json!({ "captcha_id": captcha.captcha_id, "captcha_answer": KnownAnswer::TEXT });
        enter(answer.clone()).await.expect(201);
        enter(json!({})).await.expect(201);
        while shop.work().await > 0 {}
        enter(json!({})).await.expect(201);
        let other = shop.token().await;
        let reply = site.post(&entries(sale), Some(&other), answer).await;
        reply.refused(410, "captcha-gone");
    }
}
