//! The instances of one function and the requests on their way to them: a [`Dispatcher`] under a
//! lock that is never held across an await, and the channels through which its actions go.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use flashsale::{
    config::FunctionSettings,
    metrics::{
        FUNCTION_CRASHES, FUNCTION_START_SECONDS, FUNCTION_STARTS, FUNCTION_THROTTLES,
        FUNCTION_TIMEOUTS, elapsed,
    },
    ports::Clock,
};
use hyper::body::Bytes;
use metrics::{Counter, Histogram};
use tokio::{
    sync::{oneshot, watch},
    time::Instant,
};

use super::{
    dispatcher::{Action, CallId, Dispatcher, InstanceId, Notice, Overdue, Shutdown},
    invocation::{FunctionError, Refusal},
    logs::Logs,
};

/// How long to wait before checking a request again that is just being answered.
const ANSWER_WAIT: Duration = Duration::from_secs(1);

/// A request on its way to an instance.
#[derive(Debug)]
pub struct Work {
    pub id: String,
    pub payload: Bytes,
    /// In milliseconds since 1970.
    pub deadline_ms: u64,
    pub trace_id: String,
    pub client_context: Option<String>,
}

/// The result of a request, and where its log begins.
pub struct Finished {
    pub result: Result<Bytes, FunctionError>,
    pub log: Option<(Arc<Logs>, u64)>,
}

/// What the caller of a function waits for.
pub struct Submitted {
    /// Receives the deadline once an instance works on the request. Closed without one if the
    /// request is answered before.
    pub begun: oneshot::Receiver<Instant>,
    pub answer: oneshot::Receiver<Result<Finished, Refusal>>,
}

/// An instance that is to be started.
pub struct Launching {
    pub id: InstanceId,
    pub shutdown: watch::Receiver<Option<Shutdown>>,
    pub logs: Arc<Logs>,
}

/// Starts an instance's task.
pub type Launcher = Box<dyn Fn(&Arc<Pool>, Launching) + Send + Sync>;

/// The instances of one function.
pub struct Pool {
    function: String,
    timeout_ms: u64,
    clock: Arc<dyn Clock>,
    launch: Launcher,
    measures: Measures,
    state: Mutex<State>,
}

struct State {
    dispatcher: Dispatcher,
    requests: HashMap<String, Request>,
    instances: HashMap<InstanceId, Instance>,
    calls: HashMap<CallId, oneshot::Sender<Work>>,
    calls_ever: u64,
}

/// A request without an answer.
struct Request {
    /// Present until an instance gets it.
    work: Option<Work>,
    begun: Option<oneshot::Sender<Instant>>,
    answer: oneshot::Sender<Result<Finished, Refusal>>,
    log: Option<(Arc<Logs>, u64)>,
}

impl Request {
    fn finish(self, result: Result<Bytes, FunctionError>) {
        // The caller may have gone.
        let _ = self.answer.send(Ok(Finished { result, log: self.log }));
    }
}

struct Instance {
    shutdown: watch::Sender<Option<Shutdown>>,
    logs: Arc<Logs>,
}

/// The metrics of one function. The counters exist from the start, so that the first event shows as
/// an increase from 0.
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

