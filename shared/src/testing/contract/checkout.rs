//! The gate and the admission store, asked together.

use std::sync::Arc;

use super::gate::GatePorts;
use crate::{
    domain::{
        AbusePolicy, Abuser, AdmissionDecision, AdmissionState, Ban, GateDecision, GateRequest,
        LimitCheck, Quota, ReserveRequest, Role, Sale, Session, Subject, TicketClaims, Timestamp,
        UserId,
    },
    ports::{Admission, Blacklist, Captchas, Checkout, Failures, Gate, Ports, Sessions},
    testing::{Claim, START, network, order_id, request, sale, session_id, user_id},
};

/// A checkout, and the ports whose stores it asks.
pub struct CheckoutPorts {
    /// The gate's ports.
    pub gate: GatePorts,
    /// The admission store.
    pub admission: Arc<dyn Admission>,
    /// Both together.
    pub checkout: Arc<dyn Checkout>,
}

impl CheckoutPorts {
    /// `ports`, with one store for the gate and the admission, and what asks it for both.
    pub fn of<S: Gate + Sessions + Blacklist + Failures + Captchas + Admission + 'static>(
        store: &Arc<S>,
        checkout: Option<Arc<dyn Checkout>>,
        ports: Ports,
    ) -> Self {
        let (gate, admission) = (GatePorts::of(store), store.clone());
        Self::from(Ports {
            gate: gate.gate,
            sessions: gate.sessions,
            blacklist: gate.blacklist,
            failures: gate.failures,
            captchas: gate.captchas,
            admission,
            checkout,
            ..ports
        })
    }

    async fn ask(&self, request: &GateRequest, ticket: &TicketClaims) -> Answer {
        let order = ReserveRequest {
            ticket: ticket.clone(),
            address_prefix: network("192.0.2.7"),
            attempts_max: 3,
        };
        self.checkout.enter_and_reserve(request, &order).await.expect("the stores answer")
    }

    async fn opened(&self, stock: u32) -> Sale {
        let sale = sale(stock);
        assert!(self.admission.begin_rebuild(&sale.terms(), 1, START).await.expect("store"));
        assert!(self.admission.finish_rebuild(sale.sale_id, 1).await.expect("store"));
        sale
    }

    /// How many units of the open sale are held.
    async fn held(&self, sale: &Sale) -> u32 {
        match self.admission.state(sale.sale_id).await.expect("store") {
            AdmissionState::Open { reserved, settled, .. } => reserved + settled,
            other => panic!("expected an open sale, not {other:?}"),
        }
    }

    /// A buyer with a session, and a ticket for the sale.
    async fn buyer(&self, sale: &Sale) -> Buyer {
        let user_id = user_id();
        let session = Session {
            session_id: session_id(),
            user_id,
            role: Role::Shopper,
            expires_at: START.plus_ms(60_000),
        };
        let opened = self.gate.sessions.open(std::slice::from_ref(&session), START).await;
        opened.expect("a session is opened");
        let claim = Claim::new(sale.sale_id, order_id(), user_id, START);
        Buyer { user_id, session, claim }
    }
}

impl From<Ports> for CheckoutPorts {
    fn from(ports: Ports) -> Self {
        Self {
            gate: GatePorts {
                gate: ports.gate.clone(),
                sessions: ports.sessions.clone(),
                blacklist: ports.blacklist.clone(),
                failures: ports.failures.clone(),
                captchas: ports.captchas.clone(),
            },
            admission: ports.admission.clone(),
            checkout: Arc::new(ports),
        }
    }
}

type Answer = Result<AdmissionDecision, GateDecision>;

struct Buyer {
    user_id: UserId,
    session: Session,
    claim: Claim,
}

const ABUSE: AbusePolicy = AbusePolicy {
    abuser: Abuser::User,
    refusals_max: 2,
    window_ms: 10_000,
    ban_ms: 60_000,
    also_refused: 0,
};

impl Buyer {
    /// What the gate checks of an order request: two requests at once, then one in ten seconds.
    fn request(&self, now: Timestamp) -> GateRequest {
        let user = Subject::User(self.user_id);
        GateRequest {
            session: Some((self.user_id, self.session.session_id)),
            role: None,
            not_banned: vec![user.clone()],
            limits: vec![LimitCheck {
                name: "suite",
                subject: user,
                quota: Quota { limit: 1, window_ms: 10_000, burst: 2 },
            }],
            abuse: Some(ABUSE),
            now,
        }
    }

    fn ticket(&self) -> TicketClaims {
        self.claim.ticket()
    }
}

