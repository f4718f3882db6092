//! Manages one connection: made on first use, and made again after a loss.

use std::{
    sync::{Arc, LazyLock, Weak},
    time::Duration,
};

use backon::{BackoffBuilder as _, ExponentialBuilder};
use metrics::Counter;
use tokio::{
    sync::watch::{self, Sender},
    time::{sleep, timeout},
};

use super::{
    connection::{BrokerConnection, CONNECT_LIMIT, Connector},
    errors::unavailable,
};
use crate::{metrics::CONNECTS, ports::Stored};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Longest wait for the first attempt. The attempt's own limit is a little shorter.
const FIRST_ATTEMPT_LIMIT: Duration = CONNECT_LIMIT.saturating_add(Duration::from_millis(500));

/// Attempts to connect, by outcome.
static CONNECTED: LazyLock<[Counter; 2]> = LazyLock::new(|| {
    ["connected", "failed"].map(|outcome| CONNECTS.counter(&["rabbitmq", outcome]))
});

pub(super) struct ManagedConnection {
    connector: Connector,
    state: Arc<Sender<State>>,
}

#[derive(Clone)]
enum State {
    /// Not needed so far, or lost.
    Idle,
    /// The first attempt since then. All callers wait for it together.
    Connecting,
    Up(Arc<BrokerConnection>),
    /// The last attempt failed and the next one is running. Callers get the error at once.
    Down(String),
    /// Closed by its owner.
    Closed,
}

impl ManagedConnection {
    pub(super) fn new(connector: Connector) -> Self {
        Self { connector, state: Arc::new(watch::channel(State::Idle).0) }
    }

    /// Returns the connection. Waits for the first attempt to make it; fails at once while the
    /// server is known to be unreachable.
    pub(super) async fn get(&self) -> Stored<Arc<BrokerConnection>> {
        timeout(FIRST_ATTEMPT_LIMIT, self.wait())
            .await
            .map_err(|_| unavailable("no connection yet"))?
    }

    async fn wait(&self) -> Stored<Arc<BrokerConnection>> {
        let mut changes = self.state.subscribe();
        loop {
            let state = changes.borrow_and_update().clone();
            match state {
                State::Up(connection) if connection.usable() => return Ok(connection),
                State::Idle | State::Up(_) => self.begin(),
                State::Connecting => changes.changed().await.map_err(unavailable)?,
                State::Down(cause) => return Err(unavailable(cause)),
                State::Closed => return Err(unavailable("closed")),
            }
        }
    }

    fn begin(&self) {
        let begun = self.state.send_if_modified(|state| {
            let lost = match state {
                State::Idle => true,
                State::Up(connection) => !connection.usable(),
                State::Connecting | State::Down(_) | State::Closed => false,
            };
            if lost {
                *state = State::Connecting;
            }
            lost
        });
        if begun {
            tokio::spawn(keep_trying(self.connector.clone(), Arc::downgrade(&self.state)));
        }
    }

    /// Discards a connection that misbehaved. Calls in flight on it may still succeed.
    pub(super) fn retire(&self, suspect: &Arc<BrokerConnection>) {
        self.state.send_if_modified(|state| {
            let current =
                matches!(state, State::Up(connection) if Arc::ptr_eq(connection, suspect));
            if current {
                *state = State::Idle;
            }
            current
        });
    }

    /// Closes the connection for good.
    pub(super) async fn close(&self) {
        if let State::Up(connection) = self.state.send_replace(State::Closed) {
            connection.close().await;
        }
    }
}

/// Retries until the connection is up or no caller can want it any more.
async fn keep_trying(connector: Connector, state: Weak<Sender<State>>) {
    let mut pauses = ExponentialBuilder::new()
        .with_min_delay(FIRST_PAUSE)
        .with_max_delay(LONGEST_PAUSE)
        .with_jitter()
        .without_max_times()
        .build();
    let mut logged = String::new();
    loop {
        let connected = connector.connect().await;
        CONNECTED[usize::from(connected.is_err())].increment(1);
        let (next, up) = match connected {
            Ok(connection) => (State::Up(Arc::new(connection)), true),
            Err(cause) => {
                if cause != logged {
                    tracing::warn!(purpose = connector.purpose(), %cause, "RabbitMQ can't be reached; retrying");
                    logged.clone_from(&cause);
                }
                (State::Down(cause), false)
            }
        };
        let Some(state) = state.upgrade() else { return };
        let wanted = state.send_if_modified(|state| {
            let wanted = !matches!(state, State::Closed);
            if wanted {
                *state = next;
            }
            wanted
        });
        drop(state);
        if up || !wanted {
            return;
        }
        sleep(pauses.next().unwrap_or(LONGEST_PAUSE)).await;
    }
}
