//! Holds the connection that every call uses, and replaces it when it has become unusable.
//!
//! The library reconnects only when the socket itself reports an error. A host that vanished
//! silently, a primary that became a replica and a refused handshake cause none, so the outcome of
//! calls decides here.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};

use super::calls::CONNECTED;

/// Longest time of one attempt to connect.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(3);
/// Longest time that a call waits for an attempt.
const WAIT_LIMIT: Duration = Duration::from_secs(2);
/// Shortest time between a failed attempt and the next.
const BACKOFF: Duration = Duration::from_millis(200);
/// For this long after a failed attempt calls fail at once, while further attempts run in the
/// background.
const DOWN: Duration = Duration::from_secs(5);

/// Makes connections.
pub(super) trait Dial: Send + Sync + 'static {
    /// The type of the connections.
    type Connection: Send + Sync + 'static;
    /// Whether a failed connection stays in use until its successor is made. True where one
    /// connection stands for many servers, of which only one may have failed.
    const KEEPS_FAILED: bool;

    /// Makes a connection, resolving names again. The error is a text for logs.
    fn dial(&self) -> impl Future<Output = Result<Self::Connection, String>> + Send;
}

/// A connection and when it was made.
pub(super) struct Live<C> {
    pub(super) connection: C,
    made_at: Instant,
}

type Attempt<C> = Shared<BoxFuture<'static, Result<Arc<Live<C>>, String>>>;

/// The connection of one server or cluster.
pub(super) struct Slot<D: Dial> {
    pub(super) dial: D,
    live: ArcSwapOption<Live<D::Connection>>,
    making: Mutex<Making<D::Connection>>,
}

struct Making<C> {
    /// The running attempt, shared by all callers that wait for it.
    attempt: Option<Attempt<C>>,
    /// When and why the last attempt failed; `None` after a success.
    failed: Option<(Instant, String)>,
}

impl<D: Dial> Slot<D> {
    /// An empty slot: the first call connects.
    pub(super) fn new(dial: D) -> Arc<Self> {
        Arc::new(Self {
            dial,
            live: ArcSwapOption::empty(),
            making: Mutex::new(Making { attempt: None, failed: None }),
        })
    }

    /// Returns the connection, connecting first if there is none. The error is a text for logs; it
    /// means that no command was sent.
    pub(super) async fn get(self: &Arc<Self>) -> Result<Arc<Live<D::Connection>>, String> {
        if let Some(live) = self.live.load_full() {
            return Ok(live);
        }
        let attempt = {
            let mut making = self.making();
            if let Some(live) = self.live.load_full() {
                return Ok(live);
            }
            let down = making
                .failed
                .as_ref()
                .filter(|(at, _)| at.elapsed() < DOWN)
                .map(|(_, cause)| cause.clone());
            let attempt = self.attempt(&mut making);
            match (down, attempt) {
                (Some(cause), _) | (None, Err(cause)) => return Err(cause),
                (None, Ok(attempt)) => attempt,
            }
        };
        match timeout(WAIT_LIMIT, attempt).await {
            Ok(made) => made,
            Err(_) => Err(format!("no connection within {} s", WAIT_LIMIT.as_secs())),
        }
    }

    /// Replaces `live` if it is still in use and older than `age`. Any number of such calls makes
    /// one successor.
    pub(super) fn replace(self: &Arc<Self>, live: &Arc<Live<D::Connection>>, age: Duration) {
        if live.made_at.elapsed() < age {
            return;
        }
        let mut making = self.making();
        if !self.live.load().as_ref().is_some_and(|current| Arc::ptr_eq(current, live)) {
            return;
        }
        if !D::KEEPS_FAILED {
            self.live.store(None);
        }
        // A later call repeats an attempt that has just failed.
        let _ = self.attempt(&mut making);
    }

    /// Returns the running attempt or starts one; fails with the last cause if an attempt failed
    /// only just now.
    fn attempt(
        self: &Arc<Self>,
        making: &mut Making<D::Connection>,
    ) -> Result<Attempt<D::Connection>, String> {
        if let Some(attempt) = &making.attempt {
            return Ok(attempt.clone());
        }
        if let Some((_, cause)) = making.failed.as_ref().filter(|(at, _)| at.elapsed() < BACKOFF) {
            return Err(cause.clone());
        }
        let (sender, receiver) = oneshot::channel();
        // A separate task, so that the attempt continues when the call that started it is dropped.
        tokio::spawn(Running { slot: Arc::clone(self), ended: false }.run(sender));
        let attempt = async {
            receiver.await.unwrap_or_else(|_| Err("the attempt to connect was given up".to_owned()))
        };
        let attempt = attempt.boxed().shared();
        making.attempt = Some(attempt.clone());
        Ok(attempt)
    }

    fn making(&self) -> MutexGuard<'_, Making<D::Connection>> {
        self.making.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running attempt. However it ends, even by the end of its runtime, the next one can start.
struct Running<D: Dial> {
    slot: Arc<Slot<D>>,
    ended: bool,
}

impl<D: Dial> Running<D> {
    async fn run(mut self, sender: oneshot::Sender<Result<Arc<Live<D::Connection>>, String>>) {
        let dialled = timeout(ATTEMPT_LIMIT, self.slot.dial.dial()).await;
        let outcome = dialled
            .unwrap_or_else(|_| Err(format!("no connection within {} s", ATTEMPT_LIMIT.as_secs())))
            .map(|connection| Arc::new(Live { connection, made_at: Instant::now() }));
        CONNECTED[usize::from(outcome.is_err())].increment(1);
        {
            let mut making = self.slot.making();
            making.attempt = None;
            making.failed = outcome.as_ref().err().map(|cause| (Instant::now(), cause.clone()));
            if let Ok(live) = &outcome {
                self.slot.live.store(Some(Arc::clone(live)));
            }
        }
        self.ended = true;
        // Fails only when no caller is waiting any more.
        let _ = sender.send(outcome);
    }
}

impl<D: Dial> Drop for Running<D> {
    fn drop(&mut self) {
        if !self.ended {
            self.slot.making().attempt = None;
        }
    }
}
