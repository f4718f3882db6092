//! The buy path: a ticket, then an order. The cheapest checks come first.

use std::{pin::pin, task::Poll, time::Duration};

use tracing::Instrument as _;

use super::{App, Caller, CaptchaAnswer, limits::RateLimit};
use crate::{
    api::{OrderAccepted, Ticket},
    domain::{
        AddressPrefix, AdmissionDecision, AdmittedOrder, Availability, CaptchaPurpose, OrderId,
        OrderStatus, Reservation, ReserveRequest, Sale, SaleId, TicketClaims, too_many_attempts,
    },
    metrics::{self, Outcomes},
    problem::Problem,
    trace::{self, STEP, TraceContext},
};

/// Delay before a buyer retries an order that could not be made durable.
const RETRY_MS: u64 = 1_000;
/// How long a look at a sale may wait for the gate's answer.
const LOOK_LIFE_MS: u64 = 50;
/// Longest time that a refused ticket waits for its look-up in the ledger to begin.
const LOOKUP_WAIT: Duration = Duration::from_millis(250);

static TICKETS: Outcomes = Outcomes::new(metrics::TICKETS);
static ORDERS: Outcomes = Outcomes::new(metrics::ORDERS);

impl App {
    /// Issues a ticket.
    ///
    /// # Errors
    /// `not-found`, `sale-not-open`, `sale-ended`, `not-eligible`, `not-invited`, `sold-out`,
    /// `network-sold-out`, `already-bought`, `too-many-attempts`, `captcha-*`, `unauthenticated`,
    /// `rate-limited`, `banned`, `unavailable`.
    pub async fn issue_ticket(
        &self,
        caller: &Caller,
        sale_id: SaleId,
        captcha: Option<CaptchaAnswer>,
    ) -> Result<Ticket, Problem> {
        TICKETS.note("issued", self.make_ticket(caller, sale_id, captcha).await)
    }

    async fn make_ticket(
        &self,
        caller: &Caller,
        sale_id: SaleId,
        captcha: Option<CaptchaAnswer>,
    ) -> Result<Ticket, Problem> {
        let Caller { session: who, client } = caller;
        // From memory, so that a request that can't win calls no store. Requests for a sale that is
        // not in memory are limited by address.
        if !self.catalog.knows(sale_id) {
            self.enter_reader(client).await?;
        }
        let sale = self.sale(sale_id).await?;
        let now = self.now();
        if now < sale.starts_at {
            return Err(Problem::SaleNotOpen { starts_at: sale.starts_at });
        }
        if now >= sale.ends_at {
            return Err(Problem::SaleEnded);
        }
        if let Some(registered_before) = sale.registered_too_late(who.user_id) {
            return Err(Problem::NotEligible { registered_before });
        }
        if sale.draw.is_some() {
            self.refuse_uninvited(&sale, caller).await?;
        }
        // Memory refuses only users who were seen to hold no order. Each user's first refusal comes
        // from the store, because another process may have taken a winner's order.
        if sale.draw.is_none()
            && let Some(flag) = self.sold_out_flag(sale_id, who.user_id).await?
            && self.catalog.is_without(sale_id, who.user_id, flag, self.monotonic_ms())
        {
            self.enter_memory(client, Some(who.user_id), RateLimit::Ticket).await?;
            return Err(Problem::SoldOut);
        }
        let look = self.enter_and_look(caller, sale_id).await?;
        let look = look.ok_or(Problem::Unavailable { retry_after_ms: RETRY_MS })?;
        if let Some(order_id) = look.already_bought {
            return Err(Problem::AlreadyBought { order_id });
        }
        if too_many_attempts(look.given_up, self.config.orders.attempts_max) {
            return Err(Problem::TooManyAttempts);
        }
        // An invitation is for one unit, which nobody else can take.
        let invited_until = match look.invited_until.filter(|until| *until > now) {
            None if sale.draw.is_some() => {
                let poll_after_ms = self.poll_after_ms(&sale, who.user_id, now);
                return Err(Problem::NotInvited { poll_after_ms });
            }
            until => until,
        };
        if look.available == 0 {
            let flag = self.note_sold_out(sale_id, &look);
            self.catalog.note_without(sale_id, who.user_id, flag, self.monotonic_ms());
            return Err(Problem::SoldOut);
        }
        if look.network_sold_out {
            return Err(Problem::NetworkSoldOut);
        }
        // Last, because it uses the captcha up.
        self.check_captcha(client, CaptchaPurpose::of(caller, sale_id), captcha).await?;
        let order_id = OrderId::for_sale(now, sale_id, &self.ten());
        let longest = now.plus_ms(self.config.tickets.ms());
        let expires_at = invited_until.map_or(longest, |until| until.min(longest));
        let claims = TicketClaims {
            order_id,
            user_id: who.user_id,
            session_id: who.session_id,
            sale_id,
            exp_ms: expires_at.epoch_ms(),
        };
        let ticket = self.ticket_keys.ring(&self.ports).await?.sign(&claims);
        Ok(Ticket { ticket, order_id, expires_at })
    }

