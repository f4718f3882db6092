//! Every trait between the product and the outside, on one page.
//!
//! A refusal that a caller must expect ("sold out", "no such session") is a value. An error is a [`StoreError`] and
//! says what the caller may do about it. Every method is safe to call again with the same arguments after an error:
//! what is done twice has the effect of once. Every method ends by itself: adapters put a time limit on each call.
//! Times come in as arguments; adapters decide nothing by a clock of their own.

use std::{fmt, sync::Arc};

use async_trait::async_trait;

use crate::domain::{
    AdmissionDecision, AdmissionState, AdmittedOrder, Availability, Ban, Captcha, CaptchaId,
    ConsumerProgress, ConsumerReport, CreationKey, DeadLetter, Delivery, GateDecision, GateRequest,
    KeptBan, KeptSession, Lease, Opening, Order, OrderId, Phone, QueueBacklog, QueueDepth,
    Recorded, Reservation, ReservationPage, Sale, SaleChange, SaleChanged, SaleCreated, SaleId,
    SaleTally, SaleTerms, Session, SessionId, Subject, TicketClaims, Timestamp, Transition,
    Unrecordable, User, UserChange, UserCreated, UserId,
};

/// What went wrong in a store, by what the caller can do.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Nothing happened; try again later.
    #[error("{store} is unavailable: {cause}")]
    Unavailable {
        /// Which store, for people: `Redis`, `MySQL`, `RabbitMQ`, `SQLite`.
        store: &'static str,
        /// What the client library said; free of secrets.
        cause: String,
    },
    /// It may have happened or not: a time-out, a connection lost on the way. Try again; every call is idempotent.
    #[error("{store} did not answer: {cause}")]
    Unknown {
        /// Which store.
        store: &'static str,
        /// What the client library said.
        cause: String,
    },
    /// The store holds or answered what it never should. Trying again does not help.
    #[error("{store} holds data that can't be read: {cause}")]
    Corrupt {
        /// Which store.
        store: &'static str,
        /// What is wrong with it.
        cause: String,
    },
}

/// The result of a port's method.
pub type Stored<T> = Result<T, StoreError>;

/// Tells the time.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Now.
    fn now(&self) -> Timestamp;
    /// Milliseconds since some fixed moment of this process. Never goes back and never jumps, whatever is done to the
    /// wall clock: for measuring how long something lasted.
    fn monotonic_ms(&self) -> u64;
}

/// The clock that all processes of one backend can be compared with: the ledger's server.
#[async_trait]
pub trait LedgerClock: Send + Sync {
    /// The server's wall clock, UTC.
    async fn ask(&self) -> Stored<Timestamp>;
}

/// Gives random bytes fit for secrets.
pub trait Random: Send + Sync + fmt::Debug {
    /// Fills `bytes`.
    fn fill(&self, bytes: &mut [u8]);
}

// ---------------------------------------------------------------------------------------------------------------
// The ledger: SQL, the truth
// ---------------------------------------------------------------------------------------------------------------

/// Registered users.
#[async_trait]
pub trait Users: Send + Sync {
    /// Stores a new user; a phone belongs to one user at most. A repeat with the same `user_id` is `Created`.
    async fn create(&self, user: &User) -> Stored<UserCreated>;
    /// Stores many new users in as few transactions as the store allows; users whose phone is taken are left out.
    /// Returns the ids that are stored now, in the given order.
    async fn create_many(&self, users: &[User]) -> Stored<Vec<UserId>>;
    /// The user with the phone.
    async fn by_phone(&self, phone: &Phone) -> Stored<Option<User>>;
    /// The user with the id.
    async fn by_id(&self, user_id: UserId) -> Stored<Option<User>>;
    /// In one transaction: applies `change`, raises the user's generation, and ends all of the user's sessions in the ledger
    /// but `keep` (see [`SessionLedger`]). `false`, and nothing changed, when there is no such user or the user's generation
    /// is not `only_generation`; so a repeat after an error may answer `false` for what the first call did.
    async fn change(&self, user_id: UserId, change: &UserChange, now: Timestamp) -> Stored<bool>;
}

