//! The gate: the checks of a request and their order.
//!
//! The rules are here. The memory adapter calls them. Redis' script `gate.lua` is their only other
//! copy; a property test compares it with [`GateRequest::decide`] on random states.

use super::{Ban, CountWindow, Quota, Role, SessionId, Subject, Timestamp, UserId};

/// One limit to check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitCheck {
    /// What is limited, such as `ticket`; part of the key and of the `RateLimit` header.
    pub name: &'static str,
    /// Who is limited.
    pub subject: Subject,
    /// How much is allowed.
    pub quota: Quota,
}

/// Whose refusals an [`AbusePolicy`] counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Abuser {
    /// The user's. An address is not to blame: others may share it.
    User,
    /// The address', of a request that names no user.
    Address,
}

/// The automatic ban of a subject that limits refuse too often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbusePolicy {
    /// Whose refusals count.
    pub abuser: Abuser,
    /// Refusals tolerated within the window.
    pub refusals_max: u32,
    /// The window, in milliseconds, counted from the first refusal in it.
    pub window_ms: u64,
    /// How long the ban lasts, in milliseconds.
    pub ban_ms: u64,
    /// Refusals of the same subject that the caller answered from its own memory. The gate adds them
    /// when a limit of the subject refuses this entry; otherwise the caller keeps them.
    pub also_refused: u32,
}

/// What the gate checks, all in one round trip.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GateRequest {
    /// The session that must be alive, if any.
    pub session: Option<(UserId, SessionId)>,
    /// The role that the session's record must have, if any.
    pub role: Option<Role>,
    /// Subjects that must not be banned.
    pub not_banned: Vec<Subject>,
    /// Limits that must have room.
    pub limits: Vec<LimitCheck>,
    /// Counts a refusal by a limit against the limit's subject, if that is of the policy's kind.
    /// `None`: no automatic ban.
    pub abuse: Option<AbusePolicy>,
    /// Now.
    pub now: Timestamp,
}

/// The gate's answer: the first variant that applies. Limits are charged only for `Entered`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GateDecision {
    /// The session is unknown, ended or expired.
    NoSession,
    /// The session's record has another role.
    WrongRole,
    /// A subject is banned.
    Banned {
        /// When the ban ends; `None` if it is permanent.
        until: Option<Timestamp>,
    },
    /// A limit has no room.
    Limited {
        /// Index into `limits` of the exhausted limit with the longest wait, the first of equals.
        /// So this limit alone refuses its subject for `retry_after_ms`.
        limit: usize,
        /// Time until one request would be admitted, in milliseconds; at least 1.
        retry_after_ms: u64,
    },
    /// The request is admitted and all limits are charged.
    Entered,
}

/// The part of a store's state that one [`GateRequest`] depends on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GateView {
    /// The end and the role of the session that the request names, if the store has it.
    pub session: Option<(Timestamp, Role)>,
    /// The ends of the bans of the request's subjects, `None` for a permanent ban. Expired bans are
    /// ignored.
    pub ban_ends: Vec<Option<Timestamp>>,
    /// The theoretical arrival time of each limit of the request, in microseconds since 1970.
    pub tats_us: Vec<Option<u64>>,
}

impl GateRequest {
    /// Decides the request. `Ok`: it enters, with the limits' new theoretical arrival times.
    ///
    /// # Errors
    /// Why it does not enter; no limit is charged then.
    pub fn decide(&self, view: &GateView) -> Result<Vec<u64>, GateDecision> {
        if self.session.is_some() {
            match (view.session, self.role) {
                (Some((ends_at, _)), _) if ends_at <= self.now => {
                    return Err(GateDecision::NoSession);
                }
                (Some((_, role)), Some(needed)) if role != needed => {
                    return Err(GateDecision::WrongRole);
                }
                (Some(_), _) => {}
                (None, _) => return Err(GateDecision::NoSession),
            }
        }
        let holding =
            view.ban_ends.iter().copied().filter(|end| end.is_none_or(|end| self.now < end));
        if let Some(until) = holding.reduce(|a, b| a.zip(b).map(|(a, b)| a.max(b))) {
            return Err(GateDecision::Banned { until });
        }
        let mut tats_us = Vec::with_capacity(self.limits.len());
        let mut longest: Option<(usize, u64)> = None;
        for (index, (limit, tat_us)) in self.limits.iter().zip(&view.tats_us).enumerate() {
            match limit.quota.arrive(*tat_us, self.now) {
                Ok(next_us) => tats_us.push(next_us),
                Err(wait_us) if longest.is_none_or(|(_, longest_us)| wait_us > longest_us) => {
                    longest = Some((index, wait_us));
                }
                Err(_) => {}
            }
        }
        match longest {
            Some((limit, wait_us)) => {
                Err(GateDecision::Limited { limit, retry_after_ms: wait_us.div_ceil(1_000) })
            }
            None => Ok(tats_us),
        }
    }