    /// Admits the caller and looks at the sale. Both are asked at once, because the look changes
    /// nothing; a refusal from memory comes before the look is sent, and the gate's refusal counts
    /// before the look's.
    async fn enter_and_look(
        &self,
        caller: &Caller,
        sale_id: SaleId,
    ) -> Result<Option<Availability>, Problem> {
        let look = async || {
            let step = tracing::info_span!(target: STEP, "admission.look", otel.kind = "client");
            let from = AddressPrefix::of(caller.client.address);
            let look = self.ports.admission.look(sale_id, caller.session.user_id, Some(from));
            (look.instrument(step).await, self.monotonic_ms())
        };
        let mut entering = pin!(self.enter(caller, RateLimit::Ticket));
        let (entered, (seen, seen_at_ms)) = match futures_util::poll!(entering.as_mut()) {
            Poll::Ready(entered) => {
                entered?;
                return Ok(look().await.0?);
            }
            Poll::Pending => futures_util::join!(entering, look()),
        };
        entered?;
        // The gate may have taken long, for a session that only the ledger knew. The caller may have
        // bought a unit since.
        if self.monotonic_ms() > seen_at_ms + LOOK_LIFE_MS {
            return Ok(look().await.0?);
        }
        Ok(seen?)
    }

    /// Turns a ticket into an order and returns once the order is durable. The same ticket gives
    /// the same order. `request` is the trace context that is stored with the order.
    ///
    /// # Errors
    /// `bad-ticket`, `ticket-expired`, `not-durable-yet`, and those of [`App::issue_ticket`].
    pub async fn place_order(
        &self,
        caller: &Caller,
        sale_id: SaleId,
        ticket: &str,
        request: Option<TraceContext>,
    ) -> Result<OrderAccepted, Problem> {
        ORDERS.note("accepted", self.make_order(caller, sale_id, ticket, request).await)
    }

    async fn make_order(
        &self,
        caller: &Caller,
        sale_id: SaleId,
        ticket: &str,
        request: Option<TraceContext>,
    ) -> Result<OrderAccepted, Problem> {
        let who = &caller.session;
        let keys = self.ticket_keys.ring(&self.ports).await?;
        let ticket: TicketClaims = keys.verify(ticket).ok_or(Problem::BadTicket)?;
        if ticket.user_id != who.user_id
            || ticket.session_id != who.session_id
            || ticket.sale_id != sale_id
        {
            return Err(Problem::BadTicket);
        }
        let accepted = OrderAccepted { order_id: ticket.order_id, status: OrderStatus::Queued };
        let reserve = ReserveRequest {
            ticket,
            address_prefix: AddressPrefix::of(caller.client.address),
            attempts_max: self.config.orders.attempts_max,
        };
        let decision = self.enter_and_reserve(caller, RateLimit::Order, &reserve).await?;
        let ReserveRequest { ticket, .. } = reserve;
        match decision {
            AdmissionDecision::Again(Reservation { settled: true, .. })
            | AdmissionDecision::Ended => Ok(accepted),
            // `Again` is published too: the first publish may not have been confirmed, and a second
            // one is harmless.
            AdmissionDecision::Reserved(order)
            | AdmissionDecision::Again(Reservation { order, settled: false }) => {
                self.hand_over(order, request).await?;
                self.catalog.note_winner(sale_id, who.user_id);
                Ok(accepted)
            }
            AdmissionDecision::Closed if self.stays_closed(&ticket).await? => {
                self.recorded_or(Problem::TicketExpired, &ticket, accepted).await
            }
            AdmissionDecision::Closed => Err(Problem::NotDurableYet { retry_after_ms: RETRY_MS }),
            AdmissionDecision::TicketExpired => {
                self.recorded_or(Problem::TicketExpired, &ticket, accepted).await
            }
            AdmissionDecision::NotOpen { starts_at } => {
                self.recorded_or(Problem::SaleNotOpen { starts_at }, &ticket, accepted).await
            }
            AdmissionDecision::SaleEnded => {
                self.recorded_or(Problem::SaleEnded, &ticket, accepted).await
            }
            AdmissionDecision::AlreadyBought { order_id } => {
                self.recorded_or(Problem::AlreadyBought { order_id }, &ticket, accepted).await
            }
            AdmissionDecision::TooManyAttempts => {
                self.recorded_or(Problem::TooManyAttempts, &ticket, accepted).await
            }
            AdmissionDecision::NotInvited => {
                let sale = self.sale(sale_id).await?;
                let poll_after_ms = self.poll_after_ms(&sale, who.user_id, self.now());
                self.recorded_or(Problem::NotInvited { poll_after_ms }, &ticket, accepted).await
            }
            AdmissionDecision::SoldOut => {
                self.recorded_or(Problem::SoldOut, &ticket, accepted).await
            }
            AdmissionDecision::NetworkSoldOut => {
                self.recorded_or(Problem::NetworkSoldOut, &ticket, accepted).await
            }
        }
    }

