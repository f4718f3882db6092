//! The use cases, and the [`App`] that holds the configuration, ports and caches they work with.
//!
//! Functions call the use cases and nothing below them. Use cases reach adapters only through
//! ports.

mod access;
mod accounts;
mod admin_orders;
mod admin_sales;
mod audit;
mod bans;
mod captcha_pool;
mod captchas;
mod challenge_level;
mod checkout;
mod clock_check;
mod dead_letters;
mod draw;
mod fair_queue;
mod limits;
mod local_cache;
mod order_counts;
mod order_lookup;
mod order_sharing;
mod orders;
mod passwords;
mod phone_codes;
mod proof_of_work;
mod publisher;
mod recording;
mod refusal_cache;
mod sales;
mod sessions;
mod sweeper;
mod tokens;

use std::{future::Future, ops::Deref, sync::Arc, time::Duration};

pub use access::{Admin, Caller, Client};
pub use accounts::Credentials;
pub use captchas::CaptchaAnswer;
pub use draw::{CheckedDraw, CheckedEntry, CheckedPlace, check_draw};
pub use phone_codes::{CodeRequest, Registering};
pub use sales::CachedJson;
pub use sessions::LookupFigures;
pub use sweeper::Swept;
pub use tokens::SessionClaims;

use tokio::sync::oneshot;
use tracing::Instrument as _;

use crate::{
    config::{Config, ConfigError},
    domain::{AdmittedOrder, Entry, Timestamp},
    ports::{Background, Ports, Stored},
    problem::Problem,
    request_context::RequestContext,
    security,
};
use captcha_pool::Studio;
use challenge_level::LevelMemory;
use clock_check::ClockMemory;
use dead_letters::ParkedLately;
use draw::DrawMemory;
use order_counts::OrderCounts;
use order_lookup::OrderMemory;
use order_sharing::OrderSharing;
use passwords::Passwords;
use publisher::Publisher;
use refusal_cache::Refusals;
use sales::Catalog;
use sessions::Lookups;
use sweeper::{SharingMemory, SweepMemory};
use tokens::{Keys, VerifiedSessions};

/// The state of one process: its configuration, its ports and its caches. Cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Inner>);

/// The fields of [`App`].
#[derive(Clone)]
pub struct Inner {
    /// The configuration.
    pub config: Config,
    /// The ports.
    pub ports: Ports,
    session_keys: Arc<Keys>,
    verified_sessions: Arc<VerifiedSessions>,
    ticket_keys: Arc<Keys>,
    passwords: Arc<Passwords>,
    studio: Studio,
    level: Arc<LevelMemory>,
    refusals: Arc<Refusals>,
    refused: Arc<security::Refused>,
    catalog: Arc<Catalog>,
    publisher: Arc<Publisher<AdmittedOrder>>,
    entry_publisher: Arc<Publisher<Entry>>,
    draws: Arc<DrawMemory>,
    order_memory: Arc<OrderMemory>,
    order_counts: Arc<OrderCounts>,
    order_sharing: OrderSharing,
    parked_lately: Arc<ParkedLately>,
    sweep: Arc<SweepMemory>,
    clocks: Arc<ClockMemory>,
    lookups: Arc<Lookups>,
    sharing: Arc<SharingMemory>,
}

impl App {
    /// Builds an app without calling a store. Must be called inside a Tokio runtime.
    ///
    /// # Errors
    /// When a configured key is invalid.
    pub fn new(config: Config, ports: Ports) -> Result<Self, ConfigError> {
        crate::crypto::install();
        let session_keys = Keys::new("session", &config.session_keys()?);
        let ticket_keys = Keys::new("ticket", &config.ticket_keys()?);
        let passwords =
            Passwords::new(config.login.hashes_at_once, config.login.hashes_waiting_max);
        let at_once = fair_queue::half_of_the_processors();
        let studio = Studio::new(
            Arc::clone(&ports.artist),
            Arc::clone(&ports.random),
            at_once,
            &config.captchas,
        );
        let refusals = Refusals::new(config.abuse);
        let refused = security::Refused::default();
        let catalog = Catalog::new(&config.cache);
        let orders = &config.orders;
        let order_sharing = OrderSharing::new(
            Arc::clone(&ports.cache),
            Arc::clone(&ports.clock),
            config.cache.order_ms,
        );
        let wait_max = Duration::from_millis(orders.publish_wait_ms);
        let publisher = Publisher::spawn(
            Arc::clone(&ports.queue),
            order_sharing.clone(),
            orders.publish_group_max,
            orders.publish_waiting_max,
            wait_max,
        );
        let entry_publisher = Publisher::spawn(
            Arc::clone(&ports.queue),
            order_sharing.clone(),
            orders.publish_group_max,
            orders.publish_waiting_max,
            wait_max,
        );
        let draws = DrawMemory::new(&config.cache);
        let sweep = SweepMemory::new(ports.random.as_ref());
        let parked_lately = ParkedLately::default();
        let clocks = ClockMemory::default();
        let lookups =
            Lookups::new(config.sessions.lookups_at_once, config.sessions.lookups_waiting_max);
        let sharing = SharingMemory::new(ports.random.as_ref());
        Ok(Self(Arc::new(Inner {
            config,
            ports,
            session_keys: Arc::new(session_keys),
            verified_sessions: Arc::new(VerifiedSessions::new()),
            ticket_keys: Arc::new(ticket_keys),
            passwords: Arc::new(passwords),
            studio,
            level: Arc::default(),
            refusals: Arc::new(refusals),
            refused: Arc::new(refused),
            catalog: Arc::new(catalog),
            publisher: Arc::new(publisher),
            entry_publisher: Arc::new(entry_publisher),
            draws: Arc::new(draws),
            order_memory: Arc::new(OrderMemory::default()),
            order_counts: Arc::new(OrderCounts::new()),
            order_sharing,
            parked_lately: Arc::new(parked_lately),
            sweep: Arc::new(sweep),
            clocks: Arc::new(clocks),
            lookups: Arc::new(lookups),
            sharing: Arc::new(sharing),
        })))
    }

