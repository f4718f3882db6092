//! Captchas.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::{CaptchaId, Timestamp};

/// Asks for a captcha.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Draw)]
#[expect(missing_docs, reason = "the fields of the API, see API.md")]
pub struct DrawCaptcha {
    pub purpose: PurposeWord,
}

/// What a captcha is for.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the words of the API, see API.md")]
pub enum PurposeWord {
    Login,
    Purchase,
}

/// A captcha, as the client receives it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct DrawnCaptcha {
    /// Send it with the answer.
    pub captcha_id: CaptchaId,
    /// PNG as a data URI.
    pub image: String,
    /// First instant at which it is expired.
    pub expires_at: Timestamp,
}
