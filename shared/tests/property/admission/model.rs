//! The rules of the admission port in their simplest form: lists and their lengths.

use std::collections::HashMap;

use flashsale::{
    domain::{
        AddressPrefix, AdmissionDecision, AdmissionState, AdmissionView, AdmittedOrder, EndedOrder,
        OrderId, Reservation, SaleTerms, Timestamp, UserId,
    },
    testing::Claim,
};

/// One sale in the store.
#[derive(Default)]
pub struct Model {
    pub loaded: Option<Loaded>,
    pub orders: Vec<Order>,
    pub ended: Vec<OrderId>,
    /// The orders that were given up, with their users.
    pub given_up: Vec<(OrderId, UserId)>,
    /// The ends of invitations that were not used.
    pub invitations: HashMap<UserId, Timestamp>,
    /// Places that were invited.
    pub invited: u64,
}

pub struct Loaded {
    pub open: bool,
    pub epoch: u64,
    pub since: Timestamp,
    pub terms: SaleTerms,
}

pub struct Order {
    pub reservation: Reservation,
    /// When it was admitted or last claimed.
    pub time: Timestamp,
}

impl Model {
    pub fn epoch(&self) -> u64 {
        self.loaded.as_ref().map_or(0, |loaded| loaded.epoch)
    }

    pub fn version(&self) -> u64 {
        self.loaded.as_ref().map_or(0, |loaded| loaded.terms.version)
    }

    pub fn of_user(&self, user_id: UserId) -> Vec<OrderId> {
        let mine = self.orders.iter().filter(|order| order.reservation.order.user_id == user_id);
        mine.map(|order| order.reservation.order.order_id).collect()
    }

    pub fn find(&self, order_id: OrderId) -> Option<Reservation> {
        self.orders
            .iter()
            .map(|order| &order.reservation)
            .find(|held| held.order.order_id == order_id)
            .cloned()
    }

    fn settled(&self) -> usize {
        self.orders.iter().filter(|order| order.reservation.settled).count()
    }

    pub fn attempts(&self, user_id: UserId) -> usize {
        self.given_up.iter().filter(|(_, user)| *user == user_id).count()
    }

    fn of_network(&self, prefix: AddressPrefix) -> usize {
        let of_network = |order: &&Order| order.reservation.order.address_prefix == Some(prefix);
        self.orders.iter().filter(of_network).count()
    }

    /// Whether orders from the network hold as many units as the terms allow.
    pub fn network_full(&self, prefix: AddressPrefix) -> bool {
        let limit = self.loaded.as_ref().and_then(|loaded| loaded.terms.units_per_prefix);
        limit.is_some_and(|limit| self.of_network(prefix) >= limit as usize)
    }

    /// When the user's invitation ends, in a sale by draw.
    pub fn invited_until(&self, user_id: UserId) -> Option<Timestamp> {
        let draw = self.loaded.as_ref().is_some_and(|loaded| loaded.terms.draw);
        self.invitations.get(&user_id).copied().filter(|_| draw)
    }

    /// Units available and whether the user's limit is reached; `None` when the sale is not open.
    pub fn look(&self, user_id: UserId) -> Option<(usize, bool)> {
        let Loaded { open: true, terms, .. } = self.loaded.as_ref()? else {
            return None;
        };
        let limit_reached = self.of_user(user_id).len() >= terms.per_user_limit as usize;
        Some(((terms.stock as usize).saturating_sub(self.orders.len()), limit_reached))
    }

    /// The input of the domain's rules for a claim; `of_user` lists orders of the claim's user.
    pub fn view<'a>(&'a self, claim: &Claim, of_user: &'a [OrderId]) -> AdmissionView<'a> {
        AdmissionView {
            own: self.find(claim.order_id),
            ended: self.ended.contains(&claim.order_id),
            open: self.loaded.as_ref().filter(|loaded| loaded.open).map(|loaded| &loaded.terms),
            of_user,
            invited_until: self.invited_until(claim.user_id),
            given_up: self.attempts(claim.user_id) as u32,
            held: self.orders.len() as u32,
            of_network: self.of_network(claim.address_prefix) as u32,
        }
    }

