//! Every trait between the product and the outside, on one page.
//!
//! A refusal that a caller must expect ("sold out", "no such session") is a value. An error is a
//! [`StoreError`] and says what the caller may do about it. Every method is idempotent: a caller
//! may repeat it with the same arguments after an error. Every method returns in bounded time:
//! adapters set a timeout for each call. Times are arguments; adapters make no decision by a clock
//! of their own.

use std::{fmt, net::IpAddr, sync::Arc};

use async_trait::async_trait;

use crate::domain::{
    ActionId, AddressPrefix, AdminAction, AdmissionDecision, AdmissionState, AdmittedOrder,
    Availability, Ban, BanReach, CacheEntry, Captcha, CaptchaId, ChallengeLevel, CodeDigest,
    ConsumerProgress, ConsumerReport, CreationKey, DeadLetter, Delivery, Draw, EndedOrder, Entry,
    GateDecision, GateRequest, Invitation, KeptBan, KeptCode, KeptLevel, KeptSession, Lease,
    LineKey, NoDraw, Opening, Order, OrderId, Phone, QueueBacklog, QueueDepth, Recorded,
    RecordedEntry, ReportFilter, ReportPage, ReportSort, ReportedOrder, Reservation,
    ReservationPage, ReserveRequest, Sale, SaleChange, SaleChanged, SaleCreated, SaleId, SaleTally,
    SaleTerms, Seed, Session, SessionId, Sms, Subject, Timestamp, Transition, Unrecordable, User,
    UserChange, UserCreated, UserId,
};

/// A store's failure, classified by what the caller can do about it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Nothing happened; try again later.
    #[error("{store} is unavailable: {cause}")]
    Unavailable {
        /// The store's display name: `Redis`, `MySQL`, `RabbitMQ`, `SQLite` or `SMS gateway`.
        store: &'static str,
        /// The client library's message, without secrets.
        cause: String,
    },
    /// The call timed out or its connection was lost, so it may have taken effect. Try again; every
    /// call is idempotent.
    #[error("{store} did not answer: {cause}")]
    Unknown {
        /// Which store.
        store: &'static str,
        /// The client library's message.
        cause: String,
    },
    /// The store holds or returned invalid data. Trying again does not help.
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
    /// Milliseconds since a fixed moment of this process, for measuring durations. Never goes back
    /// and never jumps, even when the wall clock is set.
    fn monotonic_ms(&self) -> u64;
}

/// The clock of the ledger's server: the reference for the clocks of all processes of one backend.
#[async_trait]
pub trait LedgerClock: Send + Sync {
    /// The server's wall clock, UTC.
    async fn ask(&self) -> Stored<Timestamp>;
}

/// A source of cryptographically secure random bytes.
pub trait Random: Send + Sync + fmt::Debug {
    /// Fills `bytes`.
    fn fill(&self, bytes: &mut [u8]);
}

// -------------------------------------------------------------------------------------------------
// The ledger: SQL, the truth
// -------------------------------------------------------------------------------------------------

/// Registered users.
#[async_trait]
pub trait Users: Send + Sync {
    /// Stores a new user; a phone belongs to one user at most. A repeat with the same `user_id` is
    /// `Created`.
    async fn create(&self, user: &User) -> Stored<UserCreated>;
    /// Stores many new users in as few transactions as the store allows and skips users whose phone
    /// is taken. Returns the ids that are now stored, in the given order.
    async fn create_many(&self, users: &[User]) -> Stored<Vec<UserId>>;
    /// The user with the phone.
    async fn by_phone(&self, phone: &Phone) -> Stored<Option<User>>;
    /// The user with the id.
    async fn by_id(&self, user_id: UserId) -> Stored<Option<User>>;
    /// In one transaction: applies `change`, raises the user's generation, and ends all of the
    /// user's sessions in the ledger except `keep` (see [`SessionLedger`]). Returns `false` and
    /// changes nothing when there is no such user or the user's generation is not
    /// `only_generation`. So a repeat after an error may return `false` although the first call
    /// succeeded.
    async fn change(&self, user_id: UserId, change: &UserChange, now: Timestamp) -> Stored<bool>;
}

/// Sales, as the ledger keeps them.
#[async_trait]
pub trait Sales: Send + Sync {
    /// Stores a new sale (with `sold` 0), for commands and the demo: no administrator's action is
    /// noted. A repeat with the same id changes nothing.
    async fn create(&self, sale: &Sale) -> Stored<()>;
    /// Stores a new sale as [`Sales::create`] does, with its key and the action in the same
    /// transaction. Each key stores at most one sale, whatever the id; the action is noted only with
    /// the sale.
    async fn create_once(
        &self,
        sale: &Sale,
        once: &CreationKey,
        action: &AdminAction,
    ) -> Stored<SaleCreated>;
    /// The sale with the id.
    async fn get(&self, sale_id: SaleId) -> Stored<Option<Sale>>;
    /// Sales with an id below `before` (all when `None`), newest id first, at most `limit`.
    async fn list(&self, before: Option<SaleId>, limit: u32) -> Stored<Vec<Sale>>;
    /// Sales that end at or after `ends_from`, in ascending order of id, beginning after `after`,
    /// at most `limit`.
    async fn ending_from(
        &self,
        ends_from: Timestamp,
        after: Option<SaleId>,
        limit: u32,
    ) -> Stored<Vec<Sale>>;
    /// Sales that end at or after `ends_from`, latest end first, at most `limit`.
    async fn ending_last(&self, ends_from: Timestamp, limit: u32) -> Stored<Vec<Sale>>;
    /// Sales that end before `ends_before`, in ascending order of id, beginning after `after`, at
    /// most `limit`.
    async fn ended_before(
        &self,
        ends_before: Timestamp,
        after: Option<SaleId>,
        limit: u32,
    ) -> Stored<Vec<Sale>>;
    /// Locks the sale's row and applies `change` by [`Sale::changed`], so that no order is recorded
    /// between the decision and the change. Notes the action, with the fields that have changed, in
    /// the same transaction.
    async fn change(
        &self,
        sale_id: SaleId,
        change: &SaleChange,
        action: &AdminAction,
    ) -> Stored<SaleChanged>;
    /// Raises the sale's `epoch` and returns the new one: the fencing token of one rebuild. `None`:
    /// no such sale.
    async fn raise_epoch(&self, sale_id: SaleId) -> Stored<Option<u64>>;
}

