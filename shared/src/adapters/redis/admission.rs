//! The admission store in Redis: three keys per sale, in one cluster slot, and in a sale by draw
//! two more, which [`super::line`] describes.
//!
//! - `admission:{<sale>}`, a hash: the state and the terms by name; `admissions`, the number of
//!   orders that got a unit; `u:<user>` -> the ids of the orders the user holds, 36 characters
//!   each, concatenated; `e:<order>` for each ended order, `g` if it counts as an attempt;
//!   `g:<user>` -> the number of those; `n:<network>` -> the units that orders from the network
//!   hold. So the terms and the memory of ended orders exist together or are lost together.
//! - `admission:{<sale>}:held`, a hash: order id -> reservation, as [`encoded`] writes it.
//!   Available units are the stock minus its length.
//! - `admission:{<sale>}:overdue`, a sorted set: the ids of unsettled orders, by their time of
//!   admission or last claim.
//!
//! Every decision is one script, so a lost server or a stale replica leaves an older state, never
//! half of one. While a cluster moves a sale's slot, it refuses scripts (`TRYAGAIN`) and never runs
//! them on half of the keys.
//!
//! Deliberately absent: handling of keys that are evicted one by one. The server must run with
//! `noeviction`.

use std::{collections::BTreeSet, fmt::Display, sync::LazyLock};

use async_trait::async_trait;
use redis::Cmd;

use super::{Redis, script::Script};
use crate::{
    domain::{
        AddressPrefix, AdmissionDecision, AdmissionState, AdmittedOrder, Availability, EndedOrder,
        OrderId, Reservation, ReservationPage, ReserveRequest, SaleId, SaleTerms, TicketClaims,
        Timestamp, UserId,
    },
    ports::{Admission, StoreError, Stored},
};

/// Orders per script: a script blocks every other client, and Lua's `unpack` is limited.
const BATCH_MAX: usize = 500;
/// How long the ended orders of a sale that is not loaded are remembered, in milliseconds: eight
/// days.
const UNLOADED_LIFE_MS: u64 = 8 * 86_400_000;

macro_rules! script {
    ($constant:ident, $name:literal, $($file:literal),+) => {
        static $constant: LazyLock<Script> = LazyLock::new(|| Script::new($name, concat!($(include_str!($file)),+)));
    };
}

script!(RESERVE, "admission_reserve", "lua/admission_reserve.lua");
script!(LOOK, "admission_look", "lua/admission_look.lua");
script!(STATE, "admission_state", "lua/admission_state.lua");
script!(SETTLE, "admission_settle", "lua/admission_settle.lua");
script!(RELEASE, "admission_release", "lua/admission_release.lua");
script!(CLAIM_OVERDUE, "admission_claim_overdue", "lua/admission_claim_overdue.lua");
script!(
    BEGIN_REBUILD,
    "admission_begin_rebuild",
    "lua/admission_terms.lua",
    "lua/admission_begin_rebuild.lua"
);
script!(FINISH_REBUILD, "admission_finish_rebuild", "lua/admission_finish_rebuild.lua");
script!(SET_TERMS, "admission_set_terms", "lua/admission_terms.lua", "lua/admission_set_terms.lua");

pub(super) fn corrupt(cause: impl Display) -> StoreError {
    StoreError::Corrupt { store: "Redis", cause: cause.to_string() }
}

fn argument(value: impl Display) -> Vec<u8> {
    value.to_string().into_bytes()
}

/// The stored form of a reservation: `r` or, once settled, `s`; user, time of admission in ms,
/// price, currency and, where there is one, `@` with the network, and the trace context, separated
/// by spaces. The scripts rely on the first character and on the positions of user and network.
fn encoded(request: &AdmittedOrder, settled: bool) -> String {
    let AdmittedOrder {
        order_id: _,
        sale_id: _,
        user_id,
        price,
        currency,
        admitted_at,
        traceparent,
        address_prefix,
    } = request;
    let mut text = format!(
        "{} {user_id} {} {price} {currency}",
        if settled { 's' } else { 'r' },
        admitted_at.epoch_ms()
    );
    if let Some(prefix) = address_prefix {
        text.push_str(&format!(" @{prefix}"));
    }
    if let Some(trace) = traceparent {
        text.push(' ');
        text.push_str(trace);
    }
    text
}