/// A request that enters gets the admission store's answer.
pub async fn entered_is_decided(ports: &Arc<CheckoutPorts>) {
    let sale = ports.opened(2).await;
    let buyer = ports.buyer(&sale).await;
    let reserved = ports.ask(&buyer.request(START), &buyer.ticket()).await;
    let Ok(AdmissionDecision::Reserved(order)) = reserved else {
        panic!("expected a unit, not {reserved:?}");
    };
    let expected = request(&sale, buyer.user_id);
    assert_eq!((order.order_id, order.user_id), (buyer.claim.order_id, buyer.user_id));
    assert_eq!((order.price, order.currency), (expected.price, expected.currency));
    assert_eq!(order.admitted_at, START, "at the request's time");
    // The same ticket again, and another ticket of the same user.
    let again = ports.ask(&buyer.request(START), &buyer.ticket()).await;
    assert!(
        matches!(again, Ok(AdmissionDecision::Again(held)) if held.order == order && !held.settled)
    );
    let now = START.plus_ms(20_000);
    let other =
        TicketClaims { order_id: order_id(), exp_ms: now.plus_ms(1).epoch_ms(), ..buyer.ticket() };
    let bought = AdmissionDecision::AlreadyBought { order_id: order.order_id };
    assert_eq!(ports.ask(&buyer.request(now), &other).await, Ok(bought));
    assert_eq!(ports.held(&sale).await, 1);

    let second = ports.buyer(&sale).await;
    let reserved = ports.ask(&second.request(START), &second.ticket()).await;
    assert!(matches!(reserved, Ok(AdmissionDecision::Reserved(_))), "{reserved:?}");
    let late = ports.buyer(&sale).await;
    assert_eq!(
        ports.ask(&late.request(START), &late.ticket()).await,
        Ok(AdmissionDecision::SoldOut)
    );
    // Whether the ticket has expired and the sale has ended is decided by the request's time too.
    let expired = TicketClaims { exp_ms: START.epoch_ms(), ..late.ticket() };
    let now = START.plus_ms(1);
    assert_eq!(ports.ask(&late.request(now), &expired).await, Ok(AdmissionDecision::TicketExpired));
    let unknown = ports.buyer(&sale).await;
    let elsewhere = TicketClaims { sale_id: crate::testing::sale(1).sale_id, ..unknown.ticket() };
    assert_eq!(ports.ask(&unknown.request(START), &elsewhere).await, Ok(AdmissionDecision::Closed));
    // Nothing is asked of the gate, so nothing refuses.
    let nothing = GateRequest {
        session: None,
        not_banned: Vec::new(),
        limits: Vec::new(),
        ..unknown.request(START)
    };
    assert_eq!(ports.ask(&nothing, &unknown.ticket()).await, Ok(AdmissionDecision::SoldOut));
    assert_eq!(ports.held(&sale).await, 2);
}

/// Whom the gate refuses gets no unit: without a session, banned, over a limit.
pub async fn refused_reserves_nothing(ports: &Arc<CheckoutPorts>) {
    let sale = ports.opened(9).await;
    let buyer = ports.buyer(&sale).await;
    let stranger =
        GateRequest { session: Some((buyer.user_id, session_id())), ..buyer.request(START) };
    assert_eq!(ports.ask(&stranger, &buyer.ticket()).await, Err(GateDecision::NoSession));
    let admin = GateRequest { role: Some(Role::Admin), ..buyer.request(START) };
    assert_eq!(ports.ask(&admin, &buyer.ticket()).await, Err(GateDecision::WrongRole));

    let subject = Subject::User(buyer.user_id);
    let until = START.plus_ms(1_000);
    let ban = Ban {
        subject: subject.clone(),
        reason: "test".to_owned(),
        created_at: START,
        expires_at: Some(until),
    };
    ports.gate.blacklist.ban(&ban).await.expect("a ban is put");
    assert_eq!(
        ports.ask(&buyer.request(START), &buyer.ticket()).await,
        Err(GateDecision::Banned { until: Some(until) })
    );
    assert!(ports.gate.blacklist.lift(&subject).await.expect("a ban is lifted"));
    assert_eq!(ports.held(&sale).await, 0);

    // The limits are charged by requests that enter, whatever the admission store answers.
    let elsewhere = TicketClaims { sale_id: crate::testing::sale(1).sale_id, ..buyer.ticket() };
    for _ in 0..2 {
        assert_eq!(
            ports.ask(&buyer.request(START), &elsewhere).await,
            Ok(AdmissionDecision::Closed)
        );
    }
    // Refusals count against the user: one more than allowed bans.
    let limited = Err(GateDecision::Limited { limit: 0, retry_after_ms: 10_000 });
    for _ in 0..=ABUSE.refusals_max {
        assert_eq!(ports.ask(&buyer.request(START), &buyer.ticket()).await, limited);
    }
    let until = START.plus_ms(ABUSE.ban_ms);
    assert_eq!(
        ports.ask(&buyer.request(START), &buyer.ticket()).await,
        Err(GateDecision::Banned { until: Some(until) })
    );
    assert_eq!(ports.held(&sale).await, 0);
    // Also the refusals that the caller answered by itself.
    let other = ports.buyer(&sale).await;
    for _ in 0..2 {
        assert!(ports.ask(&other.request(START), &other.ticket()).await.is_ok());
    }
    let counted = GateRequest {
        abuse: Some(AbusePolicy { also_refused: ABUSE.refusals_max, ..ABUSE }),
        ..other.request(START)
    };
    assert_eq!(ports.ask(&counted, &other.ticket()).await, limited);
    assert_eq!(
        ports.ask(&other.request(START), &other.ticket()).await,
        Err(GateDecision::Banned { until: Some(until) })
    );
    assert_eq!(ports.held(&sale).await, 1);
}

/// Many buyers at once get as many units as there are.
pub async fn crowd_is_bounded(ports: &Arc<CheckoutPorts>) {
    const STOCK: u32 = 20;
    let sale = ports.opened(STOCK).await;
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..3 * STOCK {
        let (ports, buyer) = (Arc::clone(ports), ports.buyer(&sale).await);
        asking.spawn(async move { ports.ask(&buyer.request(START), &buyer.ticket()).await });
    }
    let answers = asking.join_all().await;
    let count =
        |wanted: fn(&Answer) -> bool| answers.iter().filter(|answer| wanted(answer)).count();
    let reserved = count(|answer| matches!(answer, Ok(AdmissionDecision::Reserved(_))));
    let sold_out = count(|answer| matches!(answer, Ok(AdmissionDecision::SoldOut)));
    assert_eq!((reserved, sold_out), (STOCK as usize, 2 * STOCK as usize), "{answers:?}");
    assert_eq!(ports.held(&sale).await, STOCK);
}