/// Orders, as the ledger keeps them. Every method that changes how many units are held locks the
/// sale's row first and changes `sold` in the same transaction as the order's row.
#[async_trait]
pub trait OrderLedger: Send + Sync {
    /// Records admitted orders in one transaction and returns one outcome per request in the given
    /// order (a repeated id within the batch is recorded once). An order is recorded `Confirmed`
    /// with `pay_by = now + pay_within_ms`, or `Rejected` when no unit is left, the user's limit is
    /// reached or the sale is unknown. An order that is already stored is returned unchanged. An
    /// order that can never be recorded, for example at a price that the sale never had, is
    /// skipped, and the others are recorded. The adapter retries deadlocks and lock timeouts.
    ///
    /// # Errors
    /// `Unavailable`: nothing was recorded. `Unknown`: the orders may have been recorded. `Corrupt`
    /// is about the store, such as an unreadable row of a sale, and never about one of the orders.
    async fn record(
        &self,
        requests: &[AdmittedOrder],
        now: Timestamp,
        pay_within_ms: u64,
    ) -> Stored<Vec<Result<Recorded, Unrecordable>>>;
    /// The order with the id.
    async fn get(&self, order_id: OrderId) -> Stored<Option<Order>>;
    /// The orders with these ids, as far as they exist, in no particular order.
    async fn get_many(&self, order_ids: &[OrderId]) -> Stored<Vec<Order>>;
    /// A user's orders with an id below `before`, newest id first, at most `limit`.
    async fn of_user(
        &self,
        user_id: UserId,
        before: Option<OrderId>,
        limit: u32,
    ) -> Stored<Vec<Order>>;
    /// `Confirmed` -> `Paid`, when `now < pay_by`: one conditional update, so that only one of
    /// expiry and payment takes effect.
    async fn pay(&self, order_id: OrderId, user_id: UserId, now: Timestamp) -> Stored<Transition>;
    /// `Confirmed` -> `Cancelled`. When the ledger has no such order yet and `queued` is given, the
    /// order is recorded as `Cancelled` at once; recording its message later changes nothing.
    async fn cancel(
        &self,
        order_id: OrderId,
        user_id: UserId,
        queued: Option<&AdmittedOrder>,
        now: Timestamp,
    ) -> Stored<Transition>;
    /// `Confirmed` -> `Expired` for orders whose `pay_by` is at or before `now`, at most `limit` a
    /// call. Returns them.
    async fn expire_due(&self, now: Timestamp, limit: u32) -> Stored<Vec<Order>>;
    /// Sales with orders that [`OrderLedger::expire_due`] would expire, in ascending order of id,
    /// beginning after `after`, at most `limit`.
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
    /// Cancelled, expired or rejected orders whose unit has not been returned to the admission
    /// store (`stock_returned_at` is NULL), in ascending order of id, beginning after `after`, at
    /// most `limit`.
    async fn stock_to_return(&self, after: Option<OrderId>, limit: u32) -> Stored<Vec<Order>>;
    /// Sets `stock_returned_at` where it is NULL. Call it after the admission store has released
    /// the orders.
    async fn mark_stock_returned(&self, order_ids: &[OrderId], now: Timestamp) -> Stored<()>;
    /// Active orders of a sale with their origin, in ascending order of id, beginning after `after`,
    /// at most `limit`.
    async fn active(
        &self,
        sale_id: SaleId,
        after: Option<OrderId>,
        limit: u32,
    ) -> Stored<Vec<ReportedOrder>>;
    /// Orders of a sale that count as attempts of their users ([`Order::given_up`]), in ascending
    /// order of id, beginning after `after`, at most `limit`.
    async fn given_up(
        &self,
        sale_id: SaleId,
        after: Option<OrderId>,
        limit: u32,
    ) -> Stored<Vec<Order>>;
    /// The number of a sale's orders by the name of their status, in ascending order of the name.
    /// Counts row by row: 1 to 2 s for a million orders.
    async fn count_by_status(&self, sale_id: SaleId) -> Stored<Vec<(String, u64)>>;
    /// Computes a sale's totals from its rows, for audits: several scans of all its orders.
    async fn tally(&self, sale_id: SaleId) -> Stored<SaleTally>;
}

