//! Sessions are stored twice: the ledger decides which are alive, the fast store answers the gate.
//!
//! A session is opened and ended in the ledger first, then in the fast store. If the fast store
//! does not know a session (it was emptied, or replaced by an empty one), the session is looked up
//! in the ledger and put back. Such a loss makes many sessions miss at once. So several are looked
//! up in one statement, with a bounded number of statements at a time, and each session once
//! however many requests wait for it (single flight).
//!
//! A process that copies a session into the fast store reads the ledger again afterwards, and
//! removes the session if it has ended meanwhile. A process that ends a session updates the ledger
//! first. So an ended session does not stay in the fast store, whichever comes first. If a process
//! dies in between, the sweeper ends the session in the fast store again ([`super::sweeper`]).

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use tokio::sync::oneshot;

use super::{App, Caller, limits::RateLimit, local_cache::LocalCache};
use crate::{
    domain::{GateRequest, Session, SessionId, Subject, UserId},
    ports::{StoreError, Stored},
    problem::Problem,
};

/// Most sessions looked up in one statement.
const TOGETHER_MAX: usize = 256;
/// Most addresses whose bans are looked up with a session.
const ADDRESSES_MAX: usize = 8;
/// Most sessions that are remembered as ended, and for how long. An ended session never becomes
/// alive again: the time only bounds the memory.
const GONE_MAX: usize = 100_000;
const GONE_LIFE: Duration = Duration::from_secs(60);

/// Totals of the look-ups so far, for the figures of the process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LookupFigures {
    /// Sessions looked up.
    pub sessions: u64,
    /// Look-ups: each reads up to 256 sessions.
    pub lookups: u64,
    /// Largest number of look-ups under way at the same time.
    pub at_once_max: usize,
}

/// The sessions that are alive, each with the result of storing it in the fast store, because one
/// of its nodes may fail while others answer. Ended sessions are missing.
pub(super) type Living = HashMap<SessionId, Stored<()>>;

/// A session that callers wait for.
struct Asked {
    user_id: UserId,
    addresses: Vec<Subject>,
    replies: Vec<oneshot::Sender<Stored<bool>>>,
}

#[derive(Default)]
struct State {
    /// Sessions that wait for a look-up, and those being looked up.
    asked: HashMap<SessionId, Asked>,
    /// The waiting sessions, in the order of their arrival.
    waiting: VecDeque<SessionId>,
    workers: usize,
    figures: LookupFigures,
}

/// The look-ups of one process.
pub(super) struct Lookups {
    state: Mutex<State>,
    gone: LocalCache<SessionId, ()>,
    at_once: usize,
    waiting_max: usize,
}

/// What [`Lookups::ask`] gives its caller: the answer to wait for, and whether to start a worker.
struct Place {
    answer: oneshot::Receiver<Stored<bool>>,
    /// Whether this caller must start another worker.
    start_worker: bool,
}

