//! Access control: session, bans and limits are checked in one round trip.

use std::{fmt::Display, net::IpAddr};

use tracing::Instrument as _;

use super::{App, SessionClaims, limits::RateLimit, refusal_cache::Recalled};
use crate::{
    domain::{
        AbusePolicy, Abuser, ActionId, ActionKind, AddressPrefix, AdminAction, AdmissionDecision,
        FieldChange, GateDecision, GateRequest, LimitCheck, Phone, ReserveRequest, Role, Subject,
        Timestamp, UserId,
    },
    logging::OncePerSecond,
    metrics::ADMIN_ACTIONS,
    ports::{Checkout as _, Ports, StoreError, Stored},
    problem::Problem,
    security,
    trace::STEP,
};

/// Delay before a buyer retries when it is unknown whether the order got a unit.
const RETRY_MS: u64 = 1_000;

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
/// administrators takes it, even one that only reads, so that a forgotten check does not compile.
///
/// A use case that changes something makes an [`AdminAction`] with [`Admin::action`] first. The
/// ports that make the change demand it and store it with the change, so that a forgotten action
/// does not compile either. Right after the change is stored, [`Admin::did`] writes the action to
/// the security log, so that neither a later failure nor a disconnected client suppresses the entry.
#[derive(Debug, Clone, Copy)]
pub struct Admin {
    user_id: UserId,
    address: IpAddr,
}

impl Admin {
    /// The record of what this administrator is about to do; `object` names what is changed,
    /// without personal data.
    pub(super) fn action(
        &self,
        app: &App,
        kind: ActionKind,
        object: impl Display,
        changes: Vec<FieldChange>,
    ) -> AdminAction {
        let at = app.now();
        AdminAction {
            action_id: ActionId::new(at, &app.ten()),
            at,
            admin_id: self.user_id,
            address_prefix: AddressPrefix::of(self.address),
            kind,
            object: object.to_string(),
            changes,
        }
    }

    /// Counts the action, and writes it to the security log.
    pub(super) fn did(&self, action: &AdminAction) {
        ADMIN_ACTIONS.counter(&[action.kind.as_str()]).increment(1);
        security::administered(action);
    }

    /// The administrator's user id.
    pub(super) const fn user_id(&self) -> UserId {
        self.user_id
    }
}

/// What the stores are asked about a request.
trait Question: Sync {
    /// What they answer when the request enters.
    type Answer: Send;
    /// Asks in one trip where the stores allow it. `Ok(Err(_))`: the gate refuses the request.
    fn ask(
        &self,
        ports: &Ports,
        entry: &GateRequest,
    ) -> impl Future<Output = Stored<Result<Self::Answer, GateDecision>>> + Send;
    /// The answer to the client when a store failed.
    fn failed(&self, error: StoreError) -> Problem {
        error.into()
    }
}

/// May the request enter?
struct Enter;

impl Question for Enter {
    type Answer = ();

    async fn ask(&self, ports: &Ports, entry: &GateRequest) -> Stored<Result<(), GateDecision>> {
        let step = tracing::info_span!(target: STEP, "gate.enter", otel.kind = "client");
        Ok(match ports.gate.enter(entry).instrument(step).await? {
            GateDecision::Entered => Ok(()),
            refusal => Err(refusal),
        })
    }
}

/// May the request enter, and does its ticket's order get a unit?
struct Reserve<'t>(&'t ReserveRequest);

