//! The captcha providers that the product knows.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A captcha provider. All speak siteverify; their widgets differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProviderName {
    /// Cloudflare Turnstile.
    Turnstile,
    /// hCaptcha.
    Hcaptcha,
    /// Google reCAPTCHA, version 2.
    Recaptcha,
}

impl ProviderName {
    /// Where tokens are judged.
    #[must_use]
    pub const fn verify_url(self) -> &'static str {
        match self {
            Self::Turnstile => "https://challenges.cloudflare.com/turnstile/v0/siteverify",
            Self::Hcaptcha => "https://api.hcaptcha.com/siteverify",
            Self::Recaptcha => "https://www.google.com/recaptcha/api/siteverify",
        }
    }

    /// The script that makes the widget when it is asked to.
    #[must_use]
    pub const fn script_url(self) -> &'static str {
        match self {
            Self::Turnstile => {
                "https://challenges.cloudflare.com/turnstile/v0/api.js?render=explicit"
            }
            Self::Hcaptcha => "https://js.hcaptcha.com/1/api.js?render=explicit",
            Self::Recaptcha => "https://www.google.com/recaptcha/api.js?render=explicit",
        }
    }

    /// The origins that the widget loads from, as a content security policy names them.
    #[must_use]
    pub const fn origins(self) -> &'static [&'static str] {
        match self {
            Self::Turnstile => &["https://challenges.cloudflare.com"],
            Self::Hcaptcha => &["https://hcaptcha.com", "https://*.hcaptcha.com"],
            Self::Recaptcha => &[
                "https://www.google.com/recaptcha/",
                "https://www.gstatic.com/recaptcha/",
                "https://recaptcha.google.com/recaptcha/",
            ],
        }
    }
}