impl Lookups {
    pub(super) fn new(at_once: usize, waiting_max: usize) -> Self {
        let gone = LocalCache::new(GONE_MAX, GONE_LIFE);
        Self { state: Mutex::default(), gone, at_once, waiting_max }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A critical section only moves plain values, so a panic leaves none of them half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins the callers that wait for the session; `None` when too many sessions wait.
    fn ask(&self, user_id: UserId, session_id: SessionId, address: Subject) -> Option<Place> {
        let (reply, answer) = oneshot::channel();
        let mut state = self.state();
        if !state.asked.contains_key(&session_id) {
            if state.waiting.len() >= self.waiting_max {
                return None;
            }
            state.waiting.push_back(session_id);
        }
        let asked = state.asked.entry(session_id).or_insert_with(|| Asked {
            user_id,
            addresses: Vec::new(),
            replies: Vec::new(),
        });
        asked.replies.push(reply);
        if asked.addresses.len() < ADDRESSES_MAX && !asked.addresses.contains(&address) {
            asked.addresses.push(address);
        }
        let start_worker = !state.waiting.is_empty() && state.workers < self.at_once;
        if start_worker {
            state.workers += 1;
            state.figures.at_once_max = state.figures.at_once_max.max(state.workers);
        }
        Some(Place { answer, start_worker })
    }

    /// The next sessions to be looked up; empty when none wait, and then the worker must end.
    fn take(&self) -> Vec<Wanted> {
        let mut state = self.state();
        let count = state.waiting.len().min(TOGETHER_MAX);
        let ids: Vec<SessionId> = state.waiting.drain(..count).collect();
        if ids.is_empty() {
            state.workers -= 1;
        } else {
            state.figures.sessions += ids.len() as u64;
            state.figures.lookups += 1;
        }
        let wanted = |session_id: SessionId| {
            let asked = state.asked.get(&session_id)?;
            Some(Wanted { session_id, user_id: asked.user_id, addresses: asked.addresses.clone() })
        };
        ids.into_iter().filter_map(wanted).collect()
    }

    /// Answers all callers that wait for these sessions.
    async fn answer(&self, ids: Vec<SessionId>, outcome: &Stored<Living>) {
        for session_id in ids {
            let alive = match outcome {
                Ok(living) => living
                    .get(&session_id)
                    .map_or(Ok(false), |shared| shared.clone().map(|()| true)),
                Err(error) => Err(error.clone()),
            };
            if let Ok(false) = alive {
                self.gone.insert(session_id, ());
            }
            let asked = self.state().asked.remove(&session_id);
            for reply in asked.into_iter().flat_map(|asked| asked.replies) {
                // A caller that has disconnected asks again when it comes back; ignore the error.
                let _ = reply.send(alive.clone());
            }
        }
    }
}

/// A session that is being looked up.
#[derive(Debug, Clone)]
struct Wanted {
    session_id: SessionId,
    user_id: UserId,
    addresses: Vec<Subject>,
}

impl App {
    /// Whether a session that the fast store does not know is alive in the ledger. If so, it is in
    /// the fast store again afterwards, with the operators' bans of its user and its sender's
    /// address.
    ///
    /// # Errors
    /// `rate-limited` and `banned` for the address, `unavailable` when the ledger does not answer
    /// or too many sessions wait.
    pub(super) async fn look_up_session(&self, caller: &Caller) -> Result<bool, Problem> {
        let who = &caller.session;
        if self.lookups.gone.has(&who.session_id) {
            return Ok(false);
        }
        // The gate has not counted a request whose session it does not know. Without this limit, a
        // client with many ended sessions could keep the ledger busy.
        let address = Subject::address(caller.client.address);
        self.pass_unnoted(GateRequest {
            session: None,
            role: None,
            not_banned: Subject::of_client(caller.client.address),
            limits: vec![self.limit(RateLimit::SessionLookup, address.clone())],
            abuse: None,
            now: self.now(),
        })
        .await?;
        let Some(place) = self.lookups.ask(who.user_id, who.session_id, address) else {
            return Err(Problem::Unavailable { retry_after_ms: 1_000 });
        };
        if place.start_worker {
            let app = self.clone();
            // A separate task: this caller may disconnect while others wait for the same session.
            tokio::spawn(async move { app.work_off_lookups().await });
        }
        let answer = place.answer.await.map_err(|_| StoreError::Unknown {
            store: "ledger",
            cause: "the look-up ended early".to_owned(),
        })?;
        Ok(answer?)
    }

    /// The figures of this process's look-ups.
    #[must_use]
    pub fn session_lookups(&self) -> LookupFigures {
        self.lookups.state().figures
    }

    async fn work_off_lookups(&self) {
        loop {
            let wanted = self.lookups.take();
            if wanted.is_empty() {
                return;
            }
            let ids = wanted.iter().map(|wanted| wanted.session_id).collect();
            let app = self.clone();
            // Another task, so that a panic ends one look-up and not all that wait behind it.
            let outcome = tokio::spawn(async move { app.bring_back(&wanted).await }).await;
            let outcome = outcome.unwrap_or_else(|error| {
                tracing::error!(%error, "a look-up of sessions ended early");
                Err(StoreError::Unknown {
                    store: "ledger",
                    cause: "the look-up ended early".to_owned(),
                })
            });
            self.lookups.answer(ids, &outcome).await;
        }
    }

    /// Puts the sessions that are alive into the fast store, after their bans, and returns them.
    async fn bring_back(&self, wanted: &[Wanted]) -> Stored<Living> {
        let ids: Vec<SessionId> = wanted.iter().map(|wanted| wanted.session_id).collect();
        let now = self.now();
        let of: HashMap<SessionId, &Wanted> =
            wanted.iter().map(|wanted| (wanted.session_id, wanted)).collect();
        let kept = self.ports.session_ledger.get_many(&ids).await?;
        let alive: Vec<Session> =
            kept.into_iter().filter(|kept| kept.alive(now)).map(|kept| kept.session).collect();
        let alive: Vec<Session> = alive
            .into_iter()
            .filter(|session| {
                of.get(&session.session_id).is_some_and(|of| of.user_id == session.user_id)
            })
            .collect();
        if alive.is_empty() {
            return Ok(Living::new());
        }
        let subjects_of = |session: &Session| {
            let addresses = of.get(&session.session_id).into_iter().flat_map(|of| &of.addresses);
            let places = addresses.flat_map(|address| match address {
                Subject::Address(ip) => Subject::of_client(*ip),
                other => vec![other.clone()],
            });
            places.chain([Subject::User(session.user_id)]).collect::<Vec<_>>()
        };
        let subjects: HashSet<Subject> = alive.iter().flat_map(subjects_of).collect();
        let unbanned = self.restore_bans_of(&subjects.into_iter().collect::<Vec<_>>()).await?;
        let (mut ready, mut failed) = (Vec::new(), Living::new());
        for session in alive {
            // Without its bans, a session would let a banned user in.
            match subjects_of(&session).iter().find_map(|subject| unbanned.get(subject)) {
                Some(error) => drop(failed.insert(session.session_id, Err(error.clone()))),
                None => ready.push(session),
            }
        }
        let mut living = self.share_sessions(ready).await?;
        living.extend(failed);
        Ok(living)
    }

