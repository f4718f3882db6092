//! A property test of the gate's ports, for any adapter: after random calls the gate's answer
//! equals that of the domain's rules on the same state. For Redis this compares the script with the
//! rules that it copies.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    collections::{BTreeSet, HashMap},
    net::Ipv6Addr,
    sync::{Arc, Mutex},
};

use flashsale::{
    domain::{
        AbusePolicy, Abuser, Ban, CountWindow, GateDecision, GateRequest, GateView, LimitCheck,
        Quota, Role, Session, SessionId, Subject, Timestamp, UserId,
    },
    ports::{Blacklist, Gate, Sessions},
    testing::{self, START},
};
use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, TestRunner},
};
use tokio::runtime::Runtime;

const USERS: usize = 2;
const SESSIONS: usize = 2;
const SUBJECTS: usize = 4;
/// Names and quotas of the limits; every subject has each of them.
const QUOTAS: [(&str, Quota); 3] = [
    ("even", Quota::per(3, 900)),
    ("odd", Quota { limit: 7, window_ms: 1_000, burst: 2 }),
    ("slow", Quota { limit: 1, window_ms: 30_000, burst: 4 }),
];
const LIMITS: usize = SUBJECTS * QUOTAS.len();

/// A store under test.
pub struct Store {
    pub gate: Arc<dyn Gate>,
    pub sessions: Arc<dyn Sessions>,
    pub blacklist: Arc<dyn Blacklist>,
    /// Whether it drops expired entries by the caller's clock; then the test does not set that
    /// clock back.
    pub forgets: bool,
}

/// One call. Users, sessions, subjects and limits are named by index.
#[derive(Debug, Clone)]
enum Step {
    Open { user: usize, session: usize, role: Role, life_ms: u64 },
    End { user: usize, session: usize },
    Ban { subject: usize, life_ms: Option<u64> },
    Lift { subject: usize },
    Enter(Entering),
}

#[derive(Debug, Clone)]
struct Entering {
    session: Option<(usize, usize)>,
    role: Option<Role>,
    not_banned: BTreeSet<usize>,
    limits: BTreeSet<usize>,
    /// Refusals that the caller answered by itself, if refusals are counted.
    also_refused: Option<u32>,
}

/// A call, the time since the previous one, and by how much the clock was set back in between.
type Timed = (u64, u64, Step);

fn role() -> impl Strategy<Value = Role> {
    prop_oneof![Just(Role::Shopper), Just(Role::Admin)]
}

fn entering() -> impl Strategy<Value = Entering> {
    (
        prop::option::weighted(0.6, (0..USERS, 0..SESSIONS)),
        prop::option::weighted(0.3, role()),
        prop::collection::btree_set(0..SUBJECTS, 0..3),
        prop::collection::btree_set(0..LIMITS, 0..4),
        prop::option::weighted(0.5, 0..3_u32),
    )
        .prop_map(|(session, role, not_banned, limits, also_refused)| Entering {
            session,
            role,
            not_banned,
            limits,
            also_refused,
        })
}

fn timed() -> impl Strategy<Value = Timed> {
    let step = prop_oneof![
        4 => (0..USERS, 0..SESSIONS, role(), 1..20_000_u64)
            .prop_map(|(user, session, role, life_ms)| Step::Open { user, session, role, life_ms }),
        1 => (0..USERS, 0..SESSIONS).prop_map(|(user, session)| Step::End { user, session }),
        1 => (0..SUBJECTS, prop::option::weighted(0.8, 0..2_000_u64))
            .prop_map(|(subject, life_ms)| Step::Ban { subject, life_ms }),
        2 => (0..SUBJECTS).prop_map(|subject| Step::Lift { subject }),
        24 => entering().prop_map(Step::Enter),
    ];
    let back = prop_oneof![12 => Just(0_u64), 1 => 0..120_000_u64];
    (0..300_u64, back, step)
}

/// The expected state of the store, in the form that the rules need.
struct World<'s> {
    store: &'s Store,
    now: Timestamp,
    users: [UserId; USERS],
    session_ids: [[SessionId; SESSIONS]; USERS],
    subjects: [Subject; SUBJECTS],
    sessions: HashMap<SessionId, (Timestamp, Role)>,
    bans: HashMap<Subject, Ban>,
    tats_us: HashMap<(&'static str, Subject), u64>,
    strikes: HashMap<Subject, CountWindow>,
}

impl<'s> World<'s> {
    fn new(store: &'s Store) -> Self {
        let users = [(); USERS].map(|()| testing::user_id());
        // Addresses are counted by their first half, and the random bytes of an id come last.
        let mut address = *testing::user_id().as_bytes();
        address.reverse();
        Self {
            store,
            now: START,
            users,
            session_ids: [(); USERS].map(|()| [(); SESSIONS].map(|()| testing::session_id())),
            subjects: [
                Subject::User(users[0]),
                Subject::User(users[1]),
                Subject::address(Ipv6Addr::from(address).into()),
                Subject::Phone(testing::phone()),
            ],
            sessions: HashMap::new(),
            bans: HashMap::new(),
            tats_us: HashMap::new(),
            strikes: HashMap::new(),
        }
    }

