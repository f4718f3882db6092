//! One function: who waits, which instance works on what, and when instances are started and ended. Every decision is taken
//! here, under one lock that is never held across an await; instances carry out and report.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use flashsale::{
    config::FunctionSettings,
    metrics::{
        FUNCTION_CRASHES, FUNCTION_START_SECONDS, FUNCTION_STARTS, FUNCTION_THROTTLES,
        FUNCTION_TIMEOUTS, elapsed,
    },
    ports::{Clock, Random},
};
use flashsale_servers::Watchdog;
use hyper::body::Bytes;
use metrics::{Counter, Histogram};
use tokio::{
    sync::{oneshot, watch},
    time::Instant,
};

use super::{
    instance,
    invocation::{FunctionError, Invocation, Refusal, Reply},
    logs::{Logs, TAIL_BYTES},
    process::Launch,
};

/// Pauses between starts while instances keep ending by themselves: doubled from the first to the last.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_LAST: Duration = Duration::from_secs(5);
/// After so many ends in a row that nobody asked for, those who wait are told.
const FAILURES_MAX: u32 = 3;
/// How often idle instances are looked for and planned starts carried out.
const CARE_PERIOD: Duration = Duration::from_millis(250);
/// So long work waits for an instance that runs before another is started for it.
const SCALE_WAIT: Duration = Duration::from_millis(20);
/// Lines written just before an answer may come just after it.
const LOG_WAIT: Duration = Duration::from_millis(20);

/// What all functions of one emulator share.
pub struct Common {
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    pub watchdog: Arc<Watchdog>,
    /// Whether lines of functions are passed on as they are, for machines.
    pub bare_logs: bool,
}

impl Common {
    fn new_id(&self) -> String {
        new_id(self.random.as_ref())
    }
}

/// A request id as Lambda makes them: a random UUID.
pub fn new_id(random: &dyn Random) -> String {
    let mut bytes = [0; 16];
    random.fill(&mut bytes);
    uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
}

/// One who waits for an answer. When it goes away, so does its place among those that wait.
struct Caller<'a> {
    function: &'a Function,
    id: &'a str,
}

impl Drop for Caller<'_> {
    fn drop(&mut self) {
        self.function.give_up(self.id);
    }
}

/// One function.
pub struct Function {
    pub name: String,
    pub settings: FunctionSettings,
    pub launch: Launch,
    pub common: Arc<Common>,
    state: Mutex<State>,
    measures: Measures,
}

/// The metrics of one function. The counters are there from the start, so that the first event is a rise.
struct Measures {
    starts: Counter,
    start_seconds: Histogram,
    crashes: Counter,
    timeouts: Counter,
    throttles: Counter,
}

impl Measures {
    fn new(function: &str) -> Self {
        Self {
            starts: FUNCTION_STARTS.counter(&[function]),
            start_seconds: FUNCTION_START_SECONDS.histogram(&[function]),
            crashes: FUNCTION_CRASHES.counter(&[function]),
            timeouts: FUNCTION_TIMEOUTS.counter(&[function]),
            throttles: FUNCTION_THROTTLES.counter(&[function]),
        }
    }
}

/// An invocation on its way to an instance.
#[derive(Debug)]
pub struct Work {
    pub id: String,
    pub payload: Bytes,
    /// In milliseconds since 1970.
    pub deadline_ms: u64,
    pub trace_id: String,
    pub client_context: Option<String>,
}

/// How an instance's process is asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// Not at all.
    Run,
    /// With SIGTERM, and SIGKILL if it does not.
    Terminate,
    /// With SIGKILL.
    Kill,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Waiting>,
    instances: BTreeMap<u64, Instance>,
    instances_ever: u64,
    /// Ends in a row that nobody asked for.
    failures: u32,
    /// Starts in a row that did not lead to an instance that asks for work.
    start_failures: u32,
    start_not_before: Option<Instant>,
    stopping: bool,
}

type Answer = oneshot::Sender<Result<Finished, Refusal>>;

/// What came of an invocation, and where its log begins.
struct Finished {
    result: Result<Bytes, FunctionError>,
    log: Option<(Arc<Logs>, u64)>,
}

impl Finished {
    fn failed(error: FunctionError) -> Self {
        Self { result: Err(error), log: None }
    }
}

struct Waiting {
    work: Work,
    answer: Answer,
    /// To be told the deadline when an instance begins with it.
    begun: oneshot::Sender<Instant>,
}

/// What came of giving work to a call of `next`.
enum Handed {
    /// It has until this deadline.
    Begun(Instant),
    /// The caller had gone.
    Back(Waiting),
}

