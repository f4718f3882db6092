//! Captchas.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::{CaptchaId, SaleId, Timestamp};

/// Asks for a captcha.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Draw, example = json!({ "purpose": "login" }))]
#[expect(missing_docs, reason = "the fields of the API, see API.md")]
pub struct DrawCaptcha {
    pub purpose: PurposeWord,
    pub sale_id: Option<SaleId>,
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
    /// How it is answered, and so which of the further fields are there.
    pub kind: KindWord,
    /// With `image`: PNG as a data URI.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// First instant at which it is expired.
    pub expires_at: Timestamp,
}

/// How a captcha is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the words of the API, see API.md")]
pub enum KindWord {
    Image,
}