    /// Puts sessions that were alive in the ledger into the fast store. Returns those that are
    /// still alive.
    pub(super) async fn share_sessions(&self, sessions: Vec<Session>) -> Stored<Living> {
        if sessions.is_empty() {
            return Ok(Living::new());
        }
        let now = self.now();
        let ids: Vec<SessionId> = sessions.iter().map(|session| session.session_id).collect();
        // One by one, to know which of them failed.
        let opened: Vec<_> = stream::iter(sessions)
            .map(|session| async move {
                (self.ports.sessions.open(std::slice::from_ref(&session), now).await, session)
            })
            .buffer_unordered(TOGETHER_MAX)
            .collect()
            .await;
        let kept = self.ports.session_ledger.get_many(&ids).await;
        let now = self.now();
        let alive: HashSet<SessionId> = kept
            .iter()
            .flatten()
            .filter(|kept| kept.alive(now))
            .map(|kept| kept.session.session_id)
            .collect();
        let mut living = Living::new();
        let mut ended = Vec::new();
        for (outcome, session) in opened {
            if alive.contains(&session.session_id) {
                living.insert(session.session_id, outcome);
            } else {
                // Also when the ledger did not answer: the session may have ended, and must not
                // stay then.
                ended.push(session);
            }
        }
        let mut ends = stream::iter(ended)
            .map(|session| async move {
                (
                    self.ports.sessions.end(session.user_id, session.session_id).await,
                    session.session_id,
                )
            })
            .buffer_unordered(TOGETHER_MAX);
        while let Some((outcome, session_id)) = ends.next().await {
            if let Err(error) = outcome {
                living.insert(session_id, Err(error));
            }
        }
        kept.map(|_| living)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn address() -> Subject {
        Subject::address("192.0.2.7".parse().unwrap())
    }

    #[test]
    fn look_ups_are_bounded_and_shared() {
        let lookups = Lookups::new(2, 1_000);
        let ids: Vec<SessionId> = (0..600).map(|_| testing::session_id()).collect();
        let user = testing::user_id();
        let places: Vec<Place> = ids
            .iter()
            .chain(&ids[..10])
            .map(|id| lookups.ask(user, *id, address()).expect("there is room"))
            .collect();
        assert_eq!(
            places.iter().filter(|place| place.start_worker).count(),
            2,
            "no more workers than look-ups at once"
        );
        assert_eq!(lookups.take().len(), TOGETHER_MAX);
        assert_eq!(lookups.take().len(), TOGETHER_MAX);
        assert_eq!(
            lookups.take().len(),
            600 - 2 * TOGETHER_MAX,
            "each session once, however many wait for it"
        );
        assert!(!lookups.ask(user, ids[0], address()).expect("it is being looked up").start_worker);
        assert!(lookups.take().is_empty() && lookups.take().is_empty(), "both workers end");
        assert!(
            lookups
                .ask(user, testing::session_id(), address())
                .expect("there is room")
                .start_worker
        );
        assert_eq!(lookups.session_figures(), (600, 3, 2));
    }

    #[test]
    fn too_many_waiting_sessions_are_refused() {
        let lookups = Lookups::new(1, 3);
        let user = testing::user_id();
        let first = testing::session_id();
        let _places: Vec<Option<Place>> = [first, testing::session_id(), testing::session_id()]
            .iter()
            .map(|id| lookups.ask(user, *id, address()))
            .collect();
        assert!(lookups.ask(user, testing::session_id(), address()).is_none());
        assert!(
            lookups.ask(user, first, address()).is_some(),
            "a session that waits already takes no more room"
        );
    }

    #[tokio::test]
    async fn all_who_wait_are_told_and_ended_sessions_are_remembered() {
        let lookups = Lookups::new(1, 10);
        let (user, alive, ended) =
            (testing::user_id(), testing::session_id(), testing::session_id());
        let mut places = Vec::new();
        for id in [alive, ended, alive, ended] {
            places.push((id, lookups.ask(user, id, address()).unwrap()));
        }
        let ids = lookups.take().into_iter().map(|wanted| wanted.session_id).collect();
        lookups.answer(ids, &Ok(Living::from([(alive, Ok(()))]))).await;
        for (id, place) in places {
            assert_eq!(place.answer.await.unwrap().unwrap(), id == alive);
        }
        assert!(lookups.gone.has(&ended) && !lookups.gone.has(&alive));

        let unknown = testing::session_id();
        let place = lookups.ask(user, unknown, address()).unwrap();
        let ids = lookups.take().into_iter().map(|wanted| wanted.session_id).collect();
        lookups
            .answer(ids, &Err(StoreError::Unavailable { store: "test", cause: String::new() }))
            .await;
        assert!(place.answer.await.unwrap().is_err());
        assert!(!lookups.gone.has(&unknown), "a ledger that does not answer ends no session");
    }

    impl Lookups {
        fn session_figures(&self) -> (u64, u64, usize) {
            let LookupFigures { sessions, lookups, at_once_max } = self.state().figures;
            (sessions, lookups, at_once_max)
        }
    }
}