/// Parses what [`encoded`] or the reserve script wrote.
fn decoded(sale_id: SaleId, order_id: OrderId, text: &str) -> Stored<Reservation> {
    let read = || {
        let mut parts = text.splitn(6, ' ');
        let settled = match parts.next()? {
            "s" => true,
            "r" => false,
            _ => return None,
        };
        let mut request = AdmittedOrder {
            order_id,
            sale_id,
            user_id: parts.next()?.parse().ok()?,
            admitted_at: Timestamp::from_epoch_ms(parts.next()?.parse().ok()?),
            price: parts.next()?.parse().ok()?,
            currency: parts.next()?.parse().ok()?,
            traceparent: None,
            address_prefix: None,
        };
        let mut rest = parts.next();
        // Reservations of earlier releases have no network.
        if let Some(from) = rest.and_then(|rest| rest.strip_prefix('@')) {
            let (prefix, trace) =
                from.split_once(' ').map_or((from, None), |(prefix, trace)| (prefix, Some(trace)));
            request.address_prefix = Some(prefix.parse().ok()?);
            rest = trace;
        }
        request.traceparent = rest.map(str::to_owned);
        Some(Reservation { order: request, settled })
    };
    read().ok_or_else(|| corrupt(format_args!("reservation of order {order_id} of sale {sale_id}")))
}

fn decoded_pairs(sale_id: SaleId, pairs: &[(String, String)]) -> Stored<Vec<Reservation>> {
    pairs
        .iter()
        .map(|(order_id, text)| decoded(sale_id, order_id.parse().map_err(corrupt)?, text))
        .collect()
}

/// The arguments of the reserve script.
pub(super) fn reserve_arguments(request: &ReserveRequest, now: Timestamp) -> [Vec<u8>; 6] {
    let ReserveRequest { ticket, address_prefix, attempts_max } = request;
    [
        argument(ticket.order_id),
        argument(ticket.user_id),
        argument(u8::from(ticket.expired(now))),
        argument(now.epoch_ms()),
        argument(address_prefix),
        argument(attempts_max),
    ]
}

/// Reads the reserve script's answer.
pub(super) fn decision(ticket: &TicketClaims, reply: &[String]) -> Stored<AdmissionDecision> {
    let carried =
        || reply.get(1).ok_or_else(|| corrupt("the answer to a reservation is too short"));
    let reservation = || decoded(ticket.sale_id, ticket.order_id, carried()?);
    Ok(match reply.first().map(String::as_str) {
        Some("again") => AdmissionDecision::Again(reservation()?),
        Some("ended") => AdmissionDecision::Ended,
        Some("closed") => AdmissionDecision::Closed,
        Some("ticket-expired") => AdmissionDecision::TicketExpired,
        Some("not-open") => AdmissionDecision::NotOpen {
            starts_at: Timestamp::from_epoch_ms(carried()?.parse().map_err(corrupt)?),
        },
        Some("sale-ended") => AdmissionDecision::SaleEnded,
        Some("already-bought") => {
            AdmissionDecision::AlreadyBought { order_id: carried()?.parse().map_err(corrupt)? }
        }
        Some("too-many-attempts") => AdmissionDecision::TooManyAttempts,
        Some("not-invited") => AdmissionDecision::NotInvited,
        Some("sold-out") => AdmissionDecision::SoldOut,
        Some("network-sold-out") => AdmissionDecision::NetworkSoldOut,
        Some("reserved") => AdmissionDecision::Reserved(reservation()?.order),
        _ => return Err(corrupt("the answer to a reservation is none that is known")),
    })
}

fn terms_arguments(terms: &SaleTerms) -> impl Iterator<Item = Vec<u8>> {
    let SaleTerms {
        sale_id: _,
        stock,
        per_user_limit,
        price,
        currency,
        starts_at,
        ends_at,
        version,
        draw,
        units_per_prefix,
    } = terms;
    [
        argument(version),
        argument(stock),
        argument(per_user_limit),
        argument(price),
        argument(currency),
        argument(starts_at.epoch_ms()),
        argument(ends_at.epoch_ms()),
        argument(u8::from(*draw)),
        units_per_prefix.map_or_else(Vec::new, argument),
    ]
    .into_iter()
}

impl Redis {
    /// The keys of a sale: sale, held, overdue, invited, line.
    pub(super) fn admission_keys(&self, sale_id: SaleId) -> [String; 5] {
        // The hash tag in braces maps all of them to one slot.
        ["", ":held", ":overdue", ":invited", ":line"]
            .map(|part| self.key(&format!("admission:{{{sale_id}}}{part}")))
    }

    /// The keys of the reserve script: sale, held, overdue, invited.
    pub(super) fn reservation_keys(&self, sale_id: SaleId) -> [String; 4] {
        let [sale, held, overdue, invited, _] = self.admission_keys(sale_id);
        [sale, held, overdue, invited]
    }