/// Draws of sales, with their entries and invitations, as the ledger keeps them. Methods that change
/// a draw lock its row first, so that its numbers and its entries' rows agree.
#[async_trait]
pub trait DrawLedger: Send + Sync {
    /// Stores the seed of a sale that is about to be created by draw. A repeat changes nothing. A
    /// draw without a sale is harmless.
    async fn prepare(&self, sale_id: SaleId, seed: &Seed) -> Stored<()>;
    /// The sale's draw. `None`: the sale is not by draw.
    async fn draw(&self, sale_id: SaleId) -> Stored<Option<Draw>>;
    /// Stores the value of the beacon that the sale named, unless one is stored or entries are
    /// still open, and notes the action in the same transaction. `false` when nothing was stored and
    /// another value or none stands.
    async fn set_beacon_value(
        &self,
        sale_id: SaleId,
        value: &str,
        action: &AdminAction,
    ) -> Stored<bool>;
    /// Records entries in one transaction and returns one outcome per entry in the given order. An
    /// entry is late when its sale's entries are closed or it was accepted at or after the sale's
    /// start; late entries get the next numbers of arrival in the given order. An entry of a user
    /// who has one already is returned as it was first recorded.
    async fn enter(&self, entries: &[Entry]) -> Stored<Vec<Result<RecordedEntry, NoDraw>>>;
    /// The user's entry.
    async fn entry(&self, sale_id: SaleId, user_id: UserId) -> Stored<Option<RecordedEntry>>;
    /// The sale's entries in ascending order of user id, beginning after `after`, at most `limit`.
    async fn entries(
        &self,
        sale_id: SaleId,
        after: Option<UserId>,
        limit: u32,
    ) -> Stored<Vec<RecordedEntry>>;
    /// Closes entries: later ones are late. Returns the draw as it is now. A repeat changes
    /// nothing.
    async fn close_entries(&self, sale_id: SaleId, now: Timestamp) -> Stored<Option<Draw>>;
    /// Stores invitations of the next users in the line; their places begin with the number of
    /// invitations so far. `false`, and nothing is stored, when they don't, because another process
    /// invited in between.
    async fn invite(&self, sale_id: SaleId, next: &[Invitation]) -> Stored<bool>;
    /// The sale's invitations in the order of places, beginning with place `from`, at most `limit`.
    async fn invitations(&self, sale_id: SaleId, from: u64, limit: u32) -> Stored<Vec<Invitation>>;
    /// Invitations that last at `now` and whose user has never had an order of the sale, in the
    /// order of places, beginning with place `from`, at most `limit`.
    async fn unused_invitations(
        &self,
        sale_id: SaleId,
        now: Timestamp,
        from: u64,
        limit: u32,
    ) -> Stored<Vec<Invitation>>;
}

/// Orders and the trail of actions, as administrators see and change them. The other changes that
/// administrators make, of [`Sales`] and [`BanLedger`], take an [`AdminAction`] too and note it in
/// their transaction.
#[async_trait]
pub trait AdminLedger: Send + Sync {
    /// Recorded orders of a sale that meet the filter, by id, beginning behind `after`, at most
    /// `limit`. The search for one page is bounded, so a page may be short, or empty, although it
    /// is not the last one.
    async fn orders(
        &self,
        sale_id: SaleId,
        filter: &ReportFilter,
        sort: ReportSort,
        after: Option<OrderId>,
        limit: u32,
    ) -> Stored<ReportPage>;
    /// `Confirmed` -> `Cancelled`, whoever's order it is, with the reason and the action in the
    /// same transaction; an order that is only queued is recorded as `Cancelled`, as by
    /// [`OrderLedger::cancel`]. An order that was cancelled for another reason, or by its buyer, is
    /// `Refused`, as is any other final status; then no action is noted.
    async fn cancel(
        &self,
        order_id: OrderId,
        queued: Option<&AdmittedOrder>,
        reason: &str,
        action: &AdminAction,
        now: Timestamp,
    ) -> Stored<Transition>;
    /// Whom a ban of the network would hit, by the latest orders of all sales, of which a bounded
    /// number is searched.
    async fn reach_of_network(&self, prefix: AddressPrefix) -> Stored<BanReach>;
    /// Whom a ban of the user would hit.
    async fn reach_of_user(&self, user_id: UserId, now: Timestamp) -> Stored<BanReach>;
    /// Notes an action whose change is not in the ledger. Call it right after the change.
    async fn note(&self, action: &AdminAction) -> Stored<()>;
    /// Actions with an id below `before` (all when `None`), newest first, at most `limit`.
    async fn actions(&self, before: Option<ActionId>, limit: u32) -> Stored<Vec<AdminAction>>;
}