/// Sales, as the ledger keeps them.
#[async_trait]
pub trait Sales: Send + Sync {
    /// Stores a new sale (with `sold` 0). A repeat with the same id changes nothing.
    async fn create(&self, sale: &Sale) -> Stored<()>;
    /// Stores a new sale as [`Sales::create`] does, with its key in the same transaction. A key stores one sale at most,
    /// whatever the id.
    async fn create_once(&self, sale: &Sale, once: &CreationKey) -> Stored<SaleCreated>;
    /// The sale with the id.
    async fn get(&self, sale_id: SaleId) -> Stored<Option<Sale>>;
    /// Sales with an id below `before` (all when `None`), newest id first, at most `limit`.
    async fn list(&self, before: Option<SaleId>, limit: u32) -> Stored<Vec<Sale>>;
    /// Sales that end at or after `ends_from`, by id upwards from after `after`, at most `limit`.
    async fn ending_from(
        &self,
        ends_from: Timestamp,
        after: Option<SaleId>,
        limit: u32,
    ) -> Stored<Vec<Sale>>;
    /// Sales that end at or after `ends_from`, those that end last first, at most `limit`.
    async fn ending_last(&self, ends_from: Timestamp, limit: u32) -> Stored<Vec<Sale>>;
    /// Sales that end before `ends_before`, by id upwards from after `after`, at most `limit`.
    async fn ended_before(
        &self,
        ends_before: Timestamp,
        after: Option<SaleId>,
        limit: u32,
    ) -> Stored<Vec<Sale>>;
    /// Applies `change` to the sale by [`Sale::changed`], decided from the row it holds locked, so that no order is
    /// recorded between the decision and the change.
    async fn change(&self, sale_id: SaleId, change: &SaleChange) -> Stored<SaleChanged>;
    /// Raises the sale's `epoch` and returns the new one: the fencing token of one rebuild. `None`: no such sale.
    async fn raise_epoch(&self, sale_id: SaleId) -> Stored<Option<u64>>;
}

/// Orders, as the ledger keeps them. Every method that changes how many units are held locks the sale's row first and
/// changes `sold` in the same transaction as the order's row.
#[async_trait]
pub trait OrderLedger: Send + Sync {
    /// Records admitted orders in one transaction and returns one outcome per request in the given order (a repeated
    /// id within the batch is recorded once). An order is recorded `Confirmed` with
    /// `pay_by = now + pay_within_ms`, or `Rejected` when no unit is left, the user's limit is reached or the sale
    /// is unknown. An id that is there already is returned as it is. One that can never be recorded, as its price is one
    /// that the sale never had, is left out and does not hold up the others. Deadlocks and lock time-outs are retried inside.
    ///
    /// # Errors
    /// Nothing was recorded, or nobody knows. `Corrupt` is about the store (a sale's row that can't be read, say) and
    /// never about one of the orders.
    async fn record(
        &self,
        requests: &[AdmittedOrder],
        now: Timestamp,
        pay_within_ms: u64,
    ) -> Stored<Vec<Result<Recorded, Unrecordable>>>;
    /// The order with the id.
    async fn get(&self, order_id: OrderId) -> Stored<Option<Order>>;
    /// Those of the orders that exist, in no particular order.
    async fn get_many(&self, order_ids: &[OrderId]) -> Stored<Vec<Order>>;
    /// A user's orders with an id below `before`, newest id first, at most `limit`.
    async fn of_user(
        &self,
        user_id: UserId,
        before: Option<OrderId>,
        limit: u32,
    ) -> Stored<Vec<Order>>;
    /// `Confirmed` -> `Paid`, when `now < pay_by`: one conditional update, so that expiry and payment can't both win.
    async fn pay(&self, order_id: OrderId, user_id: UserId, now: Timestamp) -> Stored<Transition>;
    /// `Confirmed` -> `Cancelled`. When the ledger has no such order yet and `queued` is given, the order is recorded
    /// as `Cancelled` at once, so that the message still on its way finds it so.
    async fn cancel(
        &self,
        order_id: OrderId,
        user_id: UserId,
        queued: Option<&AdmittedOrder>,
        now: Timestamp,
    ) -> Stored<Transition>;
    /// `Confirmed` -> `Expired` for orders whose `pay_by` is at or before `now`, at most `limit` a call. Returns them.
    async fn expire_due(&self, now: Timestamp, limit: u32) -> Stored<Vec<Order>>;
    /// Sales with orders that [`OrderLedger::expire_due`] would expire, by id upwards from after `after`, at most `limit`.
    async fn sales_with_due(
        &self,
        now: Timestamp,
        after: Option<SaleId>,
        limit: u32,
    ) -> Stored<Vec<SaleId>>;
    /// As [`OrderLedger::expire_due`], for the orders of one sale.
    async fn expire_due_of(
        &self,
        sale_id: SaleId,
        now: Timestamp,
        limit: u32,
    ) -> Stored<Vec<Order>>;
    /// Orders that are cancelled, expired or rejected and whose unit has not been given back to the admission store
    /// (`stock_returned_at` is NULL), by id upwards from after `after`, at most `limit`.
    async fn stock_to_return(&self, after: Option<OrderId>, limit: u32) -> Stored<Vec<Order>>;
    /// Sets `stock_returned_at` where it is NULL. To be called after the admission store has released the orders.
    async fn mark_stock_returned(&self, order_ids: &[OrderId], now: Timestamp) -> Stored<()>;
    /// Active orders of a sale by id upwards from after `after`, at most `limit`.
    async fn active(
        &self,
        sale_id: SaleId,
        after: Option<OrderId>,
        limit: u32,
    ) -> Stored<Vec<Order>>;
    /// Adds up a sale from its rows. Costs a scan of the sale's orders.
    async fn tally(&self, sale_id: SaleId) -> Stored<SaleTally>;
}

