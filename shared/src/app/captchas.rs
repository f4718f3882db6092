//! Captchas of every kind: made, bound to a purpose, and answered once.

use std::sync::LazyLock;

use metrics::Counter;
use subtle::ConstantTimeEq as _;

use super::{App, Caller, Client, SessionClaims, limits::RateLimit, proof_of_work};
use crate::{
    api::{CaptchaChallenge, DrawnCaptcha},
    config::CaptchaMode,
    domain::{AddressPrefix, Captcha, CaptchaId, CaptchaKind, CaptchaPurpose, SaleId, Timestamp},
    metrics::{CAPTCHA_ANSWERS, CAPTCHAS_DRAWN, Outcomes},
    ports::Random,
    problem::Problem,
};

static DRAWN: LazyLock<Counter> = LazyLock::new(|| CAPTCHAS_DRAWN.counter(&[]));
static ANSWERS: Outcomes = Outcomes::new(CAPTCHA_ANSWERS);

/// An answer to a captcha, as a client sends it.
#[derive(Debug, Clone)]
pub struct CaptchaAnswer {
    /// The captcha's id.
    pub captcha_id: CaptchaId,
    /// Of an image, the text that the client read or heard; of a proof of work, ALTCHA's payload.
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
        let now = self.now();
        let captcha_id = CaptchaId::new(now, &self.ten());
        let expires_at = now.plus_ms(self.config.captchas.ms());
        let made = match self.config.captcha {
            // While captchas are off, a client that asks for one all the same gets a picture.
            CaptchaMode::Image | CaptchaMode::Off => self.draw_image(client).await,
            CaptchaMode::Work => self.make_work(client, captcha_id, expires_at).await,
        };
        let (secret, challenge) =
            made.inspect_err(|problem| self.note_refused(problem, client, None))?;
        let drawn = DrawnCaptcha { captcha_id, expires_at, challenge };
        let captcha =
            Captcha { captcha_id, kind: drawn.challenge.kind, purpose, secret, expires_at };
        self.ports.captchas.put(&captcha, now).await?;
        DRAWN.increment(1);
        Ok(drawn)
    }

    async fn draw_image(&self, client: &Client) -> Result<(String, CaptchaChallenge), Problem> {
        let drawn = self.studio.draw(AddressPrefix::of(client.address)).await?;
        let image = Some(drawn.image);
        Ok((drawn.answer, CaptchaChallenge { image, ..CaptchaChallenge::new(CaptchaKind::Image) }))
    }

    async fn make_work(
        &self,
        client: &Client,
        captcha_id: CaptchaId,
        expires_at: Timestamp,
    ) -> Result<(String, CaptchaChallenge), Problem> {
        let settings = self.config.captchas.work;
        let attempts_max = settings.attempts_max(self.level_in_force().await);
        let make = move |random: &dyn Random| {
            proof_of_work::make(captcha_id, expires_at, settings.rounds, attempts_max, random)
        };
        let made = self.studio.compute(AddressPrefix::of(client.address), make).await?;
        let challenge = CaptchaChallenge {
            parameters: Some(made.parameters),
            signature: Some(made.signature),
            ..CaptchaChallenge::new(CaptchaKind::Work)
        };
        Ok((made.secret, challenge))
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
        let captcha = self.ports.captchas.peek(captcha_id, self.now()).await?;
        let captcha = captcha
            .filter(|captcha| captcha.kind == CaptchaKind::Image)
            .ok_or(Problem::CaptchaGone)?;
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
        let right = match captcha.kind {
            CaptchaKind::Image => is_spelled(&captcha.secret, &given.answer),
            CaptchaKind::Work => proof_of_work::is_proved(&captcha.secret, &given.answer),
        };
        if right { Ok(()) } else { Err(Problem::CaptchaWrong) }
    }
}

/// Whether the typed text has these letters; case and spaces are ignored.
fn is_spelled(letters: &str, typed: &str) -> bool {
    let typed: String =
        typed.chars().filter(|char| !char.is_whitespace()).flat_map(char::to_lowercase).collect();
    typed.as_bytes().ct_eq(letters.as_bytes()).into()
}
