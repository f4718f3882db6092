//! The way in: session, bans and limits, checked together in one trip.

use std::net::IpAddr;

use super::{App, SessionClaims};
use crate::{
    domain::{Quota, Role, Subject},
    ports::{AbusePolicy, Entered, Entry, Limit, StoreError},
    problem::Problem,
};

/// Who sends a request.
#[derive(Debug, Clone)]
pub struct Client {
    /// The address, as the trusted proxies tell it.
    pub address: IpAddr,
}

/// Look-ups of one request's session: the fast store may be emptied once more right after the first.
const LOOKUPS_MAX: usize = 2;

impl App {
    /// What a session token says, when it is ours and not over. Costs no store: whether the session is alive is asked
    /// by [`App::enter`].
    ///
    /// # Errors
    /// `unauthenticated`.
    pub fn read_session(&self, token: &str) -> Result<SessionClaims, Problem> {
        let claims: SessionClaims = self.session_keys.verify(token).ok_or(Problem::Unauthenticated)?;
        (self.now().epoch_ms() / 1_000 < claims.exp).then_some(claims).ok_or(Problem::Unauthenticated)
    }

    /// Lets a signed-in user in, or says why not.
    pub(super) async fn enter(&self, who: &SessionClaims, client: &Client, name: &'static str, quota: Quota) -> Result<(), Problem> {
        self.enter_as(who, client, name, quota, None).await
    }

    /// As [`App::enter`], for sessions of one role. What the session's record says counts; the token's word is older.
    pub(super) async fn enter_as(
        &self,
        who: &SessionClaims,
        client: &Client,
        name: &'static str,
        quota: Quota,
        role: Option<Role>,
    ) -> Result<(), Problem> {
        let user = Subject::User(who.user_id);
        let address = Subject::address(client.address);
        let mut entry = Entry {
            session: Some((who.user_id, who.session_id)),
            role,
            not_banned: vec![user.clone(), address.clone()],
            limits: vec![
                Limit { name, subject: user, quota },
                Limit { name: "address", subject: address, quota: self.config.limits.address },
            ],
            abuse: Some(self.abuse_policy()),
            now: self.now(),
        };
        for _ in 0..LOOKUPS_MAX {
            match self.ports.gate.enter(&entry).await? {
                Entered::NoSession => {}
                entered => return told(entered, &entry),
            }
            if !self.look_up_session(who, client.address).await? {
                return Err(Problem::Unauthenticated);
            }
            entry.now = self.now();
        }
        match self.ports.gate.enter(&entry).await? {
            // The ledger says that it is alive.
            Entered::NoSession => Err(Problem::Unavailable { retry_after_ms: 1_000 }),
            entered => told(entered, &entry),
        }
    }

    /// Lets somebody in who is not signed in; `also` are further limits and bans on a phone.
    pub(super) async fn enter_unknown(&self, client: &Client, name: &'static str, quota: Quota, also: Vec<Limit>) -> Result<(), Problem> {
        let address = Subject::address(client.address);
        let mut limits = vec![
            Limit { name: "address", subject: address.clone(), quota: self.config.limits.address },
            Limit { name, subject: address.clone(), quota },
        ];
        let mut not_banned = vec![address];
        for limit in also {
            if let Subject::PhoneAt(phone, _) = &limit.subject {
                not_banned.push(Subject::Phone(phone.clone()));
            }
            limits.push(limit);
        }
        self.pass(Entry { session: None, role: None, not_banned, limits, abuse: None, now: self.now() }).await
    }

    /// Lets anybody in who asks for what is not in memory.
    pub(super) async fn enter_reader(&self, client: &Client) -> Result<(), Problem> {
        let address = Subject::address(client.address);
        self.pass(Entry {
            session: None,
            role: None,
            not_banned: vec![address.clone()],
            limits: vec![Limit { name: "address", subject: address, quota: self.config.limits.address }],
            abuse: None,
            now: self.now(),
        })
        .await
    }

    fn abuse_policy(&self) -> AbusePolicy {
        let abuse = self.config.abuse;
        AbusePolicy { refusals_max: abuse.refusals_max, window_ms: abuse.window_seconds * 1_000, ban_ms: abuse.ban_seconds * 1_000 }
    }

    /// Lets somebody in whose session is not asked for.
    pub(super) async fn pass(&self, entry: Entry) -> Result<(), Problem> {
        told(self.ports.gate.enter(&entry).await?, &entry)
    }
}

/// What the gate's answer means to the one who asked.
fn told(entered: Entered, entry: &Entry) -> Result<(), Problem> {
    match entered {
        Entered::Entered => Ok(()),
        Entered::NoSession => Err(Problem::Unauthenticated),
        Entered::WrongRole => Err(Problem::Forbidden("only an administrator may do this")),
        Entered::Banned { until } => Err(Problem::Banned { until }),
        Entered::Limited { limit, retry_after_ms } => {
            let limit = entry
                .limits
                .get(limit)
                .ok_or(StoreError::Corrupt { store: "gate", cause: format!("refused by limit {limit} of {}", entry.limits.len()) })?;
            Err(Problem::RateLimited { name: limit.name, quota: Some(limit.quota), retry_after_ms })
        }
    }
}