/// Sessions, as the ledger keeps them. A session is opened and ended here first and then in the
/// fast store ([`Sessions`]). When the fast store does not know a session, it is looked up here.
#[async_trait]
pub trait SessionLedger: Send + Sync {
    /// Opens sessions of users whose generation is still the given one, under the lock on the
    /// user's row, which [`Users::change`] takes too. A user holds at most
    /// [`SESSIONS_PER_USER_MAX`](crate::domain::SESSIONS_PER_USER_MAX) live sessions; opening one
    /// more ends the one that would expire first. A repeat with the same id changes nothing.
    /// Returns the ids that are now alive, in the given order.
    async fn open(&self, openings: &[Opening], now: Timestamp) -> Stored<Vec<SessionId>>;
    /// The sessions with these ids, as far as they exist, in no particular order.
    async fn get_many(&self, session_ids: &[SessionId]) -> Stored<Vec<KeptSession>>;
    /// Ends one of the user's sessions.
    async fn end(&self, user_id: UserId, session_id: SessionId, now: Timestamp) -> Stored<()>;
    /// Ended sessions whose end is due to be copied to the fast store at or before `now`, at most
    /// `limit`. Every ended session is due until [`SessionLedger::note_ends`] is called for it.
    async fn ends_due(&self, now: Timestamp, limit: u32) -> Stored<Vec<KeptSession>>;
    /// Notes that the ends were copied to the fast store. If `again_at` is given, they are due
    /// again at that time.
    async fn note_ends(&self, session_ids: &[SessionId], again_at: Option<Timestamp>)
    -> Stored<()>;
    /// Deletes sessions that had expired at `before`, at most `limit`. Returns how many.
    async fn delete_over(&self, before: Timestamp, limit: u32) -> Stored<u32>;
}

/// The operators' bans, as the ledger keeps them. A ban is created and lifted here first and then
/// in the fast store ([`Blacklist`]). Automatic bans are in the fast store only.
#[async_trait]
pub trait BanLedger: Send + Sync {
    /// Puts a ban, in place of an earlier one of the same subject, and notes the action in the same
    /// transaction.
    async fn put(&self, ban: &Ban, action: &AdminAction) -> Stored<()>;
    /// Lifts the subject's ban and notes the action in the same transaction; `false`, without an
    /// action, when no ban is in force at `now`.
    async fn lift(&self, subject: &Subject, now: Timestamp, action: &AdminAction) -> Stored<bool>;
    /// The bans of the subjects, including lifted and expired ones, in no particular order.
    async fn of(&self, subjects: &[Subject]) -> Stored<Vec<KeptBan>>;
    /// Bans in force at `now`, ordered by kind and value, beginning after `after`, at most `limit`.
    async fn page(
        &self,
        now: Timestamp,
        after: Option<&Subject>,
        limit: u32,
    ) -> Stored<Vec<KeptBan>>;
    /// Changed bans that are due to be copied to the fast store at or before `now`, at most
    /// `limit`. Every change is due until [`BanLedger::note_shared`] is called for it.
    async fn shares_due(&self, now: Timestamp, limit: u32) -> Stored<Vec<KeptBan>>;
    /// Notes that this version of the subject's ban was copied to the fast store. If `again_at` is
    /// given, it is due again at that time. Does nothing when the ban now has another version.
    async fn note_shared(
        &self,
        subject: &Subject,
        version: u64,
        again_at: Option<Timestamp>,
    ) -> Stored<()>;
    /// Deletes bans that had expired or been lifted at `before` and are no longer due to be copied,
    /// at most `limit`. Returns how many.
    async fn delete_over(&self, before: Timestamp, limit: u32) -> Stored<u32>;
}

/// The level of proofs of work, as the ledger keeps it. Instances cache it.
#[async_trait]
pub trait ChallengeLevels: Send + Sync {
    /// The level. `None` when it was never set.
    async fn get(&self) -> Stored<Option<KeptLevel>>;
    /// Sets the level, notes the action in the same transaction, and returns the level as it is kept
    /// now. Each call raises the version.
    async fn set(
        &self,
        level: ChallengeLevel,
        action: &AdminAction,
        now: Timestamp,
    ) -> Stored<KeptLevel>;
}

/// Signing keys kept in the ledger, so that several processes share the keys generated in the
/// development profile.
#[async_trait]
pub trait SigningKeys: Send + Sync {
    /// The secret stored under `name`; when there is none, stores `candidate`. All callers get the
    /// same secret.
    async fn get_or_create(&self, name: &str, candidate: &[u8]) -> Stored<Vec<u8>>;
}

// -------------------------------------------------------------------------------------------------
// The gate: authentication, bans and rate limits
// -------------------------------------------------------------------------------------------------

/// Sessions, bans and limits, checked together.
#[async_trait]
pub trait Gate: Send + Sync {
    /// Checks everything in `entry`; charges either all limits or none.
    async fn enter(&self, entry: &GateRequest) -> Stored<GateDecision>;
}

/// Sessions of all users in the fast store, where every instance sees a change at once. The store
/// may lose them: [`SessionLedger`] has them too.
#[async_trait]
pub trait Sessions: Send + Sync {
    /// Stores sessions (one, or thousands when seeding). A user holds at most
    /// [`SESSIONS_PER_USER_MAX`](crate::domain::SESSIONS_PER_USER_MAX); opening one more ends the
    /// one that would expire first. After a failure the remaining sessions are still tried; then
    /// the error is returned.
    async fn open(&self, sessions: &[Session], now: Timestamp) -> Stored<()>;
    /// Ends one of the user's sessions.
    async fn end(&self, user_id: UserId, session_id: SessionId) -> Stored<()>;
    /// Ends all sessions of a user except `keep`.
    async fn end_all(&self, user_id: UserId, keep: Option<SessionId>) -> Stored<()>;
}