/// Sessions, as the ledger keeps them. A session is opened and ended here first and in the fast store ([`Sessions`])
/// afterwards; a session that the fast store does not know is looked up here.
#[async_trait]
pub trait SessionLedger: Send + Sync {
    /// Opens sessions of users whose generation is still the given one, under the lock of the user's row that
    /// [`Users::change`] takes too. A user holds at most [`SESSIONS_PER_USER_MAX`](crate::domain::SESSIONS_PER_USER_MAX) living sessions; one more ends the one that
    /// would be over first. A repeat with the same id changes nothing. Returns the ids that are alive now, in the given order.
    async fn open(&self, openings: &[Opening], now: Timestamp) -> Stored<Vec<SessionId>>;
    /// Those of the sessions that exist, in no particular order.
    async fn get_many(&self, session_ids: &[SessionId]) -> Stored<Vec<KeptSession>>;
    /// Ends one of the user's.
    async fn end(&self, user_id: UserId, session_id: SessionId, now: Timestamp) -> Stored<()>;
    /// Ended sessions of which the fast store is to be told at or before `now`, at most `limit`: all that have ended, until
    /// [`SessionLedger::note_ends`] says otherwise.
    async fn ends_due(&self, now: Timestamp, limit: u32) -> Stored<Vec<KeptSession>>;
    /// Notes that the fast store was told of the ends. It is told again at `again_at`, if there is one.
    async fn note_ends(&self, session_ids: &[SessionId], again_at: Option<Timestamp>)
    -> Stored<()>;
    /// Deletes sessions that were over at `before`, at most `limit`. Returns how many.
    async fn delete_over(&self, before: Timestamp, limit: u32) -> Stored<u32>;
}

