//! Captchas that wait for their answer. A restart loses them: the page requests a new one.

use async_trait::async_trait;

use super::{
    MemoryGate,
    shard::{place_of_digest, place_of_id},
};
use crate::{
    domain::{Captcha, CaptchaId, Timestamp},
    ports::{Captchas, Stored},
};

#[async_trait]
impl Captchas for MemoryGate {
    async fn put(&self, captcha: &Captcha, now: Timestamp) -> Stored<()> {
        let mut shard = self.shards.at(place_of_id(captcha.captcha_id.as_bytes()));
        shard.captchas.put(captcha.captcha_id, captcha.clone(), |kept| kept.expires_at <= now);
        Ok(())
    }

    async fn peek(&self, captcha_id: CaptchaId, now: Timestamp) -> Stored<Option<Captcha>> {
        let shard = self.shards.at(place_of_id(captcha_id.as_bytes()));
        Ok(shard.captchas.get(&captcha_id).filter(|captcha| now < captcha.expires_at).cloned())
    }

    async fn take(&self, captcha_id: CaptchaId, now: Timestamp) -> Stored<Option<Captcha>> {
        let taken = self.shards.at(place_of_id(captcha_id.as_bytes())).captchas.remove(&captcha_id);
        Ok(taken.filter(|captcha| now < captcha.expires_at))
    }

    async fn spend(
        &self,
        token: &[u8; 32],
        captcha_id: CaptchaId,
        until: Timestamp,
        now: Timestamp,
    ) -> Stored<bool> {
        let mut shard = self.shards.at(place_of_digest(token));
        let spent = shard.spent.get(token).filter(|(_, known_until)| now < *known_until);
        if let Some((by, _)) = spent {
            return Ok(*by == captcha_id);
        }
        shard.spent.put(*token, (captcha_id, until), |(_, known_until)| *known_until <= now);
        Ok(true)
    }
}
