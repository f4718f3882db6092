//! The line of a sale by draw in Redis: two keys beside those of the sale's admission, in the same
//! cluster slot.
//!
//! - `admission:{<sale>}:line`, a sorted set: user id, sixteen bytes -> its [`LineKey`].
//! - `admission:{<sale>}:invited`, a sorted set: user id, 36 characters -> the end of the invitation
//!   in ms. The reserve script removes the invitation that it uses.
//!
//! The field `invited` of the sale's hash is the number of places that were invited, as far as this
//! store was told.

use std::sync::LazyLock;

use async_trait::async_trait;
use redis::Cmd;

use super::{Redis, admission::corrupt, keys::arg, script::Script};
use crate::{
    domain::{Invitation, LineKey, SaleId, Timestamp, UserId},
    ports::{FreeUnits, Line, LineLength, Stored},
};

/// Users per command: a command blocks every other client.
const BATCH_MAX: usize = 500;
/// Sampled keys per script.
const SAMPLE_MAX: u64 = 512;

static ADD: LazyLock<Script> =
    LazyLock::new(|| Script::new("line_add", include_str!("lua/line_add.lua")));
static FREE: LazyLock<Script> =
    LazyLock::new(|| Script::new("line_free", include_str!("lua/line_free.lua")));
static INVITE: LazyLock<Script> =
    LazyLock::new(|| Script::new("line_invite", include_str!("lua/line_invite.lua")));
static LENGTH: LazyLock<Script> =
    LazyLock::new(|| Script::new("line_length", include_str!("lua/line_length.lua")));
static NEXT: LazyLock<Script> =
    LazyLock::new(|| Script::new("line_next", include_str!("lua/line_next.lua")));
static SAMPLE: LazyLock<Script> =
    LazyLock::new(|| Script::new("line_sample", include_str!("lua/line_sample.lua")));

/// Redis writes scores as decimal numbers; keys are integers below 2^53, which doubles hold exactly.
fn key(text: &str) -> Stored<LineKey> {
    let number: f64 = text.parse().map_err(corrupt)?;
    if number < 0.0 || number.fract() != 0.0 || number >= (1_u64 << 53) as f64 {
        return Err(corrupt("a key of a line is not a number that one can be"));
    }
    Ok(LineKey::from_number(number as u64))
}

fn user(bytes: &[u8]) -> Stored<UserId> {
    let bytes = bytes.try_into().map_err(|_| corrupt("a line holds what is no user id"))?;
    Ok(UserId::from_bytes(bytes))
}

impl Redis {
    fn line_key(&self, sale_id: SaleId) -> String {
        let [.., line] = self.admission_keys(sale_id);
        line
    }
}

#[async_trait]
impl Line for Redis {
    async fn add(&self, sale_id: SaleId, entries: &[(UserId, LineKey)]) -> Stored<()> {
        let [sale, .., line] = self.admission_keys(sale_id);
        let keys = [sale, line];
        for batch in entries.chunks(BATCH_MAX) {
            let mut arguments = Vec::with_capacity(2 * batch.len());
            for (user_id, key) in batch {
                arguments.push(arg(key.number()));
                arguments.push(user_id.as_bytes().to_vec());
            }
            let _: u8 = self.run(&ADD, &keys, &arguments).await?;
        }
        Ok(())
    }

    async fn length(&self, sale_id: SaleId) -> Stored<LineLength> {
        let (in_time, late): (u64, u64) =
            self.run(&LENGTH, &[self.line_key(sale_id)], &[arg(LineKey::late(0).number())]).await?;
        Ok(LineLength { in_time, late })
    }

    async fn key(&self, sale_id: SaleId, user_id: UserId) -> Stored<Option<LineKey>> {
        let mut score = Cmd::new();
        score.arg("ZSCORE").arg(self.line_key(sale_id)).arg(user_id.as_bytes().as_slice());
        let text: Option<String> = self.command(&score).await?;
        text.as_deref().map(key).transpose()
    }

    async fn place(&self, sale_id: SaleId, user_id: UserId) -> Stored<Option<u64>> {
        let mut rank = Cmd::new();
        rank.arg("ZRANK").arg(self.line_key(sale_id)).arg(user_id.as_bytes().as_slice());
        self.command(&rank).await
    }

    async fn next(
        &self,
        sale_id: SaleId,
        after: Option<(LineKey, UserId)>,
        limit: u32,
    ) -> Stored<Vec<(UserId, LineKey)>> {
        let after = after.map_or_else(Vec::new, |(_, user_id)| user_id.as_bytes().to_vec());
        let found: Option<Vec<(Vec<u8>, String)>> =
            self.run(&NEXT, &[self.line_key(sale_id)], &[after, arg(limit)]).await?;
        let found = found.ok_or_else(|| corrupt("the line has lost a user who was invited"))?;
        found.iter().map(|(id, text)| Ok((user(id)?, key(text)?))).collect()
    }

    async fn sample(&self, sale_id: SaleId, count: u64, step: u64) -> Stored<Vec<LineKey>> {
        let step = step.max(1);
        let line = self.line_key(sale_id);
        let (mut keys, mut from) = (Vec::new(), 0);
        while from < count {
            let until = count.min(from + step * SAMPLE_MAX);
            let arguments = [arg(from), arg(until), arg(step)];
            let texts: Vec<String> =
                self.run(&SAMPLE, std::slice::from_ref(&line), &arguments).await?;
            for text in &texts {
                keys.push(key(text)?);
            }
            from = until.next_multiple_of(step);
        }
        Ok(keys)
    }

    async fn free(&self, sale_id: SaleId, now: Timestamp) -> Stored<Option<FreeUnits>> {
        let [sale, held, _, invited, _] = self.admission_keys(sale_id);
        let found: Option<(u32, u32, u64)> =
            self.run(&FREE, &[sale, held, invited], &[arg(now.epoch_ms())]).await?;
        Ok(found.map(|(free, open_invitations, invited)| FreeUnits {
            free,
            open_invitations,
            invited,
        }))
    }

    async fn invite(&self, sale_id: SaleId, next: &[Invitation], invited: u64) -> Stored<()> {
        let [sale, _, _, ending, _] = self.admission_keys(sale_id);
        let keys = [sale, ending];
        // The number is raised with the last batch only: after a failure the caller comes again with
        // all of them.
        let mut batches = next.chunks(BATCH_MAX).peekable();
        let empty: &[Invitation] = &[];
        let mut batch = batches.next().unwrap_or(empty);
        loop {
            let last = batches.peek().is_none();
            let mut arguments = vec![arg(invited), arg(u8::from(last))];
            for invitation in batch {
                arguments.push(arg(invitation.until.epoch_ms()));
                arguments.push(arg(invitation.user_id));
            }
            let _: u8 = self.run(&INVITE, &keys, &arguments).await?;
            let Some(following) = batches.next() else { return Ok(()) };
            batch = following;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::StoreError;

    #[test]
    fn keys_are_read_as_redis_writes_them() {
        for text in ["0", "4503599627370496", "9.007199254740991e+15", "9007199254740991"] {
            assert!(key(text).is_ok(), "{text}");
        }
        assert_eq!(key("4503599627370498").unwrap(), LineKey::late(2));
        for text in ["-1", "1.5", "x", "9007199254740992", "inf", "nan"] {
            assert!(matches!(key(text), Err(StoreError::Corrupt { .. })), "{text}");
        }
    }
}
