//! Captchas of every kind: made, bound to a purpose, and answered once.

use std::sync::LazyLock;

use metrics::Counter;
use ring::digest;
use subtle::ConstantTimeEq as _;

use super::{App, Caller, Client, SessionClaims, limits::RateLimit, proof_of_work};
use crate::{
    api::{CaptchaChallenge, DrawnCaptcha, ProviderWidget},
    config::{CaptchaMode, WhenDown},
    domain::{AddressPrefix, Captcha, CaptchaId, CaptchaKind, CaptchaPurpose, SaleId, Timestamp},
    logging::OncePerMinute,
    metrics::{CAPTCHA_ANSWERS, CAPTCHAS_DRAWN, Outcomes},
    ports::{Random, StoreError, Stored},
    problem::Problem,
};

/// Longer than any provider takes a token.
const TOKEN_KEPT_MS: u64 = 600_000;

static DRAWN: LazyLock<Counter> = LazyLock::new(|| CAPTCHAS_DRAWN.counter(&[]));
static ANSWERS: Outcomes = Outcomes::new(CAPTCHA_ANSWERS);

/// An answer to a captcha, as a client sends it.
#[derive(Debug, Clone)]
pub struct CaptchaAnswer {
    /// The captcha's id.
    pub captcha_id: CaptchaId,
    /// Of an image, the text that the client read or heard; of a proof of work, ALTCHA's payload; of a
    /// provider, its token.
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
            CaptchaMode::Provider => Ok((String::new(), self.show_widget())),
        };
        let (secret, challenge) =
            made.inspect_err(|problem| self.note_refused(problem, client, None))?;
        let drawn = DrawnCaptcha::new(captcha_id, expires_at, challenge);
        let captcha = Captcha { captcha_id, kind: drawn.kind, purpose, secret, expires_at };
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

    fn show_widget(&self) -> CaptchaChallenge {
        let settings = &self.config.captchas.provider;
        let widget = ProviderWidget {
            name: settings.name,
            site_key: settings.site_key.clone(),
            script_url: settings.script_url().to_owned(),
        };
        CaptchaChallenge { provider: Some(widget), ..CaptchaChallenge::new(CaptchaKind::Provider) }
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

    /// Checks the answer. The captcha is used up, whatever the outcome, unless a store or the provider
    /// does not answer.
    pub(super) async fn check_captcha(
        &self,
        client: &Client,
        purpose: CaptchaPurpose,
        answer: Option<CaptchaAnswer>,
    ) -> Result<(), Problem> {
        if self.config.captcha == CaptchaMode::Off {
            return Ok(());
        }
        ANSWERS.note("solved", self.take_captcha(client, purpose, answer).await)
    }

    async fn take_captcha(
        &self,
        client: &Client,
        purpose: CaptchaPurpose,
        answer: Option<CaptchaAnswer>,
    ) -> Result<(), Problem> {
        let CaptchaAnswer { captcha_id, answer } = answer.ok_or(Problem::CaptchaRequired)?;
        let captchas = &self.ports.captchas;
        let fits = |captcha: &Captcha| captcha.purpose == purpose;
        if let Some(provider) = &self.ports.captcha_provider {
            // Asked before the captcha is taken, so that it can be answered again when the provider
            // does not answer.
            let shown = captchas.peek(captcha_id, self.now()).await?.filter(fits);
            let shown = shown.ok_or(Problem::CaptchaGone)?;
            if shown.kind == CaptchaKind::Provider {
                let judged =
                    provider.accepts(&answer, purpose.as_str(), captcha_id, client.address).await;
                let accepted = self.or_when_down(judged)?;
                captchas.take(captcha_id, self.now()).await?.ok_or(Problem::CaptchaGone)?;
                let right = match accepted {
                    Accepted::ByProvider => self.spend_token(&answer, captcha_id).await?,
                    Accepted::Unjudged => true,
                    Accepted::Not => false,
                };
                return if right { Ok(()) } else { Err(Problem::CaptchaWrong) };
            }
        }
        let captcha = captchas.take(captcha_id, self.now()).await?.filter(fits);
        let captcha = captcha.ok_or(Problem::CaptchaGone)?;
        let right = match captcha.kind {
            CaptchaKind::Image => is_spelled(&captcha.secret, &answer),
            CaptchaKind::Work => proof_of_work::is_proved(&captcha.secret, &answer),
            // Shown by an instance that has a provider; this one has none.
            CaptchaKind::Provider => return Err(Problem::CaptchaGone),
        };
        if right { Ok(()) } else { Err(Problem::CaptchaWrong) }
    }

    /// What the provider's judgement means; without one, the setting decides.
    fn or_when_down(&self, judged: Stored<bool>) -> Result<Accepted, Problem> {
        static LINES: OncePerMinute = OncePerMinute::new();
        match judged {
            Ok(true) => Ok(Accepted::ByProvider),
            Ok(false) => Ok(Accepted::Not),
            // Our own settings are wrong.
            Err(error @ StoreError::Corrupt { .. }) => Err(error.into()),
            Err(error) => match self.config.captchas.provider.when_down {
                WhenDown::Refuse => Err(error.into()),
                WhenDown::Admit => {
                    if let Some(left_out) = LINES.pass() {
                        tracing::warn!(%error, left_out, "answers to captchas are admitted unjudged");
                    }
                    Ok(Accepted::Unjudged)
                }
            },
        }
    }

    /// Whether the token has answered no other captcha. The provider sees to that too, but a token
    /// that it does not bind to the captcha could come with another one.
    async fn spend_token(&self, token: &str, captcha_id: CaptchaId) -> Stored<bool> {
        let digest = digest::digest(&digest::SHA256, token.as_bytes());
        let digest = digest.as_ref().try_into().expect("SHA-256 has 32 bytes");
        let now = self.now();
        self.ports.captchas.spend(&digest, captcha_id, now.plus_ms(TOKEN_KEPT_MS), now).await
    }
}

/// What is known of a provider's token.
enum Accepted {
    /// The provider accepts it.
    ByProvider,
    /// The provider did not answer, and the setting admits such answers.
    Unjudged,
    /// The provider refuses it.
    Not,
}

/// Whether the typed text has these letters; case and spaces are ignored.
fn is_spelled(letters: &str, typed: &str) -> bool {
    let typed: String =
        typed.chars().filter(|char| !char.is_whitespace()).flat_map(char::to_lowercase).collect();
    typed.as_bytes().ct_eq(letters.as_bytes()).into()
}