    async fn take(&mut self, (pause, back, step): &Timed, seen: &Mutex<BTreeSet<&'static str>>) {
        self.now = self.now.plus_ms(*pause);
        if !self.store.forgets {
            self.now = self.now.minus_ms(*back);
        }
        match *step {
            Step::Open { user, session, role, life_ms } => {
                let session = Session {
                    session_id: self.session_ids[user][session],
                    user_id: self.users[user],
                    role,
                    expires_at: self.now.plus_ms(life_ms),
                };
                self.store.sessions.open(std::slice::from_ref(&session), self.now).await.unwrap();
                self.sessions.insert(session.session_id, (session.expires_at, role));
            }
            Step::End { user, session } => {
                let session_id = self.session_ids[user][session];
                self.store.sessions.end(self.users[user], session_id).await.unwrap();
                self.sessions.remove(&session_id);
            }
            Step::Ban { subject, life_ms } => {
                let subject = self.subjects[subject].clone();
                let ban = Ban {
                    subject: subject.clone(),
                    reason: "test".to_owned(),
                    created_at: self.now,
                    expires_at: life_ms.map(|ms| self.now.plus_ms(ms)),
                };
                self.store.blacklist.ban(&ban).await.unwrap();
                self.strikes.remove(&subject);
                self.bans.insert(subject, ban);
            }
            Step::Lift { subject } => {
                self.store.blacklist.lift(&self.subjects[subject]).await.unwrap();
                self.bans.remove(&self.subjects[subject]);
            }
            Step::Enter(ref entering) => {
                let request = self.request(entering);
                let actual = self.store.gate.enter(&request).await.unwrap();
                assert_eq!(actual, self.ruled(&request, seen), "{request:?}");
            }
        }
    }

    fn request(&self, entering: &Entering) -> GateRequest {
        let limits: Vec<_> = entering
            .limits
            .iter()
            .map(|index| {
                let (name, quota) = QUOTAS[index / SUBJECTS];
                LimitCheck { name, subject: self.subjects[index % SUBJECTS].clone(), quota }
            })
            .collect();
        let mut not_banned: Vec<_> =
            entering.not_banned.iter().map(|index| self.subjects[*index].clone()).collect();
        let abuse = entering.also_refused.map(|also_refused| AbusePolicy {
            abuser: if entering.session.is_some() { Abuser::User } else { Abuser::Address },
            refusals_max: 3,
            window_ms: 2_000,
            ban_ms: 1_500,
            also_refused,
        });
        if abuse.is_some() {
            // A user who is banned for refusals must also be checked for bans.
            for limit in &limits {
                if !not_banned.contains(&limit.subject) {
                    not_banned.push(limit.subject.clone());
                }
            }
        }
        GateRequest {
            session: entering
                .session
                .map(|(user, session)| (self.users[user], self.session_ids[user][session])),
            role: entering.role,
            not_banned,
            limits,
            abuse,
            now: self.now,
        }
    }

    /// The rules' answer to the request; updates the expected state.
    fn ruled(
        &mut self,
        request: &GateRequest,
        seen: &Mutex<BTreeSet<&'static str>>,
    ) -> GateDecision {
        let key = |limit: &LimitCheck| (limit.name, limit.subject.clone());
        let view = GateView {
            session: request
                .session
                .and_then(|(_, session_id)| self.sessions.get(&session_id).copied()),
            ban_ends: request
                .not_banned
                .iter()
                .filter_map(|subject| self.bans.get(subject))
                .map(|ban| ban.expires_at)
                .collect(),
            tats_us: request
                .limits
                .iter()
                .map(|limit| self.tats_us.get(&key(limit)).copied())
                .collect(),
        };
        let decision = match request.decide(&view) {
            Ok(tats_us) => {
                self.tats_us.extend(request.limits.iter().map(key).zip(tats_us));
                GateDecision::Entered
            }
            Err(refusal) => refusal,
        };
        let word = match &decision {
            GateDecision::NoSession => "no session",
            GateDecision::WrongRole => "wrong role",
            GateDecision::Banned { .. } => "banned",
            GateDecision::Entered => "entered",
            GateDecision::Limited { limit, .. } => {
                let limit = &request.limits[*limit];
                if self.struck(request, limit) { "banned for refusals" } else { "limited" }
            }
        };
        seen.lock().unwrap().insert(word);
        decision
    }

    /// Counts a refusal by a limit; returns whether it caused a ban.
    fn struck(&mut self, request: &GateRequest, limit: &LimitCheck) -> bool {
        let Some(abuse) = request.counting(limit) else {
            return false;
        };
        let subject = limit.subject.clone();
        let (strikes, due) = abuse.strike(self.strikes.get(&subject).copied(), self.now);
        if due {
            self.strikes.remove(&subject);
            self.bans.insert(subject.clone(), abuse.ban(&subject, self.now));
        } else {
            self.strikes.insert(subject, strikes);
        }
        due
    }
}

/// Random sequences of calls: each of the gate's answers equals the rules' answer, and the
/// sequences reach every answer.
pub fn against_the_rules(runtime: &Runtime, store: &Store, cases: u32) {
    let expected = BTreeSet::from([
        "banned",
        "banned for refusals",
        "entered",
        "limited",
        "no session",
        "wrong role",
    ]);
    let seen = Mutex::default();
    // A few hundred sequences may happen to miss the rarest answer.
    for _ in 0..ROUNDS_MAX {
        random_calls(runtime, store, cases, &seen);
        if *seen.lock().unwrap() == expected {
            return;
        }
    }
    assert_eq!(seen.into_inner().unwrap(), expected);
}

const ROUNDS_MAX: usize = 10;

fn random_calls(
    runtime: &Runtime,
    store: &Store,
    cases: u32,
    seen: &Mutex<BTreeSet<&'static str>>,
) {
    let config =
        Config { cases, failure_persistence: None, max_shrink_iters: 2_000, ..Config::default() };
    let outcome = TestRunner::new(config).run(&vec(timed(), 1..60), |steps| {
        runtime.block_on(async {
            let mut world = World::new(store);
            for step in &steps {
                world.take(step, seen).await;
            }
        });
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}
