//! The way in: session, bans and limits, checked together in one trip.

use std::{fmt::Display, net::IpAddr};

use tracing::Instrument as _;

use super::{App, SessionClaims, limits::RateLimit, refusal_cache::Recalled};
use crate::{
    domain::{AbusePolicy, GateDecision, GateRequest, Phone, Role, Subject, Timestamp, UserId},
    ports::StoreError,
    problem::Problem,
    security,
    trace::STEP,
};

/// Who sends a request.
#[derive(Debug, Clone)]
pub struct Client {
    /// The address, as the trusted proxies tell it.
    pub address: IpAddr,
}

/// Who sends a request that needs a session: what the session's token says, and where the request comes from. The token is
/// genuine and its time is not over; whether the session is alive, each use case asks first.
#[derive(Debug, Clone)]
pub struct Caller {
    /// What the token says.
    pub session: SessionClaims,
    /// Where the request comes from.
    pub client: Client,
}

/// Look-ups of one request's session: the fast store may be emptied once more right after the first.
const LOOKUPS_MAX: usize = 2;

/// An administrator who was let in; only [`App::enter_admin`] makes one. Every use case that is an administrator's alone, also
/// one that only reads, takes it, so that a forgotten check does not compile. Those that change something write the security
/// log's line right after the change is stored: what fails later, or a client that goes away, must not leave it unsaid.
#[derive(Debug, Clone, Copy)]
pub struct Admin {
    user_id: UserId,
    address: IpAddr,
}

impl Admin {
    /// Writes the security log's line about what the administrator has done; `object` names what it was done to, without
    /// a person's data.
    pub(super) fn did(&self, event: &'static str, object: &dyn Display) {
        security::administered(event, self.address, self.user_id, object);
    }

    /// Who it is.
    pub(super) const fn user_id(&self) -> UserId {
        self.user_id
    }
}

impl App {
    /// What a session token says, when it is ours and not over. Costs no store: whether the session is alive is asked
    /// by [`App::enter`].
    ///
    /// # Errors
    /// `unauthenticated`; `unavailable` when the development profile's key is still in the ledger, and that does not answer.
    pub async fn read_session(&self, token: &str) -> Result<SessionClaims, Problem> {
        let keys = self.session_keys.ring(&self.ports).await?;
        let claims: SessionClaims = keys.verify(token).ok_or(Problem::Unauthenticated)?;
        (self.now().epoch_ms() / 1_000 < claims.exp)
            .then_some(claims)
            .ok_or(Problem::Unauthenticated)
    }

    /// Lets an administrator in, from where the admin API answers.
    ///
    /// # Errors
    /// `forbidden`, `unauthenticated`, `rate-limited`, `banned`.
    pub async fn enter_admin(&self, caller: &Caller) -> Result<Admin, Problem> {
        let (networks, address) = (&self.config.admin_networks, caller.client.address);
        if !networks.is_empty() && !networks.iter().any(|network| network.contains(address)) {
            return Err(Problem::Forbidden("this does not answer in your network"));
        }
        // Costs no store; the session's record has the last word below.
        if caller.session.role != Role::Admin {
            return Err(Problem::Forbidden("only an administrator may do this"));
        }
        self.enter_as(caller, RateLimit::Admin, Some(Role::Admin)).await?;
        Ok(Admin { user_id: caller.session.user_id, address })
    }

    /// Lets a signed-in user in, or says why not.
    pub(super) async fn enter(&self, caller: &Caller, limit: RateLimit) -> Result<(), Problem> {
        self.enter_as(caller, limit, None).await
    }

    /// As [`App::enter`], for sessions of one role. What the session's record says counts; the token's word is older.
    async fn enter_as(
        &self,
        caller: &Caller,
        limit: RateLimit,
        role: Option<Role>,
    ) -> Result<(), Problem> {
        let Caller { session: SessionClaims { user_id, session_id, .. }, client } = caller;
        let user = Subject::User(*user_id);
        let address = Subject::address(client.address);
        let mut entry = GateRequest {
            session: Some((*user_id, *session_id)),
            role,
            not_banned: vec![user.clone(), address.clone()],
            limits: vec![self.limit(limit, user), self.limit(RateLimit::Address, address)],
            abuse: Some(self.abuse_policy()),
            now: self.now(),
        };
        let entered = match self.refusals.recall(&entry, self.monotonic_ms()).await {
            Recalled::Refused(problem) => Err(problem),
            Recalled::Nothing => self.enter_session(caller, &mut entry).await,
        };
        entered.inspect_err(|problem| self.note_refused(problem, client, Some(*user_id)))
    }

