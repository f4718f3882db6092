//! Captchas: drawn, spoken, and answered once.

use serde::Serialize;
use subtle::ConstantTimeEq as _;

use super::{App, Client};
use crate::{
    config::CaptchaMode,
    domain::{CaptchaId, Timestamp},
    ports::{Captcha, Purpose},
    problem::Problem,
};

/// An answer to a captcha, as a client sends it.
#[derive(Debug, Clone)]
pub struct CaptchaAnswer {
    /// Which captcha.
    pub captcha_id: CaptchaId,
    /// What the client read or heard; capitals and spaces don't count.
    pub answer: String,
}

/// A captcha as a client gets it.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DrawnCaptcha {
    /// To be sent along with the answer.
    pub captcha_id: CaptchaId,
    /// PNG as a data URI.
    pub image: String,
    /// First instant at which it is gone.
    pub expires_at: Timestamp,
}

impl App {
    /// Draws a captcha.
    ///
    /// # Errors
    /// `rate-limited`, `banned`.
    pub async fn draw_captcha(&self, client: &Client, purpose: Purpose) -> Result<DrawnCaptcha, Problem> {
        self.enter_unknown(client, "captcha", self.config.limits.captcha, Vec::new()).await?;
        let now = self.now();
        let answer = self.ports.artist.answer(self.ports.random.as_ref());
        let captcha = Captcha {
            captcha_id: CaptchaId::new(now, &self.ten()),
            purpose,
            answer: answer.clone(),
            expires_at: now.plus_ms(self.config.captchas.ms()),
        };
        self.ports.captchas.put(&captcha, now).await?;
        let image = self.drawing(move |artist| artist.draw(&answer)).await?;
        let image = format!("data:image/png;base64,{}", base64::Engine::encode(&base64::engine::general_purpose::STANDARD, image));
        Ok(DrawnCaptcha { captcha_id: captcha.captcha_id, image, expires_at: captcha.expires_at })
    }

    /// The captcha's sound, WAV.
    ///
    /// # Errors
    /// `captcha-gone`, `rate-limited`, `banned`.
    pub async fn speak_captcha(&self, client: &Client, captcha_id: CaptchaId) -> Result<Vec<u8>, Problem> {
        self.enter_unknown(client, "captcha", self.config.limits.captcha, Vec::new()).await?;
        let captcha = self.ports.captchas.peek(captcha_id, self.now()).await?.ok_or(Problem::CaptchaGone)?;
        self.drawing(move |artist| artist.speak(&captcha.answer)).await
    }

    /// Takes the captcha and checks the answer; whatever the outcome, the captcha is used up.
    pub(super) async fn check_captcha(&self, purpose: Purpose, answer: Option<CaptchaAnswer>) -> Result<(), Problem> {
        if self.config.captcha == CaptchaMode::Off {
            return Ok(());
        }
        let given = answer.ok_or(Problem::CaptchaRequired)?;
        let captcha = self.ports.captchas.take(given.captcha_id, self.now()).await?.ok_or(Problem::CaptchaGone)?;
        if captcha.purpose != purpose {
            return Err(Problem::CaptchaGone);
        }
        let typed: String = given.answer.chars().filter(|char| !char.is_whitespace()).flat_map(char::to_lowercase).collect();
        let right = typed.as_bytes().ct_eq(captcha.answer.as_bytes());
        if bool::from(right) { Ok(()) } else { Err(Problem::CaptchaWrong) }
    }

    /// Drawing takes milliseconds of processor time: not on a thread that answers requests, and not on all processors.
    async fn drawing(
        &self,
        work: impl FnOnce(&dyn crate::ports::CaptchaArtist) -> Result<Vec<u8>, crate::ports::StoreError> + Send + 'static,
    ) -> Result<Vec<u8>, Problem> {
        let _turn = self.drawing_turns.acquire().await.expect("the semaphore is never closed");
        let artist = std::sync::Arc::clone(&self.ports.artist);
        tokio::task::spawn_blocking(move || work(artist.as_ref()))
            .await
            .map_err(|error| {
                tracing::error!(%error, "captcha work ended early");
                Problem::Internal
            })?
            .map_err(Problem::from)
    }
}