/// The operators' bans, as the ledger keeps them. A ban is put and lifted here first and in the fast store ([`Blacklist`])
/// afterwards. Automatic bans are in the fast store only.
#[async_trait]
pub trait BanLedger: Send + Sync {
    /// Puts a ban, in place of an earlier one of the same subject.
    async fn put(&self, ban: &Ban) -> Stored<()>;
    /// Lifts the subject's ban; `false` when none holds at `now`.
    async fn lift(&self, subject: &Subject, now: Timestamp) -> Stored<bool>;
    /// The bans of the subjects, lifted and over ones included, in no particular order.
    async fn of(&self, subjects: &[Subject]) -> Stored<Vec<KeptBan>>;
    /// Bans that hold at `now`, ordered by kind and value, from after `after`, at most `limit`.
    async fn page(
        &self,
        now: Timestamp,
        after: Option<&Subject>,
        limit: u32,
    ) -> Stored<Vec<KeptBan>>;
    /// Changes of which the fast store is to be told at or before `now`, at most `limit`: all, until
    /// [`BanLedger::note_shared`] says otherwise.
    async fn shares_due(&self, now: Timestamp, limit: u32) -> Stored<Vec<KeptBan>>;
    /// Notes that the fast store was told of the subject's ban in this version, and, if there is an `again_at`, that it is to
    /// be told again then. Nothing is noted when the ban has another version by now.
    async fn note_shared(
        &self,
        subject: &Subject,
        version: u64,
        again_at: Option<Timestamp>,
    ) -> Stored<()>;
    /// Deletes bans that were over or lifted at `before` and of which nothing is left to tell, at most `limit`. Returns how many.
    async fn delete_over(&self, before: Timestamp, limit: u32) -> Stored<u32>;
}

/// Signing keys kept in the ledger, so that several processes share the ones made in the development profile.
#[async_trait]
pub trait SigningKeys: Send + Sync {
    /// The secret stored under `name`; when there is none, `candidate` is stored first. All callers get the same one.
    async fn get_or_create(&self, name: &str, candidate: &[u8]) -> Stored<Vec<u8>>;
}

// ---------------------------------------------------------------------------------------------------------------
// The gate: who may come in
// ---------------------------------------------------------------------------------------------------------------

/// Sessions, bans and limits, checked together.
#[async_trait]
pub trait Gate: Send + Sync {
    /// Checks everything in `entry`; charges all limits, or none.
    async fn enter(&self, entry: &GateRequest) -> Stored<GateDecision>;
}

/// Sign-ins of all users in the fast store, seen by every instance at once. It may lose them: [`SessionLedger`] has them too.
#[async_trait]
pub trait Sessions: Send + Sync {
    /// Stores sessions (one, or thousands at once for seeding). A user holds at most [`SESSIONS_PER_USER_MAX`](crate::domain::SESSIONS_PER_USER_MAX); one
    /// more ends the one that would be over first. All are tried, also when one fails; then its error is returned.
    async fn open(&self, sessions: &[Session], now: Timestamp) -> Stored<()>;
    /// Ends one.
    async fn end(&self, user_id: UserId, session_id: SessionId) -> Stored<()>;
    /// Ends all of a user's but `keep`.
    async fn end_all(&self, user_id: UserId, keep: Option<SessionId>) -> Stored<()>;
}

/// Banned subjects in the fast store. It may lose them: [`BanLedger`] has the operators' bans too.
#[async_trait]
pub trait Blacklist: Send + Sync {
    /// Puts a ban, in place of an earlier one of the same subject.
    async fn ban(&self, ban: &Ban) -> Stored<()>;
    /// Lifts a ban; `false` when there was none.
    async fn lift(&self, subject: &Subject) -> Stored<bool>;
    /// As [`Blacklist::lift`], but a ban that was put after `put_until` is left as it is.
    async fn lift_older(&self, subject: &Subject, put_until: Timestamp) -> Stored<bool>;
    /// Bans that hold at `now`, newest first, from the `offset`th on, at most `limit`; automatic ones included.
    async fn list(&self, now: Timestamp, offset: u32, limit: u32) -> Stored<Vec<Ban>>;
    /// Puts bans back that the store may have lost. A subject's ban that lasts at least as long is left as it is. All are
    /// tried, also when one fails; then its error is returned.
    async fn restore(&self, bans: &[Ban]) -> Stored<()>;
    /// Whether the operators' bans are to be loaded: `false` once [`Blacklist::finish_loading`] was called, until the store
    /// loses its data. The latest `token` is the one that may finish.
    async fn begin_loading(&self, token: u128) -> Stored<bool>;
    /// Says that all bans were put back since [`Blacklist::begin_loading`] with this token. Nothing is noted when the store
    /// has lost its data since, or another token has begun.
    async fn finish_loading(&self, token: u128) -> Stored<()>;
}

