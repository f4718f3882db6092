//! Captchas as pictures and as audio.

use flashsale::{
    api::{DrawCaptcha, DrawnCaptcha, PurposeWord},
    app::App,
    domain::{CaptchaId, CaptchaPurpose},
    http::{
        Body, ClientAddress, HandlerResult, Params,
        axum::{
            Json,
            extract::State,
            http::{StatusCode, header},
            response::IntoResponse,
        },
        endpoints::{Endpoint, Endpoints, get, post},
    },
    problem::ProblemKind,
};

/// The function's endpoints.
pub fn endpoints() -> Endpoints {
    Endpoints::new(
        "Captchas",
        "Lives 120 seconds and can be answered once.",
        [post_captchas(), get_audio()],
    )
}

fn post_captchas() -> Endpoint {
    post("/api/captchas", draw)
        .called("draw_captcha", "Draws a captcha.")
        .body::<DrawCaptcha>()
        .gives::<DrawnCaptcha>(201, "The captcha; `image` is a PNG as a `data:` URI.")
}

async fn draw(
    State(app): State<App>,
    ClientAddress(client): ClientAddress,
    Body(draw): Body<DrawCaptcha>,
) -> HandlerResult<(StatusCode, Json<DrawnCaptcha>)> {
    let purpose = match draw.purpose {
        PurposeWord::Login => CaptchaPurpose::Login,
        PurposeWord::Purchase => CaptchaPurpose::Purchase,
    };
    Ok((StatusCode::CREATED, Json(app.draw_captcha(&client, purpose).await?)))
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
    use flashsale::testing::{self, Reply, Shop, Site};
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
        ] {
            let reply = site.post("/api/captchas", None, body).await.refused(422, "invalid");
            assert_eq!(reply.json()["field"], field);
        }
        let reply = site.get("/api/captchas", None).await.refused(405, "method-not-allowed");
        assert_eq!(reply.header("allow"), "POST");
    }

    #[tokio::test]
    async fn a_captcha_is_spoken_until_it_is_answered_or_over() {
        let shop = Shop::open(&[]).await;
        let site = shop.serve(endpoints());
        site.get("/api/captchas/x/audio", None).await.refused(404, "not-found");
        site.get(&audio(testing::captcha_id()), None).await.refused(410, "captcha-gone");
        let answered = shop.captcha(CaptchaPurpose::Login).await.captcha_id;
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
