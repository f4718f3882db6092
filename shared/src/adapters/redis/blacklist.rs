//! Bans: a key beside the subject's other keys, which the gate reads, and two indexes of all banned
//! subjects.
//!
//! In a cluster the two live on different nodes, so a ban is stored in two steps: first in the
//! indexes, then under its own key. A crash in between leaves a listed subject without a ban, which
//! `list` skips and removes; it never leaves a ban that no list shows. Only the ban's own key
//! decides whether it holds, and for how long.

use std::{collections::VecDeque, sync::LazyLock};

use async_trait::async_trait;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use redis::Cmd;

use super::{
    Redis,
    keys::{Tag, arg, life_ms},
    script::Script,
};
use crate::{
    domain::{Ban, Subject, Timestamp},
    ports::{Blacklist, StoreError, Stored},
};

static PUT: LazyLock<Script> =
    LazyLock::new(|| Script::new("ban_put", include_str!("lua/ban_put.lua")));
static LIFT: LazyLock<Script> =
    LazyLock::new(|| Script::new("ban_lift", include_str!("lua/ban_lift.lua")));
static INDEX_PUT: LazyLock<Script> =
    LazyLock::new(|| Script::new("ban_index_put", include_str!("lua/ban_index_put.lua")));
static LOADING: LazyLock<Script> =
    LazyLock::new(|| Script::new("bans_loading", include_str!("lua/bans_loading.lua")));
static LOADED: LazyLock<Script> =
    LazyLock::new(|| Script::new("bans_loaded", include_str!("lua/bans_loaded.lua")));
static INDEX_REMOVE: LazyLock<Script> =
    LazyLock::new(|| Script::new("ban_index_remove", include_str!("lua/ban_index_remove.lua")));

/// Listed subjects read per call.
const PAGE: usize = 200;
/// Bans read concurrently.
const READS_MAX: usize = 64;
/// A subject listed without a ban is removed after this long. Until then its ban may still be in
/// the process of being stored.
const SETTLED_MS: u64 = 60_000;
/// An ended ban is removed from the indexes after this long, which is more than clocks may differ.
const ENDED_MS: u64 = 86_400_000;

#[async_trait]
impl Blacklist for Redis {
    async fn ban(&self, ban: &Ban) -> Stored<()> {
        self.put_ban(ban, false).await
    }

    async fn lift(&self, subject: &Subject) -> Stored<bool> {
        self.lift_older(subject, Timestamp::MAX).await
    }

    async fn lift_older(&self, subject: &Subject, put_until: Timestamp) -> Stored<bool> {
        let member = Tag(subject).to_string();
        let [put, _] = self.ban_index_keys();
        // Read before lifting, so that a ban stored in the meantime stays listed.
        let seen: Option<f64> = self.command(redis::cmd("ZSCORE").arg(put).arg(&member)).await?;
        let lifted: i32 =
            self.run(&LIFT, &[self.ban_key(subject)], &[arg(put_until.epoch_ms())]).await?;
        if let Some(seen) = seen.filter(|_| lifted >= 0) {
            self.unlist(&member, seen).await?;
        }
        Ok(lifted > 0)
    }

    async fn list(&self, now: Timestamp, offset: u32, limit: u32) -> Stored<Vec<Ban>> {
        let mut skip = offset;
        let mut page = Vec::new();
        let mut listed = Listed::new(self);
        while page.len() < limit as usize {
            let Some((member, put, ban)) = listed.next().await? else { break };
            match ban {
                Some(ban) if ban.holds(now) => {
                    if skip > 0 {
                        skip -= 1;
                    } else {
                        page.push(ban);
                    }
                }
                Some(_) => {}
                None if now.since_ms(Timestamp::from_epoch_ms(put as i64)) > SETTLED_MS => {
                    listed.dropped += self.unlist(&member, put).await?;
                }
                None => {}
            }
        }
        Ok(page)
    }

    async fn restore(&self, bans: &[Ban]) -> Stored<()> {
        // Owned values, because the compiler can't prove `Send` for a stream of borrowed work in an
        // async trait.
        let bans: Vec<Ban> = bans.to_vec();
        let put = stream::iter(bans)
            .map(|ban| async move { self.put_ban(&ban, true).await })
            .buffer_unordered(READS_MAX);
        put.collect::<Vec<Stored<()>>>().await.into_iter().collect()
    }

    async fn begin_loading(&self, token: u128) -> Stored<bool> {
        let begun: u32 = self.run(&LOADING, &[self.bans_loaded_key()], &[arg(token)]).await?;
        Ok(begun == 1)
    }

    async fn finish_loading(&self, token: u128) -> Stored<()> {
        self.run(&LOADED, &[self.bans_loaded_key()], &[arg(token)]).await
    }
}

