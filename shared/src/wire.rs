//! Chooses the adapters, and is the only module that names them: one `match` per address, by its
//! URL scheme.

mod program;

pub use program::Program;

use std::{sync::Arc, time::Duration};

use secrecy::ExposeSecret as _;

use crate::{
    adapters::{
        AddressError,
        absent::{NoQueue, NoSms},
        memory::{
            MemoryAdmission, MemoryCache, MemoryConsumerReports, MemoryGate, MemoryLocks,
            MemoryPhoneCodes,
        },
        mysql::{MySql, MySqlMigrationError, MySqlUrlError},
        rabbitmq::{AmqpUrlError, RabbitMq},
        redis::{Redis, RedisUrlError},
        siteverify::{Siteverify, SiteverifySettings},
        sms::{LogSms, WebhookSettings, WebhookSms},
        sqlite::{OpenError, Sqlite},
        system::{Artist, SystemClock, SystemRandom},
    },
    config::{CaptchaMode, Config, ConfigError, PhoneVerification, ServersMode},
    domain::schema::{Migrated, Schema},
    ports::{
        AdminLedger, Admission, Background, BanLedger, Blacklist, Cache, CaptchaProvider, Captchas,
        ChallengeLevels, Checkout, ConsumerReports, DeadLetters, DrawLedger, Failures, Gate,
        Health, LedgerClock, Line, Locks, OrderLedger, OrderQueue, OrderSource, PhoneCodes, Ports,
        Sales, SessionLedger, Sessions, SigningKeys, SmsSender, Users,
    },
};

