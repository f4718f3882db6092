//! Access control: session, bans and limits are checked in one round trip.

use std::{fmt::Display, net::IpAddr};

use tracing::Instrument as _;

use super::{App, SessionClaims, limits::RateLimit, refusal_cache::Recalled};
use crate::{
    domain::{
        AbusePolicy, GateDecision, GateRequest, LimitCheck, Phone, Role, Subject, Timestamp, UserId,
    },
    ports::StoreError,
    problem::Problem,
    security,
    trace::STEP,
};

/// The sender of a request.
#[derive(Debug, Clone)]
pub struct Client {
    /// The address, as the trusted proxies report it.
    pub address: IpAddr,
}

/// The sender of a request that needs a session: the claims of its token, and its address. The
/// token's signature and expiry have been checked; each use case first checks whether the session
/// is alive.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The token's claims.
    pub session: SessionClaims,
    /// Where the request comes from.
    pub client: Client,
}

/// Most look-ups of one request's session: the fast store may lose its data again right after the
/// first.
const LOOKUPS_MAX: usize = 2;

/// An admitted administrator; only [`App::enter_admin`] makes one. Every use case for
/// administrators takes it, even one that only reads, so that a forgotten check does not compile. A
/// use case that changes something writes to the security log right after the change is stored, so
/// that neither a later failure nor a disconnected client suppresses the entry.
#[derive(Debug, Clone, Copy)]
pub struct Admin {
    user_id: UserId,
    address: IpAddr,
}

impl Admin {
    /// Writes the administrator's action to the security log; `object` names what was changed,
    /// without personal data.
    pub(super) fn did(&self, event: &'static str, object: &dyn Display) {
        security::administered(event, self.address, self.user_id, object);
    }

    /// The administrator's user id.
    pub(super) const fn user_id(&self) -> UserId {
        self.user_id
    }
}

impl App {
    /// The claims of a session token, if its signature is ours and it has not expired. No store is
    /// asked about the session: [`App::enter`] checks whether it is alive.
    ///
    /// # Errors
    /// `unauthenticated`; `unavailable` when the development profile's key must be read from the
    /// ledger, which does not answer.
    pub async fn read_session(&self, token: &str) -> Result<SessionClaims, Problem> {
        let keys = self.session_keys.ring(&self.ports).await?;
        let claims = self.verified_sessions.verify(keys, token).ok_or(Problem::Unauthenticated)?;
        (self.now().epoch_ms() / 1_000 < claims.exp)
            .then_some(claims)
            .ok_or(Problem::Unauthenticated)
    }

    /// Admits an administrator whose address may use the admin API.
    ///
    /// # Errors
    /// `forbidden`, `unauthenticated`, `rate-limited`, `banned`.
    pub async fn enter_admin(&self, caller: &Caller) -> Result<Admin, Problem> {
        let (networks, address) = (&self.config.admin_networks, caller.client.address);
        if !networks.is_empty() && !networks.iter().any(|network| network.contains(address)) {
            return Err(Problem::Forbidden("this does not answer in your network"));
        }
        // Needs no store; the session's record, checked below, has the last word.
        if caller.session.role != Role::Admin {
            return Err(Problem::Forbidden("only an administrator may do this"));
        }
        let user = Subject::User(caller.session.user_id);
        self.enter_as(caller, self.limit(RateLimit::Admin, user), Some(Role::Admin)).await?;
        Ok(Admin { user_id: caller.session.user_id, address })
    }

    /// Admits a signed-in user, or returns why not.
    pub(super) async fn enter(&self, caller: &Caller, limit: RateLimit) -> Result<(), Problem> {
        let user = Subject::User(caller.session.user_id);
        self.enter_as(caller, self.limit(limit, user), None).await
    }

    /// As [`App::enter`], with a limit that is counted for the user's address.
    pub(super) async fn enter_at_address(
        &self,
        caller: &Caller,
        limit: RateLimit,
    ) -> Result<(), Problem> {
        let address = Subject::address(caller.client.address);
        self.enter_as(caller, self.limit(limit, address), None).await
    }

