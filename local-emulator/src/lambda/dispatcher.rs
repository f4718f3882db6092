//! Decides which requests wait, which instance works on which request, and when instances are
//! started and ended.
//!
//! A state machine without I/O, clock or channels: each method takes an event with its time and
//! returns the [`Action`]s that the pool carries out.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::Duration,
};

use flashsale::config::FunctionSettings;
use tokio::time::Instant;

use super::invocation::{FunctionError, Refusal};

/// Pauses between starts while instances keep ending unexpectedly: doubled from the first to the
/// last.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_LAST: Duration = Duration::from_secs(5);
/// After this many consecutive unexpected exits, waiting callers receive the error.
const FAILURES_MAX: u32 = 3;

/// The number of an instance, counted from 1 and never used again.
pub type InstanceId = u64;
/// The number of one call of `next`.
pub type CallId = u64;

/// How an instance's process is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// With SIGTERM, and with SIGKILL when it does not end.
    Graceful,
    /// With SIGKILL.
    Forced,
}

/// What the pool has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Start the process of a new instance.
    Start(InstanceId),
    /// End the instance's process: it has no work left, or must not continue.
    End(InstanceId, Shutdown),
    /// Send the request as the answer to a call of `next`.
    Send { request: String, instance: InstanceId, call: CallId, deadline: Instant },
    /// Answer the request's caller with an error.
    Fail(String, FunctionError),
    /// Answer the request's caller that the emulator is stopping.
    Refuse(String),
    /// Count and log.
    Report(Notice),
}

/// An event for metrics and logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// An instance asked for work for the first time, this long after its start.
    Ready(Duration),
    /// A process reported that it can't initialize.
    InitFailed(FunctionError),
    /// A process ended unexpectedly; the text says how.
    Crashed(String),
    /// This request exceeded its time.
    TimedOut(String),
    /// An instance has answered and does not ask for more work.
    Silent,
}

/// Whether a request has exceeded its time.
#[derive(Debug, PartialEq, Eq)]
pub enum Overdue {
    /// No: it may run until this deadline.
    Until(Instant),
    /// Yes: the actions end it.
    TimedOut(Vec<Action>),
    /// It has been answered, or is still queued.
    NotRunning,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The process has not asked for work yet.
    Starting,
    Ready,
    /// Gets no more work and is ended when it has none.
    Retiring,
}

#[derive(Debug)]
struct Instance {
    phase: Phase,
    /// Calls of `next` that wait for a request.
    idle_calls: Vec<CallId>,
    /// The requests it works on, with their deadlines.
    running: HashMap<String, Instant>,
    idle_since: Instant,
    started: Instant,
}

impl Instance {
    /// Gives the instance no more work, and ends it as soon as it has none.
    fn retire(&mut self, id: InstanceId, how: Shutdown, actions: &mut Vec<Action>) {
        self.phase = Phase::Retiring;
        self.idle_calls.clear();
        if self.running.is_empty() {
            actions.push(Action::End(id, how));
        }
    }

    fn send(&mut self, id: InstanceId, call: CallId, request: String, deadline: Instant) -> Action {
        self.running.insert(request.clone(), deadline);
        Action::Send { request, instance: id, call, deadline }
    }
}

/// The limits of one function.
#[derive(Debug, Clone, Copy)]
struct Limits {
    instances_min: usize,
    instances_max: usize,
    concurrency: usize,
    queue_max: usize,
    timeout: Duration,
    idle: Duration,
}

/// The state of one function.
#[derive(Debug)]
pub struct Dispatcher {
    limits: Limits,
    waiting: VecDeque<String>,
    instances: BTreeMap<InstanceId, Instance>,
    instances_ever: u64,
    /// Consecutive unexpected exits.
    failures: u32,
    /// Consecutive starts after which the instance never asked for work.
    start_failures: u32,
    start_not_before: Option<Instant>,
    stopping: bool,
}

impl Dispatcher {
    pub fn new(settings: &FunctionSettings) -> Self {
        let limits = Limits {
            instances_min: settings.instances_min as usize,
            instances_max: settings.instances_max as usize,
            concurrency: settings.concurrency as usize,
            queue_max: settings.queue_max,
            timeout: Duration::from_millis(settings.timeout_ms),
            idle: Duration::from_millis(settings.idle_ms),
        };
        Self {
            limits,
            waiting: VecDeque::new(),
            instances: BTreeMap::new(),
            instances_ever: 0,
            failures: 0,
            start_failures: 0,
            start_not_before: None,
            stopping: false,
        }
    }

