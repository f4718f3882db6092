//! An admission store that fails for some sales, as a cluster does of which one shard is down.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use flashsale::{
    domain::{OrderId, OrderRequest, SaleId, SaleTerms, Timestamp, UserId},
    ports::{Admission, AdmissionState, Admitted, Claim, Look, Reservation, ReservationPage, StoreError, Stored},
};

pub struct FaultyAdmission {
    inner: Arc<dyn Admission>,
    failing: Mutex<HashSet<SaleId>>,
}

impl FaultyAdmission {
    pub fn new(inner: Arc<dyn Admission>) -> Self {
        Self { inner, failing: Mutex::default() }
    }

    pub fn fail(&self, sale_id: SaleId) {
        self.failing.lock().unwrap().insert(sale_id);
    }

    pub fn mend(&self) {
        self.failing.lock().unwrap().clear();
    }

    fn of(&self, sale_id: SaleId) -> Stored<&dyn Admission> {
        if self.failing.lock().unwrap().contains(&sale_id) {
            return Err(StoreError::Unavailable { store: "test", cause: "this shard is down".to_owned() });
        }
        Ok(&*self.inner)
    }
}

#[async_trait]
impl Admission for FaultyAdmission {
    async fn reserve(&self, claim: &Claim) -> Stored<Admitted> {
        self.of(claim.sale_id)?.reserve(claim).await
    }

    async fn look(&self, sale_id: SaleId, user_id: UserId) -> Stored<Option<Look>> {
        self.of(sale_id)?.look(sale_id, user_id).await
    }

    async fn find(&self, sale_id: SaleId, order_id: OrderId) -> Stored<Option<Reservation>> {
        self.of(sale_id)?.find(sale_id, order_id).await
    }

    async fn settle(&self, sale_id: SaleId, active: &[OrderRequest]) -> Stored<()> {
        self.of(sale_id)?.settle(sale_id, active).await
    }

    async fn release(&self, sale_id: SaleId, order_ids: &[OrderId]) -> Stored<()> {
        self.of(sale_id)?.release(sale_id, order_ids).await
    }

    async fn claim_overdue(&self, sale_id: SaleId, before: Timestamp, now: Timestamp, limit: u32) -> Stored<Vec<Reservation>> {
        self.of(sale_id)?.claim_overdue(sale_id, before, now, limit).await
    }

    async fn reservations(&self, sale_id: SaleId, cursor: u64, limit: u32) -> Stored<ReservationPage> {
        self.of(sale_id)?.reservations(sale_id, cursor, limit).await
    }

    async fn state(&self, sale_id: SaleId) -> Stored<AdmissionState> {
        self.of(sale_id)?.state(sale_id).await
    }

    async fn begin_rebuild(&self, terms: &SaleTerms, epoch: u64, now: Timestamp) -> Stored<bool> {
        self.of(terms.sale_id)?.begin_rebuild(terms, epoch, now).await
    }

    async fn restore(&self, sale_id: SaleId, epoch: u64, active: &[OrderRequest]) -> Stored<bool> {
        self.of(sale_id)?.restore(sale_id, epoch, active).await
    }

    async fn finish_rebuild(&self, sale_id: SaleId, epoch: u64) -> Stored<bool> {
        self.of(sale_id)?.finish_rebuild(sale_id, epoch).await
    }

    async fn set_terms(&self, terms: &SaleTerms) -> Stored<bool> {
        self.of(terms.sale_id)?.set_terms(terms).await
    }
}
