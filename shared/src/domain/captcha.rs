//! Captchas.

use std::fmt;

use super::{CaptchaId, Timestamp};

/// What a captcha was drawn for; it is valid for no other purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CaptchaPurpose {
    /// Registration and sign-in.
    Login,
    /// A ticket.
    Purchase,
}

impl CaptchaPurpose {
    /// The name in the API and in the stores.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Purchase => "purchase",
        }
    }
}

/// A drawn captcha. `Debug` hides the answer.
#[derive(Clone, PartialEq, Eq)]
pub struct Captcha {
    /// Its id.
    pub captcha_id: CaptchaId,
    /// The purpose that it is valid for.
    pub purpose: CaptchaPurpose,
    /// The right answer.
    pub answer: String,
    /// First instant at which it is expired.
    pub expires_at: Timestamp,
}

impl fmt::Debug for Captcha {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Captcha")
            .field("captcha_id", &self.captcha_id)
            .field("purpose", &self.purpose)
            .finish_non_exhaustive()
    }
}
