//! The rules of a flash sale, without any I/O: ids, phones, money, sales, orders and tickets.
//!
//! Nothing here reads a clock, draws a random number or talks to a store; times and random bytes
//! are arguments, so every rule can be tested with plain values.

mod action;
mod admission;
mod ban;
mod cache;
mod captcha;
mod captcha_provider;
mod challenge_level;
mod draw;
mod gate;
mod idempotency;
mod ids;
mod lease;
mod line;
mod money;
mod order;
mod patch;
mod phone;
mod phone_code;
mod prefix;
mod queue;
mod quota;
mod recording;
mod report;
mod sale;
pub mod schema;
mod session;
mod subject;
mod ticket;
mod time;
mod user;

pub use action::{ActionKind, AdminAction, FieldChange};
pub use admission::{
    AdmissionDecision, AdmissionState, AdmissionView, Availability, EndedOrder, Reservation,
    ReservationPage, ReserveRequest, too_many_attempts,
};
pub use ban::{Ban, BanReach, KeptBan};
pub use cache::CacheEntry;
pub use captcha::{Captcha, CaptchaKind, CaptchaPurpose, NoPurpose, WorkData, WorkParameters};
pub use captcha_provider::ProviderName;
pub use challenge_level::{ChallengeLevel, KeptLevel};
pub use draw::{
    Allocation, Draw, DrawTerms, Entry, EntryState, Invitation, NoDraw, RecordedEntry, Score,
    Scores, Seed, SeedHash,
};
pub use gate::{AbusePolicy, Abuser, GateDecision, GateRequest, GateView, LimitCheck};
pub use idempotency::{IdempotencyKey, IdempotencyKeyError};
pub use ids::{ActionId, CaptchaId, IdError, OrderId, SaleId, SessionId, SmsId, UserId};
pub use lease::Lease;
pub use line::{LineFront, LineKey, PlaceTable};
pub use money::{Currency, CurrencyError};
pub use order::{AdmittedOrder, Order, OrderStatus, RejectReason, SaleTally, Transition};
pub use patch::Patch;
pub use phone::{Country, Phone, PhoneError};
pub use phone_code::{CodeDigest, KeptCode, PhoneCode, PhoneRange, Sms};
pub use prefix::{AddressPrefix, AddressPrefixError};
pub use queue::{
    ConsumerProgress, ConsumerReport, DeadLetter, Delivery, EntryMessage, QueueBacklog, QueueDepth,
    QueueMessage,
};
pub use quota::{CLOCK_SLACK_MS, CountWindow, Quota};
pub use recording::{
    LedgerSale, LedgerSlot, NewOrder, Recorded, RecordingDecision, RecordingView, Unrecordable,
};
pub use report::{OrderOrigin, OrderSignals, ReportFilter, ReportPage, ReportSort, ReportedOrder};
pub use sale::{
    CreationKey, Sale, SaleChange, SaleChanged, SaleCreated, SaleError, SaleState, SaleTerms,
};
pub use session::{KeptSession, Opening, SESSIONS_PER_USER_MAX, Session};
pub use subject::{Subject, SubjectError};
pub use ticket::TicketClaims;
pub use time::{Timestamp, TimestampError};
pub use user::{Role, User, UserChange, UserCreated};