    /// The app for the order worker and the sweeper: [`crate::ports::Background`] replaces the
    /// ports that requests, above all status polls, keep busy.
    #[must_use]
    pub fn background(&self) -> Self {
        let Some(Background { ledger_clock, session_ledger, ban_ledger, sales, orders, draws }) =
            self.ports.background.clone()
        else {
            return self.clone();
        };
        let ports = Ports {
            ledger_clock,
            session_ledger,
            ban_ledger,
            sales,
            orders,
            draws,
            ..self.ports.clone()
        };
        Self(Arc::new(Inner { ports, ..Inner::clone(self) }))
    }

    /// Fetches the signing keys that only the ledger has, so that no request waits for them or
    /// fails without them.
    ///
    /// # Errors
    /// When the ledger does not answer.
    pub async fn load_signing_keys(&self) -> Stored<()> {
        self.session_keys.ring(&self.ports).await?;
        self.ticket_keys.ring(&self.ports).await?;
        Ok(())
    }

    /// The current time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.ports.clock.now()
    }

    /// The monotonic clock, for measuring durations.
    fn monotonic_ms(&self) -> u64 {
        self.ports.clock.monotonic_ms()
    }

    /// Ten random bytes, for an id.
    fn ten(&self) -> [u8; 10] {
        let mut bytes = [0; 10];
        self.ports.random.fill(&mut bytes);
        bytes
    }
}

impl Deref for App {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

/// Runs, in its own task, the part of a use case that must not be left half done. When the client
/// disconnects, the request's future is dropped, but the task goes on. No answer carries its refusal
/// then, so its cause is logged here.
async fn finish<T: Send + 'static>(
    work: impl Future<Output = Result<T, Problem>> + Send + 'static,
) -> Result<T, Problem> {
    let (sender, outcome) = oneshot::channel();
    let task = async move {
        if let Err(Err(problem)) = sender.send(work.await) {
            problem.log_cause();
        }
    };
    let task = task.in_current_span();
    let task = match RequestContext::current() {
        Some(context) => tokio::spawn(context.scope(task)),
        None => tokio::spawn(task),
    };
    if let Ok(outcome) = outcome.await {
        return outcome;
    }
    if let Err(error) = task.await {
        tracing::error!(%error, "a use case ended early");
    }
    Err(Problem::Internal)
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn the_second_half_of_a_use_case_outlives_its_caller() {
        let (begun, go, done) =
            (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let work = {
            let (begun, go, done) = (Arc::clone(&begun), Arc::clone(&go), Arc::clone(&done));
            async move {
                begun.add_permits(1);
                go.acquire().await.unwrap().forget();
                done.add_permits(1);
                Ok(())
            }
        };
        let caller = tokio::spawn(finish(work));
        begun.acquire().await.unwrap().forget();
        caller.abort();
        assert!(caller.await.unwrap_err().is_cancelled());
        go.add_permits(1);
        tokio::time::timeout(Duration::from_secs(10), done.acquire())
            .await
            .expect("the work goes on after the caller is gone")
            .unwrap()
            .forget();
    }

    #[tokio::test]
    async fn a_panic_in_a_use_case_is_an_internal_error() {
        let ended = finish::<()>(async { panic!("on purpose") }).await;
        assert!(matches!(ended, Err(Problem::Internal)));
    }
}