    /// A request arrived: sends it to an idle instance, or queues it.
    pub fn submit(&mut self, request: String, now: Instant) -> Result<Vec<Action>, Refusal> {
        if self.stopping {
            return Err(Refusal::Stopping);
        }
        let deadline = now + self.limits.timeout;
        // The oldest instance first, so that the others become idle and can be ended.
        for (id, instance) in self.instances.iter_mut() {
            if let Some(call) = instance.idle_calls.pop() {
                return Ok(vec![instance.send(*id, call, request, deadline)]);
            }
        }
        let running: usize = self.instances.values().map(|instance| instance.running.len()).sum();
        let capacity = self.limits.instances_max * self.limits.concurrency;
        if running + self.waiting.len() >= capacity + self.limits.queue_max {
            return Err(Refusal::Throttled);
        }
        self.waiting.push_back(request);
        let mut actions = Vec::new();
        // A busy instance asks for more work as soon as it has answered, so an instance is started
        // at once only if the function has none.
        let unserved = if self.active() == 0 { self.waiting.len() } else { 0 };
        self.start_missing(unserved, now, &mut actions);
        Ok(actions)
    }

    /// A request has waited long enough for the running instances: starts more, up to the limit.
    pub fn scale(&mut self, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        self.start_missing(self.waiting.len(), now, &mut actions);
        actions
    }

    /// Takes a request out of the queue; false when it is not there any more.
    pub fn withdraw(&mut self, request: &str) -> bool {
        let position = self.waiting.iter().position(|waiting| waiting == request);
        position.is_some_and(|position| self.waiting.remove(position).is_some())
    }

    /// An instance asks for work. Its first call means that it is ready.
    pub fn next(&mut self, id: InstanceId, call: CallId, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        let Some(instance) =
            self.instances.get_mut(&id).filter(|instance| instance.phase != Phase::Retiring)
        else {
            return actions;
        };
        if instance.phase == Phase::Starting {
            instance.phase = Phase::Ready;
            instance.idle_since = now;
            self.start_failures = 0;
            actions.push(Action::Report(Notice::Ready(now.duration_since(instance.started))));
        }
        match self.waiting.pop_front() {
            Some(request) => {
                actions.push(instance.send(id, call, request, now + self.limits.timeout));
            }
            None => instance.idle_calls.push(call),
        }
        actions
    }

    /// A call of `next` has lost its connection.
    pub fn next_dropped(&mut self, id: InstanceId, call: CallId) {
        if let Some(instance) = self.instances.get_mut(&id) {
            instance.idle_calls.retain(|idle| *idle != call);
        }
    }

    /// An instance has answered a request; `None` when it does not work on this one.
    pub fn answered(&mut self, id: InstanceId, request: &str, now: Instant) -> Option<Vec<Action>> {
        let instance = self.instances.get_mut(&id)?;
        instance.running.remove(request)?;
        self.failures = 0;
        let mut actions = Vec::new();
        if instance.running.is_empty() {
            instance.idle_since = now;
            if instance.phase == Phase::Retiring {
                actions.push(Action::End(id, Shutdown::Forced));
            }
        }
        Some(actions)
    }

    /// An instance can't initialize; as the next one probably can't either, waiting callers receive
    /// the error at once. `None` if it was ready or has reported this before.
    pub fn init_failed(
        &mut self,
        id: InstanceId,
        error: &FunctionError,
        now: Instant,
    ) -> Option<Vec<Action>> {
        let instance = self.instances.get_mut(&id)?;
        if instance.phase != Phase::Starting {
            return None;
        }
        let mut actions = vec![Action::Report(Notice::InitFailed(error.clone()))];
        instance.retire(id, Shutdown::Graceful, &mut actions);
        self.start_failures += 1;
        self.delay_start(now);
        if !self.instances.values().any(|instance| instance.phase == Phase::Ready) {
            let waiting = self.waiting.drain(..);
            actions.extend(waiting.map(|request| Action::Fail(request, error.clone())));
        }
        Some(actions)
    }

    /// An instance's process has ended or could not be started, as `how` describes.
    pub fn ended(&mut self, id: InstanceId, how: &str, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        let Some(instance) = self.instances.remove(&id) else {
            return actions;
        };
        for (request, _) in instance.running {
            let error = FunctionError::crashed(&request, how);
            actions.push(Action::Fail(request, error));
        }
        if instance.phase != Phase::Retiring && !self.stopping {
            actions.push(Action::Report(Notice::Crashed(how.to_owned())));
            self.start_failures += u32::from(instance.phase == Phase::Starting);
            self.delay_start(now);
        }
        if self.failures >= FAILURES_MAX && self.active() == 0 {
            actions.extend(self.waiting.drain(..).map(|request| {
                let error = match instance.phase {
                    Phase::Starting => FunctionError::init(
                        &request,
                        &format!("the process ended before it was ready: {how}"),
                    ),
                    _ => FunctionError::crashed(&request, how),
                };
                Action::Fail(request, error)
            }));
        }
        self.start_missing(self.waiting.len(), now, &mut actions);
        actions
    }

