//! Writes codes to the log instead of sending them. Only for development: this is the one place
//! where the log shows a code and a whole phone number, and production refuses the setting.

use async_trait::async_trait;

use crate::{
    domain::Sms,
    ports::{SmsSender, Stored},
};

/// The log in place of a gateway.
pub struct LogSms;

#[async_trait]
impl SmsSender for LogSms {
    async fn send(&self, sms: &Sms) -> Stored<()> {
        // At the level of warnings, so that it is seen with every usual log filter.
        tracing::warn!("phone code for {}: {}", sms.phone.as_str(), sms.code.as_str());
        Ok(())
    }
}