/// Banned subjects in the fast store. The store may lose them: [`BanLedger`] has the operators'
/// bans too.
#[async_trait]
pub trait Blacklist: Send + Sync {
    /// Puts a ban, in place of an earlier one of the same subject.
    async fn ban(&self, ban: &Ban) -> Stored<()>;
    /// Lifts a ban; `false` when there was none.
    async fn lift(&self, subject: &Subject) -> Stored<bool>;
    /// As [`Blacklist::lift`], but leaves a ban in place that was created after `put_until`.
    async fn lift_older(&self, subject: &Subject, put_until: Timestamp) -> Stored<bool>;
    /// Bans in force at `now`, including automatic ones, newest first, from the `offset`th on, at
    /// most `limit`.
    async fn list(&self, now: Timestamp, offset: u32, limit: u32) -> Stored<Vec<Ban>>;
    /// Restores bans that the store may have lost. A ban in the store that lasts at least as long
    /// as the restored one stays. After a failure the remaining bans are still tried; then the
    /// error is returned.
    async fn restore(&self, bans: &[Ban]) -> Stored<()>;
    /// Whether the caller should load the operators' bans: `false` after
    /// [`Blacklist::finish_loading`], until the store loses its data. Only the latest `token` may
    /// finish.
    async fn begin_loading(&self, token: u128) -> Stored<bool>;
    /// Notes that all bans were restored since [`Blacklist::begin_loading`] with this token. Does
    /// nothing when the store has lost its data since or another token has begun.
    async fn finish_loading(&self, token: u128) -> Stored<()>;
}

/// Counts failures (sign-ins) by a key.
#[async_trait]
pub trait Failures: Send + Sync {
    /// Failures within the running window.
    async fn count(&self, subject: &Subject, now: Timestamp) -> Stored<u32>;
    /// Adds one failure and returns the count; the window starts with the first failure and ends
    /// `window_ms` later.
    async fn add(&self, subject: &Subject, window_ms: u64, now: Timestamp) -> Stored<u32>;
    /// Resets the count.
    async fn clear(&self, subject: &Subject) -> Stored<()>;
}

/// Unanswered captchas.
#[async_trait]
pub trait Captchas: Send + Sync {
    /// Stores a captcha.
    async fn put(&self, captcha: &Captcha, now: Timestamp) -> Stored<()>;
    /// Reads a captcha that has not expired, without removing it (for its audio form).
    async fn peek(&self, captcha_id: CaptchaId, now: Timestamp) -> Stored<Option<Captcha>>;
    /// Removes and returns a captcha that has not expired; at most one caller gets it.
    async fn take(&self, captcha_id: CaptchaId, now: Timestamp) -> Stored<Option<Captcha>>;
    /// Notes until `until` that a provider's token, given by its digest, answered this captcha;
    /// `false` when it has answered another one before.
    async fn spend(
        &self,
        token: &[u8; 32],
        captcha_id: CaptchaId,
        until: Timestamp,
        now: Timestamp,
    ) -> Stored<bool>;
}

// -------------------------------------------------------------------------------------------------
// Phone numbers: codes and the text messages that carry them
// -------------------------------------------------------------------------------------------------

/// The codes that were sent, one per phone number at most, and how many text messages a day had. In
/// the fast store, which may lose them: then users ask for new codes.
#[async_trait]
pub trait PhoneCodes: Send + Sync {
    /// Stores a code in place of an earlier one of the same number.
    async fn put(&self, code: &KeptCode, now: Timestamp) -> Stored<()>;
    /// Takes one of the attempts of the number's code and returns the code's digest, for the caller
    /// to compare. `None` when there is no code, it has expired, or no attempt was left; so each
    /// code is tried at most as often as it was given attempts, by however many callers at once. A
    /// repeat after an error may take another attempt.
    async fn attempt(&self, phone: &Phone, now: Timestamp) -> Stored<Option<CodeDigest>>;
    /// Removes the number's code if it still has this digest, also when no attempt is left. At most
    /// one caller gets `true`; so does nobody when the code was replaced meanwhile or has expired.
    async fn redeem(&self, phone: &Phone, digest: CodeDigest, now: Timestamp) -> Stored<bool>;
    /// Counts one message of the day, given as days since 1970 (UTC), unless the day has had
    /// `per_day_max`. Returns whether it was counted. A repeat after an error may count twice.
    async fn count_message(&self, day: u32, per_day_max: u32) -> Stored<bool>;
    /// Takes back one counted message of the day. A repeat after an error may take back twice.
    async fn uncount_message(&self, day: u32) -> Stored<()>;
}

/// Sends text messages.
#[async_trait]
pub trait SmsSender: Send + Sync {
    /// Sends one message. `Ok` only after whoever delivers it has accepted it. A repeat has the
    /// same `sms_id`, by which a gateway recognises it.
    ///
    /// # Errors
    /// `Unavailable`: it will not be delivered. `Unknown`: it may be.
    async fn send(&self, sms: &Sms) -> Stored<()>;
}

// -------------------------------------------------------------------------------------------------
// Admission: who gets a unit
// -------------------------------------------------------------------------------------------------