/// Counts failures (sign-ins) by a key.
#[async_trait]
pub trait Failures: Send + Sync {
    /// Failures within the running window.
    async fn count(&self, subject: &Subject, now: Timestamp) -> Stored<u32>;
    /// Adds one and returns the count; the window starts with the first and ends `window_ms` later.
    async fn add(&self, subject: &Subject, window_ms: u64, now: Timestamp) -> Stored<u32>;
    /// Forgets them.
    async fn clear(&self, subject: &Subject) -> Stored<()>;
}

/// Captchas that wait for their answer.
#[async_trait]
pub trait Captchas: Send + Sync {
    /// Keeps one.
    async fn put(&self, captcha: &Captcha, now: Timestamp) -> Stored<()>;
    /// Reads one that is not over, leaving it (for its audio form).
    async fn peek(&self, captcha_id: CaptchaId, now: Timestamp) -> Stored<Option<Captcha>>;
    /// Takes one out: of all callers only one ever gets it, and only before it is over.
    async fn take(&self, captcha_id: CaptchaId, now: Timestamp) -> Stored<Option<Captcha>>;
}

// ---------------------------------------------------------------------------------------------------------------
// Admission: who gets a unit
// ---------------------------------------------------------------------------------------------------------------

/// The fast, conservative gate in front of the ledger. Stock is a set of order ids: what is available is the stock
/// less the number of ids, so every change is by id and idempotent.
///
/// An order that has ended ([`Admission::release`]) is remembered for as long as the sale's data is kept, so that
/// neither a retry, nor a late settlement, nor a rebuild brings it back.
#[async_trait]
pub trait Admission: Send + Sync {
    /// Gives the ticket's order a unit, atomically.
    async fn reserve(&self, ticket: &TicketClaims, now: Timestamp) -> Stored<AdmissionDecision>;
    /// What a ticket request needs to know, without changing anything. `None` when the sale is not open.
    async fn look(&self, sale_id: SaleId, user_id: UserId) -> Stored<Option<Availability>>;
    /// The order's reservation.
    async fn find(&self, sale_id: SaleId, order_id: OrderId) -> Stored<Option<Reservation>>;
    /// The reservations of those of the orders that have one, in no particular order.
    async fn find_many(&self, sale_id: SaleId, order_ids: &[OrderId]) -> Stored<Vec<Reservation>>;
    /// Marks the reservations of orders that the ledger holds as active, adding those that the store has forgotten
    /// (whatever the stock says: the ledger knows better), leaving out those that have ended. Nothing is done, without
    /// error, when the sale is `Missing`: the rebuild will find them in the ledger.
    async fn settle(&self, sale_id: SaleId, active: &[AdmittedOrder]) -> Stored<()>;
    /// Gives back the units of orders that have ended, by id; each id is remembered as ended even when it held none.
    async fn release(&self, sale_id: SaleId, order_ids: &[OrderId]) -> Stored<()>;
    /// Takes up to `limit` reservations that are not settled and were admitted (or last claimed) at or before `before`,
    /// oldest first, and puts their time to `now`, so that each is handed out once per period.
    async fn claim_overdue(
        &self,
        sale_id: SaleId,
        before: Timestamp,
        now: Timestamp,
        limit: u32,
    ) -> Stored<Vec<Reservation>>;
    /// Reads all reservations page by page, beginning with `cursor` 0.
    async fn reservations(
        &self,
        sale_id: SaleId,
        cursor: u64,
        limit: u32,
    ) -> Stored<ReservationPage>;
    /// Where the store stands with the sale.
    async fn state(&self, sale_id: SaleId) -> Stored<AdmissionState>;
    /// Begins a rebuild of a sale that is `Missing` or `Rebuilding`: admission is closed, what is there stays. `false`,
    /// and nothing changes, when the sale is `Open` under any epoch (another process has finished its rebuild since the
    /// caller read the state), or when the store has an epoch at or above `epoch`.
    async fn begin_rebuild(&self, terms: &SaleTerms, epoch: u64, now: Timestamp) -> Stored<bool>;
    /// Adds settled reservations during a rebuild, leaving out those that have ended. `false` when the store is not
    /// rebuilding under exactly this epoch.
    async fn restore(&self, sale_id: SaleId, epoch: u64, active: &[AdmittedOrder]) -> Stored<bool>;
    /// Ends the rebuild: admission is open. `false` as for [`Admission::restore`]; `true` again when it is open under
    /// exactly this epoch.
    async fn finish_rebuild(&self, sale_id: SaleId, epoch: u64) -> Stored<bool>;
    /// Replaces the terms of a sale that the store knows, unless it has newer ones. `false` when the sale is `Missing`.
    async fn set_terms(&self, terms: &SaleTerms) -> Stored<bool>;
}

