//! Codes that prove a phone number.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::{CaptchaId, Country, Timestamp};

/// Asks for a code. There is no `Debug`, because it holds a phone number.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(description = "Asks for a code.", example = json!({ "phone": "+1 201-555-0124", "captcha_id": "01900000-0000-7000-8000-000000000000", "captcha_answer": "kpt4x" }))]
#[expect(missing_docs, reason = "the fields of the API, see API.md")]
pub struct PhoneCodeRequest {
    pub phone: String,
    pub country: Option<Country>,
    pub captcha_id: Option<CaptchaId>,
    pub captcha_answer: Option<String>,
}

/// A code is on its way.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the fields of the API, see API.md")]
pub struct PhoneCodeSent {
    pub expires_at: Timestamp,
}

/// Sets a new password with a code. There is no `Debug`, because it holds both.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(description = "Sets a new password with a code.", example = json!({ "phone": "+1 201-555-0124", "phone_code": "042137", "password": "battery staple" }))]
#[expect(missing_docs, reason = "the fields of the API, see API.md")]
pub struct PasswordRecovery {
    pub phone: String,
    pub country: Option<Country>,
    pub phone_code: String,
    pub password: String,
}