/// Where an invocation has got to.
enum Placed {
    /// An instance works on it until this deadline.
    Running(Instant),
    /// It will be told.
    Waiting(oneshot::Receiver<Instant>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The process has not asked for work yet.
    Starting,
    Ready,
    /// Gets no more work and is ended when it has none.
    Retiring,
}

struct Instance {
    phase: Phase,
    /// Calls of `next` that wait.
    idle: Vec<oneshot::Sender<Work>>,
    running: HashMap<String, Running>,
    idle_since: Instant,
    started: Instant,
    ask: watch::Sender<Ask>,
    logs: Arc<Logs>,
}

struct Running {
    answer: Answer,
    deadline: Instant,
    log_mark: u64,
}

impl Instance {
    fn ask(&self, ask: Ask) {
        self.ask.send_replace(ask);
    }

    /// No more work; ends as soon as it has none.
    fn retire(&mut self, how: Ask) {
        self.phase = Phase::Retiring;
        self.idle.clear();
        if self.running.is_empty() {
            self.ask(how);
        }
    }
}

impl Function {
    pub fn new(
        name: String,
        settings: FunctionSettings,
        launch: Launch,
        common: Arc<Common>,
    ) -> Arc<Self> {
        let measures = Measures::new(&name);
        Arc::new(Self { name, settings, launch, common, state: Mutex::default(), measures })
    }

