//! The admission store in memory. The domain decides which orders get a unit; this module stores
//! the result.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{Mutex, MutexGuard},
};

use async_trait::async_trait;

use super::line::LineBook;
use crate::{
    domain::{
        AddressPrefix, AdmissionDecision, AdmissionState, AdmissionView, AdmittedOrder,
        Availability, EndedOrder, OrderId, Reservation, ReservationPage, ReserveRequest, SaleId,
        SaleTerms, Timestamp, UserId,
    },
    ports::{Admission, Stored},
};

/// [`Admission`] in the memory of this process.
#[derive(Debug, Default)]
pub struct MemoryAdmission {
    books: Mutex<HashMap<SaleId, Book>>,
}

/// The state of one sale.
#[derive(Debug, Default)]
pub(super) struct Book {
    /// `None` while the sale is `Missing`. Ended orders are remembered even then.
    pub(super) loaded: Option<Loaded>,
    held: HashMap<OrderId, HeldUnit>,
    /// Positions of the reservations, for paging. A reservation keeps its position.
    places: BTreeMap<u64, OrderId>,
    last_place: u64,
    /// Ids of the orders that each user holds, in order of admission. A user without orders has no
    /// entry.
    buyers: HashMap<UserId, Vec<OrderId>>,
    /// The unsettled reservations, by their time of admission or last claim.
    overdue: BTreeSet<(Timestamp, OrderId)>,
    /// Units held by the orders of each network. A network without orders has no entry.
    networks: HashMap<AddressPrefix, u32>,
    ended: HashSet<OrderId>,
    /// The ended orders that count as attempts, so that each counts once, and their number by user.
    given_up: HashSet<OrderId>,
    attempts: HashMap<UserId, u32>,
    pub(super) line: LineBook,
}

#[derive(Debug)]
pub(super) struct Loaded {
    open: bool,
    epoch: u64,
    since: Timestamp,
    terms: SaleTerms,
}

#[derive(Debug)]
struct HeldUnit {
    order: AdmittedOrder,
    /// Its time in `overdue`; `None` once settled.
    watched: Option<Timestamp>,
    place: u64,
}

impl HeldUnit {
    fn reservation(&self) -> Reservation {
        Reservation { order: self.order.clone(), settled: self.watched.is_none() }
    }
}

impl Book {
    /// Units held by orders.
    pub(super) fn units_held(&self) -> u32 {
        count(self.held.len())
    }

    /// The terms, while admission is open.
    pub(super) fn open(&self) -> Option<&SaleTerms> {
        self.loaded.as_ref().filter(|loaded| loaded.open).map(|loaded| &loaded.terms)
    }

    fn of_user(&self, user_id: UserId) -> &[OrderId] {
        self.buyers.get(&user_id).map_or(&[], Vec::as_slice)
    }

    fn attempts_of(&self, user_id: UserId) -> u32 {
        self.attempts.get(&user_id).copied().unwrap_or_default()
    }

    fn of_network(&self, prefix: AddressPrefix) -> u32 {
        self.networks.get(&prefix).copied().unwrap_or_default()
    }

    fn reserve(&mut self, request: &ReserveRequest, now: Timestamp) -> AdmissionDecision {
        let ticket = &request.ticket;
        let view = AdmissionView {
            own: self.held.get(&ticket.order_id).map(HeldUnit::reservation),
            ended: self.ended.contains(&ticket.order_id),
            open: self.open(),
            of_user: self.of_user(ticket.user_id),
            invited_until: self.line.invited_until(ticket.user_id),
            given_up: self.attempts_of(ticket.user_id),
            held: count(self.held.len()),
            of_network: self.of_network(request.address_prefix),
        };
        let decision = view.decide(request, now);
        if let AdmissionDecision::Reserved(order) = &decision {
            self.add(order.clone(), Some(now));
            self.line.use_invitation(order.user_id);
        }
        decision
    }

    fn add(&mut self, order: AdmittedOrder, watched: Option<Timestamp>) {
        let order_id = order.order_id;
        self.last_place += 1;
        self.places.insert(self.last_place, order_id);
        self.buyers.entry(order.user_id).or_default().push(order_id);
        if let Some(prefix) = order.address_prefix {
            *self.networks.entry(prefix).or_default() += 1;
        }
        if let Some(time) = watched {
            self.overdue.insert((time, order_id));
        }
        self.held.insert(order_id, HeldUnit { order, watched, place: self.last_place });
    }