/// The fast, conservative gate in front of the ledger. A sale's reservations are a set of order
/// ids, and the available units are the stock minus the size of the set. So every change is by id
/// and idempotent.
///
/// The store remembers an ended order ([`Admission::release`]) as long as it keeps the sale's data,
/// so that a retry, a late settlement or a rebuild can't bring the order back.
#[async_trait]
pub trait Admission: Send + Sync {
    /// Gives the ticket's order a unit, atomically.
    async fn reserve(&self, request: &ReserveRequest, now: Timestamp) -> Stored<AdmissionDecision>;
    /// What a ticket request of the user needs to know; changes nothing. Without `from`, the
    /// network of the request, no network counts as sold out. `None` when admission for the sale is
    /// not open.
    async fn look(
        &self,
        sale_id: SaleId,
        user_id: UserId,
        from: Option<AddressPrefix>,
    ) -> Stored<Option<Availability>>;
    /// The order's reservation.
    async fn find(&self, sale_id: SaleId, order_id: OrderId) -> Stored<Option<Reservation>>;
    /// The reservations of these orders, as far as they have one, in no particular order.
    async fn find_many(&self, sale_id: SaleId, order_ids: &[OrderId]) -> Stored<Vec<Reservation>>;
    /// Marks the reservations of orders that are active in the ledger as settled. Adds reservations
    /// that the store has lost, even beyond the stock, because the ledger is authoritative; skips
    /// orders that have ended. Does nothing, without error, when the sale is `Missing`: the rebuild
    /// will find the orders in the ledger.
    async fn settle(&self, sale_id: SaleId, active: &[AdmittedOrder]) -> Stored<()>;
    /// Returns the units of ended orders, by id. Each id is remembered as ended even when it held
    /// no unit. An order that was given up counts once as an attempt of its user, whether or not it
    /// held a unit and was known to have ended.
    async fn release(&self, sale_id: SaleId, ended: &[EndedOrder]) -> Stored<()>;
    /// Returns up to `limit` unsettled reservations that were admitted or last claimed at or before
    /// `before`, oldest first, and sets their time to `now`, so that each is returned once per
    /// period.
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
    /// The state of the sale in the store.
    async fn state(&self, sale_id: SaleId) -> Stored<AdmissionState>;
    /// Begins a rebuild of a sale that is `Missing` or `Rebuilding`: closes admission and keeps
    /// existing reservations. Returns `false` and changes nothing when the sale is `Open` under any
    /// epoch (another process has finished its rebuild since the caller read the state), or when
    /// the store has an epoch at or above `epoch`.
    async fn begin_rebuild(&self, terms: &SaleTerms, epoch: u64, now: Timestamp) -> Stored<bool>;
    /// Adds settled reservations during a rebuild and skips orders that have ended. `false` when
    /// the store is not rebuilding under exactly this epoch.
    async fn restore(&self, sale_id: SaleId, epoch: u64, active: &[AdmittedOrder]) -> Stored<bool>;
    /// Ends the rebuild and opens admission. `false` as for [`Admission::restore`]; a repeat
    /// returns `true` when admission is open under exactly this epoch.
    async fn finish_rebuild(&self, sale_id: SaleId, epoch: u64) -> Stored<bool>;
    /// Replaces the terms of a sale that the store knows, unless it has newer ones. `false` when
    /// the sale is `Missing`.
    async fn set_terms(&self, terms: &SaleTerms) -> Stored<bool>;
}

/// The gate and the admission store, asked together.
#[async_trait]
pub trait Checkout: Send + Sync {
    /// [`Gate::enter`], and if the request enters, [`Admission::reserve`] for `order` at the
    /// request's time. `Err`: why the gate refuses the request; nothing was reserved.
    ///
    /// # Errors
    /// `Unknown`: the limits may have been charged and a unit may have been reserved. Asked again
    /// with the same ticket, the store answers `Again`.
    async fn enter_and_reserve(
        &self,
        request: &GateRequest,
        order: &ReserveRequest,
    ) -> Stored<Result<AdmissionDecision, GateDecision>>;
}

/// The line of a sale by draw, beside its reservations: who stands where, and who may buy now. It is
/// derived from the ledger and rebuilt from there. In such a sale [`Admission::reserve`] gives a
/// unit only to a user whose invitation lasts, and removes the invitation in the same step; so units
/// held and invitations together never exceed the stock by an invitation.
#[async_trait]
pub trait Line: Send + Sync {
    /// Adds users with their keys. A repeat changes nothing. Does nothing when the sale is `Missing`:
    /// the rebuild adds all entries of the ledger.
    async fn add(&self, sale_id: SaleId, entries: &[(UserId, LineKey)]) -> Stored<()>;
    /// Number of users in the line.
    async fn length(&self, sale_id: SaleId) -> Stored<LineLength>;
    /// The user's key.
    async fn key(&self, sale_id: SaleId, user_id: UserId) -> Stored<Option<LineKey>>;
    /// The user's place, from 0 on.
    async fn place(&self, sale_id: SaleId, user_id: UserId) -> Stored<Option<u64>>;
    /// The users behind `after` (from the front when `None`), in the order of the line, at most
    /// `limit`.
    async fn next(
        &self,
        sale_id: SaleId,
        after: Option<(LineKey, UserId)>,
        limit: u32,
    ) -> Stored<Vec<(UserId, LineKey)>>;
    /// The key of every `step`-th of the first `count` users, beginning with the first.
    async fn sample(&self, sale_id: SaleId, count: u64, step: u64) -> Stored<Vec<LineKey>>;
    /// Forgets invitations that ended at or before `now`, then counts. `None` when admission for
    /// the sale is not open.
    async fn free(&self, sale_id: SaleId, now: Timestamp) -> Stored<Option<FreeUnits>>;
    /// Adds invitations and notes that the first `invited` places were invited. Does nothing when
    /// the store has noted more.
    async fn invite(&self, sale_id: SaleId, next: &[Invitation], invited: u64) -> Stored<()>;
}

