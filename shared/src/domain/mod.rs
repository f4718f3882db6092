//! The rules of a flash sale, without any I/O: ids, phones, money, sales, orders and tickets.
//!
//! Nothing here reads a clock, draws a random number or talks to a store; times and random bytes
//! are arguments, so every rule can be tested with plain values.

mod admission;
mod ban;
mod captcha;
mod captcha_provider;
mod challenge_level;
mod gate;
mod idempotency;
mod ids;
mod lease;
mod money;
mod order;
mod phone;
mod prefix;
mod queue;
mod quota;
mod recording;
mod sale;
pub mod schema;
mod session;
mod subject;
mod ticket;
mod time;
mod user;

pub use admission::{
    AdmissionDecision, AdmissionState, AdmissionView, Availability, Reservation, ReservationPage,
};
pub use ban::{Ban, KeptBan};
pub use captcha::{Captcha, CaptchaKind, CaptchaPurpose, NoPurpose, WorkData, WorkParameters};
pub use captcha_provider::ProviderName;
pub use challenge_level::{ChallengeLevel, KeptLevel};
pub use gate::{AbusePolicy, GateDecision, GateRequest, GateView, LimitCheck};
pub use idempotency::{IdempotencyKey, IdempotencyKeyError};
pub use ids::{CaptchaId, IdError, OrderId, SaleId, SessionId, UserId};
pub use lease::Lease;
pub use money::{Currency, CurrencyError};
pub use order::{AdmittedOrder, Order, OrderStatus, RejectReason, SaleTally, Transition};
pub use phone::{Country, Phone, PhoneError};
pub use prefix::AddressPrefix;
pub use queue::{
    ConsumerProgress, ConsumerReport, DeadLetter, Delivery, QueueBacklog, QueueDepth, QueueMessage,
};
pub use quota::{CLOCK_SLACK_MS, CountWindow, Quota};
pub use recording::{
    LedgerSale, LedgerSlot, NewOrder, Recorded, RecordingDecision, RecordingView, Unrecordable,
};
pub use sale::{
    CreationKey, Sale, SaleChange, SaleChanged, SaleCreated, SaleError, SaleState, SaleTerms,
};
pub use session::{KeptSession, Opening, SESSIONS_PER_USER_MAX, Session};
pub use subject::{Subject, SubjectError};
pub use ticket::TicketClaims;
pub use time::{Timestamp, TimestampError};
pub use user::{Role, User, UserChange, UserCreated};
