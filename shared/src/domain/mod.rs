//! What a flash sale is, without any input or output: ids, phones, money, sales, orders and tickets.
//!
//! Nothing here reads a clock, draws a random number or talks to a store; times and random bytes come in as
//! arguments, so every rule can be tested with plain values.

mod idempotency;
mod ids;
mod money;
mod order;
mod phone;
mod prefix;
mod quota;
mod sale;
pub mod schema;
mod time;
mod user;

pub use idempotency::{IdempotencyKey, IdempotencyKeyError};
pub use ids::{CaptchaId, IdError, OrderId, SaleId, SessionId, UserId};
pub use money::{Currency, CurrencyError};
pub use order::{Order, OrderRequest, OrderStatus, QueueMessage, RejectReason};
pub use phone::{Country, Phone, PhoneError};
pub use prefix::AddressPrefix;
pub use quota::{Ban, Quota, Subject, SubjectError};
pub use sale::{Sale, SaleChange, SaleError, SaleState, SaleTerms};
pub use time::{Timestamp, TimestampError};
pub use user::{Role, User};
