//! Suites of the gate ports. Each sentence of a port's contract is a check.
//! Each suite uses its own subjects, so that suites can share a store.

mod blacklist;
mod captchas;
mod failures;
mod limits;
mod order;
mod sessions;
mod strikes;

use std::{net::IpAddr, sync::Arc};

pub use blacklist::{bans_put_back, blacklist};
pub use captchas::{captchas, spent_tokens};
pub use failures::failures;
pub use limits::{
    burst_and_rate, charges_all_or_none, clock_set_back, exact_retry, quota_under_contention,
};
pub use order::order_of_checks;
pub use sessions::{many_sessions, session_roles, sessions};
pub use strikes::strikes;

use crate::testing::{self, session_id};
use crate::{
    domain::{
        Ban, GateDecision, GateRequest, LimitCheck, Quota, Role, Session, SessionId, Subject,
        Timestamp, UserId,
    },
    ports::{Blacklist, Captchas, Failures, Gate, Sessions},
};

/// All ports of one gate.
#[derive(Clone)]
#[expect(missing_docs, reason = "each field is the port of its type")]
pub struct GatePorts {
    pub gate: Arc<dyn Gate>,
    pub sessions: Arc<dyn Sessions>,
    pub blacklist: Arc<dyn Blacklist>,
    pub failures: Arc<dyn Failures>,
    pub captchas: Arc<dyn Captchas>,
}

impl GatePorts {
    /// All ports of a store that implements every one of them.
    pub fn of<S: Gate + Sessions + Blacklist + Failures + Captchas + 'static>(
        store: &Arc<S>,
    ) -> Self {
        Self {
            gate: store.clone(),
            sessions: store.clone(),
            blacklist: store.clone(),
            failures: store.clone(),
            captchas: store.clone(),
        }
    }

    async fn enter(&self, entry: &GateRequest) -> GateDecision {
        enter(&*self.gate, entry).await
    }

    /// Whether the gate considers the session alive.
    async fn alive(&self, user_id: UserId, session_id: SessionId, now: Timestamp) -> bool {
        let asked =
            self.enter(&GateRequest { session: Some((user_id, session_id)), ..nothing(now) }).await;
        match asked {
            GateDecision::Entered => true,
            GateDecision::NoSession => false,
            other => panic!("only the session was asked for, got {other:?}"),
        }
    }

    async fn open(&self, user_id: UserId, expires_at: Timestamp, now: Timestamp) -> SessionId {
        let session =
            Session { session_id: session_id(), user_id, role: Role::Shopper, expires_at };
        self.sessions.open(std::slice::from_ref(&session), now).await.expect("a session is opened");
        session.session_id
    }
}

async fn enter(gate: &dyn Gate, entry: &GateRequest) -> GateDecision {
    gate.enter(entry).await.expect("the gate answers")
}

/// An entry that checks nothing.
fn nothing(now: Timestamp) -> GateRequest {
    GateRequest {
        session: None,
        role: None,
        not_banned: Vec::new(),
        limits: Vec::new(),
        abuse: None,
        now,
    }
}

fn limited(subject: &Subject, quota: Quota, now: Timestamp) -> GateRequest {
    GateRequest {
        limits: vec![LimitCheck { name: "suite", subject: subject.clone(), quota }],
        ..nothing(now)
    }
}

fn banned(subject: &Subject, now: Timestamp) -> GateRequest {
    GateRequest { not_banned: vec![subject.clone()], ..nothing(now) }
}

fn ban(subject: &Subject, created_at: Timestamp, expires_at: Option<Timestamp>) -> Ban {
    Ban {
        subject: subject.clone(),
        reason: "for a test, with spaces".to_owned(),
        created_at,
        expires_at,
    }
}

fn user() -> Subject {
    Subject::User(testing::user_id())
}

/// An unused address, in a /64 of its own.
fn ip() -> IpAddr {
    let id = *testing::user_id().as_bytes();
    let random = u64::from_be_bytes(id[8..].try_into().expect("eight of sixteen bytes"));
    std::net::Ipv6Addr::from_bits((0x2001 << 112) | (u128::from(random) << 48) | 1).into()
}

fn address() -> Subject {
    Subject::address(ip())
}

/// The wait that the gate reports.
fn retry_after_ms(entered: &GateDecision) -> u64 {
    match entered {
        GateDecision::Limited { retry_after_ms, .. } => *retry_after_ms,
        other => panic!("expected a refusal by a limit, got {other:?}"),
    }
}