    /// As [`App::enter`], for sessions of one role. The role in the session's record counts; the
    /// token's is older.
    async fn enter_as(
        &self,
        caller: &Caller,
        limit: LimitCheck,
        role: Option<Role>,
    ) -> Result<(), Problem> {
        let Caller { session: SessionClaims { user_id, session_id, .. }, client } = caller;
        let user = Subject::User(*user_id);
        let address = Subject::address(client.address);
        let mut entry = GateRequest {
            session: Some((*user_id, *session_id)),
            role,
            not_banned: vec![user, address.clone()],
            limits: vec![limit, self.limit(RateLimit::Address, address)],
            abuse: Some(self.abuse_policy()),
            now: self.now(),
        };
        let entered = match self.refusals.recall(&entry, self.monotonic_ms()) {
            Recalled::Refused(problem) => Err(problem),
            Recalled::Nothing => self.enter_session(caller, &mut entry).await,
        };
        entered.inspect_err(|problem| self.note_refused(problem, client, Some(*user_id)))
    }

    /// Asks the gate, and the ledger when the gate does not know the session.
    async fn enter_session(&self, caller: &Caller, entry: &mut GateRequest) -> Result<(), Problem> {
        for _ in 0..LOOKUPS_MAX {
            match self.ask_gate(entry).await? {
                GateDecision::NoSession => {}
                entered => return told(entered, entry),
            }
            if !self.look_up_session(caller).await? {
                return Err(Problem::Unauthenticated);
            }
            entry.now = self.now();
        }
        match self.ask_gate(entry).await? {
            // The ledger has just confirmed that the session is alive, so `unauthenticated` would
            // be wrong.
            GateDecision::NoSession => Err(Problem::Unavailable { retry_after_ms: 1_000 }),
            entered => told(entered, entry),
        }
    }

    /// Admits a request without a session. If it is about a phone, the phone's ban and its limit
    /// from this address are checked too.
    pub(super) async fn enter_anonymous(
        &self,
        client: &Client,
        limit: RateLimit,
        phone: Option<&Phone>,
    ) -> Result<(), Problem> {
        let address = Subject::address(client.address);
        let mut limits = vec![
            self.limit(RateLimit::Address, address.clone()),
            self.limit(limit, address.clone()),
        ];
        let mut not_banned = vec![address];
        if let Some(phone) = phone {
            not_banned.push(Subject::Phone(phone.clone()));
            let from_here = Subject::phone_at(phone.clone(), client.address);
            limits.push(self.limit(RateLimit::LoginPhone, from_here));
        }
        self.pass(
            client,
            GateRequest {
                session: None,
                role: None,
                not_banned,
                limits,
                abuse: None,
                now: self.now(),
            },
        )
        .await
    }

    /// Admits an anonymous request for data that is not in memory.
    pub(super) async fn enter_reader(&self, client: &Client) -> Result<(), Problem> {
        let address = Subject::address(client.address);
        self.pass(
            client,
            GateRequest {
                session: None,
                role: None,
                not_banned: vec![address.clone()],
                limits: vec![self.limit(RateLimit::Address, address)],
                abuse: None,
                now: self.now(),
            },
        )
        .await
    }

    fn abuse_policy(&self) -> AbusePolicy {
        let abuse = self.config.abuse;
        AbusePolicy {
            refusals_max: abuse.refusals_max,
            window_ms: abuse.window_seconds * 1_000,
            ban_ms: abuse.ban_seconds * 1_000,
            also_refused: 0,
        }
    }

    /// Limits requests that are answered from this process's memory, with a counter in this
    /// process.
    pub(super) async fn enter_memory(
        &self,
        client: &Client,
        user_id: Option<UserId>,
        limit: RateLimit,
    ) -> Result<(), Problem> {
        let subject = user_id.map_or_else(|| Subject::address(client.address), Subject::User);
        let limit = self.limit(limit, subject);
        let counted = self.refusals.count(&limit, self.now());
        counted.map_err(|retry_after_ms| {
            let problem =
                Problem::RateLimited { name: limit.name, quota: Some(limit.quota), retry_after_ms };
            self.note_refused(&problem, client, user_id);
            problem
        })
    }

