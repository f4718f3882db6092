//! `POST /api/captchas`, `GET /api/captchas/{captcha_id}/audio`.

#[cfg(feature = "openapi")]
pub mod docs;

use flashsale::{
    app::{App, DrawnCaptcha},
    domain::CaptchaId,
    http::{
        Answer, Body, ClientAddress, Params,
        axum::{
            Json, Router,
            extract::State,
            http::{StatusCode, header},
            response::IntoResponse,
            routing::{get, post},
        },
    },
    ports::Purpose,
};
use serde::Deserialize;

/// The function's routes.
pub fn router(app: App) -> Router {
    Router::new()
        .route("/api/captchas", post(draw))
        .route("/api/captchas/{captcha_id}/audio", get(speak))
        .with_state(app)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
struct Draw {
    purpose: PurposeWord,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
enum PurposeWord {
    Login,
    Purchase,
}

async fn draw(
    State(app): State<App>,
    ClientAddress(client): ClientAddress,
    Body(draw): Body<Draw>,
) -> Answer<(StatusCode, Json<DrawnCaptcha>)> {
    let purpose = match draw.purpose {
        PurposeWord::Login => Purpose::Login,
        PurposeWord::Purchase => Purpose::Purchase,
    };
    Ok((StatusCode::CREATED, Json(app.draw_captcha(&client, purpose).await?)))
}

async fn speak(
    State(app): State<App>,
    ClientAddress(client): ClientAddress,
    Params(captcha_id): Params<CaptchaId>,
) -> Answer<impl IntoResponse> {
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
        let site = Shop::open(&[]).await.serve(router);
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
        let site = shop.serve(router);
        site.get("/api/captchas/x/audio", None).await.refused(404, "not-found");
        site.get(&audio(testing::captcha_id()), None).await.refused(410, "captcha-gone");
        let answered = shop.captcha(Purpose::Login).await.captcha_id;
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
        let site = shop.serve(router);
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
        let site = shop.serve(router);
        for _ in 0..3 {
            ask(&site).await.expect(201);
        }
        ask(&site).await.limited("address", "q=1;w=1");
        shop.clock.advance_ms(1_000);
        ask(&site).await.expect(201);
    }
}
