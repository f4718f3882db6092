//! Captchas: drawn and spoken.

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