    /// Runs one batch of `settle` (epoch `None`) or `restore`. Returns whether the state allowed
    /// it.
    async fn settle_batch(
        &self,
        sale_id: SaleId,
        epoch: Option<u64>,
        active: &[AdmittedOrder],
    ) -> Stored<bool> {
        let mut arguments = vec![epoch.map_or_else(Vec::new, argument)];
        for request in active {
            arguments.extend([
                argument(request.order_id),
                argument(request.user_id),
                encoded(request, true).into_bytes(),
            ]);
        }
        self.run(&SETTLE, &self.admission_keys(sale_id)[..3], &arguments).await
    }
}

#[async_trait]
impl Admission for Redis {
    async fn reserve(&self, request: &ReserveRequest, now: Timestamp) -> Stored<AdmissionDecision> {
        let keys = self.reservation_keys(request.ticket.sale_id);
        let reply: Vec<String> =
            self.run(&RESERVE, &keys, &reserve_arguments(request, now)).await?;
        decision(&request.ticket, &reply)
    }

    async fn look(
        &self,
        sale_id: SaleId,
        user_id: UserId,
        from: Option<AddressPrefix>,
    ) -> Stored<Option<Availability>> {
        type Row = (u32, String, u64, u64, String, u32, bool);
        let [sale, held, _, invited, _] = self.admission_keys(sale_id);
        let arguments = [argument(user_id), from.map_or_else(Vec::new, argument)];
        let seen: Option<Row> = self.run(&LOOK, &[sale, held, invited], &arguments).await?;
        let Some((available, bought, admissions, epoch, ends, given_up, network_sold_out)) = seen
        else {
            return Ok(None);
        };
        let already_bought =
            if bought.is_empty() { None } else { Some(bought.parse().map_err(corrupt)?) };
        let invited_until = match ends.as_str() {
            "" => None,
            ends => Some(Timestamp::from_epoch_ms(ends.parse().map_err(corrupt)?)),
        };
        Ok(Some(Availability {
            available,
            already_bought,
            given_up,
            network_sold_out,
            admissions,
            epoch,
            invited_until,
        }))
    }

    async fn find(&self, sale_id: SaleId, order_id: OrderId) -> Stored<Option<Reservation>> {
        let [_, held, ..] = self.admission_keys(sale_id);
        let mut get = Cmd::new();
        get.arg("HGET").arg(held).arg(order_id.to_string());
        let text: Option<String> = self.command(&get).await?;
        text.map(|text| decoded(sale_id, order_id, &text)).transpose()
    }

    async fn find_many(&self, sale_id: SaleId, order_ids: &[OrderId]) -> Stored<Vec<Reservation>> {
        let [_, held, ..] = self.admission_keys(sale_id);
        let asked: Vec<OrderId> =
            order_ids.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
        let mut found = Vec::with_capacity(asked.len());
        for batch in asked.chunks(BATCH_MAX) {
            let mut get = Cmd::new();
            get.arg("HMGET").arg(&held);
            for order_id in batch {
                get.arg(order_id.to_string());
            }
            let texts: Vec<Option<String>> = self.command(&get).await?;
            for (order_id, text) in batch.iter().zip(texts) {
                if let Some(text) = text {
                    found.push(decoded(sale_id, *order_id, &text)?);
                }
            }
        }
        Ok(found)
    }

    async fn settle(&self, sale_id: SaleId, active: &[AdmittedOrder]) -> Stored<()> {
        for batch in active.chunks(BATCH_MAX) {
            if !self.settle_batch(sale_id, None, batch).await? {
                break;
            }
        }
        Ok(())
    }

