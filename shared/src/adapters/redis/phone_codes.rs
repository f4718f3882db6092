//! Codes sent to phones, one key per number, and the count of messages, one key per day.

use std::sync::LazyLock;

use async_trait::async_trait;

use super::{
    Redis,
    keys::{arg, life_ms},
    script::Script,
};
use crate::{
    domain::{CodeDigest, KeptCode, Phone, Timestamp},
    ports::{PhoneCodes, StoreError, Stored},
};

static ATTEMPT: LazyLock<Script> =
    LazyLock::new(|| Script::new("phone_code_attempt", include_str!("lua/phone_code_attempt.lua")));
static REDEEM: LazyLock<Script> =
    LazyLock::new(|| Script::new("phone_code_redeem", include_str!("lua/phone_code_redeem.lua")));
static COUNT: LazyLock<Script> =
    LazyLock::new(|| Script::new("message_count", include_str!("lua/message_count.lua")));
static UNCOUNT: LazyLock<Script> =
    LazyLock::new(|| Script::new("message_uncount", include_str!("lua/message_uncount.lua")));

/// How long a day's count is kept after its last message: longer than the day may last on instances
/// whose clocks differ.
const COUNT_LIFE_MS: u64 = 2 * 86_400_000;

#[async_trait]
impl PhoneCodes for Redis {
    async fn put(&self, code: &KeptCode, now: Timestamp) -> Stored<()> {
        let text = format!(
            "{} {} {}",
            code.expires_at.epoch_ms(),
            code.attempts_left,
            written(code.digest)
        );
        self.command(
            redis::cmd("SET")
                .arg(self.phone_code_key(&code.phone))
                .arg(text)
                .arg("PX")
                .arg(life_ms(code.expires_at, now)),
        )
        .await
    }

    async fn attempt(&self, phone: &Phone, now: Timestamp) -> Stored<Option<CodeDigest>> {
        let digest: Option<String> =
            self.run(&ATTEMPT, &[self.phone_code_key(phone)], &[arg(now.epoch_ms())]).await?;
        digest.as_deref().map(read).transpose()
    }

    async fn redeem(&self, phone: &Phone, digest: CodeDigest, now: Timestamp) -> Stored<bool> {
        let arguments = [arg(now.epoch_ms()), arg(written(digest))];
        self.run(&REDEEM, &[self.phone_code_key(phone)], &arguments).await
    }

    async fn count_message(&self, day: u32, per_day_max: u32) -> Stored<bool> {
        self.run(&COUNT, &[self.messages_key(day)], &[arg(per_day_max), arg(COUNT_LIFE_MS)]).await
    }

    async fn uncount_message(&self, day: u32) -> Stored<()> {
        self.run(&UNCOUNT, &[self.messages_key(day)], &[]).await
    }
}

fn written(digest: CodeDigest) -> String {
    digest.0.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read(text: &str) -> Stored<CodeDigest> {
    let mut digest = [0; 32];
    let mut pairs = text.as_bytes().chunks_exact(2);
    let readable = text.len() == 2 * digest.len()
        && digest.iter_mut().zip(&mut pairs).all(|(byte, pair)| {
            let parsed =
                std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok());
            parsed.map(|parsed| *byte = parsed).is_some()
        });
    // The error does not repeat the text.
    readable.then_some(CodeDigest(digest)).ok_or_else(|| StoreError::Corrupt {
        store: "Redis",
        cause: "the code of a phone can't be read".to_owned(),
    })
}
