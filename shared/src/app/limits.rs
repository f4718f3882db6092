//! The limits that the configuration sets.

use super::App;
use crate::domain::{LimitCheck, Quota, Subject};

/// A configured limit, with its quota and its name in headers, metrics and logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RateLimit {
    /// Requests of an address that are not answered from memory.
    Address,
    /// Tickets of a user.
    Ticket,
    /// Orders of a user.
    Order,
    /// A user's entries in draws.
    Entry,
    /// A user's requests about orders.
    OrderStatus,
    /// A user's requests about the account and its sessions.
    Account,
    /// An administrator's requests.
    Admin,
    /// Captchas of an address.
    Captcha,
    /// Registrations from an address.
    Register,
    /// Sign-ins from an address.
    Login,
    /// Sign-ins with one phone from one address.
    LoginPhone,
    /// Requests for phone codes from an address.
    PhoneCode,
    /// Text messages to one phone within hours.
    PhoneCodeHour,
    /// Text messages to one phone within days.
    PhoneCodeDay,
    /// Text messages to a range of phones.
    PhoneCodeRange,
    /// An address's requests with sessions that the fast store does not know.
    SessionLookup,
    /// Entries from a network. Tickets have no such limit: one more key costs 7 % of their
    /// rate, and each is limited by user and address.
    AddressNetwork,
    /// Captchas of a network.
    CaptchaNetwork,
    /// Registrations from a network.
    RegisterNetwork,
    /// Sign-ins from a network.
    LoginNetwork,
}

impl RateLimit {
    /// The limit against which a request with this limit is also counted, once for each network
    /// around its address.
    pub(super) const fn of_network(self) -> Option<Self> {
        match self {
            Self::Entry => Some(Self::AddressNetwork),
            Self::Captcha => Some(Self::CaptchaNetwork),
            Self::Register => Some(Self::RegisterNetwork),
            Self::Login => Some(Self::LoginNetwork),
            _ => None,
        }
    }
}

impl App {
    /// The limit applied to a subject.
    pub(super) fn limit(&self, limit: RateLimit, subject: Subject) -> LimitCheck {
        let quotas = &self.config.limits;
        let (name, quota): (_, Quota) = match limit {
            RateLimit::Address => ("address", quotas.address),
            RateLimit::Ticket => ("ticket", quotas.ticket),
            RateLimit::Order => ("order", quotas.order),
            RateLimit::Entry => ("entry", quotas.entry),
            RateLimit::OrderStatus => ("order-status", quotas.order_status),
            RateLimit::Account => ("account", quotas.account),
            RateLimit::Admin => ("admin", quotas.admin),
            RateLimit::Captcha => ("captcha", quotas.captcha),
            RateLimit::Register => ("register", quotas.register),
            RateLimit::Login => ("login", quotas.login),
            RateLimit::LoginPhone => ("login-phone", quotas.login_phone),
            RateLimit::PhoneCode => ("phone-code", quotas.phone_code),
            RateLimit::PhoneCodeHour => ("phone-code-hour", quotas.phone_code_hour),
            RateLimit::PhoneCodeDay => ("phone-code-day", quotas.phone_code_day),
            RateLimit::PhoneCodeRange => ("phone-code-range", quotas.phone_code_range),
            RateLimit::SessionLookup => ("session-lookup", quotas.address),
            RateLimit::AddressNetwork => ("address-network", self.of_network(quotas.address)),
            RateLimit::CaptchaNetwork => ("captcha-network", self.of_network(quotas.captcha)),
            RateLimit::RegisterNetwork => ("register-network", self.of_network(quotas.register)),
            RateLimit::LoginNetwork => ("login-network", self.of_network(quotas.login)),
        };
        LimitCheck { name, subject, quota }
    }

    /// What a network may, where each of its addresses may this much.
    fn of_network(&self, quota: Quota) -> Quota {
        let times = self.config.limits.network_times;
        Quota {
            limit: quota.limit.saturating_mul(times),
            burst: quota.burst.saturating_mul(times),
            ..quota
        }
    }
}
