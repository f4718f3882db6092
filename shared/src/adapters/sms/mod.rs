//! Ways to send a text message: to the log, for development, or to the operator's gateway.

mod log;
mod webhook;

pub use log::LogSms;
pub use webhook::{WebhookSettings, WebhookSms};
