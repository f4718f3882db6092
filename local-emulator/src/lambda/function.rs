//! One function: its invocations, and the task that adjusts the number of its instances.

use std::{sync::Arc, time::Duration};

use flashsale::ports::{Clock, Random};
use tokio::{sync::oneshot, time::Instant};

use super::{
    ids::{new_id, new_trace_id},
    instance::{self, Definition},
    invocation::{Invocation, Refusal, Reply},
    logs,
    pool::{Finished, Pool, Submitted, Work},
};

/// How often idle instances are ended and postponed starts made.
const TICK_PERIOD: Duration = Duration::from_millis(250);
/// How long queued work waits for a running instance before a new one is started.
const SCALE_WAIT: Duration = Duration::from_millis(20);
/// How long to wait for the log's last lines: those written just before an answer may arrive after
/// it.
const LOG_WAIT: Duration = Duration::from_millis(20);

/// One function.
pub struct Function {
    definition: Arc<Definition>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    pool: Arc<Pool>,
}

/// Takes the request out of the queue when its caller goes away.
struct Caller<'a> {
    pool: &'a Pool,
    id: &'a str,
}

impl Drop for Caller<'_> {
    fn drop(&mut self) {
        self.pool.withdraw(self.id);
    }
}

impl Function {
    pub fn new(
        definition: Definition,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Arc<Self> {
        let definition = Arc::new(definition);
        let instances = Arc::clone(&definition);
        let pool = Pool::new(
            &definition.name,
            &definition.settings,
            Arc::clone(&clock),
            Box::new(move |pool, launching| {
                tokio::spawn(instance::run(Arc::clone(&instances), Arc::clone(pool), launching));
            }),
        );
        Arc::new(Self { definition, clock, random, pool })
    }

    pub fn name(&self) -> &str {
        &self.definition.name
    }

    /// Its routes on the gateway from the configuration, in addition to the product's.
    pub fn routes(&self) -> &[String] {
        &self.definition.settings.routes
    }

    /// Adjusts the number of instances until the function is stopped.
    pub async fn maintain(self: Arc<Self>) {
        while self.pool.tick() {
            tokio::time::sleep(TICK_PERIOD).await;
        }
    }

    /// Calls the function. If the caller goes away, a queued request is dropped; a running one
    /// still runs to its answer or deadline.
    pub async fn invoke(self: &Arc<Self>, invocation: Invocation) -> Result<Reply, Refusal> {
        let id = new_id(self.random.as_ref());
        let _caller = Caller { pool: &self.pool, id: &id };
        let (function, request) = (Arc::clone(self), id.clone());
        let outcome =
            tokio::spawn(async move { function.carry_out(request, invocation).await }).await;
        outcome.unwrap_or_else(|error| {
            tracing::error!(%error, "an invocation");
            Err(Refusal::Stopping)
        })
    }

    async fn carry_out(
        self: Arc<Self>,
        id: String,
        invocation: Invocation,
    ) -> Result<Reply, Refusal> {
        let log_tail = invocation.log_tail;
        let trace_id = invocation
            .trace_id
            .unwrap_or_else(|| new_trace_id(self.random.as_ref(), self.clock.now()));
        let work = Work {
            id: id.clone(),
            payload: invocation.payload,
            deadline_ms: 0,
            trace_id,
            client_context: invocation.client_context,
        };
        let started = Instant::now();
        let Submitted { begun, mut answer } = self.pool.submit(work)?;
        let mut check_at = self.wait(&id, begun).await?;
        let Finished { result, log } = loop {
            match tokio::time::timeout_at(check_at, &mut answer).await {
                Ok(Ok(outcome)) => break outcome?,
                Ok(Err(_)) => return Err(Refusal::Stopping),
                Err(_) => check_at = self.pool.check_deadline(&id),
            }
        };
        if !log_tail {
            return Ok(Reply { request_id: id, result, log: None });
        }
        let took = started.elapsed();
        tokio::time::sleep(LOG_WAIT).await;
        let lines = log.map_or_else(Vec::new, |(logs, mark)| logs.since(mark));
        let log = logs::framed(&id, &lines, took, self.definition.settings.memory_mb);
        Ok(Reply { request_id: id, result, log: Some(log) })
    }

    /// Waits until an instance works on the request, and returns its deadline.
    async fn wait(
        &self,
        id: &str,
        mut begun: oneshot::Receiver<Instant>,
    ) -> Result<Instant, Refusal> {
        let settings = &self.definition.settings;
        let wait_max = Duration::from_millis(settings.queue_wait_ms);
        let outcome = match tokio::time::timeout(SCALE_WAIT.min(wait_max), &mut begun).await {
            Ok(outcome) => outcome,
            Err(_) => {
                self.pool.scale();
                match tokio::time::timeout(wait_max.saturating_sub(SCALE_WAIT), &mut begun).await {
                    Ok(outcome) => outcome,
                    Err(_) => match self.pool.throttle(id) {
                        Some(refusal) => return Err(refusal),
                        // An instance has just received it.
                        None => begun.await,
                    },
                }
            }
        };
        // The sender is gone: the answer was already sent, or the function is stopping.
        Ok(outcome.unwrap_or_else(|_| Instant::now() + Duration::from_millis(settings.timeout_ms)))
    }

    /// Whether instances can start, as far as is known.
    pub fn is_healthy(&self) -> bool {
        self.pool.is_healthy()
    }

    /// Refuses new and waiting requests and ends all processes; returns whether any still runs.
    pub fn stop(&self) -> bool {
        self.pool.stop()
    }
}