    /// Ends a request that has exceeded its time, and the instance that works on it.
    pub fn check_deadline(&mut self, request: &str, now: Instant) -> Overdue {
        let Some((id, instance)) =
            self.instances.iter_mut().find(|(_, instance)| instance.running.contains_key(request))
        else {
            return Overdue::NotRunning;
        };
        let deadline = instance.running[request];
        if now < deadline {
            return Overdue::Until(deadline);
        }
        instance.running.remove(request);
        let error = FunctionError::timed_out(request, self.limits.timeout);
        let mut actions = vec![
            Action::Report(Notice::TimedOut(request.to_owned())),
            Action::Fail(request.to_owned(), error),
        ];
        // Its other requests keep running until their own deadlines.
        instance.retire(*id, Shutdown::Forced, &mut actions);
        self.start_missing(self.waiting.len(), now, &mut actions);
        Overdue::TimedOut(actions)
    }

    /// Called periodically: ends idle and silent instances and starts missing ones. `None` when the
    /// function is stopping.
    pub fn tick(&mut self, now: Instant) -> Option<Vec<Action>> {
        if self.stopping {
            return None;
        }
        let mut actions = Vec::new();
        self.end_idle(now, &mut actions);
        self.end_silent(now, &mut actions);
        self.start_missing(self.waiting.len(), now, &mut actions);
        Some(actions)
    }

    /// Refuses new and waiting requests and ends all instances.
    pub fn stop(&mut self) -> Vec<Action> {
        if self.stopping {
            return Vec::new();
        }
        self.stopping = true;
        let mut actions: Vec<Action> = self.waiting.drain(..).map(Action::Refuse).collect();
        for (id, instance) in &mut self.instances {
            instance.phase = Phase::Retiring;
            instance.idle_calls.clear();
            actions.push(Action::End(*id, Shutdown::Graceful));
        }
        actions
    }

    /// Whether the instance has not asked for work yet.
    pub fn is_starting(&self, id: InstanceId) -> bool {
        self.instances.get(&id).is_some_and(|instance| instance.phase == Phase::Starting)
    }

    /// Whether instances can start, as far as is known.
    pub const fn is_healthy(&self) -> bool {
        self.start_failures < FAILURES_MAX
    }

    /// Whether no process is left.
    pub fn is_empty(&self) -> bool {
        self.instances.is_empty()
    }

    /// Instances that take work or are starting.
    fn active(&self) -> usize {
        self.instances.values().filter(|instance| instance.phase != Phase::Retiring).count()
    }

    /// Lets the first replacement start at once, and each further one later than the one before.
    fn delay_start(&mut self, now: Instant) {
        let pause = match self.failures {
            0 => Duration::ZERO,
            failures => PAUSE_FIRST.saturating_mul(1 << (failures - 1).min(10)).min(PAUSE_LAST),
        };
        self.failures = self.failures.saturating_add(1);
        self.start_not_before = Some(now + pause);
    }

    /// Starts the instances missing for the lower bound and for this number of unserved requests.
    fn start_missing(&mut self, unserved: usize, now: Instant, actions: &mut Vec<Action>) {
        if self.stopping || self.start_not_before.is_some_and(|at| now < at) {
            return;
        }
        let Limits { instances_min, instances_max, concurrency, .. } = self.limits;
        let active = self.active();
        let starting =
            self.instances.values().filter(|instance| instance.phase == Phase::Starting).count();
        let for_requests = unserved.div_ceil(concurrency).saturating_sub(starting);
        // After a failed start another is tried even if no request waits: once it succeeds, health
        // checks report the function as healthy again.
        let for_health = usize::from(self.start_failures > 0 && active == 0);
        let wanted = for_requests.max(instances_min.saturating_sub(active)).max(for_health);
        for _ in 0..wanted.min(instances_max.saturating_sub(active)) {
            self.instances_ever += 1;
            let instance = Instance {
                phase: Phase::Starting,
                idle_calls: Vec::new(),
                running: HashMap::new(),
                idle_since: now,
                started: now,
            };
            self.instances.insert(self.instances_ever, instance);
            actions.push(Action::Start(self.instances_ever));
        }
    }

    fn end_idle(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let mut surplus = self.active().saturating_sub(self.limits.instances_min);
        // The youngest first, because the oldest get the work.
        for (id, instance) in self.instances.iter_mut().rev() {
            let is_idle = instance.phase == Phase::Ready
                && instance.running.is_empty()
                && now.duration_since(instance.idle_since) >= self.limits.idle;
            if is_idle && surplus > 0 {
                instance.retire(*id, Shutdown::Graceful, actions);
                surplus -= 1;
            }
        }
    }

    /// Ends instances that have answered but do not call `next` again, which is what completes an
    /// invocation.
    fn end_silent(&mut self, now: Instant, actions: &mut Vec<Action>) {
        for (id, instance) in &mut self.instances {
            if instance.phase == Phase::Ready
                && instance.running.is_empty()
                && instance.idle_calls.is_empty()
                && now.duration_since(instance.idle_since) >= self.limits.timeout
            {
                actions.push(Action::Report(Notice::Silent));
                instance.retire(*id, Shutdown::Forced, actions);
            }
        }
    }
}

#[cfg(test)]
mod tests;
