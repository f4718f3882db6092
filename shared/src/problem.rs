//! Every refusal that the product returns, and what it means to the client.
//!
//! One enum and one mapping: a use case returns a [`Problem`], `http` writes it as
//! `application/problem+json` (RFC 9457), and the page `/problems/<slug>` explains it.

use serde_json::{Map, Value, json};

use crate::{
    domain::{OrderId, OrderStatus, PhoneError, Quota, SaleError, Timestamp},
    logging::OncePerSecond,
    ports::StoreError,
};

/// One row of the table of problems.
#[derive(Debug, Clone, Copy)]
pub struct Explained {
    /// Which problem.
    pub kind: ProblemKind,
    /// The last part of the problem's `type`.
    pub slug: &'static str,
    /// HTTP status.
    pub status: u16,
    /// Short, the same for every occurrence.
    pub title: &'static str,
    /// What it means and what to do.
    pub meaning: &'static str,
}

/// Generates [`Problem`], [`ProblemKind`] and [`EXPLAINED`] from one table: the variant with its
/// data, then slug, status, title and meaning.
macro_rules! problems {
    ($($variant:ident $(($($data:ty),*))? $({ $($field:ident: $type:ty),* })?:
        $slug:literal, $status:literal, $title:literal, $meaning:literal;)*) => {
        /// A refusal.
        #[derive(Debug, Clone)]
        #[expect(missing_docs, reason = "the table says what each problem means; its members are in API.md")]
        pub enum Problem {
            $(#[doc = $meaning] $variant $(($($data),*))? $({ $($field: $type),* })?,)*
            /// A store's error: `unavailable` when the store did not answer, `internal` when its
            /// data can't be read.
            Store(StoreError),
        }

        /// The kind of a refusal, without the data of one occurrence.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum ProblemKind {
            $(#[doc = $meaning] $variant,)*
        }

        impl Problem {
            /// Its kind.
            #[must_use]
            pub const fn kind(&self) -> ProblemKind {
                match self {
                    $(Self::$variant { .. } => ProblemKind::$variant,)*
                    Self::Store(StoreError::Unavailable { .. } | StoreError::Unknown { .. }) => ProblemKind::Unavailable,
                    Self::Store(StoreError::Corrupt { .. }) => ProblemKind::Internal,
                }
            }
        }

        impl ProblemKind {
            /// Its row of the table.
            #[must_use]
            pub const fn explained(self) -> &'static Explained {
                match self {
                    $(Self::$variant => &Explained {
                        kind: Self::$variant,
                        slug: $slug,
                        status: $status,
                        title: $title,
                        meaning: $meaning,
                    },)*
                }
            }
        }

        /// Every problem, for the pages `/problems/<slug>` and for API.md.
        pub const EXPLAINED: &[Explained] = &[$(*ProblemKind::$variant.explained()),*];
    };
}

