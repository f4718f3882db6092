//! The security log: one line for each event that an operator looks for after an attack. All lines
//! have the target `flashsale::security`, so that a log filter or a collector can select them.
//!
//! A line names the event, the sender's network (`address`, never the whole address) and the user's
//! id where there is one. Phone numbers, tokens and captcha answers never appear. One attacker can
//! cause thousands of refusals a second, so these are written once per second and limit, with the
//! number of lines left out.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    domain::{AddressPrefix, AdminAction, GateRequest, Subject, UserId},
    logging::OncePerSecond,
    metrics::BANS,
};

/// The target of every line.
pub const TARGET: &str = "flashsale::security";

/// A password was wrong. `user_id` is set if the phone number belongs to a user.
pub fn sign_in_failed(address: IpAddr, user_id: Option<UserId>) {
    let user_id = user_id.map(tracing::field::display);
    tracing::warn!(target: TARGET, event = "sign-in-failed", address = %AddressPrefix::of(address), user_id);
}

/// A signed-in user gave a wrong old password.
pub fn password_change_failed(address: IpAddr, user_id: UserId) {
    tracing::warn!(target: TARGET, event = "password-change-failed", address = %AddressPrefix::of(address), %user_id);
}

/// A code that was to prove a phone number was wrong.
pub fn phone_code_wrong(address: IpAddr) {
    tracing::warn!(target: TARGET, event = "phone-code-wrong", address = %AddressPrefix::of(address));
}

/// A password was set with a code that was sent to the user's phone.
pub fn password_recovered(address: IpAddr, user_id: UserId) {
    tracing::warn!(target: TARGET, event = "password-recovered", address = %AddressPrefix::of(address), %user_id);
}

/// The gate banned a user or an address after too many refusals by limits.
pub fn banned_automatically(entry: &GateRequest, subject: &Subject) {
    BANS.counter(&["automatic"]).increment(1);
    let (address, user_id) = (address_of(entry), user_of(subject).map(tracing::field::display));
    tracing::warn!(target: TARGET, event = "banned-automatically", address = address.map(tracing::field::display), user_id);
}

/// An administrator's action.
pub fn administered(action: &AdminAction) {
    let AdminAction { address_prefix, admin_id, kind, object, .. } = action;
    tracing::warn!(target: TARGET, event = kind.as_str(), address = %address_prefix, user_id = %admin_id, %object);
}

/// The subject of a ban in a form that may be logged: a user's id, an address's network, or only
/// that it is a phone.
#[must_use]
pub fn loggable(subject: &Subject) -> String {
    match subject {
        Subject::User(user_id) => format!("user {user_id}"),
        Subject::Address(address) => format!("address in {}", AddressPrefix::of(*address)),
        Subject::Network(prefix) => format!("network {prefix}"),
        Subject::Phone(_) | Subject::PhoneAt(..) | Subject::PhoneRange(_) => "phone".to_owned(),
    }
}

fn address_of(entry: &GateRequest) -> Option<AddressPrefix> {
    entry.not_banned.iter().chain(entry.limits.iter().map(|limit| &limit.subject)).find_map(
        |subject| match subject {
            Subject::Address(address) => Some(AddressPrefix::of(*address)),
            _ => None,
        },
    )
}

fn user_of(subject: &Subject) -> Option<UserId> {
    match subject {
        Subject::User(user_id) => Some(*user_id),
        _ => None,
    }
}

/// Limits the lines about refusals: one per second for each limit, and one for bans.
#[derive(Default)]
pub struct Refused {
    /// By the limit's name (the code has a few).
    limits: Mutex<Vec<(&'static str, Arc<OncePerSecond>)>>,
}

impl Refused {
    /// A request was refused by a limit.
    pub fn by_limit(&self, limit: &'static str, address: IpAddr, user_id: Option<UserId>) {
        if let Some(left_out) = self.pace(limit).pass() {
            let user_id = user_id.map(tracing::field::display);
            tracing::warn!(target: TARGET, event = "limit-reached", limit, address = %AddressPrefix::of(address), user_id, left_out);
        }
    }

    /// A request was refused by a ban.
    pub fn by_ban(&self, address: IpAddr, user_id: Option<UserId>) {
        if let Some(left_out) = self.pace("").pass() {
            let user_id = user_id.map(tracing::field::display);
            tracing::warn!(target: TARGET, event = "banned", address = %AddressPrefix::of(address), user_id, left_out);
        }
    }

    fn pace(&self, name: &'static str) -> Arc<OncePerSecond> {
        let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, pace)) = limits.iter().find(|(known, _)| *known == name) {
            return Arc::clone(pace);
        }
        let pace = Arc::new(OncePerSecond::new());
        limits.push((name, Arc::clone(&pace)));
        pace
    }
}
