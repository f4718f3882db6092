//! Keeps one connection: made at first use, made again after a loss.

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
/// Longest wait for the first attempt, which ends by itself a little earlier.
const FIRST_ATTEMPT_LIMIT: Duration = CONNECT_LIMIT.saturating_add(Duration::from_millis(500));

/// Attempts to connect, by what came of them.
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
    /// The first attempt since then; callers wait for it, all together.
    Connecting,
    Up(Arc<BrokerConnection>),
    /// The last attempt failed and the next is on its way; callers are told at once.
    Down(String),
    /// Ended by its owner.
    Closed,
}

impl ManagedConnection {
    pub(super) fn new(connector: Connector) -> Self {
        Self { connector, state: Arc::new(watch::channel(State::Idle).0) }
    }

    /// The connection. Waits for the first attempt to make it, and refuses at once while the server is known to be
    /// out of reach.
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

    /// Takes a connection that has misbehaved out of use. Calls that are under way on it may still end well.
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

    /// Ends the connection for good.
    pub(super) async fn close(&self) {
        if let State::Up(connection) = self.state.send_replace(State::Closed) {
            connection.close().await;
        }
    }
}

/// Tries until there is a connection or nobody can want one any more.
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
                    tracing::warn!(purpose = connector.purpose(), %cause, "RabbitMQ can't be reached; trying on");
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