impl Question for Reserve<'_> {
    type Answer = AdmissionDecision;

    async fn ask(
        &self,
        ports: &Ports,
        entry: &GateRequest,
    ) -> Stored<Result<AdmissionDecision, GateDecision>> {
        let step = tracing::info_span!(target: STEP, "checkout.reserve", otel.kind = "client");
        ports.enter_and_reserve(entry, self.0).instrument(step).await
    }

    fn failed(&self, error: StoreError) -> Problem {
        static LINES: OncePerSecond = OncePerSecond::new();
        if let Some(left_out) = LINES.pass() {
            tracing::warn!(%error, order_id = %self.0.ticket.order_id, left_out, "reserve");
        }
        // A unit may have been reserved; a retry with the same ticket finds it.
        Problem::NotDurableYet { retry_after_ms: RETRY_MS }
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
        let limit = self.limit(RateLimit::Admin, Subject::User(caller.session.user_id));
        self.enter_as(caller, vec![limit], Some(Role::Admin), Enter).await?;
        Ok(Admin { user_id: caller.session.user_id, address })
    }

    /// Admits a signed-in user, or returns why not.
    pub(super) async fn enter(&self, caller: &Caller, limit: RateLimit) -> Result<(), Problem> {
        let mut limits = vec![self.limit(limit, Subject::User(caller.session.user_id))];
        limits.extend(self.limits_of_networks(limit, caller.client.address));
        self.enter_as(caller, limits, None, Enter).await
    }

    /// As [`App::enter`], with a limit that is counted for the user's address.
    pub(super) async fn enter_at_address(
        &self,
        caller: &Caller,
        limit: RateLimit,
    ) -> Result<(), Problem> {
        let limit = self.limit(limit, Subject::address(caller.client.address));
        self.enter_as(caller, vec![limit], None, Enter).await
    }

    /// As [`App::enter`], and reserves a unit for the order of the caller's ticket.
    pub(super) async fn enter_and_reserve(
        &self,
        caller: &Caller,
        limit: RateLimit,
        request: &ReserveRequest,
    ) -> Result<AdmissionDecision, Problem> {
        let limit = self.limit(limit, Subject::User(caller.session.user_id));
        self.enter_as(caller, vec![limit], None, Reserve(request)).await
    }

    /// Admits a signed-in user, whose session must have the role, and answers the question. The
    /// role in the session's record counts; the token's is older.
    async fn enter_as<Q: Question>(
        &self,
        caller: &Caller,
        mut limits: Vec<LimitCheck>,
        role: Option<Role>,
        question: Q,
    ) -> Result<Q::Answer, Problem> {
        let Caller { session: SessionClaims { user_id, session_id, .. }, client } = caller;
        let user = Subject::User(*user_id);
        let address = Subject::address(client.address);
        let mut not_banned = vec![user.clone()];
        not_banned.extend(Subject::of_client(client.address));
        limits.push(self.limit(RateLimit::Address, address));
        let mut entry = GateRequest {
            session: Some((*user_id, *session_id)),
            role,
            not_banned,
            limits,
            abuse: Some(self.abuse_policy(Abuser::User, self.config.abuse.refusals_max)),
            now: self.now(),
        };
        let entered = match self.refusals.recall(&entry, self.monotonic_ms()) {
            Recalled::Refused(problem) => Err(problem),
            Recalled::Nothing => self.enter_session(caller, &mut entry, &question).await,
        };
        entered.inspect_err(|problem| self.note_refused(problem, client, Some(*user_id)))
    }

    /// Asks the gate, and the ledger when the gate does not know the session.
    async fn enter_session<Q: Question>(
        &self,
        caller: &Caller,
        entry: &mut GateRequest,
        question: &Q,
    ) -> Result<Q::Answer, Problem> {
        for _ in 0..LOOKUPS_MAX {
            match self.ask_gate(entry, question).await? {
                Ok(answer) => return Ok(answer),
                Err(GateDecision::NoSession) => {}
                Err(refusal) => return Err(told(refusal, entry)),
            }
            if !self.look_up_session(caller).await? {
                return Err(Problem::Unauthenticated);
            }
            entry.now = self.now();
        }
        self.ask_gate(entry, question).await?.map_err(|refusal| match refusal {
            // The ledger has just confirmed that the session is alive, so `unauthenticated` would
            // be wrong.
            GateDecision::NoSession => Problem::Unavailable { retry_after_ms: 1_000 },
            refusal => told(refusal, entry),
        })
    }

    /// Admits a request without a session. The networks around the address have limits of their own,
    /// so that an attacker gains little by using all addresses of one. If the request is about a
    /// phone, the phone's ban and its limit from this address are checked too.
    pub(super) async fn enter_anonymous(
        &self,
        client: &Client,
        limit: RateLimit,
        phone: Option<&Phone>,
    ) -> Result<(), Problem> {
        let address = Subject::address(client.address);
        let mut limits =
            vec![self.limit(RateLimit::Address, address.clone()), self.limit(limit, address)];
        let mut not_banned = Subject::of_client(client.address);
        limits.extend(self.limits_of_networks(limit, client.address));
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
                abuse: self.address_abuse_policy(),
                now: self.now(),
            },
        )
        .await
    }

    /// The limits of the networks around an address, for requests that have this limit.
    fn limits_of_networks(
        &self,
        limit: RateLimit,
        address: IpAddr,
    ) -> impl Iterator<Item = LimitCheck> {
        limit.of_network().into_iter().flat_map(move |wide| {
            let networks = AddressPrefix::around(address).into_iter();
            networks.map(move |network| self.limit(wide, Subject::Network(network)))
        })
    }

    /// Admits an anonymous request for data that is not in memory.
    pub(super) async fn enter_reader(&self, client: &Client) -> Result<(), Problem> {
        let address = Subject::address(client.address);
        self.pass(
            client,
            GateRequest {
                session: None,
                role: None,
                not_banned: Subject::of_client(client.address),
                limits: vec![self.limit(RateLimit::Address, address)],
                abuse: None,
                now: self.now(),
            },
        )
        .await
    }

    /// The automatic ban of addresses, if the configuration wants it.
    fn address_abuse_policy(&self) -> Option<AbusePolicy> {
        let refusals_max = self.config.abuse.address_refusals_max;
        (refusals_max > 0).then(|| self.abuse_policy(Abuser::Address, refusals_max))
    }

    fn abuse_policy(&self, abuser: Abuser, refusals_max: u32) -> AbusePolicy {
        let abuse = self.config.abuse;
        AbusePolicy {
            abuser,
            refusals_max,
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
    pub(super) async fn pass(&self, client: &Client, entry: GateRequest) -> Result<(), Problem> {
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
                self.ask_gate(&mut entry, &Enter).await?.map_err(|refusal| told(refusal, &entry))
            }
        }
    }

    /// Asks the gate, reports to it the refusals that were answered from memory, and remembers its
    /// refusal.
    async fn ask_gate<Q: Question>(
        &self,
        entry: &mut GateRequest,
        question: &Q,
    ) -> Result<Result<Q::Answer, GateDecision>, Problem> {
        let unreported = self.refusals.take_unreported(entry);
        if let Some(abuse) = &mut entry.abuse {
            abuse.also_refused = unreported;
        }
        // Read before the call, so that a remembered refusal ends too early rather than too late.
        let asked_at_ms = self.monotonic_ms();
        let entered = question.ask(&self.ports, entry).await;
        if !matches!(entered, Ok(Err(GateDecision::Limited { .. }))) {
            self.refusals.keep_unreported(entry, unreported);
        }
        let entered = entered.map_err(|error| question.failed(error))?;
        match &entered {
            Err(GateDecision::Banned { until }) => {
                self.remember_ban(entry, *until, asked_at_ms).await?;
            }
            Err(GateDecision::Limited { limit, retry_after_ms }) => {
                if let Some(limit) = entry.limits.get(*limit) {
                    self.refusals.note_limited(
                        entry,
                        limit,
                        *retry_after_ms,
                        unreported,
                        asked_at_ms,
                    );
                }
            }
            Ok(_)
            | Err(GateDecision::Entered | GateDecision::NoSession | GateDecision::WrongRole) => {}
        }
        Ok(entered)
    }

    /// Remembers a ban. If the store's answer may refer to the address or to another subject, the
    /// store is asked about the address and its networks alone, so that a banned address that tries
    /// one phone after another is refused from memory.
    async fn remember_ban(
        &self,
        entry: &GateRequest,
        until: Option<Timestamp>,
        asked_at_ms: u64,
    ) -> Result<(), Problem> {
        self.refusals.note_banned(&entry.not_banned, until, asked_at_ms);
        let places: Vec<Subject> =
            entry.not_banned.iter().filter(|subject| subject.is_place()).cloned().collect();
        if places.is_empty() || places.len() == entry.not_banned.len() {
            return Ok(());
        }
        let alone = GateRequest {
            session: None,
            role: None,
            not_banned: places,
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

/// The gate's refusal as the caller receives it.
fn told(refusal: GateDecision, entry: &GateRequest) -> Problem {
    match refusal {
        GateDecision::NoSession => Problem::Unauthenticated,
        GateDecision::WrongRole => Problem::Forbidden("only an administrator may do this"),
        GateDecision::Banned { until } => Problem::Banned { until },
        GateDecision::Limited { limit, retry_after_ms } => match entry.limits.get(limit) {
            Some(limit) => {
                Problem::RateLimited { name: limit.name, quota: Some(limit.quota), retry_after_ms }
            }
            None => unreadable(format!("refused by limit {limit} of {}", entry.limits.len())),
        },
        GateDecision::Entered => unreadable("a refusal that is none".to_owned()),
    }
}

fn unreadable(cause: String) -> Problem {
    StoreError::Corrupt { store: "gate", cause }.into()
}
