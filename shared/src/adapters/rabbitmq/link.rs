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
    connection::{CONNECT_LIMIT, Dial, Live},
    unavailable,
};
use crate::{metrics::CONNECTS, ports::Stored};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Longest wait for the first attempt, which ends by itself a little earlier.
const PATIENCE: Duration = CONNECT_LIMIT.saturating_add(Duration::from_millis(500));

/// Attempts to connect, by what came of them.
static CONNECTED: LazyLock<[Counter; 2]> = LazyLock::new(|| {
    ["connected", "failed"].map(|outcome| CONNECTS.counter(&["rabbitmq", outcome]))
});

pub(super) struct Link {
    dial: Dial,
    state: Arc<Sender<State>>,
}

#[derive(Clone)]
enum State {
    /// Not needed so far, or lost.
    Idle,
    /// The first attempt since then; callers wait for it, all together.
    Connecting,
    Up(Arc<Live>),
    /// The last attempt failed and the next is on its way; callers are told at once.
    Down(String),
    /// Ended by its owner.
    Closed,
}

impl Link {
    pub(super) fn new(dial: Dial) -> Self {
        Self { dial, state: Arc::new(watch::channel(State::Idle).0) }
    }

    /// The connection. Waits for the first attempt to make it, and refuses at once while the server is known to be
    /// out of reach.
    pub(super) async fn live(&self) -> Stored<Arc<Live>> {
        timeout(PATIENCE, self.wait()).await.map_err(|_| unavailable("no connection yet"))?
    }

    async fn wait(&self) -> Stored<Arc<Live>> {
        let mut changes = self.state.subscribe();
        loop {
            let state = changes.borrow_and_update().clone();
            match state {
                State::Up(live) if live.usable() => return Ok(live),
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
                State::Up(live) => !live.usable(),
                State::Connecting | State::Down(_) | State::Closed => false,
            };
            if lost {
                *state = State::Connecting;
            }
            lost
        });
        if begun {
            tokio::spawn(keep_trying(self.dial.clone(), Arc::downgrade(&self.state)));
        }
    }

    /// Takes a connection that has misbehaved out of use. Calls that are under way on it may still end well.
    pub(super) fn retire(&self, suspect: &Arc<Live>) {
        self.state.send_if_modified(|state| {
            let current = matches!(state, State::Up(live) if Arc::ptr_eq(live, suspect));
            if current {
                *state = State::Idle;
            }
            current
        });
    }

    /// Ends the connection for good.
    pub(super) async fn close(&self) {
        if let State::Up(live) = self.state.send_replace(State::Closed) {
            live.close().await;
        }
    }
}

/// Tries until there is a connection or nobody can want one any more.
async fn keep_trying(dial: Dial, link: Weak<Sender<State>>) {
    let mut pauses = ExponentialBuilder::new()
        .with_min_delay(FIRST_PAUSE)
        .with_max_delay(LONGEST_PAUSE)
        .with_jitter()
        .without_max_times()
        .build();
    let mut told = String::new();
    loop {
        let dialled = dial.connect().await;
        CONNECTED[usize::from(dialled.is_err())].increment(1);
        let (next, up) = match dialled {
            Ok(live) => (State::Up(Arc::new(live)), true),
            Err(cause) => {
                if cause != told {
                    tracing::warn!(purpose = dial.purpose(), %cause, "RabbitMQ can't be reached; trying on");
                    told.clone_from(&cause);
                }
                (State::Down(cause), false)
            }
        };
        let Some(state) = link.upgrade() else { return };
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