/// Why the configured backend can't be assembled.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The embedded store can't be opened.
    #[error(transparent)]
    Embedded(Box<OpenError>),
    /// The address of Redis is wrong.
    #[error(transparent)]
    Redis(#[from] RedisUrlError),
    /// The address of the database is wrong.
    #[error(transparent)]
    Database(#[from] MySqlUrlError),
    /// The database's schema can't be brought up to date, or can't be used.
    #[error("database: {0}")]
    Migration(#[from] MySqlMigrationError),
    /// The address of RabbitMQ is wrong.
    #[error(transparent)]
    Amqp(#[from] AmqpUrlError),
    /// The SMS gateway can't be used.
    #[error("sms_webhook.url: {0}")]
    Sms(AddressError),
    /// The SMS gateway's secrets can't be read.
    #[error(transparent)]
    SmsSecrets(#[from] ConfigError),
    /// The captcha provider can't be called.
    #[error("captchas.provider.verify_url: {0}")]
    Provider(AddressError),
    /// No adapter supports the scheme.
    #[error("{flag}: scheme {scheme:?} is not known; expected {expected}")]
    Scheme {
        /// The command-line flag that sets the address.
        flag: &'static str,
        /// The part before `://`.
        scheme: String,
        /// The supported schemes.
        expected: &'static str,
    },
}

impl From<OpenError> for WireError {
    fn from(error: OpenError) -> Self {
        // Boxed because `OpenError` is by far the largest of these errors.
        Self::Embedded(Box::new(error))
    }
}

/// The part of the backend behind `--database-url`.
struct Ledger {
    users: Arc<dyn Users>,
    session_ledger: Arc<dyn SessionLedger>,
    ban_ledger: Arc<dyn BanLedger>,
    sales: Arc<dyn Sales>,
    orders: Arc<dyn OrderLedger>,
    draws: Arc<dyn DrawLedger>,
    admin_ledger: Arc<dyn AdminLedger>,
    signing_keys: Arc<dyn SigningKeys>,
    challenge_levels: Arc<dyn ChallengeLevels>,
    clock: Arc<dyn LedgerClock>,
    health: Arc<dyn Health>,
    background: Option<Background>,
}

/// The part behind `--redis-url`.
struct Front {
    gate: Arc<dyn Gate>,
    sessions: Arc<dyn Sessions>,
    blacklist: Arc<dyn Blacklist>,
    failures: Arc<dyn Failures>,
    captchas: Arc<dyn Captchas>,
    phone_codes: Arc<dyn PhoneCodes>,
    admission: Arc<dyn Admission>,
    checkout: Option<Arc<dyn Checkout>>,
    line: Arc<dyn Line>,
    locks: Arc<dyn Locks>,
    cache: Arc<dyn Cache>,
    consumer_reports: Arc<dyn ConsumerReports>,
    health: Option<Arc<dyn Health>>,
}

/// The part behind `--amqp-url`.
struct Queue {
    queue: Arc<dyn OrderQueue>,
    source: Arc<dyn OrderSource>,
    dead_letters: Arc<dyn DeadLetters>,
    health: Option<Arc<dyn Health>>,
}

/// The whole backend, as the emulator uses it; see [`connect_for`].
///
/// # Errors
/// As [`connect_for`].
pub async fn connect(config: &Config) -> Result<Ports, WireError> {
    connect_for(config, Program::Emulator).await
}

/// Assembles the parts of the configured backend that a program uses. Connections are opened at
/// first use. By then [`migrate`] must have brought the database's schema up to date, or every
/// database call fails and names that reason; an embedded store is migrated here.
///
/// # Errors
/// When an address is wrong, or the data directory can't be used.
pub async fn connect_for(config: &Config, program: Program) -> Result<Ports, WireError> {
    crate::crypto::install();
    let (ledger, front, queue) = match config.servers {
        ServersMode::Embedded => embedded(config).await?,
        ServersMode::Local | ServersMode::External => (
            ledger(config, program)?,
            front(config.redis_url.expose_secret(), &config.redis_key_prefix)?,
            if program.uses_queue() {
                queue(config.amqp_url.expose_secret(), &config.amqp_queue)?
            } else {
                no_queue()
            },
        ),
    };
    Ok(Ports {
        clock: Arc::new(SystemClock),
        ledger_clock: ledger.clock,
        random: Arc::new(SystemRandom),
        users: ledger.users,
        sales: ledger.sales,
        orders: ledger.orders,
        draws: ledger.draws,
        admin_ledger: ledger.admin_ledger,
        signing_keys: ledger.signing_keys,
        challenge_levels: ledger.challenge_levels,
        gate: front.gate,
        session_ledger: ledger.session_ledger,
        ban_ledger: ledger.ban_ledger,
        sessions: front.sessions,
        blacklist: front.blacklist,
        failures: front.failures,
        captchas: front.captchas,
        phone_codes: front.phone_codes,
        sms: sms(config, program)?,
        admission: front.admission,
        checkout: front.checkout,
        line: front.line,
        queue: queue.queue,
        source: queue.source,
        consumer_reports: front.consumer_reports,
        dead_letters: queue.dead_letters,
        locks: front.locks,
        cache: front.cache,
        artist: Arc::new(Artist),
        captcha_provider: captcha_provider(config)?,
        health: [Some(ledger.health), front.health, queue.health].into_iter().flatten().collect(),
        background: ledger.background,
    })
}

/// Brings the schema of the configured ledger up to date and returns what was done.
///
/// # Errors
/// When its address is wrong, the data directory is in use, or the database refuses.
pub async fn migrate(config: &Config) -> Result<Migrated, WireError> {
    match config.servers {
        ServersMode::Embedded => Ok(Sqlite::migrate(&config.data_dir, config.loose_files()).await?),
        ServersMode::Local | ServersMode::External => Ok(database(config)?.migrate().await?),
    }
}

/// Compares the schema of the configured ledger with this release, without changing it.
///
/// # Errors
/// When the ledger's address is wrong, its schema can't be read, or this release must not use it.
pub async fn schema(config: &Config) -> Result<Schema, WireError> {
    match config.servers {
        ServersMode::Embedded => Ok(Sqlite::schema(&config.data_dir).await?),
        ServersMode::Local | ServersMode::External => Ok(database(config)?.schema().await?),
    }
}

async fn embedded(config: &Config) -> Result<(Ledger, Front, Queue), WireError> {
    let store = Arc::new(Sqlite::open(&config.data_dir, config.loose_files()).await?);
    let gate = Arc::new(MemoryGate::new());
    // Starts empty and is rebuilt from the ledger and the queue, as after a loss of Redis.
    let admission = Arc::new(MemoryAdmission::default());
    let front = Front {
        gate: Arc::clone(&gate) as _,
        sessions: Arc::clone(&gate) as _,
        blacklist: Arc::clone(&gate) as _,
        failures: Arc::clone(&gate) as _,
        captchas: gate,
        phone_codes: Arc::new(MemoryPhoneCodes::new()),
        admission: Arc::clone(&admission) as _,
        line: admission,
        checkout: None,
        locks: Arc::new(MemoryLocks::new()),
        cache: Arc::new(MemoryCache::new()),
        consumer_reports: Arc::new(MemoryConsumerReports::new()),
        health: None,
    };
    let queue = Queue {
        queue: Arc::clone(&store) as _,
        source: Arc::clone(&store) as _,
        dead_letters: Arc::clone(&store) as _,
        health: None,
    };
    Ok((whole_ledger(store, Arc::new(SystemClock)), front, queue))
}

fn ledger(config: &Config, program: Program) -> Result<Ledger, WireError> {
    let store = database(config)?.on_current_schema_only();
    let background = program.has_background().then(|| {
        let own = Arc::new(store.with_own_connections());
        Background {
            ledger_clock: Arc::clone(&own) as _,
            session_ledger: Arc::clone(&own) as _,
            ban_ledger: Arc::clone(&own) as _,
            sales: Arc::clone(&own) as _,
            orders: Arc::clone(&own) as _,
            draws: own,
        }
    });
    let store = Arc::new(store);
    Ok(Ledger { background, ..whole_ledger(Arc::clone(&store), store) })
}

/// MySQL is the only database server with an adapter.
fn database(config: &Config) -> Result<MySql, WireError> {
    let url = config.database_url.expose_secret();
    match scheme(url) {
        "mysql" => Ok(MySql::new(url)?),
        other => Err(unknown("--database-url", other, "mysql://")),
    }
}

fn front(url: &str, prefix: &str) -> Result<Front, WireError> {
    match scheme(url) {
        "redis" | "rediss" | "redis+cluster" | "rediss+cluster" | "redis+sentinel"
        | "rediss+sentinel" => {
            let store = Arc::new(Redis::new(url, prefix)?);
            Ok(Front {
                gate: Arc::clone(&store) as _,
                sessions: Arc::clone(&store) as _,
                blacklist: Arc::clone(&store) as _,
                failures: Arc::clone(&store) as _,
                captchas: Arc::clone(&store) as _,
                phone_codes: Arc::clone(&store) as _,
                admission: Arc::clone(&store) as _,
                checkout: store.single().map(|single| Arc::new(single) as _),
                line: Arc::clone(&store) as _,
                locks: Arc::clone(&store) as _,
                cache: Arc::clone(&store) as _,
                consumer_reports: Arc::clone(&store) as _,
                health: Some(store),
            })
        }
        other => Err(unknown(
            "--redis-url",
            other,
            "redis://, rediss://, redis+cluster:// or redis+sentinel://",
        )),
    }
}

fn sms(config: &Config, program: Program) -> Result<Arc<dyn SmsSender>, WireError> {
    if !program.sends_messages() {
        return Ok(Arc::new(NoSms));
    }
    Ok(match config.phone_verification {
        PhoneVerification::Off => Arc::new(NoSms),
        PhoneVerification::Log => Arc::new(LogSms),
        PhoneVerification::Webhook => {
            let webhook = &config.sms_webhook;
            let settings = WebhookSettings {
                url: webhook.url.clone(),
                secrets: webhook.secrets()?,
                timeout: Duration::from_millis(webhook.timeout_ms),
                attempt_timeout: Duration::from_millis(webhook.attempt_timeout_ms),
                attempts_max: webhook.attempts_max,
                at_once_max: webhook.at_once_max,
                waiting_max: webhook.waiting_max,
            };
            let (clock, random) = (Arc::new(SystemClock), Arc::new(SystemRandom));
            Arc::new(WebhookSms::new(settings, clock, random).map_err(WireError::Sms)?)
        }
    })
}

fn queue(url: &str, name: &str) -> Result<Queue, WireError> {
    match scheme(url) {
        "amqp" | "amqps" => {
            let store = Arc::new(RabbitMq::new(url, name)?);
            Ok(Queue {
                queue: Arc::clone(&store) as _,
                source: Arc::clone(&store) as _,
                dead_letters: Arc::clone(&store) as _,
                health: Some(store),
            })
        }
        other => Err(unknown("--amqp-url", other, "amqp:// or amqps://")),
    }
}

fn captcha_provider(config: &Config) -> Result<Option<Arc<dyn CaptchaProvider>>, WireError> {
    if config.captcha != CaptchaMode::Provider {
        return Ok(None);
    }
    let settings = &config.captchas.provider;
    let provider = Siteverify::new(SiteverifySettings {
        url: settings.verify_url().to_owned(),
        secret: settings.secret.clone(),
        hostnames: settings.hostnames.clone(),
        timeout: Duration::from_millis(settings.timeout_ms),
        calls_max: settings.calls_max,
    });
    let provider = provider.map_err(WireError::Provider)?;
    Ok(Some(Arc::new(provider)))
}

fn no_queue() -> Queue {
    let none = Arc::new(NoQueue);
    Queue {
        queue: Arc::clone(&none) as _,
        source: Arc::clone(&none) as _,
        dead_letters: none,
        health: None,
    }
}

fn whole_ledger<
    T: Users
        + SessionLedger
        + BanLedger
        + Sales
        + OrderLedger
        + DrawLedger
        + AdminLedger
        + SigningKeys
        + ChallengeLevels
        + Health
        + 'static,
>(
    store: Arc<T>,
    clock: Arc<dyn LedgerClock>,
) -> Ledger {
    Ledger {
        users: Arc::clone(&store) as _,
        session_ledger: Arc::clone(&store) as _,
        ban_ledger: Arc::clone(&store) as _,
        sales: Arc::clone(&store) as _,
        orders: Arc::clone(&store) as _,
        draws: Arc::clone(&store) as _,
        admin_ledger: Arc::clone(&store) as _,
        signing_keys: Arc::clone(&store) as _,
        challenge_levels: Arc::clone(&store) as _,
        clock,
        health: store,
        background: None,
    }
}

/// The part before `://`. Errors show only this part, because an address may hold a password.
fn scheme(url: &str) -> &str {
    url.split_once("://").map_or("", |(scheme, _)| scheme)
}

fn unknown(flag: &'static str, scheme: &str, expected: &'static str) -> WireError {
    WireError::Scheme { flag, scheme: scheme.to_owned(), expected }
}