    /// Asks the gate, and where it does not know the session, the ledger.
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
            // The ledger says that it is alive.
            GateDecision::NoSession => Err(Problem::Unavailable { retry_after_ms: 1_000 }),
            entered => told(entered, entry),
        }
    }

    /// Admits a request without a session; where it is about a phone, the phone's ban and its limit from this address count
    /// too.
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

    /// Lets anybody in who asks for what is not in memory.
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

    /// Limits what is answered from this process's memory, by a count of this process.
    pub(super) async fn enter_memory(
        &self,
        client: &Client,
        user_id: Option<UserId>,
        limit: RateLimit,
    ) -> Result<(), Problem> {
        let subject = user_id.map_or_else(|| Subject::address(client.address), Subject::User);
        let limit = self.limit(limit, subject);
        let counted = self.refusals.count(&limit, self.now()).await;
        counted.map_err(|retry_after_ms| {
            let problem =
                Problem::RateLimited { name: limit.name, quota: Some(limit.quota), retry_after_ms };
            self.note_refused(&problem, client, user_id);
            problem
        })
    }

    /// Writes the security log's line about a refusal by a limit or a ban.
    pub(super) fn note_refused(&self, problem: &Problem, client: &Client, user_id: Option<UserId>) {
        match problem {
            Problem::RateLimited { name, .. } => {
                self.refused.by_limit(name, client.address, user_id)
            }
            Problem::Banned { .. } => self.refused.by_ban(client.address, user_id),
            _ => {}
        }
    }

    /// Lets somebody in whose session is not asked for.
    async fn pass(&self, client: &Client, entry: GateRequest) -> Result<(), Problem> {
        self.pass_unnoted(entry)
            .await
            .inspect_err(|problem| self.note_refused(problem, client, None))
    }

    /// As [`App::pass`], for a part of a request whose refusal is noted as a whole.
    pub(super) async fn pass_unnoted(&self, mut entry: GateRequest) -> Result<(), Problem> {
        match self.refusals.recall(&entry, self.monotonic_ms()).await {
            Recalled::Refused(problem) => Err(problem),
            Recalled::Nothing => {
                self.ask_gate(&mut entry).await.and_then(|entered| told(entered, &entry))
            }
        }
    }

    /// Asks the gate, reports refusals that were answered from memory, and remembers a refusal.
    async fn ask_gate(&self, entry: &mut GateRequest) -> Result<GateDecision, Problem> {
        let unreported = self.refusals.take_unreported(entry).await;
        if let Some(abuse) = &mut entry.abuse {
            abuse.also_refused = unreported;
        }
        // From before the question: what is remembered ends rather too early than too late.
        let asked_at_ms = self.monotonic_ms();
        let step = tracing::info_span!(target: STEP, "gate.enter", otel.kind = "client");
        let entered = self.ports.gate.enter(entry).instrument(step).await;
        if !matches!(entered, Ok(GateDecision::Limited { .. })) {
            self.refusals.keep_unreported(entry, unreported).await;
        }
        let entered = entered?;
        match entered {
            GateDecision::Banned { until } => self.remember_ban(entry, until, asked_at_ms).await?,
            GateDecision::Limited { limit, retry_after_ms } => {
                if let Some(limit) = entry.limits.get(limit) {
                    self.refusals
                        .note_limited(entry, limit, retry_after_ms, unreported, asked_at_ms)
                        .await;
                }
            }
            GateDecision::Entered | GateDecision::NoSession | GateDecision::WrongRole => {}
        }
        Ok(entered)
    }

    /// Remembers who is banned. Where the store's answer may mean the address or somebody else, it is asked about the
    /// address alone: a banned address that tries one phone after another is then refused from memory.
    async fn remember_ban(
        &self,
        entry: &GateRequest,
        until: Option<Timestamp>,
        asked_at_ms: u64,
    ) -> Result<(), Problem> {
        self.refusals.note_banned(&entry.not_banned, until, asked_at_ms).await;
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
            self.refusals.note_banned(&alone.not_banned, until, asked_at_ms).await;
        }
        Ok(())
    }
}

/// What the gate's answer means to the one who asked.
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