    /// Whether the ticket's sale ended too long ago for its admission to be rebuilt. Only the
    /// ledger knows such a sale's orders.
    async fn stays_closed(&self, ticket: &TicketClaims) -> Result<bool, Problem> {
        let tail_ms = self.config.sweeper.tail_seconds * 1_000;
        let now = self.now();
        Ok(ticket.expired(now) && self.sale(ticket.sale_id).await?.ends_at.plus_ms(tail_ms) < now)
    }

    /// Publishes the order, which also stores it where status requests find it.
    async fn hand_over(
        &self,
        order: AdmittedOrder,
        request: Option<TraceContext>,
    ) -> Result<(), Problem> {
        let step = tracing::info_span!(target: STEP, "orders.publish", otel.kind = "producer", flashsale.order_id = %order.order_id);
        let publishing = AdmittedOrder { traceparent: trace::carried(&step, request), ..order };
        let order_id = publishing.order_id;
        self.publisher.publish(publishing).instrument(step).await.map_err(|error| {
            // The unit stays reserved: the retry or the sweeper finds it.
            tracing::debug!(%error, %order_id, "publish");
            Problem::NotDurableYet { retry_after_ms: RETRY_MS }
        })
    }

    /// Looks for the order of a refused ticket in the ledger. An order that ended before the
    /// admission store lost its data is known only there, so the ledger is asked only if the sale
    /// was rebuilt or the ticket has expired. A miss is cached for some seconds, few look-ups run
    /// at once, and the wait for one is short, so that a crowd of late requests neither reaches the
    /// ledger nor waits for it.
    async fn recorded_or(
        &self,
        refusal: Problem,
        ticket: &TicketClaims,
        accepted: OrderAccepted,
    ) -> Result<OrderAccepted, Problem> {
        let order_id = ticket.order_id;
        let rebuilt = self.sale(ticket.sale_id).await?.epoch > Sale::FIRST_EPOCH
            || self.catalog.may_be_old(self.monotonic_ms());
        if !rebuilt && !matches!(refusal, Problem::TicketExpired) {
            return Err(refusal);
        }
        if self.catalog.is_unrecorded(order_id, self.monotonic_ms()) {
            return Err(refusal);
        }
        let Ok(turn) = tokio::time::timeout(LOOKUP_WAIT, self.catalog.lookups.acquire()).await
        else {
            return Err(Problem::Unavailable { retry_after_ms: RETRY_MS });
        };
        let _turn = turn.expect("the semaphore is never closed");
        match self.ports.orders.get(order_id).await? {
            Some(order) if order.user_id == ticket.user_id => Ok(accepted),
            _ => {
                self.catalog.note_unrecorded(order_id, self.monotonic_ms());
                Err(refusal)
            }
        }
    }
}
