//! Every metric of `GET /metrics`, declared once: its name, kind, labels and meaning.
//!
//! Code gets a handle from the declaration once and keeps it: [`Metric::counter`] and the like look
//! it up by labels, whereas counting on a handle is one atomic addition. A process without a
//! recorder (a function on Lambda, an emulator without `--admin-listen`) gets handles that do
//! nothing, so a recorder must be installed before the first handle is made. `infra/METRICS.md`
//! shows [`ALL`]; a test compares the two.

use std::{sync::OnceLock, time::Duration};

use metrics::{
    Counter, Gauge, Histogram, Key, KeyName, Label, Level, Metadata, SharedString, Unit,
};

use crate::problem::Problem;

/// How a metric is counted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// A current value.
    Gauge,
    /// Counts values by size; contains the upper bounds of its buckets.
    Histogram(&'static [f64]),
}

impl Kind {
    /// The name in Prometheus' text format.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

/// When `/metrics` shows a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// Always, at the latest after the first purchase.
    Always,
    /// Like `Always`, but only with `--servers local` or `external`.
    Servers,
    /// Like `Always`, but only with embedded state.
    Embedded,
    /// Only with `--host processes`.
    Processes,
    /// From the first such event on.
    Event,
}

/// The process that measures it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measured {
    /// The emulator, whichever way the functions run.
    Emulator,
    /// The functions. With `--host processes` they measure in their own processes, which are not
    /// scraped; the emulator then shows only its own work through the same code.
    Functions,
}

/// The declaration of one metric.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Its name, with the unit last.
    pub name: &'static str,
    /// How it is counted.
    pub kind: Kind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// When it is shown.
    pub shown: Shown,
    /// Which process measures it.
    pub measured: Measured,
    /// One sentence.
    pub help: &'static str,
}

/// Bucket bounds for what a shopper waits for, in seconds: the gateway ends a request after about
/// 30 s.
const REQUEST_SECONDS: Kind = Kind::Histogram(&[
    0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
]);
/// Bucket bounds for calls of stores, in seconds: from a local Redis up to a timeout.
const STORE_SECONDS: Kind = Kind::Histogram(&[
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
]);
/// Bucket bounds for work that passes through the queue, in seconds: 30 s is the promise; while the
/// ledger is down it can be minutes.
const ORDER_SECONDS: Kind = Kind::Histogram(&[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0,
]);
/// Bucket bounds for the size of groups that share one commit.
const GROUP: Kind =
    Kind::Histogram(&[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1_024.0]);
const COUNTER: Kind = Kind::Counter;
const GAUGE: Kind = Kind::Gauge;

macro_rules! declare {
    ($($constant:ident $name:literal $kind:ident [$($label:literal)*] $shown:ident $measured:ident $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $constant: Metric = Metric {
                name: $name,
                kind: $kind,
                labels: &[$($label),*],
                shown: Shown::$shown,
                measured: Measured::$measured,
                help: $help,
            };
        )*

        /// Every metric.
        pub const ALL: &[Metric] = &[$($constant),*];
    };
}