    fn settle(&mut self, order: &AdmittedOrder) {
        let order_id = order.order_id;
        if let Some(held) = self.held.get_mut(&order_id) {
            if let Some(time) = held.watched.take() {
                self.overdue.remove(&(time, order_id));
            }
        } else if !self.ended.contains(&order_id) {
            self.add(order.clone(), None);
        }
    }

    fn release(&mut self, EndedOrder { order_id, given_up_by }: EndedOrder) {
        self.ended.insert(order_id);
        if let Some(user_id) = given_up_by
            && self.given_up.insert(order_id)
        {
            *self.attempts.entry(user_id).or_default() += 1;
        }
        let Some(held) = self.held.remove(&order_id) else {
            return;
        };
        self.places.remove(&held.place);
        if let Some(time) = held.watched {
            self.overdue.remove(&(time, order_id));
        }
        let user_id = held.order.user_id;
        if let Some(mine) = self.buyers.get_mut(&user_id) {
            mine.retain(|id| *id != order_id);
            if mine.is_empty() {
                self.buyers.remove(&user_id);
            }
        }
        if let Some(prefix) = held.order.address_prefix
            && let Some(units) = self.networks.get_mut(&prefix)
        {
            *units -= 1;
            if *units == 0 {
                self.networks.remove(&prefix);
            }
        }
    }

    fn claim_overdue(&mut self, before: Timestamp, now: Timestamp, limit: u32) -> Vec<Reservation> {
        let due: Vec<_> = self
            .overdue
            .iter()
            .take_while(|(time, _)| *time <= before)
            .take(limit as usize)
            .copied()
            .collect();
        due.into_iter()
            .map(|(time, order_id)| {
                self.overdue.remove(&(time, order_id));
                self.overdue.insert((now, order_id));
                let held = self
                    .held
                    .get_mut(&order_id)
                    .expect("only held orders are in the overdue index");
                held.watched = Some(now);
                held.reservation()
            })
            .collect()
    }

    fn state(&self) -> AdmissionState {
        let Some(Loaded { open, epoch, since, terms }) = &self.loaded else {
            return AdmissionState::Missing;
        };
        let (epoch, since) = (*epoch, *since);
        if !open {
            return AdmissionState::Rebuilding { epoch, since };
        }
        let reserved = count(self.overdue.len());
        let settled = count(self.held.len() - self.overdue.len());
        AdmissionState::Open {
            epoch,
            version: terms.version,
            stock: terms.stock,
            reserved,
            settled,
        }
    }
}

/// A number of reservations as a `u32`. Saturates: no store holds more than that.
pub(super) fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

impl MemoryAdmission {
    /// Deletes all data, as if a server had restarted empty.
    pub fn lose_everything(&self) {
        self.books().clear();
    }

    pub(super) fn books(&self) -> MutexGuard<'_, HashMap<SaleId, Book>> {
        self.books.lock().expect("nothing panics while the books are locked")
    }
}

#[async_trait]
impl Admission for MemoryAdmission {
    async fn reserve(&self, request: &ReserveRequest, now: Timestamp) -> Stored<AdmissionDecision> {
        // A sale that nobody loaded gets no entry: made-up ids must not fill the memory.
        Ok(self
            .books()
            .get_mut(&request.ticket.sale_id)
            .map_or(AdmissionDecision::Closed, |book| book.reserve(request, now)))
    }

    async fn look(
        &self,
        sale_id: SaleId,
        user_id: UserId,
        from: Option<AddressPrefix>,
    ) -> Stored<Option<Availability>> {
        let books = self.books();
        Ok(books.get(&sale_id).and_then(|book| {
            let terms = book.open()?;
            Some(Availability {
                available: terms.available(count(book.held.len())),
                already_bought: terms.already_bought(book.of_user(user_id)),
                given_up: book.attempts_of(user_id),
                network_sold_out: from
                    .is_some_and(|prefix| terms.network_sold_out(book.of_network(prefix))),
                admissions: book.last_place,
                epoch: book.loaded.as_ref()?.epoch,
                invited_until: book.line.invited_until(user_id).filter(|_| terms.draw),
            })
        }))
    }

    async fn find(&self, sale_id: SaleId, order_id: OrderId) -> Stored<Option<Reservation>> {
        Ok(self
            .books()
            .get(&sale_id)
            .and_then(|book| book.held.get(&order_id))
            .map(HeldUnit::reservation))
    }

