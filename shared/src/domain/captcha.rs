//! Captchas.

use std::fmt;

use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use super::{CaptchaId, SaleId, SessionId, Timestamp, UserId};

/// What a captcha was made for; it is valid for nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CaptchaPurpose {
    /// Registration and sign-in.
    Login,
    /// A ticket for this user, in this session, for this sale.
    Purchase {
        /// The user.
        user_id: UserId,
        /// The session.
        session_id: SessionId,
        /// The sale.
        sale_id: SaleId,
    },
}

impl CaptchaPurpose {
    /// The name in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Purchase { .. } => "purchase",
        }
    }
}

/// The stored form: `login`, or `purchase/USER/SESSION/SALE`.
impl fmt::Display for CaptchaPurpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())?;
        match self {
            Self::Login => Ok(()),
            Self::Purchase { user_id, session_id, sale_id } => {
                write!(f, "/{user_id}/{session_id}/{sale_id}")
            }
        }
    }
}

/// A text that is no purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no purpose of a captcha")]
pub struct NoPurpose;

impl std::str::FromStr for CaptchaPurpose {
    type Err = NoPurpose;

    fn from_str(text: &str) -> Result<Self, NoPurpose> {
        let parts: Vec<&str> = text.split('/').collect();
        match parts.as_slice() {
            ["login"] => Ok(Self::Login),
            ["purchase", user_id, session_id, sale_id] => Ok(Self::Purchase {
                user_id: user_id.parse().map_err(|_| NoPurpose)?,
                session_id: session_id.parse().map_err(|_| NoPurpose)?,
                sale_id: sale_id.parse().map_err(|_| NoPurpose)?,
            }),
            _ => Err(NoPurpose),
        }
    }
}

/// How a captcha is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum CaptchaKind {
    /// By the letters that are drawn and spoken.
    Image,
    /// By a proof of work.
    Work,
    /// By a token of a captcha provider.
    Provider,
}

impl CaptchaKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Image, Self::Work, Self::Provider];

    /// The name in the API and in the stores.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Work => "work",
            Self::Provider => "provider",
        }
    }
}

/// The parameters of a proof of work, as ALTCHA's protocol writes them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkParameters {
    /// How a key is derived from a number.
    pub algorithm: String,
    /// The captcha's id.
    #[serde(rename = "data", serialize_with = "as_data")]
    #[schema(value_type = WorkData)]
    pub captcha_id: CaptchaId,
    /// Rounds of one derivation.
    pub cost: u32,
    /// When the captcha expires, in whole seconds since 1970.
    pub expires_at: i64,
    /// Bytes of a derived key.
    pub key_length: usize,
    /// How the key begins that is searched for, hexadecimal.
    pub key_prefix: String,
    /// A signature of that key, for the server.
    pub key_signature: String,
    /// Random bytes in front of the number, hexadecimal.
    pub nonce: String,
    /// The salt of the derivation, hexadecimal.
    pub salt: String,
}

/// What a challenge carries along.
#[derive(Serialize, ToSchema)]
pub struct WorkData {
    /// The captcha's id.
    captcha_id: CaptchaId,
}

fn as_data<S: Serializer>(captcha_id: &CaptchaId, to: S) -> Result<S::Ok, S::Error> {
    WorkData { captcha_id: *captcha_id }.serialize(to)
}

/// A captcha that waits for its answer. `Debug` hides the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Captcha {
    /// Its id.
    pub captcha_id: CaptchaId,
    /// How it is answered.
    pub kind: CaptchaKind,
    /// What it is valid for.
    pub purpose: CaptchaPurpose,
    /// What an answer is checked with. Image: the letters. Work: the key that signed the challenge.
    /// Provider: nothing.
    pub secret: String,
    /// First instant at which it is expired.
    pub expires_at: Timestamp,
}

impl fmt::Debug for Captcha {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Captcha")
            .field("captcha_id", &self.captcha_id)
            .field("kind", &self.kind)
            .field("purpose", &self.purpose)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{captcha_id, order_id, sale_id, session_id, user_id};

    #[test]
    fn a_purpose_is_read_as_it_is_written() {
        let purchase = || CaptchaPurpose::Purchase {
            user_id: user_id(),
            session_id: session_id(),
            sale_id: sale_id(),
        };
        for purpose in [CaptchaPurpose::Login, purchase(), purchase()] {
            assert_eq!(purpose.to_string().parse(), Ok(purpose));
        }
        assert_ne!(purchase(), purchase());
        let three = format!("{}/{}", session_id(), sale_id());
        for wrong in [
            "",
            "else",
            "purchase",
            "login/",
            &format!("purchase/{three}"),
            &format!("purchase/x/{three}"),
            &format!("{}/{}", purchase(), order_id()),
        ] {
            assert_eq!(wrong.parse::<CaptchaPurpose>(), Err(NoPurpose), "{wrong}");
        }
    }

    #[test]
    fn a_secret_is_not_shown() {
        let captcha = Captcha {
            captcha_id: captcha_id(),
            kind: CaptchaKind::Image,
            purpose: CaptchaPurpose::Login,
            secret: "kpt4x".to_owned(),
            expires_at: Timestamp::from_epoch_ms(0),
        };
        assert!(!format!("{captcha:?}").contains("kpt4x"));
    }
}