declare! {
    HTTP_REQUESTS "flashsale_http_requests_total" COUNTER ["function" "method" "route" "status"] Always Emulator
        "Requests to /api that were answered.";
    HTTP_SECONDS "flashsale_http_request_duration_seconds" REQUEST_SECONDS ["function" "method" "route" "status"] Always Emulator
        "Time from the request's head to the head of its answer.";
    LIMITED "flashsale_limited_total" COUNTER ["limit"] Event Emulator
        "Requests that a limit refused with 429.";
    CONNECTIONS_OPEN "flashsale_connections_open" GAUGE [] Always Emulator
        "Connections that the gateway's public port holds.";
    CONNECTIONS_MAX "flashsale_connections_max" GAUGE [] Always Emulator
        "Connections that the gateway's public port may hold.";
    CONNECTIONS_REFUSED "flashsale_connections_refused_total" COUNTER [] Always Emulator
        "Connections that were refused because their address holds as many as it may.";
    CONNECTIONS_DISPLACED "flashsale_connections_displaced_total" COUNTER [] Always Emulator
        "Idle connections that were asked to end to make room for others.";
    READY "flashsale_ready" GAUGE [] Always Emulator
        "1 while GET /readyz answers 200.";
    PART_UP "flashsale_part_up" GAUGE ["part"] Always Emulator
        "1 while the part answers (redis, database, queue), the clock is right (clock), or functions can be started (functions).";
    CLOCK_DIFFERENCE "flashsale_clock_difference_seconds" GAUGE [] Always Emulator
        "How far this machine's clock was ahead of the ledger's when they were last compared.";
    BUILD_INFO "flashsale_build_info" GAUGE ["version"] Always Emulator
        "1, with the version of the running binary.";

    QUEUE_WAITING "flashsale_queue_waiting_messages" GAUGE [] Always Emulator
        "Messages in the order queue, with those that this instance's poller holds; NaN while the queue does not answer.";
    QUEUE_PARKED "flashsale_queue_parked_messages" GAUGE [] Always Emulator
        "Messages that were parked; NaN while the queue does not answer.";
    QUEUE_AGE "flashsale_queue_oldest_message_age_seconds" GAUGE [] Always Emulator
        "Age of the oldest order that this instance's poller has received and not settled; 0 when it holds none.";
    BATCH_SECONDS "flashsale_order_batch_seconds" ORDER_SECONDS [] Always Emulator
        "Time from a batch's first try until each of its messages was acknowledged or handed back.";
    HANDED_BACK "flashsale_queue_handed_back_messages_total" COUNTER [] Always Emulator
        "Messages that the poller handed back after the order worker had failed.";

    SWEEPER_LEADER "flashsale_sweeper_leader" GAUGE [] Always Emulator
        "1 while this instance leads the sweeper.";
    SWEEPER_LAST_SWEEP "flashsale_sweeper_last_sweep_timestamp_seconds" GAUGE [] Always Emulator
        "When this instance last completed a sweep as the leader, in Unix time.";
    SWEEPS "flashsale_sweeps_total" COUNTER ["outcome"] Always Emulator
        "Ticks of the sweeper: swept, standby (another instance leads), clock-wrong or failed.";
    SWEEP_SECONDS "flashsale_sweep_seconds" REQUEST_SECONDS [] Always Emulator
        "Time of one tick of the sweeper.";
    SWEPT "flashsale_swept_total" COUNTER ["step"] Always Emulator
        "What sweeps have done: ends of sessions and bans shared, orders expired, units returned, overdue orders republished or settled, admissions rebuilt, reservations reconciled, users invited to buy.";
    SWEEP_STEPS_FAILED "flashsale_sweep_steps_failed_total" COUNTER [] Always Emulator
        "Steps of sweeps that failed and are tried again by the next sweep.";
    OVERDUE "flashsale_overdue_orders" GAUGE [] Always Emulator
        "Reservations that were overdue in this instance's last sweep; 0 when it does not lead.";
    REBUILDING "flashsale_admission_rebuilding_sales" GAUGE [] Always Emulator
        "Sales whose admission was being rebuilt in this instance's last sweep; 0 when it does not lead.";

    ENTRIES "flashsale_entries_total" COUNTER ["outcome"] Event Functions
        "Entries in draws: entered, or the slug of the problem.";
    TICKETS "flashsale_tickets_total" COUNTER ["outcome"] Always Functions
        "Ticket requests: issued, or the slug of the problem.";
    ORDERS "flashsale_orders_total" COUNTER ["outcome"] Always Functions
        "Order requests: accepted, or the slug of the problem.";
    PAYMENTS "flashsale_payments_total" COUNTER ["outcome"] Event Functions
        "Payments: paid, or the slug of the problem.";
    CANCELLATIONS "flashsale_cancellations_total" COUNTER ["outcome"] Event Functions
        "Cancellations by shoppers: cancelled, or the slug of the problem.";
    REGISTRATIONS "flashsale_registrations_total" COUNTER ["outcome"] Event Functions
        "Registrations: registered, or the slug of the problem.";
    SIGN_INS "flashsale_sign_ins_total" COUNTER ["outcome"] Event Functions
        "Sign-ins: opened (a session), or the slug of the problem.";
    ORDERS_RECORDED "flashsale_orders_recorded_total" COUNTER ["outcome"] Always Functions
        "Orders from the queue: confirmed, the reason of their rejection, known (recorded before) or unrecordable.";
    ENTRIES_RECORDED "flashsale_entries_recorded_total" COUNTER ["outcome"] Event Functions
        "Entries from the queue: in-time, late, or unrecordable (the sale is not by draw). A repeated entry counts again.";
    ORDER_SECONDS_TO_FINAL "flashsale_order_final_seconds" ORDER_SECONDS [] Always Functions
        "Time from an order's admission until the worker had recorded it, confirmed or rejected.";
    MESSAGES_PARKED "flashsale_messages_parked_total" COUNTER [] Event Functions
        "Messages that the order worker parked because they can't be used.";
    PUBLISH_SECONDS "flashsale_publish_seconds" STORE_SECONDS ["outcome"] Always Functions
        "Time until the queue confirmed a group of orders or entries: confirmed, unavailable (nothing happened) or unknown.";
    PUBLISH_GROUP "flashsale_publish_group_orders" GROUP [] Always Functions
        "Orders or entries that shared one publish.";
    CAPTCHAS_DRAWN "flashsale_captchas_drawn_total" COUNTER [] Event Functions
        "Captchas that were handed out.";
    CAPTCHA_ANSWERS "flashsale_captcha_answers_total" COUNTER ["outcome"] Event Functions
        "Answers to captchas: solved, or the slug of the problem.";
    PHONE_CODES "flashsale_phone_codes_total" COUNTER ["outcome"] Event Functions
        "Requests for phone codes: sent, or the slug of the problem.";
    PHONE_CODE_ANSWERS "flashsale_phone_code_answers_total" COUNTER ["outcome"] Event Functions
        "Phone codes that came back: right, or the slug of the problem.";
    PASSWORD_RECOVERIES "flashsale_password_recoveries_total" COUNTER ["outcome"] Event Functions
        "Passwords set with a phone code: recovered, or the slug of the problem.";
    SMS_SECONDS "flashsale_sms_seconds" STORE_SECONDS ["outcome"] Event Functions
        "Time until a text message was handed over, with its retries: accepted, unavailable (not sent) or unknown (it may have been).";
    BANS "flashsale_bans_total" COUNTER ["by"] Event Functions
        "Bans that were put: by operator, or automatic after too many refusals.";
    ADMIN_ACTIONS "flashsale_admin_actions_total" COUNTER ["action"] Event Functions
        "Changes that administrators made, by the name of the action in the trail.";
    CACHE_LOOKUPS "flashsale_cache_lookups_total" COUNTER ["cache"] Always Functions
        "Look-ups in a cache: sale, available and sale_list in the process's memory, shared_sale in the store that all share.";
    CACHE_MISSES "flashsale_cache_misses_total" COUNTER ["cache"] Always Functions
        "Those of them that had to read what is behind the cache.";
    SESSION_LOOKUPS "flashsale_session_lookups_total" COUNTER [] Always Functions
        "Queries to the ledger for sessions that the fast store did not know.";
    SESSIONS_LOOKED_UP "flashsale_sessions_looked_up_total" COUNTER [] Always Functions
        "Sessions that those queries looked up.";
    SESSION_LOOKUPS_AT_ONCE "flashsale_session_lookups_at_once_max" GAUGE [] Always Functions
        "The most of those queries that were under way at once.";

    REDIS_SECONDS "flashsale_redis_call_seconds" STORE_SECONDS ["call"] Servers Functions
        "Time of a call of Redis, by script; plain commands are `command`.";
    REDIS_FAILURES "flashsale_redis_call_failures_total" COUNTER ["call"] Servers Functions
        "Calls of Redis that failed, by script; plain commands are `command`.";
    DATABASE_ACQUIRE_SECONDS "flashsale_database_acquire_seconds" STORE_SECONDS ["pool"] Servers Functions
        "Time until a call had a connection of its pool: requests, or background (worker and sweeper).";
    DATABASE_CALL_SECONDS "flashsale_database_call_seconds" STORE_SECONDS ["pool" "kind"] Servers Functions
        "Time of a query or transaction once it had its connection.";
    DATABASE_WAITING "flashsale_database_waiting_calls" GAUGE ["pool"] Servers Functions
        "Calls that wait for a connection of the pool.";
    DATABASE_IN_USE "flashsale_database_connections_in_use" GAUGE ["pool"] Servers Functions
        "Connections of the pool that work for a call.";
    DATABASE_OPEN "flashsale_database_connections_open" GAUGE ["pool"] Servers Functions
        "Connections that the pool held at its last call, idle ones too.";
    DATABASE_MAX "flashsale_database_connections_max" GAUGE ["pool"] Servers Functions
        "Connections that the pool may hold.";
    CONNECTS "flashsale_connects_total" COUNTER ["server" "outcome"] Servers Functions
        "Connections made to redis, rabbitmq or database (connected), and attempts to make one that failed (failed; not counted for the database).";
    COMMIT_SECONDS "flashsale_sqlite_commit_seconds" STORE_SECONDS [] Embedded Functions
        "Time of one synced transaction of the embedded store, with its work.";
    COMMIT_GROUP "flashsale_sqlite_commit_calls" GROUP [] Embedded Functions
        "Calls that shared one transaction of the embedded store.";

    FUNCTION_STARTS "flashsale_function_starts_total" COUNTER ["function"] Processes Emulator
        "Processes of the function that were started.";
    FUNCTION_START_SECONDS "flashsale_function_start_seconds" REQUEST_SECONDS ["function"] Processes Emulator
        "Time from a process's start to its first request for work.";
    FUNCTION_CRASHES "flashsale_function_crashes_total" COUNTER ["function"] Processes Emulator
        "Processes that ended unexpectedly.";
    FUNCTION_TIMEOUTS "flashsale_function_timeouts_total" COUNTER ["function"] Processes Emulator
        "Invocations that took longer than the function's timeout.";
    FUNCTION_THROTTLES "flashsale_function_throttles_total" COUNTER ["function"] Processes Emulator
        "Invocations that found neither a free process nor room to wait.";

    PROCESS_CPU "process_cpu_seconds_total" COUNTER [] Always Emulator "Total user and system CPU time spent in seconds.";
    PROCESS_OPEN_FDS "process_open_fds" GAUGE [] Always Emulator "Number of open file descriptors.";
    PROCESS_MAX_FDS "process_max_fds" GAUGE [] Always Emulator "Maximum number of open file descriptors.";
    PROCESS_VIRTUAL_MEMORY "process_virtual_memory_bytes" GAUGE [] Always Emulator "Virtual memory size in bytes.";
    PROCESS_VIRTUAL_MEMORY_MAX "process_virtual_memory_max_bytes" GAUGE [] Always Emulator "Maximum amount of virtual memory available in bytes.";
    PROCESS_RESIDENT_MEMORY "process_resident_memory_bytes" GAUGE [] Always Emulator "Resident memory size in bytes.";
    PROCESS_START_TIME "process_start_time_seconds" GAUGE [] Always Emulator "Start time of the process since unix epoch in seconds.";
    PROCESS_THREADS "process_threads" GAUGE [] Always Emulator "Number of OS threads in the process.";
}

