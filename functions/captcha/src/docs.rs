//! What the OpenAPI document says of this function.

use flashsale::{
    app::DrawnCaptcha,
    http::openapi::{Operation, get, post},
};

use super::Draw;

/// The group these operations are shown in, and what it is about.
pub const GROUP: (&str, &str) = ("Captchas", "Lives 120 seconds and can be answered once.");

/// The function's operations.
pub fn operations() -> Vec<Operation> {
    vec![
        post("/api/captchas", "draw_captcha", "Draws a captcha.")
            .body::<Draw>()
            .gives::<DrawnCaptcha>(201, "The captcha; `image` is a PNG as a `data:` URI."),
        get("/api/captchas/{captcha_id}/audio", "speak_captcha", "The same captcha, spoken.")
            .gives_bytes(200, "audio/wav", "The sound.")
            .refuses(&["captcha-gone"]),
    ]
}
