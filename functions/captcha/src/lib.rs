//! `POST /api/captchas`, `GET /api/captchas/{captcha_id}/audio`.

#[cfg(feature = "openapi")]
pub mod docs;

use flashsale::{
    app::{App, DrawnCaptcha},
    domain::{CaptchaId, CaptchaPurpose},
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
        PurposeWord::Login => CaptchaPurpose::Login,
        PurposeWord::Purchase => CaptchaPurpose::Purchase,
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