static METADATA: Metadata<'static> = Metadata::new("flashsale", Level::INFO, None);

impl Metric {
    /// Returns a handle on the counter with these label values, in the order of [`Metric::labels`].
    pub fn counter(&self, values: &[&str]) -> Counter {
        debug_assert!(self.kind == Kind::Counter, "{} is not a counter", self.name);
        metrics::with_recorder(|recorder| recorder.register_counter(&self.key(values), &METADATA))
    }

    /// Like [`Metric::counter`], for a gauge.
    pub fn gauge(&self, values: &[&str]) -> Gauge {
        debug_assert!(self.kind == Kind::Gauge, "{} is not a gauge", self.name);
        metrics::with_recorder(|recorder| recorder.register_gauge(&self.key(values), &METADATA))
    }

    /// Like [`Metric::counter`], for a histogram.
    pub fn histogram(&self, values: &[&str]) -> Histogram {
        debug_assert!(matches!(self.kind, Kind::Histogram(_)), "{} is not a histogram", self.name);
        metrics::with_recorder(|recorder| recorder.register_histogram(&self.key(values), &METADATA))
    }

    fn key(&self, values: &[&str]) -> Key {
        debug_assert_eq!(self.labels.len(), values.len(), "{}", self.name);
        let labels: Vec<Label> = self
            .labels
            .iter()
            .zip(values)
            .map(|(name, value)| Label::new(*name, (*value).to_owned()))
            .collect();
        Key::from_parts(self.name, labels)
    }
}