impl Pool {
    pub fn new(
        function: &str,
        settings: &FunctionSettings,
        clock: Arc<dyn Clock>,
        launch: Launcher,
    ) -> Arc<Self> {
        Arc::new(Self {
            function: function.to_owned(),
            timeout_ms: settings.timeout_ms,
            clock,
            launch,
            measures: Measures::new(function),
            state: Mutex::new(State {
                dispatcher: Dispatcher::new(settings),
                requests: HashMap::new(),
                instances: HashMap::new(),
                calls: HashMap::new(),
                calls_ever: 0,
            }),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends the request to an instance, or queues it.
    pub fn submit(self: &Arc<Self>, work: Work) -> Result<Submitted, Refusal> {
        let mut state = self.lock();
        let id = work.id.clone();
        let actions = state
            .dispatcher
            .submit(id.clone(), Instant::now())
            .inspect_err(|refusal| self.count_refusal(refusal))?;
        let ((begin, begun), (finish, answer)) = (oneshot::channel(), oneshot::channel());
        let request = Request { work: Some(work), begun: Some(begin), answer: finish, log: None };
        state.requests.insert(id, request);
        self.carry_out(&mut state, actions);
        Ok(Submitted { begun, answer })
    }

    fn count_refusal(&self, refusal: &Refusal) {
        if *refusal == Refusal::Throttled {
            self.measures.throttles.increment(1);
        }
    }

    /// A request has waited long enough for the running instances: more may be started.
    pub fn scale(self: &Arc<Self>) {
        let mut state = self.lock();
        let actions = state.dispatcher.scale(Instant::now());
        self.carry_out(&mut state, actions);
    }

    /// Takes a request out of the queue because its caller has gone; false when it is not there any
    /// more.
    pub fn withdraw(&self, request: &str) -> bool {
        let mut state = self.lock();
        let waited = state.dispatcher.withdraw(request);
        if waited {
            state.requests.remove(request);
        }
        waited
    }

    /// Refuses a request that has waited for its whole timeout; `None` if it has left the queue
    /// meanwhile.
    pub fn throttle(&self, request: &str) -> Option<Refusal> {
        self.withdraw(request).then(|| {
            self.measures.throttles.increment(1);
            Refusal::Throttled
        })
    }

    /// Ends a request that has exceeded its time; returns the time of the next check.
    pub fn check_deadline(self: &Arc<Self>, request: &str) -> Instant {
        let mut state = self.lock();
        let now = Instant::now();
        match state.dispatcher.check_deadline(request, now) {
            Overdue::Until(deadline) => return deadline,
            Overdue::TimedOut(actions) => self.carry_out(&mut state, actions),
            Overdue::NotRunning => {}
        }
        now + ANSWER_WAIT
    }

    /// The Runtime API's `next`.
    pub async fn next(self: &Arc<Self>, instance: InstanceId) -> Work {
        let (sender, mut work) = oneshot::channel();
        // Declared after the receiver, so that it is dropped first: no request is sent to a call
        // whose receiver is gone.
        let _call = {
            let mut state = self.lock();
            state.calls_ever += 1;
            let call = state.calls_ever;
            state.calls.insert(call, sender);
            let actions = state.dispatcher.next(instance, call, Instant::now());
            self.carry_out(&mut state, actions);
            NextCall { pool: self, instance, call }
        };
        match (&mut work).await {
            Ok(work) => work,
            // The call gets no answer: as in Lambda, it waits until the process is ended.
            Err(_) => std::future::pending().await,
        }
    }

    /// An instance has answered a request; false when it does not work on this one.
    pub fn answered(
        self: &Arc<Self>,
        instance: InstanceId,
        request: &str,
        result: Result<Bytes, FunctionError>,
    ) -> bool {
        let mut state = self.lock();
        let Some(actions) = state.dispatcher.answered(instance, request, Instant::now()) else {
            return false;
        };
        if let Some(request) = state.requests.remove(request) {
            request.finish(result);
        }
        self.carry_out(&mut state, actions);
        true
    }

    /// An instance can't initialize; false if it was ready or has reported this before.
    pub fn init_failed(self: &Arc<Self>, instance: InstanceId, error: &FunctionError) -> bool {
        let mut state = self.lock();
        let actions = state.dispatcher.init_failed(instance, error, Instant::now());
        actions.map(|actions| self.carry_out(&mut state, actions)).is_some()
    }

    /// An instance's process has ended or could not be started, as `how` describes.
    pub fn ended(self: &Arc<Self>, instance: InstanceId, how: &str) {
        let mut state = self.lock();
        state.instances.remove(&instance);
        let actions = state.dispatcher.ended(instance, how, Instant::now());
        self.carry_out(&mut state, actions);
    }

    /// Ends idle and starts missing instances; false when the function is stopping.
    pub fn tick(self: &Arc<Self>) -> bool {
        let mut state = self.lock();
        let actions = state.dispatcher.tick(Instant::now());
        actions.map(|actions| self.carry_out(&mut state, actions)).is_some()
    }

    /// Refuses new and waiting requests and ends all processes; returns whether any still runs.
    pub fn stop(self: &Arc<Self>) -> bool {
        let mut state = self.lock();
        let actions = state.dispatcher.stop();
        self.carry_out(&mut state, actions);
        !state.dispatcher.is_empty()
    }

    /// Whether the instance has not asked for work yet.
    pub fn is_starting(&self, instance: InstanceId) -> bool {
        self.lock().dispatcher.is_starting(instance)
    }

    /// Whether instances can start, as far as is known.
    pub fn is_healthy(&self) -> bool {
        self.lock().dispatcher.is_healthy()
    }

    fn carry_out(self: &Arc<Self>, state: &mut State, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Start(id) => self.start(state, id),
                Action::End(id, how) => {
                    if let Some(instance) = state.instances.get(&id) {
                        instance.shutdown.send_replace(Some(how));
                    }
                }
                Action::Send { request, instance, call, deadline } => {
                    self.send(state, &request, instance, call, deadline);
                }
                Action::Fail(request, error) => {
                    if let Some(request) = state.requests.remove(&request) {
                        request.finish(Err(error));
                    }
                }
                Action::Refuse(request) => {
                    if let Some(request) = state.requests.remove(&request) {
                        let _ = request.answer.send(Err(Refusal::Stopping));
                    }
                }
                Action::Report(notice) => self.report(notice),
            }
        }
    }

    fn start(self: &Arc<Self>, state: &mut State, id: InstanceId) {
        let ((shutdown, requested), logs) = (watch::channel(None), Arc::new(Logs::default()));
        state.instances.insert(id, Instance { shutdown, logs: Arc::clone(&logs) });
        self.measures.starts.increment(1);
        (self.launch)(self, Launching { id, shutdown: requested, logs });
    }

    fn send(
        &self,
        state: &mut State,
        request: &str,
        instance: InstanceId,
        call: CallId,
        deadline: Instant,
    ) {
        let Some(request) = state.requests.get_mut(request) else { return };
        let (Some(mut work), Some(call)) = (request.work.take(), state.calls.remove(&call)) else {
            return;
        };
        work.deadline_ms =
            u64::try_from(self.clock.now().epoch_ms()).unwrap_or(0) + self.timeout_ms;
        let logs = state.instances.get(&instance).map(|instance| &instance.logs);
        request.log = logs.map(|logs| (Arc::clone(logs), logs.mark()));
        // This can't fail: see `next`.
        let _ = call.send(work);
        if let Some(begun) = request.begun.take() {
            // A caller that has gone has dropped its receiver.
            let _ = begun.send(deadline);
        }
    }

    fn report(&self, notice: Notice) {
        let function = &self.function;
        match notice {
            Notice::Ready(after) => self.measures.start_seconds.record(elapsed(after)),
            Notice::InitFailed(error) => {
                tracing::warn!(function, error = error.brief(), "can't get ready");
            }
            Notice::Crashed(how) => {
                tracing::warn!(function, how, "the process ended");
                self.measures.crashes.increment(1);
            }
            Notice::TimedOut(invocation) => {
                tracing::warn!(function, invocation, "timed out; the process is replaced");
                self.measures.timeouts.increment(1);
            }
            Notice::Silent => {
                tracing::warn!(function, "a process asks for no more work; it is replaced");
            }
        }
    }
}

/// A call of `next`, withdrawn when its connection is lost.
struct NextCall<'a> {
    pool: &'a Pool,
    instance: InstanceId,
    call: CallId,
}

impl Drop for NextCall<'_> {
    fn drop(&mut self) {
        let mut state = self.pool.lock();
        state.calls.remove(&self.call);
        state.dispatcher.next_dropped(self.instance, self.call);
    }
}