/// The answer of [`Line::length`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LineLength {
    /// Users whose entries were in time.
    pub in_time: u64,
    /// Users whose entries were late.
    pub late: u64,
}

/// The answer of [`Line::free`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FreeUnits {
    /// Units that are neither held by an order nor promised by an invitation.
    pub free: u32,
    /// Invitations that last.
    pub open_invitations: u32,
    /// How many places the store knows to be invited.
    pub invited: u64,
}

// -------------------------------------------------------------------------------------------------
// Hand-off: the order queue
// -------------------------------------------------------------------------------------------------

/// Time limit of one [`OrderQueue::publish`] call, in milliseconds.
pub const PUBLISH_LIMIT_MS: u64 = 6_000;

/// The publishing side of the order queue.
#[async_trait]
pub trait OrderQueue: Send + Sync {
    /// Makes the orders durable as one message. `Ok` only after the message was routed to the queue
    /// and the queue confirmed it (a majority of a quorum queue, or a synced commit). Returns
    /// within [`PUBLISH_LIMIT_MS`].
    async fn publish(&self, orders: &[AdmittedOrder]) -> Stored<()>;
    /// Makes entries of sales by draw durable as one message, as [`OrderQueue::publish`] does with
    /// orders.
    async fn publish_entries(&self, entries: &[Entry]) -> Stored<()>;
    /// How many publishes may run at once so that they are faster than one after the other: 1 where
    /// each waits for the one before.
    fn publishes_at_once(&self) -> usize;
    /// Parks an unusable message with the reason, as durably as [`OrderQueue::publish`].
    async fn park(&self, body: &[u8], reason: &str) -> Stored<()>;
    /// The number of waiting and of parked messages.
    async fn depth(&self) -> Stored<QueueDepth>;
    /// Messages between the publishers and the ledger.
    async fn backlog(&self) -> Stored<QueueBacklog>;
    /// If this process has been the only user of the queue since it started: how many of the
    /// messages that it found at its start are not yet processed. An order that an earlier process
    /// admitted is in one of these messages or will never be published. `None`, without a call to a
    /// store, when other processes publish too.
    async fn inherited(&self) -> Stored<Option<u64>>;
}

/// Parked messages, for the operator.
#[async_trait]
pub trait DeadLetters: Send + Sync {
    /// Parked messages, at most `limit`, oldest first if the queue keeps their order.
    async fn list(&self, limit: u32) -> Stored<Vec<DeadLetter>>;
    /// Moves a parked message back into the queue, as durably as [`OrderQueue::publish`]. After an
    /// error the message may be in both places, which is harmless because each order is recorded
    /// once. `false` when no such message is parked.
    async fn retry(&self, id: &str) -> Stored<bool>;
    /// Deletes a parked message. `false` when no such message is parked.
    async fn discard(&self, id: &str) -> Stored<bool>;
}

/// The consuming side of the queue, for the poller.
#[async_trait]
pub trait OrderSource: Send + Sync {
    /// This consumer's progress, if [`OrderQueue::backlog`] counts it among the consumers. `None`
    /// when the queue itself knows which messages are unacknowledged, and while nothing is
    /// consumed.
    fn progress(&self) -> Option<ConsumerProgress>;
    /// Waits up to `wait_ms` for a first message, then collects the available messages, at most
    /// `limit`. Empty when none arrived. Each message is with one consumer at a time.
    async fn receive(&self, limit: u32, wait_ms: u64) -> Stored<Vec<Delivery>>;
    /// Removes processed messages. Tags of a lost connection are ignored: its messages are
    /// redelivered.
    async fn ack(&self, tags: &[u64]) -> Stored<()>;
    /// Returns messages to the queue for redelivery. A message returned too often is parked.
    async fn hand_back(&self, tags: &[u64]) -> Stored<()>;
    /// Stops consuming and returns unacknowledged messages to the queue. Call it last: afterwards
    /// nothing can be received or published through the same connection.
    async fn close(&self);
}

// -------------------------------------------------------------------------------------------------
// Coordination and caching
// -------------------------------------------------------------------------------------------------

/// Progress reports of all processes that consume the queue. They are shared because AMQP does not
/// tell which messages its consumers hold.
#[async_trait]
pub trait ConsumerReports: Send + Sync {
    /// Replaces the process's earlier report. `now` only decides when the reports of stopped
    /// processes are dropped.
    async fn report(&self, report: &ConsumerReport, now: Timestamp) -> Stored<()>;
    /// The last report of each process. The report of a stopped process stays for a while; its beat
    /// no longer grows.
    async fn reports(&self) -> Stored<Vec<ConsumerReport>>;
}

/// Locks with a lease, for rebuild, preheat and sweeper leadership. Changes of stock need no lock.
#[async_trait]
pub trait Locks: Send + Sync {
    /// Takes the lock for `lease_ms` unless another token holds it; the same token renews its
    /// lease.
    async fn acquire(
        &self,
        name: &str,
        token: u128,
        lease_ms: u64,
        now: Timestamp,
    ) -> Stored<Option<Lease>>;
    /// Extends a lease that is still held; `false` when the lock was lost.
    async fn renew(&self, lease: &Lease, lease_ms: u64, now: Timestamp) -> Stored<bool>;
    /// Releases the lock; does nothing when the lock was lost.
    async fn release(&self, lease: &Lease) -> Stored<()>;
}

