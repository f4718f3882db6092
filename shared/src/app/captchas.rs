//! Captchas: drawn, spoken, and answered once.

use std::sync::LazyLock;

use metrics::Counter;
use subtle::ConstantTimeEq as _;

use super::{App, Caller, Client, SessionClaims, limits::RateLimit};
use crate::{
    api::{DrawnCaptcha, KindWord},
    config::CaptchaMode,
    domain::{AddressPrefix, Captcha, CaptchaId, CaptchaKind, CaptchaPurpose, SaleId},
    metrics::{CAPTCHA_ANSWERS, CAPTCHAS_DRAWN, Outcomes},
    problem::Problem,
};

static DRAWN: LazyLock<Counter> = LazyLock::new(|| CAPTCHAS_DRAWN.counter(&[]));
static ANSWERS: Outcomes = Outcomes::new(CAPTCHA_ANSWERS);

/// An answer to a captcha, as a client sends it.
#[derive(Debug, Clone)]
pub struct CaptchaAnswer {
    /// The captcha's id.
    pub captcha_id: CaptchaId,
    /// The text that the client read or heard; case and spaces are ignored.
    pub answer: String,
}

impl CaptchaAnswer {
    /// The answer, if a request has both of its fields.
    #[must_use]
    pub fn given(captcha_id: Option<CaptchaId>, answer: Option<String>) -> Option<Self> {
        captcha_id.zip(answer).map(|(captcha_id, answer)| Self { captcha_id, answer })
    }
}

impl CaptchaPurpose {
    /// A ticket of the caller for the sale.
    #[must_use]
    pub const fn of(caller: &Caller, sale_id: SaleId) -> Self {
        let SessionClaims { user_id, session_id, .. } = caller.session;
        Self::Purchase { user_id, session_id, sale_id }
    }
}

impl App {
    /// A captcha for registration and sign-in.
    ///
    /// # Errors
    /// `rate-limited`, `banned`.
    pub async fn draw_login_captcha(&self, client: &Client) -> Result<DrawnCaptcha, Problem> {
        self.enter_anonymous(client, RateLimit::Captcha, None).await?;
        self.make_captcha(client, CaptchaPurpose::Login).await
    }

    /// A captcha for the caller's ticket of a sale.
    ///
    /// # Errors
    /// `unauthenticated`, `rate-limited`, `banned`.
    pub async fn draw_purchase_captcha(
        &self,
        caller: &Caller,
        sale_id: SaleId,
    ) -> Result<DrawnCaptcha, Problem> {
        self.enter_at_address(caller, RateLimit::Captcha).await?;
        self.make_captcha(&caller.client, CaptchaPurpose::of(caller, sale_id)).await
    }

    async fn make_captcha(
        &self,
        client: &Client,
        purpose: CaptchaPurpose,
    ) -> Result<DrawnCaptcha, Problem> {
        let drawn = self
            .studio
            .draw(AddressPrefix::of(client.address))
            .await
            .inspect_err(|problem| self.note_refused(problem, client, None))?;
        let now = self.now();
        let captcha = Captcha {
            captcha_id: CaptchaId::new(now, &self.ten()),
            kind: CaptchaKind::Image,
            purpose,
            secret: drawn.answer,
            expires_at: now.plus_ms(self.config.captchas.ms()),
        };
        self.ports.captchas.put(&captcha, now).await?;
        DRAWN.increment(1);
        Ok(DrawnCaptcha {
            captcha_id: captcha.captcha_id,
            kind: KindWord::Image,
            image: Some(drawn.image),
            expires_at: captcha.expires_at,
        })
    }

    /// The captcha's sound, as WAV.
    ///
    /// # Errors
    /// `captcha-gone`, `rate-limited`, `banned`.
    pub async fn speak_captcha(
        &self,
        client: &Client,
        captcha_id: CaptchaId,
    ) -> Result<Vec<u8>, Problem> {
        self.enter_anonymous(client, RateLimit::Captcha, None).await?;
        let captcha =
            self.ports.captchas.peek(captcha_id, self.now()).await?.ok_or(Problem::CaptchaGone)?;
        let spoken =
            self.studio.speak(AddressPrefix::of(client.address), captcha_id, captcha.secret).await;
        spoken.inspect_err(|problem| self.note_refused(problem, client, None))
    }

    /// Checks the answer. The captcha is used up, whatever the outcome.
    pub(super) async fn check_captcha(
        &self,
        purpose: CaptchaPurpose,
        answer: Option<CaptchaAnswer>,
    ) -> Result<(), Problem> {
        if self.config.captcha == CaptchaMode::Off {
            return Ok(());
        }
        ANSWERS.note("solved", self.take_captcha(purpose, answer).await)
    }

    async fn take_captcha(
        &self,
        purpose: CaptchaPurpose,
        answer: Option<CaptchaAnswer>,
    ) -> Result<(), Problem> {
        let given = answer.ok_or(Problem::CaptchaRequired)?;
        let captcha = self
            .ports
            .captchas
            .take(given.captcha_id, self.now())
            .await?
            .ok_or(Problem::CaptchaGone)?;
        if captcha.purpose != purpose {
            return Err(Problem::CaptchaGone);
        }
        let typed: String = given
            .answer
            .chars()
            .filter(|char| !char.is_whitespace())
            .flat_map(char::to_lowercase)
            .collect();
        let right = typed.as_bytes().ct_eq(captcha.secret.as_bytes());
        if bool::from(right) { Ok(()) } else { Err(Problem::CaptchaWrong) }
    }
}
