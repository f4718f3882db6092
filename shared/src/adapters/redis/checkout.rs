//! Gate and reservation in one round trip, on a single server.

use std::sync::LazyLock;

use async_trait::async_trait;

use super::{
    Redis,
    admission::{decision, reserve_arguments},
    gate::{Mode, whole},
    script::Script,
};
use crate::{
    domain::{AdmissionDecision, GateDecision, GateRequest, ReserveRequest},
    ports::{Checkout, Stored},
};

/// The two scripts as functions, and what calls them, so that neither rule is written twice.
static SCRIPT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "checkout",
        concat!(
            "local function gate(KEYS, ARGV)\n",
            include_str!("lua/gate.lua"),
            "end\nlocal function reserve(KEYS, ARGV)\n",
            include_str!("lua/admission_reserve.lua"),
            "end\n",
            include_str!("lua/checkout.lua"),
        ),
    )
});

/// A server that holds the keys of users, addresses and sales alike. A cluster has them in
/// different slots, and a script can't use them together.
pub struct SingleRedis(Redis);

impl Redis {
    /// The server, unless it is a cluster.
    #[must_use]
    pub fn single(&self) -> Option<SingleRedis> {
        (!self.is_cluster()).then(|| SingleRedis(self.clone()))
    }
}

#[async_trait]
impl Checkout for SingleRedis {
    async fn enter_and_reserve(
        &self,
        request: &GateRequest,
        order: &ReserveRequest,
    ) -> Stored<Result<AdmissionDecision, GateDecision>> {
        let (redis, part) = (&self.0, whole(request));
        let (mut keys, mut arguments) = redis.call(request, &part, Mode::Enter);
        keys.extend(redis.reservation_keys(order.ticket.sale_id));
        arguments.extend(reserve_arguments(order, request.now));
        let (entered, reserved): (Vec<i64>, Vec<String>) =
            redis.run(&SCRIPT, &keys, &arguments).await?;
        match redis.decided(request, part.read(&entered)?).await? {
            GateDecision::Entered => Ok(Ok(decision(&order.ticket, &reserved)?)),
            refusal => Ok(Err(refusal)),
        }
    }
}