/// The second cache level, shared by all instances (the first is in each process).
#[async_trait]
pub trait Cache: Send + Sync {
    /// The value stored under the key.
    async fn get(&self, key: &str, now: Timestamp) -> Stored<Option<Vec<u8>>>;
    /// Stores each value for its `ttl_ms`, unless a value with a higher `version` is stored under
    /// its key. Entries are independent: after an error some may have been stored.
    async fn put(&self, entries: &[CacheEntry], now: Timestamp) -> Stored<()>;
}

// -------------------------------------------------------------------------------------------------
// Other ports
// -------------------------------------------------------------------------------------------------

/// Draws and speaks captchas.
pub trait CaptchaArtist: Send + Sync {
    /// A new answer, of characters that are easy to distinguish by eye and by ear.
    fn answer(&self, random: &dyn Random) -> String;
    /// The picture, PNG.
    fn draw(&self, answer: &str) -> Stored<Vec<u8>>;
    /// The sound, WAV.
    fn speak(&self, answer: &str) -> Stored<Vec<u8>>;
}

/// A service that shows captchas in its own widget and judges the tokens that the widget makes:
/// Turnstile, hCaptcha or reCAPTCHA.
#[async_trait]
pub trait CaptchaProvider: Send + Sync {
    /// Whether the provider takes the token, which it does once. Where the provider tells for which
    /// page, action or captcha the token was made, it must be ours, `action` and `captcha_id`.
    ///
    /// Not idempotent: a repeat after a lost answer is refused, because the provider has seen the
    /// token. `Corrupt` is about our own settings, such as a secret that the provider refuses.
    async fn accepts(
        &self,
        token: &str,
        action: &'static str,
        captcha_id: CaptchaId,
        address: IpAddr,
    ) -> Stored<bool>;
}

/// A health check of one part of the backend.
#[async_trait]
pub trait Health: Send + Sync {
    /// The name in logs and in `/readyz`: `redis`, `database` or `queue`.
    fn name(&self) -> &'static str;
    /// Returns an error when the part does not answer.
    async fn check(&self) -> Stored<()>;
}

/// Ports with connections of their own for the order worker and the sweeper, so that requests can't
/// delay them.
#[derive(Clone)]
#[expect(missing_docs, reason = "each field is the port of its type")]
pub struct Background {
    pub ledger_clock: Arc<dyn LedgerClock>,
    pub session_ledger: Arc<dyn SessionLedger>,
    pub ban_ledger: Arc<dyn BanLedger>,
    pub sales: Arc<dyn Sales>,
    pub orders: Arc<dyn OrderLedger>,
    pub draws: Arc<dyn DrawLedger>,
}

/// Every port of one backend, as `wire` assembles them.
#[derive(Clone)]
#[expect(missing_docs, reason = "each other field is the port of its type")]
pub struct Ports {
    pub clock: Arc<dyn Clock>,
    pub ledger_clock: Arc<dyn LedgerClock>,
    pub random: Arc<dyn Random>,
    pub users: Arc<dyn Users>,
    pub sales: Arc<dyn Sales>,
    pub orders: Arc<dyn OrderLedger>,
    pub draws: Arc<dyn DrawLedger>,
    pub admin_ledger: Arc<dyn AdminLedger>,
    pub signing_keys: Arc<dyn SigningKeys>,
    pub challenge_levels: Arc<dyn ChallengeLevels>,
    pub gate: Arc<dyn Gate>,
    pub session_ledger: Arc<dyn SessionLedger>,
    pub ban_ledger: Arc<dyn BanLedger>,
    pub sessions: Arc<dyn Sessions>,
    pub blacklist: Arc<dyn Blacklist>,
    pub failures: Arc<dyn Failures>,
    pub captchas: Arc<dyn Captchas>,
    pub phone_codes: Arc<dyn PhoneCodes>,
    pub sms: Arc<dyn SmsSender>,
    pub admission: Arc<dyn Admission>,
    /// Asks the gate and the admission store in one trip. `None`: no server has the data of both,
    /// and [`Ports`] asks one after the other.
    pub checkout: Option<Arc<dyn Checkout>>,
    pub line: Arc<dyn Line>,
    pub queue: Arc<dyn OrderQueue>,
    pub source: Arc<dyn OrderSource>,
    pub consumer_reports: Arc<dyn ConsumerReports>,
    pub dead_letters: Arc<dyn DeadLetters>,
    pub locks: Arc<dyn Locks>,
    pub cache: Arc<dyn Cache>,
    pub artist: Arc<dyn CaptchaArtist>,
    /// With captchas of kind `provider`.
    pub captcha_provider: Option<Arc<dyn CaptchaProvider>>,
    pub health: Vec<Arc<dyn Health>>,
    /// Replaces the ports of the same names for the worker and the sweeper. `None`: these share the
    /// request ports.
    pub background: Option<Background>,
}

#[async_trait]
impl Checkout for Ports {
    async fn enter_and_reserve(
        &self,
        request: &GateRequest,
        order: &ReserveRequest,
    ) -> Stored<Result<AdmissionDecision, GateDecision>> {
        if let Some(checkout) = &self.checkout {
            return checkout.enter_and_reserve(request, order).await;
        }
        match self.gate.enter(request).await? {
            GateDecision::Entered => Ok(Ok(self.admission.reserve(order, request.now).await?)),
            refusal => Ok(Err(refusal)),
        }
    }
}
