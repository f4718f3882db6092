//! Users and their sessions.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::{CaptchaId, Country, Phone, Role, Timestamp, User, UserId};

/// Registers or signs in. There is no `Debug`, because it holds a password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(description = "Registers or signs in.", example = json!({ "phone": "+1 201-555-0124", "password": "correct horse" }))]
#[expect(missing_docs, reason = "the fields of the API, see API.md")]
pub struct Account {
    pub phone: String,
    pub country: Option<Country>,
    pub password: String,
    pub captcha_id: Option<CaptchaId>,
    pub captcha_answer: Option<String>,
}

/// Registers. There is no `Debug`, because it holds a password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(description = "Registers.", example = json!({ "phone": "+1 201-555-0124", "password": "correct horse", "phone_code": "042137" }))]
#[expect(missing_docs, reason = "the fields of the API, see API.md")]
pub struct Registration {
    pub phone: String,
    pub country: Option<Country>,
    pub password: String,
    pub phone_code: Option<String>,
    pub captcha_id: Option<CaptchaId>,
    pub captcha_answer: Option<String>,
}

/// Replaces a password. There is no `Debug`, because it holds both passwords.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(description = "Replaces a password.", example = json!({ "old_password": "correct horse", "new_password": "battery staple" }))]
#[expect(missing_docs, reason = "the fields of the API, see API.md")]
pub struct PasswordChange {
    pub old_password: String,
    pub new_password: String,
}

/// A new shopper.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the fields of the API, see API.md")]
pub struct Registered {
    pub user_id: UserId,
    pub phone: Phone,
}

/// A user, as the user sees it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct UserView {
    /// Its id.
    pub user_id: UserId,
    /// The phone number in E.164 form.
    pub phone: Phone,
    /// Its role.
    pub role: Role,
}

impl From<&User> for UserView {
    fn from(user: &User) -> Self {
        Self { user_id: user.user_id, phone: user.phone.clone(), role: user.role }
    }
}

/// A new session. There is no `Debug`, because it holds the token.
#[derive(Serialize, ToSchema)]
#[schema(description = "A new session.")]
pub struct SignedIn {
    /// The session token, a JWT.
    pub token: String,
    /// First instant at which it is expired.
    pub expires_at: Timestamp,
    /// The user who signed in.
    pub user: UserView,
}

/// The session's user and its expiry.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the fields of the API, see API.md")]
pub struct CurrentSession {
    pub user: UserView,
    pub expires_at: Timestamp,
}