    /// `arn:aws:lambda:…` of no account.
    pub fn arn(&self) -> String {
        format!("arn:aws:lambda:us-east-1:000000000000:function:{}", self.name)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    const fn timeout(&self) -> Duration {
        Duration::from_millis(self.settings.timeout_ms)
    }

    /// Keeps the number of instances right until the function is stopped.
    pub async fn care(self: Arc<Self>) {
        loop {
            {
                let mut state = self.lock();
                if state.stopping {
                    return;
                }
                self.end_idle(&mut state);
                self.end_silent(&mut state);
                self.start_wanted(&mut state, true);
            }
            tokio::time::sleep(CARE_PERIOD).await;
        }
    }

    /// Calls the function. When the caller goes away, what has begun is still finished and timed; what only waits is not done.
    pub async fn invoke(self: &Arc<Self>, invocation: Invocation) -> Result<Reply, Refusal> {
        let id = self.common.new_id();
        let _caller = Caller { function: self, id: &id };
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
        let (answer, mut answered) = oneshot::channel();
        let log_tail = invocation.log_tail;
        let work = Work {
            id: id.clone(),
            payload: invocation.payload,
            deadline_ms: 0,
            trace_id: invocation.trace_id.unwrap_or_else(|| self.new_trace()),
            client_context: invocation.client_context,
        };
        let started = Instant::now();
        let mut check_at = match self.admit(work, answer)? {
            Placed::Running(deadline) => deadline,
            Placed::Waiting(begun) => self.wait(&id, begun).await?,
        };
        let Finished { result, log } = loop {
            match tokio::time::timeout_at(check_at, &mut answered).await {
                Ok(Ok(outcome)) => break outcome?,
                Ok(Err(_)) => return Err(Refusal::Stopping),
                Err(_) => check_at = self.overdue(&id),
            }
        };
        if !log_tail {
            return Ok(Reply { request_id: id, result, log: None });
        }
        let took = started.elapsed();
        tokio::time::sleep(LOG_WAIT).await;
        let lines = log.map_or_else(Vec::new, |(logs, mark)| logs.since(mark));
        let log = framed(&id, &lines, took, self.settings.memory_mb);
        Ok(Reply { request_id: id, result, log: Some(log) })
    }

    /// Waits until an instance begins with the work, and returns its deadline.
    async fn wait(
        self: &Arc<Self>,
        id: &str,
        mut begun: oneshot::Receiver<Instant>,
    ) -> Result<Instant, Refusal> {
        let patience = Duration::from_millis(self.settings.queue_wait_ms);
        let outcome = match tokio::time::timeout(SCALE_WAIT.min(patience), &mut begun).await {
            Ok(outcome) => outcome,
            Err(_) => {
                self.start_wanted(&mut self.lock(), true);
                match tokio::time::timeout(patience.saturating_sub(SCALE_WAIT), &mut begun).await {
                    Ok(outcome) => outcome,
                    Err(_) if self.give_up(id) => {
                        self.measures.throttles.increment(1);
                        return Err(Refusal::Throttled);
                    }
                    // It was begun with at this very moment.
                    Err(_) => begun.await,
                }
            }
        };
        // Without a beginning there is an answer already, or nobody will give one.
        Ok(outcome.unwrap_or_else(|_| Instant::now() + self.timeout()))
    }

    /// Takes the work back from those that wait; false when it waits no more.
    fn give_up(&self, id: &str) -> bool {
        let mut state = self.lock();
        let Some(at) = state.waiting.iter().position(|waiting| waiting.work.id == id) else {
            return false;
        };
        state.waiting.remove(at);
        true
    }

    /// Hands the work to an instance or lets it wait.
    fn admit(self: &Arc<Self>, work: Work, answer: Answer) -> Result<Placed, Refusal> {
        let mut state = self.lock();
        if state.stopping {
            return Err(Refusal::Stopping);
        }
        let (begun, beginning) = oneshot::channel();
        let mut waiting = Waiting { work, answer, begun };
        // The oldest first, so that the others become idle and can end. One whose caller has just gone is passed over.
        for instance in
            state.instances.values_mut().filter(|instance| instance.phase == Phase::Ready)
        {
            while let Some(idle) = instance.idle.pop() {
                match self.hand_over(instance, idle, waiting) {
                    Handed::Begun(deadline) => return Ok(Placed::Running(deadline)),
                    Handed::Back(back) => waiting = back,
                }
            }
        }
        let running: usize = state.instances.values().map(|instance| instance.running.len()).sum();
        let places = self.settings.instances_max as usize * self.settings.concurrency as usize;
        if running + state.waiting.len() >= places + self.settings.queue_max {
            self.measures.throttles.increment(1);
            return Err(Refusal::Throttled);
        }
        state.waiting.push_back(waiting);
        // An instance that has just answered asks for more work at once: only where there is none, one is started now.
        self.start_wanted(&mut state, false);
        Ok(Placed::Waiting(beginning))
    }

    /// Gives work to a call of `next`; gives it back when the caller has gone.
    fn hand_over(
        &self,
        instance: &mut Instance,
        idle: oneshot::Sender<Work>,
        waiting: Waiting,
    ) -> Handed {
        let Waiting { mut work, answer, begun } = waiting;
        work.deadline_ms = u64::try_from(self.common.clock.now().epoch_ms()).unwrap_or(0)
            + self.settings.timeout_ms;
        let id = work.id.clone();
        match idle.send(work) {
            Ok(()) => {
                let deadline = Instant::now() + self.timeout();
                instance
                    .running
                    .insert(id, Running { answer, deadline, log_mark: instance.logs.mark() });
                // Whoever did not have to wait for it does not listen.
                let _ = begun.send(deadline);
                Handed::Begun(deadline)
            }
            Err(work) => Handed::Back(Waiting { work, answer, begun }),
        }
    }

    /// Ends an invocation whose time is over; returns when to look again.
    fn overdue(self: &Arc<Self>, id: &str) -> Instant {
        let mut state = self.lock();
        let now = Instant::now();
        if let Some(instance) =
            state.instances.values_mut().find(|instance| instance.running.contains_key(id))
        {
            let deadline = instance.running[id].deadline;
            if now < deadline {
                return deadline;
            }
            let running = instance.running.remove(id);
            tracing::warn!(
                function = self.name,
                invocation = id,
                "timed out; the process is replaced"
            );
            self.measures.timeouts.increment(1);
            // Whatever else it works on is left until its own deadline.
            instance.retire(Ask::Kill);
            if let Some(running) = running {
                let log = Some((Arc::clone(&instance.logs), running.log_mark));
                let _ = running.answer.send(Ok(Finished {
                    result: Err(FunctionError::timed_out(id, self.timeout())),
                    log,
                }));
            }
            self.start_wanted(&mut state, true);
        }
        // The answer is there, or is just being given.
        now + Duration::from_secs(1)
    }

    /// The Runtime API's `next`: the first call says that the instance is ready.
    pub async fn next(self: &Arc<Self>, id: u64) -> Work {
        let (idle, work) = oneshot::channel();
        {
            let mut state = self.lock();
            let state = &mut *state;
            if let Some(instance) =
                state.instances.get_mut(&id).filter(|instance| instance.phase != Phase::Retiring)
            {
                if instance.phase == Phase::Starting {
                    instance.phase = Phase::Ready;
                    instance.idle_since = Instant::now();
                    state.start_failures = 0;
                    self.measures.start_seconds.record(elapsed(instance.started.elapsed()));
                }
                match state.waiting.pop_front() {
                    // It can't fail: the receiver is in our hands.
                    Some(waiting) => drop(self.hand_over(instance, idle, waiting)),
                    None => instance.idle.push(idle),
                }
            }
        }
        match work.await {
            Ok(work) => work,
            // Nothing will come any more: as in Lambda, the call waits until the process is ended.
            Err(_) => std::future::pending().await,
        }
    }

    /// An answer of an instance; whether it was waited for.
    pub fn finish(
        self: &Arc<Self>,
        id: u64,
        request: &str,
        result: Result<Bytes, FunctionError>,
    ) -> bool {
        let mut state = self.lock();
        let state = &mut *state;
        let Some((instance, running)) = state.instances.get_mut(&id).and_then(|instance| {
            instance.running.remove(request).map(|running| (instance, running))
        }) else {
            return false;
        };
        state.failures = 0;
        let log = Some((Arc::clone(&instance.logs), running.log_mark));
        // Who asked may have gone.
        let _ = running.answer.send(Ok(Finished { result, log }));
        if instance.running.is_empty() {
            instance.idle_since = Instant::now();
            if instance.phase == Phase::Retiring {
                instance.ask(Ask::Kill);
            }
        }
        true
    }

    /// The instance can't get ready, which the next one can't either: who waits is told at once. False when it was ready, or
    /// has said so before.
    pub fn init_failed(self: &Arc<Self>, id: u64, error: &FunctionError) -> bool {
        let mut state = self.lock();
        match state.instances.get_mut(&id) {
            Some(instance) if instance.phase == Phase::Starting => instance.retire(Ask::Terminate),
            _ => return false,
        }
        tracing::warn!(function = self.name, error = error.brief(), "can't get ready");
        state.start_failures += 1;
        Self::delay_start(&mut state);
        if !state.instances.values().any(|instance| instance.phase == Phase::Ready) {
            for waiting in state.waiting.drain(..) {
                let _ = waiting.answer.send(Ok(Finished::failed(error.clone())));
            }
        }
        true
    }

    /// The instance's process has ended, or could not be started; `how` says in which way.
    pub fn ended(self: &Arc<Self>, id: u64, how: &str) {
        let mut state = self.lock();
        let Some(instance) = state.instances.remove(&id) else {
            return;
        };
        for (request, running) in instance.running {
            let log = Some((Arc::clone(&instance.logs), running.log_mark));
            let _ = running
                .answer
                .send(Ok(Finished { result: Err(FunctionError::crashed(&request, how)), log }));
        }
        if instance.phase != Phase::Retiring && !state.stopping {
            tracing::warn!(function = self.name, how, "the process ended");
            self.measures.crashes.increment(1);
            state.start_failures += u32::from(instance.phase == Phase::Starting);
            Self::delay_start(&mut state);
        }
        let alive = state.instances.values().any(|instance| instance.phase != Phase::Retiring);
        if state.failures >= FAILURES_MAX && !alive {
            for waiting in state.waiting.drain(..) {
                let error = match instance.phase {
                    Phase::Starting => FunctionError::init(
                        &waiting.work.id,
                        &format!("the process ended before it was ready: {how}"),
                    ),
                    _ => FunctionError::crashed(&waiting.work.id, how),
                };
                let _ = waiting.answer.send(Ok(Finished::failed(error)));
            }
        }
        self.start_wanted(&mut state, true);
    }

    /// The first replacement comes at once, the next ones later and later.
    fn delay_start(state: &mut State) {
        let pause = match state.failures {
            0 => Duration::ZERO,
            failures => PAUSE_FIRST.saturating_mul(1 << (failures - 1).min(10)).min(PAUSE_LAST),
        };
        state.failures = state.failures.saturating_add(1);
        state.start_not_before = Some(Instant::now() + pause);
    }

    /// Starts what is missing: the lower bound, and room for those who wait. Unless `beyond_first`, those who wait are left to the
    /// instances that run, if there are any.
    fn start_wanted(self: &Arc<Self>, state: &mut State, beyond_first: bool) {
        let FunctionSettings { instances_min, instances_max, concurrency, .. } = self.settings;
        let active =
            state.instances.values().filter(|instance| instance.phase != Phase::Retiring).count();
        let starting =
            state.instances.values().filter(|instance| instance.phase == Phase::Starting).count();
        let for_waiting =
            state.waiting.len().div_ceil(concurrency as usize).saturating_sub(starting);
        let for_waiting = if active > 0 && !beyond_first { 0 } else { for_waiting };
        // One that could not be started is tried again even when nobody waits for it, or nobody would learn that it is well.
        let for_health = usize::from(state.start_failures > 0 && active == 0);
        let wanted =
            for_waiting.max((instances_min as usize).saturating_sub(active)).max(for_health);
        let allowed = (instances_max as usize).saturating_sub(active);
        if state.stopping || state.start_not_before.is_some_and(|at| Instant::now() < at) {
            return;
        }
        for _ in 0..wanted.min(allowed) {
            state.instances_ever += 1;
            let id = state.instances_ever;
            let (ask, asked) = watch::channel(Ask::Run);
            let (logs, now) = (Arc::new(Logs::default()), Instant::now());
            let instance = Instance {
                phase: Phase::Starting,
                idle: Vec::new(),
                running: HashMap::new(),
                idle_since: now,
                started: now,
                ask,
                logs: Arc::clone(&logs),
            };
            state.instances.insert(id, instance);
            self.measures.starts.increment(1);
            tokio::spawn(instance::run(Arc::clone(self), id, asked, logs));
        }
    }

    fn end_idle(&self, state: &mut State) {
        let active =
            state.instances.values().filter(|instance| instance.phase != Phase::Retiring).count();
        let mut surplus = active.saturating_sub(self.settings.instances_min as usize);
        let idle = Duration::from_millis(self.settings.idle_ms);
        // The youngest first: work goes to the oldest.
        for instance in state.instances.values_mut().rev() {
            let over = instance.phase == Phase::Ready
                && instance.running.is_empty()
                && instance.idle_since.elapsed() >= idle;
            if over && surplus > 0 {
                instance.retire(Ask::Terminate);
                surplus -= 1;
            }
        }
    }

    /// Ends instances that have answered and then never ask for work again: an invocation ends with the next call of `next`.
    fn end_silent(&self, state: &mut State) {
        for instance in
            state.instances.values_mut().filter(|instance| instance.phase == Phase::Ready)
        {
            instance.idle.retain(|idle| !idle.is_closed());
            if instance.running.is_empty()
                && instance.idle.is_empty()
                && instance.idle_since.elapsed() >= self.timeout()
            {
                tracing::warn!(
                    function = self.name,
                    "a process asks for no more work; it is replaced"
                );
                instance.retire(Ask::Kill);
            }
        }
    }

    /// Whether the instance has not asked for work yet.
    pub fn is_starting(&self, id: u64) -> bool {
        self.lock().instances.get(&id).is_some_and(|instance| instance.phase == Phase::Starting)
    }

    /// Whether it can start, as far as is known.
    pub fn is_well(&self) -> bool {
        self.lock().start_failures < FAILURES_MAX
    }

    /// Refuses new work, gives up what waits and asks all processes to end; returns whether any still runs.
    pub fn stop(&self) -> bool {
        let mut state = self.lock();
        if !state.stopping {
            state.stopping = true;
            for waiting in state.waiting.drain(..) {
                let _ = waiting.answer.send(Err(Refusal::Stopping));
            }
            for instance in state.instances.values_mut() {
                instance.phase = Phase::Retiring;
                instance.idle.clear();
                instance.ask(Ask::Terminate);
            }
        }
        !state.instances.is_empty()
    }

    /// A new X-Ray trace: the time in seconds and 96 random bits, not sampled.
    fn new_trace(&self) -> String {
        let seconds = self.common.clock.now().epoch_ms() / 1_000;
        let mut bytes = [0; 24];
        self.common.random.fill(&mut bytes);
        let [a, b, parent] =
            [0, 8, 16].map(|at| u64::from_ne_bytes(std::array::from_fn(|byte| bytes[at + byte])));
        format!("Root=1-{seconds:08x}-{:08x}{b:016x};Parent={parent:016x};Sampled=0", a as u32)
    }
}

/// The log of one invocation between the lines that Lambda writes around it; of all that the last 4 KiB.
fn framed(id: &str, lines: &[u8], took: Duration, memory_mb: u32) -> Vec<u8> {
    let took_ms = took.as_secs_f64() * 1e3;
    let mut log = format!("START RequestId: {id} Version: $LATEST\n").into_bytes();
    log.extend_from_slice(lines);
    if !lines.is_empty() && !lines.ends_with(b"\n") {
        log.push(b'\n');
    }
    log.extend_from_slice(
        format!("END RequestId: {id}\nREPORT RequestId: {id}\tDuration: {took_ms:.2} ms\tMemory Size: {memory_mb} MB\n").as_bytes(),
    );
    log.drain(..log.len().saturating_sub(TAIL_BYTES));
    log
}