// ---------------------------------------------------------------------------------------------------------------
// Hand-off: the order queue
// ---------------------------------------------------------------------------------------------------------------

/// Longest time of one [`OrderQueue::publish`], from the call to its answer, in milliseconds.
pub const PUBLISH_LIMIT_MS: u64 = 6_000;

/// Where admitted orders are handed over.
#[async_trait]
pub trait OrderQueue: Send + Sync {
    /// Makes the orders durable as one message. `Ok` only when the message was routed to the queue and confirmed by
    /// it (a majority of a quorum queue, or a synced commit). Ends within [`PUBLISH_LIMIT_MS`].
    async fn publish(&self, orders: &[AdmittedOrder]) -> Stored<()>;
    /// Puts a message that can't be used aside, with the reason, as durably as [`OrderQueue::publish`].
    async fn park(&self, body: &[u8], reason: &str) -> Stored<()>;
    /// How much waits.
    async fn depth(&self) -> Stored<QueueDepth>;
    /// What is between the publishers and the ledger.
    async fn backlog(&self) -> Stored<QueueBacklog>;
    /// Where this process has had the queue to itself since it started: how many of the messages that it found then are
    /// not worked off yet. An order that an earlier process admitted is in one of them, or is never published. `None`,
    /// without asking anybody, where other processes publish too.
    async fn inherited(&self) -> Stored<Option<u64>>;
}

/// The messages that were put aside, for the operator.
#[async_trait]
pub trait DeadLetters: Send + Sync {
    /// Parked messages, at most `limit`, the oldest first as far as the queue keeps their order.
    async fn list(&self, limit: u32) -> Stored<Vec<DeadLetter>>;
    /// Puts a message back into the queue, as durably as [`OrderQueue::publish`], and takes it from the parked. After an
    /// error it may be in both, which does no harm: orders are recorded once. `false` when it is not parked.
    async fn retry(&self, id: &str) -> Stored<bool>;
    /// Throws a message away. `false` when it is not parked.
    async fn discard(&self, id: &str) -> Stored<bool>;
}

/// The consuming side of the queue, for the poller.
#[async_trait]
pub trait OrderSource: Send + Sync {
    /// How far this consumer has got, where [`OrderQueue::backlog`] counts it among the consumers; `None` where the
    /// queue knows what is held, and while nothing is consumed.
    fn progress(&self) -> Option<ConsumerProgress>;
    /// Waits up to `wait_ms` for a first message, then gathers what is there, at most `limit` messages. Empty when
    /// none came. A message is given to one consumer at a time.
    async fn receive(&self, limit: u32, wait_ms: u64) -> Stored<Vec<Delivery>>;
    /// Removes messages whose work is done. Tags of a connection that was lost are ignored: those come again.
    async fn ack(&self, tags: &[u64]) -> Stored<()>;
    /// Hands messages back to be delivered again. One handed back too often is parked.
    async fn hand_back(&self, tags: &[u64]) -> Stored<()>;
    /// Ends consuming: what was received and not acknowledged is handed back. To be called last: nothing can
    /// be received or published through the same connection afterwards.
    async fn close(&self);
}

// ---------------------------------------------------------------------------------------------------------------
// Coordination and caching
// ---------------------------------------------------------------------------------------------------------------

/// Reports of all processes that consume the queue, shared by all: AMQP does not tell what its consumers hold.
#[async_trait]
pub trait ConsumerReports: Send + Sync {
    /// Puts a report in place of the process's earlier one. `now` only decides when a process that has gone is forgotten.
    async fn report(&self, report: &ConsumerReport, now: Timestamp) -> Stored<()>;
    /// The last report of each process. Those that have gone stay for a while, with a beat that stands still.
    async fn reports(&self) -> Stored<Vec<ConsumerReport>>;
}

