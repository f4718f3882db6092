//! Captchas.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::{
    CaptchaId, CaptchaKind, ChallengeLevel, KeptLevel, ProviderName, SaleId, Timestamp,
    WorkParameters,
};

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

/// A captcha, as the client receives it. Which fields are there depends on the kind.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct DrawnCaptcha {
    /// Send it with the answer.
    pub captcha_id: CaptchaId,
    /// First instant at which it is expired.
    pub expires_at: Timestamp,
    /// How the captcha is answered.
    pub kind: CaptchaKind,
    /// Kind `image`: PNG as a data URI.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Kind `work`: the challenge of ALTCHA's protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters: Option<WorkParameters>,
    /// Kind `work`: the challenge's signature.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
    /// Kind `provider`: the widget, whose token is the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<ProviderWidget>,
}

impl DrawnCaptcha {
    /// A captcha with what is to be answered.
    pub(crate) fn new(
        captcha_id: CaptchaId,
        expires_at: Timestamp,
        challenge: CaptchaChallenge,
    ) -> Self {
        let CaptchaChallenge { kind, image, parameters, signature, provider } = challenge;
        Self { captcha_id, expires_at, kind, image, parameters, signature, provider }
    }
}

/// What is to be answered.
#[derive(Debug, Clone)]
pub(crate) struct CaptchaChallenge {
    pub(crate) kind: CaptchaKind,
    pub(crate) image: Option<String>,
    pub(crate) parameters: Option<WorkParameters>,
    pub(crate) signature: Option<String>,
    pub(crate) provider: Option<ProviderWidget>,
}

/// What a page needs to show a provider's widget.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the fields of the API, see API.md")]
pub struct ProviderWidget {
    pub name: ProviderName,
    pub site_key: String,
    pub script_url: String,
}

impl CaptchaChallenge {
    /// A challenge without the fields of any kind.
    pub(crate) const fn new(kind: CaptchaKind) -> Self {
        Self { kind, image: None, parameters: None, signature: None, provider: None }
    }
}

/// The level of proofs of work.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ChallengeLevelView {
    /// The level in force.
    pub level: ChallengeLevel,
    /// When it was set; `null` when it never was.
    #[schema(required)]
    pub changed_at: Option<Timestamp>,
}

impl From<Option<KeptLevel>> for ChallengeLevelView {
    fn from(kept: Option<KeptLevel>) -> Self {
        Self {
            level: kept.map(|kept| kept.level).unwrap_or_default(),
            changed_at: kept.map(|kept| kept.changed_at),
        }
    }
}

/// Sets the level of proofs of work.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "level": "under_attack" }))]
#[expect(missing_docs, reason = "the fields of the API, see API.md")]
pub struct ChallengeLevelChange {
    pub level: ChallengeLevel,
}
