//! All keys of the gate, the locks and the cache, in one place.
//!
//! Each begins with the store's prefix. The part in braces is the hash tag: a cluster keeps keys
//! with the same tag together. `SUBJECT` is a [`Subject`]'s kind and value, such as `user:0190…`,
//! `address:192.0.2.7`, `network:192.0.2.0/24`, `phone:+1201…`.
//!
//! | key | type | content | expiry |
//! |---|---|---|---|
//! | `sessions:{user:ID}` | hash | session id -> `END` (epoch ms), or `END ROLE` unless it is a shopper's; at most 20 | last end |
//! | `ban:{SUBJECT}` | string | `UNTIL CREATED REASON`: end (epoch ms or `never`), creation (epoch ms), text | end of the ban; `never`: none |
//! | `limit:NAME:{SUBJECT}` | string | GCRA's theoretical arrival time, epoch µs | a full burst's time, within which it lies in the past |
//! | `strikes:{SUBJECT}` | string | `COUNT END`: refusals within the window, its end in epoch ms | end of the window |
//! | `failures:{SUBJECT}` | string | `COUNT END`, likewise | end of the window |
//! | `challenge:{ID}` | string | `KIND PURPOSE END SECRET` of a captcha | end |
//! | `spent:{DIGEST}` | string | id of the captcha that a provider's token answered; the digest is hexadecimal | ten minutes, by the server's own time |
//! | `phone-code:{phone:NUMBER}` | string | `END ATTEMPTS DIGEST`: end (epoch ms), attempts left, keyed hash (hex) | end |
//! | `sms:{DAY}` | string | text messages of the day, which is counted since 1970 (UTC) | two days, by the server's own time |
//! | `bans:put:{bans}` | sorted set | `SUBJECT` by its ban's creation, epoch ms | none; ended bans are removed when others are created |
//! | `bans:ending:{bans}` | sorted set | `SUBJECT` by the end of its ban, epoch ms; none without end | likewise |
//! | `bans:loaded:{bans}` | string | `loaded` once the operators' bans are restored, before that the token of the process that restores them | none |
//! | `lock:{NAME}` | string | `TOKEN:FENCE` of the holder | the lease: here time is the server's own |
//! | `fence:{NAME}` | string | last fence given out | none; lock names are few |
//! | `holders:{queue}` | hash | process -> `BEAT SESSION HANDED_BACK RECEIVED DONE REPORTED`: how far a consumer of the queue is | a minute, by the server's own time |
//! | `cached:{KEY}` | string | version (twenty digits), then the value | its time to live, by the server's own time |
//!
//! Except for locks, cache, spent tokens and `sms`, a key outlives its content by [`SLACK_MS`]: the key's expiry only
//! collects garbage, and the caller's clock decides whether the content is still valid.

use std::fmt::{self, Write as _};

use super::Redis;
use crate::domain::{CaptchaId, Phone, Subject, Timestamp, UserId};

/// How much longer than needed a key is kept, in milliseconds: more than the clocks of instances
/// may differ.
pub(super) const SLACK_MS: u64 = 60_000;

/// Capacity for the longest of the usual keys.
const KEY_BYTES: usize = 80;

/// A group of keys that a cluster keeps together: those of one user, one address or one phone.
/// Written without an allocation, because the gate writes several per request.
pub(super) struct Tag<'s>(pub(super) &'s Subject);

impl fmt::Display for Tag<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Subject::User(user_id) => write!(f, "user:{user_id}"),
            Subject::Address(ip) => write!(f, "address:{ip}"),
            other => write!(f, "{}:{}", other.kind(), other.value()),
        }
    }
}

impl Redis {
    fn named(&self, name: fmt::Arguments<'_>) -> String {
        let mut key = self.key("");
        key.reserve(KEY_BYTES);
        key.write_fmt(name).expect("writing to a String does not fail");
        key
    }

    pub(super) fn sessions_key(&self, user_id: UserId) -> String {
        self.named(format_args!("sessions:{{user:{user_id}}}"))
    }

    pub(super) fn ban_key(&self, of: &Subject) -> String {
        self.named(format_args!("ban:{{{}}}", Tag(of)))
    }

    pub(super) fn limit_key(&self, name: &str, of: &Subject) -> String {
        self.named(format_args!("limit:{name}:{{{}}}", Tag(of)))
    }

    pub(super) fn strikes_key(&self, of: &Subject) -> String {
        self.named(format_args!("strikes:{{{}}}", Tag(of)))
    }

    pub(super) fn failures_key(&self, of: &Subject) -> String {
        self.named(format_args!("failures:{{{}}}", Tag(of)))
    }

    pub(super) fn captcha_key(&self, captcha_id: CaptchaId) -> String {
        self.named(format_args!("challenge:{{{captcha_id}}}"))
    }

    pub(super) fn spent_key(&self, token: &[u8; 32]) -> String {
        let digest: String = token.iter().map(|byte| format!("{byte:02x}")).collect();
        self.named(format_args!("spent:{{{digest}}}"))
    }

    pub(super) fn phone_code_key(&self, phone: &Phone) -> String {
        self.named(format_args!("phone-code:{{phone:{}}}", phone.as_str()))
    }

    pub(super) fn messages_key(&self, day: u32) -> String {
        self.named(format_args!("sms:{{{day}}}"))
    }

    /// The indexes of bans: by creation time, and by end.
    pub(super) fn ban_index_keys(&self) -> [String; 2] {
        [self.key("bans:put:{bans}"), self.key("bans:ending:{bans}")]
    }

    pub(super) fn bans_loaded_key(&self) -> String {
        self.key("bans:loaded:{bans}")
    }

    pub(super) fn lock_key(&self, name: &str) -> String {
        self.named(format_args!("lock:{{{name}}}"))
    }

    pub(super) fn fence_key(&self, name: &str) -> String {
        self.named(format_args!("fence:{{{name}}}"))
    }

    pub(super) fn consumer_reports_key(&self) -> String {
        self.key("holders:{queue}")
    }

    pub(super) fn cached_key(&self, key: &str) -> String {
        self.named(format_args!("cached:{{{key}}}"))
    }
}

/// Time to live of a key whose content ends at `end`, in milliseconds.
pub(super) fn life_ms(end: Timestamp, now: Timestamp) -> u64 {
    end.since_ms(now).saturating_add(SLACK_MS)
}

/// An argument of a script.
pub(super) fn arg(value: impl ToString) -> Vec<u8> {
    value.to_string().into_bytes()
}