/// Registers the help texts of all metrics. Call it once, after the recorder was installed.
pub fn describe() {
    metrics::with_recorder(|recorder| {
        for metric in ALL {
            let (name, help): (KeyName, SharedString) = (metric.name.into(), metric.help.into());
            match metric.kind {
                Kind::Counter => recorder.describe_counter(name, None::<Unit>, help),
                Kind::Gauge => recorder.describe_gauge(name, None::<Unit>, help),
                Kind::Histogram(_) => recorder.describe_histogram(name, None::<Unit>, help),
            }
        }
    });
}

/// A duration as a gauge's value.
#[must_use]
pub fn seconds(ms: i64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "milliseconds stay far below 2^52")]
    let ms = ms as f64;
    ms / 1_000.0
}

/// A count as a gauge's value.
#[must_use]
pub const fn number(count: u64) -> f64 {
    #[expect(
        clippy::cast_precision_loss,
        reason = "a gauge is a float; counts stay far below 2^52"
    )]
    let count = count as f64;
    count
}

/// Seconds as a histogram's value.
#[must_use]
pub const fn elapsed(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

/// The counters of one cache.
pub struct CacheCounts {
    /// All look-ups.
    pub lookups: Counter,
    /// Look-ups that had to read the data behind the cache.
    pub misses: Counter,
}

impl CacheCounts {
    /// The counters of the cache with this name.
    #[must_use]
    pub fn new(cache: &'static str) -> Self {
        Self { lookups: CACHE_LOOKUPS.counter(&[cache]), misses: CACHE_MISSES.counter(&[cache]) }
    }
}

/// Capacity of [`Outcomes`], in values of its label: more than there are problems.
const OUTCOMES_MAX: usize = 48;

/// A counter with one label whose values are words of the code. Each handle is looked up at first
/// use; afterwards counting compares a few words and adds to an atomic.
pub struct Outcomes {
    metric: Metric,
    known: [OnceLock<(&'static str, Counter)>; OUTCOMES_MAX],
}

impl Outcomes {
    /// A constructor for statics.
    #[must_use]
    pub const fn new(metric: Metric) -> Self {
        Self { metric, known: [const { OnceLock::new() }; OUTCOMES_MAX] }
    }

    /// Adds to the counter of this word.
    pub fn add(&self, word: &'static str, count: u64) {
        for slot in &self.known {
            let (known, counter) = slot.get_or_init(|| (word, self.metric.counter(&[word])));
            if *known == word {
                counter.increment(count);
                return;
            }
        }
        // No slot is free. The result is still correct, only slower.
        self.metric.counter(&[word]).increment(count);
    }

    /// Counts the outcome of a use case: `success`, or the problem's slug.
    pub fn note<T>(
        &self,
        success: &'static str,
        outcome: Result<T, Problem>,
    ) -> Result<T, Problem> {
        self.add(outcome.as_ref().err().map_or(success, Problem::slug), 1);
        outcome
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_and_labels_keep_to_the_conventions_of_prometheus() {
        let mut names = BTreeSet::new();
        for metric in ALL {
            let name = metric.name;
            assert!(names.insert(name), "{name} is declared twice");
            assert!(name.starts_with("flashsale_") || name.starts_with("process_"), "{name}");
            for word in [&[name], metric.labels].concat() {
                assert!(
                    word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'),
                    "{word}"
                );
            }
            assert_eq!(name.ends_with("_total"), metric.kind == Kind::Counter, "{name}");
            assert!(
                !["_ms", "_millis", "_milliseconds", "_count", "_sum", "_bucket"]
                    .iter()
                    .any(|end| name.ends_with(end)),
                "{name}"
            );
            assert!(
                !metric.labels.contains(&"le") && !metric.labels.contains(&"instance"),
                "{name}"
            );
            assert!(
                metric.help.ends_with('.') && !metric.help.contains(['\n', '|']),
                "{name}: {}",
                metric.help
            );
            if let Kind::Histogram(bounds) = metric.kind {
                assert!(bounds.is_sorted() && bounds.len() <= 16, "{name}");
                assert!(
                    ["_seconds", "_orders", "_calls"].iter().any(|unit| name.ends_with(unit)),
                    "{name}"
                );
            }
        }
    }

    #[test]
    fn there_is_room_for_every_problem() {
        assert!(crate::problem::EXPLAINED.len() < OUTCOMES_MAX);
    }
}