impl Redis {
    /// Stores a ban. An automatic or restored ban only replaces one that ends earlier.
    pub(super) async fn put_ban(&self, ban: &Ban, automatic: bool) -> Stored<()> {
        let key = self.ban_key(&ban.subject);
        if automatic {
            // The script decides; this check only keeps the earlier ban's position in the list.
            let earlier: Option<String> = self.command(&Cmd::get(&key)).await?;
            let earlier = earlier.map(|text| read(ban.subject.clone(), &text)).transpose()?;
            if earlier.is_some_and(|earlier| earlier.lasts_as_long_as(ban)) {
                return Ok(());
            }
        }
        let until =
            ban.expires_at.map_or_else(|| "never".to_owned(), |end| end.epoch_ms().to_string());
        let index = [
            arg(Tag(&ban.subject)),
            arg(ban.created_at.epoch_ms()),
            arg(&until),
            arg(ban.created_at.minus_ms(ENDED_MS).epoch_ms()),
        ];
        let _: u32 = self.run(&INDEX_PUT, &self.ban_index_keys(), &index).await?;
        let kept = format!("{until} {} {}", ban.created_at.epoch_ms(), ban.reason);
        let life = ban.expires_at.map_or(0, |end| life_ms(end, ban.created_at));
        let arguments =
            [arg(until), arg(kept), arg(life), arg(if automatic { "automatic" } else { "" })];
        let _: u32 = self.run(&PUT, &[key, self.strikes_key(&ban.subject)], &arguments).await?;
        Ok(())
    }

    /// Returns the number of entries removed from the list.
    async fn unlist(&self, member: &str, seen: f64) -> Stored<usize> {
        self.run(&INDEX_REMOVE, &self.ban_index_keys(), &[arg(member), arg(seen)]).await
    }
}

/// Reads the listed subjects, newest first, with their bans.
struct Listed<'r> {
    redis: &'r Redis,
    read: usize,
    /// Entries removed meanwhile: later ones have moved up by this many.
    dropped: usize,
    ahead: VecDeque<(String, f64, Option<Ban>)>,
    /// The last entry returned: new bans push it down into the range that is read next.
    last: Option<(f64, String)>,
}

impl<'r> Listed<'r> {
    fn new(redis: &'r Redis) -> Self {
        Self { redis, read: 0, dropped: 0, ahead: VecDeque::new(), last: None }
    }

    async fn next(&mut self) -> Stored<Option<(String, f64, Option<Ban>)>> {
        if self.ahead.is_empty() {
            let [put, _] = self.redis.ban_index_keys();
            let from = self.read - self.dropped;
            let command = redis::cmd("ZREVRANGE")
                .arg(put)
                .arg(from)
                .arg(from + PAGE - 1)
                .arg("WITHSCORES")
                .to_owned();
            let members: Vec<(String, f64)> = self.redis.command(&command).await?;
            self.read += members.len();
            let last = self.last.take();
            self.last = members.last().map(|(member, put)| (*put, member.clone()));
            let members = members.into_iter().filter(move |(member, put)| {
                last.as_ref().is_none_or(|(last_put, last_member)| {
                    put < last_put || (put == last_put && member < last_member)
                })
            });
            let redis = self.redis;
            let bans = stream::iter(members).map(|(member, put)| async move {
                let subject = member
                    .split_once(':')
                    .and_then(|(kind, value)| Subject::from_stored(kind, value).ok());
                let subject =
                    subject.ok_or_else(|| corrupt("the list of bans names what is no subject"))?;
                let text: Option<String> =
                    redis.command(&Cmd::get(redis.ban_key(&subject))).await?;
                Ok((member, put, text.map(|text| read(subject, &text)).transpose()?))
            });
            self.ahead = bans.buffered(READS_MAX).try_collect().await?;
        }
        Ok(self.ahead.pop_front())
    }
}

/// Parses a ban from `UNTIL CREATED REASON`.
fn read(subject: Subject, text: &str) -> Stored<Ban> {
    let parse = || {
        let mut words = text.splitn(3, ' ');
        let until = words.next()?;
        let created = words.next()?.parse().ok()?;
        let reason = words.next()?.to_owned();
        let expires_at = match until {
            "never" => None,
            ms => Some(Timestamp::from_epoch_ms(ms.parse().ok()?)),
        };
        Some((reason, Timestamp::from_epoch_ms(created), expires_at))
    };
    let (reason, created_at, expires_at) = parse().ok_or_else(|| corrupt("a ban can't be read"))?;
    Ok(Ban { subject, reason, created_at, expires_at })
}

fn corrupt(cause: &str) -> StoreError {
    StoreError::Corrupt { store: "Redis", cause: cause.to_owned() }
}
