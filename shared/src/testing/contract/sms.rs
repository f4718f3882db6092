//! Text messages.

use std::sync::Arc;

use crate::{
    domain::{PhoneCode, Sms, SmsId},
    ports::SmsSender,
    testing::{START, phone, user_id},
};

/// A sender, and what was delivered.
pub struct SmsPorts {
    /// The sender.
    pub sender: Arc<dyn SmsSender>,
    /// All text that whoever delivers messages has received.
    pub delivered: Box<dyn Fn() -> String + Send + Sync>,
}

/// A new message.
#[must_use]
pub fn sms() -> Sms {
    let random = *user_id().as_bytes();
    let mut ten = [0; 10];
    ten.copy_from_slice(&random[6..]);
    let mut eight = [0; 8];
    eight.copy_from_slice(&random[8..]);
    Sms {
        sms_id: SmsId::new(START, &ten),
        phone: phone(),
        code: PhoneCode::from_random(eight),
        expires_at: START.plus_ms(600_000),
    }
}

/// An accepted message is delivered with its number and its code, also when it is repeated.
pub async fn accepted_is_delivered(ports: &SmsPorts) {
    let (one, other) = (sms(), sms());
    for sms in [&one, &other, &one] {
        ports.sender.send(sms).await.expect("a message is accepted");
    }
    let delivered = (ports.delivered)();
    for sms in [&one, &other] {
        assert!(delivered.contains(sms.phone.as_str()), "{delivered}");
        assert!(delivered.contains(sms.code.as_str()), "{delivered}");
    }
}
