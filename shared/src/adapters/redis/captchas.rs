//! Captchas: one key each, read and deleted in one step. Tokens of a provider: one key each.

use std::sync::LazyLock;

use async_trait::async_trait;
use redis::Cmd;

use super::{
    Redis,
    keys::{arg, life_ms},
    script::Script,
};
use crate::{
    domain::{Captcha, CaptchaId, CaptchaKind, Timestamp},
    ports::{Captchas, StoreError, Stored},
};

static TAKE: LazyLock<Script> =
    LazyLock::new(|| Script::new("captcha_take", include_str!("lua/captcha_take.lua")));
static SPEND: LazyLock<Script> =
    LazyLock::new(|| Script::new("captcha_spend", include_str!("lua/captcha_spend.lua")));

#[async_trait]
impl Captchas for Redis {
    async fn put(&self, captcha: &Captcha, now: Timestamp) -> Stored<()> {
        let text = format!(
            "{} {} {} {}",
            captcha.kind.as_str(),
            captcha.purpose,
            captcha.expires_at.epoch_ms(),
            captcha.secret
        );
        let life = life_ms(captcha.expires_at, now);
        self.command(
            redis::cmd("SET")
                .arg(self.captcha_key(captcha.captcha_id))
                .arg(text)
                .arg("PX")
                .arg(life),
        )
        .await
    }

    async fn peek(&self, captcha_id: CaptchaId, now: Timestamp) -> Stored<Option<Captcha>> {
        let text = self.command(&Cmd::get(self.captcha_key(captcha_id))).await?;
        read(captcha_id, text, now)
    }

    async fn take(&self, captcha_id: CaptchaId, now: Timestamp) -> Stored<Option<Captcha>> {
        let text = self.run(&TAKE, &[self.captcha_key(captcha_id)], &[]).await?;
        read(captcha_id, text, now)
    }

    async fn spend(
        &self,
        token: &[u8; 32],
        captcha_id: CaptchaId,
        until: Timestamp,
        now: Timestamp,
    ) -> Stored<bool> {
        let life = until.since_ms(now).max(1);
        let by_this: u8 =
            self.run(&SPEND, &[self.spent_key(token)], &[arg(captcha_id), arg(life)]).await?;
        Ok(by_this == 1)
    }
}

/// Parses a captcha from `KIND PURPOSE END SECRET`. `None` when it has expired.
fn read(captcha_id: CaptchaId, text: Option<String>, now: Timestamp) -> Stored<Option<Captcha>> {
    let Some(text) = text else { return Ok(None) };
    let parse = || {
        let mut words = text.splitn(4, ' ');
        let kind = words.next()?;
        let kind = CaptchaKind::ALL.into_iter().find(|known| known.as_str() == kind)?;
        let purpose = words.next()?.parse().ok()?;
        let expires_at = Timestamp::from_epoch_ms(words.next()?.parse().ok()?);
        Some(Captcha { captcha_id, kind, purpose, secret: words.next()?.to_owned(), expires_at })
    };
    // The error does not repeat the text, because that holds the secret.
    let captcha = parse().ok_or_else(|| StoreError::Corrupt {
        store: "Redis",
        cause: format!("captcha {captcha_id} can't be read"),
    })?;
    Ok((now < captcha.expires_at).then_some(captcha))
}