    /// For `AlreadyBought`, any of the user's orders is as good as the one given here.
    pub fn reserve(&mut self, claim: &Claim) -> AdmissionDecision {
        if let Some(held) = self.find(claim.order_id) {
            return AdmissionDecision::Again(held);
        }
        if self.ended.contains(&claim.order_id) {
            return AdmissionDecision::Ended;
        }
        let Some((available, limit_reached)) = self.look(claim.user_id) else {
            return AdmissionDecision::Closed;
        };
        let terms = &self.loaded.as_ref().unwrap().terms;
        if claim.ticket_expired {
            return AdmissionDecision::TicketExpired;
        }
        if claim.now < terms.starts_at {
            return AdmissionDecision::NotOpen { starts_at: terms.starts_at };
        }
        if claim.now >= terms.ends_at {
            return AdmissionDecision::SaleEnded;
        }
        if limit_reached {
            return AdmissionDecision::AlreadyBought { order_id: self.of_user(claim.user_id)[0] };
        }
        let attempts_max = claim.attempts_max as usize;
        if attempts_max != 0 && self.attempts(claim.user_id) >= attempts_max {
            return AdmissionDecision::TooManyAttempts;
        }
        let invited = self.invited_until(claim.user_id).is_some_and(|until| claim.now < until);
        if terms.draw && !invited {
            return AdmissionDecision::NotInvited;
        }
        if available == 0 {
            return AdmissionDecision::SoldOut;
        }
        if self.network_full(claim.address_prefix) {
            return AdmissionDecision::NetworkSoldOut;
        }
        let request = AdmittedOrder {
            order_id: claim.order_id,
            sale_id: claim.sale_id,
            user_id: claim.user_id,
            price: terms.price,
            currency: terms.currency,
            admitted_at: claim.now,
            traceparent: None,
            address_prefix: Some(claim.address_prefix),
        };
        self.invitations.remove(&claim.user_id);
        let reservation = Reservation { order: request.clone(), settled: false };
        self.orders.push(Order { reservation, time: claim.now });
        AdmissionDecision::Reserved(request)
    }

    pub fn settle(&mut self, active: &[AdmittedOrder]) {
        if self.loaded.is_none() {
            return;
        }
        for request in active {
            if let Some(order) = self
                .orders
                .iter_mut()
                .find(|order| order.reservation.order.order_id == request.order_id)
            {
                order.reservation.settled = true;
            } else if !self.ended.contains(&request.order_id) {
                let reservation = Reservation { order: request.clone(), settled: true };
                self.orders.push(Order { reservation, time: request.admitted_at });
            }
        }
    }

    pub fn release(&mut self, ended: &[EndedOrder]) {
        for EndedOrder { order_id, given_up_by } in ended {
            self.orders.retain(|order| order.reservation.order.order_id != *order_id);
            self.ended.push(*order_id);
            if let Some(user_id) = *given_up_by
                && self.given_up.iter().all(|(known, _)| known != order_id)
            {
                self.given_up.push((*order_id, user_id));
            }
        }
    }

    pub fn invite(&mut self, user_id: UserId, until: Timestamp, invited: u64) {
        if self.loaded.is_some() && self.invited < invited {
            self.invitations.insert(user_id, until);
            self.invited = invited;
        }
    }

    pub fn claim_overdue(
        &mut self,
        before: Timestamp,
        now: Timestamp,
        limit: u32,
    ) -> Vec<Reservation> {
        let mut due: Vec<_> = self
            .orders
            .iter_mut()
            .filter(|order| !order.reservation.settled && order.time <= before)
            .collect();
        due.sort_by_key(|order| (order.time, order.reservation.order.order_id));
        due.truncate(limit as usize);
        due.iter_mut().for_each(|order| order.time = now);
        due.into_iter().map(|order| order.reservation.clone()).collect()
    }

    pub fn state(&self) -> AdmissionState {
        let Some(Loaded { open, epoch, since, terms }) = &self.loaded else {
            return AdmissionState::Missing;
        };
        if !open {
            return AdmissionState::Rebuilding { epoch: *epoch, since: *since };
        }
        let (all, settled) = (self.orders.len() as u32, self.settled() as u32);
        AdmissionState::Open {
            epoch: *epoch,
            version: terms.version,
            stock: terms.stock,
            reserved: all - settled,
            settled,
        }
    }

    pub fn begin_rebuild(&mut self, terms: &SaleTerms, epoch: u64, now: Timestamp) -> bool {
        let mut terms = terms.clone();
        if let Some(loaded) = &self.loaded {
            if loaded.open || loaded.epoch >= epoch {
                return false;
            }
            if loaded.terms.version > terms.version {
                terms = loaded.terms.clone();
            }
        }
        self.loaded = Some(Loaded { open: false, epoch, since: now, terms });
        true
    }

    pub fn restore(&mut self, epoch: u64, active: &[AdmittedOrder]) -> bool {
        let allowed =
            self.loaded.as_ref().is_some_and(|loaded| !loaded.open && loaded.epoch == epoch);
        if allowed {
            self.settle(active);
        }
        allowed
    }

    pub fn finish_rebuild(&mut self, epoch: u64) -> bool {
        match &mut self.loaded {
            Some(loaded) if loaded.epoch == epoch => {
                loaded.open = true;
                true
            }
            _ => false,
        }
    }

    pub fn set_terms(&mut self, terms: &SaleTerms) -> bool {
        match &mut self.loaded {
            Some(loaded) => {
                if terms.version >= loaded.terms.version {
                    loaded.terms = terms.clone();
                }
                true
            }
            None => false,
        }
    }
}
