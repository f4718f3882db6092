//! Captchas as pictures and as audio.

use flashsale::{
    api::{DrawCaptcha, DrawnCaptcha, PurposeWord},
    app::App,
    domain::CaptchaId,
    http::{
        Body, ClientAddress, HandlerResult, Params, PossibleCaller,
        axum::{
            Json,
            extract::State,
            http::{StatusCode, header},
            response::IntoResponse,
        },
        endpoints::{Endpoint, Endpoints, get, post},
    },
    problem::{Problem, ProblemKind},
};

/// The function's endpoints.
pub fn endpoints() -> Endpoints {
    Endpoints::new(
        "Captchas",
        "A captcha lives 120 seconds and can be answered once.",
        [post_captchas(), get_audio()],
    )
}

fn post_captchas() -> Endpoint {
    post("/api/captchas", draw)
        .called("draw_captcha", "Draws a captcha.")
        .about(
            "`kind` says how it is answered: by the letters in the picture, or by a proof of work, for which ALTCHA's payload \
             is the answer. With purpose `purchase` it is bound to the user, the session and the sale: a session and `sale_id` are needed then.",
        )
        .body::<DrawCaptcha>()
        .gives::<DrawnCaptcha>(201, "The captcha. Which fields it has depends on its `kind`.")
        .refuses(&[ProblemKind::Unauthenticated, ProblemKind::Forbidden])
}

async fn draw(
    State(app): State<App>,
    ClientAddress(client): ClientAddress,
    possible: PossibleCaller,
    Body(draw): Body<DrawCaptcha>,
) -> HandlerResult<(StatusCode, Json<DrawnCaptcha>)> {
    let wrong = |expected: &str| Problem::Invalid {
        field: "sale_id".to_owned(),
        expected: expected.to_owned(),
    };
    let drawn = match (draw.purpose, draw.sale_id) {
        (PurposeWord::Login, None) => app.draw_login_captcha(&client).await?,
        (PurposeWord::Purchase, Some(sale_id)) => {
            app.draw_purchase_captcha(&possible.caller()?, sale_id).await?
        }
        (PurposeWord::Login, Some(_)) => return Err(wrong("nothing, for purpose login")),
        (PurposeWord::Purchase, None) => return Err(wrong("the sale's id, for purpose purchase")),
    };
    Ok((StatusCode::CREATED, Json(drawn)))
}

fn get_audio() -> Endpoint {
    get("/api/captchas/{captcha_id}/audio", speak)
        .called("speak_captcha", "The same captcha, spoken.")
        .gives_bytes(200, "audio/wav", "The sound.")
        .refuses(&[ProblemKind::CaptchaGone])
}

async fn speak(
    State(app): State<App>,
    ClientAddress(client): ClientAddress,
    Params(captcha_id): Params<CaptchaId>,
) -> HandlerResult<impl IntoResponse> {
    let sound = app.speak_captcha(&client, captcha_id).await?;
    Ok(([(header::CONTENT_TYPE, "audio/wav")], sound))
}

#[cfg(test)]
mod tests {
    use flashsale::{
        http::axum::http::Request,
        testing::{self, Reply, Shop, Site},
    };
    use serde_json::json;

    use super::*;

    async fn ask(site: &Site) -> Reply {
        site.post("/api/captchas", None, json!({ "purpose": "login" })).await
    }

    fn audio(captcha_id: CaptchaId) -> String {
        format!("/api/captchas/{captcha_id}/audio")
    }

    #[tokio::test]
    async fn a_captcha_has_a_purpose() {
        let site = Shop::open(&[]).await.serve(endpoints());
        for (body, field) in [
            (json!({}), "purpose"),
            (json!({ "purpose": "else" }), "purpose"),
            (json!({ "purpose": "login", "size": 7 }), "size"),
            (json!({ "purpose": "login", "sale_id": testing::sale_id() }), "sale_id"),
            (json!({ "purpose": "purchase" }), "sale_id"),
            (json!({ "purpose": "purchase", "sale_id": "x" }), "sale_id"),
        ] {
            let reply = site.post("/api/captchas", None, body).await.refused(422, "invalid");
            assert_eq!(reply.json()["field"], field);
        }
        let reply = site.get("/api/captchas", None).await.refused(405, "method-not-allowed");
        assert_eq!(reply.header("allow"), "POST");
    }