    /// The policy by which a refusal counts against the limit's subject, if any. Networks and phones
    /// are never banned automatically: too many people would be.
    #[must_use]
    pub fn counting(&self, limit: &LimitCheck) -> Option<AbusePolicy> {
        self.abuse.filter(|policy| {
            matches!(
                (policy.abuser, &limit.subject),
                (Abuser::User, Subject::User(_)) | (Abuser::Address, Subject::Address(_))
            )
        })
    }
}

impl AbusePolicy {
    /// The reason of an automatic ban.
    const REASON: &'static str = "too many refused requests";

    /// The subject's strikes after one more refusal, and whether they exceed the policy.
    #[must_use]
    pub fn strike(&self, earlier: Option<CountWindow>, now: Timestamp) -> (CountWindow, bool) {
        let mut strikes = CountWindow::add(earlier, self.window_ms, now);
        strikes.count = strikes.count.saturating_add(self.also_refused);
        (strikes, strikes.count > self.refusals_max)
    }

    /// The ban of a subject with too many strikes.
    #[must_use]
    pub fn ban(&self, subject: &Subject, now: Timestamp) -> Ban {
        Ban {
            subject: subject.clone(),
            reason: Self::REASON.to_owned(),
            created_at: now,
            expires_at: Some(now.plus_ms(self.ban_ms)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_epoch_ms(1_000_000);

    fn user() -> UserId {
        UserId::new(NOW, &[1; 10])
    }

    fn limit(name: &'static str, window_ms: u64) -> LimitCheck {
        LimitCheck { name, subject: Subject::User(user()), quota: Quota::per(1, window_ms) }
    }

    fn request() -> GateRequest {
        GateRequest {
            session: Some((user(), SessionId::new(NOW, &[1; 10]))),
            role: Some(Role::Admin),
            not_banned: vec![Subject::User(user())],
            limits: vec![limit("short", 1_000), limit("long", 3_000), limit("equal", 3_000)],
            abuse: None,
            now: NOW,
        }
    }

    const fn us(ms: u64) -> Option<u64> {
        Some((1_000_000 + ms) * 1_000)
    }

    /// At first every check fails; each step removes the first cause of refusal.
    #[test]
    fn the_first_answer_that_applies_is_given() {
        let request = request();
        let (soon, late) = (NOW.plus_ms(1), NOW.plus_ms(9));
        let mut view = GateView {
            session: None,
            ban_ends: vec![Some(NOW), Some(soon), None, Some(late)],
            tats_us: vec![us(1_000), us(3_000), us(3_000)],
        };
        assert_eq!(request.decide(&view), Err(GateDecision::NoSession));
        view.session = Some((NOW, Role::Shopper));
        assert_eq!(request.decide(&view), Err(GateDecision::NoSession), "it is over");
        view.session = Some((soon, Role::Shopper));
        assert_eq!(request.decide(&view), Err(GateDecision::WrongRole));
        view.session = Some((soon, Role::Admin));
        assert_eq!(request.decide(&view), Err(GateDecision::Banned { until: None }));
        view.ban_ends.remove(2);
        assert_eq!(request.decide(&view), Err(GateDecision::Banned { until: Some(late) }));
        view.ban_ends.truncate(1);
        assert_eq!(
            request.decide(&view),
            Err(GateDecision::Limited { limit: 1, retry_after_ms: 3_000 }),
            "the longest wait, the first of equals"
        );
        view.tats_us = vec![us(1_000), None, us(1)];
        assert_eq!(
            request.decide(&view),
            Err(GateDecision::Limited { limit: 0, retry_after_ms: 1_000 })
        );
        view.tats_us = vec![None, us(0), Some(0)];
        assert_eq!(
            request.decide(&view),
            Ok([us(1_000), us(3_000), us(3_000)].into_iter().flatten().collect())
        );
    }

    #[test]
    fn what_is_not_asked_for_does_not_matter() {
        let anybody = GateRequest { session: None, role: None, ..request() };
        let view = GateView { tats_us: vec![None; 3], ..GateView::default() };
        assert!(anybody.decide(&view).is_ok());
        let any_role = GateRequest { role: None, ..request() };
        let view = GateView { session: Some((NOW.plus_ms(1), Role::Shopper)), ..view };
        assert!(any_role.decide(&view).is_ok());
    }

    #[test]
    fn strikes_count_against_the_policy_s_kind_only() {
        let policy = AbusePolicy {
            abuser: Abuser::User,
            refusals_max: 2,
            window_ms: 10,
            ban_ms: 50,
            also_refused: 1,
        };
        let (first, due) = policy.strike(None, NOW);
        assert_eq!((first, due), (CountWindow { count: 2, ends_at: NOW.plus_ms(10) }, false));
        let (second, due) = policy.strike(Some(first), NOW.plus_ms(9));
        assert_eq!((second.count, due), (4, true));
        assert!(!policy.strike(Some(second), NOW.plus_ms(10)).1, "a new window");

        let request = GateRequest { abuse: Some(policy), ..request() };
        assert_eq!(request.counting(&limit("any", 1)), Some(policy));
        let shared = Subject::address([192, 0, 2, 7].into());
        let of_address = LimitCheck { subject: shared, ..limit("any", 1) };
        assert_eq!(request.counting(&of_address), None);
        let policy = AbusePolicy { abuser: Abuser::Address, ..policy };
        let anonymous = GateRequest { session: None, abuse: Some(policy), ..request.clone() };
        assert_eq!(anonymous.counting(&of_address), Some(policy));
        assert_eq!(anonymous.counting(&limit("any", 1)), None);
        let network = Subject::Network("192.0.2.0/24".parse().unwrap());
        let of_network = LimitCheck { subject: network, ..limit("any", 1) };
        assert_eq!(anonymous.counting(&of_network), None);
        let ban = policy.ban(&Subject::User(user()), NOW);
        assert!(ban.holds(NOW.plus_ms(49)) && !ban.holds(NOW.plus_ms(50)));
    }

    proptest! {
        /// Either all limits are charged or none, and a refusal names the limit with the longest
        /// wait.
        #[test]
        fn limits_are_charged_all_or_none(ahead_ms in prop::collection::vec(0_u64..4_000, 3)) {
            let request = GateRequest { session: None, role: None, ..request() };
            let tats_us: Vec<_> = ahead_ms.iter().map(|ms| us(*ms)).collect();
            let view = GateView { tats_us: tats_us.clone(), ..GateView::default() };
            let wait = |index: usize| request.limits[index].quota.arrive(tats_us[index], NOW).err();
            match request.decide(&view) {
                Ok(next) => {
                    prop_assert_eq!(next.len(), 3);
                    prop_assert!((0..3).all(|index| wait(index).is_none()));
                }
                Err(GateDecision::Limited { limit, retry_after_ms }) => {
                    prop_assert_eq!(wait(limit).map(|us| us.div_ceil(1_000)), Some(retry_after_ms));
                    prop_assert!((0..3).all(|index| wait(index) <= wait(limit)));
                    prop_assert!((0..limit).all(|index| wait(index) < wait(limit)));
                }
                Err(other) => prop_assert!(false, "{other:?}"),
            }
        }
    }
}