    async fn find_many(&self, sale_id: SaleId, order_ids: &[OrderId]) -> Stored<Vec<Reservation>> {
        let books = self.books();
        let Some(book) = books.get(&sale_id) else {
            return Ok(Vec::new());
        };
        let asked: BTreeSet<OrderId> = order_ids.iter().copied().collect();
        Ok(asked
            .iter()
            .filter_map(|order_id| book.held.get(order_id))
            .map(HeldUnit::reservation)
            .collect())
    }

    async fn settle(&self, sale_id: SaleId, active: &[AdmittedOrder]) -> Stored<()> {
        if let Some(book) = self.books().get_mut(&sale_id).filter(|book| book.loaded.is_some()) {
            active.iter().for_each(|order| book.settle(order));
        }
        Ok(())
    }

    async fn release(&self, sale_id: SaleId, ended: &[EndedOrder]) -> Stored<()> {
        if !ended.is_empty() {
            let mut books = self.books();
            let book = books.entry(sale_id).or_default();
            ended.iter().for_each(|order| book.release(*order));
        }
        Ok(())
    }

    async fn claim_overdue(
        &self,
        sale_id: SaleId,
        before: Timestamp,
        now: Timestamp,
        limit: u32,
    ) -> Stored<Vec<Reservation>> {
        Ok(self
            .books()
            .get_mut(&sale_id)
            .map_or_else(Vec::new, |book| book.claim_overdue(before, now, limit)))
    }

    async fn reservations(
        &self,
        sale_id: SaleId,
        cursor: u64,
        limit: u32,
    ) -> Stored<ReservationPage> {
        let books = self.books();
        let Some(book) = books.get(&sale_id) else {
            return Ok(ReservationPage { reservations: Vec::new(), next: None });
        };
        let limit = limit.max(1) as usize;
        let mut places = book.places.range(cursor + 1..);
        let page: Vec<_> = places.by_ref().take(limit).collect();
        let next = places.next().and_then(|_| page.last()).map(|(place, _)| **place);
        Ok(ReservationPage {
            reservations: page
                .into_iter()
                .map(|(_, order_id)| book.held[order_id].reservation())
                .collect(),
            next,
        })
    }

    async fn state(&self, sale_id: SaleId) -> Stored<AdmissionState> {
        Ok(self.books().get(&sale_id).map_or(AdmissionState::Missing, Book::state))
    }

    async fn begin_rebuild(&self, terms: &SaleTerms, epoch: u64, now: Timestamp) -> Stored<bool> {
        let mut books = self.books();
        let book = books.entry(terms.sale_id).or_default();
        let terms = match &book.loaded {
            Some(loaded) if loaded.open || loaded.epoch >= epoch => return Ok(false),
            Some(loaded) if loaded.terms.version > terms.version => loaded.terms.clone(),
            _ => terms.clone(),
        };
        book.loaded = Some(Loaded { open: false, epoch, since: now, terms });
        Ok(true)
    }

    async fn restore(&self, sale_id: SaleId, epoch: u64, active: &[AdmittedOrder]) -> Stored<bool> {
        let mut books = self.books();
        let rebuilding = |book: &&mut Book| {
            book.loaded.as_ref().is_some_and(|loaded| !loaded.open && loaded.epoch == epoch)
        };
        let Some(book) = books.get_mut(&sale_id).filter(rebuilding) else {
            return Ok(false);
        };
        active.iter().for_each(|order| book.settle(order));
        Ok(true)
    }

    async fn finish_rebuild(&self, sale_id: SaleId, epoch: u64) -> Stored<bool> {
        let mut books = self.books();
        let loaded = books
            .get_mut(&sale_id)
            .and_then(|book| book.loaded.as_mut())
            .filter(|loaded| loaded.epoch == epoch);
        Ok(loaded.map(|loaded| loaded.open = true).is_some())
    }

    async fn set_terms(&self, terms: &SaleTerms) -> Stored<bool> {
        let mut books = self.books();
        let Some(loaded) = books.get_mut(&terms.sale_id).and_then(|book| book.loaded.as_mut())
        else {
            return Ok(false);
        };
        if loaded.terms.version <= terms.version {
            loaded.terms = terms.clone();
        }
        Ok(true)
    }
}