problems! {
    BadHeader(&'static str):
        "bad-header", 400, "A header can't be read",
        "A header that says where the request comes from can't be read; `detail` names it. A proxy between the client and the service writes it.";
    Invalid { field: String, expected: String }:
        "invalid", 422, "The request is not valid",
        "A field of the body, the path or the query is invalid. `field` names it, `detail` says what is expected. Repeating the request does not help.";
    InvalidPhone(PhoneError):
        "invalid-phone", 422, "The phone number is not valid",
        "The number has a wrong form, can't exist, or belongs to a country other than the United States or mainland China.";
    WeakPassword { field: &'static str, rule: &'static str }:
        "weak-password", 422, "The password is too weak",
        "`detail` names the rule that it breaks.";
    PhoneTaken:
        "phone-taken", 409, "The phone number is taken",
        "A user with this number is registered: sign in instead.";
    CaptchaRequired:
        "captcha-required", 403, "A captcha is needed",
        "Ask for one (POST /api/captchas) and send `captcha_id` and `captcha_answer` along.";
    CaptchaWrong:
        "captcha-wrong", 422, "The captcha's answer is wrong",
        "Each captcha can be answered once: ask for a new one.";
    CaptchaGone:
        "captcha-gone", 410, "The captcha is gone",
        "It has been answered before, has expired, or was made for another purpose: ask for a new one.";
    CodeWrong:
        "code-wrong", 422, "The phone code is wrong",
        "Type the code again, or ask for a new one (POST /api/phone-codes): each can be tried a few times only.";
    CodeGone:
        "code-gone", 410, "The phone code is gone",
        "No code that was sent to this number is valid: it has expired, was used, or was tried too often. Ask for a new one (POST /api/phone-codes).";
    BadCredentials:
        "bad-credentials", 401, "Phone number or password is wrong",
        "The answer does not say which.";
    Unauthenticated:
        "unauthenticated", 401, "Not signed in",
        "There is no session token, or its session has ended: sign in.";
    Forbidden(&'static str):
        "forbidden", 403, "Not allowed",
        "The signed-in user may not do this, or the request came from another site with only a cookie.";
    Banned { until: Option<Timestamp> }:
        "banned", 403, "Banned",
        "The user, the phone number or the address is on the blacklist; `until` says for how long, when it ends.";
    RateLimited { name: &'static str, quota: Option<Quota>, retry_after_ms: u64 }:
        "rate-limited", 429, "Too many requests",
        "Wait for `Retry-After` seconds. `RateLimit` and `RateLimit-Policy` say which limit it was.";
    NotFound:
        "not-found", 404, "Not found",
        "There is no such thing, or it belongs to somebody else.";
    MethodNotAllowed:
        "method-not-allowed", 405, "Method not allowed",
        "The address exists, but does not support this method; `Allow` lists the supported ones.";
    BodyTooLarge:
        "body-too-large", 413, "The body is too large",
        "A request body has at most 16 KiB.";
    UnsupportedMediaType:
        "unsupported-media-type", 415, "The body is not JSON",
        "Send `Content-Type: application/json`.";
    SaleNotOpen { starts_at: Timestamp }:
        "sale-not-open", 409, "The sale is not open yet",
        "It opens at `starts_at`.";
    SaleEnded:
        "sale-ended", 410, "The sale has ended",
        "No more orders are taken.";
    SoldOut:
        "sold-out", 409, "Sold out",
        "Every unit is taken. A unit that is not paid for in time, or given up, is sold again: it may be worth another try.";
    AlreadyBought { order_id: OrderId }:
        "already-bought", 409, "Already bought",
        "The user holds as many orders of this sale as one user may; `order_id` names one.";
    TooManyAttempts:
        "too-many-attempts", 409, "Too many attempts",
        "The user has cancelled orders of this sale, or let them expire unpaid, as often as one user may, and gets no further one.";
    NetworkSoldOut:
        "network-sold-out", 409, "Sold out for this network",
        "Orders from this network hold as many units as the sale allows one network (`units_per_prefix`; IPv4 /24, IPv6 /48). It may be worth another try when one of them is cancelled or expires, or from another network.";
    EntriesNotOpen { entries_open_at: Timestamp }:
        "entries-not-open", 409, "Entries are not open yet",
        "Entries for the draw are accepted from `entries_open_at` on.";
    NotEligible { registered_before: Timestamp }:
        "not-eligible", 403, "Not eligible for this sale",
        "Only users who registered before `registered_before` may take part.";
    NotInvited { poll_after_ms: u64 }:
        "not-invited", 409, "Not invited",
        "The sale is by draw, and it is not the user's turn: there is no entry, others come first, or the invitation has ended. Ask for the state of the entry after `poll_after_ms` milliseconds.";
    DrawNotOver { ends_at: Timestamp }:
        "draw-not-over", 409, "The draw is not over",
        "The seed and the places are published when the sale has ended, at `ends_at`.";
    BadTicket:
        "bad-ticket", 403, "The ticket is not valid",
        "It was not issued here, or for another user, session or sale: ask for a new one.";
    TicketExpired:
        "ticket-expired", 410, "The ticket has expired",
        "It was not used in time and no order was made of it: ask for a new one.";
    NotDurableYet { retry_after_ms: u64 }:
        "not-durable-yet", 503, "Not durable yet",
        "The order or the entry could not be stored safely at the moment. Send the same request again after `Retry-After` seconds: it gives the same order, or the same entry.";
    OrderQueued:
        "order-queued", 409, "The order is still queued",
        "It has not been recorded yet, which takes a moment: try again after `Retry-After` seconds.";
    OrderFinal { status: OrderStatus }:
        "order-final", 409, "The order is final",
        "It is paid, cancelled, expired or rejected (`order_status` says which) and no longer changes, or it was not paid in time.";
    Unavailable { retry_after_ms: u64 }:
        "unavailable", 503, "Unavailable for the moment",
        "A part of the service does not answer. Try again after `Retry-After` seconds.";
    FunctionFailed:
        "function-failed", 502, "A function has failed",
        "The function behind this address ended, or gave an unusable answer, while it processed the request. The request may or may not have had its effect. Try again: requests that must not take effect twice (an order, a payment) are safe to repeat.";
    FunctionTimeout:
        "function-timeout", 504, "A function took too long",
        "The function behind this address did not answer in time. The request may or may not have had its effect. Try again: requests that must not take effect twice (an order, a payment) are safe to repeat.";
    Internal:
        "internal", 500, "Something is broken",
        "The fault is ours and has been logged under the request id.";
}

impl Problem {
    /// The last part of its `type`.
    #[must_use]
    pub const fn slug(&self) -> &'static str {
        self.explained().slug
    }

    /// Its row of the table.
    #[must_use]
    pub const fn explained(&self) -> &'static Explained {
        self.kind().explained()
    }

    /// The text about this occurrence: its own, or the table's meaning.
    #[must_use]
    pub fn detail(&self) -> String {
        self.own_detail().unwrap_or_else(|| self.explained().meaning.to_owned())
    }

    fn own_detail(&self) -> Option<String> {
        Some(match self {
            Self::Invalid { field, expected } => format!("{field}: {expected}"),
            Self::InvalidPhone(error) => error.to_string(),
            Self::WeakPassword { rule, .. } => (*rule).to_owned(),
            Self::BadHeader(why) | Self::Forbidden(why) => (*why).to_owned(),
            Self::RateLimited { name, .. } => format!("limit {name:?} is used up"),
            Self::SaleNotOpen { starts_at } => format!("opens at {starts_at}"),
            Self::EntriesNotOpen { entries_open_at } => format!("open at {entries_open_at}"),
            _ => return None,
        })
    }

    /// Whether the answer's body differs between occurrences of the same kind.
    #[must_use]
    pub fn varies(&self) -> bool {
        self.own_detail().is_some() || !self.members().is_empty()
    }

    /// Members beside the standard ones.
    #[must_use]
    pub fn members(&self) -> Map<String, Value> {
        let members = match self {
            Self::Invalid { field, .. } => json!({ "field": field }),
            Self::InvalidPhone(_) => json!({ "field": "phone" }),
            Self::WeakPassword { field, .. } => json!({ "field": field }),
            Self::Banned { until: Some(until) } => json!({ "until": until }),
            Self::SaleNotOpen { starts_at } => json!({ "starts_at": starts_at }),
            Self::EntriesNotOpen { entries_open_at } => {
                json!({ "entries_open_at": entries_open_at })
            }
            Self::NotEligible { registered_before } => {
                json!({ "registered_before": registered_before })
            }
            Self::NotInvited { poll_after_ms } => json!({ "poll_after_ms": poll_after_ms }),
            Self::DrawNotOver { ends_at } => json!({ "ends_at": ends_at }),
            Self::AlreadyBought { order_id } => json!({ "order_id": order_id }),
            Self::OrderFinal { status } => json!({ "order_status": status }),
            _ => Value::Null,
        };
        match members {
            Value::Object(members) => members,
            _ => Map::new(),
        }
    }

    /// When to try again, in milliseconds, where that makes sense.
    #[must_use]
    pub const fn retry_after_ms(&self) -> Option<u64> {
        match self {
            Self::RateLimited { retry_after_ms, .. }
            | Self::NotDurableYet { retry_after_ms }
            | Self::Unavailable { retry_after_ms } => Some(*retry_after_ms),
            Self::OrderQueued
            | Self::Store(StoreError::Unavailable { .. } | StoreError::Unknown { .. }) => {
                Some(1_000)
            }
            _ => None,
        }
    }
    /// Logs the store's error behind a refusal, if there is one. The code that sends the refusal to
    /// a client or prints it calls this once, because creating a [`Problem`] logs nothing.
    pub fn log_cause(&self) {
        static LINES: OncePerSecond = OncePerSecond::new();
        match self {
            Self::Store(error @ (StoreError::Unavailable { .. } | StoreError::Unknown { .. })) => {
                if let Some(left_out) = LINES.pass() {
                    tracing::warn!(%error, left_out, "store");
                }
            }
            Self::Store(error @ StoreError::Corrupt { .. }) => tracing::error!(%error, "store"),
            _ => {}
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<SaleError> for Problem {
    fn from(error: SaleError) -> Self {
        Self::Invalid { field: error.field.to_owned(), expected: error.expected.to_owned() }
    }
}

impl From<PhoneError> for Problem {
    fn from(error: PhoneError) -> Self {
        Self::InvalidPhone(error)
    }
}