    /// Writes a refusal by a limit or a ban to the security log.
    pub(super) fn note_refused(&self, problem: &Problem, client: &Client, user_id: Option<UserId>) {
        match problem {
            Problem::RateLimited { name, .. } => {
                self.refused.by_limit(name, client.address, user_id)
            }
            Problem::Banned { .. } => self.refused.by_ban(client.address, user_id),
            _ => {}
        }
    }

    /// Admits a request whose session is not checked.
    async fn pass(&self, client: &Client, entry: GateRequest) -> Result<(), Problem> {
        self.pass_unnoted(entry)
            .await
            .inspect_err(|problem| self.note_refused(problem, client, None))
    }

    /// As [`App::pass`], without a line in the security log: the caller logs the refusal of the
    /// whole request.
    pub(super) async fn pass_unnoted(&self, mut entry: GateRequest) -> Result<(), Problem> {
        match self.refusals.recall(&entry, self.monotonic_ms()) {
            Recalled::Refused(problem) => Err(problem),
            Recalled::Nothing => {
                self.ask_gate(&mut entry).await.and_then(|entered| told(entered, &entry))
            }
        }
    }

    /// Asks the gate, reports to it the refusals that were answered from memory, and remembers its
    /// refusal.
    async fn ask_gate(&self, entry: &mut GateRequest) -> Result<GateDecision, Problem> {
        let unreported = self.refusals.take_unreported(entry);
        if let Some(abuse) = &mut entry.abuse {
            abuse.also_refused = unreported;
        }
        // Read before the call, so that a remembered refusal ends too early rather than too late.
        let asked_at_ms = self.monotonic_ms();
        let step = tracing::info_span!(target: STEP, "gate.enter", otel.kind = "client");
        let entered = self.ports.gate.enter(entry).instrument(step).await;
        if !matches!(entered, Ok(GateDecision::Limited { .. })) {
            self.refusals.keep_unreported(entry, unreported);
        }
        let entered = entered?;
        match entered {
            GateDecision::Banned { until } => self.remember_ban(entry, until, asked_at_ms).await?,
            GateDecision::Limited { limit, retry_after_ms } => {
                if let Some(limit) = entry.limits.get(limit) {
                    self.refusals.note_limited(
                        entry,
                        limit,
                        retry_after_ms,
                        unreported,
                        asked_at_ms,
                    );
                }
            }
            GateDecision::Entered | GateDecision::NoSession | GateDecision::WrongRole => {}
        }
        Ok(entered)
    }

    /// Remembers a ban. If the store's answer may refer to the address or to another subject, the
    /// store is asked about the address alone, so that a banned address that tries one phone after
    /// another is refused from memory.
    async fn remember_ban(
        &self,
        entry: &GateRequest,
        until: Option<Timestamp>,
        asked_at_ms: u64,
    ) -> Result<(), Problem> {
        self.refusals.note_banned(&entry.not_banned, until, asked_at_ms);
        let address =
            entry.not_banned.iter().find(|subject| matches!(subject, Subject::Address(_)));
        let Some(address) = address.filter(|_| entry.not_banned.len() > 1) else { return Ok(()) };
        let alone = GateRequest {
            session: None,
            role: None,
            not_banned: vec![address.clone()],
            limits: Vec::new(),
            abuse: None,
            now: entry.now,
        };
        if let GateDecision::Banned { until } = self.ports.gate.enter(&alone).await? {
            self.refusals.note_banned(&alone.not_banned, until, asked_at_ms);
        }
        Ok(())
    }
}

/// The gate's decision as the caller receives it.
fn told(entered: GateDecision, entry: &GateRequest) -> Result<(), Problem> {
    match entered {
        GateDecision::Entered => Ok(()),
        GateDecision::NoSession => Err(Problem::Unauthenticated),
        GateDecision::WrongRole => Err(Problem::Forbidden("only an administrator may do this")),
        GateDecision::Banned { until } => Err(Problem::Banned { until }),
        GateDecision::Limited { limit, retry_after_ms } => {
            let limit = entry.limits.get(limit).ok_or(StoreError::Corrupt {
                store: "gate",
                cause: format!("refused by limit {limit} of {}", entry.limits.len()),
            })?;
            Err(Problem::RateLimited { name: limit.name, quota: Some(limit.quota), retry_after_ms })
        }
    }
}