    #[tokio::test]
    async fn a_captcha_for_a_purchase_needs_a_live_session() {
        let shop = Shop::open(&[]).await;
        let (site, token) = (shop.serve(endpoints()), shop.token().await);
        let body = || json!({ "purpose": "purchase", "sale_id": testing::sale_id() });
        for token in [None, Some("garbage")] {
            site.post("/api/captchas", token, body()).await.refused(401, "unauthenticated");
        }
        let drawn = site.post("/api/captchas", Some(&token), body()).await.expect(201).json();
        assert_eq!(drawn["kind"], "image");
        let cookie = async |more: &[(&str, &str)]| {
            let mut request = Request::post("/api/captchas")
                .header("host", "localhost")
                .header("cookie", format!("session={token}"));
            for (name, value) in more {
                request = request.header(*name, *value);
            }
            site.send(request.body(body().to_string().into()).unwrap()).await
        };
        cookie(&[]).await.refused(403, "forbidden");
        cookie(&[("origin", "http://localhost")]).await.expect(201);
        shop.app.sign_out(&shop.caller(&token).await, false).await.unwrap();
        site.post("/api/captchas", Some(&token), body()).await.refused(401, "unauthenticated");
        // A page with an ended session can still sign in.
        site.post("/api/captchas", Some(&token), json!({ "purpose": "login" })).await.expect(201);
    }

    #[tokio::test]
    async fn a_proof_of_work_is_the_challenge_of_altcha_and_has_no_sound() {
        let shop = Shop::open(&[("CAPTCHA", "work"), ("CAPTCHAS__WORK__ROUNDS", "100")]).await;
        let site = shop.serve(endpoints());
        let drawn = ask(&site).await.expect(201).json();
        let members: Vec<&String> = drawn.as_object().unwrap().keys().collect();
        assert_eq!(members, ["captcha_id", "expires_at", "kind", "parameters", "signature"]);
        let members: Vec<&String> = drawn["parameters"].as_object().unwrap().keys().collect();
        let expected = [
            "algorithm",
            "cost",
            "data",
            "expiresAt",
            "keyLength",
            "keyPrefix",
            "keySignature",
            "nonce",
            "salt",
        ];
        assert_eq!(members, expected);
        assert_eq!(drawn["parameters"]["cost"], 100);
        let id = drawn["captcha_id"].as_str().unwrap().parse().unwrap();
        site.get(&audio(id), None).await.refused(410, "captcha-gone");
    }

    #[tokio::test]
    async fn a_captcha_is_spoken_until_it_is_answered_or_over() {
        let shop = Shop::open(&[]).await;
        let site = shop.serve(endpoints());
        site.get("/api/captchas/x/audio", None).await.refused(404, "not-found");
        site.get(&audio(testing::captcha_id()), None).await.refused(410, "captcha-gone");
        let answered = shop.login_captcha().await.captcha_id;
        let spoken = site.get(&audio(answered), None).await.expect(200);
        assert_eq!((spoken.header("content-type"), &*spoken.body), ("audio/wav", &b"sound"[..]));
        shop.app.ports.captchas.take(answered, shop.app.now()).await.unwrap();
        site.get(&audio(answered), None).await.refused(410, "captcha-gone");
        let over = ask(&site).await.expect(201).json()["captcha_id"].clone();
        let over = audio(over.as_str().unwrap().parse().unwrap());
        shop.clock.advance_ms(119_999);
        site.get(&over, None).await.expect(200);
        shop.clock.advance_ms(1);
        site.get(&over, None).await.refused(410, "captcha-gone");
    }

    #[tokio::test]
    async fn one_address_draws_so_many_and_none_when_it_is_banned() {
        let shop =
            Shop::open(&[("LIMITS__CAPTCHA__LIMIT", "1"), ("LIMITS__CAPTCHA__BURST", "2")]).await;
        let site = shop.serve(endpoints());
        ask(&site).await.expect(201);
        site.get(&audio(testing::captcha_id()), None).await.refused(410, "captcha-gone");
        ask(&site).await.limited("captcha", "q=1;w=1");
        site.get(&audio(testing::captcha_id()), None).await.limited("captcha", "q=1;w=1");
        let elsewhere = site.at("198.51.100.1");
        ask(&elsewhere).await.expect(201);
        shop.ban("address", "198.51.100.1").await;
        ask(&elsewhere).await.refused(403, "banned");
        elsewhere.get(&audio(testing::captcha_id()), None).await.refused(403, "banned");
        // A captcha for a purchase counts for the address too, whoever asks.
        let third = site.at("198.51.100.2");
        ask(&third).await.expect(201);
        let purchase = async || {
            let body = json!({ "purpose": "purchase", "sale_id": testing::sale_id() });
            third.post("/api/captchas", Some(&shop.token().await), body).await
        };
        purchase().await.expect(201);
        purchase().await.limited("captcha", "q=1;w=1");
    }

    #[tokio::test]
    async fn one_address_is_limited_whatever_it_asks_for() {
        let shop =
            Shop::open(&[("LIMITS__ADDRESS__LIMIT", "1"), ("LIMITS__ADDRESS__BURST", "3")]).await;
        let site = shop.serve(endpoints());
        for _ in 0..3 {
            ask(&site).await.expect(201);
        }
        ask(&site).await.limited("address", "q=1;w=1");
        shop.clock.advance_ms(1_000);
        ask(&site).await.expect(201);
    }
}