    async fn release(&self, sale_id: SaleId, ended: &[EndedOrder]) -> Stored<()> {
        let keys = self.admission_keys(sale_id);
        for batch in ended.chunks(BATCH_MAX) {
            let mut arguments = vec![argument(UNLOADED_LIFE_MS)];
            for EndedOrder { order_id, given_up_by } in batch {
                let user = given_up_by.map_or_else(Vec::new, argument);
                arguments.extend([argument(order_id), user]);
            }
            let _: u8 = self.run(&RELEASE, &keys[..3], &arguments).await?;
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
        let [_, held, overdue, ..] = self.admission_keys(sale_id);
        let keys = [held, overdue];
        let mut claimed = Vec::new();
        let mut left = limit as usize;
        while left > 0 {
            let batch = left.min(BATCH_MAX);
            let arguments =
                [argument(before.epoch_ms()), argument(now.epoch_ms()), argument(batch)];
            let pairs: Vec<(String, String)> = self.run(&CLAIM_OVERDUE, &keys, &arguments).await?;
            claimed.extend(decoded_pairs(sale_id, &pairs)?);
            // If `now` itself counted as overdue, the next batch would claim the same orders again.
            if pairs.len() < batch || now <= before {
                break;
            }
            left -= batch;
        }
        Ok(claimed)
    }

    /// A page may hold a few more than `limit`, or be empty before the last page, as HSCAN chooses.
    async fn reservations(
        &self,
        sale_id: SaleId,
        cursor: u64,
        limit: u32,
    ) -> Stored<ReservationPage> {
        let [_, held, ..] = self.admission_keys(sale_id);
        let mut scan = Cmd::new();
        scan.arg("HSCAN")
            .arg(held)
            .arg(cursor)
            .arg("COUNT")
            .arg((limit as usize).clamp(1, BATCH_MAX));
        let (next, pairs): (u64, Vec<(String, String)>) = self.command(&scan).await?;
        Ok(ReservationPage {
            reservations: decoded_pairs(sale_id, &pairs)?,
            next: Some(next).filter(|cursor| *cursor != 0),
        })
    }

    async fn state(&self, sale_id: SaleId) -> Stored<AdmissionState> {
        type Row = (String, u64, i64, u64, u32, u32, u32);
        let row: Option<Row> = self.run(&STATE, &self.admission_keys(sale_id)[..3], &[]).await?;
        let Some((state, epoch, since, version, stock, held, reserved)) = row else {
            return Ok(AdmissionState::Missing);
        };
        match state.as_str() {
            "rebuilding" => {
                Ok(AdmissionState::Rebuilding { epoch, since: Timestamp::from_epoch_ms(since) })
            }
            "open" => {
                let settled = held
                    .checked_sub(reserved)
                    .ok_or_else(|| corrupt("more reservations are overdue than there are"))?;
                Ok(AdmissionState::Open { epoch, version, stock, reserved, settled })
            }
            _ => Err(corrupt(format_args!("state of sale {sale_id}"))),
        }
    }

    async fn begin_rebuild(&self, terms: &SaleTerms, epoch: u64, now: Timestamp) -> Stored<bool> {
        let arguments: Vec<_> = [argument(epoch), argument(now.epoch_ms())]
            .into_iter()
            .chain(terms_arguments(terms))
            .collect();
        self.run(&BEGIN_REBUILD, &self.admission_keys(terms.sale_id), &arguments).await
    }

    async fn restore(&self, sale_id: SaleId, epoch: u64, active: &[AdmittedOrder]) -> Stored<bool> {
        // Even without orders the answer says whether the epoch is current.
        let empty = active.is_empty().then_some(active);
        for batch in active.chunks(BATCH_MAX).chain(empty) {
            if !self.settle_batch(sale_id, Some(epoch), batch).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn finish_rebuild(&self, sale_id: SaleId, epoch: u64) -> Stored<bool> {
        let [sale, ..] = self.admission_keys(sale_id);
        self.run(&FINISH_REBUILD, &[sale], &[argument(epoch)]).await
    }

    async fn set_terms(&self, terms: &SaleTerms) -> Stored<bool> {
        let arguments: Vec<_> = terms_arguments(terms).collect();
        self.run(&SET_TERMS, &self.admission_keys(terms.sale_id), &arguments).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Currency;

    #[test]
    fn reservations_are_read_back() {
        let (sale_id, order_id) = (
            SaleId::new(Timestamp::from_epoch_ms(1), &[1; 10]),
            OrderId::new(Timestamp::from_epoch_ms(2), &[2; 10]),
        );
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01 x".to_owned();
        let prefix = AddressPrefix::of([192, 0, 2, 7].into());
        for (settled, traceparent, address_prefix) in [
            (false, None, None),
            (true, Some(trace.clone()), None),
            (true, None, Some(prefix)),
            (false, Some(trace), Some(prefix)),
        ] {
            let request = AdmittedOrder {
                order_id,
                sale_id,
                user_id: UserId::new(Timestamp::from_epoch_ms(3), &[3; 10]),
                price: 1_000_000_000_000,
                currency: Currency::CNY,
                admitted_at: Timestamp::from_epoch_ms(1_794_427_200_123),
                traceparent,
                address_prefix,
            };
            let text = encoded(&request, settled);
            // The scripts read the user at this position.
            assert_eq!(&text[2..38], request.user_id.to_string());
            assert_eq!(
                decoded(sale_id, order_id, &text).unwrap(),
                Reservation { order: request, settled }
            );
        }
        assert!(matches!(decoded(sale_id, order_id, "x"), Err(StoreError::Corrupt { .. })));
    }
}