/// Locks with a lease, for rebuild, preheat and sweeper leadership. Stock needs none.
#[async_trait]
pub trait Locks: Send + Sync {
    /// Takes the lock for `lease_ms` unless another token holds it; with the same token it is renewed.
    async fn acquire(
        &self,
        name: &str,
        token: u128,
        lease_ms: u64,
        now: Timestamp,
    ) -> Stored<Option<Lease>>;
    /// Extends a lease that is still held; `false` when it was lost.
    async fn renew(&self, lease: &Lease, lease_ms: u64, now: Timestamp) -> Stored<bool>;
    /// Gives it up; nothing is done when it was lost.
    async fn release(&self, lease: &Lease) -> Stored<()>;
}

/// The second cache level, shared by all instances (the first is in each process).
#[async_trait]
pub trait Cache: Send + Sync {
    /// What is kept under the key.
    async fn get(&self, key: &str, now: Timestamp) -> Stored<Option<Vec<u8>>>;
    /// Keeps `value` for `ttl_ms`, unless a value of a higher `version` is kept.
    async fn put(
        &self,
        key: &str,
        version: u64,
        value: &[u8],
        ttl_ms: u64,
        now: Timestamp,
    ) -> Stored<()>;
}

// ---------------------------------------------------------------------------------------------------------------
// Work that is no storage
// ---------------------------------------------------------------------------------------------------------------

/// Draws and speaks captchas.
pub trait CaptchaArtist: Send + Sync {
    /// A new answer: characters that can be told apart when seen and when heard.
    fn answer(&self, random: &dyn Random) -> String;
    /// The picture, PNG.
    fn draw(&self, answer: &str) -> Stored<Vec<u8>>;
    /// The sound, WAV.
    fn speak(&self, answer: &str) -> Stored<Vec<u8>>;
}

/// Whether a part of the backend answers.
#[async_trait]
pub trait Health: Send + Sync {
    /// For people and for `/readyz`: `redis`, `database`, `queue`.
    fn name(&self) -> &'static str;
    /// Asks it.
    async fn check(&self) -> Stored<()>;
}

/// Ports that work by connections of their own, for what requests must not keep waiting: the order worker and the sweeper.
#[derive(Clone)]
#[expect(missing_docs, reason = "each field is the port of its type")]
pub struct Background {
    pub ledger_clock: Arc<dyn LedgerClock>,
    pub session_ledger: Arc<dyn SessionLedger>,
    pub ban_ledger: Arc<dyn BanLedger>,
    pub sales: Arc<dyn Sales>,
    pub orders: Arc<dyn OrderLedger>,
}

/// Every port of one backend, as `wire` puts them together.
#[derive(Clone)]
#[expect(missing_docs, reason = "each other field is the port of its type")]
pub struct Ports {
    pub clock: Arc<dyn Clock>,
    pub ledger_clock: Arc<dyn LedgerClock>,
    pub random: Arc<dyn Random>,
    pub users: Arc<dyn Users>,
    pub sales: Arc<dyn Sales>,
    pub orders: Arc<dyn OrderLedger>,
    pub signing_keys: Arc<dyn SigningKeys>,
    pub gate: Arc<dyn Gate>,
    pub session_ledger: Arc<dyn SessionLedger>,
    pub ban_ledger: Arc<dyn BanLedger>,
    pub sessions: Arc<dyn Sessions>,
    pub blacklist: Arc<dyn Blacklist>,
    pub failures: Arc<dyn Failures>,
    pub captchas: Arc<dyn Captchas>,
    pub admission: Arc<dyn Admission>,
    pub queue: Arc<dyn OrderQueue>,
    pub source: Arc<dyn OrderSource>,
    pub consumer_reports: Arc<dyn ConsumerReports>,
    pub dead_letters: Arc<dyn DeadLetters>,
    pub locks: Arc<dyn Locks>,
    pub cache: Arc<dyn Cache>,
    pub artist: Arc<dyn CaptchaArtist>,
    pub health: Vec<Arc<dyn Health>>,
    /// In place of the ports of the same names, for the worker and the sweeper. `None`: those serve everybody.
    pub background: Option<Background>,
}
